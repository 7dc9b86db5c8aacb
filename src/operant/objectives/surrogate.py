"""Policy-gradient losses, to be minimised: they consume weights and know no strategy."""

from __future__ import annotations

import torch
from torch import Tensor

from operant.core.checks import InputError


def reinforce(log_prob: Tensor, weights: Tensor) -> Tensor:
    """``-w log pi(y)``: its gradient is ``-w grad log pi(y)``.

    Args:
        log_prob: (..., M) sum over tokens of the log-probability of each rollout.
        weights: (..., M) from ``rollout_weights``; detached here.

    Returns:
        (..., M). Sum over M and average over prompts to ascend J.

    Raises:
        InputError: if the shapes differ.
    """
    _check_shapes(log_prob, weights)
    return -weights.detach() * log_prob


def clipped(log_prob: Tensor, old_log_prob: Tensor, weights: Tensor, *, clip: float = 0.2) -> Tensor:
    """``-min(rho w, clamp(rho, 1-clip, 1+clip) w)``, rho = exp(log_prob - old_log_prob) per sequence (PPO).

    Args:
        log_prob: (..., M) under the current policy.
        old_log_prob: (..., M) under the policy that sampled; detached here.
        weights: (..., M); detached here.
        clip: the half-width of the trust interval, > 0.

    Returns:
        (..., M).

    Raises:
        InputError: if the shapes differ or ``clip`` is not positive.
    """
    _check_shapes(log_prob, weights)
    _check_shapes(log_prob, old_log_prob)
    if not clip > 0:
        raise InputError(f"clip must be positive, got {clip}.")
    w = weights.detach()
    ratio = torch.exp(log_prob - old_log_prob.detach())
    return -torch.minimum(ratio * w, ratio.clamp(1 - clip, 1 + clip) * w)


def _check_shapes(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise InputError(
            f"expected log-probabilities and weights of one shape (..., M), got {tuple(a.shape)} and {tuple(b.shape)}."
        )
