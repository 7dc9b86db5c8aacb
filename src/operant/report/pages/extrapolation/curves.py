"""The figure of a target: forecast and interval among the known tasks, and again from near."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from operant.report.charts import Datum, chart, color
from operant.report.pages.extrapolation.axes import Axis, axes_of, windows
from operant.report.pages.extrapolation.load import name_of
from operant.report.pages.extrapolation.words import with_unit
from operant.report.records import Record
from operant.report.theme import DARK, GRAY, LIGHT, PALE, Figure, Ramp, SeriesStyle, alt, image_spec, panel

KNOWN, CONTEXT, TRUTH = "known tasks", "context", "truth"
PREDICTED, BEYOND = "forecast", "forecast, beyond what is known"
DRAWN_POINTS = 2500
"""Points of known tasks in a panel: three for each pixel of its width. Longer curves are thinned."""
_MOST_NAMES = 30
"""Known tasks that are listed by name in a legend."""
_Span = tuple[float, float]


def target_figure(target: Record, bank: Record, name: str) -> Figure:
    """A target among the known tasks and from near, for each output; several inputs are drawn along the first."""
    several, ramp = len(target["x_names"]) > 1, ramp_of(bank)
    keys = _dots_only(_keys(target, ramp)) if several else _keys(target, ramp)
    xs, ys = axes_of(target, bank)
    panels = []
    for c, y in enumerate(ys):
        about = f"{y.title}: " if len(ys) > 1 else ""
        if several:
            if target["truth"]:
                panels.append(panel(f"{y.title}: predicted against true", *_against_true(target, c, keys)))
            panels.append(panel(f"{y.title} along {xs.title}", *_points(target, c, keys, xs, y)))
            continue
        shown = windows(target, bank, c, xs, y)
        titles = [f"{about}all known tasks", f"{about}near the target"] if len(shown) > 1 else [y.title]
        for title, spans in zip(titles, shown, strict=True):
            panels.append(panel(title, *_curves(target, bank, c, keys, (xs, y), spans, ramp)))
    return Figure(name, f"Target {name_of(target)}", tuple(panels), keys, None if several else ramp)


def ramp_of(bank: Record) -> Ramp | None:
    """By what the known tasks are colored; None if they are too many to have colors of their own."""
    title, places, labels = _places(bank)
    if not places or len(set(places)) < 2 or len(labels) > _MOST_NAMES:
        return None
    return Ramp(title, min(places), max(places), not labels and _over_decades(places), labels)


def _places(bank: Record) -> tuple[str, list[float], tuple[str, ...]]:
    """A title, the number of each known task, and names where the number only tells them apart.

    The number is a parameter with three values or more, else the name of the task if all names are numbers.
    """
    curves, units = bank["curves"], bank.get("units") or {}
    for name in bank.get("param_names") or ():
        values = [k["params"][name] for k in curves]
        if len(set(values)) > 2:
            return with_unit(name, units), values, ()
    task, keys = bank.get("task_name") or "task", [k["key"] for k in curves]
    numbers = [n for n in map(_number, keys) if n is not None]
    if len(numbers) == len(keys):
        return with_unit(task, units), numbers, ()
    return task, [float(i) for i in range(len(keys))], tuple(keys)


def _number(key: str) -> float | None:
    try:
        return value if math.isfinite(value := float(key)) else None
    except ValueError:
        return None


def _over_decades(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) >= 100 * min(values)


def _keys(target: Record, ramp: Ramp | None) -> dict[str, SeriesStyle]:
    """The series that this target has, in the order of the legend."""
    blue, orange, green, pink = (SeriesStyle(LIGHT[i], DARK[i]) for i in range(4))
    covered, keys = target["prediction"]["covered"], dict[str, SeriesStyle]()
    if any(covered):
        keys[PREDICTED] = SeriesStyle(blue.light, blue.dark, (1, 0), 3)
    if not all(covered):
        keys[BEYOND] = SeriesStyle(blue.light, blue.dark, (3, 3), 3)
    keys[CONTEXT] = SeriesStyle("#111827", "#f3f4f6")
    keys |= {TRUTH: SeriesStyle(green.light, green.dark)} if target["truth"] else {}
    if target["anchor"]:
        keys[_anchor(target)] = SeriesStyle(orange.light, orange.dark, (1, 0), 2.5)
    if target["baseline"]:
        keys[target["baseline"]["name"]] = SeriesStyle(pink.light, pink.dark, (7, 4), 2)
    return keys | ({KNOWN: SeriesStyle(PALE.light, PALE.dark, (1, 0), 1)} if ramp is None else {})


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


def _curves(
    target: Record,
    bank: Record,
    c: int,
    keys: Mapping[str, SeriesStyle],
    axes: tuple[Axis, Axis],
    spans: tuple[_Span, ...],
    ramp: Ramp | None,
) -> list[Any]:
    """Layers of one output of one input: known tasks, band, baseline, anchor, forecast, truth, context."""
    x, y = (a.encode(kind, kind.__name__.lower(), s) for a, kind, s in zip(axes, (alt.X, alt.Y), spans, strict=True))
    dash = alt.Scale(domain=list(keys), range=[list(k.dash) or [1, 0] for k in keys.values()])

    def series(rows: Sequence[Datum]) -> alt.Chart:
        return chart(_drawable(rows, axes, spans)).encode(
            x=x, y=y, color=color(keys), strokeDash=alt.StrokeDash("series:N", scale=dash, title=None)
        )

    def line(rows: Sequence[Datum], width: float) -> alt.Chart:
        return series(rows).mark_line(strokeWidth=width, clip=True).encode(detail="part:N")

    layers: list[Any] = []
    if bank["curves"]:
        known = _within(known_rows(bank, c), axes, spans)
        base = chart(known).mark_line(strokeWidth=1.3, opacity=0.85, clip=True)
        look = alt.Color("series:N", scale=alt.Scale(domain=list(keys)), title=None) if ramp is None else _stroke(ramp)
        layers.append(base.encode(x, y, look, detail="part:N", tooltip=_known_tips(ramp)))
    segments = _segments(target, c)
    drawable = _drawable(segments, axes, spans)
    band = chart(drawable).encode(x=x, color=color(keys)).mark_area(opacity=0.16, clip=True, strokeWidth=0)
    layers.append(band.encode(y=axes[1].encode(alt.Y, "low", spans[1]), y2="high:Q", detail="part:N"))
    if target["anchor"]:
        layers.append(line(_rows(_anchor(target), target["anchor"]["x"], target["anchor"]["y"], c), 2))
    layers.append(line(segments, 3))
    if target["baseline"]:
        values = target["baseline"]["mean"]
        layers.append(line(_rows(target["baseline"]["name"], target["prediction"]["x"], values, c), 2))
    titles = [a.title for a in axes]
    dots = series([s for s in segments if not s["joint"]]).mark_point(filled=True, size=70, opacity=0)
    layers.append(dots.encode(tooltip=_tips(*titles, "low", "high")))
    for name, rows in _dots(target, c):
        size, shape = (85, "circle") if name == CONTEXT else (60, "diamond")
        mark = series(rows).mark_point(filled=True, size=size, shape=shape, opacity=1, clip=True)
        layers.append(mark.encode(tooltip=_tips(*titles)))
    return layers


def _stroke(ramp: Ramp) -> alt.Stroke:
    """The channel of known tasks; pictures have its color bar as a legend, pages draw their own."""
    kind: dict[str, Any] = {"type": "log"} if ramp.log else {}
    scale = alt.Scale(domain=[ramp.low, ramp.high], nice=False, **kind)
    hidden: dict[str, Any] = {"legend": None} if ramp.labels else {}
    return alt.Stroke("place:Q", scale=scale, title=ramp.title, **hidden)


def _known_tips(ramp: Ramp | None) -> list[alt.Tooltip]:
    more = [] if ramp is None or ramp.labels else [alt.Tooltip("place:Q", title=ramp.title, format=".4~g")]
    return [alt.Tooltip("name:N", title="known task"), *more]


def _drawable(rows: Sequence[Datum], axes: tuple[Axis, Axis], spans: tuple[_Span, ...]) -> list[Datum]:
    """Rows for logarithmic axes, where a curve ends at what is not positive and a band at the edge of the panel."""
    kept = [r for r in rows if not (axes[0].log and r["x"] <= 0) and not (axes[1].log and (r["y"] or 1) <= 0)]
    if not axes[1].log:
        return kept
    edge = {k: spans[1][0] for k in ("low", "high")}
    return [r | {k: max(r[k], edge[k]) for k in edge if r.get(k) is not None} for r in kept]


def _within(rows: Sequence[Datum], axes: tuple[Axis, Axis], spans: tuple[_Span, ...]) -> list[Datum]:
    """Points of known tasks in a panel, and their neighbors outside it, to which the lines lead."""
    rows, (low, high) = _drawable(rows, axes, spans), spans[0]
    inside = [low <= r["x"] <= high for r in rows]

    def near(i: int) -> bool:
        same = [j for j in (i - 1, i + 1) if 0 <= j < len(rows) and rows[j]["part"] == rows[i]["part"]]
        # A line may cross the panel from one point beyond it to the next.
        return inside[i] or any(inside[j] or (rows[i]["x"] < low) != (rows[j]["x"] < low) for j in same)

    return [r for i, r in enumerate(rows) if near(i)]


def _dots(target: Record, c: int) -> list[tuple[str, list[Datum]]]:
    """Truth, then context above it."""
    truth = [(TRUTH, _rows(TRUTH, target["truth"]["x"], target["truth"]["y"], c))] if target["truth"] else []
    return [*truth, (CONTEXT, _rows(CONTEXT, target["context"]["x"], target["context"]["y"], c))]


def known_rows(bank: Record, c: int) -> list[Datum]:
    """Points of one output of the known tasks, thinned."""
    # All curves are thinned alike, so that their density stays comparable. The last point of each is kept.
    step = 1 + sum(len(k["x"]) for k in bank["curves"]) // DRAWN_POINTS
    rows: list[Datum] = []
    places = _places(bank)[1]
    for i, curve in enumerate(bank["curves"]):
        points = sorted(zip(curve["x"], curve["y"], strict=True), key=lambda p: p[0][0])
        kept = points[::step] + points[-1:] * bool((len(points) - 1) % step)
        about = {"series": KNOWN, "part": i, "name": curve["key"], "place": places[i]}
        rows += [about | {"x": _brief(x[0]), "y": _brief(y[c])} for x, y in kept]
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


def _points(target: Record, c: int, keys: Mapping[str, SeriesStyle], xs: Axis, ys: Axis) -> list[Any]:
    """Several inputs: context and predictions with their intervals against the first."""
    x_name, y_name = xs.title, ys.title
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
