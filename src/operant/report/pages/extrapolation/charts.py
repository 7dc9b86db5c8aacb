"""The figures across targets: the choice of the operator, the parameters, and the shift factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from operant.report.charts import Datum, chart, color, extent, log_ticks
from operant.report.pages.extrapolation.load import (
    anchor_of,
    best,
    expected,
    is_plain,
    leading,
    name_of,
    parameters_of,
    ranked,
)
from operant.report.pages.extrapolation.tables import factor_title
from operant.report.pages.extrapolation.words import with_unit
from operant.report.records import Record
from operant.report.theme import DARK, GRAY, LIGHT, Figure, SeriesStyle, alt, cycle, panel

CHOSEN, RELATIONAL, PLAIN = "largest weight", "relational", "plain baseline"
KNOWN, TARGET = "known tasks", "targets"
_ROW, _BELOW, _AXIS = 38, 8, 40
"""Pixels: the height of a row, how far its marks lie below its middle and its name above, and the axis below all."""


def choice_figure(targets: Sequence[Record]) -> Figure | None:
    """Expected errors and those of the backtest, a row for each operator, a dot for each target; None if unknown."""
    names = ranked(targets)
    rows: list[Datum] = []
    for t in targets:
        for c in t["choice"]:
            error = expected(c)
            if error is not None and error > 0:
                kind = CHOSEN if c["operator"] == leading(t) else PLAIN if c["plain"] else RELATIONAL
                ends = {k: _positive(c[f"backtest_{k}"], error) for k in ("low", "high")}
                about = {"series": kind, "operator": c["operator"], "target": name_of(t)}
                rows.append(about | {"error": error, **ends})
    if not rows:
        return None
    keys: dict[str, SeriesStyle] = {
        CHOSEN: SeriesStyle(LIGHT[0], DARK[0]),
        RELATIONAL: SeriesStyle(LIGHT[1], DARK[1]),
        PLAIN: GRAY,
    }
    rows.sort(key=lambda r: r["series"] == CHOSEN)  # drawn last
    shown = [n for n in names if any(r["operator"] == n for r in rows)]
    chart = panel("", *_bars(rows, shown, keys), height=_ROW * len(shown) + _AXIS)
    return Figure("choice", "How the operator was chosen", (chart,), keys)


def _positive(value: float | None, error: float) -> float:
    """An end of an interval on a logarithmic axis; the error itself, so that no bar is drawn, if there is none."""
    return value if value is not None and value > 0 else error


def _bars(rows: Sequence[Datum], names: Sequence[str], keys: Mapping[str, SeriesStyle]) -> list[Any]:
    """Names stand above their rows: beside them they would take the whole width of a phone."""
    several = len({r["target"] for r in rows}) > 1
    y = alt.Y("operator:N", title=None, sort=list(names), axis=None, scale=alt.Scale(padding=0))
    ends = extent(rows, "low", "error", "high")
    scale = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(grid=True, format="~g", values=log_ticks(*ends), labelOverlap=True)
    title = "expected error"
    base = chart(rows).encode(y=y, color=color(keys))
    bar = base.mark_rule(strokeWidth=2, opacity=0.25 if several else 1, yOffset=_BELOW)
    numbers = [alt.Tooltip(f"{k}:Q", format=".3g") for k in ("error", "low", "high")]
    tips = [alt.Tooltip("operator:N"), alt.Tooltip("target:N"), *numbers]
    point = base.mark_point(filled=True, opacity=1, size=75, yOffset=_BELOW)
    label = chart({"operator": n} for n in names).mark_text(align="left", baseline="middle", dy=-_BELOW)
    return [
        bar.encode(x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q"),
        point.encode(x=alt.X("error:Q", title=title, scale=scale, axis=axis), tooltip=tips),
        label.encode(x=alt.value(0), y=y, text="operator:N"),
    ]


def parameter_figure(targets: Sequence[Record], *, warps: bool = True) -> Figure | None:
    """Parameters of the transformations against the one known parameter of the targets, each from its own anchor.

    None if fewer than two targets differ in it.

    Args:
        targets: their records.
        warps: whether to show those along x, which have a figure of their own where they can be compared.
    """
    known = [t for t in targets if len(t["params"]) == 1 and not is_plain(t) and best(t) is not None]
    rows: list[Datum] = []
    for t in known:
        found, (value,) = best(t) or {}, t["params"].values()
        for name, (estimate, low, high) in parameters_of(found).items():
            if not warps and name.startswith("xs"):
                continue
            ends = {"low": estimate if low is None else low, "high": estimate if high is None else high}
            anchor = anchor_of(found)
            about = {"series": f"from {anchor}", "anchor": anchor, "target": name_of(t), "at": value}
            rows.append(about | {"parameter": name, "value": estimate, **ends})
    if len({r["at"] for r in rows}) < 2:
        return None
    (along,) = known[0]["params"]
    keys = cycle(dict.fromkeys(r["series"] for r in rows))
    panels = []
    for name in dict.fromkeys(r["parameter"] for r in rows):
        shown = [r for r in rows if r["parameter"] == name]
        x = alt.X("at:Q", title=along, scale=alt.Scale(zero=False, padding=14))
        base = chart(shown).encode(x=x, color=color(keys))
        axis, scale = alt.Axis(tickCount=6), alt.Scale(zero=False)
        bar = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=name, axis=axis, scale=scale), y2="high:Q")
        tips = [alt.Tooltip("target:N"), alt.Tooltip("series:N", title="anchor")]
        tips += [alt.Tooltip(f"{k}:Q", format=".4g") for k in ("value", "low", "high")]
        dot = base.mark_point(filled=True, opacity=1, size=75).encode(
            y=alt.Y("value:Q", title=name, axis=axis, scale=scale), tooltip=tips
        )
        panels.append(panel(name, bar, dot))
    return Figure("parameters", "The transformation across targets", tuple(panels), keys)


def factor_figure(factors: Record, bank: Record) -> Figure | None:
    """Warps along x from one reference against a known parameter; None without one that varies."""
    rows, units = factors.get("rows") or [], bank.get("units") or {}
    along = next((n for n in bank.get("param_names") or () if len({r["params"].get(n) for r in rows} - {None}) > 1), "")
    rows = [r for r in rows if along and r["params"].get(along) is not None]
    if not rows:
        return None
    keys = {TARGET: SeriesStyle(LIGHT[0], DARK[0]), KNOWN: GRAY}
    x = alt.X(
        "at:Q", title=with_unit(along, units), scale=alt.Scale(zero=False, padding=14), axis=alt.Axis(tickCount=6)
    )
    panels = []
    for name in factors["factors"]:
        shown = [_factor_row(r, name, along) for r in rows]
        title, scale, axis = factor_title(name, bank), alt.Scale(zero=False), alt.Axis(tickCount=6)
        if name == "xscale":
            scale = alt.Scale(type="log")
            axis = alt.Axis(format="~g", values=log_ticks(*extent(shown, "low", "value", "high")))
        y = alt.Y("value:Q", title=title, scale=scale, axis=axis)
        base = chart(shown).encode(x=x, color=color(keys))
        bar = base.mark_rule(strokeWidth=2, opacity=0.6).encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q")
        tips = [alt.Tooltip("task:N"), alt.Tooltip("anchor:N", title="fitted to")]
        tips += [alt.Tooltip(f"{k}:Q", format=".4g") for k in ("value", "low", "high")]
        dot = base.mark_point(filled=True, opacity=1, size=75).encode(y=y, tooltip=tips)
        panels.append(panel(title, bar, dot))
    return Figure("shift-factors", f"Shift factors from {factors['reference']}", tuple(panels), keys)


def _factor_row(row: Record, name: str, along: str) -> Datum:
    ends = {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
    about = {"series": KNOWN if row["known"] else TARGET, "task": row["task"], "anchor": row["anchor"]}
    return about | {"at": row["params"][along], **ends}
