"""What development chooses: learning rates, the tuned baseline of a task, the recipes that go on to fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from arms import ARMS, TASKS

SCREEN, FRESH = (0, 1), tuple(range(10, 18))
"""Training seeds that choose, and those that are reported."""
TUNED, BASELINES, CARRIED = 3, 2, 2
"""Recipes of a metric, and baselines, whose rate is tuned; recipes of a metric that go on to the fresh seeds."""

Run = tuple[str, float]
"""An arm and its learning rate."""


def metrics(task: str) -> list[str]:
    """Values at whose own budget the arms of a task are compared."""
    return ["pass@16", "pass@64", "maj@16"] if TASKS[task].method == "sft" else ["pass@16", "maj@16", "best@8"]


def screened(lines: Sequence[dict[str, Any]], task: str, metric: str) -> dict[Run, list[float]]:
    """Development values of every arm and rate, at the best step and temperature, one a screening seed."""
    found: dict[Run, list[float]] = {}
    for r in sorted(lines, key=lambda r: r["seed"]):
        graded = ARMS[r["arm"]].graded
        if r["task"] == task and r["seed"] in SCREEN and graded == metric.startswith("best"):
            found.setdefault((r["arm"], r["rate"]), []).append(r["chosen"][metric]["dev"])
    return found


def ranked(values: dict[Run, list[float]], *, baseline: bool) -> list[Run]:
    """Baselines, or recipes, each at its best rate, the best first; only runs with as many seeds are compared."""
    seeds = max(map(len, values.values()), default=0)
    means = {run: fmean(v) for run, v in values.items() if len(v) == seeds and ARMS[run[0]].baseline == baseline}
    best = [max((run for run in means if run[0] == arm), key=means.__getitem__) for arm in {arm for arm, _ in means}]
    return sorted(best, key=lambda run: -means[run])


def promoted(lines: Sequence[dict[str, Any]], task: str) -> list[str]:
    """Arms whose rate is tuned: the best of every metric on the first screening seed."""
    found: list[Run] = []
    for metric in metrics(task):
        values = {run: v[:1] for run, v in screened(lines, task, metric).items()}
        found += ranked(values, baseline=True)[:BASELINES] + ranked(values, baseline=False)[:TUNED]
    return list(dict.fromkeys(arm for arm, _ in found))


def carried(lines: Sequence[dict[str, Any]], task: str) -> list[Run]:
    """The tuned baseline and the best recipes of every metric."""
    found: list[Run] = []
    for metric in metrics(task):
        values = screened(lines, task, metric)
        found += ranked(values, baseline=True)[:1] + ranked(values, baseline=False)[:CARRIED]
    return list(dict.fromkeys(found))
