import re
from pathlib import Path

import pytest

from operant import parse

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs_and_says_what_its_comments_say():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    weights = names["credit"](names["PassAt"](4), names["rollouts"])
    assert weights.sum(-1).abs().max() < 1e-6
    assert names["loss"].shape == (2,)
    curve = names["curve"](names["PassAt"](1), names["rollouts"], [1, 2, 4])
    assert curve.value.tolist() == pytest.approx([1 / 4, 7 / 15, 4 / 5], abs=1e-6)


def test_every_file_that_the_readme_names_exists():
    root = Path(__file__).parents[1]
    source = root / "src" / "operant"
    for path in re.findall(r"\]\((?!http|#)([^)]+)\)", README):
        assert (root / path).is_file(), path
    (tree,) = re.findall(r"```\nsrc/operant/\n(.*?)```", README, re.DOTALL)
    named = re.findall(r"── (\S+)/", tree)
    folders = {path.name for path in source.rglob("*") if path.is_dir() and any(path.glob("*.py"))}
    inner = {"warp", "train", "plan", "audit", "extrapolation"}  # named in the line of their folder
    assert folders <= {*named, *inner}
    assert set(named) <= folders


def test_every_strategy_of_the_readme_parses():
    (table,) = re.findall(r"\| deployed \|.*?\n\n", README, re.DOTALL)
    names = [name for name in re.findall(r"`([^`]+)`", table) if "@" in name or name.startswith(("table", "rank"))]
    assert len(names) > 15
    for name in names:
        assert parse(name).n >= 2, name
