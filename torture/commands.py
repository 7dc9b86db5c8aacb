"""Small commands of every verb, and the state of a folder that two runs must share."""

from __future__ import annotations

import contextlib
import csv
import functools
import gc
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import operant.cli
import operant.cli.parser
import operant.hf.train.settings
from operant.hf.rollouts.prompts import DataConfig
from tests import inline

DATA = ["--data.train_limit=32", "--data.test_limit=8", "--threads=1"]
LOOSE = ("time", "seconds")
"""Fields of a record that a clock fills."""
UNSTABLE = ("training_args.bin", ".lock")
"""Files with a clock or the process in them, or that only mark a folder."""


@dataclass(frozen=True)
class Command:
    """A small command.

    Args:
        args: what is given to operant; it writes to ``run`` below the working folder.
        again: the same, to go on with what was killed.
        done: exit codes of a continuation that ends well; 2 says that the folder is finished already.
        folder: what it writes, below the working folder.
        seconds: what it should take.
    """

    args: tuple[str, ...]
    again: tuple[str, ...]
    done: tuple[int, ...] = (0,)
    folder: str = "run"
    seconds: float = 1.0


def _resumable(seconds: float, *args: str) -> Command:
    whole = (*args, "--output_dir=run")
    return Command(whole, (*whole, "--resume=true"), seconds=seconds)


def _anew(*args: str, seconds: float = 0.3) -> Command:
    whole = (*args, "--output_dir=run")
    return Command(whole, whole, done=(0, 2), seconds=seconds)


COMMANDS = {
    "train sft": _resumable(
        0.7,
        *("train", "--strategies=[pass@4]", "--warm_steps=2", "--steps=4", "--eval_steps=2", "--save_steps=2"),
        *("--baseline=false", "--logging_steps=1", "--per_device_train_batch_size=8", "--learning_rate=1e-3", *DATA),
    ),
    "train grpo": _resumable(
        1.0,
        *("train", "--method=grpo", "--strategies=[pass@4]", "--warm_steps=2", "--steps=4", "--eval_steps=2"),
        "--baseline=false",  # the demo trains one beside its branches
        *("--save_steps=2", "--logging_steps=1", "--num_generations=8", "--per_device_train_batch_size=16"),
        *("--learning_rate=1e-3", "--verifier=exact", "--eval_rollouts=4", "--budgets=[1, 4]", *DATA),
    ),
    "evaluate": _resumable(
        0.3,
        *("evaluate", "--rollouts=4", "--verifier=exact", "--data.test_limit=24", "--batch_size=4"),
        "--max_new_tokens=6",
    ),
    "demo": replace(
        _anew("demo", "--seeds=1", "--warm_steps=2", "--steps=2", "--jobs=1", "--open=false", seconds=1.1), done=(0,)
    ),
    "plan": _anew("plan", "rollouts.jsonl"),
    "audit": _anew("audit", "--n=2", "--m=4", "--rules=[grpo]"),
    "extrapolate": _anew(
        *("extrapolate", "bank.csv", "--target=target.csv", "--task=T", "--x=x", "--y=y", "--params=T"),
        "--operator=shift * xshift",
    ),
    "report": Command(("report", "finished"), ("report", "finished"), folder="finished/report", seconds=4.0),
}


def prepare(folder: Path) -> None:
    """The files that the commands read."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": i // 4, "reward": float(i % 3 == 0), "answer": str(i % 3)} for i in range(32)]
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    points = [(t, x / 4, (x / 4 - t / 3) ** 2 + t / 5) for t in range(5) for x in range(12)]
    for name, wanted in {"bank": range(4), "target": [4]}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("T", "x", "y"), *(p for p in points if p[0] in wanted)])


def here(args: tuple[str, ...], *, page: bool = False) -> Callable[[], int]:
    """The command in this process; without its page, which is a command of its own."""

    def run() -> int:
        inline.stay_here()
        if not page:
            operant.cli._report = lambda *a, **k: None  # pyright: ignore[reportPrivateUsage]
        whole = operant.hf.train.settings.demo_config

        def small(*a: Any, **k: Any) -> Any:
            """The demo on 40 of its prompts."""
            data = DataConfig(train_limit=32, test_limit=8)
            return replace(whole(*a, **k), data=data, per_device_train_batch_size=8, threads=1)

        operant.hf.train.settings.demo_config = small
        return operant.cli.main(list(args))

    return run


def warm(root: Path) -> None:
    """Do everything once in this process, so that forks of it find every module, cache and parser made.

    What is there then is kept from the garbage collector, which accelerate calls after each job: it would go through
    all modules every time.
    """
    kept = operant.cli._report, operant.hf.train.settings.demo_config  # pyright: ignore[reportPrivateUsage]
    operant.cli.parser.parser_of_verbs = functools.cache(operant.cli.parser.parser_of_verbs)
    prepare(root)
    before = os.getcwd()
    os.chdir(root)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for name in ("train sft", "train grpo", "evaluate", "plan", "audit", "extrapolate"):
                here(tuple(a.replace("=run", f"=run-{name.split()[-1]}") for a in COMMANDS[name].args))()
    finally:
        os.chdir(before)
        operant.cli._report, operant.hf.train.settings.demo_config = kept  # pyright: ignore[reportPrivateUsage]
        shutil.rmtree(root)
    gc.collect()
    gc.freeze()


def state(folder: Path) -> dict[str, Any]:
    """What a folder holds: records without clocks, and of all other files a hash."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.name in UNSTABLE:
            continue
        if path.name == "record.jsonl":
            found[name] = _records(path)
        elif path.name == "config.json" and path.parent == folder:
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "resume"}
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def _records(path: Path) -> list[dict[str, Any]] | str:
    """Records without clocks; a run that was begun several times says so, and only once here."""
    try:
        records = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    except ValueError as error:
        return f"damaged: {error}"
    plain = [{k: v for k, v in r.items() if k not in LOOSE} for r in records if not _fell_back(r)]
    for record in plain:
        if record.get("kind") == "run":
            record["config"] = {k: v for k, v in record["config"].items() if k != "resume"}
    begun = [r for r in plain if r.get("kind") in ("run", "environment")]
    once = [r for i, r in enumerate(begun) if r not in begun[:i]]
    return once + [r for r in plain if r.get("kind") not in ("run", "environment")]


def _fell_back(record: dict[str, Any]) -> bool:
    """A continuation says in the record that a checkpoint was half written."""
    return record.get("kind") == "warning" and "training resumes from" in record["text"]


def difference(wanted: dict[str, Any], got: dict[str, Any]) -> str:
    """What differs between two states, "" if nothing."""
    told = [f"{n} is missing" for n in wanted.keys() - got.keys()]
    told += [f"{n} is too many" for n in got.keys() - wanted.keys()]
    for name in wanted.keys() & got.keys():
        if wanted[name] != got[name]:
            told.append(f"{name}: {_first_difference(wanted[name], got[name])}")
    return "; ".join(sorted(told))


def _first_difference(wanted: Any, got: Any) -> str:
    if not isinstance(wanted, list) or not isinstance(got, list):
        return f"{str(wanted)[:300]} != {str(got)[:300]}"
    kinds = [" ".join(f"{r.get('kind')}{r.get('step', '')}" for r in records) for records in (wanted, got)]
    i = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    return f"[{kinds[0]}] != [{kinds[1]}], first at {i}: {str(wanted[i : i + 1])[:300]} != {str(got[i : i + 1])[:300]}"
