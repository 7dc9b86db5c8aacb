"""The conformance table of pages: a new kind is one row, and every law is read off the page of a hostile folder."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
import vl_convert

import operant
from operant.core.checks import DataError
from operant.core.record import read_records, write_records
from operant.published.audit import audit_records
from operant.report import PageKind, pages, register, summary_table, write_report
from operant.report.formats import ILLEGIBLE
from operant.report.kinds import KINDS, kind_of, page_of
from operant.report.theme import Figure
from tests.hf.rollouts.plan_data import planned, successes
from tests.report.pages import report_runs, test_extrapolation_page, test_text_page
from tests.report.reading import LOADING, Elements, charts, rendered

MARKUP = "<script>alert(1)</script>"
HOSTILE = f"{MARKUP}\"'&{{{{7*7}}}}${{x}}`]]>--><img src=x onerror=alert(2)>.[0]\\\x00\x1b[2J\ud800\u2028\u202e../"
FIXED = {"kind", "command", "role", "verdict", "exact", "seed", "n", "m"}
"""Keys whose values are the record's own words, which no file of a user names."""
NAMED = {"values", "curve", "params", "parameters", "intervals", "config", "environment", "settings"}
"""Keys of mappings whose keys are names: metrics, columns, settings."""


EXAMPLE = {"kind": "example", "prompt": 7, "text": "12*34=", "target": "408"}
ANSWERS = [{"text": "408", "reward": 1.0}, {"text": "418", "reward": 0.0}, {"text": "?", "reward": None}]


