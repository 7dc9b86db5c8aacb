"""Off-policy value and weights: against the definition in fractions, and unbiased for pi from groups of mu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor

from operant import (
    AllOf,
    BestOf,
    Majority,
    Mixture,
    Outcomes,
    PassAt,
    Threshold,
    credit,
    estimate,
    from_function,
    parse,
)
from operant.core.checks import BudgetError, InputError, NotDefinedError
from operant.estimators import estimate_offpolicy
from operant.strategies import CountStrategy, Outcome, Strategy
from operant.strategies.votes.majority import Quorum
from tests import slow


@dataclass(frozen=True)
class Graded(CountStrategy):
    """A table that is neither 0 and 1 nor monotone."""

    n: int = 4

    def table(self) -> Tensor:
        return torch.tensor([0.25, -1.0, 0.5, 2.0, 1.0], dtype=torch.float64)


def graded(draw: slow.Draw) -> Fraction:
    return Fraction(Graded().table().tolist()[sum(reward > 0 for reward, _, _ in draw)])


def second_best(draw: Sequence[Outcome]) -> float:
    return sorted(o.reward for o in draw)[-2]


def first_accepted(draw: Sequence[Outcome]) -> float:
    return next((o.reward for o in draw if o.score > 0.5), draw[-1].reward)


@dataclass(frozen=True)
class MyBest(BestOf):
    """A subclass that values otherwise must not be given its parent's closed form."""

    def estimate(self, outcomes: Outcomes) -> None:
        return None

    def credit(self, outcomes: Outcomes) -> None:
        return None

    def value(self, draw: Outcomes) -> Tensor:
        return draw.reward.amin(-1)


def worst(draw: slow.Draw) -> Fraction:
    return Fraction(min(reward for reward, _, _ in draw))


def quorum_of_three(draw: slow.Draw) -> Fraction:
    """3 votes of 5 have no rival; a reward r is worth r - (1 - r) / 4."""
    winners = [a for a in slow.leading(draw) if sum(x == a for _, x, _ in draw) >= 3]
    return slow.worth(draw, winners[0]) * Fraction(5, 4) - Fraction(1, 4) if winners else Fraction(0)


CASES: list[tuple[Strategy, slow.Rule, bool]] = [
    (PassAt(1), slow.any_success, False),
    (PassAt(4), slow.any_success, False),
    (AllOf(3), slow.all_success, False),
    (Threshold(5, 2), slow.at_least(2), False),
    (Graded(), graded, False),
    (BestOf(1), slow.best, True),
    (BestOf(4), slow.best, False),
    (BestOf(4), slow.best, True),
    (BestOf(5), slow.best, True),
    (Majority(1), slow.vote, False),
    (Majority(4), slow.vote, False),
    (Majority(5), slow.vote, False),
    (Majority(4, "fail"), slow.vote_or_fail, False),
    (Majority(5, "fail"), slow.vote_or_fail, False),
    (Quorum(5, 3, penalty=0.25), quorum_of_three, False),
    (
        Mixture({Majority(4): 0.5, BestOf(2): 0.25, PassAt(3): 0.25}),
        slow.mixture((0.5, 4, slow.vote), (0.25, 2, slow.best), (0.25, 3, slow.any_success)),
        False,
    ),
    (from_function(3, second_best), slow.second_best, False),
    (MyBest(3), worst, False),
]
each = pytest.mark.parametrize(("s", "rule", "scored"), CASES, ids=[f"{s}{'*' * x}" for s, _, x in CASES])
FLAT = [case for case in CASES if not isinstance(case[0], Mixture)]  # a mixture draws sets of several sizes
flat = pytest.mark.parametrize(("s", "rule", "scored"), FLAT, ids=[f"{s}{'*' * x}" for s, _, x in FLAT])


def outcomes(s: Strategy, scored: bool, batch: int, m: int, seed: int = 0) -> Outcomes:
    """Tied scores, rewards that differ within a class and may be negative, answers that do not parse."""
    g = torch.Generator().manual_seed(seed)
    answer = torch.randint(-1, 3, (batch, m), generator=g)
    reward = torch.tensor([-0.5, 0.0, 0.25, 1.0], dtype=torch.float64)[torch.randint(0, 4, (batch, m), generator=g)]
    if s.traits.binary:
        reward = (torch.rand(batch, m, generator=g) < torch.linspace(0, 1, batch)[:, None]).double()
    score = torch.randint(0, 3, (batch, m), generator=g).double() if scored else None
    return Outcomes(reward, answer, score)


