"""Rollout weights: the exact form is the credit, and ascending it raises what is deployed."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from operant import BestOf, Majority, Outcomes, PassAt, Threshold, credit, rollout_weights
from operant.core.checks import BudgetError, InputError
from operant.objectives import surrogate
from operant.objectives.rl import Form
from operant.strategies import Strategy, paper
from tests import slow


def group(seed: int = 0, batch: int = 3, m: int = 7) -> Outcomes:
    answer = torch.randint(-1, 3, (batch, m), generator=torch.Generator().manual_seed(seed))
    return Outcomes((answer == 0).double(), answer)


@pytest.mark.parametrize("s", [PassAt(4), Threshold(5, 2), BestOf(3), Majority(4)], ids=str)
def test_the_exact_form_is_the_credit(s: Strategy) -> None:
    assert torch.equal(rollout_weights(s, group()), credit(s, group()))


def test_pass_at_n_weights_by_enumeration() -> None:
    o = group()
    for got, rewards in zip(rollout_weights(PassAt(4), o), o.reward.tolist(), strict=True):
        want = slow.credit(slow.any_success, [(r, 0, r) for r in rewards], 4)
        assert got.tolist() == pytest.approx([float(w) for w in want], abs=1e-13)


def test_the_published_forms_are_those_of_the_paper_module() -> None:
    log_p = -torch.rand(3, 7, generator=torch.Generator().manual_seed(1)).double()
    forms: list[tuple[Form, paper.Form]] = [("paper-log", "log"), ("paper-raw", "raw")]
    for form, name in forms:
        for given in (None, log_p):
            got = rollout_weights(PassAt(4), group(), form=form, log_p=given)
            assert torch.equal(got, paper.weights(PassAt(4), group(), name, log_p=given))
    log, raw = (rollout_weights(PassAt(4), group(), form=form) for form, _ in forms)
    assert not torch.allclose(raw, log)


def test_weights_carry_no_gradient() -> None:
    log_p = -torch.rand(3, 7).double().requires_grad_()
    assert not rollout_weights(PassAt(2), group()).requires_grad
    weights = rollout_weights(PassAt(2), group(), form="paper-log", log_p=log_p)
    assert not weights.requires_grad


def test_too_few_rollouts_are_refused() -> None:
    with pytest.raises(BudgetError, match="at least N \\+ 1 = 8"):
        rollout_weights(PassAt(7), group())
    with pytest.raises(InputError, match="votes over answer classes"):
        rollout_weights(Majority(2), Outcomes(torch.ones(3, 4)))


def deployed(theta: torch.Tensor, n: int) -> float:
    """Mean pass@N of the tabular policies, outcome 0 being right, in closed form."""
    return float((1 - (1 - theta.softmax(-1)[:, 0]) ** n).mean())


@pytest.mark.parametrize("m", [5, 16])
def test_the_expected_step_is_the_gradient_of_pass_at_n(m: int) -> None:
    """Mean over 40,000 simulated groups of the REINFORCE gradient, within 4 standard errors of dJ/dtheta."""
    n, theta = 4, torch.tensor([-1.0, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    pi = [Fraction(float(p)) for p in theta.detach().softmax(0)]
    kinds = [(1.0, 0, 1.0), (0.0, 1, 0.0), (0.0, 2, 0.0)]
    _, slope = slow.j_and_slope(pi, kinds, slow.any_success, n)
    g = torch.Generator().manual_seed(0)
    y = torch.multinomial(theta.detach().softmax(0), 40_000 * m, replacement=True, generator=g).reshape(-1, m)
    w = rollout_weights(PassAt(n), Outcomes((y == 0).double()))
    log_pi = theta.log_softmax(0)[y]
    loss = surrogate.reinforce(log_pi, w).sum(-1).mean()
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
        w = rollout_weights(s, Outcomes((y == 0).float()))
        loss = surrogate.reinforce(theta.log_softmax(-1).gather(-1, y), w).sum(-1).sum()
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
    assert rollout_weights(PassAt(4), solved).abs().max() == 0 < rollout_weights(PassAt(1), solved).abs().max()
    assert rollout_weights(PassAt(4), rare)[0, 0] > 3 * rollout_weights(PassAt(1), rare)[0, 0]
