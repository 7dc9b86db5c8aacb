"""Value and RL credit from rollouts of another policy: y_i ~ mu, rho_i = pi(y_i) / mu(y_i), objective E_pi V.

    U_w = C(M,N)^-1 sum_S V(S) prod_{i in S} rho_i

is unbiased for J(pi). It is linear in each rho_i, so with A_i = U_w at rho_i = 0 and s_i = grad log pi(y_i) its
gradient is sum_i (U_w - A_i) s_i, and A_i, which does not depend on y_i, is a baseline since E_mu[rho_i s_i] = 0:

    w_i = (U_w - A_i) - rho_i N/(M-N) A_i,      E_mu sum_i w_i s_i = grad J(pi).

At rho = 1 this is the jackknife credit. U_w - A_i = rho_i dU_w/drho_i is taken by reverse mode through a sum of
products, so that nothing cancels, with rho divided by its largest. Derived here; the first-order version for
max@k is Best of N Worlds (arXiv 2510.23393).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, permutations

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, check_finite
from operant.estimators.reweighted import ValueOfRatios, by_types, closed_form
from operant.strategies.base import Strategy
from operant.strategies.mixture import Mixture
from operant.strategies.outcomes import Outcomes
from operant.strategies.slowroutes import LIMIT, calls_by_types, flatten

# Coefficients of polynomials that are worked on at once.
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class OffPolicy:
    """Estimates for pi from rollouts of mu.

    Args:
        value: (...) unbiased estimate of J(pi).
        weights: (..., M) w_i with E_mu sum_i w_i grad log pi(y_i) = grad J(pi); they do not sum to 0.
        ess: (...) effective number of rollouts, (sum rho)^2 / sum rho^2, from 1 to M. Far below N the
            weights depend on a few rollouts: unbiased, but too noisy to use.
    """

    value: Tensor
    weights: Tensor
    ess: Tensor


def estimate_offpolicy(s: Strategy, outcomes: Outcomes, log_ratio: Tensor) -> OffPolicy:
    """Value and RL weights of ``s`` for the policy pi from rollouts of mu, exact and unbiased.

    Closed forms for every strategy with a table of counts, ``BestOf``, ``Majority``, ``Quorum`` and mixtures of
    them; else all multisets of outcome types, else all subsets (all ordered draws, where the order matters).

    Ratios are used as they are. Clipping ``log_ratio`` beforehand is the caller's choice: it bounds the variance,
    and the result is then biased. A draw whose product of ratios is below 1e-300 of the largest counts as 0.

    Args:
        s: the strategy, budget N.
        outcomes: (..., M) of M >= N + 1 rollouts from mu.
        log_ratio: (..., M) log pi(y_i) - log mu(y_i) of whole rollouts, summed over tokens; finite. A rollout
            that pi cannot produce takes a large negative number, such as -1e4.

    Returns:
        :class:`OffPolicy`, dtype and device of the rewards.

    Raises:
        InputError: if ``log_ratio`` does not fit, is not finite, or is so large that the result overflows.
        BudgetError: if M < N + 1.
        NotDefinedError: if there is no closed form and too many multisets and subsets.

    >>> from operant import PassAt
    >>> o = Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    >>> estimate_offpolicy(PassAt(2), o, torch.tensor([0.7, -0.2, -0.2, -0.2])).value
    tensor(0.8244)
    """
    log_rho = _checked(s, outcomes, log_ratio)
    if not len(log_rho):
        return OffPolicy(outcomes.reward[..., 0], outcomes.reward, outcomes.reward[..., 0])
    with torch.inference_mode(False), torch.no_grad():  # leaves inference mode: reverse mode is needed below
        flat = flatten(outcomes).map(lambda x: x.to(torch.float64 if x.is_floating_point() else x.dtype, copy=True))
        value, weights = _value_and_weights(s, flat, log_rho.clone())
        relative = (log_rho - log_rho.amax(-1, keepdim=True)).exp()
        ess = relative.sum(-1).square() / relative.square().sum(-1)
    like, shape = outcomes.reward, outcomes.reward.shape
    value, weights, ess = (x.to(like) for x in (value, weights, ess))
    if not bool(value.isfinite().all() & weights.isfinite().all()):
        raise InputError(
            f"the result of {s} overflows {like.dtype} with log_ratio up to {log_rho.max().item():.4g}: products of "
            f"N = {s.n} such ratios carry no information. Drop these prompts, or clip log_ratio (which is biased)."
        )
    return OffPolicy(value.reshape(shape[:-1]), weights.reshape(shape), ess.reshape(shape[:-1]))


def _checked(s: Strategy, outcomes: Outcomes, log_ratio: Tensor) -> Tensor:
    """log rho, (B, M) float64."""
    if not log_ratio.is_floating_point() or log_ratio.shape != outcomes.reward.shape:
        raise InputError(
            f"log_ratio must be a floating tensor of the shape of reward, {tuple(outcomes.reward.shape)}, "
            f"got {log_ratio.dtype} of shape {tuple(log_ratio.shape)}."
        )
    check_finite("log_ratio", log_ratio)
    if outcomes.m < s.n + 1:
        raise BudgetError(
            f"off-policy weights need at least N + 1 = {s.n + 1} rollouts a prompt, got M = {outcomes.m}: the "
            "baseline of a rollout is the value of the others. Sample more rollouts or lower N."
        )
    return log_ratio.detach().to(outcomes.reward.device).double().reshape(-1, outcomes.m)


def _value_and_weights(s: Strategy, flat: Outcomes, log_rho: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) and (B, M), float64."""
    if isinstance(s, Mixture):
        parts = [(w, _value_and_weights(part, flat, log_rho)) for part, w in s.parts]
        return sum(w * v for w, (v, _) in parts), sum(w * x for w, (_, x) in parts)  # pyright: ignore
    n, m = s.n, flat.m
    # With rho <= 1 the polynomials of the closed forms stay below 1; the scale comes back in log space.
    scale = log_rho.amax(-1, keepdim=True)  # (B, 1)
    rho = (log_rho - scale).exp()
    if (form := closed_form(s, flat)) is not None:
        gain, without = _split(form, rho, n)
    else:
        each = [_split_one(s, flat.map(lambda x, b=b: x[b : b + 1]), rho[b : b + 1]) for b in range(len(rho))]
        gain, without = (torch.cat(x) for x in zip(*each, strict=True))
    value = _times_exp(gain.sum(-1) / n, n * scale[:, 0])  # each draw is in the gain of its N members
    baseline = _times_exp(without * n / (m - n), n * scale + log_rho)
    return value, _times_exp(gain, n * scale) - baseline


