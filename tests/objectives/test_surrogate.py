"""The two policy-gradient losses."""

from __future__ import annotations

import math

import pytest
import torch

from operant.core.checks import InputError
from operant.objectives.surrogate import clipped, reinforce

LOG_PROB = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -0.1, -7.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([[0.5, -0.25, -0.25], [-1.0, 1.0, 0.0]], dtype=torch.float64)
SHIFT = torch.tensor([[0.3, 0.3, -0.4], [-0.35, 0.1, 0.05]], dtype=torch.float64)


def test_reinforce_is_minus_w_log_pi() -> None:
    log_prob = LOG_PROB.clone().requires_grad_()
    loss = reinforce(log_prob, WEIGHTS)
    torch.testing.assert_close(loss.detach(), -WEIGHTS * LOG_PROB)
    (gradient,) = torch.autograd.grad(loss.sum(), log_prob)
    assert torch.equal(gradient, -WEIGHTS)


def test_clipped_by_its_definition() -> None:
    loss = clipped(LOG_PROB + SHIFT, LOG_PROB, WEIGHTS, clip=0.2)
    for got, w, shift in zip(loss.flatten().tolist(), WEIGHTS.flatten(), SHIFT.flatten(), strict=True):
        rho = math.exp(shift)
        assert got == pytest.approx(-min(rho * float(w), min(max(rho, 0.8), 1.2) * float(w)))


def test_the_gradient_stops_where_the_ratio_left_the_interval_for_gain() -> None:
    log_prob = (LOG_PROB + SHIFT).requires_grad_()
    (gradient,) = torch.autograd.grad(clipped(log_prob, LOG_PROB, WEIGHTS).sum(), log_prob)
    ratio = SHIFT.exp()
    gained = ((WEIGHTS > 0) & (ratio > 1.2)) | ((WEIGHTS < 0) & (ratio < 0.8))
    assert gained.sum() == 3
    assert torch.equal(gradient, torch.where(gained, 0.0, -ratio * WEIGHTS))


@pytest.mark.parametrize("clip", [0.05, 0.2, 3.0])
def test_gradcheck(clip: float) -> None:
    log_prob = (LOG_PROB + SHIFT).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reinforce(x, WEIGHTS), log_prob)
    assert torch.autograd.gradcheck(lambda x: clipped(x, LOG_PROB, WEIGHTS, clip=clip), log_prob)


def test_on_policy_the_clipped_gradient_is_that_of_reinforce() -> None:
    a, b = LOG_PROB.clone().requires_grad_(), LOG_PROB.clone().requires_grad_()
    (by_ratio,) = torch.autograd.grad(clipped(a, LOG_PROB, WEIGHTS).sum(), a)
    (by_log,) = torch.autograd.grad(reinforce(b, WEIGHTS).sum(), b)
    torch.testing.assert_close(by_ratio, by_log)


def test_weights_and_old_log_probabilities_are_detached() -> None:
    log_prob = LOG_PROB.clone().requires_grad_()
    old, weights = LOG_PROB.clone().requires_grad_(), WEIGHTS.clone().requires_grad_()
    (reinforce(log_prob, weights) + clipped(log_prob, old, weights)).sum().backward()
    assert log_prob.grad is not None and old.grad is None and weights.grad is None


def test_shapes_and_clip_are_checked() -> None:
    with pytest.raises(InputError, match=r"one shape \(\.\.\., M\), got \(2, 3\) and \(3,\)"):
        reinforce(LOG_PROB, WEIGHTS[0])
    with pytest.raises(InputError, match="one shape"):
        clipped(LOG_PROB, LOG_PROB[:1], WEIGHTS)
    for clip in (0.0, -0.1, float("nan")):
        with pytest.raises(InputError, match="clip must be positive, got"):
            clipped(LOG_PROB, LOG_PROB, WEIGHTS, clip=clip)
