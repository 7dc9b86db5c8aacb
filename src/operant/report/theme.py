"""The look of every chart, and its three forms: a specification for the page, PNG and SVG.

A chart names its series; :func:`theme` holds their colors, so one specification serves light mode, dark mode and the
files. Needs the extra ``operant[report]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from operant.report.formats import legible

try:
    import altair as alt
    import vl_convert
except ImportError as error:
    raise ImportError(
        f"the report draws with altair and vl-convert-python, and {error.name} is not installed. "
        "Run: pip install 'operant[report]'"
    ) from error

# Okabe and Ito's color-blind-safe set without yellow and black, which do not read on both grounds, then two of Tol's
# muted set. The dark ground has lighter tones of the same hues. From the ninth series on colors repeat; tooltips and
# tables still tell the series apart.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933")
DARK = ("#4aa8e8", "#ff8a4c", "#2fc49a", "#e3a0c6", "#f2bd4b", "#9bd3f5", "#cf6f9d", "#c9c95a")
_INK = {
    "light": {"text": "#1f2933", "soft": "#5b6673", "grid": "#e6e9ee", "ground": "#ffffff"},
    "dark": {"text": "#e7ebf0", "soft": "#a3acb9", "grid": "#2d3541", "ground": "#171c23"},
}
# Of curves with a number, such as a temperature: dark to bright, so that order shows without color vision, and without
# the blue, orange and pink of the series above. Both ends read on their ground.
RAMP = {
    "light": ("#073b4c", "#156064", "#2a8a80", "#62b68a", "#9cc267"),
    "dark": ("#2f7f7c", "#3fa291", "#6fc99a", "#b0e6a0", "#eef7b0"),
}
# Characters of a legend that fit one row under a chart of 840 points at 13 points a letter.
_LEGEND_CHARACTERS = 105
# A look-alike for the backslash, and spaces for line breaks: Vega puts titles into quotes unescaped.
_UNQUOTABLE = str.maketrans({"\\": "\u29f5", **dict.fromkeys("\n\r\u2028\u2029", " ")})
_FIGURE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


Mode = Literal["light", "dark"]


@dataclass(frozen=True)
class SeriesStyle:
    """The look of a series: its colors and, for a line of its own style, dashes and width in pixels."""

    light: str
    dark: str
    dash: tuple[int, ...] = ()
    width: float = 0.0


@dataclass(frozen=True)
class Ramp:
    """Curves that are colored by a number.

    Args:
        title: what the number is.
        low: where the colors begin.
        high: where they end.
        log: whether they follow its logarithm.
        labels: names of the curves 0, 1, ... if the number only tells them apart.
    """

    title: str
    low: float
    high: float
    log: bool = False
    labels: tuple[str, ...] = ()

    def color(self, mode: Mode, place: float) -> str:
        """The color at a place between 0 and 1, as Vega interpolates."""
        colors = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in RAMP[mode]]
        at = place * (len(colors) - 1)
        i = min(int(at), len(colors) - 2)
        return "#" + "".join(f"{round(a + (at - i) * (b - a)):02x}" for a, b in zip(*colors[i : i + 2], strict=True))

    @property
    def styles(self) -> dict[str, SeriesStyle]:
        """Label -> look of its line."""
        places = {label: i / max(len(self.labels) - 1, 1) for i, label in enumerate(self.labels)}
        return {n: SeriesStyle(self.color("light", p), self.color("dark", p), (1, 0), 2.5) for n, p in places.items()}


# For what others are compared with: without a hue, and readable on both grounds.
GRAY, PALE = SeriesStyle("#6b7280", "#a3acb9"), SeriesStyle("#b4bac4", "#5d6673")


def cycle(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """Name -> key: the colors in their order, again from the first after the last."""
    return {name: SeriesStyle(LIGHT[i % len(LIGHT)], DARK[i % len(DARK)]) for i, name in enumerate(names)}


@dataclass(frozen=True)
class Panel:
    """One chart without a size, as a Vega-Lite specification."""

    title: str
    spec: Mapping[str, Any]


def panel(title: str, *layers: Any, height: int | None = None) -> Panel:
    """A panel of Altair charts, the first at the bottom; its height in pixels where it depends on the content."""
    spec: dict[str, Any] = alt.layer(*layers).to_dict(validate=False)  # Altair checked the parts when they were built
    own = {} if height is None else {"height": height}
    # Without the configuration that Altair adds, which would override the theme of the page.
    return Panel(title, {k: _quotable(v) for k, v in spec.items() if k != "config"} | own)


def _quotable(value: Any) -> Any:
    r"""The specification with texts that Vega can quote; equal texts stay equal.

    Vega-Lite writes titles and names into expressions, for sort orders and for screen readers. It escapes no backslash
    and no line break there, so a title that ends in a backslash would break the expression.
    """
    if isinstance(value, str):
        return legible(value).translate(_UNQUOTABLE)
    if isinstance(value, Mapping):
        return {k: _quotable(v) for k, v in value.items()}
    return [_quotable(v) for v in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Figure:
    """Panels under one title.

    Args:
        name: stem of its files and of its ids in the page: a-z, 0-9, _ and hyphens. It never comes from a file.
        title: the heading.
        panels: its charts.
        keys: the series of the color scale, which all panels share.
        ramp: how lines with the channel ``stroke`` are colored, if there are any.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    keys: Mapping[str, SeriesStyle]
    ramp: Ramp | None = None

    def __post_init__(self) -> None:
        """Reject a name that could be markup or a path."""
        if not _FIGURE_NAME.fullmatch(self.name):
            raise ValueError(f"the name of a figure consists of a-z, 0-9, _ and hyphens, got {self.name!r}.")

    @property
    def description(self) -> str:
        """What it shows, for screen readers: the title, the panels and the series."""
        titles = [p.title for p in self.panels if p.title]
        shown = f", by panel: {'; '.join(titles)}" if titles else ""
        ramp = f" Known curves by {self.ramp.title}." if self.ramp else ""
        return f"{self.title}{shown}. Series: {'; '.join(self.keys)}.{ramp}"

    @property
    def legend(self) -> Mapping[str, SeriesStyle]:
        """The series that need a legend; none where each panel is titled by its series."""
        titles = tuple(p.title for p in self.panels)
        return {} if len(titles) > 1 and titles == tuple(self.keys) else self.keys


