"""The figures of an extrapolation: each target among the known tasks, the choice of the operator, and parameters."""

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
from operant.report.records import Record
from operant.report.theme import DARK, GRAY, LIGHT, PALE, Figure, SeriesStyle, alt, cycle, image_spec, panel

KNOWN, CONTEXT, TRUTH = "known tasks", "context", "truth"
PREDICTED, BEYOND = "prediction", "prediction, beyond what is known"
DRAWN_POINTS = 2500
"""Points of known tasks in a panel: three for each pixel of its width. Longer curves are thinned."""
CHOSEN, RELATIONAL, PLAIN = "largest weight", "relational", "plain baseline"


def target_figure(target: Record, bank: Record, name: str) -> Figure:
    """A target among the known tasks, a panel for each output; several inputs are drawn along the first."""
    several = len(target["x_names"]) > 1
    keys = _dots_only(_keys(target, bank)) if several else _keys(target, bank)
    panels = []
    for c, y in enumerate(target["y_names"]):
        if several and target["truth"]:
            panels.append(panel(f"{y}: predicted against true", *_against_true(target, c, keys)))
        layers = _points(target, c, keys) if several else _curves(target, bank, c, keys)
        panels.append(panel(f"{y} along {target['x_names'][0]}" if several else y, *layers))
    return Figure(name, f"Target {name_of(target)}", tuple(panels), keys)


def _keys(target: Record, bank: Record) -> dict[str, SeriesStyle]:
    """The series that this target has, in the order of the legend."""
    blue, orange, green, pink = (SeriesStyle(LIGHT[i], DARK[i]) for i in range(4))
    covered = target["prediction"]["covered"]
    keys = {KNOWN: SeriesStyle(PALE.light, PALE.dark, (1, 0), 1)} if bank["curves"] else {}
    if target["anchor"]:
        keys[_anchor(target)] = SeriesStyle(orange.light, orange.dark, (1, 0), 2.5)
    if any(covered):
        keys[PREDICTED] = SeriesStyle(blue.light, blue.dark, (1, 0), 3)
    if not all(covered):
        keys[BEYOND] = SeriesStyle(blue.light, blue.dark, (3, 3), 3)
    if target["baseline"]:
        keys[target["baseline"]["name"]] = SeriesStyle(pink.light, pink.dark, (7, 4), 2)
    keys[CONTEXT] = SeriesStyle("#111827", "#f3f4f6")
    return keys | ({TRUTH: SeriesStyle(green.light, green.dark)} if target["truth"] else {})


def _dots_only(keys: Mapping[str, SeriesStyle]) -> dict[str, SeriesStyle]:
    """The series for several inputs: points, paler beyond the range of what is known."""
    pale = {BEYOND: SeriesStyle(LIGHT[5], DARK[5])}
    return {
        k: pale.get(k, SeriesStyle(v.light, v.dark))
        for k, v in keys.items()
        if k in (PREDICTED, BEYOND, CONTEXT, TRUTH)
    }


def _anchor(target: Record) -> str:
    return f"anchor {target['anchor']['key']}"


def _curves(target: Record, bank: Record, c: int, keys: Mapping[str, SeriesStyle]) -> list[Any]:
    """Layers of one output of one input: known tasks, band, baseline, anchor, prediction, truth, context."""
    x_name, y_name = target["x_names"][0], target["y_names"][c]
    span = _span(target, bank, c)
    scale = alt.Scale(domain=span, zero=False)
    y = alt.Y("y:Q", title=y_name, scale=scale, axis=alt.Axis(tickCount=6))
    x = alt.X("x:Q", title=x_name, scale=alt.Scale(zero=False, nice=False, padding=6), axis=alt.Axis(tickCount=7))
    dash = alt.Scale(domain=list(keys), range=[list(k.dash) or [1, 0] for k in keys.values()])

    def series(rows: Sequence[Datum]) -> alt.Chart:
        return chart(rows).encode(
            x=x, y=y, color=color(keys), strokeDash=alt.StrokeDash("series:N", scale=dash, title=None)
        )

    def line(rows: Sequence[Datum], width: float, opacity: float = 1.0) -> alt.Chart:
        return series(rows).mark_line(strokeWidth=width, opacity=opacity, clip=True).encode(detail="part:N")

    layers = [line(known_rows(bank, c), 1, 0.75)] if bank["curves"] else []
    segments = _segments(target, c)
    band = chart(segments).encode(x=x, color=color(keys)).mark_area(opacity=0.16, clip=True, strokeWidth=0)
    layers.append(band.encode(y=alt.Y("low:Q", title=y_name, scale=scale), y2="high:Q", detail="part:N"))
    if target["anchor"]:
        layers.append(line(_rows(_anchor(target), target["anchor"]["x"], target["anchor"]["y"], c), 2))
    layers.append(line(segments, 3))
    if target["baseline"]:
        values = target["baseline"]["mean"]
        layers.append(line(_rows(target["baseline"]["name"], target["prediction"]["x"], values, c), 2))
    dots = series([s for s in segments if not s["joint"]]).mark_point(filled=True, size=70, opacity=0)
    layers.append(dots.encode(tooltip=_tips(x_name, y_name, "low", "high")))
    for name, rows in _dots(target, c):
        size, shape = (85, "circle") if name == CONTEXT else (60, "diamond")
        mark = series(rows).mark_point(filled=True, size=size, shape=shape, opacity=1, clip=True)
        layers.append(mark.encode(tooltip=_tips(x_name, y_name)))
    return layers


