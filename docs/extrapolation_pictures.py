"""Draw the pictures of docs/extrapolation.md from what its own code computes.

Run from a checkout with the development extras installed, and the data of examples/get_relational_data.py:

    python docs/extrapolation_pictures.py DATA_FOLDER

Runs the blocks of the page (about a minute and a half), then writes docs/images/extrapolation_*.png.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from PIL import Image

from operant.report.theme import DARK, LIGHT, PALE, Figure, Panel, SeriesStyle, panel, save

DOCS = Path(__file__).parent
BANK, AUTO, TRUTH, CONTEXT = "bank", "auto with 90 % interval", "truth", "context"
KEYS = {
    BANK: SeriesStyle(PALE.light, PALE.dark, (1, 0), 1),
    AUTO: SeriesStyle(LIGHT[0], DARK[0], (1, 0), 2.5),
    CONTEXT: SeriesStyle("#111827", "#f3f4f6"),
    TRUTH: SeriesStyle(LIGHT[2], DARK[2]),
}
OTHER = SeriesStyle(LIGHT[1], DARK[1], (6, 4), 2.5)
CELLS = ((0, 0), (0, 1), (1, 0))
NAMED, BOTH = ("shift * xshift", "bank PCA"), "the two effects, multiplied"
Curves = Mapping[Any, tuple[Any, Any]]


def rows(series: str, curves: Curves) -> list[dict[str, Any]]:
    """Points of curves in long form."""
    return [
        {"series": series, "part": str(key), "x": float(a), "y": float(b)}
        for key, (x, y) in curves.items()
        for a, b in zip(x, y, strict=True)
    ]


def every(tasks: Curves, step: int) -> Curves:
    """Some of the targets, so that they can be told apart."""
    return dict(list(tasks.items())[::step])


def predicted(targets: Mapping[Any, Any], asked: Mapping[Any, Any]) -> Curves:
    """Predictions at points."""
    return {key: (x, targets[key].predict(x)) for key, x in asked.items()}


def draw_panel(
    title: str,
    axes: tuple[str, str],
    bank: Curves,
    targets: Mapping[Any, Any],
    tasks: Curves,
    n: int,
    name: str,
    other: Mapping[Any, Any] | Curves | None = None,
) -> Panel:
    """Bank, context, truth, prediction with its band; ``name`` are the predictions of others, or a curve."""
    keys = KEYS | {name: OTHER}
    color = alt.Color("series:N", scale=alt.Scale(domain=list(keys)), title=None)
    dash = alt.Scale(domain=list(keys), range=[list(k.dash) or [1, 0] for k in keys.values()])
    asked = {key: np.linspace(x[n - 1], x[-1], 25) for key, (x, _) in tasks.items()}
    auto = predicted(targets, asked)
    more = {} if other is None else other if name not in NAMED else predicted(other, asked)
    shown = np.concatenate([y for c in (bank, tasks, auto, more) for _, y in c.values()])
    slack = 0.06 * np.ptp(shown)
    scale = alt.Scale(domain=[float(shown.min() - slack), float(shown.max() + slack)], zero=False, nice=False)
    x = alt.X("x:Q", title=axes[0], scale=alt.Scale(zero=False, nice=False, padding=6), axis=alt.Axis(tickCount=6))

    def chart(data: list[dict[str, Any]]) -> alt.Chart:
        y = alt.Y("y:Q", title=axes[1], scale=scale, axis=alt.Axis(tickCount=6))
        return alt.Chart(alt.Data(values=data)).encode(x=x, y=y, color=color, detail="part:N")

    def line(series: str, curves: Curves, width: float) -> alt.Chart:
        return (
            chart(rows(series, curves))
            .mark_line(strokeWidth=width, clip=True)
            .encode(strokeDash=alt.StrokeDash("series:N", scale=dash, title=None))
        )

    def dots(series: str, curves: Curves, shape: str, size: int) -> alt.Chart:
        return chart(rows(series, curves)).mark_point(filled=True, opacity=1, size=size, shape=shape, clip=True)

    band = []
    for key, at in asked.items():
        low, high = targets[key].interval(at)
        band += [
            {"series": AUTO, "part": str(key), "x": float(a), "low": float(b), "high": float(c)}
            for a, b, c in zip(at, low, high, strict=True)
        ]
    area = alt.Chart(alt.Data(values=band)).mark_area(opacity=0.12, clip=True, strokeWidth=0)
    layers: list[alt.Chart] = [
        line(BANK, bank, 1),
        area.encode(x=x, y=alt.Y("low:Q", title=axes[1], scale=scale), y2="high:Q", color=color, detail="part:N"),
        line(AUTO, auto, 2),
        line(name, more, 2),
    ]
    layers.append(dots(TRUTH, {key: (x[n:], y[n:]) for key, (x, y) in tasks.items()}, "diamond", 40))
    layers.append(dots(CONTEXT, {key: (x[:n], y[:n]) for key, (x, y) in tasks.items()}, "circle", 40))
    return panel(title, *layers)


def figures(names: Mapping[str, Any]) -> list[Figure]:
    """All pictures, from the names that the page's code defines."""
    curves, colder, hotter = names["curves"], names["colder"], names["hotter"]
    known = [{c: v for c, v in curves.items() if c not in tasks} for tasks in (colder, hotter)]
    axes = ("log10 of time, s", "log10 of modulus, MPa")
    cold, hot = names["cold"], names["hot"]
    relaxation = (
        draw_panel("Colder than the bank", axes, known[0], cold["auto"], every(colder, 3), 3, NAMED[0], cold[NAMED[0]]),
        draw_panel("Hotter than the bank", axes, known[1], hot["auto"], every(hotter, 2), 3, NAMED[0], hot[NAMED[0]]),
    )
    paths, fast, cracks = names["paths"], names["fast"], names["cracks"]
    slow = {p: v for p, v in paths.items() if p not in fast}
    axes = ("millions of cycles", "log of crack length over the first")
    fatigue = (draw_panel("", axes, slow, cracks["auto"], every(fast, 4), 5, NAMED[1], cracks[NAMED[1]]),)
    plants, fourth = names["plants"], names["fourth"]
    bank = {p: v for p, v in plants.items() if p not in fourth}
    axes = ("log10 of CO2 concentration, mL/L", "uptake, µmol/(m² s)")
    product = {"product": multiplied(plants, names["cell"])}
    co2 = (draw_panel("", axes, bank, names["uptake"], fourth, 3, BOTH, product),)
    some = "Crack growth: some of the fast from the slow"
    return [
        Figure("extrapolation_relaxation", "Relaxation modulus, some targets", relaxation, KEYS | {NAMED[0]: OTHER}),
        Figure("extrapolation_fatigue", some, fatigue, KEYS | {NAMED[1]: OTHER}),
        Figure("extrapolation_co2", "CO2 uptake of chilled plants from Mississippi", co2, KEYS | {BOTH: OTHER}),
    ]


