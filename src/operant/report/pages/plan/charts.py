"""The four figures of a plan: values, gains of each budget, signal by prompt, and dead groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from operant.report.charts import (
    Datum,
    chart,
    color,
    curve_layers,
    gain_layers,
    level_rule,
    log2_axis,
    measurable,
    number_tips,
)
from operant.report.pages.plan.load import SavedPlan
from operant.report.records import Record
from operant.report.theme import GRAY, PALE, Figure, Panel, SeriesStyle, alt, cycle, panel

# From low to high, readable on white and on dark. Prompts that are never or always solved are gray.
STEPS = ("#5b4fa2", "#3f78b5", "#2a9d9d", "#4cb56b", "#9dbf35", "#e8b92e")


def value_figure(plan: SavedPlan) -> Figure:
    """Value of every family against the budget."""
    rows = [_row(plan, c["strategy"], p) for c in plan.curves for p in c["points"]]
    keys = cycle(plan.labels)
    base = chart(rows).encode(x=_log_x("n", [r["n"] for r in rows], "samples per prompt, N"), color=color(keys))
    title = "value, %" if plan.binary else "reward"
    band = 0.14 if any(r["low"] is not None for r in rows) else 0.0
    layers = curve_layers(base, title, measurable(rows, _resolution(plan)), _tips(plan), band)
    return Figure("value", "What more samples buy", (panel("", *layers),), keys)


def gain_figure(plan: SavedPlan) -> Figure | None:
    """Gain of every budget over the one before it; None where each family has only one."""
    rows = [_row(plan, c["strategy"], g) for c in plan.curves for g in c["gains"]]
    if not rows:
        return None
    every = cycle(plan.labels)
    keys = {c["strategy"]: every[c["strategy"]] for c in plan.curves if c["gains"]}
    unit = "gain, percentage points" if plan.binary else "gain, reward"
    titles = ("budget N, against the budget before it", unit)
    layers = gain_layers(rows, list(keys), titles, _resolution(plan), _tips(plan))
    return Figure("gain", "What each step of the budget buys", (panel("", *layers),), keys)


def signal_figure(plan: SavedPlan) -> Figure | None:
    """Share of every bin of success rate in the credit, a panel a family; None where no family has credit."""
    bins = tuple(plan.rollouts["bins"])
    # The first bin is "never solved", the last "always solved".
    keys = dict(zip(bins, [GRAY, *_ramp(len(bins) - 2), PALE], strict=True))
    panels: list[Panel] = []
    for label in plan.labels:
        bars = {str(s["n"]): s["bins"] for s in plan.of(label) if s["bins"]}
        if not bars:
            continue
        rows = [
            {"n": n, "series": bins[i], "order": i, "value": 100 * x}
            for n, shares in {"all": plan.rollouts["prompts_in_bins"], **bars}.items()
            for i, x in enumerate(shares)
            if x > 0
        ]
        tips = [alt.Tooltip("n:N"), alt.Tooltip("series:N", title="success rate"), alt.Tooltip("value:Q", format=".1f")]
        axis = alt.Axis(labelAngle=0, ticks=False)
        bar = (
            chart(rows)
            .mark_bar()
            .encode(
                x=alt.X("n:O", sort=None, title="all prompts, then credit at budget N", axis=axis),
                y=_percent("share, %"),
                order="order:Q",
                tooltip=tips,
                color=color(keys),
            )
        )
        panels.append(panel(label, bar))
    return Figure("signal", "Which prompts carry the gradient", tuple(panels), keys) if panels else None


def dead_figure(plan: SavedPlan) -> Figure | None:
    """Share of dead groups against M, a panel a family and a line a budget; None without credit."""
    budgets = sorted({s["n"] for s in plan.signals})
    keys = dict(zip((f"N = {n}" for n in budgets), _ramp(len(budgets)), strict=True))
    panels: list[Panel] = []
    for label in plan.labels:
        rows: list[Datum] = [
            {"m": d["m"], "series": f"N = {s['n']}", "value": 100 * d["share"]}
            for s in plan.of(label)
            for d in s["dead"]
        ]
        if not rows:
            continue
        x = _log_x("m", [r["m"] for r in rows], "rollouts a prompt, M")
        base = chart(rows).encode(x=x, y=_percent("dead groups, %"), color=color(keys))
        tips = [alt.Tooltip("series:N"), alt.Tooltip("m:Q"), alt.Tooltip("value:Q", title="dead, %", format=".1f")]
        half = level_rule(50)
        point = base.mark_point(filled=True, opacity=1, size=50).encode(tooltip=tips)
        panels.append(panel(label, half, base.mark_line(strokeWidth=2), point))
    return Figure("dead", "Dead groups", tuple(panels), keys) if panels else None


def _resolution(plan: SavedPlan) -> float:
    """What one rollout changes, in percent; 0 for rewards that are not 0 or 1."""
    return 100 / (plan.rollouts["prompts"] * plan.rollouts["rollouts"]) if plan.binary else 0.0


def _row(plan: SavedPlan, label: str, point: Record) -> Datum:
    scale = 100 if plan.binary else 1
    values = {k: None if point[k] is None else scale * point[k] for k in ("value", "low", "high")}
    return {"series": label, "n": point["n"], **values}


def _log_x(field: str, values: Sequence[int], title: str) -> alt.X:
    low, high = min(values), max(values)
    # The largest value, all rollouts, is often close to a power of two: two labels would collide.
    ticks = sorted({v for v in values if v & (v - 1) == 0} or set(values))
    return log2_axis(field, (low, max(2 * low, high)), ticks, title)


def _percent(title: str) -> alt.Y:
    return alt.Y("value:Q", title=title, scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))


def _tips(plan: SavedPlan) -> list[alt.Tooltip]:
    form = ".1f" if plan.binary else ".3g"
    names = {"value": "%" if plan.binary else "reward", "low": f"{plan.level} from", "high": f"{plan.level} to"}
    return [alt.Tooltip("series:N", title="strategy"), alt.Tooltip("n:Q", title="N"), *number_tips(names, form)]


def _ramp(count: int) -> list[SeriesStyle]:
    """``count`` colors at equal distances along STEPS, mixed linearly between neighbors."""
    # The number of budgets varies: seven of them need seven colors from six anchors.
    anchors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in STEPS])
    at = np.linspace(0, len(STEPS) - 1, count)
    mixed = np.stack([np.interp(at, range(len(STEPS)), channel) for channel in anchors.T], axis=-1)
    texts = ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in mixed.round().astype(int).tolist()]
    return [SeriesStyle(text, text) for text in texts]
