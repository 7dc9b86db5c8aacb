"""N > M: what the biased forms climb and report, by exact expectation over the counts of M rollouts."""

from __future__ import annotations

import math
from fractions import Fraction
from math import comb, prod

import pytest
import torch

from operant import AllOf, Outcomes, PassAt, Threshold, credit, estimate
from operant.core.checks import BudgetError, InputError
from operant.estimators import bias_beyond, credit_beyond, estimate_beyond
from operant.estimators.extrapolated import Form
from operant.strategies import CountStrategy

CASES: list[tuple[CountStrategy, int]] = [(PassAt(7), 4), (PassAt(64), 16), (AllOf(5), 3), (Threshold(9, 3), 5)]
each = pytest.mark.parametrize(("s", "m"), [*CASES, (PassAt(3), 2)], ids=str)
forms = pytest.mark.parametrize(
    ("form", "prior"), [("plug-in", (0.5, 0.5)), ("beta", (0.5, 0.5)), ("beta", (1.0, 3.0))], ids=str
)
Prior = tuple[float, float]


def rising(x: Fraction, k: int) -> Fraction:
    return prod((x + i for i in range(k)), start=Fraction(1))


def chances(n: int, c: int, m: int, form: Form, prior: Prior) -> list[Fraction]:
    """P(k successes among n) after c among m: binomial at c/m, or beta-binomial by rising factorials."""
    if form == "plug-in":
        return binomial(n, Fraction(c, m))
    a, b = Fraction(prior[0]) + c, Fraction(prior[1]) + m - c
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
@forms
def test_weights_and_values_are_the_definition(s: CountStrategy, m: int, form: Form, prior: Prior) -> None:
    o = by_count(m)
    weights, values = credit_beyond(s, o, form, prior), estimate_beyond(s, o, form, prior)
    for c in range(m + 1):
        assert values[c].item() == pytest.approx(float(worth(s, chances(s.n, c, m, form, prior))), abs=1e-12)
        assert len(weights[c, :c].unique()) <= 1 and len(weights[c, c:].unique()) <= 1
        for i in (0, m - 1):  # one correct and one wrong rollout, where there are both
            r = int(i < c)
            h = slope(s, chances(s.n - 1, c - r, m - 1, form, prior))
            want = h * (r - Fraction(c - r, m - 1)) / m
            assert weights[c, i].item() == pytest.approx(float(want), rel=1e-12, abs=1e-12)


@each
@forms
@pytest.mark.parametrize("p", [Fraction(1, 500), Fraction(3, 10), Fraction(9, 10)], ids=str)
def test_the_stated_bias_is_that_of_the_expected_step(
    s: CountStrategy, m: int, form: Form, prior: Prior, p: Fraction
) -> None:
    """With p itself the parameter, grad log pi(r) = (r - p) / (p (1-p)); every group of M is gone through."""
    o = by_count(m)
    weights, values = credit_beyond(s, o, form, prior), estimate_beyond(s, o, form, prior)
    score = (o.reward - float(p)) / float(p * (1 - p))
    mass = torch.tensor([float(x) for x in binomial(m, p)], dtype=torch.float64)
    step, value = (mass * (weights * score).sum(-1)).sum().item(), (mass * values).sum().item()
    true_slope, true_value = slope(s, binomial(s.n - 1, p)), worth(s, binomial(s.n, p))

    bias = bias_beyond(s, m, torch.tensor([float(p)], dtype=torch.float64), form, prior)
    scale = float(true_slope) + abs(step)
    assert bias.slope.item() == pytest.approx(step - float(true_slope), abs=1e-11 * scale)
    assert bias.value.item() == pytest.approx(value - float(true_value), abs=1e-11)
    expected = sum(
        x * slope(s, chances(s.n - 1, c, m - 1, form, prior)) for c, x in enumerate(binomial(m - 1, p))
    )  # E h(c'), c' ~ Bin(M-1, p)
    assert step == pytest.approx(float(expected), rel=1e-10)
    assert bias.slope.abs().item() > 1e-12 * scale


def test_the_published_example() -> None:
    """pass@64 from 16 rollouts at p = .03: slope 9.4, where the plug-in climbs 40.8 and Jeffreys 19.5."""
    p = torch.tensor([0.03], dtype=torch.float64)
    target = 64 * 0.97**63
    assert target == pytest.approx(9.4, abs=0.05)
    plug_in, beta = (bias_beyond(PassAt(64), 16, p, form).slope.item() + target for form in ("plug-in", "beta"))
    assert (plug_in, beta) == (pytest.approx(40.8, abs=0.05), pytest.approx(19.5, abs=0.05))


def test_ends_of_the_interval_are_finite() -> None:
    bias = bias_beyond(PassAt(1000), 8, torch.tensor([0.0, 1.0]), "plug-in")
    assert bias.value.tolist() == [0.0, 0.0] and bias.slope.tolist() == [0.0, 0.0]
    prior = bias_beyond(PassAt(1000), 8, torch.tensor([0.0, 1.0]))
    assert bool(prior.value.isfinite().all() & prior.slope.isfinite().all()) and prior.value[0] > 0.5


def test_shapes_dtypes_and_a_vanishing_prior() -> None:
    o = by_count(7).map(lambda x: x.float().reshape(2, 4, 7))
    for x in (credit_beyond(PassAt(9), o), estimate_beyond(PassAt(9), o)[..., None].expand(-1, -1, 7)):
        assert x.shape == (2, 4, 7) and x.dtype == torch.float32
    grid = torch.linspace(0, 1, 6).reshape(2, 3)
    assert bias_beyond(PassAt(9), 7, grid).slope.shape == (2, 3)
    inner = by_count(7).map(lambda x: x[2:6])
    sharp = estimate_beyond(PassAt(9), inner, "beta", (1e-9, 1e-9))
    assert sharp.tolist() != pytest.approx(estimate_beyond(PassAt(9), inner, "plug-in").tolist(), abs=1e-6)
    assert bool((sharp < estimate_beyond(PassAt(9), inner, "plug-in")).all()), "Jensen: S is concave"


def test_what_is_not_beyond_is_refused() -> None:
    o = Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(BudgetError, match="budget within the M = 4 rollouts: credit and estimate are unbiased"):
        credit_beyond(PassAt(4), o)
    with pytest.raises(BudgetError, match="budget within the M = 8 rollouts"):
        bias_beyond(PassAt(8), 8, torch.tensor([0.5]))
    with pytest.raises(BudgetError, match="at least two rollouts a prompt, got M = 1"):
        estimate_beyond(PassAt(4), o.map(lambda x: x[:1]))
    with pytest.raises(InputError, match="form must be 'plug-in' or 'beta', got 'bayes'"):
        credit_beyond(PassAt(8), o, "bayes")  # pyright: ignore[reportArgumentType]
    for prior in ((0.0, 1.0), (1.0, math.nan), (1.0,)):
        with pytest.raises(InputError, match="prior must be two positive numbers"):
            credit_beyond(PassAt(8), o, "beta", prior)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="rewards must be 0 or 1"):
        estimate_beyond(PassAt(8), Outcomes(torch.tensor([0.5, 0.0])))
    for p in (torch.tensor([1.5]), torch.tensor([math.nan]), torch.tensor([1])):
        with pytest.raises(InputError, match=r"probabilities in \[0, 1\]"):
            bias_beyond(PassAt(8), 4, p)
    for refused in (lambda: credit(PassAt(8), o), lambda: estimate(PassAt(8), o)):
        with pytest.raises(BudgetError, match="credit_beyond and estimate_beyond, whose bias is stated"):
            refused()
