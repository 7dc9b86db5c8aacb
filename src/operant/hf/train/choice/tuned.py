"""What held-out prompts choose: the learning rate of a branch, the step and the temperature of the baseline of SFT.

Every budget has its own choice. A hotter or colder sampler, an earlier step and another learning rate need no training
for a strategy: the gains of a run are gains over the tuned baseline.

Settings are chosen on one half of the held-out prompts and reported on the other, and the other way round: every prompt
has a value, and no setting was chosen on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from operant.core.checks import DataError
from operant.core.record import append_record, read_records, write_records
from operant.hf.config import TrainConfig
from operant.hf.folder import Column, summary, write_job, write_prompts
from operant.hf.train.choice.halves import cross_fitted, has_success
from operant.hf.train.choice.steps import kept_value, step_values
from operant.hf.train.job import Job
from operant.strategies import PassAt, Strategy, parse
from operant.strategies.mixture import budgets_of

FILE = "temperatures.jsonl"
"""Log-probabilities of the answers at every evaluated step and temperature, in the folder of the baseline's job."""
REFERENCE = "reference"
"""Role of a branch that is shown beside the others and is neither trained for a strategy nor compared with."""
RATE = "rate"
"""Role of a job at one of several learning rates: its branch is shown with what was chosen."""
BEST_T = "best T"
BEST = "best step and T"
BEST_OF_ALL = "best rate, step and T"
"""What is chosen: names of the rows."""


class Setting(NamedTuple):
    """A sampling temperature at a step of the training with a learning rate."""

    rate: float
    step: int
    temperature: float


class Chosen(NamedTuple):
    """The learning rate of a branch whose model is kept, and the mean of the metric that chose it at every rate."""

    rate: float
    metric: str
    values: dict[float, float]
    model: Path


def is_tuned(job: Job, config: TrainConfig) -> bool:
    """Whether step and temperature of this job are tuned: those of the baseline of SFT, whose evaluation is exact."""
    return job.baseline and job.method == "sft" and not config.eval_rollouts and bool(config.eval_temperatures)


def exact_metrics(config: TrainConfig) -> list[Strategy]:
    """pass@k at every budget, and every strategy of the run at its own budget; of a mixture, its parts."""
    own = [s for text in config.strategies for s in budgets_of(parse(text))]
    return [*(PassAt(k) for k in config.budgets), *filter(has_success, own)]


def record_temperatures(folder: Path, step: int, log_p: dict[float, Tensor]) -> None:
    """Append the log-probabilities (B,) of an evaluation at each temperature."""
    for temperature, values in log_p.items():
        append_record(folder / FILE, "log_p", step=step, temperature=temperature, log_p=values.tolist())


def write_tuned(jobs: Sequence[Job], ids: Sequence[Any], metrics: Sequence[Strategy]) -> bool:
    """Write the rows "best T" and "best step and T" beside the baseline's; False without an evaluation.

    Args:
        jobs: the baseline, with its evaluations; at every learning rate, if it has several.
        ids: held-out prompts.
        metrics: strategies with an S(p).
    """
    found = {s: values for job in jobs for s, values in _by_setting(job).items()}
    if not found or len(ids) < 2:
        return False
    last = {s: values for s, values in found.items() if s.step == jobs[0].steps}
    _write_row(jobs[0], BEST_T, last, ids, metrics)
    _write_row(jobs[0], BEST_OF_ALL if jobs[0].rates else BEST, found, ids, metrics)
    return True


def _by_setting(job: Job) -> dict[Setting, Tensor]:
    records = read_records(job.folder / FILE) if (job.folder / FILE).is_file() else []
    return {
        Setting(job.learning_rate, r["step"], r["temperature"]): torch.tensor(r["log_p"], dtype=torch.float64)
        for r in records
        if r["kind"] == "log_p"
    }


def _write_row(
    job: Job, name: str, values: dict[Setting, Tensor], ids: Sequence[Any], metrics: Sequence[Strategy]
) -> None:
    folder = job.home.parent / f"{job.home.name}_{name.replace(',', '').replace(' ', '_')}"
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Column] = {}
    choices: list[dict[str, object]] = []
    for s in dict.fromkeys(metrics):
        found, chosen = cross_fitted(values, job.seed, lambda log_p, s=s: s.success(log_p).log_s.exp())
        columns[str(s)] = Column.of(s, found)
        choices.append({"kind": "chosen", "metric": str(s), "settings": [c._asdict() for c in chosen]})
    main = name != BEST_T
    write_job(
        folder,
        seed=job.seed,
        branch=f"{job.branch}, {name}",
        role="branch" if main else REFERENCE,
        strategy=parse(job.strategy),
        baseline=main,
        rates=job.rates or (job.learning_rate,),
    )
    evaluation = {"kind": "evaluation", "step": job.steps, "prompts": len(ids), "curve": summary(columns)}
    write_records(folder / "record.jsonl", [*choices, evaluation])
    write_prompts(folder, ids, columns)