def run_folder(folder: Path) -> Path:
    shifts = {"warm": 0.0, "ce": 0.0, "pass@16": 0.01, "mix(pass@1:0.5, pass@4:0.5)": 0.02}
    report_runs.make(folder, shifts, seeds=(0,), described={})
    with (folder / "record.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "warning", "text": "careful"}) + "\n")
    for place, answers in enumerate([ANSWERS, ANSWERS[:1] * 2]):
        with (folder / f"seed-0/job-{place}/record.jsonl").open("a") as file:
            file.write(json.dumps(EXAMPLE | {"step": 30, "answers": answers}) + "\n")
    return folder


def plan_folder(folder: Path) -> Path:
    records, prompts = planned(successes([0, 3, 4, 8] * 5, 8))
    first = {"kind": "run", "command": "plan", "name": "a plan", "config": {"rollouts": "r.jsonl", "deep": {"a": "b"}}}
    told = [{"kind": "environment", "python": "3"}, {"kind": "note", "text": "note"}, EXAMPLE | {"answers": ANSWERS}]
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


def text_folder(folder: Path) -> Path:
    targets = [test_text_page.target(), test_text_page.target("other", **test_text_page.ALIEN)]
    return test_text_page.make(folder, targets, test_text_page.COMPARISON)


def claims_folder(folder: Path) -> Path:
    effect = {"what": "pass@4", "ours": "mine", "value": 9.0, "baseline": "plain", "plain": 7.0, "holds": True}
    effect |= {"decides": True}
    effects = [effect | {"effect": 2.0, "low": 1.0, "high": 3.0, "neutral": 0.0}]
    effects.append(effect | {"effect": 1.2, "low": 0.9, "high": 1.6, "neutral": 1.0, "holds": False})
    about = {"title": "A claim", "place": "table 2", "says": "It gains.", "untestable": ""}
    claims = [about | {"name": "one", "verdict": "reproduced in part", "comparisons": effects}]
    untested = {"untestable": "It needs a cluster.", "verdict": "cannot be tested here", "comparisons": []}
    claims.append(about | {"name": "two"} | untested)
    first = {"kind": "run", "command": "reproduce", "name": "claims", "config": {"quick": True}}
    rest = [{"kind": "environment", "python": "3"}, *({"kind": "claim", **claim} for claim in claims)]
    write_records(folder / "record.jsonl", [first, *rest])
    return folder


ROWS: dict[str, Callable[[Path], Path]] = {
    "train": run_folder,
    "plan": plan_folder,
    "audit": audit_folder,
    "extrapolation": extrapolation_folder,
    "text": text_folder,
    "reproduce": claims_folder,
}
"""Kind of page -> what writes a small folder of it."""


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


@pytest.fixture(scope="module", params=ROWS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a hostile folder; without its PNG files, which take half of the time and say no more than the SVG."""
    folder = poisoned(ROWS[request.param](tmp_path_factory.mktemp(request.param) / "folder"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "svg_to_png", lambda drawing, scale: b"")
        return write_report(folder)


def html_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_every_kind_has_a_row() -> None:
    kinds = {kind.name for kind in KINDS.values()}
    assert not kinds - set(ROWS), f"pages without a row in ROWS of {__file__}: {sorted(kinds - set(ROWS))}"
    assert not set(ROWS) - kinds, f"rows without a page in operant.report.pages: {sorted(set(ROWS) - kinds)}"


def test_every_package_of_pages_registers_its_kind() -> None:
    unregistered = {m.name for m in iter_modules(pages.__path__)} - {kind.name for kind in KINDS.values()}
    assert not unregistered, f"packages of operant.report.pages that register no PageKind: {sorted(unregistered)}"


def test_every_command_that_writes_a_folder_has_a_page() -> None:
    """Read from the source: the second argument of claim_folder is the command."""
    commands: set[str] = set()
    for path in Path(operant.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "claim_folder(" in text else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "claim_folder":
                assert isinstance(node.args[1], ast.Constant), f"{path}: the command of claim_folder is no literal"
                commands.add(str(node.args[1].value))
    assert not commands - set(KINDS), f"commands whose folders no page shows: {sorted(commands - set(KINDS))}"
    assert not set(KINDS) - commands, f"pages of commands that write no folder: {sorted(set(KINDS) - commands)}"


def test_a_command_has_one_page() -> None:
    with pytest.raises(ValueError, match="the folders of `operant plan` are shown by plan already"):
        register(PageKind("mine", ("plan",), lambda folder: folder, str, page_of))


def test_a_command_without_a_page_is_named(tmp_path: Path) -> None:
    write_records(tmp_path / "record.jsonl", [{"kind": "run", "command": "no such command"}])
    with pytest.raises(DataError, match=f"{tmp_path} was written by `operant no such command`, which has no page"):
        kind_of(tmp_path)


def test_the_page_is_one_file_that_loads_nothing(page: Path) -> None:
    html = html_of(page)
    tags = Elements(html).tags
    assert not [(t, a) for t, attributes in tags for a in attributes if a in LOADING or a.startswith("on")]
    assert not {"link", "iframe", "img", "object", "embed", "base"} & {t for t, _ in tags}
    policies = [a.get("content") or "" for t, a in tags if "http-equiv" in a]
    assert policies and policies[0].startswith("default-src 'none'")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style and len(html) < 3_000_000


def test_hostile_text_is_shown_and_not_obeyed(page: Path) -> None:
    html = html_of(page)
    written = html[: html.index('<script type="application/json"')]
    assert MARKUP not in html and "<img" not in written and "&lt;script&gt;alert(1)&lt;/script&gt;" in written
    assert sum(tag == "script" for tag, _ in Elements(html).tags) == 3
    assert not ILLEGIBLE.search(html) and "{{7*7}}" in written
    assert sorted(p.name for p in page.parents[2].iterdir()) == ["folder"]


def test_charts_hold_their_data_and_no_foreign_name(page: Path) -> None:
    drawn = charts(html_of(page))
    ids = list(drawn)
    assert ids and all(re.fullmatch(r"[a-z0-9-]+", i) for i in ids)
    assert ids == [a["id"] for _, a in Elements(html_of(page)).tags if a.get("class") == "chart"]
    text = json.dumps([c["spec"] for c in drawn.values()])
    assert MARKUP in text and '"url"' not in text
    fields = re.findall(r'"field": "([^"]*)"', text)
    assert fields and all(re.fullmatch(r"[a-z_]+", f) for f in fields)
    names = sorted(p.name for p in page.parent.iterdir() if p.name != ".lock")
    assert all(re.fullmatch(r"index\.html|[a-z0-9-]+\.(png|svg)", name) for name in names)
    assert {n.removesuffix(".svg") for n in names} >= {i.rpartition("-")[0] for i in ids}
    for path in page.parent.glob("*.svg"):
        drawing = ElementTree.parse(path).getroot()
        assert float(drawing.get("width", 0)) > 800 and float(drawing.get("height", 0)) > 350, path.name
        tags = {element.tag for element in drawing.iter()}
        assert path.with_suffix(".png").is_file() and not [
            t for t in tags if t.endswith(("script", "image", "foreignObject"))
        ]


def test_the_page_begins_with_one_sentence(page: Path) -> None:
    """Task, model and data, and a question or, of text tasks, what was predicted."""
    head = html_of(page).split("</h1>")[1]
    (asked,) = re.findall(r'^\s*<p class="asked">([^\n]{40,})</p>', head)
    assert asked[-1] in "?." and not ILLEGIBLE.search(asked)


@pytest.mark.parametrize(("kind", "rows"), [("train", ["warm start", "ce"]), ("plan", ["rollouts"])])
def test_prompts_stand_beside_sampled_answers(kind: str, rows: list[str], tmp_path: Path) -> None:
    html = rendered(ROWS[kind](tmp_path / "folder"))
    (shown,) = re.findall(r"<h2>Prompts and sampled answers</h2>(.*?)</section>", html)
    assert re.findall(r'<p class="prompt sample">(.*?)</p>', shown) == ["12*34="] and ">right: 408<" in shown
    assert re.findall(r'<th scope="row"[^>]*>(?:<span[^>]*></span>)?(.*?)</th>', shown) == rows
    first = shown[shown.index("<tbody>") :].partition("</tr>")[0]
    cells = re.findall(r'<td class="sample">(.*?)(?:<small>(.*?)</small>)?</td>', first)
    assert cells == [("408", "✓"), ("418", "✗"), ("?", "")]


def test_every_figure_has_a_key_a_description_and_its_numbers(page: Path) -> None:
    assert all(chart["spec"]["description"] for chart in charts(html_of(page)).values())
    sections = [s for s in html_of(page).split("<section>") if "<figure" in s]
    assert sections
    for section in sections:
        title = re.findall(r"<h2>(.*?)</h2>", section)[0]
        label = re.findall(r'<figure aria-label="([^"]+)">', section)
        assert label and label[0].startswith(title), f"{title}: no description"
        assert section.count("<li>") or section.count("<h3>") > 1, f"{title}: no key"
        assert section.index("</figure>") < section.find("<td") < section.find("</table>"), f"{title}: no table"


def test_the_table_for_the_terminal_is_legible(page: Path) -> None:
    text = summary_table(page.parents[1])
    assert text.encode() and not ILLEGIBLE.search(text)
    assert re.search(r"^-{20,}$", text, re.M), "no table"


@pytest.mark.parametrize("kind", ROWS)
def test_a_damaged_record_is_one_line_that_names_the_folder(kind: str, tmp_path: Path) -> None:
    folder = ROWS[kind](tmp_path / "folder")
    for path in folder.rglob("*.jsonl"):
        records = [{k: [v] if k not in ("kind", "command") else v for k, v in r.items()} for r in read_records(path)]
        write_records(path, records)
    for show in (summary_table, write_report):
        with pytest.raises(DataError) as caught:
            show(folder)
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "report" / "index.html").exists()


@pytest.mark.parametrize("name", ["", "../x", "a b", 'x"onload="y', "<b>", "A", "-a"])
def test_a_figure_has_a_name_that_is_no_markup_and_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="a-z, 0-9, _ and hyphens"):
        Figure(name, "title", (), {})
