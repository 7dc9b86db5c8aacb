"""Small run directories for the report's tests; values are drawn from a fixed seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from operant import parse
from operant.report.pages.train.metrics import Metric
from operant.strategies.mixture import budgets_of

METRICS = ("pass@1", "pass@4", "pass@16")


def lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def prompt_values(
    seed: int, *, prompts: int = 40, shift: float = 0.0, metrics: Sequence[str] = METRICS
) -> dict[str, np.ndarray]:
    """Metric -> (P,); the same for every branch of a seed but for ``shift`` at the last metric."""
    generator = np.random.default_rng(seed)
    table = {m: generator.uniform(0.2, 0.6, prompts) for m in metrics}
    noise = np.random.default_rng(100 + seed).normal(0, 0.01, prompts)
    table[metrics[-1]] = table[metrics[-1]] + shift + (noise if shift else 0.0)
    return table


def weight(mean: float, sd: float) -> dict[str, Any]:
    spread = (-2.0, -1.6, -0.7, 0.0, 0.7, 1.6, 2.0)
    return {"mean": mean, "sd": sd, "quantiles": [mean + sd * s for s in spread]}


def job(
    run: Path,
    branch: str,
    seed: int,
    values: Mapping[str, np.ndarray] | None,
    *,
    role: str = "branch",
    sd: float = 0.3,
    folder: str | None = None,
    described: Mapping[str, Metric] | None = None,
) -> Path:
    """Write one job directory; ``values=None`` leaves it unfinished.

    With ``described``, family and budget stand beside every name, as operant writes them; without, the records are
    those of its first version, which had the names only.
    """
    path = run / f"seed-{seed}" / (folder or branch)
    base = branch == "ce"
    about: dict[str, Any] = {"seed": seed, "branch": branch, "baseline": base, "role": role}
    if described is not None:
        s = parse("pass@1" if base or role == "warm" else branch)
        about |= {"strategy": str(s), "objective": {"family": s.family, "n": s.n}}
        about["parts"] = [{"family": part.family, "n": part.n} for part in budgets_of(s)]
    path.mkdir(parents=True)
    (path / "job.json").write_text(json.dumps(about), encoding="utf-8")
    records: list[dict[str, Any]] = []
    for step in (10, 20, 30):
        spread = weight(1.0, 0.0) if base else weight(0.7, sd)
        records.append({"kind": "step", "step": step, "loss": 2.0 / step, "weight": spread})
        curve = {m: {"value": 0.01 * step, "stderr": 0.01, **_fields(m, described)} for m in values or ()}
        records.append({"kind": "evaluation", "step": step, "prompts": 40, "curve": curve})
    lines(path / "record.jsonl", [*records, {"kind": "done", "step": 30, "seconds": 90.0}])
    if values is not None:
        rows = [
            {"prompt": i, "values": {m: float(v[i]) for m, v in values.items()}, "text": "ignored"}
            for i in range(len(next(iter(values.values()))))
        ]
        lines(path / "prompts.jsonl", rows)
    return path


def _fields(metric: str, described: Mapping[str, Metric] | None) -> dict[str, Any]:
    if described is None:
        return {}
    family, n = metric.split("@")[0], metric.split("@")[-1]
    return vars(described[metric] if metric in described else Metric(f"{family}@N", int(n)))


def make(
    run: Path,
    shifts: Mapping[str, float],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    metrics: Sequence[str] = METRICS,
    described: Mapping[str, Metric] | None = None,
) -> Path:
    """A run with one job per branch and seed; ``shifts`` maps a branch to its shift."""
    config = {"seed": 0, "model": {"name": "tiny", "lora": {"rank": 8}}, "train": {"steps": 30}}
    head = {"kind": "run", "command": "train", "name": "a small run", "config": config}
    lines(run / "record.jsonl", [head, {"kind": "environment", "python": "3.11", "trl": None}])
    for seed in seeds:
        for index, (branch, shift) in enumerate(shifts.items()):
            values = prompt_values(seed, shift=shift, metrics=metrics)
            role = "warm" if branch == "warm" else "branch"
            job(run, branch, seed, values, role=role, folder=f"job-{index}", described=described)
    return run
