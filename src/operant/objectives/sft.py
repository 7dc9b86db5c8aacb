"""Supervised losses from log-probabilities: minimize -log S(p). All losses are per example; reduce outside.

Source: Compute Aligned Training (arXiv 2604.24957), section 2; pass@N is also DCO (arXiv 2502.07154).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from operant.core.checks import InputError, check_log_p, deferred
from operant.core.logmath import log1mexp
from operant.estimators.population import TOLERANCE, check_log_q, expected_value, log_expected_value
from operant.estimators.transform import Transform
from operant.strategies.base import Strategy
from operant.strategies.outcomes import Outcomes

# Stands for p = 0 where a measured success rate is 0: the elasticity there is its limit.
_TINY_LOG_P = -1e4
# The least mass of a remainder: less is rounding of the candidates' probabilities.
_TINY_REMAINDER = 1e-15
_RATES = "success_rate must lie in [0, 1]: the share of rollouts that succeeded."


def sft_loss(
    strategy: Strategy,
    log_p: Tensor,
    *,
    success_rate: Tensor | None = None,
    power: float = 0.0,
    transform: Transform | None = None,
) -> Tensor:
    """The loss to minimize, one value per example: ``-log S(p)``, or ``g(1) - g(S(p))`` with a transform g.

    The choice of p is part of the objective:

    - sequence level (default): p = exp(log_p), the probability of the whole target. For short answers.
      On a long solution p ~ e^-80 and the loss is cross-entropy up to a constant factor.
    - answer level (``success_rate`` given): p is the measured success rate of the current model on the
      prompt, and the loss is ``-f(success_rate) log_p`` with f = p S'(p)/S(p) held fixed. For long
      solutions.

    Args:
        strategy: any with an S(p): pass@N, pass^N, threshold@N:k, best@N, mixtures of them.
        log_p: (...) sum of the target's token log-probabilities, natural log, <= 0.
        success_rate: (...) in [0, 1], from rollouts of the current model.
        power: a in ``(1 - S^a) / a``, sequence level only. 0 is -log S; 1 is 1 - S, whose gradient is small on
            examples that cannot be learned (ambiguous labels).
        transform: g, in the place of the logarithm and of ``power``. "log:0.02" is -log(S + 0.02) up to a constant: an
            example with S << 0.02 has little weight.

    Returns:
        (...) losses >= 0, float32 or float64. With pass@1 exactly ``-log_p``.

    Raises:
        InputError: for NaN, infinite or positive ``log_p``, a success rate outside [0, 1], or ``power`` beside a
            transform.
        NotDefinedError: if the strategy has no S(p).

    >>> from operant import PassAt
    >>> sft_loss(PassAt(16), torch.tensor([0.5, 0.1]).log())
    tensor([1.5259e-05, 2.0494e-01])
    """
    if transform is not None and power:
        raise InputError("a transform takes the place of power: give one of them.")
    if success_rate is not None:
        if power:
            raise InputError("power applies at sequence level only; leave it at 0 with success_rate.")
        cross_entropy = -check_log_p(log_p)
        if log_p.dtype in (torch.float16, torch.bfloat16):
            cross_entropy = cross_entropy.float()
        return elasticity_at(strategy, success_rate, transform).to(cross_entropy) * cross_entropy
    log_s = strategy.log_success(log_p)
    return _from_log(log_s, power) if transform is None else transform.loss(log_s)


def answer_loss(
    strategy: Strategy,
    log_q: Tensor,
    kinds: Outcomes,
    *,
    power: float = 0.0,
    remainder: Literal["unparsable"] | None = None,
) -> Tensor:
    """The loss to minimize from the probabilities of K candidate answers, one value per example: ``-log J(q)``.

    J(q) = E V is what the strategy earns when each of its N samples is candidate k with probability q_k: exact
    for every strategy, a vote or a function of the user's included. The gradient of a vote pushes down the rival
    that wins instead, which no loss of the correct answer's probability alone can do.

    Args:
        strategy: any, budget N.
        log_q: (..., K) log-probability of each candidate as a whole: the sum of its token log-probabilities under
            the deployed sampler, one forward pass each.
        kinds: (K,) or (..., K) reward, answer class and score of the candidates.
        power: a in ``(1 - J^a) / a``; 0 is -log J, 1 is 1 - J.
        remainder: what the mass 1 - sum q outside the candidates counts as. None: q sums to 1
            within 1e-4 and is normalized. "unparsable": it is one more kind with reward 0 and answer -1 (taken as
            1e-15 where the candidates leave less), so it uses up draws and never wins a vote, like many rare wrong
            answers that differ from each other. If it is one rival answer, give it as a kind.

    Returns:
        (...) losses in the dtype of ``log_q`` (half precision is promoted to float32), >= 0 for rewards in [0, 1].

    Raises:
        InputError: for NaN, infinite or positive ``log_q``; for candidates that hold more than all the mass, or
            less without ``remainder``; for a remainder whose score is not known; and where J <= 0, unless
            ``power`` is 1: -log J has no finite value or gradient there, and a floor would hide that.
        NotDefinedError: as :func:`~operant.strategies.expected_value`: too many kinds to go through.

    Source: derived here; on pass@N it is :func:`sft_loss` at p = the mass of the correct candidates.

    >>> from operant import Majority
    >>> kinds = Outcomes(torch.tensor([1.0, 0.0, 0.0]), answer=torch.tensor([0, 1, 2]))
    >>> log_q = torch.tensor([0.4, 0.35, 0.25]).log().requires_grad_()
    >>> answer_loss(Majority(9), log_q, kinds).backward()
    >>> log_q.grad  # the step is minus this: the correct answer up, the stronger rival down most
    tensor([-1.1729,  0.7878,  0.3851])
    """
    dtype = torch.promote_types(check_log_q(log_q).dtype, torch.float32)
    if remainder is not None:
        log_q, kinds = _with_remainder(log_q.double(), kinds)
    if power == 1.0:
        return (1 - expected_value(strategy, log_q.double(), kinds)).to(dtype)
    return _from_log(log_expected_value(strategy, log_q.double(), kinds), power).to(dtype)


def _from_log(log_s: Tensor, power: float) -> Tensor:
    """-log S, or (1 - S^a) / a."""
    if power == 0.0:
        return 0.0 - log_s  # 0 where S = 1, not -0
    if not (math.isfinite(power) and power > 0):
        raise InputError(f"power must be a finite number >= 0, got {power}.")
    # expm1 keeps the digits where S is near 1.
    return (0.0 - torch.expm1(power * log_s)) / power


def _with_remainder(log_q: Tensor, kinds: Outcomes) -> tuple[Tensor, Outcomes]:
    """One more kind with the mass that is left: reward 0, answer -1."""
    if kinds.score is not None:
        raise InputError("the score of the remainder is not known: give it as a kind, with its probability and score.")
    total = log_q.logsumexp(-1, keepdim=True)
    if bool((total > TOLERANCE).any()):
        raise InputError(
            f"the candidates hold {total.max().exp().item():.6g} of the probability, more than 1: are two of them the "
            "same string? Each log_q is the log-probability of one whole candidate."
        )
    left = log1mexp(total.clamp(max=-_TINY_REMAINDER))
    blank = torch.zeros_like(kinds.reward[..., :1])
    answer = None if kinds.answer is None else torch.cat([kinds.answer, blank.to(kinds.answer) - 1], -1)
    return torch.cat([log_q, left], -1), Outcomes(torch.cat([kinds.reward, blank], -1), answer)


def elasticity(strategy: Strategy, log_p: Tensor, transform: Transform | None = None) -> Tensor:
    """f = p S'(p) / S(p), the factor that ``-log S`` puts on the cross-entropy gradient; (...) -> (...).

    1 for p << 1/N and near 0 for p >> log(N)/N with pass@N; 1 everywhere for pass@1. With a transform it is the factor
    of g(S), f dg/dlog S.
    """
    success = strategy.success(check_log_p(log_p.detach()).double())
    factor = 1.0 if transform is None else transform.slope(success.log_s)
    return (success.elasticity * factor).to(log_p.dtype)


def elasticity_at(strategy: Strategy, success_rate: Tensor, transform: Transform | None = None) -> Tensor:
    """The same from a success rate in [0, 1]; at 0 it is the limit p -> 0.

    Raises:
        InputError: for rates outside [0, 1], NaN included.
    """
    outside = ~((success_rate >= 0) & (success_rate <= 1))
    if not deferred(outside, lambda _: _RATES) and bool(outside.any()):
        raise InputError(_RATES)
    return elasticity(strategy, success_rate.log().clamp(min=_TINY_LOG_P), transform)
