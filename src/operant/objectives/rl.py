"""Outcomes of M rollouts per prompt -> the weight on each rollout's log-probability."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from operant.core.checks import FewRolloutsWarning, InputError
from operant.core.logmath import log_binomial
from operant.estimators.offpolicy import estimate_offpolicy
from operant.published import paper
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy
from operant.strategies.outcomes import Outcomes
from operant.strategies.routes import credit

Form = Literal["exact", "paper-log", "paper-raw"]


def rollout_weights(
    strategy: Strategy,
    outcomes: Outcomes,
    *,
    form: Form = "exact",
    log_p: Tensor | None = None,
    log_ratio: Tensor | None = None,
) -> Tensor:
    """Weights w for the policy gradient ``sum_i w_i grad log pi(y_i)``; positive = more likely.

    Args:
        strategy: the deployed strategy.
        outcomes: (B, M).
        form: "exact" is the unbiased :func:`~operant.strategies.credit`. "paper-log" and "paper-raw" are
            the published plug-in weights times the standardised advantage (see ``strategies.paper``).
        log_p: (B, M) sequence log-probabilities, for the paper's forms only.
        log_ratio: (B, M) log pi(y_i) - log mu(y_i), for "exact" only: the rollouts came from mu, and the weights
            are those of :func:`~operant.strategies.estimate_offpolicy`. Clip it beforehand to trade bias for
            variance. None: the rollouts came from the policy itself.

    Returns:
        (B, M), detached.

    Raises:
        BudgetError: for "exact" with M < N, or M = N = 1, or M < N + 1 with ``log_ratio``.
        InputError: for ``log_ratio`` with another form.

    Warns:
        FewRolloutsWarning: for "exact" with a strategy that counts successes and N < M < 2N.

    >>> import torch
    >>> from operant import PassAt
    >>> rollout_weights(PassAt(1), Outcomes(torch.tensor([[1.0, 0.0]])))
    tensor([[ 0.5000, -0.5000]])
    """
    if form not in get_args(Form):
        raise InputError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}.")
    if form == "exact":
        if isinstance(strategy, CountStrategy) and strategy.n < outcomes.m < 2 * strategy.n:
            _warn_of_dead_groups(strategy, outcomes.m)
        if log_ratio is not None:
            return estimate_offpolicy(strategy, outcomes, log_ratio).weights
        return credit(strategy, outcomes)
    if log_ratio is not None:
        raise InputError(f"log_ratio is for form='exact' only, got form={form!r}: the paper's forms are on-policy.")
    log_p = None if log_p is None else log_p.detach()
    return paper.weights(strategy, outcomes, "log" if form == "paper-log" else "raw", log_p=log_p)


def dead_share(s: CountStrategy, m: int, p: float) -> float:
    """P(every weight of a group of M rollouts is 0) at success probability ``p``; for pass@N, c = 0 or c > M - N.

    A group is dead where no draw of N of its rollouts is worth more than another: v is constant over the numbers
    of successes, max(0, N - M + c) .. min(c, N), that a draw can hold. M >= N + 1.
    """
    c = torch.arange(m + 1)
    jumps = torch.nn.functional.pad((s.table().diff() != 0).long().cumsum(0), (1, 0))
    dead = jumps[c.clamp(max=s.n)] == jumps[(s.n - m + c).clamp(min=0)]
    return log_binomial(c, m, p, 1 - p).exp()[dead].sum().item()


def _warn_of_dead_groups(s: CountStrategy, m: int) -> None:
    now, doubled = (dead_share(s, size, 0.1) for size in (m, 2 * s.n))
    warnings.warn(
        f"{s} from M = {m} rollouts a prompt: the weights are unbiased, but at success rate 0.1 all weights are 0 in "
        f"{now:.0%} of the groups, against {doubled:.0%} with M = 2N = {2 * s.n}. Sample more rollouts, or lower N.",
        FewRolloutsWarning,
        stacklevel=3,
    )
