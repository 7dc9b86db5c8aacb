"""Units of work in forks of this process, which has imported everything once: a fork costs milliseconds."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.table import Table

Tell = Callable[..., None]
"""``tell(tried, survived, trouble)`` from inside a unit."""


@dataclass(frozen=True)
class Unit:
    """Trials that one fork does, one after another.

    Args:
        row: the class that they belong to.
        name: which of them, for a unit that ends without a word.
        cost: seconds that it should take.
        run: does them and tells each result.
        limit: seconds after which it is killed.
    """

    row: str
    name: str
    cost: float
    run: Callable[[Tell], None]
    limit: float = 600.0


@dataclass
class _Running:
    unit: Unit
    pid: int
    pipe: int
    began: float
    text: bytes = b""


def forked(function: Callable[[], Any], log: Path, *, seconds: float = 900.0) -> int:
    """Run a function in a fork with its output in ``log``; its exit code, or minus the signal that ended it.

    What it started and left behind is killed with it.
    """
    pid = os.fork()
    if pid == 0:
        code = 70  # a bug of ours, or of a trial
        try:
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            code = function() or 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 2
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status = signal.SIGALRM
            break
        time.sleep(0.002)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def run_units(units: Sequence[Unit], table: Table, slots: int, show: Callable[[str], None]) -> None:
    """Run all units, ``slots`` at once, the longest first, and count what they tell."""
    waiting = sorted(units, key=lambda u: -u.cost)
    total, spent, began = sum(u.cost for u in units), 0.0, time.monotonic()
    running: list[_Running] = []
    for unit in units:
        table.row(unit.row)
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                running.append(_start(waiting.pop(0)))
            ready, _, _ = select.select([r.pipe for r in running], [], [], 1.0)
            for job in [r for r in running if r.pipe in ready]:
                data = os.read(job.pipe, 1 << 16)
                job.text += data
                *lines, job.text = job.text.split(b"\n")
                for line in lines:
                    table.add(job.unit.row, *json.loads(line))
                if not data:
                    running.remove(job)
                    spent += job.unit.cost
                    _end(job, table)
            for job in running:
                if time.monotonic() - job.began > job.unit.limit:
                    table.add(job.unit.row, 1, 0, f"{job.unit.name}: no end after {job.unit.limit:.0f} s")
                    with suppress(ProcessLookupError):
                        os.killpg(job.pid, signal.SIGKILL)
            passed = time.monotonic() - began
            here = sum(min(time.monotonic() - r.began, r.unit.cost) for r in running)
            pace = passed / max(spent + here, 1.0)
            left = max(0.0, total - spent - here) * pace / 60
            show(f"{passed / 60:.1f} min, {table_line(table)}, {left:.0f} min to go")
    finally:
        for job in running:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)


def table_line(table: Table) -> str:
    """How many were tried and survived so far."""
    tried, survived = (sum(getattr(r, n) for r in table.rows.values()) for n in ("tried", "survived"))
    return f"{survived:,} of {tried:,} survived"


def _start(unit: Unit) -> _Running:
    there, here = os.pipe()
    pid = os.fork()
    if pid:
        os.close(here)
        return _Running(unit, pid, there, time.monotonic())
    code = 0
    try:
        os.setsid()
        os.close(there)

        def tell(tried: int = 1, survived: int = 0, trouble: str | None = None) -> None:
            data = json.dumps([tried, survived, trouble and trouble[:4000]]).encode() + b"\n"
            while data:
                data = data[os.write(here, data) :]

        try:
            unit.run(tell)
        except BaseException:
            tell(1, 0, f"{unit.name}: {traceback.format_exc()[-3000:]}")
    finally:
        os._exit(code)


def _end(job: _Running, table: Table) -> None:
    os.close(job.pipe)
    _, status = os.waitpid(job.pid, 0)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(job.pid, signal.SIGKILL)
    if os.WIFSIGNALED(status):
        table.add(job.unit.row, 1, 0, f"{job.unit.name}: ended by signal {os.WTERMSIG(status)}")
