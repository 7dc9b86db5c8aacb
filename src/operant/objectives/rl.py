"""Outcomes of M rollouts per prompt -> the weight w on each rollout's log-probability."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from operant.core.checks import FewRolloutsWarning, InputError
from operant.core.logmath import log_binomial
from operant.estimators.extrapolated import Extrapolation
from operant.estimators.offpolicy import estimate_offpolicy
from operant.estimators.transform import Transform
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy
from operant.strategies.outcomes import Outcomes
from operant.strategies.routes import Route, exact_credit

# Success rate at which the warning states the share of dead groups; that of the example in docs/strategies.md.
_TYPICAL_RATE = 0.1


def credit(
    strategy: Strategy,
    outcomes: Outcomes,
    *,
    log_ratio: Tensor | None = None,
    extrapolate: Extrapolation | None = None,
    transform: Transform | None = None,
    route: Route | None = None,
    draws: int = 2048,
    seed: int = 0,
) -> Tensor:
    """RL weights w with ``E sum_i w_i grad log pi(y_i) = grad E V``; positive = make this rollout more likely.

    Exact when the rollouts are i.i.d. from the policy whose log-probability is differentiated, tokens are summed, and
    nothing rescales by a group's own spread.

    - M >= N + 1: the jackknife w_i = U(z) - U(z without i). It sums to 0 over each prompt, so a trainer that
      subtracts the mean leaves it as it is. With many score directions its noise is within a few percent of
      the best baseline's from M = 2N on; at M = N + 1 other baselines have up to a third less (LOG.md).
    - M = N >= 2: the resampled baseline w_i = V(z) - mean over j != i of V(z with z_i replaced by a copy of
      z_j). Unbiased too, but it does not sum to 0: a trainer that subtracts the mean makes it biased.
    - M < N: no unbiased weights exist; ``extrapolate`` gives biased ones.

    Args:
        strategy: the deployed strategy, budget N.
        outcomes: (..., M), M >= 2.
        log_ratio: (..., M) log pi(y_i) - log mu(y_i): the rollouts came from mu, and the weights are those of
            :func:`~operant.estimators.estimate_offpolicy`, M >= N + 1. Clip it beforehand to trade bias for variance.
        extrapolate: for N > M, with a strategy that counts successes.
        transform: g of the objective E g(V), M >= N + 1; see :meth:`~operant.estimators.Transform.credit`.
        route: how the on-policy weights are computed; default the cheapest exact one, see
            :func:`~operant.strategies.route_of`. M = N has one route only.
        draws: blocks of N rollouts per prompt, for Monte Carlo only (still unbiased and centered).
        seed: for Monte Carlo only.

    Returns:
        (..., M), dtype and device of the rewards, detached.

    Raises:
        BudgetError: if M < N without ``extrapolate``, M = N = 1, M <= N with ``log_ratio`` or ``transform``, or
            M >= N with ``extrapolate``.
        InputError: for two of ``log_ratio``, ``extrapolate`` and ``transform``, a value outside the domain of the
            transform, or a route that does not exist.
        NotDefinedError: for a route that the strategy does not have, or a transform without an exact route.

    >>> from operant import PassAt
    >>> credit(PassAt(2), Outcomes(torch.tensor([[1.0, 0.0, 0.0, 0.0]])))
    tensor([[ 0.5000, -0.1667, -0.1667, -0.1667]])
    """
    if sum(x is not None for x in (log_ratio, extrapolate, transform)) > 1:
        raise InputError(
            "log_ratio, extrapolate and transform exclude each other: each has weights of its own. Give one of them."
        )
    if transform is not None:
        return transform.credit(strategy, outcomes, route=route)
    if extrapolate is not None:
        return extrapolate.credit(strategy, outcomes)
    if log_ratio is not None:
        return estimate_offpolicy(strategy, outcomes, log_ratio).weights
    return exact_credit(strategy, outcomes, route=route, draws=draws, seed=seed)


def dead_probability(s: CountStrategy, m: int, p: float) -> float:
    """P(every weight of a group of M rollouts is 0) at success probability ``p``; for pass@N, c = 0 or c > M - N.

    A group is dead where no draw of N of its rollouts is worth more than another: v is constant over the numbers
    of successes, max(0, N - M + c) .. min(c, N), that a draw can hold. M >= N + 1.
    """
    c = torch.arange(m + 1)
    jumps = torch.nn.functional.pad((s.table().diff() != 0).long().cumsum(0), (1, 0))
    dead = jumps[c.clamp(max=s.n)] == jumps[(s.n - m + c).clamp(min=0)]
    return log_binomial(c, m, p, 1 - p).exp()[dead].sum().item()


def warn_of_dead_groups(s: Strategy, m: int) -> None:
    """Warn before training if groups of N < M < 2N rollouts will often have no signal.

    Warns:
        FewRolloutsWarning: for a strategy that counts successes, with the shares for M and for 2N.
    """
    if not isinstance(s, CountStrategy) or not s.n < m < 2 * s.n:
        return
    now, doubled = (dead_probability(s, size, _TYPICAL_RATE) for size in (m, 2 * s.n))
    warnings.warn(
        f"{s} from M = {m} rollouts a prompt: the weights are unbiased, but at success rate {_TYPICAL_RATE} all "
        f"weights are 0 in {now:.0%} of the groups, against {doubled:.0%} with M = 2N = {2 * s.n}. Sample more "
        "rollouts, or lower N.",
        FewRolloutsWarning,
        stacklevel=3,
    )
