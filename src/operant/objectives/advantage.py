"""A batch of groups -> the advantage of every rollout, as RL trainers that average over a group take it.

A_i = M w_i with the weights w_i of a group of M rollouts, so that the mean of A_i grad log pi(y_i) over the group is
sum_i w_i grad log pi(y_i). A rollout that no verifier could score (reward NaN or infinite) has advantage 0, and the
weights of its group are those of the rollouts that remain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError
from operant.estimators.extrapolated import credit_beyond, estimate_beyond
from operant.estimators.offpolicy import estimate_offpolicy
from operant.published.rules import RULES
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy
from operant.strategies.outcomes import Outcomes
from operant.strategies.routes import credit, estimate

Center = Literal["loo", "mean"]
EXACT, EXTRAPOLATED = "exact", "extrapolated"
ROUNDING = 1e-11
"""Advantages up to this share of the rewards are rounding: equal rewards leave 1e-13 of the sums over ranks."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Advantages of a batch, and what there is to know of it.

    Args:
        advantage: (B, M) float64, 0 where a rollout is unscorable or its group too small.
        value: (B,) estimate of the strategy's value, NaN for a group that is too small.
        dead: (B,) whether the group gives no signal: all its advantages are 0, up to rounding, and set to 0.
        unscored: (B, M) rollouts without a finite reward (or score).
    """

    advantage: Tensor
    value: Tensor
    dead: Tensor
    unscored: Tensor


def group_advantages(
    strategy: Strategy,
    reward: Tensor,
    answer: Tensor | None = None,
    score: Tensor | None = None,
    *,
    form: str = EXACT,
    center: Center = "loo",
    log_ratio: Tensor | None = None,
) -> Groups:
    """Advantages of B groups of M rollouts each.

    Args:
        strategy: what is deployed, budget N.
        reward: (B, M); NaN or infinite marks a rollout that could not be scored.
        answer: (B, M) integer classes, -1 without an answer; for votes.
        score: (B, M) what the deployed selector ranks by, default the reward; NaN as for ``reward``.
        form: "exact", the unbiased :func:`~operant.strategies.credit`, needs M >= N; "extrapolated",
            :func:`~operant.strategies.credit_beyond` for a budget N > M, biased across prompts; or the name of a
            published rule in ``strategies.rules.RULES``, of budget N, to compare with.
        center: "loo" multiplies the weights by M: unbiased; "mean" by M - 1, which for pass@1 is r - mean, GRPO's own
            scale.
        log_ratio: (B, M) log pi - log mu of whole rollouts that were sampled from mu; for "exact", M >= N + 1.

    Returns:
        :class:`Groups`.

    Raises:
        InputError: for a form or a center that does not exist.

    >>> from operant import PassAt
    >>> group_advantages(PassAt(1), torch.tensor([[1.0, 0.0, 0.0, float("nan")]])).advantage
    tensor([[ 1.3333, -0.6667, -0.6667,  0.0000]], dtype=torch.float64)
    """
    if form not in (EXACT, EXTRAPOLATED, *RULES):
        raise InputError(f"form must be one of {', '.join((EXACT, EXTRAPOLATED, *RULES))}, got {form!r}.")
    if center not in get_args(Center):
        raise InputError(f"center must be one of {', '.join(get_args(Center))}, got {center!r}.")
    m = reward.shape[-1]
    scored = reward.isfinite() if score is None else reward.isfinite() & score.isfinite()  # (B, M)
    advantage = torch.zeros_like(reward, dtype=torch.float64)
    value = torch.full_like(advantage[:, 0], torch.nan)
    first = (~scored).long().argsort(dim=-1, stable=True)  # scored rollouts first, in their order
    sizes = scored.sum(-1)
    for size in sizes.unique().tolist():
        if size < least_group(strategy, form, off_policy=log_ratio is not None):
            continue
        rows = sizes == size
        kept = first[rows, :size]
        r, a, s, ratio = (None if x is None else x[rows].gather(-1, kept) for x in (reward, answer, score, log_ratio))
        assert r is not None
        o = Outcomes(r.double(), a, None if s is None else s.double())
        weights, value[rows] = _weights(strategy, o, form, ratio)
        advantage[rows] = torch.zeros_like(advantage[rows]).scatter(-1, kept, weights)
    advantage *= m if center == "loo" else m - 1
    largest = torch.where(scored, reward, 0.0).abs().amax(-1, keepdim=True)
    dead = advantage.abs().amax(-1, keepdim=True) <= ROUNDING * m * largest
    return Groups(advantage.masked_fill(dead, 0.0), value, dead[:, 0], ~scored)


def least_group(strategy: Strategy, form: str = EXACT, *, off_policy: bool = False) -> int:
    """The least number of scored rollouts with which a group can be used."""
    if form == EXACT:
        return max(strategy.n + off_policy, 2)
    return 2 if form not in RULES else _least_of_rule(form, strategy.n)


@lru_cache
def _least_of_rule(name: str, n: int) -> int:
    """The published rules say themselves when there are too few."""
    rule = RULES[name].make(n)
    for m in range(2, n + 2):
        try:
            rule(torch.zeros(1, m))
        except BudgetError:
            continue
        return m
    return n + 2


def check_group(strategy: Strategy, m: int, form: str = EXACT, *, off_policy: bool = False) -> None:
    """Say before training that a group size does not go with a strategy.

    Raises:
        BudgetError: if groups of ``m`` rollouts can give no weights for ``strategy``.
        InputError: for ``form="extrapolated"`` with a strategy that does not count successes.
    """
    least = least_group(strategy, form, off_policy=off_policy)
    if m < least:
        raise BudgetError(
            f"{strategy} needs groups of at least {least} rollouts, better {2 * strategy.n}, got {m}. Sample more "
            "rollouts a prompt, lower N, or take form='extrapolated' (counts only), which is biased across prompts."
        )
    if form == EXTRAPOLATED and not (isinstance(strategy, CountStrategy) and strategy.n > m):
        raise InputError(
            f"form='extrapolated' is for strategies that count successes with a budget above the {m} rollouts of a "
            f"group, got {strategy}. Take form='exact'."
        )


def _weights(strategy: Strategy, o: Outcomes, form: str, log_ratio: Tensor | None) -> tuple[Tensor, Tensor]:
    """(b, m) weights and (b,) value."""
    if form == EXTRAPOLATED:
        assert isinstance(strategy, CountStrategy)
        return credit_beyond(strategy, o), estimate_beyond(strategy, o)
    value = estimate(strategy, o).value if o.m >= strategy.n else torch.full_like(o.reward[:, 0], torch.nan)
    if form != EXACT:
        return RULES[form].make(strategy.n)(o.reward), value
    if log_ratio is not None:
        return estimate_offpolicy(strategy, o, log_ratio).weights, value
    return credit(strategy, o), value
