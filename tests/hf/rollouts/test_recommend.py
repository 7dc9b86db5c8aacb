"""Recommendations: every rule on data where the right answer is known."""

import math
from fractions import Fraction

import pytest
import torch

from operant import credit
from operant.report.pages.plan.load import headline
from operant.strategies import Outcomes, parse
from tests.hf.rollouts.plan_data import advice, rollouts, successes


@pytest.mark.parametrize(
    "counts, reason",
    [
        ([16] * 30, "Every sample is right already"),
        ([0] * 30, "No rollout earns anything"),
        ([0, 16] * 15, "More samples do not help"),
    ],
)
def test_nothing_to_gain(counts, reason):
    (found,) = advice(successes(counts, 16))
    assert (found["verdict"], found["deploy"], found["train"], found["m"]) == ("nothing to gain", "pass@1", None, None)
    assert reason in found["reasons"][0] and "not measurable" in found["reasons"][0]
    assert "There is nothing to train for" in found["reasons"][-1]


@pytest.mark.parametrize(
    "counts, m, told",
    [
        ([0] * 20 + [15] * 20, 16, "20 are never solved; 20 are solved by some rollouts"),
        ([0] * 20 + [16] * 5 + [15] * 20, 16, "20 are never solved; 5 are always solved; 20 are solved by some"),
        ([7] * 40, 8, "40 are solved by some rollouts, but every draw of N = 2 of them earns the same"),
    ],
)
def test_nothing_is_trained_where_every_group_is_dead(counts, m, told):
    """With 15 right of 16 every pair has a right one: pass@2 is certain, and no rollout has a weight."""
    found = advice(successes(counts, m))[0]
    assert (found["verdict"], found["deploy"], found["train"], found["m"]) == (
        "nothing to train for",
        "pass@2",
        None,
        None,
    )
    assert f"Of {len(counts)} prompts, {told}" in found["reasons"][-1]
    assert "pass@1 has weights on" in found["reasons"][-1]
    assert headline(found) == "Deploy pass@2. Training would have no signal, because every group of rollouts is dead."
    assert "-0.0" not in " ".join(found["reasons"])
    rows = successes(counts, m)
    assert credit(parse("pass@2"), rows).abs().max() == 0


def test_one_group_that_is_alive_is_something_to_train_for():
    """14 right of 16: one pair of 120 has no right one."""
    assert advice(successes([0] * 20 + [15] * 19 + [14], 16))[0]["verdict"] == "train"


def test_graded_rewards_that_never_differ_within_a_prompt():
    outcomes = Outcomes(torch.linspace(0, 1, 30, dtype=torch.float64)[:, None].expand(-1, 8).contiguous())
    found = advice(outcomes)[0]
    assert found["verdict"] == "nothing to gain"
    assert "Of 30 prompts, 30 are solved to the same degree by every rollout." in found["reasons"][-1]


def test_one_lucky_prompt_is_not_measurable():
    """A gain from 1 prompt of 30 is absent from a third of the resamples; from 8 of 30, from almost none."""
    assert advice(successes([0] * 29 + [8], 16))[0]["verdict"] == "nothing to gain"
    assert advice(successes([0] * 22 + [8] * 8, 16))[0]["verdict"] == "train"


@pytest.mark.parametrize("price", [0.0, 0.004, 0.02, 0.1, 0.3])
def test_n_grows_while_a_doubling_pays(price):
    """10 of 32 for every prompt: no spread, so price alone decides; pass@N = 1 - C(22,N)/C(32,N)."""
    value = {n: 1 - Fraction(math.comb(22, n), math.comb(32, n)) for n in (1, 2, 4, 8, 16)}
    n = 1
    while n < 16 and value[2 * n] - value[n] > Fraction(price) * n:
        n *= 2
    (found,) = advice(successes([10] * 30, 32), price=price)
    assert (found["n"], found["deploy"]) == (n, f"pass@{n}")
    assert found["verdict"] == ("nothing to gain" if n == 1 else "train")
    if price == 0:
        assert "N up to 16. pass@32 adds" in " ".join(found["reasons"])


@pytest.mark.parametrize(
    "price, said", [(5e-6, "sample more rollouts to plan for it"), (1e-5, "no reason to sample more")]
)
def test_beyond_half_of_the_rollouts_only_what_pays_is_worth_more_rollouts(price, said):
    """10 of 32: the 16 samples from pass@16 to pass@32 gain C(22,16)/C(32,16) = 1.2e-4, and cost 16 price."""
    assert (Fraction(math.comb(22, 16), math.comb(32, 16)) > 16 * price) is said.startswith("sample")
    (found,) = advice(successes([10] * 30, 32), price=price)
    assert found["n"] == 16 and said in " ".join(found["reasons"])


