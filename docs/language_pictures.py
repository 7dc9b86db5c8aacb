"""Draw the picture of docs/language.md from what its own code computes.

Run from a checkout with the development extras installed:

    python docs/language_pictures.py

Runs the blocks of the page (two and a half minutes on one core), then writes docs/images/language_names.png.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
from PIL import Image

from operant.report.charts import chart, color
from operant.report.theme import DARK, GRAY, LIGHT, Figure, Panel, SeriesStyle, panel, save

DOCS = Path(__file__).parent
QUERY = "TURNER, helen"
RIGHT, WRONG = "gives the rows that were shown", "does not"
KEYS = {RIGHT: SeriesStyle(LIGHT[2], DARK[2]), WRONG: GRAY}
MOST = 5


def bars(title: str, task: Any) -> Panel:
    """The heaviest hypotheses, each with its prediction; colored by whether it gives the rows when it is executed."""
    rows = []
    for place, h in enumerate(task.hypotheses([QUERY], execute="run")[:MOST]):
        series = RIGHT if h.given == len(task.supports) else WRONG
        label = f"{h.candidates[0].candidate}: {h.outputs[0]}"
        rows.append({"series": series, "candidate": label, "posterior": 100 * h.weight, "place": place})
    names = [r["candidate"] for r in rows]
    y = alt.Y("candidate:N", title=None, sort=names, axis=alt.Axis(labelLimit=230, ticks=False, labelPadding=6))
    x = alt.X("posterior:Q", title="posterior, %", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=3))
    base = chart(rows).mark_bar(size=24, cornerRadiusEnd=2)
    return panel(title, base.encode(x=x, y=y, color=color(KEYS)))


def figures(names: Mapping[str, Any]) -> list[Figure]:
    """All pictures, from the names that the page's code defines."""
    panels = (
        bars("Two rows", names["task"]),
        bars("One row", names["one"]),
        bars("Rows of another kind", names["alien"]),
    )
    return [Figure("language_names", f"Candidates and what they make of {QUERY}", panels, KEYS)]


def run_page(page: str, folder: Path) -> dict[str, Any]:
    """The names that the page's blocks define, run in a folder."""
    names: dict[str, Any] = {"__name__": "page"}
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        for code in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
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
    page = (DOCS / "language.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        for figure in figures(run_page(page, Path(temporary))):
            print(write(figure, Path(temporary), DOCS / "images"))


if __name__ == "__main__":
    main()
