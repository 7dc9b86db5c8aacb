"""How every chart looks, and how it leaves: as a specification for the page, as PNG and as SVG.

A chart names branches only; its colours come from :func:`theme`, so that one specification serves light and
dark mode and the files. Needs the extra ``operant[report]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from operant.report.runs import WARM, Run

try:
    import altair as alt
    import vl_convert
except ImportError as error:
    raise ImportError(
        f"the report draws with altair and vl-convert-python, and {error.name} is not installed. "
        "Run: pip install 'operant[report]'"
    ) from error

# Okabe & Ito's colour-blind-safe set without yellow and black, then two of Tol's muted set; lighter on a
# dark ground. From the ninth branch on colours repeat: tooltips and tables tell the branches apart.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933")
DARK = ("#4aa8e8", "#ff8a4c", "#2fc49a", "#e3a0c6", "#f2bd4b", "#9bd3f5", "#cf6f9d", "#c9c95a")
GREYS = {"light": ("#6b7280", "#b4bac4"), "dark": ("#a3acb9", "#5d6673")}  # baseline, warm start
INK = {
    "light": {"text": "#1f2933", "soft": "#5b6673", "grid": "#e6e9ee", "ground": "#ffffff"},
    "dark": {"text": "#e7ebf0", "soft": "#a3acb9", "grid": "#2d3541", "ground": "#171c23"},
}
LEGEND_CHARACTERS = 105  # that fit one row under a chart


@dataclass(frozen=True)
class Panel:
    """One chart without a size."""

    title: str
    chart: alt.LayerChart


@dataclass(frozen=True)
class Figure:
    """Panels under one title and legend; ``name`` is the stem of the PNG and SVG files."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    branches: tuple[str, ...]

    @property
    def legend(self) -> tuple[str, ...]:
        """The branches to explain; none where each has a panel of its own name."""
        titles = tuple(p.title for p in self.panels)
        return () if len(titles) > 1 and titles == self.branches else self.branches


def colours(run: Run, mode: str) -> dict[str, str]:
    """Branch -> colour; the baseline and the warm start are grey. ``mode`` is "light" or "dark"."""
    cycle = LIGHT if mode == "light" else DARK
    chosen = {label: cycle[i % len(cycle)] for i, label in enumerate(run.trained)}
    base, warm = GREYS[mode]
    return {b: chosen.get(b, warm if b == WARM else base) for b in run.labels}


def theme(run: Run, branches: Sequence[str], mode: str) -> dict[str, Any]:
    """The Vega-Lite configuration of a chart whose colour domain is ``branches``."""
    ink = INK[mode]
    return {
        "background": "transparent",
        "font": "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'Liberation Sans', sans-serif",
        "view": {"stroke": None},
        "range": {"category": [colours(run, mode)[b] for b in branches]},
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
    }


def page_spec(panel: Panel, *, height: int) -> dict[str, Any]:
    """The Vega-Lite specification of a panel that takes the width of its container (pixels high)."""
    chart = panel.chart.properties(
        width="container",
        height=height,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
    )
    spec = chart.to_dict()
    spec.pop("config", None)
    return spec


def save(figure: Figure, run: Run, folder: Path) -> list[Path]:
    """Write ``figure.png`` (scale 2, about 900 x 450 points) and ``figure.svg``; return their paths."""
    spec = _image_spec(figure, run)
    png, svg = folder / f"{figure.name}.png", folder / f"{figure.name}.svg"
    png.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
    svg.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    return [png, svg]


def _image_spec(figure: Figure, run: Run) -> dict[str, Any]:
    """All panels side by side, three a row at most, with a legend on a white ground."""
    across = min(3, len(figure.panels))
    width = (840 - 70 * (across - 1)) // across
    charts = [
        p.chart.properties(width=width, height=300, title=p.title if len(figure.panels) > 1 else "")
        for p in figure.panels
    ]
    chart = charts[0] if len(charts) == 1 else alt.concat(*charts, columns=across)
    config = theme(run, figure.branches, "light")
    lengths = [len(b) + 5 for b in figure.branches]
    one_row = sum(lengths) <= LEGEND_CHARACTERS
    config["legend"] = {
        "disable": not figure.legend,
        "orient": "bottom",
        "direction": "horizontal",
        "columns": len(lengths) if one_row else max(1, LEGEND_CHARACTERS // max(lengths)),
        "labelFontSize": 13,
        "labelLimit": 0,
        "symbolType": "circle",
        "symbolSize": 90,
        "symbolOpacity": 1,
        "labelColor": INK["light"]["text"],
    }
    title = {"text": figure.title, "fontSize": 17, "anchor": "start", "offset": 14}
    return {
        **chart.to_dict(),
        "config": {**config, "background": INK["light"]["ground"]},
        "padding": 16,
        "title": title,
    }


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that may stand in a ``<script>`` element."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
