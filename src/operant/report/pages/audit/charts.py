"""The figures of an audit: slopes, ratios and noise for every family of rules, and dead groups, all against p."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from operant.report.charts import chart, color
from operant.report.pages.audit.load import OURS, SavedAudit
from operant.report.records import Record
from operant.report.theme import GRAY, Figure, Panel, SeriesStyle, alt, cycle, panel

# Width of the target's line in pixels: a band below the rules, which shows when a rule lies on it.
_BAND = 8.0
_DASHES = ((1, 0), (7, 3), (2, 3), (9, 3, 2, 3), (4, 2), (12, 4))
# Family of rules -> name of its figure.
_FILES = {
    "one sample": "one-sample",
    "set estimators": "set-estimators",
    "set advantages": "set-advantages",
    "plug-ins": "plug-ins",
}
# Success rates about equally spaced on the axis, which is linear in the logit of p.
_TICKS = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)


def family_figures(run: SavedAudit) -> list[Figure]:
    """A figure for each family: slope, slope over that of the target, and noise, beside the target and our credit."""
    target = run.target["strategy"]
    ours = tuple(r for r in run.rules if r["name"] == OURS)
    drawn: list[Figure] = []
    for family in dict.fromkeys(r["family"] for r in run.rules if r["name"] != OURS):
        rules = (*ours, *run.of(family))
        keys = {target: SeriesStyle(GRAY.light, GRAY.dark, _DASHES[0], _BAND)} | _keys(
            [r["name"] for r in rules], thick=[OURS]
        )
        slopes = {target: run.target["slope"]} | {r["name"]: r["slope"] for r in rules}
        ratios = {target: [1.0] * len(run.p)} | {r["name"]: r["ratio"] for r in rules}
        panels = (
            _lines("slope dJ/dp", run, keys, slopes),
            _lines("slope / slope of the target", run, keys, ratios, logarithmic=True),
            _lines("noise / signal", run, keys, {r["name"]: r["noise"] for r in rules}, logarithmic=True),
        )
        title = f"{family.capitalize()}, beside {target} from M = {run.target['m']}"
        drawn.append(Figure(_file_name(family, len(drawn)), title, panels, keys))
    return drawn


def _file_name(family: str, place: int) -> str:
    """The name of a family's figure. Families from a file that we do not know are numbered: a text is no file name."""
    return _FILES.get(family, f"rules-{place}")


def dead_figure(run: SavedAudit) -> Figure:
    """The share of dead groups; rules that are dead on the same groups share a line."""
    groups = alike(run)
    keys = _keys(list(groups), thick=[name for name, rules in groups.items() if rules[0]["name"] == OURS])
    dead = {name: [100 * x for x in members[0]["dead"]] for name, members in groups.items()}
    return Figure("dead", "Dead groups", (_lines("", run, keys, dead, unit="dead groups, %"),), keys)


def alike(run: SavedAudit) -> dict[str, list[Record]]:
    """The rules by their dead groups: name of the first of each kind -> all of that kind."""
    groups: list[list[Record]] = []
    for rule in run.rules:
        for group in groups:
            # Probabilities from different formulas agree to rounding only.
            if all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(group[0]["dead"], rule["dead"], strict=True)):
                group.append(rule)
                break
        else:
            groups.append([rule])
    return {g[0]["name"] + (f" and {len(g) - 1} more" if len(g) > 1 else ""): g for g in groups}


def _keys(names: Sequence[str], *, thick: Sequence[str]) -> dict[str, SeriesStyle]:
    """Ours thick and below, the others thin and dashed on top of it."""
    return {
        name: SeriesStyle(k.light, k.dark, _DASHES[i % len(_DASHES)], 3.5 if name in thick else 2)
        for i, (name, k) in enumerate(cycle(names).items())
    }


def _lines(
    title: str,
    run: SavedAudit,
    keys: Mapping[str, SeriesStyle],
    curves: Mapping[str, Sequence[float | None]],
    *,
    logarithmic: bool = False,
    unit: str | None = None,
) -> Panel:
    """A line for each rule; the target is a wide band below them."""
    rows = [
        {"series": name, "p": p, "logit": math.log(p / (1 - p)), "value": y, "width": keys[name].width}
        for name, values in curves.items()
        for p, y in zip(run.p, values, strict=True)
        if y is not None and (y > 0 or not logarithmic)
    ]
    dash = alt.Scale(domain=list(keys), range=[list(k.dash) for k in keys.values()])
    base = chart(rows).encode(
        x=_logit_axis(run),
        y=_log_axis(rows) if logarithmic else alt.Y("value:Q", title=unit, axis=alt.Axis(tickCount=6)),
        color=color(keys),
        strokeDash=alt.StrokeDash("series:N", scale=dash, title=None),
    )
    lines = [
        # A layer for each width, the widest first: the target must lie below the rules.
        base.transform_filter(f"datum.width == {width:g}").mark_line(
            strokeWidth=width, opacity=0.45 if width == _BAND else 1, interpolate="monotone", clip=logarithmic
        )
        for width in sorted({k.width for k in keys.values()}, reverse=True)
    ]
    tips = [
        alt.Tooltip("series:N", title="rule"),
        alt.Tooltip("p:Q", format=".2f"),
        alt.Tooltip("value:Q", format=".4g"),
    ]
    dots = base.mark_point(filled=True, size=60, opacity=0, clip=logarithmic).encode(tooltip=tips)
    return panel(title, *lines, dots)


def _logit_axis(run: SavedAudit) -> alt.X:
    """Linear in the logit, which separates both ends: with a budget N the slope lies below p = 1/N."""
    ends = [math.log(p / (1 - p)) for p in (min(run.p), max(run.p))]
    ticks = [math.log(p / (1 - p)) for p in _TICKS]
    label = "format(1 / (1 + exp(-datum.value)), '.2~f')"
    axis = alt.Axis(values=ticks, labelExpr=label, labelFlush=False)
    return alt.X("logit:Q", title="success rate p", scale=alt.Scale(domain=ends, nice=False), axis=axis)


def _log_axis(rows: Sequence[Mapping[str, Any]]) -> alt.Y:
    """Logarithmic, cut at 0.01 and 100: a rule beyond these is far from the target at any zoom."""
    values = [r["value"] for r in rows] or [1.0]
    low, high = max(0.01, min(values)), min(100.0, max(values))
    # The ratio 1, the same objective, is always in view.
    scale = alt.Scale(type="log", nice=False, domain=[min(low, 0.5) * 0.9, max(high, 2.0) * 1.1])
    ticks = [d * 10.0**k for k in range(-2, 3) for d in (1, 2, 5)]
    return alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(values=ticks, format="~g"))
