"""``--keep best``: the weights of the evaluated step at which the strategy is worth most on the held-out prompts.

The step is chosen on all held-out prompts. What is reported of the branch is not: every metric has, on each half of the
prompts, its value at the step that the other half chose.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from operant.core.record import append_record, read_records
from operant.hf.config import TrainConfig
from operant.hf.folder import Column
from operant.hf.train.checkpoints import KEPT, present, step_of
from operant.hf.train.choice.halves import cross_fitted
from operant.hf.train.job import Job
from operant.hf.workers import barrier, is_main
from operant.strategies import parse

FILE = "steps.jsonl"
"""The values of every held-out prompt at every evaluated step, in the folder of the job."""
RECORD = "kept_step"
"""The kind of record that says which step was kept."""
_PART = ".part"


class Kept(NamedTuple):
    """The step whose weights are kept, the metric that chose it, and its mean there and at the last step."""

    step: int
    metric: str
    value: float
    last: float


class Keeper:
    """Keeps the weights of the best evaluated step of a job.

    ``kept/`` holds the best step so far and the best one up to each checkpoint, from which a killed run may resume.

    Args:
        job: the job; a baseline is judged by the first strategy of the run, a branch by its own.
        config: of the run.
        save: writes the weights of the trainer into a folder; called on all processes.
    """

    def __init__(self, job: Job, config: TrainConfig, save: Callable[[str], None]) -> None:
        self.job, self.save = job, save
        self.strategy = parse(config.strategies[0] if job.baseline else job.strategy)
        self.metric = str(self.strategy)
        self.means = {r["step"]: r["mean"] for r in _records(job)}

    def see(self, step: int, columns: Mapping[str, Column], log_p: Tensor | None) -> None:
        """Record the values of an evaluation, and keep the weights if no earlier step had a higher one."""
        values = {name: column.values for name, column in columns.items()}
        if self.metric not in values and log_p is not None:  # a mixture, of which the columns show the parts
            values[self.metric] = self.strategy.success(log_p).log_s.exp()
        self.means[step] = values[self.metric].mean().item()
        best = self._best(step)
        if best == step:
            path = self.job.folder / KEPT / f"step-{step}"
            self.save(f"{path}{_PART}")
            barrier()
            if is_main():
                shutil.rmtree(path, ignore_errors=True)
                path.with_name(path.name + _PART).rename(path)
        if is_main():
            listed = {name: value.tolist() for name, value in values.items()}
            append_record(self.job.folder / FILE, "values", step=step, mean=self.means[step], values=listed)
            ends = [step, *map(step_of, present(self.job.folder))]
            _remove(self.job, {self._best(end) for end in ends})

    def finish(self) -> Kept:
        """Write the best weights into the folder of the model; the first process does."""
        steps = sorted(self.means)
        best = max(steps, key=lambda s: self.means[s])  # the first of the best
        if is_main():
            target = self.job.folder / "model"
            part = target.with_name(target.name + _PART)
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(self.job.folder / KEPT / f"step-{best}", part)
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
        return Kept(best, self.metric, self.means[best], self.means[steps[-1]])

    def _best(self, until: int) -> int | None:
        """The first of the best steps until one; None before the first evaluation."""
        return max((s for s in sorted(self.means) if s <= until), key=lambda s: self.means[s], default=None)


def go_back(job: Job) -> None:
    """Remove weights of steps that a resumed run has yet to take. The file of values is trimmed before."""
    _remove(job, {r["step"] for r in _records(job)})


def reported(job: Job, columns: Mapping[str, Column]) -> tuple[dict[str, Column], list[dict[str, Any]]]:
    """Every metric at the step that the other half of the prompts chose for it, and these choices.

    Args:
        job: its evaluations are recorded.
        columns: of the last evaluation. A metric that an earlier one lacks keeps its value there.
    """
    found, choices = dict(columns), list[dict[str, Any]]()
    for name, column in columns.items():
        values = step_values(job, name)
        if len(values) == len(_records(job)):
            fitted, chosen = cross_fitted(values, job.seed, lambda x: x)
            found[name] = Column(column.family, column.n, fitted)
            choices.append({"kind": "chosen", "metric": name, "settings": [{"step": step} for step in chosen]})
    return found, choices


def step_values(job: Job, metric: str) -> dict[int, Tensor]:
    """Step -> the values (B,) of a metric; empty unless the job keeps its best step."""
    return {
        r["step"]: torch.tensor(r["values"][metric], dtype=torch.float64)
        for r in _records(job)
        if metric in r["values"]
    }


def kept_value(job: Job) -> Kept | None:
    """What a job that is done has kept; None unless it keeps its best step."""
    found = [r for r in read_records(job.record) if r["kind"] == RECORD] if job.record.is_file() else []
    return Kept(*(found[-1][name] for name in Kept._fields)) if found else None


def _records(job: Job) -> Sequence[dict[str, Any]]:
    """The recorded evaluations by step; of two of one step the later."""
    path = job.folder / FILE
    found = {r["step"]: r for r in read_records(path) if r["kind"] == "values"} if path.is_file() else {}
    return [found[step] for step in sorted(found)]


def _remove(job: Job, wanted: set[Any]) -> None:
    names = {f"step-{step}" for step in wanted}
    for path in (job.folder / KEPT).glob("step-*"):
        if path.name not in names:
            shutil.rmtree(path)
