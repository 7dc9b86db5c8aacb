"""Supervised losses from log-probabilities: minimise -log S(p). All losses are per example; reduce outside.

Source: Compute Aligned Training (arXiv 2604.24957), section 2; pass@N is also DCO (arXiv 2502.07154).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operant.core.checks import InputError, check_log_p
from operant.strategies.base import Strategy

TINY_LOG_P = -1e4
"""Stands for p = 0 where a measured success rate is 0: the elasticity there is its limit."""


def loss(strategy: Strategy, log_p: Tensor, *, success_rate: Tensor | None = None, power: float = 0.0) -> Tensor:
    """The loss to minimise, one value per example: ``-log S(p)``.

    Which p is part of the objective:

    - sequence level (default): p = exp(log_p), the probability of the whole target. Right for short answers.
      On a long solution p ~ e^-80 and the loss is cross-entropy up to a constant factor.
    - answer level (``success_rate`` given): p is the measured success rate of the current model on the
      prompt, and the loss is ``-f(success_rate) log_p`` with f = p S'(p)/S(p) held fixed. Right for long
      solutions.

    Args:
        strategy: any with an S(p): pass@N, pass^N, threshold@N:k, best@N, mixtures of them.
        log_p: (...) sum of the target's token log-probabilities, natural log, <= 0.
        success_rate: (...) in [0, 1], from rollouts of the current model.
        power: a in ``(1 - S^a) / a``, sequence level only. 0 is -log S; 1 is 1 - S, which does not chase
            examples that cannot be learned (ambiguous labels).

    Returns:
        (...) losses >= 0, float32 or float64. With pass@1 exactly ``-log_p``.

    Raises:
        InputError: for NaN, infinite or positive ``log_p``, or a success rate outside [0, 1].
        NotDefinedError: if the strategy has no S(p).

    >>> from operant import PassAt
    >>> loss(PassAt(16), torch.tensor([0.5, 0.1]).log())
    tensor([1.5259e-05, 2.0494e-01])
    """
    if success_rate is not None:
        if power:
            raise InputError("power applies at sequence level only; leave it at 0 with success_rate.")
        cross_entropy = -check_log_p(log_p)
        if log_p.dtype in (torch.float16, torch.bfloat16):
            cross_entropy = cross_entropy.float()
        return elasticity_at(strategy, success_rate).to(cross_entropy) * cross_entropy
    log_s = strategy.log_success(log_p)
    if power == 0.0:
        return -log_s
    if not (math.isfinite(power) and power > 0):
        raise InputError(f"power must be a finite number >= 0, got {power}.")
    return -torch.expm1(power * log_s) / power


def elasticity(strategy: Strategy, log_p: Tensor) -> Tensor:
    """f = p S'(p) / S(p), the factor that ``-log S`` puts on the cross-entropy gradient; (...) -> (...).

    1 for p << 1/N and near 0 for p >> log(N)/N with pass@N; 1 everywhere for pass@1.
    """
    return strategy.success(check_log_p(log_p.detach()).double()).elasticity.to(log_p.dtype)


def elasticity_at(strategy: Strategy, success_rate: Tensor) -> Tensor:
    """The same from a success rate in [0, 1]; at 0 it is the limit p -> 0.

    Raises:
        InputError: for rates outside [0, 1], NaN included.
    """
    if not bool(((success_rate >= 0) & (success_rate <= 1)).all()):
        raise InputError("success_rate must lie in [0, 1]: the share of rollouts that succeeded.")
    return elasticity(strategy, success_rate.log().clamp(min=TINY_LOG_P))