def _dots(target: Record, c: int) -> list[tuple[str, list[Datum]]]:
    """Truth, then context above it."""
    truth = [(TRUTH, _rows(TRUTH, target["truth"]["x"], target["truth"]["y"], c))] if target["truth"] else []
    return [*truth, (CONTEXT, _rows(CONTEXT, target["context"]["x"], target["context"]["y"], c))]


def _span(target: Record, bank: Record, c: int) -> list[float]:
    """Range of the axis: all curves and points.

    Bands extend it by at most 30 %; a band that runs away would squeeze the rest.
    """
    sources = [target["context"]["y"], target["prediction"]["mean"], *(k["y"] for k in bank["curves"])]
    sources += [target[k]["y"] for k in ("truth", "anchor") if target[k]]
    values = [v[c] for source in sources for v in source if v[c] is not None]
    low, high = min(values), max(values)
    slack = 0.3 * (high - low) or 1.0
    ends = [(target["prediction"][k], pick) for k, pick in (("low", min), ("high", max))]
    reached = [pick((v[c] for v in rows if v[c] is not None), default=low) for rows, pick in ends]
    bottom, top = max(min(low, reached[0]), low - slack), min(max(high, reached[1]), high + slack)
    # A constant curve has no height: half a unit on both sides.
    edge = 0.04 * (top - bottom) or 0.5
    return [bottom - edge, top + edge]


def known_rows(bank: Record, c: int) -> list[Datum]:
    """Points of one output of the known tasks, thinned."""
    # All curves are thinned alike, so that their density stays comparable. The last point of each is kept.
    step = 1 + sum(len(k["x"]) for k in bank["curves"]) // DRAWN_POINTS
    rows: list[Datum] = []
    for i, curve in enumerate(bank["curves"]):
        points = sorted(zip(curve["x"], curve["y"], strict=True), key=lambda p: p[0][0])
        kept = points[::step] + points[-1:] * bool((len(points) - 1) % step)
        rows += [{"series": KNOWN, "part": i, "x": _brief(x[0]), "y": _brief(y[c])} for x, y in kept]
    return rows


def _brief(value: float) -> float:
    """Six digits: enough for any screen."""
    return float(f"{value:.6g}")


def _rows(series: str, x: Sequence[Any], y: Sequence[Any], c: int) -> list[Datum]:
    found = [{"series": series, "part": 0, "x": a[0], "y": b[c]} for a, b in zip(x, y, strict=True)]
    return sorted((r for r in found if r["y"] is not None), key=lambda r: r["x"])


def _segments(target: Record, c: int) -> list[Datum]:
    """The prediction in pieces, covered and not. An uncovered piece includes its neighbors, so that lines meet."""
    asked = target["prediction"]
    columns = (asked[k] for k in ("x", "mean", "low", "high", "covered"))
    points = sorted(zip(*columns, strict=True), key=lambda p: p[0][0])
    rows: list[Datum] = []
    part, before = 0, None

    def add(point: Sequence[Any], inside: bool, joint: bool) -> None:
        series = PREDICTED if inside else BEYOND
        values = {"x": point[0][0], "y": point[1][c], "low": point[2][c], "high": point[3][c]}
        rows.append({"series": series, "part": part, **values, "joint": joint})

    for point in points:
        inside = bool(point[4])
        if before is not None and inside != before[4]:
            if before[4]:
                part += 1
                add(before, False, True)
            else:
                add(point, False, True)
                part += 1
        add(point, inside, False)
        before = point
    return rows


def _points(target: Record, c: int, keys: Mapping[str, SeriesStyle]) -> list[Any]:
    """Several inputs: context and predictions with their intervals against the first."""
    x_name, y_name = target["x_names"][0], target["y_names"][c]
    x = alt.X("x:Q", title=x_name, scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(tickCount=5))
    y = alt.Y("y:Q", title=y_name, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6))
    rows = [r for r in _segments(target, c) if not r["joint"]]
    base = chart(rows).encode(x=x, color=color(keys))
    bar = base.mark_rule(opacity=0.35, strokeWidth=1.5).encode(y=alt.Y("low:Q", title=y_name), y2="high:Q")
    dot = base.mark_point(filled=True, size=45, opacity=1).encode(y=y, tooltip=_tips(x_name, y_name, "low", "high"))
    layers = [bar, dot]
    for name, found in _dots(target, c):
        shape = "circle" if name == CONTEXT else "diamond"
        mark = chart(found).mark_point(filled=True, size=60, shape=shape, opacity=1)
        layers.append(mark.encode(x=x, y=y, color=color(keys), tooltip=_tips(x_name, y_name)))
    return layers


