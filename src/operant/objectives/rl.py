"""Outcomes of M rollouts per prompt -> the weight on each rollout's log-probability."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from operant.strategies import paper
from operant.strategies.base import Outcomes, Strategy
from operant.strategies.routes import credit

Form = Literal["exact", "paper-log", "paper-raw"]


def rollout_weights(
    strategy: Strategy, outcomes: Outcomes, *, form: Form = "exact", log_p: Tensor | None = None
) -> Tensor:
    """Weights w for the policy gradient ``sum_i w_i grad log pi(y_i)``; positive = more likely.

    Args:
        strategy: the deployed strategy.
        outcomes: (B, M).
        form: "exact" is the unbiased :func:`~operant.strategies.credit`. "paper-log" and "paper-raw" are
            the published plug-in weights times the standardised advantage (see ``strategies.paper``).
        log_p: (B, M) sequence log-probabilities, for the paper's forms only.

    Returns:
        (B, M), detached.

    Raises:
        BudgetError: for "exact" with M < N + 1.

    >>> import torch
    >>> from operant import PassAt
    >>> rollout_weights(PassAt(1), Outcomes(torch.tensor([[1.0, 0.0]])))
    tensor([[ 0.5000, -0.5000]])
    """
    if form == "exact":
        return credit(strategy, outcomes)
    log_p = None if log_p is None else log_p.detach()
    return paper.weights(strategy, outcomes, "log" if form == "paper-log" else "raw", log_p=log_p)
