"""Parts that the charts of several pages share. Needs the extra ``operant[report]``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from operant.report.theme import Panel, alt

# Least length of an axis, as a share of its largest value, where nothing says how exact the values are. It is a
# convention: rewards and entropies of a batch vary by about that much from step to step.
_LEAST_SHARE = 0.1
Datum = dict[str, Any]
"""What one mark of a chart shows: field -> value."""


def chart(rows: Iterable[Datum]) -> alt.Chart:
    """A chart that holds its own data."""
    return alt.Chart(alt.Data(values=list(rows)))


def color(names: Iterable[str]) -> alt.Color:
    """The color of the field ``series``: the theme's range, in the order of the figure's keys."""
    return alt.Color("series:N", scale=alt.Scale(domain=list(names)), title=None)


def level_rule(level: float) -> alt.Chart:
    """A dashed line across the chart, such as the zero of a difference."""
    return chart([{"level": level}]).mark_rule(strokeDash=[4, 3]).encode(y="level:Q")


def log2_axis(field: str, ends: Sequence[float], ticks: Sequence[int], title: str) -> alt.X:
    """A budget or a number of rollouts, which double from point to point."""
    scale = alt.Scale(type="log", base=2, nice=False, domain=list(ends))
    # Without labelFlush the first and the last label stay centered below their points.
    return alt.X(f"{field}:Q", scale=scale, title=title, axis=alt.Axis(values=list(ticks), labelFlush=False))


def measurable(rows: Sequence[Datum], resolution: float = 0.0, *, levels: Sequence[float] = ()) -> alt.Scale:
    """The scale of a vertical axis that does not magnify what cannot be measured.

    The axis is at least as long as the widest interval of the rows, from ``low`` to ``high``, and as ``resolution``.
    Of quantities whose uncertainty the record lacks, it is at least a tenth of the largest.

    Args:
        rows: with a ``value``, and ``low`` and ``high`` where there are intervals.
        resolution: change of the value by one sample, 1/n of a share; 0 if it is not known.
        levels: further values that the axis shows.
    """
    given = [r for r in rows if r.get("low") is not None and r.get("high") is not None]
    known = [r["value"] for r in rows] + [r[k] for r in given for k in ("low", "high")] + list(levels)
    if not known:
        return alt.Scale(zero=False)
    widths = [r["high"] - r["low"] for r in given]
    least = max([resolution, *widths] if resolution else [_LEAST_SHARE * max(map(abs, known)), *widths])
    low, high = min(known), max(known)
    if high - low >= least:
        return alt.Scale(zero=False)
    start = (low + high - least) / 2
    # A quantity that is never negative does not get a negative axis.
    start = max(start, 0.0) if low >= 0 else start
    return alt.Scale(zero=False, domain=[start, start + least])


def curve_layers(
    base: alt.Chart, y_title: str, scale: alt.Scale, tips: list[alt.Tooltip], band: float
) -> list[alt.Chart]:
    """Line and points of ``value``, above a band from ``low`` to ``high`` of this opacity; 0 draws no band."""
    axis = alt.Axis(title=y_title, tickCount=6)
    y = alt.Y("value:Q", axis=axis, scale=scale)
    # The band comes first, so that it lies below the lines of all series.
    area = base.mark_area(opacity=band).encode(y=alt.Y("low:Q", axis=axis, scale=scale), y2="high:Q")
    line = base.mark_line(strokeWidth=2.5).encode(y=y)
    point = base.mark_point(filled=True, opacity=1, size=55).encode(y="value:Q", tooltip=tips)
    return [area, line, point] if band else [line, point]


def named_above(field: str, names: Sequence[str]) -> alt.Y:
    """Rows of bars, in this order, whose names stand above them by :func:`names_above`: a phone has no room beside."""
    axis = alt.Axis(labels=False, ticks=False, domain=False, grid=False)
    return alt.Y(f"{field}:N", title=None, sort=list(names), axis=axis)


def names_above(rows: Sequence[Datum], y: alt.Y, field: str) -> alt.Chart:
    """The name of every row above its bar; a phone shows 40 letters."""
    return (
        chart(rows)
        .mark_text(align="left", baseline="bottom", dy=-10, limit=310)
        .encode(y=y, x=alt.value(0), text=alt.Text(f"{field}:N"))
    )


def gain_layers(
    rows: Sequence[Datum], names: Sequence[str], titles: tuple[str, str], resolution: float, tips: list[alt.Tooltip]
) -> list[alt.Chart]:
    """Gains at each budget, series side by side, with their intervals where they have some, and a line at zero."""
    x = alt.X(
        "n:O",
        title=titles[0],
        scale=alt.Scale(paddingInner=0.35, paddingOuter=0.15),
        axis=alt.Axis(labelAngle=0, ticks=False, labelPadding=8),
    )
    beside = alt.XOffset("series:N", sort=None, scale=alt.Scale(domain=list(names)))
    base = chart(rows).encode(x=x, xOffset=beside, color=color(names))
    axis, scale = alt.Axis(title=titles[1], tickCount=6), measurable(rows, resolution, levels=[0.0])
    bar = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", axis=axis, scale=scale), y2="high:Q")
    y = alt.Y("value:Q", axis=axis, scale=scale)
    point = base.mark_point(filled=True, opacity=1, size=70).encode(y=y, tooltip=tips)
    known = any(r["low"] is not None for r in rows)
    return [level_rule(0), bar, point] if known else [level_rule(0), point]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two values; over more than three decades the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [d * 10.0**k for k in powers for d in ((1, 2, 5) if high < 1e3 * low else (1,))]


def number_tips(titles: dict[str, str], form: str) -> list[alt.Tooltip]:
    """Tooltips of numbers: field -> title."""
    return [alt.Tooltip(f"{field}:Q", title=title, format=form) for field, title in titles.items()]


def rows_of(panel: Panel) -> list[Datum]:
    """What the marks of a panel show, each row once."""
    parts = [panel.spec, *panel.spec.get("layer", ())]
    rows = [row for part in parts for row in part.get("data", {}).get("values", ())]
    return list({tuple(row.items()): row for row in rows}.values())


def extent(rows: Sequence[Datum], *fields: str) -> tuple[float, float]:
    """Smallest and largest value of these fields."""
    values = [r[f] for r in rows for f in fields]
    return min(values), max(values)
