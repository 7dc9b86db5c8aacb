"""Every text of a folder is hostile: names, prompts, settings, warnings. The four pages show it and obey none of it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from operant.core.record import read_records, write_records
from operant.published.audit import audit_records
from operant.report import summary_table, write_report
from operant.report.formats import ILLEGIBLE
from operant.report.theme import Figure
from tests.hf.rollouts.plan_data import planned, successes
from tests.report.pages import report_runs, test_extrapolation_page
from tests.report.test_page import LOADING, Elements

MARKUP = "<script>alert(1)</script>"
HOSTILE = f"{MARKUP}\"'&{{{{7*7}}}}${{x}}`]]>--><img src=x onerror=alert(2)>.[0]\\\x00\x1b[2J\ud800\u2028\u202e../"
FIXED = {"kind", "command", "role", "verdict", "exact", "seed", "n", "m"}
"""Keys whose values are the record's own words, which no file of a user names."""
NAMED = {"values", "curve", "params", "parameters", "intervals", "config", "environment", "settings"}
"""Keys of mappings whose keys are names: metrics, columns, settings."""


def poison(value: Any, key: str = "") -> Any:
    """The record with every text hostile; equal texts stay equal."""
    if isinstance(value, str):
        return value if key in FIXED else f"{value}{HOSTILE}"
    if isinstance(value, dict):
        return {(f"{k}{HOSTILE}" if key in NAMED else k): poison(v, k) for k, v in value.items()}
    return [poison(v, key) for v in value] if isinstance(value, list) else value


def poisoned(folder: Path) -> Path:
    """Rewrite every record of a folder."""
    for path in folder.rglob("*.json*"):
        if path.name == "job.json":
            path.write_text(json.dumps(poison(json.loads(path.read_text()))))
        else:
            path.write_text("".join(json.dumps(poison(r)) + "\n" for r in read_records(path)))
    return folder


def run_folder(folder: Path) -> Path:
    shifts = {"warm": 0.0, "ce": 0.0, "pass@16": 0.01, "mix(pass@1:0.5, pass@4:0.5)": 0.02}
    report_runs.make(folder, shifts, seeds=(0,), described={})
    with (folder / "record.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "warning", "text": "careful"}) + "\n")
    return folder


def plan_folder(folder: Path) -> Path:
    records, prompts = planned(successes([0, 3, 4, 8] * 5, 8))
    first = {"kind": "run", "command": "plan", "name": "a plan", "config": {"rollouts": "r.jsonl", "deep": {"a": "b"}}}
    told = [{"kind": "environment", "python": "3"}, {"kind": "note", "text": "note"}]
    write_records(folder / "record.jsonl", [first, *told, *records])
    write_records(folder / "prompts.jsonl", prompts)
    return folder


def audit_folder(folder: Path) -> Path:
    records = audit_records(["grpo", "pkpo"], n=2, m=4)
    records.append({"kind": "left out", "name": "mine", "reason": "it needs rewards"})
    first = {"kind": "run", "command": "audit", "name": "an audit", "config": {"m": 4}}
    write_records(folder / "record.jsonl", [first, {"kind": "environment", "python": "3"}])
    write_records(folder / "audit.jsonl", records)
    return folder


def extrapolation_folder(folder: Path) -> Path:
    alien = test_extrapolation_page.target("70", 70.0, outputs=2, applicability=test_extrapolation_page.ALIEN)
    targets = [test_extrapolation_page.target(outputs=2), alien]
    return test_extrapolation_page.make(folder, targets, test_extrapolation_page.bank(outputs=2))


FOLDERS = [run_folder, plan_folder, audit_folder, extrapolation_folder]


@pytest.mark.parametrize("make", FOLDERS, ids=[f.__name__ for f in FOLDERS])
def test_hostile_text_is_shown_and_obeyed_by_none(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        vl_convert, "svg_to_png", lambda drawing, scale: b""
    )  # half of the time; the drawing is read below
    folder = poisoned(make(tmp_path / "folder"))
    page = write_report(folder)
    html = page.read_text(encoding="utf-8")
    elements = Elements(html)
    written = html[: html.index('<script type="application/json"')]
    assert MARKUP not in html and "<img" not in written and "&lt;script&gt;alert(1)&lt;/script&gt;" in written
    assert sum(tag == "script" for tag, _ in elements.tags) == 3
    assert not [(t, a) for t, attributes in elements.tags for a in attributes if a in LOADING or a.startswith("on")]
    assert not ILLEGIBLE.search(html) and "{{7*7}}" in written

    charts = json.loads(re.search(r'id="charts">(.*?)</script>', html)[1])  # pyright: ignore[reportOptionalSubscript]
    ids = [chart["id"] for chart in charts]
    assert len(set(ids)) == len(ids) > 1 and all(re.fullmatch(r"[a-z0-9-]+", i) for i in ids)
    assert ids == [a["id"] for _, a in elements.tags if a.get("class") == "chart"]
    assert MARKUP in json.dumps(charts)
    fields = re.findall(r'"field": "([^"]*)"', json.dumps([c["spec"] for c in charts]))
    assert fields and all(re.fullmatch(r"[a-z_]+", f) for f in fields)

    names = sorted(p.name for p in page.parent.iterdir() if p.name != ".lock")
    assert all(re.fullmatch(r"index\.html|[a-z0-9-]+\.(png|svg)", name) for name in names)
    for path in page.parent.glob("*.svg"):
        tags = {element.tag for element in ElementTree.parse(path).iter()}
        assert not [t for t in tags if t.endswith(("script", "image", "foreignObject"))]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder"]

    text = summary_table(folder)
    assert not ILLEGIBLE.search(text) and text.encode()


@pytest.mark.parametrize("name", ["", "../x", "a b", 'x"onload="y', "<b>", "A", "-a"])
def test_a_figure_has_a_name_that_is_no_markup_and_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="a-z, 0-9, _ and hyphens"):
        Figure(name, "title", (), {})