def theme(keys: Iterable[SeriesStyle], mode: Mode) -> dict[str, Any]:
    """The Vega-Lite configuration of a chart whose series have these keys."""
    ink = _INK[mode]
    return {
        "background": "transparent",
        "font": "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'Liberation Sans', sans-serif",
        "view": {"stroke": None},
        "range": {"category": [k.light if mode == "light" else k.dark for k in keys], "ramp": list(RAMP[mode])},
        "title": {
            "color": ink["text"],
            "fontSize": 14,
            "anchor": "start",
            "fontWeight": 600,
            "offset": 10,
        },
        "axis": {
            "labelColor": ink["soft"],
            "titleColor": ink["soft"],
            "gridColor": ink["grid"],
            "domainColor": ink["grid"],
            "tickColor": ink["grid"],
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": 400,
            "titlePadding": 8,
        },
        "axisX": {"grid": False},
        "legend": {"disable": True},
        "rule": {"color": ink["soft"]},
        "text": {"color": ink["text"], "fontSize": 12},
    }


def page_spec(figure: Figure, place: int) -> dict[str, Any]:
    """The Vega-Lite specification of a figure's panel that takes the width of its container.

    A lone one is higher; a panel with a height of its own keeps it.
    """
    panel, height = figure.panels[place], 340 if len(figure.panels) == 1 else 240
    height = panel.spec.get("height", height)
    # With "contains: padding" the labels of the axis count toward the width; otherwise they overflow a narrow screen.
    size = {"width": "container", "height": height, "autosize": {"type": "fit-x", "contains": "padding"}}
    about = f"{figure.title}: {panel.title}" if panel.title else figure.description
    return {**panel.spec, **size, "description": _quotable(about)}


def save(figure: Figure, folder: Path) -> list[Path]:
    """Write ``figure.png`` (scale 2, about 900 x 450 points) and ``figure.svg``; return their paths."""
    drawing = vl_convert.vegalite_to_svg(_quotable(image_spec(figure)))
    png, svg = folder / f"{figure.name}.png", folder / f"{figure.name}.svg"
    # Scale 2 keeps the picture sharp on dense screens and in print.
    png.write_bytes(vl_convert.svg_to_png(drawing, scale=2))
    svg.write_text(drawing, encoding="utf-8")
    return [png, svg]


def image_spec(figure: Figure) -> dict[str, Any]:
    """A specification with a fixed size: at most three panels a row, a legend, a white ground."""
    across = min(3, len(figure.panels))
    # The 70 points between two panels hold the axis of the right one.
    width = (840 - 70 * (across - 1)) // across
    charts = [{"height": 300, **p.spec, "width": width, "title": p.title} for p in figure.panels]
    schema = [c.pop("$schema") for c in charts][0]
    chart = charts[0] if across == 1 else {"concat": charts, "columns": across}
    ink = _INK["light"]
    config = theme(figure.keys.values(), "light") | {"background": ink["ground"], "legend": _image_legend(figure)}
    title = {"text": figure.title, "fontSize": 17, "anchor": "start", "offset": 14}
    about = {"title": title, "description": figure.description}
    return {**chart, "$schema": schema, "config": config, "padding": 16, **about}


def _image_legend(figure: Figure) -> dict[str, Any]:
    lengths = [len(name) + 5 for name in figure.keys]
    one_row = sum(lengths) <= _LEGEND_CHARACTERS
    lines = any(k.width for k in figure.keys.values())
    # The size of a stroke symbol is the square of its length: 500 is a line of 22 points, long enough for its dashes.
    symbol = {"symbolType": "stroke", "symbolSize": 500, "symbolStrokeWidth": 3} if lines else {}
    return {
        "disable": not figure.legend,
        "orient": "bottom",
        "direction": "horizontal",
        "columns": len(lengths) if one_row else max(1, _LEGEND_CHARACTERS // max(lengths)),
        "labelFontSize": 13,
        "labelLimit": 0,
        "symbolType": "circle",
        "symbolSize": 90,
        "symbolOpacity": 1,
        "labelColor": _INK["light"]["text"],
        **symbol,
    }


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script for a ``<script>`` element."""
    # A string in the bundle could otherwise end the element. The cache saves a second for each further page.
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
