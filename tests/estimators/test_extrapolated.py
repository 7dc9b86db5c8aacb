"""N > M: what the biased forms climb and report, by exact expectation over the counts of M rollouts."""

from __future__ import annotations

import math
from fractions import Fraction
from math import comb, prod

import pytest
import torch

from operant import AllOf, Majority, Outcomes, PassAt, Threshold, credit, estimate
from operant.core.checks import BudgetError, InputError
from operant.estimators import Extrapolation
from operant.strategies import CountStrategy

CASES: list[tuple[CountStrategy, int]] = [(PassAt(7), 4), (PassAt(64), 16), (AllOf(5), 3), (Threshold(9, 3), 5)]
each = pytest.mark.parametrize(("s", "m"), [*CASES, (PassAt(3), 2)], ids=str)
how = pytest.mark.parametrize("e", [Extrapolation(None), Extrapolation(), Extrapolation((1.0, 3.0))], ids=str)


def rising(x: Fraction, k: int) -> Fraction:
    return prod((x + i for i in range(k)), start=Fraction(1))


def chances(n: int, c: int, m: int, e: Extrapolation) -> list[Fraction]:
    """P(k successes among n) after c among m: binomial at c/m, or beta-binomial by rising factorials."""
    if e.prior is None:
        return binomial(n, Fraction(c, m))
    a, b = Fraction(e.prior[0]) + c, Fraction(e.prior[1]) + m - c
    return [comb(n, k) * rising(a, k) * rising(b, n - k) / rising(a + b, n) for k in range(n + 1)]