def multiplied(plants: Curves, cell: Mapping[Any, Any]) -> tuple[Any, Any]:
    """The curve of the fourth cell if origin and chilling multiply the uptake independently."""
    x = next(iter(plants.values()))[0]
    log = {c: np.mean([np.log(y) for p, (_, y) in plants.items() if cell[p] == list(c)], axis=0) for c in CELLS}
    return x, np.exp(log[1, 0] + log[0, 1] - log[0, 0])


def run_page(blocks: Iterable[str], folder: Path) -> dict[str, Any]:
    """The names that the blocks define, run in a folder."""
    names: dict[str, Any] = {}
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        for code in blocks:
            exec(code, names)
    return names


def write(figure: Figure, temporary: Path, images: Path) -> Path:
    """The picture with a palette of 64 colors, a third of the size."""
    png, _ = save(figure, temporary)
    with Image.open(png) as picture:
        picture.convert("RGB").quantize(64).save(images / png.name, optimize=True)
    return images / png.name


def main() -> None:
    """Run the page, draw, and write."""
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    page = (DOCS / "extrapolation.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        os.symlink(Path(sys.argv[1]).resolve(), Path(temporary) / "data")
        names = run_page(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE), Path(temporary))
        for figure in figures(names):
            print(write(figure, Path(temporary), DOCS / "images"))


if __name__ == "__main__":
    main()
