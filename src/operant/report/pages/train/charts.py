"""The figures of a run: scaling curves, gains, rollouts, training and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from operant.report.charts import (
    Datum,
    chart,
    color,
    curve_layers,
    extent,
    gain_layers,
    level_rule,
    log2_axis,
    log_ticks,
    measurable,
    number_tips,
)
from operant.report.pages.train.load import WARM, SavedRun
from operant.report.pages.train.tables import Intervals, strategy_value
from operant.report.theme import GRAY, PALE, Figure, Panel, SeriesStyle, alt, cycle, panel

# Points of a training curve: half as many as its panel has pixels. Longer curves are averaged in bins.
_MAX_POINTS = 150


def keys(run: SavedRun, branches: Sequence[str]) -> dict[str, SeriesStyle]:
    """The look of these branches; the baseline and the warm start are gray."""
    chosen = cycle(run.trained)
    return {b: chosen.get(b, PALE if b == WARM else GRAY) for b in branches}


def scaling(run: SavedRun, means: Intervals) -> Figure:
    """Value against budget: a line and a 95 % band for each branch, a panel for each family."""
    panels = []
    drawn = [b for b in run.labels if b not in run.references]  # they would be gray lines beside the baseline's
    for family in run.families:
        metrics = run.in_family(family)
        rows = _rows(run, means, [(b, m) for b in drawn for m in metrics])
        scale = measurable(rows, _resolution(run))
        panels.append(_scaling_panel(family, drawn, rows, scale, [run.metric(m).n for m in metrics]))
    return Figure("scaling", "What more samples buy", tuple(panels), keys(run, drawn))


def _resolution(run: SavedRun) -> float:
    """What one held-out prompt changes, in percent."""
    return 100 / len(run.jobs[0].prompts)


def _scaling_panel(family: str, drawn: Sequence[str], rows: list[Datum], scale: alt.Scale, budgets: list[int]) -> Panel:
    x = log2_axis("n", (min(budgets), max(2, *budgets)), budgets, "samples per prompt, N")
    base = chart(rows).encode(x=x, color=color(drawn))
    # The bands of many branches lie on each other: each is paler, so that their sum hides no line.
    band = min(0.16, 0.8 / len(drawn))
    return panel(_family_title(family), *curve_layers(base, f"{family}, %", scale, _tooltips("%"), band))


def gain_figure(run: SavedRun, gain: Intervals) -> Figure | None:
    """Gain over the baseline per budget and branch, with 95 % intervals; None if there are no gains."""
    drawn = tuple(b for b in run.trained if any(b == key[0] for key in gain))
    panels = []
    for family in run.families:
        rows = _rows(run, gain, [(b, m) for b in drawn for m in run.in_family(family)])
        if rows:
            titles = ("samples per prompt, N", "gain, percentage points")
            layers = gain_layers(rows, drawn, titles, _resolution(run), _tooltips("points"))
            panels.append(panel(_family_title(family), *layers))
    return Figure("gain", "Gain over the baseline", tuple(panels), keys(run, drawn)) if panels else None


# Field of a step -> title of its panel; the strategy's value and dead groups come before these.
_ROLLOUTS = {"reward": "reward", "entropy": "entropy, nats per token", "completion_length": "length, tokens"}


def rollouts(run: SavedRun) -> Figure | None:
    """What was logged of the rollouts, the strategy's value first; None for a supervised run."""
    drawn = tuple(b for b in run.labels if _logged(run, b, "reward"))
    values = {
        b: [(s["step"], v) for j in run.of(b) for s in j.steps if (v := strategy_value(s)) is not None] for b in drawn
    }
    # Most strategies are worth a probability. Rewards of other sizes are no percentages.
    shares = all(abs(v) <= 1 for points in values.values() for _, v in points)
    title = "value of the strategy" + ", %" * shares
    found = {title: [r for b in drawn for r in _curve(b, _times(values[b], 100 if shares else 1))]}
    dead = "dead groups, %"
    found[dead] = [r for b in drawn for r in _curve(b, _times(_logged(run, b, "dead_groups"), 100))]
    found |= {text: [r for b in drawn for r in _curve(b, _logged(run, b, key))] for key, text in _ROLLOUTS.items()}
    scales = {name: alt.Scale(domain=[0, 100]) if name == dead else measurable(rows) for name, rows in found.items()}
    panels = tuple(_line_panel(name, drawn, rows, _y(scales[name]), ".3g") for name, rows in found.items() if rows)
    return Figure("rollouts", "Rollouts in training", panels, keys(run, drawn)) if panels else None