def binomial(n: int, p: Fraction) -> list[Fraction]:
    return [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


def worth(s: CountStrategy, chance: list[Fraction]) -> Fraction:
    """S, from the chances of k = 0..N successes."""
    return sum((Fraction(v) * x for v, x in zip(s.table().tolist(), chance, strict=True)), Fraction(0))


def slope(s: CountStrategy, chance: list[Fraction]) -> Fraction:
    """S', from the chances of k = 0..N-1 successes."""
    steps = [Fraction(b) - Fraction(a) for a, b in zip(s.table().tolist(), s.table().tolist()[1:], strict=False)]
    return s.n * sum((d * x for d, x in zip(steps, chance, strict=True)), Fraction(0))


def by_count(m: int) -> Outcomes:
    """Row c holds c successes."""
    return Outcomes((torch.arange(m) < torch.arange(m + 1)[:, None]).double())


@each
@how
def test_weights_and_values_are_the_definition(s: CountStrategy, m: int, e: Extrapolation) -> None:
    o = by_count(m)
    weights, values = e.credit(s, o), e.estimate(s, o)
    for c in range(m + 1):
        assert values[c].item() == pytest.approx(float(worth(s, chances(s.n, c, m, e))), abs=1e-12)
        assert len(weights[c, :c].unique()) <= 1 and len(weights[c, c:].unique()) <= 1
        for i in (0, m - 1):  # one correct and one wrong rollout, where there are both
            r = int(i < c)
            h = slope(s, chances(s.n - 1, c - r, m - 1, e))
            want = h * (r - Fraction(c - r, m - 1)) / m
            assert weights[c, i].item() == pytest.approx(float(want), rel=1e-12, abs=1e-12)


@each
@how
@pytest.mark.parametrize("p", [Fraction(1, 500), Fraction(3, 10), Fraction(9, 10)], ids=str)
def test_the_stated_bias_is_that_of_the_expected_step(s: CountStrategy, m: int, e: Extrapolation, p: Fraction) -> None:
    """With p itself the parameter, grad log pi(r) = (r - p) / (p (1-p)); every group of M is gone through."""
    o = by_count(m)
    weights, values = e.credit(s, o), e.estimate(s, o)
    score = (o.reward - float(p)) / float(p * (1 - p))
    mass = torch.tensor([float(x) for x in binomial(m, p)], dtype=torch.float64)
    step, value = (mass * (weights * score).sum(-1)).sum().item(), (mass * values).sum().item()
    true_slope, true_value = slope(s, binomial(s.n - 1, p)), worth(s, binomial(s.n, p))

    bias = e.bias(s, m, torch.tensor([float(p)], dtype=torch.float64))
    scale = float(true_slope) + abs(step)
    assert bias.slope.item() == pytest.approx(step - float(true_slope), abs=1e-11 * scale)
    assert bias.value.item() == pytest.approx(value - float(true_value), abs=1e-11)
    expected = sum(
        x * slope(s, chances(s.n - 1, c, m - 1, e)) for c, x in enumerate(binomial(m - 1, p))
    )  # E h(c'), c' ~ Bin(M-1, p)
    assert step == pytest.approx(float(expected), rel=1e-10)
    assert bias.slope.abs().item() > 1e-12 * scale


def test_the_published_example() -> None:
    """pass@64 from 16 rollouts at p = .03: slope 9.4, where the plug-in climbs 40.8 and Jeffreys 19.5."""
    p = torch.tensor([0.03], dtype=torch.float64)
    target = 64 * 0.97**63
    assert target == pytest.approx(9.4, abs=0.05)
    both = (Extrapolation(None), Extrapolation())
    plug_in, beta = (e.bias(PassAt(64), 16, p).slope.item() + target for e in both)
    assert (plug_in, beta) == (pytest.approx(40.8, abs=0.05), pytest.approx(19.5, abs=0.05))


def test_ends_of_the_interval_are_finite() -> None:
    bias = Extrapolation(None).bias(PassAt(1000), 8, torch.tensor([0.0, 1.0]))
    assert bias.value.tolist() == [0.0, 0.0] and bias.slope.tolist() == [0.0, 0.0]
    prior = Extrapolation().bias(PassAt(1000), 8, torch.tensor([0.0, 1.0]))
    assert bool(prior.value.isfinite().all() & prior.slope.isfinite().all()) and prior.value[0] > 0.5


def test_shapes_dtypes_and_a_vanishing_prior() -> None:
    o = by_count(7).map(lambda x: x.float().reshape(2, 4, 7))
    e = Extrapolation()
    for x in (e.credit(PassAt(9), o), e.estimate(PassAt(9), o)[..., None].expand(-1, -1, 7)):
        assert x.shape == (2, 4, 7) and x.dtype == torch.float32
    grid = torch.linspace(0, 1, 6).reshape(2, 3)
    assert Extrapolation().bias(PassAt(9), 7, grid).slope.shape == (2, 3)
    inner = by_count(7).map(lambda x: x[2:6])
    sharp = Extrapolation((1e-9, 1e-9)).estimate(PassAt(9), inner)
    assert sharp.tolist() != pytest.approx(Extrapolation(None).estimate(PassAt(9), inner).tolist(), abs=1e-6)
    assert bool((sharp < Extrapolation(None).estimate(PassAt(9), inner)).all()), "Jensen: S is concave"


def test_what_is_within_m_is_refused() -> None:
    o = Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(BudgetError, match="budget within the M = 4 rollouts: credit and estimate are unbiased"):
        credit(PassAt(4), o, extrapolate=Extrapolation())
    with pytest.raises(BudgetError, match="budget within the M = 8 rollouts"):
        Extrapolation().bias(PassAt(8), 8, torch.tensor([0.5]))
    with pytest.raises(BudgetError, match="at least two rollouts a prompt, got M = 1"):
        Extrapolation().estimate(PassAt(4), o.map(lambda x: x[:1]))
    with pytest.raises(InputError, match="for strategies that count successes, got maj@8"):
        credit(Majority(8), o, extrapolate=Extrapolation())
    with pytest.raises(InputError, match="log_ratio, extrapolate and transform exclude each other"):
        credit(PassAt(8), o, log_ratio=torch.zeros(4), extrapolate=Extrapolation())
    for prior in ((0.0, 1.0), (1.0, math.nan), (1.0,)):
        with pytest.raises(InputError, match="prior must be two positive numbers"):
            Extrapolation(prior)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="rewards must be 0 or 1"):
        Extrapolation().estimate(PassAt(8), Outcomes(torch.tensor([0.5, 0.0])))
    for p in (torch.tensor([1.5]), torch.tensor([math.nan]), torch.tensor([1])):
        with pytest.raises(InputError, match=r"probabilities in \[0, 1\]"):
            Extrapolation().bias(PassAt(8), 4, p)
    for refused in (lambda: credit(PassAt(8), o), lambda: estimate(PassAt(8), o)):
        with pytest.raises(BudgetError, match="Extrapolation has weights and values whose bias is stated"):
            refused()
