"""The page of an audit: complete, self-contained, escaped, and the same numbers as the record."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from operant.core.checks import BudgetError, DataError, InputError, NotDefinedError
from operant.core.record import append_record, write_records
from operant.published import audit_records
from operant.published.rules import RULES
from operant.report import summary_table, write_report
from operant.report.pages.audit.load import constant, finding, load_audit
from operant.report.pages.audit.page import FAMILIES
from tests.report.test_page import LOADING, Elements


def folder_of(path: Path, records: list[dict]) -> Path:
    append_record(path / "record.jsonl", "run", command="audit", name="audit", config={"m": 8, "strategy": ""})
    append_record(path / "record.jsonl", "environment", python="3.11")
    write_records(path / "audit.jsonl", records)
    return path


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All published rules beside pass@4 from 8 rollouts, with a hostile source."""
    records = audit_records(list(RULES), n=4, m=8)
    records[2]["source"] = "</script><script>alert(1)</script>"
    folder = folder_of(tmp_path_factory.mktemp("audit"), records)
    write_report(folder)
    return folder


def specs(folder: Path) -> list[dict]:
    html = (folder / "report" / "index.html").read_text(encoding="utf-8")
    found = re.search(r'id="charts">(.*?)</script>', html)
    assert found is not None
    return json.loads(found[1])


def test_the_page_has_its_sections_and_loads_nothing(full: Path) -> None:
    html = (full / "report" / "index.html").read_text(encoding="utf-8")
    elements = Elements(html)
    assert elements.headings == [
        "Which rule trains for pass@4?",
        "At a glance",
        "One sample, beside pass@4 from M = 8",
        "Set estimators, beside pass@4 from M = 8",
        "Set advantages, beside pass@4 from M = 8",
        "Plug-ins, beside pass@4 from M = 8",
        "Dead groups",
        "Settings",
        "Environment",
        "How to read this page",
    ]
    assert [a for _, attrs in elements.tags for a in attrs if a in LOADING] == []
    assert "<script>alert" not in html and sum(tag == "script" for tag, _ in elements.tags) == 3
    assert len(html) < 3_000_000


def test_every_chart_draws_every_name_in_both_themes(full: Path) -> None:
    charts = specs(full)
    assert [c["id"] for c in charts] == [f"{f}-{i}" for f in FAMILIES for i in range(3)] + ["dead-0"]
    for chart in charts:
        (domain,) = {json.dumps(x["encoding"]["color"]["scale"]["domain"]) for x in chart["spec"]["layer"]}
        drawn = {row["branch"] for data in _rows(chart["spec"]) for row in data}
        silent = {"pass@4"} if chart["id"].endswith("-2") else set()
        assert drawn == set(json.loads(domain)) - silent, chart["id"]
        for mode in ("light", "dark"):
            assert len(chart[mode]["range"]["category"]) == len(json.loads(domain))


def _rows(spec: object) -> list[list[dict]]:
    if isinstance(spec, dict):
        own = [spec["values"]] if isinstance(spec.get("values"), list) and spec["values"] else []
        own = [v for v in own if isinstance(v[0], dict)]
        return own + [v for x in spec.values() for v in _rows(x)]
    return [v for x in spec for v in _rows(x)] if isinstance(spec, list) else []


def test_the_charts_hold_the_numbers_of_the_record(full: Path) -> None:
    run = load_audit(full)
    (chart,) = [c for c in specs(full) if c["id"] == "plug-ins-1"]
    drawn = {(r["branch"], r["p"]): r["value"] for data in _rows(chart["spec"]) for r in data}
    (rule,) = [r for r in run.rules if r["name"] == "plug-in"]
    assert drawn["plug-in", 0.9] == rule["ratio"][run.p.index(0.9)] == run.at(rule["ratio"], 0.9)
    assert len({r["name"] for r in run.rules}) == 18
    for row in (r for data in _rows(chart["spec"]) for r in data):
        assert 1 / (1 + math.exp(-row["logit"])) == pytest.approx(row["p"])


def test_images_stand_beside_the_page(full: Path) -> None:
    for name in (*FAMILIES, "dead"):
        assert (full / "report" / f"{name}.png").stat().st_size > 10_000
        assert (full / "report" / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_verdict_and_the_finding(full: Path) -> None:
    run = load_audit(full)
    scale = {r["name"]: constant(r) for r in run.rules}
    assert scale["operant"] == scale["pkpo"] == scale["pkpo-sloo"] == scale["pkpo-sloo-1"] == 1.0
    assert scale["pkpo-centered"] == 0.5 and scale["pkpo-sloo-centered"] == pytest.approx(1 + 4 / 8 / 7, rel=1e-3)
    assert {name for name, x in scale.items() if x is not None} <= {"operant"} | {n for n in RULES if "pkpo" in n}
    assert scale["pkpo-sloo-1-centered"] is None
    assert "6 of 18 rules optimize pass@4 from 8 rollouts" in finding(run)
    table = summary_table(full)
    line = next(text for text in table.splitlines() if text.startswith("passk-training"))
    assert line.split()[1:] == ["0.25", "0.27", "0.34", "0.46", "0.64", "0.89"]


def test_what_a_budget_excludes_is_told_and_not_drawn(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, audit_records(["grpo", "pkpo"], strategy="pass@16", m=8))
    assert "left out: operant: credit needs" in summary_table(folder).replace("a budget of N = 16", "credit")
    page = write_report(folder, tmp_path / "elsewhere")
    html = page.read_text(encoding="utf-8")
    assert "Left out: pkpo:" in html and "0 of 3 rules optimize pass@16" in html
    assert page == tmp_path / "elsewhere" / "index.html"


def test_our_other_rules_stand_beside_the_credit() -> None:
    names = [r["name"] for r in audit_records([], strategy="pass@16", m=8) if r["kind"] == "rule"]
    assert names == ["operant-shapley", "operant-extrapolated"]  # no credit: N > M
    small = audit_records([], strategy="pass@4", m=8)
    assert [r["name"] for r in small[1:]] == ["operant", "operant-shapley"]
    p, slope = small[0]["p"], next(r["slope"] for r in small if r.get("name") == "operant-shapley")
    assert slope == pytest.approx([(1 - (1 - x) ** 8) / x for x in p], rel=1e-9)  # sum_{n<=8} (1-p)^(n-1)


def test_a_folder_that_is_no_audit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="that `operant audit` wrote, found no record of kind target or rule"):
        load_audit(tmp_path)
    records = audit_records(["pkpo"], strategy="pass@16", m=8)
    folder_of(tmp_path / "none", [r for r in records if r["kind"] != "rule"])
    with pytest.raises(DataError, match="no record of kind rule"):
        load_audit(tmp_path / "none")


def test_records_refuse_what_cannot_be_audited() -> None:
    with pytest.raises(InputError, match="expected rules of grpo"):
        audit_records(["ppo"])
    with pytest.raises(NotDefinedError):
        audit_records(["grpo"], strategy="maj@8")
    with pytest.raises(BudgetError):
        audit_records(["grpo"], m=0)
    target = audit_records(["grpo"], strategy="mix(pass@1:0.25, pass@6:0.75)")[0]
    assert (target["n"], target["m"]) == (6, 12)