def _y(scale: alt.Scale) -> alt.Y:
    return alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(tickCount=6))


def _times(points: Sequence[tuple[int, float]], factor: float) -> list[tuple[int, float]]:
    return [(step, factor * value) for step, value in points]


def training(run: SavedRun) -> Figure | None:
    """Validation values at both ends of each family, and the loss of SFT, against the step.

    The loss of RL is left out: it does not measure progress.
    """
    losses = {b: [] if _logged(run, b, "reward") else _logged(run, b, "loss") for b in run.labels}
    # A row that was only chosen from another training has a single evaluation.
    drawn = tuple(b for b in run.labels if losses[b] or any(len(j.evaluations) > 1 for j in run.of(b)))
    panels = [p for m in _end_metrics(run) if (p := _validation_panel(run, drawn, m)) is not None]
    rows = [r for b in drawn for r in _curve(b, losses[b])]
    if rows:
        # Losses of different objectives differ by orders of magnitude.
        low, high = extent(rows, "value")
        logarithmic = low > 0 and high > 10 * low
        scale = alt.Scale(type="log", nice=False, padding=6) if logarithmic else measurable(rows)
        axis = alt.Axis(values=log_ticks(low, high), format="~g") if logarithmic else alt.Axis()
        y = alt.Y("value:Q", title=None, scale=scale, axis=axis)
        panels.append(_line_panel("training loss", drawn, rows, y, ".4g"))
    return Figure("training", "Training", tuple(panels), keys(run, drawn)) if panels else None


def _end_metrics(run: SavedRun) -> list[str]:
    ends = []
    for family in run.families:
        metrics = run.in_family(family)
        ends += list(dict.fromkeys([metrics[0], metrics[-1]]))
    return ends


def _validation_panel(run: SavedRun, drawn: Sequence[str], metric: str) -> Panel | None:
    rows: list[Datum] = []
    for label in drawn:
        found = [
            (e["step"], 100 * value)
            for job in run.of(label)
            for e in job.evaluations
            if (value := e.get("curve", {}).get(metric, {}).get("value")) is not None
        ]
        rows += _curve(label, found)
    # One evaluation is no curve; its value stands in the tables.
    if len({r["step"] for r in rows}) < 2:
        return None
    title = f"validation {metric}, %"
    return _line_panel(title, drawn, rows, _y(measurable(rows, _width(run, drawn, metric))), ".1f")


def _width(run: SavedRun, drawn: Sequence[str], metric: str) -> float:
    """The widest 95 % interval of one evaluation, or what one prompt changes, in percent."""
    entries = [e.get("curve", {}).get(metric, {}) for b in drawn for job in run.of(b) for e in job.evaluations]
    errors = [error for entry in entries if (error := entry.get("stderr")) is not None]
    return max([_resolution(run), *(100 * 2 * 1.96 * error for error in errors)])


def _line_panel(title: str, drawn: Sequence[str], rows: list[Datum], y: alt.Y, form: str) -> Panel:
    base = chart(rows).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(tickCount=5, format=",d")),
        y=y,
        color=color(drawn),
    )
    tooltip = [
        alt.Tooltip("series:N", title="branch"),
        alt.Tooltip("step:Q", format=".0f"),
        alt.Tooltip("value:Q", format=form),
    ]
    # Invisible points carry the tooltips: a line has none between its ends.
    dots = base.mark_point(filled=True, size=90, opacity=0).encode(tooltip=tooltip)
    return panel(title, base.mark_line(strokeWidth=2), dots)


