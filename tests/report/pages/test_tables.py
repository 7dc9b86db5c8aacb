"""Statistics of the report: closed forms, exact zeros, and what the words say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from operant.core.checks import DataError
from operant.report import summary_table
from operant.report.pages.train.load import load_run, natural
from operant.report.pages.train.metrics import Metric, measured
from operant.report.pages.train.tables import (
    Interval,
    best_branches,
    constant_weights,
    curves,
    gains,
    trades,
)
from operant.report.pages.train.text import finding, notes
from tests.report.pages import report_runs
from tests.report.reading import rendered


def test_curves_and_gains_are_plain_means(tmp_path: Path) -> None:
    run = load_run(report_runs.make(tmp_path, {"warm": -0.1, "ce": 0.0, "pass@16": 0.05}))
    values = {
        b: np.array([report_runs.prompt_values(s, shift=x)["pass@16"] for s in range(3)])
        for b, x in {"warm start": -0.1, "ce": 0.0, "pass@16": 0.05}.items()
    }
    means = curves(run)
    for label in run.labels:
        assert means[label, "pass@16"].mean == pytest.approx(values[label].mean(), abs=1e-12)
    gain = gains(run)["pass@16", "pass@16"]
    assert gain.mean == pytest.approx((values["pass@16"] - values["ce"]).mean(), abs=1e-12)
    assert gain.low < gain.mean < gain.high


def test_prompts_are_paired_by_id_not_by_line(tmp_path: Path) -> None:
    report_runs.make(tmp_path, {"ce": 0.0, "pass@16": 0.0})
    path = tmp_path / "seed-0/job-1/prompts.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert gains(load_run(tmp_path))["pass@16", "pass@4"] == Interval(0.0, 0.0, 0.0)


def test_identical_branches_gain_exactly_nothing(tmp_path: Path) -> None:
    run = load_run(report_runs.make(tmp_path, {"ce": 0.0, "pass@4": 0.0}))
    assert set(gains(run).values()) == {Interval(0.0, 0.0, 0.0)}
    assert finding(run, gains(run)).startswith("No measurable difference: pass@4")
    assert best_branches(run, curves(run), gains(run)) == {}


def test_only_common_seeds_are_paired(tmp_path: Path) -> None:
    report_runs.make(tmp_path, {"ce": 0.0, "pass@16": 0.05})
    (tmp_path / "seed-1/job-1/prompts.jsonl").unlink()
    run = load_run(tmp_path)
    assert run.unfinished == ("seed-1/job-1",)
    told = " ".join(notes(run))
    assert "seed-1/job-1" in told
    assert "paired on seeds 0, 2 of 3" in told
    expected = np.mean(
        [report_runs.prompt_values(s, shift=0.05)["pass@16"] - report_runs.prompt_values(s)["pass@16"] for s in (0, 2)]
    )
    assert gains(run)["pass@16", "pass@16"].mean == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shift", "start"),
    [
        (0.05, "pass@16 training beats cross-entropy by 5.1 points at pass@16 (95 % interval 4.9"),
        (-0.05, "pass@16 training loses to cross-entropy by 4.9 points at pass@16 (95 % interval"),
        (0.0005, "No measurable difference: pass@16, the only branch, is +0.1 points from"),
    ],
)
def test_finding(tmp_path: Path, shift: float, start: str) -> None:
    run = load_run(report_runs.make(tmp_path, {"ce": 0.0, "pass@16": shift}))
    assert finding(run, gains(run)).startswith(start)


def test_a_difference_that_prints_as_zero_is_none(tmp_path: Path) -> None:
    """A measured loss of 0.03 points: neither -0.0 nor "loses by 0.0"."""
    run = load_run(report_runs.make(tmp_path, {"ce": 0.0, "pass@16": 0.0}))
    tiny = Interval(-0.0003, -0.0003, -0.0002)
    for both in (tiny, Interval(0.0003, 0.0002, 0.0003)):
        gain = {**gains(run), ("pass@16", "pass@16"): both, ("pass@16", "pass@1"): tiny}
        gap = "0.0 points from cross-entropy at pass@16 (95 % interval 0.0 to 0.0)"
        assert finding(run, gain) == (f"No difference: pass@16 is {gap}, with no measurable price at pass@1.")


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (Interval(-0.039, -0.05, -0.03), "and pays 3.9 points at pass@1."),
        (Interval(-0.0002, -0.0003, -0.0001), ", with no measurable price at pass@1."),
        (Interval(-0.001, -0.01, 0.01), ", with no measurable price at pass@1."),
        (Interval(0.02, 0.01, 0.03), "and also gains 2.0 points at pass@1."),
    ],
)
def test_finding_names_the_price(tmp_path: Path, price: Interval, words: str) -> None:
    run = load_run(report_runs.make(tmp_path, {"ce": 0.0, "pass@16": 0.05}))
    assert finding(run, {**gains(run), ("pass@16", "pass@1"): price}).endswith(words)


def test_a_mixture_is_judged_at_the_best_budget_that_it_names(tmp_path: Path) -> None:
    mixture = "mix(pass@1:0.5, pass@4:0.5)"
    run = load_run(report_runs.make(tmp_path, {"ce": 0.0, mixture: 0.05}))
    gain = {**gains(run), (mixture, "pass@4"): Interval(0.01, 0.005, 0.02)}
    (trade,) = trades(run, gain)
    assert (trade.metric, trade.choices, trade.price_metric) == ("pass@4", 2, "pass@1")
    assert "at pass@4, its best of 2 budgets (95" in finding(run, gain)


OWN = {
    "pass^4": Metric("pass^N", 4),
    "threshold@4:2": Metric("threshold@N:2", 4),
    "top2@4>maj": Metric("top2@N>maj", 4),
    "priced(race@4:2, 0.01)": Metric("priced(race@N:2, 0.01)", 4),
    "mix(pass@1:0.5, pass^4:0.5)": Metric("mix(pass@1:0.5, pass^4:0.5)", 4),
    "table(0.0, 1.0)": Metric("table(0.0, 1.0)", 1),
}


@pytest.mark.parametrize("branch", OWN)
def test_a_branch_is_judged_at_its_own_metric(tmp_path: Path, branch: str) -> None:
    """Its gain there is +1 point; at pass@16, which is no business of its, +5."""
    shifts, metrics = {"ce": 0.0, branch: 0.01}, ("pass@1", "pass@16", branch)
    report_runs.make(tmp_path, shifts, metrics=metrics, seeds=(0,), described=OWN)
    run = load_run(tmp_path)
    gain = {
        **gains(run),
        (branch, branch): Interval(0.01, 0.005, 0.02),
        (branch, "pass@16"): Interval(0.05, 0.04, 0.06),
    }
    (trade,) = trades(run, gain)
    assert (trade.metric, trade.choices, trade.price_metric) == (branch, 1, "pass@1")
    assert run.metric(branch) == OWN[branch] and run.families[-1] == OWN[branch].family
    assert f"by 1.0 points at {branch} (95" in finding(run, gain)


def test_a_branch_is_judged_at_the_best_of_its_parts_where_it_is_not_measured_itself(tmp_path: Path) -> None:
    branch, metrics = "mix(pass@1:0.5, pass^4:0.5)", ("pass@1", "pass@16", "pass^4")
    report_runs.make(tmp_path, {"ce": 0.0, branch: 0.01}, metrics=metrics, described=OWN)
    (trade,) = trades(run := load_run(tmp_path), {**gains(run), (branch, "pass@16"): Interval(0.05, 0.04, 0.06)})
    assert (trade.metric, trade.choices) == ("pass^4", 2)


def test_the_best_is_marked_only_where_it_is_clear(tmp_path: Path) -> None:
    run = load_run(report_runs.make(tmp_path, {"ce": 0.0, "pass@4": -0.05, "pass@16": 0.05}))
    means, gain = curves(run), gains(run)
    assert best_branches(run, means, gain) == {"pass@16": "pass@16"}
    # The baseline is marked once it is measurably above every other branch, not above one of them.
    means["ce", "pass@1"] = Interval(0.9, 0.8, 1.0)
    gain["pass@4", "pass@1"] = Interval(-0.5, -0.6, -0.4)
    assert "pass@1" not in best_branches(run, means, gain)
    gain["pass@16", "pass@1"] = Interval(-0.5, -0.6, -0.4)
    assert best_branches(run, means, gain)["pass@1"] == "ce"


@pytest.mark.parametrize(("sd", "found"), [(6e-4, ["pass@16"]), (0.3, []), (0.0, ["pass@16"])])
def test_constant_weights(tmp_path: Path, sd: float, found: list[str]) -> None:
    report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0))
    report_runs.job(tmp_path, "pass@16", 0, report_runs.prompt_values(0), sd=sd)
    assert constant_weights(load_run(tmp_path)) == found


def test_one_varying_step_is_enough_not_to_warn(tmp_path: Path) -> None:
    path = report_runs.job(tmp_path, "pass@16", 0, report_runs.prompt_values(0), sd=0.0)
    with (path / "record.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 40, "weight": {"mean": 0.5, "sd": 0.1}}\n')
    assert constant_weights(load_run(tmp_path)) == []


def test_labels_are_in_page_order(tmp_path: Path) -> None:
    branches = ["pass@16", "mix(pass@1:0.5, pass@4:0.5)", "ce", "pass@4", "warm"]
    run = load_run(report_runs.make(tmp_path, dict.fromkeys(branches, 0.0), seeds=(0,)))
    assert run.labels == ("warm start", "ce", "pass@4", "pass@16", "mix(pass@1:0.5, pass@4:0.5)")
    assert sorted(["b10", "b9", "a"], key=natural) == ["a", "b9", "b10"]


def test_summary_table(tmp_path: Path) -> None:
    report_runs.make(tmp_path, {"ce": 0.0, "pass@16": 0.05}, seeds=(4,))
    text = summary_table(tmp_path)
    assert "pass@16 training beats cross-entropy" in text
    assert "variation between seeds is not included" in text
    (row,) = [line for line in text.splitlines() if line.startswith("pass@16  ")]
    assert row.rstrip().endswith("*")


class TestDamage:
    """Each broken input is refused with its place and a next step."""

    def test_nothing_found(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"at least one job\.json.*operant train"):
            load_run(tmp_path)
        with pytest.raises(DataError, match=r"found none at"):
            load_run(tmp_path / "missing")

    def test_nothing_finished(self, tmp_path: Path) -> None:
        report_runs.job(tmp_path, "ce", 0, None)
        with pytest.raises(DataError, match=r"found 1 unfinished.*finish"):
            load_run(tmp_path)

    @pytest.mark.parametrize("bad", ["NaN", "null", "Infinity", '"0.5"', "true"])
    def test_a_value_that_is_no_number(self, tmp_path: Path, bad: str) -> None:
        path = report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0)) / "prompts.jsonl"
        rows = path.read_text().splitlines(keepends=True)
        rows[2] = f'{{"prompt": 2, "values": {{"pass@1": {bad}, "pass@4": 0.1, "pass@16": 0.2}}}}\n'
        path.write_text("".join(rows))
        with pytest.raises(DataError, match=r"prompts\.jsonl, line 3: pass@1: expected a finite"):
            load_run(tmp_path)

    def test_prompts_differ(self, tmp_path: Path) -> None:
        report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0))
        report_runs.job(tmp_path, "pass@4", 0, report_runs.prompt_values(0, prompts=39))
        with pytest.raises(DataError, match=r"got 39 in .* and 40 in .*not in both: 39\."):
            load_run(tmp_path)

    def test_a_prompt_twice(self, tmp_path: Path) -> None:
        path = report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0)) / "prompts.jsonl"
        path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
        with pytest.raises(DataError, match="prompt 0 more than once"):
            load_run(tmp_path)

    def test_metrics_change_inside_a_file(self, tmp_path: Path) -> None:
        path = report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0)) / "prompts.jsonl"
        path.write_text(path.read_text() + '{"prompt": 99, "values": {"pass@1": 0.1}}\n')
        with pytest.raises(DataError, match="line 41: expected the metrics"):
            load_run(tmp_path)

    def test_the_same_job_twice(self, tmp_path: Path) -> None:
        for folder in ("a", "b"):
            report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0), folder=folder)
        with pytest.raises(DataError, match="got two for 'ce', seed 0"):
            load_run(tmp_path)

    def test_two_baselines(self, tmp_path: Path) -> None:
        report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0))
        path = report_runs.job(tmp_path, "other", 0, report_runs.prompt_values(0)) / "job.json"
        path.write_text(path.read_text().replace("false", "true"))
        with pytest.raises(DataError, match="at most one baseline branch, got ce, other"):
            load_run(tmp_path)

    @pytest.mark.parametrize("text", ['{"seed": 0}', "[]", "{"])
    def test_job_json(self, tmp_path: Path, text: str) -> None:
        path = report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0)) / "job.json"
        path.write_text(text)
        with pytest.raises(DataError, match=r"job\.json: expected"):
            load_run(tmp_path)

    @pytest.mark.parametrize("name", ["greedy", "pass@", "pass@0", "@4", "pass@x"])
    def test_metric_names(self, name: str) -> None:
        with pytest.raises(DataError, match="family@budget"):
            measured([name], [], Path("prompts.jsonl"))

    def test_a_torn_record_line_is_no_damage(self, tmp_path: Path) -> None:
        path = report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0)) / "record.jsonl"
        with path.open("a") as file:
            file.write('{"kind": "step", "st')
        (job,) = load_run(tmp_path).jobs
        assert [s["step"] for s in job.steps] == [10, 20, 30]

    def test_a_resumed_run_counts_its_later_records(self, tmp_path: Path) -> None:
        path = report_runs.job(tmp_path, "ce", 0, report_runs.prompt_values(0)) / "record.jsonl"
        with path.open("a") as file:
            file.write('{"kind": "step", "step": 30, "loss": 7.0}\n')
        (job,) = load_run(tmp_path).jobs
        assert [s["loss"] for s in job.steps] == [0.2, 0.1, 7.0]


@pytest.mark.parametrize(("shift", "seeds"), [(0.0, (0, 1, 2)), (0.0, (0,)), (0.05, (0, 1, 2))])
def test_no_measurable_difference_is_a_warning_in_the_head(
    tmp_path: Path, shift: float, seeds: tuple[int, ...]
) -> None:
    report_runs.make(tmp_path, {"ce": 0.0, "pass@16": shift}, seeds=seeds)
    head = rendered(tmp_path).split("</header>")[0]
    assert head.count("No measurable difference from cross-entropy.") == (not shift)
    assert head.count("Train more seeds") == (not shift and len(seeds) == 1)


def test_a_reference_is_shown_and_not_compared(tmp_path: Path) -> None:
    """The last step of cross-entropy beside its best step: in the table, without a gain or a caution of its own."""
    run = report_runs.make(tmp_path, {"warm": 0.0, "ce": 0.0, "pass@16": 0.05})
    for seed in (0, 1, 2):
        values = report_runs.prompt_values(seed, shift=-0.02)
        report_runs.job(run, "ce, best T", seed, values, role="reference", sd=0.0, folder="reference")
    saved = load_run(run)
    assert saved.labels == ("warm start", "ce, best T", "ce", "pass@16") and saved.trained == ("pass@16",)
    assert {branch for branch, _ in gains(saved)} == {"pass@16"} and not constant_weights(saved)
    assert "ce, best T" in summary_table(run)