def _times_exp(x: Tensor, log_y: Tensor) -> Tensor:
    """x exp(log_y), finite wherever the product is."""
    return x.sign() * (x.abs().log() + log_y).exp()


def _split(form: ValueOfRatios, rho: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Gain rho_i dU/drho_i, and U at rho_i = 0; both (B, M)."""
    with torch.enable_grad():
        leaf = rho.clone().requires_grad_()
        # rho_i dU/drho_i is a sum of positive products, where U - A_i would be a difference of near equals.
        (slope,) = torch.autograd.grad(form(leaf[None]).sum(), leaf)
    m = rho.shape[-1]
    keep = 1 - torch.eye(m, dtype=rho.dtype, device=rho.device)
    parts = keep.split(max(_CHUNK // (rho.numel() * (n + 1)), 1))
    return rho * slope, torch.cat([form(rho * part[:, None]) for part in parts]).movedim(0, -1)


def _split_one(s: Strategy, one: Outcomes, rho: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`_split` for one prompt, from the value alone."""
    if s.traits.symmetric and calls_by_types(s, one) <= LIMIT:
        return _split(by_types(s, one), rho, s.n)
    n, m = s.n, one.m
    if (math.comb if s.traits.symmetric else math.perm)(m, n) > LIMIT:
        raise NotDefinedError(
            f"{s} has no closed form off-policy, and M = {m} rollouts make more than {LIMIT} draws of N = {n}. "
            "Lower N or M, discretize rewards and scores so that outcomes fall into fewer types, or sample from "
            "the policy itself and use credit."
        )
    # Every draw once: those with i make its gain, those without i the value at rho_i = 0.
    draws = torch.tensor(list((combinations if s.traits.symmetric else permutations)(range(m), n)), device=rho.device)
    v = s.value(one.map(lambda x: x[0, draws])).double()
    member = torch.zeros(len(v), m, dtype=v.dtype, device=v.device).scatter_(1, draws, 1.0)
    terms = v * rho[0, draws].prod(-1) / len(v)
    return (terms @ member)[None], (terms @ (1 - member))[None]
