"""Parts that the charts of several pages share. Needs the extra ``operant[report]``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from operant.report.theme import Panel, alt

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
