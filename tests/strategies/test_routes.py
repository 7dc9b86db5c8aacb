"""Four routes to one number, error bars, curves, and what is said when a budget does not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import Tensor

from operant import AllOf, BestOf, Majority, Mixture, Outcomes, PassAt, Threshold, credit, curve, estimate
from operant.core.checks import BudgetError, NotDefinedError, OperantError
from operant.strategies import Outcome, Strategy, from_function, route_of
from tests import slow


def random_outcomes(batch: int, m: int, *, seed: int = 0, classes: int = 3) -> Outcomes:
    g = torch.Generator().manual_seed(seed)
    answer = torch.randint(-1, classes, (batch, m), generator=g)
    return Outcomes((answer == 0).double(), answer, torch.rand(batch, m, generator=g).double().round(decimals=1))


def median(draw: Sequence[Outcome]) -> float:
    return sorted(o.reward for o in draw)[len(draw) // 2]


def first_accepted(draw: Sequence[Outcome]) -> float:
    return next((o.reward for o in draw if o.score > 0.5), draw[-1].reward)


def within_four_sigma(samples: Tensor, want: Tensor) -> None:
    """samples (runs, ...): their mean is within 4 standard errors of ``want``."""
    error = (samples.mean(0) - want).abs()
    sigma = samples.std(0) / math.sqrt(len(samples))
    assert bool((sigma.max() > 0) & (error <= 4 * sigma + 1e-12).all())


@pytest.mark.parametrize(
    "s", [PassAt(3), AllOf(2), Threshold(5, 2), BestOf(3), Majority(4), Majority(5, "fail")], ids=str
)
def test_four_routes_to_one_number(s: Strategy) -> None:
    o = random_outcomes(3, 7)
    value, weights = estimate(s, o).value, credit(s, o)
    for route in ("types", "subsets"):
        result = estimate(s, o, route=route)
        assert result.route == route
        torch.testing.assert_close(result.value, value, atol=1e-12, rtol=0)
        torch.testing.assert_close(result.stderr, estimate(s, o).stderr, atol=1e-12, rtol=0)
        torch.testing.assert_close(credit(s, o, route=route), weights, atol=1e-12, rtol=0)
    runs = range(0, 4000, 100)  # seed + prompt seeds a prompt
    w = torch.stack([credit(s, o, route="monte carlo", draws=300, seed=i) for i in runs])
    u = torch.stack([estimate(s, o, route="monte carlo", draws=300, seed=i).value for i in runs])
    within_four_sigma(u, value)
    within_four_sigma(w, weights)
    assert w.sum(-1).abs().max() < 1e-12, "exactly centered, not on average only"


def test_monte_carlo_of_an_ordered_strategy() -> None:
    s, o = from_function(3, first_accepted, ordered=True), random_outcomes(1, 6, seed=3)
    assert o.answer is not None and o.score is not None
    columns = (o.reward[0].tolist(), o.answer[0].tolist(), o.score[0].tolist())
    z = list(zip(*columns, strict=True))
    whole = slow.u_ordered(slow.first_accepted, z, 3)
    left_out = [slow.u_ordered(slow.first_accepted, [*z[:i], *z[i + 1 :]], 3) for i in range(6)]
    runs = range(40)
    values = torch.stack([estimate(s, o, draws=300, seed=i).value for i in runs])
    within_four_sigma(values, torch.tensor([float(whole)]).double())
    w = torch.stack([credit(s, o, draws=300, seed=i) for i in runs])
    within_four_sigma(w, torch.tensor([[float(whole - x) for x in left_out]]).double())


def test_monte_carlo_is_seeded() -> None:
    o = random_outcomes(2, 8)
    a, b, c = (credit(Majority(3), o, route="monte carlo", draws=50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_cheapest_exact_route_is_taken() -> None:
    few, many = random_outcomes(2, 12), Outcomes(torch.linspace(0, 1, 24)[None])
    assert route_of(PassAt(4), few) == "closed form"
    assert route_of(from_function(4, median), few.map(lambda x: x[:, :9])) == "types"
    assert route_of(from_function(2, median), many) == "subsets"  # C(24,2) = 276, but 2^24 multisets
    assert route_of(from_function(12, median), many) == "monte carlo"  # C(24,12) = 2,704,156
    assert route_of(from_function(2, first_accepted, ordered=True), few) == "monte carlo"
    assert route_of(Mixture({PassAt(2): 0.5, Majority(3): 0.5}), few) == "closed form"
    assert route_of(Mixture({from_function(2, median): 0.5, PassAt(3): 0.5}), few.map(lambda x: x[:, :5])) == "types"
    for s, o in ((PassAt(4), few), (from_function(2, median), many)):
        assert estimate(s, o).route == route_of(s, o)


def test_a_mixture_with_a_function_in_it_is_exact() -> None:
    o = random_outcomes(3, 6)
    s, median_of_three = Mixture({from_function(3, median): 0.5, PassAt(2): 0.5}), from_function(3, median)
    value = 0.5 * estimate(median_of_three, o).value + 0.5 * estimate(PassAt(2), o).value
    torch.testing.assert_close(estimate(s, o).value, value, atol=1e-12, rtol=0)
    weights = 0.5 * credit(median_of_three, o) + 0.5 * credit(PassAt(2), o)
    torch.testing.assert_close(credit(s, o), weights, atol=1e-12, rtol=0)


@dataclass(frozen=True)
class PassWithoutCredit(Strategy):
    """An author who wrote the estimate only."""

    n: int

    def value(self, draw: Outcomes) -> Tensor:
        return PassAt(self.n).value(draw)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        return PassAt(self.n).estimate(outcomes)


def test_credit_follows_from_the_estimate_alone() -> None:
    o = random_outcomes(4, 6)
    assert route_of(PassWithoutCredit(3), o) == "closed form"
    torch.testing.assert_close(credit(PassWithoutCredit(3), o), credit(PassAt(3), o), atol=1e-12, rtol=0)
    torch.testing.assert_close(estimate(PassWithoutCredit(3), o).stderr, estimate(PassAt(3), o).stderr)
    torch.testing.assert_close(curve(PassWithoutCredit(1), o).value, curve(PassAt(1), o).value)


def test_a_budget_that_does_not_fit_is_refused_with_a_reason() -> None:
    o = random_outcomes(2, 4)
    few = r"budget of N = 5 needs at least 5 rollouts a prompt, got M = 4: .* degree <= M in p"
    for refused in (lambda: estimate(PassAt(5), o), lambda: route_of(PassAt(5), o), lambda: curve(PassAt(1), o, [5])):
        with pytest.raises(BudgetError, match=few):
            refused()
    with pytest.raises(BudgetError, match=few):
        credit(PassAt(5), o)
    with pytest.raises(BudgetError, match="at least two rollouts a prompt, got M = N = 1: .*there are none"):
        credit(PassAt(1), o.map(lambda x: x[:, :1]))
    with pytest.raises(NotDefinedError, match="has no closed form"):
        estimate(from_function(2, median), o, route="closed form")
    with pytest.raises(NotDefinedError, match="has no closed form"):
        credit(from_function(2, median), o, route="closed form")
    with pytest.raises(BudgetError, match="at least one budget"):
        curve(PassAt(1), o, [])
    with pytest.raises(BudgetError, match="budget must be an integer >= 1, got 0"):
        curve(PassAt(1), o, [0])
    with pytest.raises(OperantError, match=r"threshold k must be <= N = 1, got 3"):
        curve(Threshold(8, 3), o, [1])


FULL: list[tuple[Strategy, slow.Rule]] = [
    (PassAt(2), slow.any_success),
    (PassAt(4), slow.any_success),
    (AllOf(3), slow.all_success),
    (Threshold(5, 2), slow.at_least(2)),
    (BestOf(4), slow.best),
    (Majority(4), slow.vote),
    (Majority(4, "fail"), slow.vote_or_fail),
    (Mixture({PassAt(2): 0.5, Majority(4): 0.5}), slow.mixture((0.5, 2, slow.any_success), (0.5, 4, slow.vote))),
    (from_function(3, lambda draw: sorted(o.reward for o in draw)[-2]), slow.second_best),
    (from_function(3, first_accepted, ordered=True), slow.first_accepted),
]
every_full = pytest.mark.parametrize(("s", "rule"), FULL, ids=[f"{s}" for s, _ in FULL])


def resampled(rule: slow.Rule, z: slow.Draw) -> list[Fraction]:
    """V(z) - mean over j != i of V(z with z_i replaced, in place, by a copy of z_j)."""
    n = len(z)
    replaced = [[rule([*z[:i], z[j], *z[i + 1 :]]) for j in range(n) if j != i] for i in range(n)]
    return [rule(z) - slow.mean(values) for values in replaced]


@every_full
@pytest.mark.parametrize("prefix", [(), (2, 3)], ids=["one", "batch"])
def test_credit_at_m_equal_n_is_the_resampled_baseline(s: Strategy, rule: slow.Rule, prefix: tuple[int, ...]) -> None:
    many = random_outcomes(6 if prefix else 1, s.n, seed=4)
    o = many.map(lambda x: x.reshape(*prefix, s.n))
    got = credit(s, o)
    assert got.shape == (*prefix, s.n) and got.dtype == torch.float64
    assert many.answer is not None
    columns = (many.reward.tolist(), many.answer.tolist(), many.selector.tolist())
    for w, *row in zip(got.reshape(-1, s.n).tolist(), *columns, strict=True):
        want = resampled(rule, list(zip(*row, strict=True)))
        assert w == pytest.approx([float(x) for x in want], abs=1e-13)
    single = o.map(lambda x: x.float() if x.is_floating_point() else x)
    torch.testing.assert_close(credit(s, single), got.float(), atol=1e-6, rtol=0)


@every_full
def test_credit_at_m_equal_n_is_unbiased_and_not_centred(s: Strategy, rule: slow.Rule) -> None:
    """Over every sequence of N outcomes of a small policy, in order."""
    pi = [Fraction(2, 10), Fraction(4, 10), Fraction(3, 10), Fraction(1, 10)]
    kinds = [(1.0, 0, 1.0), (0.0, 1, 1.0), (0.0, -1, 0.0), (1.0, 2, 0.5)]
    draws = list(product(range(4), repeat=s.n))
    worth = [rule([kinds[k] for k in draw]) for draw in draws]
    chance = [math.prod(pi[k] for k in draw) for draw in draws]
    slope = [
        sum(c * v * (d.count(k) - s.n * pi[k]) for d, v, c in zip(draws, worth, chance, strict=True)) for k in range(4)
    ]
    group = torch.tensor(draws)
    reward, answer, score = (torch.tensor(x) for x in zip(*kinds, strict=True))
    w = credit(s, Outcomes(reward.double()[group], answer[group], score.double()[group]))
    score_function = torch.eye(4).double()[group] - torch.tensor([float(p) for p in pi], dtype=torch.float64)
    mass = torch.tensor([float(c) for c in chance], dtype=torch.float64)[:, None, None]
    total = (mass * w[..., None] * score_function).sum((0, 1))
    assert total.tolist() == pytest.approx([float(x) for x in slope], abs=1e-12)
    if not isinstance(s, PassAt) or s.n > 2:  # v = (0, 1, 1): only c = 1 counts
        assert w.sum(-1).abs().max() > 0.1


def test_the_table_and_the_values_give_the_same_resampled_credit() -> None:
    o = random_outcomes(40, 6)
    by_value = credit(from_function(6, lambda draw: float(sum(x.reward for x in draw) >= 2)), o)
    torch.testing.assert_close(credit(Threshold(6, 2), o), by_value, atol=1e-13, rtol=0)
    with pytest.raises(OperantError, match="rewards must be 0 or 1"):
        credit(PassAt(4), Outcomes(torch.tensor([0.5, 0.0, 0.0, 1.0])))


@pytest.mark.parametrize("s", [PassAt(1), PassAt(4), Majority(3), BestOf(4)], ids=str)
def test_the_jackknife_error_is_the_spread_of_the_estimate(s: Strategy) -> None:
    """E stderr^2 >= var U (Efron and Stein), with equality for a plain mean."""
    g = torch.Generator().manual_seed(7)
    answer = torch.multinomial(torch.tensor([0.3, 0.4, 0.3]), 20_000 * 16, replacement=True, generator=g) - 1
    answer = answer.reshape(-1, 16)
    e = estimate(s, Outcomes((answer == 0).double(), answer))
    ratio = (e.stderr.square().mean() / e.value.var()).item()
    assert 0.97 < ratio < (1.03 if s.n == 1 else 1.5)


def test_error_over_prompts_is_the_spread_over_prompts() -> None:
    o = random_outcomes(50, 8)
    e = estimate(PassAt(2), o.map(lambda x: x.reshape(5, 10, 8)))
    flat = e.value.flatten()
    mean, stderr = e.over_prompts()
    assert mean == pytest.approx(flat.mean().item())
    assert stderr == pytest.approx((flat - flat.mean()).square().sum().div(49 * 50).sqrt().item())
    assert math.isnan(estimate(PassAt(2), o.map(lambda x: x[:1])).over_prompts()[1])


MEMBERS = [PassAt(1), AllOf(1), Threshold(2, 2), BestOf(1), Majority(1), Majority(1, "fail"), from_function(1, median)]


@pytest.mark.parametrize("s", MEMBERS, ids=str)
def test_a_curve_is_the_estimate_at_each_budget(s: Strategy) -> None:
    o = random_outcomes(5, 9)
    budgets = [2, 9, 5, 3]
    c = curve(s, o, budgets)
    assert c.budgets == (2, 9, 5, 3)
    for j, n in enumerate(budgets):
        each = estimate(s.at_budget(n), o)
        torch.testing.assert_close(c.per_prompt[:, j], each.value, atol=1e-12, rtol=0)
        assert (c.value[j].item(), c.stderr[j].item()) == pytest.approx(each.over_prompts(), abs=1e-12)


def test_default_budgets_double_up_to_m() -> None:
    assert curve(PassAt(7), random_outcomes(2, 12)).budgets == (1, 2, 4, 8)
    assert curve(PassAt(7), random_outcomes(2, 16)).budgets == (1, 2, 4, 8, 16)


def test_one_prompt_has_no_error_over_prompts() -> None:
    c = curve(Majority(1), random_outcomes(1, 8).map(lambda x: x[0]))
    assert bool(c.stderr.isnan().all()) and c.per_prompt.shape == (1, 4) and bool(c.value.isfinite().all())


def test_a_mixture_has_no_single_budget() -> None:
    with pytest.raises(NotDefinedError, match="has several budgets"):
        curve(Mixture({PassAt(1): 0.5, PassAt(2): 0.5}), random_outcomes(2, 4))
