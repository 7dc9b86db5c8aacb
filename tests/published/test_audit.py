"""The audit against the sum over all 2^M reward vectors, and the rules against their formulas in Fractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from math import comb, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operant import Outcomes
from operant.core.checks import BudgetError, InputError, NotDefinedError
from operant.published import RULES, credit_of
from operant.published.audit import audit
from operant.published.rules import maxrl, rloo
from operant.strategies import AllOf, BestOf, CountStrategy, Majority, Mixture, PassAt, Threshold
from tests import slow

P = torch.tensor([0.003, 0.05, 0.3, 0.5, 0.77, 0.99], dtype=torch.float64)
GRID = torch.arange(1, 100, dtype=torch.float64) / 100


def max_of(draw: slow.Draw) -> Fraction:
    return max((Fraction(r) for r, _, _ in draw), default=Fraction(0))


def inside(g: Sequence[Fraction], k: int, i: int) -> Fraction:
    """Mean of the maximum over the k-subsets with i."""
    others = [(x, 0, x) for x in [*g[:i], *g[i + 1 :]]]
    mine = (g[i], 0, g[i])
    return slow.u(lambda draw: max_of([*draw, mine]), others, k - 1)  # pyright: ignore[reportArgumentType]


def outside(g: Sequence[Fraction], k: int, i: int) -> Fraction:
    """Mean of the maximum over the k-subsets without i."""
    return slow.u(max_of, [(x, 0, x) for x in [*g[:i], *g[i + 1 :]]], k)  # pyright: ignore[reportArgumentType]


def centered(w: list) -> list:
    return [x - sum(w) / len(w) for x in w]


def sd(g: Sequence[Fraction]) -> float:
    mean = sum(g) / len(g)
    return sqrt(sum((x - mean) ** 2 for x in g) / (len(g) - 1))


def slow_pkpo(g: Sequence[Fraction], k: int) -> list[Fraction]:
    return [Fraction(k, len(g)) * inside(g, k, i) for i in range(len(g))]


def slow_sloo(g: Sequence[Fraction], k: int) -> list[Fraction]:
    """s_i less the mean over j of s_j, computed without i."""
    m, s = len(g), slow_pkpo(g, k)
    return [s[i] - sum(slow_pkpo([*g[:i], *g[i + 1 :]], k)) / (m - 1) for i in range(m)]


def slow_sloo_minus_one(g: Sequence[Fraction], k: int) -> list[Fraction]:
    m = len(g)
    return [Fraction(k, m) * (inside(g, k, i) - outside(g, k - 1, i)) for i in range(m)]


def slow_best_minus_second(g: Sequence[Fraction], _: int) -> list[Fraction]:
    best = max(range(len(g)), key=lambda i: g[i])
    return [(g[best] - sorted(g)[-2]) * (i == best) for i in range(len(g))]


def slow_passk_training(g: Sequence[Fraction], k: int) -> list[float]:
    m, wrong = len(g), sum(x == 0 for x in g)
    mean = 1 - Fraction(comb(wrong, k), comb(m, k))
    if mean in (0, 1):
        return [0.0] * m
    negative = 1 - mean - Fraction(comb(wrong - 1, k - 1), comb(m - 1, k - 1))
    return [float((1 - mean) if x else negative) / sqrt(mean * (1 - mean)) / m for x in g]


def slow_rloo(g: Sequence[Fraction], _: int = 0) -> list[Fraction]:
    m = len(g)
    return [(g[i] - sum([*g[:i], *g[i + 1 :]]) / (m - 1)) / m for i in range(m)]


def slow_maxrl(g: Sequence[Fraction], _: int) -> list[Fraction]:
    """1/c on a success, less the mean score over all."""
    c, m = sum(g), len(g)
    return [(Fraction(1, int(c)) if x else Fraction(0)) - Fraction(1, m) if c else Fraction(0) for x in g]


def slow_plug_in(g: Sequence[Fraction], n: int) -> list[Fraction]:
    return [n * (1 - sum(g) / len(g)) ** (n - 1) * w for w in slow_rloo(g)]


def slow_cat(form: str) -> Callable[[Sequence[Fraction], int], list[float]]:
    def rule(g: Sequence[Fraction], n: int) -> list[float]:
        p = (sum(g) + 1) / (len(g) + 2)
        weight = n * (1 - p) ** (n - 1) * (p / (1 - (1 - p) ** n) if form == "log" else 1)
        return [float(weight * x) / (sd(g) + 1e-4) / len(g) for x in centered(list(g))]

    return rule


SLOW: dict[str, Callable[[Sequence[Fraction], int], list]] = {
    "grpo": lambda g, _: [float(x) / (sd(g) + 1e-4) / len(g) for x in centered(list(g))],
    "dr-grpo": lambda g, _: [x / len(g) for x in centered(list(g))],
    "rloo": slow_rloo,
    "maxrl": slow_maxrl,
    "pkpo": slow_pkpo,
    "pkpo-sloo": slow_sloo,
    "pkpo-sloo-1": slow_sloo_minus_one,
    "pkpo-centered": lambda g, k: centered(slow_pkpo(g, k)),
    "pkpo-sloo-centered": lambda g, k: centered(slow_sloo(g, k)),
    "pkpo-sloo-1-centered": lambda g, k: centered(slow_sloo_minus_one(g, k)),
    "passk-training": slow_passk_training,
    "grpo-passk": slow_best_minus_second,
    "grpo-passk-std": lambda g, k: [float(x) / (sd(g) + 1e-6) for x in slow_best_minus_second(g, k)],
    "plug-in": slow_plug_in,
    "cat-raw": slow_cat("raw"),
    "cat-log": slow_cat("log"),
}
BINARY = {"maxrl", "passk-training", "plug-in", "cat-raw", "cat-log"}


def vectors(m: int) -> torch.Tensor:
    """Every reward vector, (2^M, M)."""
    return torch.tensor(list(product((0.0, 1.0), repeat=m)), dtype=torch.float64)


def enumerated(rule, m: int, p: float) -> dict[str, float]:
    """Slope by autograd, variances and dead groups, over all reward vectors."""
    reward = vectors(m)
    w = rule(reward)
    theta = torch.tensor(np.log(p / (1 - p)), dtype=torch.float64, requires_grad=True)
    log_p = torch.where(reward > 0, torch.nn.functional.logsigmoid(theta), torch.nn.functional.logsigmoid(-theta))
    mass = log_p.sum(-1).exp().detach()
    (slope,) = torch.autograd.grad((mass * (w * log_p).sum(-1)).sum(), theta)
    along = (w * (reward - p)).sum(-1)
    mean = (mass * along).sum()
    return {
        "slope": slope.item() / (p * (1 - p)),
        "dead": mass[(w.abs() <= 1e-12).all(-1)].sum().item(),
        "variance": (mass * w.square().sum(-1)).sum().item(),
        "logit_variance": (mass * (along - mean) ** 2).sum().item(),
    }


def fraction_slope(name: str, n: int, m: int, p: Fraction) -> Fraction | float:
    """E sum_i w_i (r_i/p - (1-r_i)/(1-p)) by Fractions, one vector per number of successes."""
    total = 0
    for c in range(m + 1):
        g = [Fraction(i < c) for i in range(m)]
        w = SLOW[name](g, n)
        score = [1 / p if x else -1 / (1 - p) for x in g]
        total += comb(m, c) * p**c * (1 - p) ** (m - c) * sum(a * b for a, b in zip(w, score, strict=True))
    return total


def slope_of_pass(n: int, p: Fraction) -> Fraction:
    return n * (1 - p) ** (n - 1)


def test_every_rule_has_its_second_road():
    assert set(SLOW) == set(RULES)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("m", "n"), [(5, 2), (6, 5), (7, 3)])
def test_a_rule_is_its_published_formula(name, m, n):
    generator = np.random.default_rng(m)
    rows = [[Fraction(int(x)) for x in generator.integers(0, 2, m)] for _ in range(6)]
    rows += [[Fraction(0)] * m, [Fraction(1)] * m, [Fraction(i == 2) for i in range(m)]]
    if name not in BINARY:
        rows += [[Fraction(int(x), 4) for x in generator.integers(-4, 5, m)] for _ in range(8)]
        if name.startswith("grpo-passk"):  # ties for the best are broken by torch.topk, and get 0
            rows = [g for g in rows if sorted(g)[-1] > sorted(g)[-2] or len(set(g)) == 1]
    rule = RULES[name].make(n)
    reward = torch.tensor([[float(x) for x in g] for g in rows], dtype=torch.float64)
    expected = torch.tensor([[float(x) for x in SLOW[name](g, n)] for g in rows], dtype=torch.float64)
    torch.testing.assert_close(rule(reward), expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(rule(reward.float()), expected.float(), rtol=2e-5, atol=1e-5)
    assert rule(reward.reshape(len(rows), 1, m)).shape == (len(rows), 1, m)


@pytest.mark.parametrize("name", [*RULES, "credit"])
@pytest.mark.parametrize(("m", "n"), [(4, 2), (8, 4), (7, 6)])
def test_the_audit_is_the_sum_over_all_reward_vectors(name, m, n):
    rule = credit_of(PassAt(n)) if name == "credit" else RULES[name].make(n)
    found = audit(rule, m, p=P)
    for i, p in enumerate(P.tolist()):
        for key, value in enumerated(rule, m, p).items():
            assert getattr(found, key)[i].item() == pytest.approx(value, rel=1e-9, abs=1e-12), (key, p)


@pytest.mark.parametrize("name", ["grpo", "plug-in", "passk-training", "maxrl"])
def test_the_objective_is_the_integral_of_the_slope(name):
    m = 8
    rule = RULES[name].make(4)
    nodes, share = np.polynomial.legendre.leggauss(m)  # exact up to degree 2M - 1
    found = audit(rule, m, p=P)
    for i, p in enumerate(P.tolist()):
        slopes = [enumerated(rule, m, p * (x + 1) / 2)["slope"] for x in nodes]
        assert found.objective[i].item() == pytest.approx(p / 2 * float(share @ slopes), rel=1e-9)


def test_the_objective_is_a_count_strategy_of_budget_m():
    class Realized(CountStrategy):
        n = 8

        def table(self):
            return audit(RULES["plug-in"].make(4), 8).table

    found = audit(RULES["plug-in"].make(4), 8, p=P)
    draws = torch.bernoulli(P[:, None, None].expand(-1, 40_000, 8), generator=torch.Generator().manual_seed(0))
    value = Realized().value(Outcomes(draws))
    assert ((value.mean(-1) - found.objective).abs() <= 4 * value.std(-1) / 200 + 1e-12).all()


@pytest.mark.parametrize(("m", "n"), [(8, 4), (6, 3), (9, 2)])
def test_what_mean_centring_does(m, n):
    for p in (Fraction(1, 50), Fraction(1, 2), Fraction(9, 10)):
        j_n, fewer, share = slope_of_pass(n, p), slope_of_pass(n - 1, p), Fraction(n, m)
        assert fraction_slope("pkpo", n, m, p) == j_n
        assert fraction_slope("pkpo-sloo", n, m, p) == j_n
        assert fraction_slope("pkpo-sloo-1", n, m, p) == j_n
        assert fraction_slope("pkpo-centered", n, m, p) == (1 - share) * j_n
        assert fraction_slope("pkpo-sloo-centered", n, m, p) == (1 + share / (m - 1)) * j_n
        assert fraction_slope("pkpo-sloo-1-centered", n, m, p) == (1 - share) * j_n + share * fewer
        for name in RULES:
            found = audit(RULES[name].make(n), m, p=torch.tensor([float(p)], dtype=torch.float64)).slope.item()
            assert found == pytest.approx(float(fraction_slope(name, n, m, p)), rel=1e-10, abs=1e-13), name


def test_shipped_maxrl_optimizes_the_harmonic_mixture_of_order_m_minus_one():
    for m in (2, 5, 8):
        slope = sum(slope_of_pass(n, P.numpy()) / n for n in range(1, m))  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(audit(maxrl, m, p=P).slope, slope, rtol=1e-12)
    assert (audit(maxrl, 1, p=P).slope == 0).all(), "at M = 1 it is no rule at all"


def test_grpo_passk_without_std_is_pass_at_m_and_its_default_a_multiple_of_it():
    plain, default = (audit(RULES[f"grpo-passk{x}"].make(4), 8, target=PassAt(8), p=GRID[:90]) for x in ("", "-std"))
    assert torch.allclose(plain.ratio, torch.ones_like(plain.ratio), rtol=1e-8)
    assert (default.ratio / default.ratio[0] - 1).abs().max() < 1e-8, "only groups with one success are alive"


def test_passk_training_with_std_is_no_multiple_of_pass_at_k():
    ratio = audit(RULES["passk-training"].make(4), 8, target=PassAt(4)).ratio
    assert (ratio.diff() > 0).all()
    assert f"{ratio[0]:.2f} {ratio[89]:.2f}" == "0.25 0.89"


def test_the_plug_in_is_fourteen_times_too_large_at_high_p():
    p = Fraction(9, 10)
    found = audit(RULES["plug-in"].make(4), 8, target=PassAt(4))
    assert found.slope[89].item() == pytest.approx(float(fraction_slope("plug-in", 4, 8, p)), rel=1e-10)
    assert found.target_slope is not None
    assert f"{found.slope[89]:.4f} {found.target_slope[89]:.4f} {found.ratio[89]:.0f}" == "0.0556 0.0040 14"
    printed = audit(RULES["cat-raw"].make(4), 8, target=PassAt(4))
    assert printed.ratio[89] > 40, "with the group's Laplace rate and standardized advantages it is worse"


def test_grpo_is_no_multiple_of_pass_at_one_and_rloo_is():
    grpo, plain = (audit(RULES[name].make(1), 8, target=PassAt(1)).ratio for name in ("grpo", "rloo"))
    assert grpo.max() / grpo.min() > 1.3
    assert torch.allclose(plain, torch.ones_like(plain), rtol=1e-12)


@pytest.mark.parametrize(
    "s",
    [
        PassAt(1),
        PassAt(7),
        AllOf(3),
        Threshold(5, 3),
        BestOf(4),
        Mixture({PassAt(1): 0.25, PassAt(6): 0.75}),
    ],
    ids=str,
)
def test_credit_optimizes_its_strategy_exactly(s):
    target = PassAt(4) if isinstance(s, BestOf) else s  # on binary rewards the same
    found = audit(credit_of(s), 8, target=target)
    assert found.target_slope is not None and found.target_value is not None
    torch.testing.assert_close(found.slope, found.target_slope, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.objective, found.target_value, rtol=1e-10, atol=1e-12)


def test_a_target_of_more_samples_than_rollouts_is_never_met():
    for name in RULES:
        if name not in {"plug-in", "cat-raw", "cat-log"}:
            ratio = audit(RULES[name].make(4), 8, target=PassAt(16), p=GRID[:50]).ratio
            assert ratio.max() / ratio.min() > 2, name


tables = st.integers(1, 7).flatmap(
    lambda m: st.tuples(*[st.lists(st.floats(-3, 3), min_size=m + 1, max_size=m + 1) for _ in range(4)])
)


def table_rule(correct, wrong):
    def rule(reward):
        c = reward.sum(-1).long()
        one, zero = (torch.tensor(x, dtype=torch.float64)[c][..., None] for x in (correct, wrong))
        return torch.where(reward > 0, one, zero)

    return rule


@settings(max_examples=40, deadline=None)
@given(tables, st.floats(-2, 2))
def test_the_audit_of_a_mixture_is_the_mixture_of_the_audits(values, share):
    m = len(values[0]) - 1
    first, second = table_rule(*values[:2]), table_rule(*values[2:])
    a, b = audit(first, m, p=P), audit(second, m, p=P)
    both = audit(lambda r: share * first(r) + (1 - share) * second(r), m, p=P)
    for key in ("table", "slope", "objective"):
        mixed = share * getattr(a, key) + (1 - share) * getattr(b, key)
        torch.testing.assert_close(getattr(both, key), mixed, rtol=1e-10, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(tables)
def test_any_table_against_enumeration_and_its_degree(values):
    m = len(values[0]) - 1
    rule = table_rule(*values[:2])
    for i, p in enumerate(P.tolist()):
        for key, value in enumerated(rule, m, p).items():
            if key != "dead":
                assert getattr(audit(rule, m, p=P), key)[i].item() == pytest.approx(value, rel=1e-7, abs=1e-9), key
    equispaced = audit(rule, m, p=torch.linspace(0.1, 0.9, m + 2, dtype=torch.float64)).slope
    assert equispaced.diff(n=m).abs().max() < 1e-9 * 2**m, "the slope is a polynomial of degree <= M - 1"


def test_a_rule_in_single_precision_is_read_to_single_precision():
    single = audit(lambda r: rloo(r.float()), 8)
    assert torch.allclose(single.slope, audit(rloo, 8).slope, atol=1e-6)


def test_the_ratio_is_left_open_where_rounding_would_make_it():
    ratio = audit(credit_of(PassAt(16)), 32, target=PassAt(16)).ratio
    assert ratio[-1].isnan() and not ratio[:50].isnan().any()
    known = ratio[~ratio.isnan()]
    assert torch.allclose(known, torch.ones_like(known), atol=1e-5)


def test_noise_of_rloo_is_that_of_a_mean_of_m_minus_one():
    assert torch.allclose(audit(rloo, 9).noise, torch.full((99,), 1 / sqrt(8), dtype=torch.float64))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda r: r * torch.arange(r.shape[-1]), "position"),
        (lambda r: r - r[..., :1], "position"),
        (lambda r: torch.rand(r.shape), "is random"),
        (lambda r: torch.zeros_like(r).scatter(-1, r.argmax(-1, keepdim=True), 1.0), "position"),
        (lambda r: (r - r.mean()) / (r.std(unbiased=False) + 1e-3), "other groups"),
        (lambda r: (r - r.mean(-1, keepdim=True)) / r.std(-1, keepdim=True), "finite weights, got nan"),
        (lambda r: r / r.mean(-1, keepdim=True), "finite"),
        (lambda r: r.sum(-1), "weights of that shape"),
        (lambda r: r.tolist(), "got list"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(rule, message):
    with pytest.raises(InputError, match=message):
        audit(rule, 4)


def test_bad_arguments_are_refused():
    for p in ([0.0, 0.5], [1.0], [[0.5]], [], [float("nan")]):
        with pytest.raises(InputError):
            audit(rloo, 4, p=torch.tensor(p))
    with pytest.raises(NotDefinedError, match="Leave out target="):
        audit(rloo, 4, target=Majority(3))
    with pytest.raises(NotDefinedError, match="give audit"):
        _ = audit(rloo, 4).ratio
    with pytest.raises(BudgetError, match="subsets of 1 to 3"):
        audit(RULES["pkpo-sloo"].make(4), 4)
    with pytest.raises(BudgetError, match="M >= 2"):
        audit(rloo, 1)
    with pytest.raises(InputError, match="0 and 1 only"):
        maxrl(torch.tensor([0.5, 1.0]))
    with pytest.raises(BudgetError):
        audit(rloo, 0)
