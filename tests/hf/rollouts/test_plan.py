"""Plans: every number by a second road. The rules of the recommendation are in ``test_recommend``."""

import json
import math
import re
from fractions import Fraction
from itertools import combinations

import pytest
import torch

from operant import credit
from operant.core.checks import BudgetError, DataError, InputError, OperantError
from operant.core.record import read_records, write_records
from operant.estimators import Transform
from operant.hf.config import PlanConfig
from operant.hf.rollouts.families import needs_verifier
from operant.hf.rollouts.plan import plan, resampled
from operant.hf.rollouts.signals import BINS, bin_of, compare_signals, dead_share
from operant.report import summary_table
from operant.strategies import Outcomes, parse
from tests import slow
from tests.hf.rollouts.plan_data import draws_of, planned, records_of, rollouts, successes

RULES = {"pass@N": slow.any_success, "pass^N": slow.all_success, "maj@N": slow.vote, "best@N": slow.best}


def test_curves_and_gains_are_means_over_all_subsets():
    outcomes = rollouts(b=6, m=8)
    records, _ = planned(outcomes)
    for label, rule in RULES.items():
        (curve,) = records_of(records, "curve", label)
        exact = {n: float(slow.mean([slow.u(rule, draws_of(outcomes, b), n) for b in range(6)])) for n in (1, 2, 4, 8)}
        assert {p["n"]: p["value"] for p in curve["points"]} == pytest.approx(exact)
        for gain in curve["gains"]:
            assert gain["value"] == pytest.approx(exact[gain["n"]] - exact[gain["from"]])
            assert gain["low"] - 1e-9 <= gain["value"] <= gain["high"] + 1e-9


def test_the_bootstrap_has_the_spread_of_a_mean_and_is_paired():
    values = torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[:, 2] = values[:, 0] + 0.25
    draws = resampled(values, seed=3)
    stderr = values.std(0, correction=0) / math.sqrt(200)
    assert draws.std(0) == pytest.approx(stderr, rel=4 / math.sqrt(2 * len(draws)))
    assert ((draws.mean(0) - values.mean(0)).abs() < 4 * stderr / math.sqrt(len(draws))).all()
    assert (draws[:, 2] - draws[:, 0]).sub(0.25).abs().max() < 1e-12
    assert not torch.equal(draws, resampled(values, seed=4))


@pytest.mark.parametrize("name, rule, n", [("pass@2", slow.any_success, 2), ("pass^3", slow.all_success, 3)])
@pytest.mark.parametrize("m", [4, 6])
def test_dead_groups_are_exact_where_successes_count(name, rule, n, m):
    outcomes = rollouts(b=12, m=6, seed=1)
    shares = []
    for b in range(12):
        groups = list(combinations(draws_of(outcomes, b), m))
        shares.append(Fraction(sum(not any(slow.credit(rule, g, n)) for g in groups), len(groups)))
    assert 0 < slow.mean(shares) < 1
    assert dead_share(parse(name), outcomes, m) == pytest.approx(float(slow.mean(shares)), abs=1e-12)


def test_dead_groups_of_a_vote_come_from_random_subsets():
    outcomes = rollouts(b=5, m=6, seed=2)
    dead = [
        not any(slow.credit(slow.vote, group, 2)) for b in range(5) for group in combinations(draws_of(outcomes, b), 4)
    ]
    exact, estimate = sum(dead) / len(dead), dead_share(parse("maj@2"), outcomes, 4, seed=1)
    assert 0 < exact < 1
    assert abs(estimate - exact) < 4 * math.sqrt(exact * (1 - exact) / 1000)
    assert estimate == dead_share(parse("maj@2"), outcomes, 4, seed=1)
    with pytest.raises(BudgetError, match="expected N < m <= M"):
        dead_share(parse("maj@2"), outcomes, 7)


def test_a_mixture_lives_where_a_part_lives():
    """2 successes of 4: pass@3 is dead (less than 3 failures), pass@1 is not."""
    outcomes = successes([2], 4)
    assert dead_share(parse("pass@3"), outcomes, 4) == 1
    assert dead_share(parse("mix(pass@1:0.25, pass@3:0.75)"), outcomes, 4) == 0


