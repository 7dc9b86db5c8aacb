"""The axes of an extrapolation: their titles with units, linear or logarithmic, and what they show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from operant.report.charts import log_ticks
from operant.report.pages.extrapolation.words import with_unit
from operant.report.records import Record
from operant.report.theme import alt

# Set by eye on six families of curves; over fewer decades a linear axis shows the same.
_DECADES = 1.5
_SLACK = 0.3
"""A band extends an axis by at most this part of the rest: one that runs away would squeeze it."""
_WIDE_BAND = 2.0
"""The same for the axis of a zoomed panel, which shows the band."""
_EDGE = 0.04


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        title: name and unit.
        log: whether it is logarithmic.
    """

    title: str
    log: bool = False

    def span(self, values: Sequence[float], ends: Sequence[float] = (), slack: float = _SLACK) -> tuple[float, float]:
        """Range that shows all values, and ends of intervals where they extend it by at most ``slack`` of it."""
        shown, reached = [self._to(v) for v in values], [self._to(v) for v in ends if not self.log or v > 0]
        low, high = min(shown), max(shown)
        more = slack * (high - low) or 1.0
        bottom = max(min([low, *reached]), low - more)
        top = min(max([high, *reached]), high + more)
        # A constant curve has no height: half a unit on both sides.
        edge = _EDGE * (top - bottom) or 0.5
        return self._from(bottom - edge), self._from(top + edge)

    def share(self, inner: tuple[float, float], outer: tuple[float, float]) -> float:
        """How much of one range another one takes."""
        parts = [self._to(v) for v in (*inner, *outer)]
        return (parts[1] - parts[0]) / (parts[3] - parts[2])

    def scale(self, span: tuple[float, float]) -> alt.Scale:
        """The scale over a range."""
        kind: dict[str, Any] = {"type": "log"} if self.log else {"zero": False}
        return alt.Scale(domain=list(span), nice=False, **kind)

    def encode(self, kind: type[alt.X] | type[alt.Y], field: str, span: tuple[float, float]) -> Any:
        """A channel of this axis."""
        if not self.log:
            axis = alt.Axis(tickCount=6)
        else:
            ticks = [t for t in log_ticks(*span) if span[0] <= t <= span[1]]
            count: dict[str, Any] = {"values": ticks} if len(ticks) > 1 else {"tickCount": 4}
            axis = alt.Axis(format="~g", **count)
        return kind(f"{field}:Q", title=self.title, scale=self.scale(span), axis=axis)

    def _to(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def _from(self, value: float) -> float:
        return 10**value if self.log else value


def axes_of(target: Record, bank: Record) -> tuple[Axis, list[Axis]]:
    """The axis of the first input, and one for each output."""
    units = bank.get("units") or {}
    points = [v[0] for v in _values(target, bank, "x")]
    # The known tasks alone decide, so that the figures of all targets have the same axes.
    known = [v[0] for k in bank["curves"] for v in k["x"]] or points
    x = Axis(with_unit(target["x_names"][0], units), _is_log(target["x_names"][0], bank, known, points))
    ys: list[Axis] = []
    for c, name in enumerate(target["y_names"]):
        shown = [v[c] for v in _values(target, bank, "y") if v[c] is not None]
        mean = [v[c] for v in target["prediction"]["mean"] if v[c] is not None]
        known = [v[c] for k in bank["curves"] for v in k["y"]] or shown
        ys.append(Axis(with_unit(name, units), _is_log(name, bank, known, [*shown, *mean])))
    return x, ys


def _is_log(name: str, bank: Record, known: Sequence[float], shown: Sequence[float]) -> bool:
    """Whether an axis is logarithmic: as it was asked for, else if the known values are spread over decades."""
    if not shown or min(shown) <= 0:
        return False
    asked = bank.get("log_axes")
    if asked is not None:
        return name in asked
    return name in (bank.get("log_x") or ()) or _is_geometric(known)


def _is_geometric(values: Sequence[float]) -> bool:
    """Whether positive values lie more evenly in their logarithm, over decades."""
    low, high = min(values), max(values)
    if math.log10(high / low) < _DECADES:
        return False
    middle = statistics.median(values)
    return abs(math.log(middle / low) / math.log(high / low) - 0.5) < abs((middle - low) / (high - low) - 0.5)


def _values(target: Record, bank: Record, key: str) -> list[Any]:
    """Points or values that a chart shows besides the prediction's."""
    sources: Iterable[Any] = [target["context"][key], *(k[key] for k in bank["curves"])]
    more = [target["prediction"]["x"]] if key == "x" else []
    return [v for s in (*sources, *more, *(target[k][key] for k in ("truth", "anchor") if target[k])) for v in s]


def windows(target: Record, bank: Record, c: int, x: Axis, y: Axis) -> list[tuple[tuple[float, float], ...]]:
    """Ranges of x and y: of everything, and of context, query and band unless that is nearly the same."""
    seen = [v[c] for v in target["prediction"]["mean"] if v[c] is not None]
    ends = [v[c] for k in ("low", "high") for v in target["prediction"][k] if v[c] is not None]
    known = [v[c] for v in _values(target, bank, "y") if v[c] is not None]
    whole = x.span([v[0] for v in _values(target, bank, "x")]), y.span([*known, *seen], ends)
    near = [*target["context"]["y"], *(target["truth"]["y"] if target["truth"] else [])]
    points = [v[0] for k in ("context", "prediction") for v in target[k]["x"]]
    zoom = x.span(points), y.span([*seen, *(v[c] for v in near)], ends, _WIDE_BAND)
    same = x.share(zoom[0], whole[0]) * y.share(zoom[1], whole[1]) > _SAME
    return [whole] if same or not bank["curves"] else [whole, zoom]


_SAME = 0.6
"""A zoomed panel that shows more than this part of the whole one adds nothing."""