def test_a_rival_at_one_sample_is_not_told_twice():
    """pass^N falls with N, so that it stays at pass^1, which is pass@1; a vote of its own N is a rival."""
    (found,) = advice(successes([10] * 30, 32))
    assert not [r for r in found["reasons"] if r.startswith("That is")]
    found = advice(rollouts(b=60, m=16, seed=5), strategies=["pass@1", "maj@1"])[0]
    assert [r for r in found["reasons"] if r.startswith("That is") and "ahead of maj@" in r]


def test_a_vote_gets_past_its_second_sample():
    """maj@2 = maj@1 exactly, and yet a vote over a correct half pays."""
    reward = (torch.arange(32) % 2 == 0).double().repeat(20, 1)
    answer = torch.where(reward > 0, 0, torch.arange(32) // 2 + 1)
    _, found = advice(Outcomes(reward, answer))
    assert found["case"] == "without a verifier" and found["deploy"].startswith("maj@") and found["n"] >= 4


def test_a_hacked_score_stops_best_of_n_at_its_peak():
    """One wrong rollout of 32 has the top score, 12 right ones come next: [C(31,N) - C(19,N)] / C(32,N)."""
    reward = torch.zeros(32, dtype=torch.float64)
    reward[1:13] = 1
    score = torch.zeros(32, dtype=torch.float64)
    score[0], score[1:13] = 9, 5
    value = {n: Fraction(math.comb(31, n) - math.comb(19, n), math.comb(32, n)) for n in (1, 2, 4, 8, 16)}
    peak = max(value, key=lambda n: value[n])
    assert 1 < peak < 16
    outcomes = Outcomes(reward.repeat(20, 1), score=score.repeat(20, 1))
    (found,) = advice(outcomes, strategies=["best@1"])
    assert found["deploy"] == f"best@{peak}" and found["verdict"] == "train"
    assert f"best@{2 * peak} adds -" in " ".join(found["reasons"])


@pytest.mark.parametrize("sign, winner", [(1, "best"), (-1, "maj")])
def test_the_vote_wins_over_a_score_that_is_wrong(sign, winner):
    outcomes = rollouts(b=60, m=16, seed=5)
    score = sign * outcomes.reward + 0.01 * outcomes.score
    found = advice(Outcomes(outcomes.reward, outcomes.answer, score), strategies=["maj@1", "best@1"])
    assert [f["case"] for f in found] == [""] and found[0]["deploy"].startswith(winner)


def test_a_mixture_where_the_signal_leaves_the_solved_prompts():
    """Half of the prompts at 28 of 32, half at 1 of 32: one sample moves the first, pass@16 the second."""
    (both,) = advice(successes([28, 1] * 20, 32))
    assert both["deploy"] == "pass@16" and both["train"] == "mix(pass@1:0.25, pass@16:0.75)"
    assert "leaves the prompts that are solved often" in " ".join(both["reasons"])
    (tail,) = advice(successes([1, 2] * 20, 32))  # all of them hard: nothing that is solved can drift
    assert tail["train"] == tail["deploy"] == "pass@16"
    assert parse(both["train"]).n == 16


def test_m_is_the_smallest_that_keeps_half_of_the_groups_alive():
    """Dead for pass@2 with c of m: c = 0 or c > m - 2; 2 of 32 for every prompt, by the hypergeometric law."""
    for c in (2, 6, 16):
        alive = {
            m: sum(math.comb(c, k) * math.comb(32 - c, m - k) for k in range(1, m - 1)) / math.comb(32, m)
            for m in (4, 8)
        }
        (found,) = advice(successes([c] * 20, 32), budgets=[1, 2])
        assert found["n"] == 2
        m = 4 if alive[4] >= 0.5 else 8
        assert found["m"] == m
        if m == 8 and alive[8] < 0.5:
            assert "Larger groups would help" in found["reasons"][-1]
        assert f"{100 * (1 - alive[m]):.1f} %" in found["reasons"][-1]


def test_m_where_most_prompts_are_hopeless():
    (found,) = advice(successes([0] * 30 + [8] * 10, 32), budgets=[1, 2])
    assert found["m"] == 8 and "Leave out prompts" in found["reasons"][-1] and "75.0 %" in found["reasons"][-1]
    (found,) = advice(successes([0] * 30 + [8] * 10, 32), budgets=[1, 16])
    assert found["m"] == 64 and "do not say" in found["reasons"][-1]
