"""The page of an audit: complete, self-contained, escaped, and the same numbers as the record."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from operant.core.checks import BudgetError, DataError, InputError, NotDefinedError
from operant.core.record import append_record, write_records
from operant.published import audit_records
from operant.published.rules import RULES
from operant.report import summary_table
from operant.report.pages.audit.load import constant, finding, load_audit
from operant.report.pages.audit.page import FAMILIES
from tests.report.reading import Elements, charts, rendered, rows_of


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
    return folder_of(tmp_path_factory.mktemp("audit"), records)


@pytest.fixture(scope="module")
def page(full: Path) -> str:
    return rendered(full)


def test_the_page_has_its_sections(page: str) -> None:
    assert Elements(page).headings == [
        "Which rule trains for pass@4?",
        "At a glance",
        "One sample, beside pass@4 from M = 8",
        "Set estimators, beside pass@4 from M = 8",
        "Set advantages, beside pass@4 from M = 8",
        "Plug-ins, beside pass@4 from M = 8",
        "Dead groups",
        "How to read this page",
        "Glossary",
        "Settings",
        "Environment",
    ]


def test_every_chart_draws_every_name_in_both_themes(page: str) -> None:
    assert list(charts(page)) == [f"{f}-{i}" for f in FAMILIES for i in range(3)] + ["dead-0"]
    for chart in charts(page).values():
        (domain,) = {json.dumps(x["encoding"]["color"]["scale"]["domain"]) for x in chart["spec"]["layer"]}
        drawn = {row["series"] for row in rows_of(chart, "series")}
        silent = {"pass@4"} if chart["id"].endswith("-2") else set()
        assert drawn == set(json.loads(domain)) - silent, chart["id"]
        for mode in ("light", "dark"):
            assert len(chart[mode]["range"]["category"]) == len(json.loads(domain))


def test_the_charts_hold_the_numbers_of_the_record(full: Path, page: str) -> None:
    run = load_audit(full)
    rows = rows_of(charts(page)["plug-ins-1"], "series")
    drawn = {(r["series"], r["p"]): r["value"] for r in rows}
    (rule,) = [r for r in run.rules if r["name"] == "plug-in"]
    assert drawn["plug-in", 0.9] == rule["ratio"][run.p.index(0.9)] == run.at(rule["ratio"], 0.9)
    assert len({r["name"] for r in run.rules}) == 18
    for row in rows:
        assert 1 / (1 + math.exp(-row["logit"])) == pytest.approx(row["p"])


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
    html = rendered(folder)
    assert "Left out: pkpo:" in html and "0 of 3 rules optimize pass@16" in html


def test_our_other_rules_stand_beside_the_credit() -> None:
    names = [r["name"] for r in audit_records([], strategy="pass@16", m=8) if r["kind"] == "rule"]
    assert names == ["operant-shapley", "operant-extrapolated"]  # no credit: N > M
    small = audit_records([], strategy="pass@4", m=8)
    assert [r["name"] for r in small[1:]] == ["operant", "operant-shapley"]
    p, slope = small[0]["p"], next(r["slope"] for r in small if r.get("name") == "operant-shapley")
    assert slope == pytest.approx([(1 - (1 - x) ** 8) / x for x in p], rel=1e-9)  # sum_{n<=8} (1-p)^(n-1)


def test_a_transform_is_one_more_rule() -> None:
    """For pass@1 its slope tends to 1 / (p + eps), that of log(p + eps)."""
    records = audit_records([], strategy="pass@1", transform="log:0.1", m=256)
    assert [r["name"] for r in records[1:]] == ["operant", "operant log:0.1", "operant-shapley"]
    p, slope = records[0]["p"], records[2]["slope"]
    assert slope[9:] == pytest.approx([1 / (x + 0.1) for x in p[9:]], rel=0.02)


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