def columns(o: Outcomes) -> list[list[slow.Rollout]]:
    assert o.answer is not None
    rows = (o.reward.tolist(), o.answer.tolist(), o.selector.tolist())
    return [list(zip(*row, strict=True)) for row in zip(*rows, strict=True)]


def ratios(batch: int, m: int, seed: int = 5) -> list[list[Fraction]]:
    draw = torch.randint(1, 40, (batch, m), generator=torch.Generator().manual_seed(seed))
    return [[Fraction(int(x), 10) for x in row] for row in draw]


def log(rho: list[list[Fraction]]) -> Tensor:
    return torch.tensor([[math.log(x) for x in row] for row in rho], dtype=torch.float64)


def u_w(rule: slow.Rule, z: slow.Draw, rho: list[Fraction], n: int, ordered: bool = False) -> Fraction:
    """Mean over all draws of the rule times the product of the ratios."""
    draws = list((permutations if ordered else combinations)(range(len(z)), n))
    return sum((rule([z[i] for i in d]) * math.prod(rho[i] for i in d) for d in draws), Fraction(0)) / len(draws)


def weights_w(
    rule: slow.Rule, z: slow.Draw, rho: list[Fraction], n: int, ordered: bool = False
) -> list[tuple[Fraction, Fraction]]:
    """Gain and baseline of every rollout; the weight is their difference."""
    m, u = len(z), u_w(rule, z, rho, n, ordered)
    without = [u_w(rule, z, [*rho[:i], Fraction(0), *rho[i + 1 :]], n, ordered) for i in range(m)]
    return [(u - a, rho[i] * Fraction(n, m - n) * a) for i, a in enumerate(without)]


@flat
def test_value_and_weights_are_the_sums_over_all_subsets(s: Strategy, rule: slow.Rule, scored: bool) -> None:
    o, rho = outcomes(s, scored, 5, 7), ratios(5, 7)
    got = estimate_offpolicy(s, o, log(rho))
    for b, z in enumerate(columns(o)):
        assert got.value[b].item() == pytest.approx(float(u_w(rule, z, rho[b], s.n)), rel=1e-12, abs=1e-12)
        want = [float(gain - baseline) for gain, baseline in weights_w(rule, z, rho[b], s.n)]
        assert got.weights[b].tolist() == pytest.approx(want, rel=1e-11, abs=1e-11)
        ess = sum(rho[b]) ** 2 / sum(x * x for x in rho[b])
        assert got.ess[b].item() == pytest.approx(float(ess), rel=1e-12)
    assert got.weights.sum(-1).abs().max() > 1e-3, "weights off-policy are not centered"


def test_a_mixture_is_the_weighted_sum_of_its_parts() -> None:
    o, log_ratio = outcomes(PassAt(3), False, 5, 7), log(ratios(5, 7))
    s = Mixture({Majority(4): 0.75, PassAt(2): 0.25})
    whole, a, b = (estimate_offpolicy(part, o, log_ratio) for part in (s, Majority(4), PassAt(2)))
    torch.testing.assert_close(whole.value, 0.75 * a.value + 0.25 * b.value, atol=1e-13, rtol=0)
    torch.testing.assert_close(whole.weights, 0.75 * a.weights + 0.25 * b.weights, atol=1e-13, rtol=0)


def test_an_ordered_strategy_goes_through_all_orders() -> None:
    s = from_function(2, first_accepted, ordered=True)
    o, rho = outcomes(s, True, 3, 5), ratios(3, 5)
    got = estimate_offpolicy(s, o, log(rho))
    for b, z in enumerate(columns(o)):
        want = u_w(slow.first_accepted, z, rho[b], 2, ordered=True)
        assert got.value[b].item() == pytest.approx(float(want), abs=1e-12)
        pairs = weights_w(slow.first_accepted, z, rho[b], 2, ordered=True)
        assert got.weights[b].tolist() == pytest.approx([float(x - y) for x, y in pairs], abs=1e-12)