def test_the_share_of_dead_groups_in_the_records():
    outcomes = rollouts(b=30, m=16, seed=3)
    records, _ = planned(outcomes)
    (signal,) = [s for s in records_of(records, "signal", "pass@N") if s["n"] == 4]
    assert [d["m"] for d in signal["dead"]] == [5, 8, 16] and signal["exact"]
    c = outcomes.reward.sum(-1)
    assert signal["dead"][-1]["share"] == pytest.approx(((c == 0) | (c > 16 - 4)).double().mean().item())
    assert not records_of(records, "signal", "maj@N")[0]["exact"]


def test_rates_fall_into_their_bins():
    rate = torch.tensor([0.0, 1e-9, 0.05, 0.0501, 0.1, 0.25, 0.5, 0.75, 0.7501, 1 - 1e-9, 1.0], dtype=torch.float64)
    assert [BINS[i] for i in bin_of(rate)] == [
        "0", "(0, .05]", "(0, .05]", "(.05, .1]", "(.05, .1]", "(.1, .25]", "(.25, .5]", "(.5, .75]", "(.75, 1)",
        "(.75, 1)", "1",
    ]  # fmt: skip


def test_who_carries_the_signal():
    outcomes = rollouts(b=12, m=6, seed=4)
    records, prompts = planned(outcomes)
    for n in (1, 2):
        total = [sum(map(abs, slow.credit(slow.any_success, draws_of(outcomes, b), n))) for b in range(12)]
        share = [float(t / sum(total)) for t in total]
        (signal,) = [s for s in records_of(records, "signal", "pass@N") if s["n"] == n]
        assert [p["signal"][f"pass@{n}"] for p in prompts] == pytest.approx(share)
        assert signal["top_tenth"] == pytest.approx(sum(sorted(share)[-2:]))  # 2 = ceil(12 / 10)
        assert [t["share"] for t in signal["top"]] == pytest.approx(sorted(share, reverse=True)[:5])
        for entry in signal["top"]:
            assert entry["share"] == pytest.approx(share[int(entry["prompt"][1:])])
        low = [s for s, p in zip(share, prompts, strict=True) if 0.1 < p["rate"] <= 0.25]
        assert sum(low) > 0 and signal["bins"][BINS.index("(.1, .25]")] == pytest.approx(sum(low))
        assert sum(signal["bins"]) == pytest.approx(1)


def test_the_overlap_of_two_signals():
    one = torch.tensor([[1.0, -1.0], [0.0, 0.0], [3.0, -3.0]])  # shares 1/4, 0, 3/4
    other = torch.tensor([[2.0, -2.0], [2.0, -2.0], [0.0, 0.0]])  # shares 1/2, 1/2, 0
    assert compare_signals(one, other, torch.tensor([0.1, 0.2, 0.9])) == (pytest.approx(0.25), True)
    assert compare_signals(other, one, torch.tensor([0.1, 0.2, 0.9])) == (pytest.approx(0.25), False)
    assert compare_signals(one, torch.zeros(3, 2), torch.zeros(3)) is None


@pytest.mark.parametrize(
    "name, needs",
    [("pass@4", True), ("pass^4", True), ("threshold@4:2", True), ("maj@4", False), ("maj@4:fail", False)]
    + [("mix(maj@1:0.5, pass@4:0.5)", True), ("mix(maj@1:0.5, maj@4:0.5)", False), ("pass@1", False)],
)
def test_what_chooses_by_reward_needs_a_verifier(name, needs):
    assert needs_verifier(parse(name), rollouts(b=3, m=8)) is needs


def test_best_of_n_needs_a_verifier_only_without_a_score():
    outcomes = rollouts(b=1, m=8)
    assert not needs_verifier(parse("best@4"), outcomes)
    assert needs_verifier(parse("best@4"), Outcomes(outcomes.reward, outcomes.answer))


def test_a_single_prompt_has_no_intervals_and_no_advice():
    records, _ = planned(successes([3], 8))
    assert all(p["low"] is None and p["high"] is None for p in records_of(records, "curve", "pass@N")[0]["points"])
    (found,) = [r for r in records if r["kind"] == "recommendation"]
    assert found["verdict"] == "unknown" and "One prompt" in found["reasons"][0]