def choose_rate(jobs: Sequence[Job], config: TrainConfig) -> Chosen:
    """Choose the learning rate of a branch for every metric, write its row, and keep one model.

    It is the model with the best rate at the branch's own budget, over all held-out prompts. It moves into the folder
    of the branch; the others are removed.

    Args:
        jobs: of the branch and a seed, one for each rate; all are done.
        config: of the run.

    Raises:
        DataError: if the training diverged at every rate.
    """
    sound = [job for job in jobs if not job.diverged]
    if not sound:
        raise DataError(
            f"the training diverged at all learning rates, {[job.learning_rate for job in jobs]}: the model no longer "
            "gives finite numbers. Start a new run with smaller ones."
        )
    tables = {job: read_records(job.folder / "prompts.jsonl") for job in sound}
    ids = [row["prompt"] for row in tables[sound[0]]]
    columns, choices = _columns(tables, sound[0])
    own, scores = _own_values(tables)
    kept = {job: kept_value(job) for job in sound}
    if all(kept.values()):  # --keep best: the models that are there
        own, scores = next(k.metric for k in kept.values() if k), {job: k.value for job, k in kept.items() if k}
    best = max(scores, key=lambda job: scores[job])
    values = {job.learning_rate: value for job, value in scores.items()}
    chosen = Chosen(best.learning_rate, own, values, best.home / "model")
    tuned = is_tuned(jobs[0], config) and write_tuned(sound, ids, exact_metrics(config))
    write_job(
        best.home,
        seed=best.seed,
        branch=best.branch,
        role=REFERENCE if tuned else "branch",
        strategy=parse(best.strategy),
        baseline=best.baseline and not tuned,
        rates=best.rates,
    )
    told = [{"rate": rate, "value": value} for rate, value in values.items()]
    last = {"kind": "kept", "rate": chosen.rate, "metric": own, "values": told}
    write_records(best.home / "record.jsonl", [*_course(best, sound), *choices, last])
    _keep_model(best, jobs)
    write_prompts(best.home, ids, columns)
    return chosen


def _columns(tables: Mapping[Job, list[dict[str, Any]]], job: Job) -> tuple[dict[str, Column], list[dict[str, object]]]:
    """Every metric at the rate, with --keep best at the step too, that the other half chose, and the choices."""
    curve = next(r["curve"] for r in reversed(read_records(job.record)) if r["kind"] == "evaluation")
    columns: dict[str, Column] = {}
    choices: list[dict[str, object]] = []
    for name, about in curve.items():
        values: dict[tuple[float, ...], Tensor] = {}
        for at, rows in tables.items():
            steps = step_values(at, name)
            values |= {(at.learning_rate, step): value for step, value in steps.items()}
            if not steps:
                values[(at.learning_rate,)] = _tensor([row["values"][name] for row in rows])
        found, chosen = cross_fitted(values, job.seed, lambda x: x)
        columns[name] = Column(about["family"], about["n"], found)
        settings = [dict(zip(("rate", "step"), setting, strict=False)) for setting in chosen]
        choices.append({"kind": "chosen", "metric": name, "settings": settings})
    return columns, choices


def _own_values(tables: Mapping[Job, list[dict[str, Any]]]) -> tuple[str, dict[Job, float]]:
    """The metric that a branch is trained for, and its mean at every rate.

    A mixture has no column in an exact evaluation: its value comes from the log-probabilities. A baseline without a
    column for one sample is judged at its first.
    """
    job, rows = next(iter(tables.items()))
    strategy, first = parse(job.strategy), rows[0]
    name = str(strategy)
    if name not in first["values"] and "log_p" in first and has_success(strategy):
        logs = {job: torch.tensor([r["log_p"] for r in rows], dtype=torch.float64) for job, rows in tables.items()}
        return name, {job: strategy.success(log_p).log_s.exp().mean().item() for job, log_p in logs.items()}
    if name not in first["values"]:
        name = next(iter(first["values"]))
    return name, {job: sum(r["values"][name] for r in rows) / len(rows) for job, rows in tables.items()}


def _course(best: Job, sound: Sequence[Job]) -> list[dict[str, Any]]:
    """The record of the kept training; its time is that of all rates."""
    records = read_records(best.record)
    seconds = sum(r["seconds"] for job in sound for r in read_records(job.record) if r["kind"] == "done")
    return [r | {"seconds": seconds} if r["kind"] == "done" else r for r in records]


def _keep_model(best: Job, jobs: Sequence[Job]) -> None:
    """Move the model of the best rate into the folder of the branch, unless an earlier call did, and remove others."""
    source, target = best.folder / "model", best.home / "model"
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)
    for job in jobs:
        shutil.rmtree(job.folder / "model", ignore_errors=True)


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
