"""Transforms of a strategy's value: the RL weights against enumeration, the SFT loss against autograd, the domains."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from operant import BestOf, Majority, Outcomes, PassAt, credit, estimate, parse
from operant.core.checks import BudgetError, InputError, NotDefinedError, ParseError
from operant.core.logmath import log_binomial
from operant.estimators import Extrapolation, Transform
from operant.objectives import elasticity, elasticity_at, sft_loss
from operant.objectives.groups import advantage
from operant.published import audit
from operant.strategies import from_function

TRANSFORMS = [Transform("log", 0.02), Transform("log", 0.3), Transform("arcsin"), Transform("logit", 0.1)]
EACH = pytest.mark.parametrize("g", TRANSFORMS, ids=str)


def drop(o: Outcomes, i: int) -> Outcomes:
    keep = [j for j in range(o.m) if j != i]
    return o.map(lambda x: x[..., keep])


@EACH
@pytest.mark.parametrize("text", ["pass@1", "pass@3", "best@2", "maj@3", "mix(pass@1:0.5, maj@2:0.5)"])
def test_weights_are_the_differences_without_each_rollout(g, text):
    """Every U without i, computed anew from the M - 1 others."""
    strategy, generator = parse(text), torch.Generator().manual_seed(1)
    answer = torch.randint(-1, 3, (6, 5), generator=generator)
    truth = torch.rand(6, 3, generator=generator).round() if "best" not in text else torch.rand(6, 3)
    o = Outcomes(torch.where(answer < 0, 0.0, truth.gather(1, answer.clamp(min=0))), answer)
    without = torch.stack([g(estimate(strategy, drop(o, i)).value.double()) for i in range(5)], -1)
    expected = without.mean(-1, keepdim=True) - without
    found = credit(strategy, o, transform=g)
    assert found.dtype == o.reward.dtype
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)


@EACH
@pytest.mark.parametrize("n", [1, 3])
def test_the_weights_ascend_the_mean_of_g_over_one_rollout_less(g, n):
    """E sum_i w_i s_i, by enumeration of all groups, is the slope of E g(U of M - 1 rollouts)."""
    m, logit = 6, torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    p = logit.sigmoid()
    groups = torch.tensor(list(product([0.0, 1.0], repeat=m)), dtype=torch.float64)
    chance = torch.where(groups == 1, p, 1 - p).prod(-1)
    scores = groups - p  # d log probability / d logit
    w = credit(PassAt(n), Outcomes(groups), transform=g)
    assert w.sum(-1).abs().max() < 1e-12
    slope = (chance * (w * scores).sum(-1)).sum()
    c = torch.arange(m, dtype=torch.float64)
    fewer = torch.tril(torch.ones(m, m - 1, dtype=torch.float64), -1)  # c successes among M - 1
    value = g(estimate(PassAt(n), Outcomes(fewer)).value)
    ways = log_binomial(c, m - 1, 0.5, 0.5).exp() * 2 ** (m - 1)
    (expected,) = torch.autograd.grad((ways * p**c * (1 - p) ** (m - 1 - c) * value).sum(), logit)
    assert slope.item() == pytest.approx(expected.item(), abs=1e-12)


@EACH
def test_the_bias_falls_as_one_over_m(g):
    p = torch.linspace(0.1, 0.6, 11, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(g(p).sum(), p)
    rule = lambda r: g.credit(PassAt(1), Outcomes(r))  # noqa: E731
    biases = [(audit(rule, m, p=p.detach()).slope / slope - 1).abs().max() for m in (64, 128)]
    assert biases[1] < 0.55 * biases[0] < 0.1


def test_the_identity_gives_the_exact_credit():
    """log(V + eps) is linear in V for a large eps."""
    o = Outcomes(torch.tensor([[1.0, 0, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1]], dtype=torch.float64))
    found = 1e6 * credit(PassAt(3), o, transform=Transform("log", 1e6))
    torch.testing.assert_close(found, credit(PassAt(3), o), atol=1e-6, rtol=0)


@EACH
@pytest.mark.parametrize("n", [1, 16])
def test_the_sft_loss_and_its_slope(g, n):
    """g(1) - g(S) against its formula; its gradient against finite differences and the elasticity."""
    log_p = torch.tensor([-12.0, -3.0, -0.5, -1e-3], dtype=torch.float64, requires_grad=True)
    loss = sft_loss(PassAt(n), log_p, transform=g)
    s = 1 - (1 - log_p.exp()) ** n
    # arcsin sqrt S is taken at log S <= -1e-12, which is 1e-6 from its end.
    near = 1.1e-6 if g.kind == "arcsin" else 1e-12
    torch.testing.assert_close(loss, g(torch.ones((), dtype=torch.float64)) - g(s), atol=near, rtol=1e-9)
    (slope,) = torch.autograd.grad(loss.sum(), log_p)
    torch.testing.assert_close(-slope, elasticity(PassAt(n), log_p, g))
    step = 1e-5
    ahead, behind = (sft_loss(PassAt(n), log_p.detach() + d, transform=g) for d in (step, -step))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), atol=1e-7, rtol=1e-4)
    certain = torch.zeros(1, requires_grad=True)
    sft_loss(PassAt(n), certain, transform=g).backward()
    assert certain.grad.isfinite().all()
    rates = torch.tensor([0.0, 0.3, 1.0])
    weighted = sft_loss(PassAt(n), torch.tensor([-5.0] * 3), success_rate=rates, transform=g)
    torch.testing.assert_close(weighted, 5 * elasticity_at(PassAt(n), rates, g))


def test_hard_examples_weigh_less_under_log_eps_and_the_loss_is_cross_entropy_without():
    log_p = torch.tensor([-10.0, -1.0], dtype=torch.float64)
    assert elasticity(PassAt(1), log_p, Transform("log", 0.1))[0] < 1e-3
    tiny = sft_loss(PassAt(1), log_p, transform=Transform("log", 1e-12))
    torch.testing.assert_close(tiny, -log_p, atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", ["log:0.02", "arcsin", "logit:0.5"])
def test_strings(text):
    assert str(Transform.parse(text)) == text
    assert Transform.parse("log") == Transform("log", 0.1)


@pytest.mark.parametrize("text", ["", "sqrt", "log:", "log:x", "arcsin:0.1", "log:0.1:0.2"])
def test_other_strings_are_refused(text):
    with pytest.raises(ParseError, match="expected a transform such as"):
        Transform.parse(text)


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, math.inf])
def test_eps_must_be_positive(eps):
    with pytest.raises(InputError, match="eps of a transform"):
        Transform("log", eps)


def test_what_has_no_meaning_is_refused():
    g, o = Transform("log"), Outcomes(torch.tensor([1.0, 0.0, 0.0]))
    with pytest.raises(BudgetError, match="at least N \\+ 1 = 4 rollouts"):
        credit(PassAt(3), o, transform=g)
    with pytest.raises(InputError, match="exclude each other"):
        credit(PassAt(1), o, transform=g, log_ratio=torch.zeros(3))
    with pytest.raises(InputError, match="at least 0, got -"):
        credit(BestOf(1), Outcomes(torch.tensor([-1.0, 0.5, 0.0])), transform=g)
    with pytest.raises(InputError, match=r"in \[0, 1\], got 0"):
        credit(BestOf(1), Outcomes(torch.tensor([2.0, 0.5, 0.0])), transform=Transform("arcsin"))
    ordered = from_function(2, lambda draw: draw[0].reward, ordered=True)
    with pytest.raises(NotDefinedError, match="no exact route"):
        credit(ordered, o, transform=g)
    with pytest.raises(InputError, match="takes the place of power"):
        sft_loss(PassAt(1), torch.tensor([-1.0]), power=0.5, transform=g)
    with pytest.raises(InputError, match="of the exact credit"):
        advantage(PassAt(4), torch.eye(3), instead=Extrapolation(), transform=g)


def test_groups_that_are_too_small_or_equal_are_dead():
    reward = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [1, 0, math.nan, 0]])
    found = advantage(PassAt(3), reward, transform=Transform("log", 0.1))
    assert found.dead.tolist() == [False, True, True] and found.value.isnan().tolist() == [False, False, True]
    torch.testing.assert_close(
        found.advantage[0], 4 * credit(PassAt(3), Outcomes(reward[0].double()), transform=Transform("log", 0.1))
    )


def test_votes_take_a_transform():
    o = Outcomes(torch.tensor([1.0, 1, 0, 0, 0]), answer=torch.tensor([0, 0, 1, 2, 2]))
    g = Transform("log", 0.1)
    assert not torch.allclose(credit(Majority(3), o, transform=g), credit(Majority(3), o))
