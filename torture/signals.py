"""Real processes with their workers: interrupts, two runs on one folder, damaged checkpoints, a killed worker."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from torture.commands import COMMANDS, difference, here, prepare, state
from torture.work import Tell, Unit, forked

SECONDS = 25.0
"""What a command with workers of its own takes, most of it imports."""
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143}
LONG = {
    "train sft": (
        "train",
        "--strategies=[pass@4]",
        "--warm_steps=4",
        "--steps=3000",
        "--eval_steps=20",
        "--save_steps=20",
    ),
    "evaluate": ("evaluate", "--rollouts=16", "--verifier=exact", "--data.test_limit=1500", "--batch_size=2"),
}
"""Commands that no signal comes too late for."""


def units(root: Path, wanted: dict[str, dict[str, Any]], *, each: int, damaged: int, seed: int) -> list[Unit]:
    """Signals at random times, two runs at once, a killed worker, and checkpoints that were damaged."""
    rng, found = random.Random(seed), list[Unit]()
    for number in ENDS:
        row = f"{number.name} to the main process alone"
        for name in ("train sft", "evaluate"):
            for i in range(each):
                run = _interrupted(name, number, rng.uniform(0.5, 25), root, f"{number.name}-{i}", wanted[name])
                found.append(Unit(row, f"{name} {i}", 2 * SECONDS, run, 1800))
    for i in range(each):
        found.append(Unit("two runs at once", str(i), SECONDS, _twice(root, f"twice-{i}"), 1800))
        found.append(Unit("a worker killed", str(i), SECONDS, _no_worker(root, f"worker-{i}", rng.uniform(0, 3)), 1800))
    for name in ("train sft", "train grpo"):
        run = _damaged(name, damaged, seed, root, wanted[name])
        cost = 2.5 * damaged * COMMANDS[name].seconds
        found.append(Unit("damaged checkpoints", name, cost, run, 1800 + 20 * cost))
    return found


def _start(folder: Path, args: tuple[str, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "operant.cli", *args],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr").open("w"),
        text=True,
        start_new_session=True,
    )


def _family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def _begun(process: subprocess.Popen[str], folder: Path, name: str) -> bool:
    """Wait until the command trains or samples."""
    mark = "seed0/*/record.jsonl" if name.startswith("train") else "sampling.jsonl"
    deadline = time.monotonic() + 900
    while not any(folder.glob(f"run/{mark}")):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _interrupted(
    name: str, number: signal.Signals, after: float, root: Path, label: str, wanted: dict[str, Any]
) -> Callable[[Tell], None]:
    """Some signals come while Python still imports, which ends as Python ends; most while the command works."""

    def run(tell: Tell) -> None:
        folder = _room(root, name, label)
        process = _start(folder, (*LONG[name], "--output_dir=run"))
        if after > 5:
            _begun(process, folder, name)
            time.sleep((after - 5) / 10)
        else:
            time.sleep(after)
        others = _family(process)
        process.send_signal(number)
        try:
            code = process.wait(600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            tell(1, 0, f"{name}: {number.name} after {after:.1f} s, and it goes on")
            return
        _, alive = psutil.wait_procs(others, timeout=10)
        said = (folder / "stderr").read_text(errors="replace")
        trouble = ""
        if alive:
            trouble = f"{len(alive)} processes go on"
        elif after <= 5 and not (folder / "run").exists() and code in (-number, ENDS[number]):
            pass
        elif "Traceback" in said or code != ENDS[number]:
            trouble = f"exit code {code}: {said[-1500:]}"
        elif after > 5 and not trouble:
            trouble = _goes_on(folder, name)
        tell(1, int(not trouble), trouble and f"{name}: {number.name} after {after:.1f} s: {trouble}")
        shutil.rmtree(folder, ignore_errors=True)

    return run


def _goes_on(folder: Path, name: str) -> str:
    """Whether the run can be continued: it is, until it takes further records, and is then killed."""
    before = sum(p.stat().st_size for p in folder.glob("run/**/*.jsonl"))
    process = _start(folder, (*LONG[name], "--output_dir=run", "--resume=true"))
    deadline = time.monotonic() + 900
    grown = False
    while process.poll() is None and time.monotonic() < deadline and not grown:
        time.sleep(0.2)
        with suppress(FileNotFoundError):
            grown = sum(p.stat().st_size for p in folder.glob("run/**/*.jsonl")) > before + 2000
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return "" if grown else f"it does not go on: {(folder / 'stderr').read_text(errors='replace')[-1500:]}"


def _twice(root: Path, label: str) -> Callable[[Tell], None]:
    def run(tell: Tell) -> None:
        name = "train sft"
        folder = _room(root, name, label)
        first = _start(folder, (*LONG[name], "--output_dir=run"))
        try:
            _begun(first, folder, name)
            for again in ((), ("--resume=true",)):
                code = _in(folder, here((*LONG[name], "--output_dir=run", *again)))
                said = (folder / "log").read_text(errors="replace")
                good = code == 2 and "is in use" in said and "Traceback" not in said and first.poll() is None
                tell(1, int(good), None if good else f"a second run {again}: exit code {code}: {said[-1500:]}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            shutil.rmtree(folder, ignore_errors=True)

    return run


def _no_worker(root: Path, label: str, after: float) -> Callable[[Tell], None]:
    def run(tell: Tell) -> None:
        for name in ("train sft", "evaluate"):
            folder = _room(root, name, label)
            process = _start(folder, (*LONG[name], "--output_dir=run"))
            _begun(process, folder, name)
            time.sleep(after)
            for worker in _family(process):
                with suppress(psutil.NoSuchProcess):
                    if "spawn_main" in " ".join(worker.cmdline()):
                        worker.kill()
            try:
                code = process.wait(600)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            said = (folder / "stderr").read_text(errors="replace")
            good = code == 2 and "worker process was killed" in said and "Traceback" not in said
            trouble = _goes_on(folder, name) if good else f"exit code {code}: {said[-1500:]}"
            tell(1, int(not trouble), trouble and f"{name}, worker killed: {trouble}")
            shutil.rmtree(folder, ignore_errors=True)

    return run


def _damaged(name: str, count: int, seed: int, root: Path, wanted: dict[str, Any]) -> Callable[[Tell], None]:
    """Stopped in its last branch, with one file of its newest checkpoint cut, emptied, changed or gone."""

    def run(tell: Tell) -> None:
        from torture.kills import watched

        command = COMMANDS[name]
        rng = random.Random(f"{seed} {name}")
        whole = int((root / name.replace(" ", "-") / "whole" / "events").read_text())
        for i in range(count):
            folder = _room(root, name, f"damaged-{i}")
            _in(folder, watched(command, command.args, rng.randint(whole // 3, whole)))
            checkpoints = sorted(folder.glob("run/seed0/*/checkpoint-*/*"))
            told = "no checkpoint"
            if checkpoints:
                told = _damage(rng.choice(checkpoints), rng)
            code = _in(folder, here(command.again))
            said = (folder / "log").read_text(errors="replace")
            trouble = difference(wanted, state(folder / "run")) if code == 0 else f"exit code {code}: {said[-1500:]}"
            tell(1, int(not trouble), trouble and f"{name}, {told}: {trouble}")
            shutil.rmtree(folder, ignore_errors=True)

    return run


def _damage(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    how = rng.choice(["cut", "emptied", "changed", "gone"])
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: rng.randint(0, max(0, len(data) - 1))])
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        path.write_bytes(bytes(len(data)))
    return f"{path.parent.name}/{path.name} {how}"


def _room(root: Path, name: str, label: str) -> Path:
    folder = root / "signals" / name.replace(" ", "-") / label
    shutil.rmtree(folder, ignore_errors=True)
    prepare(folder)
    return folder


def _in(folder: Path, run: Callable[[], int]) -> int:
    def inside() -> int:
        os.chdir(folder)
        return run()

    return forked(inside, folder / "log")