def _against_true(target: Record, c: int, keys: Mapping[str, SeriesStyle]) -> list[Any]:
    """Predicted against true at the query points, with intervals and the diagonal."""
    known = {tuple(x): y[c] for x, y in zip(target["truth"]["x"], target["truth"]["y"], strict=True)}
    asked = target["prediction"]
    rows = [
        {"series": PREDICTED if inside else BEYOND, "true": known[tuple(x)], "y": m[c], "low": lo[c], "high": hi[c]}
        for x, m, lo, hi, inside in zip(*(asked[k] for k in ("x", "mean", "low", "high", "covered")), strict=True)
        if tuple(x) in known
    ]
    ends = [f(v for r in rows for v in (r["true"], r["y"])) for f in (min, max)] if rows else [0.0, 1.0]
    diagonal = chart({"x": v, "y": v} for v in ends).mark_line(strokeDash=[4, 3], strokeWidth=1)
    x = alt.X("true:Q", title="true", scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(tickCount=5))
    base = chart(rows).encode(x=x, color=color(keys))
    y = alt.Y("y:Q", title="predicted", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6))
    bar = base.mark_rule(opacity=0.35, strokeWidth=1.5).encode(y=alt.Y("low:Q", title="predicted"), y2="high:Q")
    tips = _tips("true", "predicted", "low", "high")
    dot = base.mark_point(filled=True, size=45, opacity=1).encode(y=y, tooltip=[alt.Tooltip("true:Q"), *tips[2:]])
    return [diagonal.encode(x="x:Q", y=alt.Y("y:Q"), color=alt.value(GRAY.light)), bar, dot]


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
    chart = panel("", *_bars(rows, [n for n in names if any(r["operator"] == n for r in rows)], keys))
    return Figure("choice", "How the operator was chosen", (chart,), keys)


def _positive(value: float | None, error: float) -> float:
    """An end of an interval on a logarithmic axis; the error itself, so that no bar is drawn, if there is none."""
    return value if value is not None and value > 0 else error


def _bars(rows: Sequence[Datum], names: Sequence[str], keys: Mapping[str, SeriesStyle]) -> list[Any]:
    several = len({r["target"] for r in rows}) > 1
    y = alt.Y("operator:N", title=None, sort=list(names), axis=alt.Axis(labelLimit=290, ticks=False, labelPadding=8))
    ends = extent(rows, "low", "error", "high")
    scale = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(grid=True, format="~g", values=log_ticks(*ends))
    title = "expected error"
    base = chart(rows).encode(y=y, color=color(keys))
    bar = base.mark_rule(strokeWidth=2, opacity=0.25 if several else 1)
    numbers = [alt.Tooltip(f"{k}:Q", format=".3g") for k in ("error", "low", "high")]
    tips = [alt.Tooltip("operator:N"), alt.Tooltip("target:N"), *numbers]
    point = base.mark_point(filled=True, opacity=1, size=75)
    return [
        bar.encode(x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q"),
        point.encode(x=alt.X("error:Q", title=title, scale=scale, axis=axis), tooltip=tips),
    ]


def parameter_figure(targets: Sequence[Record]) -> Figure | None:
    """Parameters of the transformations against the one known parameter of the targets.

    None if fewer than two targets differ in it.
    """
    known = [t for t in targets if len(t["params"]) == 1 and not is_plain(t) and best(t) is not None]
    rows: list[Datum] = []
    for t in known:
        found, (value,) = best(t) or {}, t["params"].values()
        for name, (estimate, low, high) in parameters_of(found).items():
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


def _tips(x_name: str, y_name: str, *more: str) -> list[alt.Tooltip]:
    form = ".4g"
    first = [alt.Tooltip("series:N"), alt.Tooltip("x:Q", title=x_name, format=form)]
    return [*first, alt.Tooltip("y:Q", title=y_name, format=form), *(alt.Tooltip(f"{k}:Q", format=form) for k in more)]


def target_chart(source: Record | Sequence[Record]) -> Any:
    """See :func:`operant.report.target_chart`, for the record of a target, or records of a target and its bank."""
    records = [source] if isinstance(source, Mapping) else list(source)
    target = next(r for r in records if r["kind"] == "target")
    bank = next((r for r in records if r["kind"] == "bank"), {"curves": []})
    return alt.Chart.from_dict(image_spec(target_figure(target, bank, "target")))
