"""The credit: off-policy weights, dead groups, and that ascending it raises what is deployed."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import pytest
import torch

from operant import AllOf, Majority, Outcomes, PassAt, Threshold, credit
from operant.core.checks import BudgetError, FewRolloutsWarning, InputError
from operant.estimators import estimate_offpolicy
from operant.objectives.rl import dead_probability, warn_of_dead_groups
from operant.published import Recipe
from operant.strategies import CountStrategy, Strategy
from tests import slow


def group(seed: int = 0, batch: int = 3, m: int = 7) -> Outcomes:
    answer = torch.randint(-1, 3, (batch, m), generator=torch.Generator().manual_seed(seed))
    return Outcomes((answer == 0).double(), answer)


def test_ratios_make_the_credit_off_policy() -> None:
    o = group(m=9)
    log_ratio = torch.randn(3, 9, generator=torch.Generator().manual_seed(3)).double()
    for s in (PassAt(4), Majority(3)):
        want = estimate_offpolicy(s, o, log_ratio).weights
        assert torch.equal(credit(s, o, log_ratio=log_ratio), want)
        torch.testing.assert_close(credit(s, o, log_ratio=0 * log_ratio), credit(s, o))
        assert not torch.allclose(want, credit(s, o), atol=1e-3)


def test_few_rollouts_are_said_to_leave_dead_groups() -> None:
    """The shares by enumeration, for p = .1; 0.61 and 0.19 are those of the design's own table."""
    shares = {m: brute_dead_share(slow.any_success, 8, m) for m in (9, 12, 16)}
    assert (round(shares[9], 2), round(shares[16], 2)) == (0.61, 0.19)
    for m in (9, 12):
        said = rf"pass@8 from M = {m} .* in {shares[m]:.0%} of the groups, against {shares[16]:.0%} with M = 2N = 16"
        with pytest.warns(FewRolloutsWarning, match=said):
            warn_of_dead_groups(PassAt(8), m)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_dead_groups(Majority(8), 9)
        for m in (8, 16, 20):
            warn_of_dead_groups(PassAt(8), m)


def brute_dead_share(rule: slow.Rule, n: int, m: int) -> float:
    """Over every number of successes c: are all the leave-one-out differences 0?"""
    total = Fraction(0)
    for c in range(m + 1):
        z = [(1.0, 0, 1.0)] * c + [(0.0, 1, 0.0)] * (m - c)
        ends = [z[:-1], z[1:]]  # without a failure, and without a success, where there are both
        if all(slow.u(rule, z, n) == slow.u(rule, rest, n) for rest in ends):
            total += math.comb(m, c) * Fraction(1, 10) ** c * Fraction(9, 10) ** (m - c)
    return float(total)


@pytest.mark.parametrize(
    ("s", "rule"),
    [(PassAt(3), slow.any_success), (AllOf(3), slow.all_success), (Threshold(5, 3), slow.at_least(3))],
    ids=slow.label,
)
def test_the_share_of_dead_groups_by_enumeration(s: CountStrategy, rule: slow.Rule) -> None:
    for m in (s.n + 1, 2 * s.n):
        assert dead_probability(s, m, 0.1) == pytest.approx(brute_dead_share(rule, s.n, m), abs=1e-14)


def test_pass_at_n_weights_by_enumeration() -> None:
    o = group(m=8)
    for got, rewards in zip(credit(PassAt(4), o), o.reward.tolist(), strict=True):
        want = slow.credit(slow.any_success, [(r, 0, r) for r in rewards], 4)
        assert got.tolist() == pytest.approx([float(w) for w in want], abs=1e-13)


def test_weights_carry_no_gradient() -> None:
    log_p = -torch.rand(3, 7).double().requires_grad_()
    assert not credit(PassAt(2), group()).requires_grad
    weights = Recipe("log", "sequence").weights(PassAt(2), group(), log_p=log_p)
    assert not weights.requires_grad


def test_too_few_rollouts_are_refused() -> None:
    with pytest.raises(BudgetError, match="budget of N = 8 needs at least 8 rollouts a prompt, got M = 7"):
        credit(PassAt(8), group())
    with pytest.raises(BudgetError, match="at least two rollouts"):
        credit(PassAt(1), group(m=1))
    with pytest.raises(BudgetError, match="at least N \\+ 1 = 8"):
        credit(PassAt(7), group(), log_ratio=torch.zeros(3, 7))
    with pytest.raises(InputError, match="votes over answer classes"):
        credit(Majority(2), Outcomes(torch.ones(3, 4)))


def deployed(theta: torch.Tensor, n: int) -> float:
    """Mean pass@N of the tabular policies, outcome 0 being right, in closed form."""
    return float((1 - (1 - theta.softmax(-1)[:, 0]) ** n).mean())


@pytest.mark.parametrize("m", [4, 5, 16])
def test_the_expected_step_is_the_gradient_of_pass_at_n(m: int) -> None:
    """Mean over 40,000 simulated groups of the REINFORCE gradient, within 4 standard errors of dJ/dtheta."""
    n, theta = 4, torch.tensor([-1.0, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    pi = [Fraction(float(p)) for p in theta.detach().softmax(0)]
    kinds = [(1.0, 0, 1.0), (0.0, 1, 0.0), (0.0, 2, 0.0)]
    _, slope = slow.j_and_slope(pi, kinds, slow.any_success, n)
    g = torch.Generator().manual_seed(0)
    y = torch.multinomial(theta.detach().softmax(0), 40_000 * m, replacement=True, generator=g).reshape(-1, m)
    w = credit(PassAt(n), Outcomes((y == 0).double()))
    log_pi = theta.log_softmax(0)[y]
    loss = -(w * log_pi).sum(-1).mean()
    (gradient,) = torch.autograd.grad(loss, theta)
    score = torch.nn.functional.one_hot(y, 3) - theta.detach().softmax(0)
    spread = (w[..., None] * score).sum(1).std(0) / 200
    wanted = torch.tensor([float(x) for x in slope], dtype=torch.float64)
    assert bool(((-gradient - wanted).abs() < 4 * spread).all())


def trained(s: Strategy, theta: torch.Tensor) -> torch.Tensor:
    """Plain REINFORCE from 8 rollouts a prompt."""
    theta = theta.clone().requires_grad_()
    g = torch.Generator().manual_seed(0)
    for _ in range(150):
        y = torch.multinomial(theta.detach().softmax(-1), 8, replacement=True, generator=g)
        w = credit(s, Outcomes((y == 0).float()))
        loss = -(w * theta.log_softmax(-1).gather(-1, y)).sum(-1).sum()
        (gradient,) = torch.autograd.grad(loss, theta)
        theta = (theta - 0.2 * gradient).detach().requires_grad_()
    return theta.detach()


def test_training_on_pass_at_4_raises_pass_at_4() -> None:
    start = torch.tensor([[-2.5, 0.0, 0.0], [-3.0, 0.0, 0.5]]).repeat(16, 1)
    assert deployed(trained(PassAt(4), start), 4) > deployed(start, 4) + 0.2


def test_pass_at_4_spends_its_gradient_where_one_sample_fails() -> None:
    """Against pass@1 from the same rollouts: less on a prompt that is nearly solved."""
    solved = Outcomes(torch.tensor([[1.0, 1, 1, 1, 1, 1, 1, 0]]))
    rare = Outcomes(torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]]))
    assert credit(PassAt(4), solved).abs().max() == 0 < credit(PassAt(1), solved).abs().max()
    assert credit(PassAt(4), rare)[0, 0] > 3 * credit(PassAt(1), rare)[0, 0]