def test_distinct_outcomes_go_through_all_subsets() -> None:
    """16 rewards that differ make 2^16 multisets, but C(16,2) = 120 subsets."""
    s, rho = from_function(2, second_best), ratios(1, 16)
    o = Outcomes(torch.randperm(16, generator=torch.Generator().manual_seed(0)).double()[None] / 16)
    z = [(r, -1, r) for r in o.reward[0].tolist()]
    got = estimate_offpolicy(s, o, log(rho))
    want = [float(x - y) for x, y in weights_w(slow.second_best, z, rho[0], 2)]
    assert got.weights[0].tolist() == pytest.approx(want, rel=1e-11)


PI = [Fraction(2, 10), Fraction(4, 10), Fraction(3, 10), Fraction(1, 10)]
MU = [Fraction(4, 10), Fraction(1, 10), Fraction(2, 10), Fraction(3, 10)]
KINDS = [(1.0, 0, 1.0), (0.0, 1, 1.0), (0.0, -1, 0.0), (1.0, 2, 0.5)]


@each
def test_unbiased_for_another_policy(s: Strategy, rule: slow.Rule, scored: bool) -> None:
    """E over every group of mu: the value is J(pi), and sum_i w_i grad log pi(y_i) is grad J(pi)."""
    kinds = KINDS if scored else [(r, a, r) for r, a, _ in KINDS]
    j, slope = slow.j_and_slope(PI, kinds, rule, s.n)
    probability, members = zip(*slow.groups(MU, s.n + 2), strict=True)
    group, mass = torch.tensor(members), torch.tensor([float(p) for p in probability], dtype=torch.float64)
    reward, answer, score = (torch.tensor(x) for x in zip(*kinds, strict=True))
    o = Outcomes(reward.double()[group], answer[group], score.double()[group] if scored else None)
    log_ratio = log([[p / q for p, q in zip(PI, MU, strict=True)]])[0][group]
    got = estimate_offpolicy(s, o, log_ratio)
    assert (mass * got.value).sum().item() == pytest.approx(float(j), abs=1e-12)
    score_function = torch.eye(4).double()[group] - torch.tensor([float(p) for p in PI], dtype=torch.float64)
    total = (mass[:, None, None] * got.weights[..., None] * score_function).sum((0, 1))
    assert total.tolist() == pytest.approx([float(x) for x in slope], abs=1e-12)
    naive = (mass[:, None, None] * credit(s, o)[..., None] * score_function).sum((0, 1))
    assert (naive - total).abs().max() > 1e-3, "the ratios matter"


@each
@pytest.mark.parametrize("m", [6, 20])
def test_ratios_of_one_give_the_credit(s: Strategy, rule: slow.Rule, scored: bool, m: int) -> None:
    o = outcomes(s, scored, 6, m)
    got = estimate_offpolicy(s, o, torch.zeros(6, m))
    torch.testing.assert_close(got.weights, credit(s, o), atol=1e-12, rtol=0)
    torch.testing.assert_close(got.value, estimate(s, o).value, atol=1e-12, rtol=0)
    torch.testing.assert_close(got.ess, torch.full((6,), float(m)).double())


@pytest.mark.parametrize(
    ("s", "rule"),
    [(PassAt(4), slow.any_success), (BestOf(4), slow.best), (Majority(4), slow.vote), (Majority(3), slow.vote)],
    ids=slow.label,
)
def test_ratios_from_1e_minus_30_to_1e30(s: Strategy, rule: slow.Rule) -> None:
    o = outcomes(PassAt(4), False, 8, 8, seed=1)
    g = torch.Generator().manual_seed(2)
    power = torch.randint(-30, 31, (8, 8), generator=g)
    rho = [[Fraction(10) ** int(x) for x in row] for row in power]
    got = estimate_offpolicy(s, o, power.double() * math.log(10))
    assert bool(got.value.isfinite().all() & got.weights.isfinite().all())
    for b, z in enumerate(columns(o)):
        assert got.value[b].item() == pytest.approx(float(u_w(rule, z, rho[b], s.n)), rel=1e-10)
        for w, (gain, baseline) in zip(got.weights[b].tolist(), weights_w(rule, z, rho[b], s.n), strict=True):
            assert abs(w - float(gain - baseline)) <= 1e-10 * float(gain + baseline)
    assert 1 <= got.ess.min() <= got.ess.max() < 8


