"""The measures of the house that must hold; ``python benchmarks/house.py`` prints all of them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = runpy.run_path(str(ROOT / "benchmarks" / "house.py"))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return HOUSE["measures"](HOUSE["SOURCE"])


@pytest.mark.parametrize("name", ["file circles", "folder pairs", "files past 350 lines", "repetitions of 10 lines"])
def test_there_is_none(found: dict[str, Any], name: str) -> None:
    assert found[name] == []


def test_a_name_has_one_meaning(found: dict[str, Any]) -> None:
    assert found["type names defined twice"].keys() <= {"Compose"}  # composition, of curves and of text tasks


def test_no_folder_is_crowded(found: dict[str, Any]) -> None:
    name, count = found["largest folder"].split()
    assert int(count) <= 15, name


PLANTED = {
    "a.py": "from operant.b import f\nclass Curve: pass\n",
    "b.py": "def g():\n    from operant import c\nclass Curve: pass\n",
    "c.py": "import operant.a\n" + "".join(f"x{i} = 1  # a comment\n" for i in range(12)),
    "d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from operant.e import h\n",
    "e.py": "from operant import d\n" + "\n".join(f"y{i} = {i}" for i in range(11)),
    "f.py": "\n".join(f"y{i} = {i}" for i in range(11)),
}


def test_what_is_planted_is_found(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("")
    for name, text in PLANTED.items():
        (tmp_path / name).write_text(text)
    found = HOUSE["measures"](tmp_path)
    assert found["file circles"] == [["operant.a", "operant.b", "operant.c"], ["operant.d", "operant.e"]]
    assert found["type names defined twice"] == {"Curve": ["operant.a", "operant.b"]}
    assert found["repetitions of 10 lines"] == [("e.py:2", "f.py:1")]
    assert found["comment lines, %"] == round(100 * 12 / found["lines"], 2)
