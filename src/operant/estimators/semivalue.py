"""Semivalues: the credit of a rollout as its share in every coalition, for any weights over budgets.

    phi_i = sum_n q_n (in_i^n - out_i^{n-1}),   E sum_i phi_i grad log pi(y_i) = grad sum_n lambda_n J_n,

with lambda_n = q_n M / n and in_i^n (out_i^n) the mean value of the n-subsets of the M rollouts that contain
(do not contain) i. Budgets up to n = M are allowed, one more than a centered credit can have; in exchange phi
does not sum to 0, and a trainer that subtracts the mean changes what is optimized. lambda_n = 1/n is the Shapley
value. For pass@ it is 1/c for each of c correct rollouts, which is MaxRL (arXiv 2602.02710) with its log p cut at
order M; for the maximum it is the rule of the airport game (Littlechild and Owen 1973). Derived here for any strategy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, check_int
from operant.strategies import routes
from operant.strategies.base import Strategy
from operant.strategies.counts import PassAt
from operant.strategies.outcomes import Outcomes
from operant.strategies.ranking import BestOf


def semivalue(s: Strategy, outcomes: Outcomes, weights: Mapping[int, float]) -> Tensor:
    """RL weights for sum_n lambda_n J_n; positive = more likely. Not centered.

    Args:
        s: a strategy with one budget; its own budget is ignored in favor of those in ``weights``.
        outcomes: (..., M).
        weights: budget n -> lambda_n >= 0, 1 <= n <= M; they need not sum to 1. One credit at n and one at
            n - 1 are computed for each.

    Returns:
        (..., M), dtype of the rewards.

    Raises:
        InputError: for no weight, or a negative or infinite one.
        BudgetError: for a budget below 1 or above M.

    >>> o = Outcomes(torch.tensor([1.0, 1.0, 0.0]))
    >>> semivalue(PassAt(1), o, {1: 1.0, 2: 0.5})[:2]
    tensor([0.5000, 0.5000])
    """
    m = outcomes.m
    if not weights or not all(math.isfinite(w) and w >= 0 for w in weights.values()):
        raise InputError(f"expected a finite weight >= 0 for each budget, got {dict(weights)}.")
    phi = torch.zeros_like(outcomes.reward, dtype=torch.float64)
    for n, weight in weights.items():
        if check_int("budget", n, least=1) > m:
            raise BudgetError(f"a semivalue over M = {m} rollouts has budgets up to {m}, got {n}.")
        if weight:
            marginal = _inside(s.at_budget(n), outcomes)
            if n > 1:
                marginal = marginal - _outside(s.at_budget(n - 1), outcomes)
            phi += weight * n / m * marginal
    return phi.to(outcomes.reward)


def shapley(s: Strategy, outcomes: Outcomes) -> Tensor:
    """The Shapley value, lambda_n = 1/n for n = 1..M: for pass@ the truncated maximum-likelihood credit. Not centered.

    Closed forms: 1/c for pass@; for max@ the airport rule phi_(i) = sum_{k <= i} (x_(k) - x_(k-1)) / (M - k + 1)
    over sorted rewards, x_(0) = 0, O(M log M). Otherwise the sum over all budgets.

    >>> shapley(BestOf(1), Outcomes(torch.tensor([6.0, 0.0, 3.0])))
    tensor([4.5000, 0.0000, 1.5000])
    """
    m, reward = outcomes.m, outcomes.reward.double()
    # Every success is the first of its coalition with the chance 1/c.
    if isinstance(s, PassAt) and outcomes.binary:
        return (reward / reward.sum(-1, keepdim=True).clamp(min=1)).to(outcomes.reward)
    if isinstance(s, BestOf) and outcomes.score is None:
        x, order = reward.sort(dim=-1)
        step = torch.diff(x, dim=-1, prepend=torch.zeros_like(x[..., :1]))
        left = torch.arange(m, 0, -1, dtype=torch.float64, device=x.device)
        share = (step / left).cumsum(-1)
        return torch.empty_like(share).scatter_(-1, order, share).to(outcomes.reward)
    return semivalue(s, outcomes, {n: 1 / n for n in range(1, m + 1)})


def _inside(s: Strategy, outcomes: Outcomes) -> Tensor:
    """in_i = U + (M-n)/n w_i, (..., M)."""
    m, u = outcomes.m, routes.mean_value(s, outcomes)[..., None].double()
    if s.n == m:
        return u.expand(outcomes.reward.shape)
    return u + (m - s.n) / s.n * routes.exact_credit(s, outcomes).double()


def _outside(s: Strategy, outcomes: Outcomes) -> Tensor:
    """out_i = U - w_i, (..., M)."""
    return routes.mean_value(s, outcomes)[..., None].double() - routes.exact_credit(s, outcomes).double()
