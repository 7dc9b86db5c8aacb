"""Semivalues: the Shapley value by its definition over all orders, and the gradient that it is unbiased for."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operant import BestOf, Majority, Outcomes, PassAt, credit, estimate
from operant.core.checks import BudgetError, InputError
from operant.estimators import semivalue, shapley
from operant.strategies import Harmonic, Strategy
from tests import slow

KINDS: list[slow.Rollout] = [(1.0, 0, 1.0), (0.0, 1, 1.0), (0.0, -1, 0.0), (0.5, 2, 0.5)]
PI = [Fraction(3, 10), Fraction(4, 10), Fraction(2, 10), Fraction(1, 10)]
FAMILIES: list[tuple[Strategy, slow.Rule, bool]] = [
    (PassAt(1), slow.any_success, False),
    (BestOf(1), slow.best, False),
    (BestOf(1), slow.best, True),
    (Majority(1), slow.vote, False),
]


def outcomes(z: slow.Draw, scored: bool) -> Outcomes:
    reward, answer, score = (torch.tensor(x) for x in zip(*z, strict=True))
    return Outcomes(reward.double(), answer, score.double() if scored else None)


def shapley_over_orders(rule: slow.Rule, z: slow.Draw) -> list[float]:
    """What each rollout adds to those before it, averaged over all orders; nothing is worth 0."""
    total = [Fraction(0)] * len(z)
    orders = list(permutations(range(len(z))))
    for order in orders:
        before = Fraction(0)
        for size, i in enumerate(order, start=1):
            now = rule([z[j] for j in order[:size]])
            total[i] += now - before
            before = now
    return [float(x / len(orders)) for x in total]


def marginal(rule: slow.Rule, z: slow.Draw, n: int, i: int) -> Fraction:
    """in_i^n - out_i^(n-1)."""
    others = [x for j, x in enumerate(z) if j != i]
    inside = slow.mean([rule([z[i], *rest]) for rest in combinations(others, n - 1)])
    return inside - (slow.u(rule, others, n - 1) if n > 1 else 0)


@pytest.mark.parametrize(("s", "rule", "scored"), FAMILIES, ids=["pass", "max", "proxy", "maj"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(picks=st.lists(st.integers(0, 3), min_size=2, max_size=5))
def test_shapley_is_the_mean_over_all_orders(s: Strategy, rule: slow.Rule, scored: bool, picks: list[int]) -> None:
    kinds = [(float(r == 1), a, c) if s.traits.binary else (r, a, c) for r, a, c in KINDS]
    z = [kinds[k] if scored else (kinds[k][0], kinds[k][1], kinds[k][0]) for k in picks]
    want = shapley_over_orders(rule, z)
    o = outcomes(z, scored)
    assert shapley(s, o).tolist() == pytest.approx(want, abs=1e-12)
    by_budgets = semivalue(s, o, {n: 1 / n for n in range(1, o.m + 1)})
    assert by_budgets.tolist() == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize(("s", "rule", "scored"), FAMILIES, ids=["pass", "max", "proxy", "maj"])
def test_any_weights_over_budgets(s: Strategy, rule: slow.Rule, scored: bool) -> None:
    z = [KINDS[0], KINDS[1], KINDS[1], KINDS[2], KINDS[0], KINDS[1]]
    z = z if scored else [(r, a, r) for r, a, _ in z]
    weights = {2: 0.5, 3: 2.0, 6: 0.25}
    want = [sum(w * n / 6 * marginal(rule, z, n, i) for n, w in weights.items()) for i in range(6)]
    got = semivalue(s, outcomes(z, scored), weights)
    assert got.tolist() == pytest.approx([float(x) for x in want], abs=1e-12)


@pytest.mark.parametrize(("s", "rule"), [(PassAt(1), slow.any_success), (Majority(1), slow.vote)], ids=["pass", "maj"])
def test_it_is_unbiased_up_to_the_budget_m(s: Strategy, rule: slow.Rule) -> None:
    kinds, pi, m = KINDS[:3], [p / sum(PI[:3]) for p in PI[:3]], 4
    slope = torch.zeros(3, dtype=torch.float64)
    for n in range(1, m + 1):
        part = slow.j_and_slope(pi, kinds, rule, n)[1]
        slope += torch.tensor([float(x) / n for x in part], dtype=torch.float64)
    probability, members = zip(*slow.groups(pi, m), strict=True)
    total = torch.zeros(3, dtype=torch.float64)
    for p, group in zip(probability, members, strict=True):
        w = shapley(s, outcomes([(kinds[k][0], kinds[k][1], kinds[k][0]) for k in group], False))
        score = torch.eye(3).double()[list(group)] - torch.tensor([float(x) for x in pi], dtype=torch.float64).double()
        total += float(p) * (w[:, None] * score).sum(0)
    torch.testing.assert_close(total, slope, atol=1e-12, rtol=0)


def test_the_harmonic_mixture_is_the_same_objective_with_a_centred_credit() -> None:
    o = Outcomes(torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    s = Harmonic(PassAt(5))
    h = sum(1 / n for n in range(1, 6))
    want = sum(estimate(PassAt(n), o).value / n for n in range(1, 6)) / h
    torch.testing.assert_close(estimate(s, o).value, want)
    torch.testing.assert_close(credit(s, o), sum(credit(PassAt(n), o) / n for n in range(1, 6)) / h)
    log_p = torch.tensor([-3.0, -0.5, -1e-3], dtype=torch.float64)
    f = 1 - log_p.exp()
    series = sum((1 - f**n) / n for n in range(1, 6)) / h
    torch.testing.assert_close(s.log_success(log_p).exp(), series)
    assert s.at_budget(3) == Harmonic(PassAt(3))


def test_in_the_limit_the_harmonic_mixture_is_maximum_likelihood() -> None:
    """sum_n (1/n)(1 - (1-p)^n) = H_N + log p + O((1-p)^N)."""
    log_p = torch.tensor([-2.0, -1.0, -0.2], dtype=torch.float64, requires_grad=True)
    s = Harmonic(PassAt(400))
    h = sum(1 / n for n in range(1, 401))
    (slope,) = torch.autograd.grad((s.log_success(log_p).exp() * h).sum(), log_p)
    torch.testing.assert_close(slope, torch.ones(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_large_groups_take_the_closed_forms() -> None:
    reward = torch.rand(4, 4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phi = shapley(BestOf(1), Outcomes(reward))
    torch.testing.assert_close(phi.sum(-1), reward.amax(-1))  # efficiency: what all are worth together
    passed = Outcomes((reward > 0.999).double())
    torch.testing.assert_close(shapley(PassAt(1), passed).sum(-1), (passed.reward.sum(-1) > 0).double())


@pytest.mark.parametrize(
    ("weights", "error"),
    [({}, InputError), ({2: -1.0}, InputError), ({2: float("nan")}, InputError), ({5: 1.0}, BudgetError)],
)
def test_bad_weights_are_refused(weights: dict[int, float], error: type[Exception]) -> None:
    with pytest.raises(error):
        semivalue(PassAt(1), Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0])), weights)