def test_a_rollout_that_pi_cannot_produce_gets_no_weight() -> None:
    o = outcomes(PassAt(2), False, 4, 6)
    log_ratio = torch.zeros(4, 6).index_fill(1, torch.tensor([2]), -1e4)
    got = estimate_offpolicy(PassAt(2), o, log_ratio)
    assert bool((got.weights[:, 2] == 0).all()) and got.weights.abs().max() > 0
    assert got.ess.tolist() == pytest.approx([5.0] * 4)


def test_dtypes_batches_and_modes() -> None:
    o, log_ratio = outcomes(Majority(3), False, 6, 7), log(ratios(6, 7))
    want = estimate_offpolicy(Majority(3), o, log_ratio)
    deep = estimate_offpolicy(Majority(3), o.map(lambda x: x.reshape(2, 3, 7)), log_ratio.reshape(2, 3, 7))
    assert deep.value.shape == deep.ess.shape == (2, 3)
    torch.testing.assert_close(deep.weights.reshape(6, 7), want.weights)
    single = estimate_offpolicy(Majority(3), Outcomes(o.reward.float(), o.answer), log_ratio)
    assert single.weights.dtype == single.value.dtype == single.ess.dtype == torch.float32
    torch.testing.assert_close(single.weights, want.weights.float())
    with torch.inference_mode():
        inside = estimate_offpolicy(Majority(3), Outcomes(o.reward * 1, o.answer), log_ratio * 1)
    assert torch.equal(inside.weights, want.weights)
    asked = estimate_offpolicy(Majority(3), o, log_ratio.requires_grad_())
    assert not asked.weights.requires_grad and not asked.value.requires_grad
    no_answers = Outcomes(o.reward, torch.full_like(o.reward, -1, dtype=torch.long))
    assert estimate_offpolicy(Majority(3), no_answers, log_ratio.detach()).weights.abs().max() == 0


def test_what_cannot_work_is_refused() -> None:
    o, zero = Outcomes(torch.tensor([1.0, 0.0, 0.0])), torch.zeros(3)
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(InputError, match="log_ratio must be finite"):
            estimate_offpolicy(PassAt(2), o, torch.tensor([0.0, bad, 0.0]))
    with pytest.raises(InputError, match=r"of the shape of reward, \(3,\), got torch.float32 of shape \(2,\)"):
        estimate_offpolicy(PassAt(2), o, zero[:2])
    with pytest.raises(InputError, match="floating"):
        estimate_offpolicy(PassAt(2), o, zero.long())
    with pytest.raises(BudgetError, match=r"at least N \+ 1 = 4 rollouts a prompt, got M = 3"):
        estimate_offpolicy(PassAt(3), o, zero)
    with pytest.raises(InputError, match=r"overflows torch.float32 with log_ratio up to 60: .*clip log_ratio"):
        estimate_offpolicy(PassAt(2), o, zero + 60)
    with pytest.raises(InputError, match="rewards must be 0 or 1"):
        estimate_offpolicy(PassAt(2), Outcomes(torch.tensor([0.5, 0.0, 0.0])), zero)
    with pytest.raises(InputError, match="votes over answer classes"):
        estimate_offpolicy(Majority(2), o, zero)
    many = Outcomes(torch.linspace(0, 1, 24))
    with pytest.raises(NotDefinedError, match="no closed form off-policy.*Lower N or M"):
        estimate_offpolicy(from_function(12, second_best), many, torch.zeros(24))


@pytest.mark.parametrize("name", ["pass@2", "best@2", "maj@2", "topmean@2:2", "mix(pass@1:0.5, maj@2:0.5)"])
def test_no_prompts_have_no_weights(name: str) -> None:
    o = Outcomes(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.long))
    got = estimate_offpolicy(parse(name), o, torch.zeros(0, 4))
    assert (got.value.shape, got.weights.shape, got.ess.shape) == ((0,), (0, 4), (0,))