def weights(run: SavedRun) -> Figure | None:
    """Median and 5 % to 95 % band of the example weights against the step, a panel for each branch."""
    rows = {b: _weight_rows(run, b) for b in run.trained}
    drawn = tuple(b for b in run.trained if rows[b])
    panels = tuple(_weight_panel(b, drawn, rows[b]) for b in drawn)
    return Figure("weights", "Weight of the examples", panels, keys(run, drawn)) if panels else None


def _weight_rows(run: SavedRun, label: str) -> list[Datum]:
    """Step, 5 %, 50 % and 95 % quantile, averaged over seeds."""
    # The record holds seven quantiles; 1, 3 and 5 are those at 5, 50 and 95 %.
    names = {"low": 1, "value": 3, "high": 5}
    found = [
        (step, [weight["quantiles"][i] for i in names.values()])
        for step, weight in _logged(run, label, "weight")
        if None not in (weight.get("quantiles") or [None])
    ]
    return [
        {"series": label, "step": step, **dict(zip(names, map(float, triple), strict=True))}
        for step, triple in _binned(found)
    ]


def _weight_panel(title: str, drawn: Sequence[str], rows: list[Datum]) -> Panel:
    base = chart(rows).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(tickCount=4, format=",d")),
        color=color(drawn),
    )
    axis, scale = alt.Axis(title=None, tickCount=6), measurable(rows, levels=[1.0])
    band = base.mark_area(opacity=0.22).encode(y=alt.Y("low:Q", axis=axis, scale=scale), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=alt.Y("value:Q", scale=scale))
    dots = base.mark_point(filled=True, size=90, opacity=0).encode(
        y="value:Q",
        tooltip=[
            alt.Tooltip("series:N", title="branch"),
            alt.Tooltip("step:Q", format=".0f"),
            *number_tips({"value": "median", "low": "5 %", "high": "95 %"}, ".3g"),
        ],
    )
    one = level_rule(1)
    return panel(title, one, band, line, dots)


def _rows(run: SavedRun, table: Intervals, keys: Sequence[tuple[str, str]]) -> list[Datum]:
    """Points of these (branch, metric), in percent."""
    rows: list[Datum] = []
    for label, metric in keys:
        if (found := table.get((label, metric))) is not None:
            percents = {"value": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
            rows.append({"series": label, "metric": metric, "n": run.metric(metric).n, **percents})
    return rows


def _logged(run: SavedRun, label: str, key: str) -> list[tuple[int, Any]]:
    """(step, value) of every step record of every seed that has one."""
    return [(s["step"], s[key]) for job in run.of(label) for s in job.steps if s.get(key) is not None]


def _curve(label: str, points: Sequence[tuple[int, float]]) -> list[Datum]:
    return [{"series": label, "step": step, "value": float(value)} for step, value in _binned(points)]


def _binned(points: Sequence[tuple[int, Any]]) -> list[tuple[float, Any]]:
    """Means over seeds at each step, or over bins of steps if there are more than _MAX_POINTS."""
    grouped: dict[int, list[Any]] = {}
    for step, value in points:
        grouped.setdefault(step, []).append(value)
    steps = sorted(grouped)
    size = -(-len(steps) // _MAX_POINTS) if steps else 1
    bins = [steps[i : i + size] for i in range(0, len(steps), size)]
    return [(float(np.mean(chosen)), np.mean([v for s in chosen for v in grouped[s]], axis=0)) for chosen in bins]


def _family_title(family: str) -> str:
    return {"maj@N": "maj@N (majority vote)", "best@N": "best@N (best of N)"}.get(family, family)


def _tooltips(unit: str) -> list[alt.Tooltip]:
    form = ".1f"  # without a plus, which would make Vega write -0.0
    titles = {"value": unit, "low": "95 % from", "high": "95 % to"}
    return [alt.Tooltip("series:N", title="branch"), alt.Tooltip("metric:N"), *number_tips(titles, form)]
