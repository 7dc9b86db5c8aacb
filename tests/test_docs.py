"""The documentation: tables are true, every link and picture is there. Its code: test_code_blocks.py."""

import importlib.util
import math
import re
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from operant.core.checks import NotDefinedError
from operant.strategies import Strategy, parse
from operant.strategies.forms import registered
from tests import slow

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def table() -> list[list[str]]:
    """Cells of the table of all strategies, without its head."""
    section = (DOCS / "strategies.md").read_text(encoding="utf-8").partition("## All strategies")[2]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_pages_are_there() -> None:
    assert len(PAGES) >= 20


def test_the_table_has_every_form_of_a_strategy_string() -> None:
    shown = {type(parse(row[1].strip("`"))) for row in table() if row[1]}
    assert shown == {cls for cls in registered().values() if cls.__module__.startswith("operant.")}


@pytest.mark.parametrize("row", table(), ids=lambda row: row[0])
def test_a_row_of_the_table_is_true(row: list[str]) -> None:
    form, example, _, needs, has_curve, *_ = row
    if not example:
        assert form == "`from_function(n, f)`"
        return
    s = parse(example.strip("`"))
    name, written = (re.match(r"`[a-z]+", x) for x in (form, example))
    assert name and written and name[0].replace("topk", "top") == written[0]
    inner = example.removesuffix(")`").partition("(")[2] if "S" in form else ""  # of the strategies in it
    assert "mix" in form or example.count(":") - inner.count(":") == form.count(":")
    assert has_curve == ("yes" if has_success_curve(s) else "no")
    if needs in ("b", "r", "r, s", "r, a", "r, a, s"):
        assert s.traits.binary == (needs == "b")


def has_success_curve(s: Strategy) -> bool:

    try:
        s.log_success(torch.tensor(-1.0))
    except NotDefinedError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_and_picture_of_a_page_is_there(page: Path) -> None:
    text = re.sub(BLOCK, "", (DOCS / page).read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        other = (DOCS / page).parent / path if path else DOCS / page
        assert other.is_file(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_every_picture_of_the_strategies_is_shown_and_drawn() -> None:
    shown = set(re.findall(r"images/(strategies_\w+)\.png", (DOCS / "strategies.md").read_text(encoding="utf-8")))
    assert shown == {path.stem for path in (DOCS / "images").glob("strategies_*")}
    assert shown == set(re.findall(r'"(strategies_\w+)"', (DOCS / "pictures.py").read_text(encoding="utf-8")))


def test_every_page_is_in_the_table_or_linked() -> None:
    text = (DOCS / "strategies.md").read_text(encoding="utf-8")
    for path in (DOCS / "strategies").glob("*.md"):
        assert f"(strategies/{path.name})" in text, path.name


def test_the_pictures_are_drawn_from_the_code(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec and spec.loader
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    figures = [make() for make in pictures.FIGURES]
    assert {f.name for f in figures} == {path.stem for path in (DOCS / "images").glob("strategies_*")}
    for figure in figures:
        lines = [line for p in figure.panels for line in values(p.spec) if "series" in line]
        assert {line["series"] for line in lines} == set(figure.keys)
        assert all(math.isfinite(line["x"] + line["y"]) for line in lines)
    (slope,) = (p for f in figures for p in f.panels if p.title == "Slope dS/dp")
    four = {line["series"].partition(",")[0]: line["y"] for line in values(slope.spec) if line["x"] == 4}
    for name, rule in (("maj@16", slow.vote), ("threshold@16:9", slow.at_least(9))):
        assert four[name] == pytest.approx(slope_over_all_votes(rule), rel=1e-9)


def slope_over_all_votes(rule: slow.Rule, n: int = 16, p: float = 0.3) -> float:
    """dS/dp with four rivals of equal mass, by every way in which the n votes can fall."""
    total = 0.0
    for bars in combinations(range(n + 4), 4):
        votes = [b - a - 1 for a, b in pairwise((-1, *bars, n + 4))]
        draw = [(float(k == 0), k, 0.0) for k, count in enumerate(votes) for _ in range(count)]
        ways = math.factorial(n) / math.prod(map(math.factorial, votes)) / 4 ** (n - votes[0])
        c, d = votes[0], n - votes[0]
        slope = c * p ** max(c - 1, 0) * (1 - p) ** d - d * p**c * (1 - p) ** max(d - 1, 0)
        total += ways * float(rule(draw)) * slope
    return total


def values(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Data of all layers."""
    return [row for layer in spec["layer"] for row in {**spec, **layer}["data"]["values"]]
