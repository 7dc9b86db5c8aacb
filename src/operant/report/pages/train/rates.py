"""The learning rates of a run: what is said of them, and the values at each where a branch has several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from operant.report.pages.train.load import SavedRun
from operant.report.pages.train.tables import Intervals

if TYPE_CHECKING:
    from operant.report.theme import Figure


@dataclass(frozen=True)
class AtRate:
    """A branch at one learning rate: means of its metrics over seeds and prompts, and those for which it is best."""

    branch: str
    rate: float
    means: Mapping[str, float]
    best: frozenset[str]


def at_rates(run: SavedRun) -> list[AtRate]:
    """Every branch at every rate, in the order of the page and by rate; empty if no branch has several."""
    found: list[AtRate] = []
    for label in run.labels:
        jobs = [job for job in run.at_rates if job.branch == label]
        most = {metric: Counter(rates).most_common(1)[0][0] for metric, rates in _choices(run, label).items()}
        for rate in sorted({rate for job in jobs for rate in job.rates}):
            columns: dict[str, list[np.ndarray]] = {}
            for job in jobs:
                for metric, values in job.values.items() if rate in job.rates else ():
                    columns.setdefault(metric, []).append(values)
            means = {metric: float(np.mean(values)) for metric, values in columns.items()}
            found.append(AtRate(label, rate, means, frozenset(m for m, best in most.items() if best == rate)))
    return found


def rate_notes(run: SavedRun) -> list[str]:
    """How the learning rates came about, those at the end of their list, and those that diverged."""
    if run.is_evaluation or run.baseline is None or not run.trained:
        return []
    given = run.source.config.get("learning_rate")
    if isinstance(given, Mapping):
        listed = ", ".join(f"{branch} {rate:g}" for branch, rate in given.items())
        return [f"Each branch has its own learning rate, chosen before this run: {listed}."]
    if isinstance(given, (int, float)):
        near = ", ".join(f"{rate:.2g}" for rate in (given / 3, given, 3 * given))
        return [f"The learning rate, {given:g}, was not tuned. --learning_rate '[{near}]' tunes it for every branch."]
    if not isinstance(given, Sequence):
        return []
    said = [
        f"Learning rates: the best of {_listed(given)} for each branch and budget, on the other half of the prompts."
    ]
    return said + _ends(run) + _lost(run)


def _ends(run: SavedRun) -> list[str]:
    """The branches whose best rate is the largest or the smallest of the list, at the budgets that were trained for."""
    own = [m for label in run.trained for job in run.of(label)[:1] for m in run.metrics if run.metric(m) in job.parts]
    found: dict[tuple[str, float], list[str]] = {}
    for label in (run.baseline or "", *run.trained):
        for job in run.of(label)[:1]:
            mine = own if job.baseline else [m for m in own if run.metric(m) in job.parts]
            for metric in dict.fromkeys(mine):
                chosen = _choices(run, label).get(metric, [])
                for which, end in (("largest", max(job.rates)), ("smallest", min(job.rates))):
                    if 2 * chosen.count(end) > len(chosen):
                        found.setdefault((which, end), []).append(f"{label} at {metric}")
    return [
        f"The best rate is the {which} of the list, {rate:g}, for {' and for '.join(names)}: widen the list."
        for (which, rate), names in found.items()
    ]


def _lost(run: SavedRun) -> list[str]:
    """The rates at which training diverged."""
    found: dict[float, dict[str, None]] = {}
    for branch, seed, rate in run.diverged:
        found.setdefault(rate, {})[f"{branch} (seed {seed})"] = None
    return [f"The training diverged at the rate {rate:g}: {', '.join(names)}." for rate, names in found.items()]


def _choices(run: SavedRun, label: str) -> dict[str, list[float]]:
    """Metric -> the rates that the halves of the prompts chose, over all seeds."""
    found: dict[str, list[float]] = {}
    for job in run.of(label):
        for metric, rates in job.chosen.items() if len(job.rates) > 1 else ():
            found.setdefault(metric, []).extend(rates)
    return found


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in sorted(rates))


def rates_figure(run: SavedRun, means: Intervals) -> Figure | None:
    """Value against learning rate: a line a branch, a panel for each budget that was trained for."""
    from operant.report.charts import chart, color, measurable
    from operant.report.pages.train.charts import keys
    from operant.report.theme import Figure, alt, panel

    found = at_rates(run)
    drawn = tuple(dict.fromkeys(x.branch for x in found))
    own = [m for m in run.metrics if any(run.metric(m) in job.parts for b in run.trained for job in run.of(b)[:1])]
    panels = []
    for metric in own if len({x.rate for x in found}) > 1 else ():
        rows = [
            {"series": x.branch, "rate": x.rate, "value": 100 * x.means[metric]} for x in found if metric in x.means
        ]
        rates = sorted({x.rate for x in found if metric in x.means})
        axis = alt.Axis(values=rates, format="~g")
        x = alt.X("rate:Q", title="learning rate", scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)
        widths = [100 * (i.high - i.low) for b in drawn if (i := means.get((b, metric))) is not None]
        scale = measurable(rows, max([100 / len(run.jobs[0].prompts), *widths]))
        y = alt.Y("value:Q", title=f"{metric}, %", scale=scale, axis=alt.Axis(tickCount=6))
        tooltip = [
            alt.Tooltip("series:N", title="branch"),
            alt.Tooltip("rate:Q", format="~g"),
            alt.Tooltip("value:Q", format=".1f"),
        ]
        base = chart(rows).encode(x=x, y=y, color=color(drawn), tooltip=tooltip)
        panels.append(panel(metric, base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=60)))
    return Figure("rates", "Learning rates", tuple(panels), keys(run, drawn)) if panels else None