# Families, and what bad input gets.


def test_families_that_the_rollouts_allow():
    outcomes = rollouts(b=4, m=8)

    def labels(o, **settings):
        return [r["strategy"] for r in planned(o, **settings)[0] if r["kind"] == "curve"]

    assert labels(outcomes) == ["pass@N", "maj@N", "best@N", "pass^N"]
    assert labels(Outcomes(outcomes.reward)) == ["pass@N", "pass^N"]
    assert labels(Outcomes(outcomes.reward + 0.5)) == ["best@N"]
    chosen = ["threshold@4:3", "maj@2:fail", "mix(pass@1:0.5, maj@4:0.5)"]
    assert labels(outcomes, strategies=chosen) == ["threshold@N:3", "maj@N:fail", chosen[2]]
    records, prompts = planned(outcomes, strategies=chosen)
    budgets = [[p["n"] for p in r["points"]] for r in records if r["kind"] == "curve"]
    assert budgets == [[4, 8], [1, 2, 4, 8], [4]]
    assert set(prompts[0]["signal"]) == {"threshold@4:3", "maj@1:fail", "maj@2:fail", "maj@4:fail", chosen[2]}


def test_a_strategy_that_stops_early_costs_what_it_draws():
    outcomes = rollouts(b=3, m=6, seed=7)
    curve, fixed = [
        r
        for r in planned(outcomes, strategies=["race@4:2", "priced(mix(maj@1:0.5, maj@4:0.5), 0.01)"])[0]
        if r["kind"] == "curve"
    ]
    (cost,) = [p["cost"] for p in curve["points"] if p["n"] == 4]
    drawn = slow.race(2)[1]
    assert 2 < cost < 4
    assert cost == pytest.approx(float(slow.mean([slow.u_ordered(drawn, draws_of(outcomes, b), 4) for b in range(3)])))
    assert [p["n"] for p in fixed["points"]] == [4] and not fixed["gains"]


def test_rewards_of_any_scale():
    """Rewards times 1000: the same shares and the same advice, values times 1000."""
    reward = torch.rand(30, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    small, large = planned(Outcomes(reward))[0], planned(Outcomes(1000 * reward))[0]
    for a, b in zip(small, large, strict=True):
        if a["kind"] == "curve":
            assert [p["value"] for p in b["points"]] == pytest.approx([1000 * p["value"] for p in a["points"]])
        if a["kind"] == "signal":
            assert b["bins"] == pytest.approx(a["bins"]) and b["dead"] == a["dead"]
        if a["kind"] == "recommendation":
            assert (a["deploy"], a["train"], a["m"]) == (b["deploy"], b["train"], b["m"]) == ("best@4", "best@4", 8)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"budgets": [1, 17]}, "budgets up to 17 need as many rollouts"),
        ({"budgets": [0]}, "integer >= 1"),
        ({"strategies": ["pass@2", "pass@4"]}, "expected distinct families"),
        ({"strategies": []}, "expected distinct families"),
        ({"strategies": ["mix(pass@1:0.5, pass@32:0.5)"]}, "needs at least 32 rollouts"),
        ({"strategies": ["threshold@32:20"]}, "no member with a budget"),
        ({"strategies": ["pass@"]}, "expected one of pass@N"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(OperantError, match=re.escape(message)):
        planned(rollouts(b=4), **settings)


def test_too_few_rollouts():
    with pytest.raises(BudgetError, match="at least 4 rollouts"):
        planned(successes([1, 2], 3))


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "rows, error, message",
    [
        ([], DataError, "found none"),
        ([{"prompt": 1, "reward": 1}, {"prompt": 2, "reward": 0}, {"prompt": 2, "reward": 0}], DataError, "as many"),
        ([{"prompt": 1, "reward": float("nan")}] * 4, DataError, "must be a finite number, got nan"),
        ([{"prompt": 1, "reward": "high"}] * 4, DataError, "must be a finite number, got 'high'"),
    ],
)
def test_bad_rollouts_leave_no_folder(tmp_path, rows, error, message):
    source = write(tmp_path / "r.jsonl", rows)
    with pytest.raises(error, match=message):
        plan(PlanConfig(source, output_dir=tmp_path / "plan"))
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("settings", [{"price": -1.0}, {"price": math.nan}, {"confidence": 1.0}, {"confidence": 0.0}])
def test_prices_and_levels_are_checked(tmp_path, settings):
    with pytest.raises(InputError, match="expected 0 < confidence < 1"):
        plan(PlanConfig(tmp_path / "r.jsonl", output_dir=tmp_path / "plan", **settings))


