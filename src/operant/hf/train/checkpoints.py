"""The checkpoints of a job: finding damaged ones, and cutting the record back to the one that is resumed."""

from __future__ import annotations

import json
import logging
import shutil
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

from safetensors import safe_open

from operant.core.record import append_record, read_records, write_records

NEEDED = {
    "trainer_state.json": ("trainer_state.json",),
    "weights": ("*model*.safetensors", "*model*.bin"),
    "optimizer": ("optimizer*",),
    "scheduler.pt": ("scheduler.pt",),
    "random states": ("rng_state*.pth",),
}
"""Part of a checkpoint -> patterns of its files. DeepSpeed keeps all but the first in a folder global_step*."""


KEPT = "kept"
"""The folder of a job with the weights of its best steps, for --keep best."""


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps; None if there is none."""
    return max(present(folder), key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Number of steps before a checkpoint was written; 0 for None."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def go_back(folder: Path, record: Path, *, last: int) -> None:
    """Remove checkpoints that are damaged, and records that are newer than the newest checkpoint that is left.

    The trainer would resume from a damaged checkpoint, or delete sound ones to keep it. Each removal is logged and
    recorded as a warning. The record also loses the final evaluation, which is computed again.

    Args:
        folder: folder of the job.
        record: record of the job.
        last: last step of the job.
    """
    warnings: list[str] = []
    while (checkpoint := newest(folder)) and (trouble := damage(checkpoint)):
        shutil.rmtree(checkpoint)
        before = newest(folder)
        warnings.append(
            f"{checkpoint} is damaged ({trouble}) and was removed: training resumes from "
            f"{before.name if before else 'the start'}."
        )
    trim(folder, record, last=last)
    for text in warnings:
        logging.getLogger(__name__).warning(text)
        append_record(record, "warning", step=step_of(newest(folder)), text=text)


def trim(folder: Path, record: Path, *, last: int) -> None:
    """Remove the records that are newer than the newest checkpoint, and those of the last step's evaluation."""
    step = step_of(newest(folder))
    if record.is_file():
        write_records(record, [r for r in read_records(record) if step and _is_past(r, step, last)])


def damage(checkpoint: Path) -> str:
    """The first defect of a checkpoint, a file that is missing or cannot be read to its end; "" if it is sound."""
    names = [path.name for path in checkpoint.iterdir()]
    sharded = any(fnmatch(name, "global_step*") for name in names)
    for what, patterns in list(NEEDED.items())[: 1 if sharded else None]:
        if not any(fnmatch(name, pattern) for name in names for pattern in patterns):
            return f"it has no {what}"
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file()):
        try:
            _read(path)
        except Exception as error:  # readers raise many kinds of errors for a truncated or overwritten file
            return f"{path.name}: {error}"
    state = json.loads((checkpoint / "trainer_state.json").read_bytes())
    if not isinstance(state, dict) or state.get("global_step") != step_of(checkpoint):
        return "trainer_state.json is of another step"
    return ""


def clear(folder: Path, *, every: bool = False) -> None:
    """Remove the checkpoints of a finished job, and the model card that TRL writes for them; ``every`` stays."""
    for checkpoint in [] if every else present(folder):
        shutil.rmtree(checkpoint)
    shutil.rmtree(folder / KEPT, ignore_errors=True)
    (folder / "README.md").unlink(missing_ok=True)


def present(folder: Path) -> list[Path]:
    """The checkpoints of a job, in no order."""
    return [p for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdecimal()]


def _is_past(record: dict[str, object], step: int, last: int) -> bool:
    """Whether a record stays when training resumes from a step."""
    at = record.get("step", 0)
    if record["kind"] == "done" or not isinstance(at, int) or at > step:
        return False
    return at < last or record["kind"] == "step"


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as tensors:  # compares the length of the file with its header
            tensors.keys()
    elif path.suffix in (".pt", ".pth", ".bin"):
        with ZipFile(path) as archive:
            if broken := archive.testzip():
                raise ValueError(f"{broken} was changed")
