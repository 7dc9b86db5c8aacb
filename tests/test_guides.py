"""The guides: how what their shell blocks print is compared, and their pictures."""

import importlib.util
import math
import re
from dataclasses import fields
from pathlib import Path

import pytest

from operant.cli.mistakes import OTHERS
from operant.hf.config import TrainConfig
from operant.hf.rollouts.prompts import DataConfig
from tests.printed import same

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("out", "said", "right"),
    [
        ("a 1.00\nb\n", "a 1.02\nb\n", True),
        ("a 1.00\nb\n", "a 1.50\nb\n", False),
        ("a\nb\n", "a\n", False),
        ("a\nb\nc\n", "...\nc\n", True),
        ("a\nb\nc\n", "a\n...\n", True),
        ("a\nb\nc\nd\n", "a\n...\nc\n...\n", True),
        ("a\nb\nc\n", "...\nb\n...\na\n...\n", False),
        ("a\nb\nc\n", "...\nb\n", False),
        ("", "1\n", False),
    ],
)
def test_what_is_the_same(out, said, right):
    assert same(out, said) is right


def test_the_pictures_are_shown_and_drawn_from_the_code():
    spec = importlib.util.spec_from_file_location("concept_pictures", DOCS / "concepts/pictures.py")
    assert spec and spec.loader
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    shown = set(
        re.findall(
            r"images/(concepts_\w+)\.png",
            "".join(p.read_text(encoding="utf-8") for p in (DOCS / "concepts").glob("*.md")),
        )
    )
    assert shown == {path.stem for path in (DOCS / "images").glob("concepts_*")}
    assert shown == {f"concepts_{make.__name__}" for make in pictures.FIGURES}
    for figure in (pictures.weights(), pictures.operator()):
        rows = [
            row for p in figure.panels for layer in p.spec["layer"] for row in {**p.spec, **layer}["data"]["values"]
        ]
        assert {row["series"] for row in rows} <= set(figure.keys)
        assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))


def test_the_flags_in_the_table_for_users_of_trl_are_those_that_the_command_line_names():
    text = (DOCS / "howto/trl.md").read_text(encoding="utf-8").partition("## On the command line")[2]
    known = {f.name for f in fields(TrainConfig)} | {f"data.{f.name}" for f in fields(DataConfig)} | {"config"}
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `--")]
    assert len(rows) > 15
    for theirs, ours in rows:
        given, named = (re.findall(r"`--([\w.]+)", cell) for cell in (theirs, ours))
        if "the same" in ours:
            assert set(given) <= known, theirs
        else:
            assert named and set(named) <= known, ours
            assert all(OTHERS["train"][name].split()[0].removeprefix("--") in named for name in given), theirs
