"""The tuned baseline of SFT: cross-entropy at the step and the sampling temperature that suit each budget best.

A hotter or colder sampler and an earlier step need no training for a strategy: the gains of a run are gains over this
baseline.

Step and temperature are chosen on one half of the held-out prompts and reported on the other, and the other way round:
every prompt has a value, and no setting was chosen on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from operant.core.record import append_record, read_records, write_records
from operant.core.rng import torch_generator
from operant.hf.folder import Column, summary, write_job, write_prompts
from operant.hf.train.job import Job
from operant.strategies import Strategy, parse

FILE = "temperatures.jsonl"
"""Log-probabilities of the answers at every evaluated step and temperature, in the folder of the baseline's job."""
REFERENCE = "reference"
"""Role of a branch that is shown beside the others and is neither trained for a strategy nor compared with."""
BEST_T = "best T"
BEST = "best step and T"
"""What is chosen: names of the rows."""


class Setting(NamedTuple):
    """A sampling temperature at a step."""

    step: int
    temperature: float


def record_temperatures(folder: Path, step: int, log_p: dict[float, Tensor]) -> None:
    """Append the log-probabilities (B,) of an evaluation at each temperature."""
    for temperature, values in log_p.items():
        append_record(
            folder / FILE, "log_p", step=step, temperature=temperature, log_p=[max(x, -1e30) for x in values.tolist()]
        )


def write_tuned(job: Job, ids: Sequence[str], metrics: Sequence[Strategy]) -> bool:
    """Write the rows "best T" and "best step and T" beside the baseline's; False without an evaluation.

    Args:
        job: the baseline, with its evaluations.
        ids: held-out prompts.
        metrics: strategies with an S(p).
    """
    records = read_records(job.folder / FILE) if (job.folder / FILE).is_file() else []
    found = {
        Setting(r["step"], r["temperature"]): torch.tensor(r["log_p"], dtype=torch.float64)
        for r in records
        if r["kind"] == "log_p"
    }
    if not found or len(ids) < 2:
        return False
    for name, admitted in ((BEST_T, lambda s: s.step == job.steps), (BEST, lambda s: True)):
        _write(job, name, {s: values for s, values in found.items() if admitted(s)}, ids, metrics)
    return True


def cross_fitted(
    values: dict[Setting, Tensor], seed: int, score: Callable[[Tensor], Tensor]
) -> tuple[Tensor, list[Setting]]:
    """Each half's scores at the setting with the largest mean score on the other half, and the two settings.

    Args:
        values: log-probabilities (B,) by setting.
        seed: of the halves.
        score: of log-probabilities, elementwise.
    """
    scores = {setting: score(log_p) for setting, log_p in values.items()}
    size = len(next(iter(scores.values())))
    first = torch.zeros(size, dtype=torch.bool)
    first[torch.randperm(size, generator=torch_generator(seed, "halves"))[: size // 2]] = True
    found, chosen = torch.empty(size, dtype=torch.float64), list[Setting]()
    for half in (first, ~first):
        best = max(scores, key=lambda s: scores[s][~half].mean().item())
        found[half] = scores[best][half]
        chosen.append(best)
    return found, chosen


def _write(job: Job, name: str, values: dict[Setting, Tensor], ids: Sequence[str], metrics: Sequence[Strategy]) -> None:
    folder = job.folder.parent / f"{job.folder.name}_{name.replace(' ', '_')}"
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Column] = {}
    choices: list[dict[str, object]] = []
    for s in dict.fromkeys(metrics):
        found, chosen = cross_fitted(values, job.seed, lambda log_p, s=s: s.success(log_p).log_s.exp())
        columns[str(s)] = Column.of(s, found)
        choices.append({"kind": "chosen", "metric": str(s), "settings": [c._asdict() for c in chosen]})
    write_job(
        folder,
        seed=job.seed,
        branch=f"{job.branch}, {name}",
        role="branch" if name == BEST else REFERENCE,
        strategy=parse(job.strategy),
        baseline=name == BEST,
    )
    evaluation = {"kind": "evaluation", "step": job.steps, "prompts": len(ids), "curve": summary(columns)}
    write_records(folder / "record.jsonl", [*choices, evaluation])
    write_prompts(folder, ids, columns)
