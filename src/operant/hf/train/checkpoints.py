"""The checkpoints of a job: which of them are whole, and what of its record belongs to one."""

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
"""What a checkpoint holds -> how its files are called. DeepSpeed has all but the first in a folder global_step*."""


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps."""
    return max(_checkpoints(folder), key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Steps that were taken when it was written; 0 for none."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def go_back(folder: Path, record: Path, *, last: int) -> None:
    """Make the newest whole checkpoint the newest one, and the record what it was then.

    Damaged checkpoints are removed, and said to be: the trainer would go on from them, or delete whole ones for them.
    Records of steps that will be taken again are dropped, and those of the final evaluation, which is made anew.

    Args:
        folder: the job's.
        record: the job's.
        last: the last step of the job.
    """
    told: list[str] = []
    while (checkpoint := newest(folder)) and (trouble := damage(checkpoint)):
        shutil.rmtree(checkpoint)
        before = newest(folder)
        told.append(
            f"{checkpoint} is damaged ({trouble}) and was removed: training goes on from "
            f"{before.name if before else 'the start'}."
        )
    step = step_of(newest(folder))
    if record.is_file():
        write_records(record, [r for r in read_records(record) if step and _is_past(r, step, last)])
    for text in told:
        logging.getLogger(__name__).warning(text)
        append_record(record, "warning", step=step, text=text)


def damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint: the first file that is missing, or cannot be read to its end; else ""."""
    names = [path.name for path in checkpoint.iterdir()]
    sharded = any(fnmatch(name, "global_step*") for name in names)
    for what, patterns in list(NEEDED.items())[: 1 if sharded else None]:
        if not any(fnmatch(name, pattern) for name in names for pattern in patterns):
            return f"it has no {what}"
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file()):
        try:
            _read(path)
        except Exception as error:  # whatever a reader has against a file that was cut off or written over
            return f"{path.name}: {error}"
    state = json.loads((checkpoint / "trainer_state.json").read_bytes())
    if not isinstance(state, dict) or state.get("global_step") != step_of(checkpoint):
        return "trainer_state.json is not of this step"
    return ""


def clear(folder: Path) -> None:
    """Remove what a finished job does not need: its checkpoints, and the card that TRL writes for them."""
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint)
    (folder / "README.md").unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[Path]:
    return [p for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdecimal()]


def _is_past(record: dict[str, object], step: int, last: int) -> bool:
    """Whether a record stays when training goes on from a step."""
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
