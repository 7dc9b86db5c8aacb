"""Jobs in processes of their own, and a bar for each that shows what it records: steps, loss and targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

import operant.hf.workers as workers
from operant.core.progress import LoggedProgress
from operant.core.record import read_records, write_records


@dataclass(frozen=True)
class Watched:
    """A job and where its progress is read.

    Args:
        label: what its bar says.
        run: takes ``config``; it appends records of the kinds "step" (step, loss) and "target" to ``record``.
        config: its settings.
        record: the file.
        steps: steps of training; 0 if there are none.
        targets: records of the kind "target" that it writes.
    """

    label: str
    run: Callable[[Any], None]
    config: Any
    record: Path
    steps: int
    targets: int


def watch(jobs: Sequence[Watched], *, threads: int | None) -> None:
    """Run the jobs at once, each in a process of its own, until all are done; the first error is raised.

    Args:
        jobs: at least one.
        threads: CPU threads of each process; None is one a core.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    pool_of, count = workers.worker_pool, len(jobs)
    with pool_of(count, threads=threads) as pool, LoggedProgress(*columns, TextColumn("{task.fields[loss]}")) as bars:
        running: dict[Future[None], tuple[Watched, TaskID, TaskID]] = {}
        for job in jobs:
            train = bars.add_task(f"{job.label}: training", total=job.steps, loss="", visible=bool(job.steps))
            adapt = bars.add_task(f"{job.label}: targets", total=job.targets, loss="", visible=False)
            running[pool.submit(job.run, job.config)] = (job, train, adapt)
        waiting = set(running)
        while waiting:
            done, waiting = wait(waiting, timeout=0.5)
            for job, train, adapt in running.values():
                _show(job, bars, train, adapt)
            for future in done:
                future.result()


def go_back(record: Path, step: int) -> None:
    """Remove the steps after the checkpoint from which training goes on."""
    if record.is_file():
        write_records(record, [r for r in read_records(record) if r["kind"] != "step" or r["step"] <= step])


def _show(job: Watched, bars: Progress, train: TaskID, adapt: TaskID) -> None:
    records = read_records(job.record) if job.record.is_file() else []
    steps = [r for r in records if r["kind"] == "step"]
    if steps and job.steps:
        bars.update(train, completed=steps[-1]["step"], loss=f"loss {steps[-1]['loss']:.3f}")
    if done := sum(r["kind"] == "target" for r in records):
        bars.update(adapt, completed=done, visible=True)
