"""The page and the table of a run of operant train --method grpo: what the rollouts said stands beside the curves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operant.report import summary_table
from operant.report.pages.train.load import load_run
from operant.report.pages.train.tables import constant_weights, signals
from operant.report.pages.train.text import cautions, notes
from tests.report.pages import report_runs
from tests.report.reading import charts, rendered

NAME = "pass@16"


def rl_run(folder: Path, *, method: str = "grpo", dead: float = 0.5, value: float = 0.01, sd: float = 0.3) -> Path:
    """A run of two seeds and 20 records: the value rises by ``value`` a record, entropy falls by 0.02."""
    report_runs.make(folder, {"warm": -0.1, "ce": 0.0, NAME: 0.05}, seeds=(0, 1))
    for seed in (0, 1):
        for index, branch in ((1, method), (2, NAME)):
            path = folder / f"seed-{seed}/job-{index}"
            facts = json.loads((path / "job.json").read_text()) | {"branch": branch}
            (path / "job.json").write_text(json.dumps(facts), encoding="utf-8")
            report_runs.lines(path / "record.jsonl", [step(i, seed, branch, dead, value, sd) for i in range(1, 21)])
    return folder


def step(i: int, seed: int, branch: str, dead: float, value: float, sd: float) -> dict[str, Any]:
    record: dict[str, Any] = {"kind": "step", "step": i, "loss": -0.1 * (-1) ** i, "reward": 0.02 * i}
    record |= {"entropy": 1.5 - 0.02 * i + 0.1 * seed, "dead_groups": dead, "completion_length": 4.0}
    if branch == NAME:
        record |= {"strategy": {NAME: value * i}, "weight": {"mean": sd, "sd": sd}, "unscored": 0.25 * (i == 1)}
    return record


def titles(page: str, figure: str) -> list[str]:
    (body,) = re.findall(rf"<h2>{figure}</h2>(.*?)</section>", page, re.DOTALL)
    return re.findall(r"<h3>(.*?)</h3>", body)


def points(chart: Mapping[str, Any]) -> dict[str, dict[float, float]]:
    """Branch -> step -> value of a line chart."""
    spec = chart["spec"]
    rows = spec["data"]["values"] if "data" in spec else spec["layer"][0]["data"]["values"]
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        found.setdefault(row["series"], {})[row["step"]] = row["value"]
    return found


def test_the_page_shows_the_strategys_value_first(tmp_path: Path) -> None:
    page = rendered(rl_run(tmp_path))
    assert titles(page, "Rollouts in training") == [
        "value of the strategy, %",
        "dead groups, %",
        "reward",
        "entropy, nats per token",
        "length, tokens",
    ]
    shown = charts(page)
    assert points(shown["rollouts-0"]) == {NAME: {i: pytest.approx(i) for i in range(1, 21)}}
    assert points(shown["rollouts-1"])["grpo"] == {i: 50.0 for i in range(1, 21)}
    assert points(shown["rollouts-3"])["grpo"][10] == pytest.approx(1.3 + 0.05)
    assert "training loss" not in titles(page, "Training") or set(points(shown["training-0"])) == {"warm start"}
    assert "Weight of the examples" not in page  # there are no quantiles
    assert 'class="warning"' not in page


def test_values_that_are_no_shares_are_not_in_percent(tmp_path: Path) -> None:
    page = rendered(rl_run(tmp_path, value=-0.2))
    assert titles(page, "Rollouts in training")[0] == "value of the strategy"
    first = charts(page)["rollouts-0"]
    assert points(first)[NAME][20] == pytest.approx(-4.0)


def test_the_table_goes_from_the_first_to_the_last_tenth(tmp_path: Path) -> None:
    text = summary_table(rl_run(tmp_path))
    (row,) = [line for line in text.splitlines() if "0.015 to 0.195" in line]  # steps 1, 2 and 19, 20
    assert row.split() == [NAME, "0.015", "to", "0.195", "0.030", "to", "0.390", "1.520", "to", "1.160", "50.0", "1.2"]
    (stock,) = [line for line in text.splitlines() if line.startswith("grpo") and " to " in line]
    assert stock.split() == ["grpo", "–", "0.030", "to", "0.390", "1.520", "to", "1.160", "50.0", "0.0"]


@pytest.mark.parametrize(("method", "name"), [("grpo", "TRL's GRPO"), ("rloo", "TRL's RLOO")])
def test_the_baseline_is_called_what_it_is(tmp_path: Path, method: str, name: str) -> None:
    folder = rl_run(tmp_path, method=method)
    assert f"{NAME} training beats {name} by" in summary_table(folder)
    assert f"against {name}, paired" in rendered(folder).replace("&#x27;", "'")


@pytest.mark.parametrize(
    ("dead", "what"), [(1.0, "every group was dead"), (0.99, "99.0 % of its groups were dead"), (0.5, "")]
)
def test_a_branch_whose_groups_are_mostly_dead_is_warned_of(tmp_path: Path, dead: float, what: str) -> None:
    run = load_run(rl_run(tmp_path, dead=dead, sd=0.0))
    assert constant_weights(run) == []  # no constant weights of examples: there are none
    assert [told for told, _ in cautions(run)] == [f"{b}: {what}." for b in ("grpo", NAME) if what]
    assert all(("--warm_steps" in advice) == (dead == 1) for _, advice in cautions(run))
    assert (f"Warning: pass@16: {what}." in summary_table(tmp_path)) == bool(what)
    assert not any("dead" in note for note in notes(run))


@pytest.mark.parametrize(("cut", "warned"), [(0.6, True), (0.5, False)])
def test_completions_that_are_mostly_cut_are_warned_of(tmp_path: Path, cut: float, warned: bool) -> None:
    path = rl_run(tmp_path) / "seed-0/job-2/record.jsonl"
    records = [json.loads(line) | {"cut": cut} for line in path.read_text(encoding="utf-8").splitlines()]
    for seed in (0, 1):
        report_runs.lines(tmp_path / f"seed-{seed}/job-2/record.jsonl", records)
    found = [what for what, _ in cautions(load_run(tmp_path))]
    assert found == ([f"{NAME}: 60.0 % of its completions were cut."] if warned else [])


def test_warnings_of_a_jobs_last_evaluation_are_notes(tmp_path: Path) -> None:
    """Each once, whatever the seeds; what an earlier evaluation said is over."""
    rl_run(tmp_path)
    for seed in (0, 1):
        path = tmp_path / f"seed-{seed}/job-2/record.jsonl"
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        ends = [{"kind": "evaluation", "step": i, "prompts": 40, "curve": {}} for i in (0, 20)]
        said = [{"kind": "warning", "step": i, "text": text} for i, text in ((0, "early."), (20, "9 of 10 were cut."))]
        report_runs.lines(path, [ends[0], said[0], *records, ends[1], said[1]])
    assert [note for note in notes(load_run(tmp_path)) if "cut" in note or "early" in note] == [
        f"{NAME}: 9 of 10 were cut."
    ]


def test_a_schedule_counts_the_strategy_that_came_later(tmp_path: Path) -> None:
    path = rl_run(tmp_path) / "seed-0/job-2/record.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for record in records[10:]:
        record["strategy"] = {"pass@1": 0.7, NAME: 0.9} if record["step"] == 11 else {NAME: 0.9}
    report_runs.lines(path, records)
    (signal,) = (s for s in signals(load_run(tmp_path)) if s.branch == NAME)
    assert signal.value == pytest.approx((0.015, (0.9 + 0.195) / 2))
    page = rendered(tmp_path)
    first = charts(page)["rollouts-0"]
    assert points(first)[NAME][11] == pytest.approx(100 * (0.9 + 0.11) / 2)


def test_the_notes_say_where_a_plateau_was_reached(tmp_path: Path) -> None:
    path = rl_run(tmp_path) / "seed-0/job-2/record.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    report_runs.lines(path, [r | ({"plateau_step": 12.0} if r.get("step", 0) > 12 else {}) for r in records])
    assert not [note for note in notes(load_run(tmp_path)) if "plateau" in note], "the run asked for none"
    run = load_run(tmp_path)
    asked = {"kind": "run", "config": {"strategy_schedule": {"plateau": "maj@4"}}}
    run = replace(run, source=replace(run.source, records=(*run.source.records, asked)))
    assert [note for note in notes(run) if "plateau" in note] == [
        f"{NAME}, seed 0: plateau at step 12, from there on the strategy was maj@4.",
        f"{NAME}, seed 1: no plateau was reached, so maj@4 was not trained for.",
    ]


def test_a_supervised_run_has_no_rollouts(tmp_path: Path) -> None:
    report_runs.make(tmp_path, {"ce": 0.0, NAME: 0.05}, seeds=(0,))
    assert signals(load_run(tmp_path)) == []
    assert "rollouts" not in summary_table(tmp_path)
    assert "Rollouts in training" not in rendered(tmp_path)
