"""What development chooses: learning rates, the tuned baseline of a task, the recipes that go on to fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from arms import ARMS, TASKS

SCREEN, FRESH = (0, 1), tuple(range(10, 18))
"""Training seeds that choose, and those that are reported."""
CARRIED = 2
"""Recipes of a metric that go on to the fresh seeds."""

Run = tuple[str, float]
"""An arm and its learning rate."""


def metrics(task: str) -> list[str]:
    """Values at whose own budget the arms of a task are compared."""
    return ["pass@16", "pass@64", "maj@16"] if TASKS[task].method == "sft" else ["pass@16", "maj@16", "best@8"]


def screened(lines: Sequence[dict[str, Any]], task: str, metric: str) -> dict[Run, float]:
    """Development value of every arm and rate, at its best step and temperature, the mean over screening seeds."""
    found: dict[Run, list[float]] = {}
    for r in lines:
        graded = ARMS[r["arm"]].graded
        if r["task"] == task and r["seed"] in SCREEN and graded == metric.startswith("best"):
            found.setdefault((r["arm"], r["rate"]), []).append(r["chosen"][metric]["dev"])
    return {run: fmean(values) for run, values in found.items()}


def ranked(lines: Sequence[dict[str, Any]], task: str, metric: str, *, baseline: bool) -> list[Run]:
    """Baselines, or recipes, each at its best rate, the best first."""
    values = screened(lines, task, metric)
    arms = {arm for arm, _ in values if ARMS[arm].baseline == baseline}
    best = [max((run for run in values if run[0] == arm), key=values.__getitem__) for arm in arms]
    return sorted(best, key=lambda run: -values[run])


def carried(lines: Sequence[dict[str, Any]], task: str) -> list[Run]:
    """The tuned baseline and the best recipes of every metric."""
    found: list[Run] = []
    for metric in metrics(task):
        found += ranked(lines, task, metric, baseline=True)[:1]
        found += ranked(lines, task, metric, baseline=False)[:CARRIED]
    return list(dict.fromkeys(found))