def test_a_plan_from_completions_is_written_once_and_the_same_again(tmp_path):
    texts = ["72", "71", "72", "no", "72", "70", "70", "72"]
    rows = [{"prompt": p, "target": "72", "completion": t} for p in "abc" for t in texts[ord(p) - 97 :] + texts[:2]]
    rows = [r for p in "abc" for r in [x for x in rows if x["prompt"] == p][:8]]
    source = write(tmp_path / "r.jsonl", rows)
    folders = [
        plan(PlanConfig(source, output_dir=tmp_path / x, verifier="exact", strategies=["maj@1", "pass@1"]))
        for x in ("one", "two")
    ]
    first, second = (read_records(f / "record.jsonl") for f in folders)
    assert first[2:] == second[2:] and first[0]["command"] == "plan"
    assert (folders[0] / "prompts.jsonl").read_bytes() == (folders[1] / "prompts.jsonl").read_bytes()
    assert read_records(folders[0] / "prompts.jsonl")[0]["rate"] == 0.5
    with pytest.raises(DataError, match="holds a run of operant plan already"):
        plan(PlanConfig(source, output_dir=folders[0]))


def test_shares_are_of_the_exact_credit():
    """prompts.jsonl holds sum_i |w_i|, normalized over prompts."""
    outcomes = rollouts(b=20, m=16, seed=6)
    _, prompts = planned(outcomes)
    for name in ("maj@4", "best@8", "pass^2"):
        signal = credit(parse(name), outcomes).abs().sum(-1)
        assert [p["signal"][name] for p in prompts] == pytest.approx((signal / signal.sum()).tolist())


def test_a_transform_changes_the_signals_and_not_the_values_or_the_dead_groups():
    outcomes = successes([0, 1, 1, 2, 4, 7, 8, 8], 8)
    plain, _ = planned(outcomes, strategies=["pass@4"])
    records, prompts = planned(outcomes, strategies=["pass@4"], transform=Transform("log", 0.1))
    kinds = ("rollouts", "curve")
    assert [r for r in records if r["kind"] in kinds] == [r for r in plain if r["kind"] in kinds]
    before, after = (records_of(found, "signal", "pass@N") for found in (plain, records))
    assert [s["dead"] for s in before] == [s["dead"] for s in after]
    assert before[1]["bins"] != pytest.approx(after[1]["bins"])
    draws = [[(r, -1, 0.0) for r in row] for row in outcomes.reward.tolist()]
    without = [[float(slow.u(slow.any_success, [*d[:i], *d[i + 1 :]], 2)) for i in range(8)] for d in draws]
    g = [[math.log(u + 0.1) for u in row] for row in without]
    size = [sum(abs(sum(row) / 8 - x) for x in row) for row in g]
    assert [p["signal"]["pass@2"] for p in prompts] == pytest.approx([x / sum(size) for x in size])
    (best,) = (r for r in records if r["kind"] == "recommendation")
    assert best["transform"] == "log:0.1" and best["train"]


def test_a_plan_carries_the_transform_and_warns_of_a_vote(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    rows = []
    for i in range(39):
        right = 3 + i % 3  # of 8; the wrong answers differ, so a vote gains
        rows += [
            {"prompt": i, "reward": float(j < right), "answer": "7" if j < right else str(10 + j)} for j in range(8)
        ]
    write_records(path, rows)
    folder = plan(PlanConfig(path, tmp_path / "plan", strategies=["maj@4"], transform="log:0.1"))
    table = summary_table(folder)
    assert "train for it with --transform log:0.1, M = " in table
    assert "Training for maj@4 is known to lose from a start like this one (50.0 % right answers)" in table
    with pytest.raises(OperantError, match=r"expected a transform such as log:0.02"):
        plan(PlanConfig(path, tmp_path / "other", transform="sqrt"))
