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
from operant.estimators.extrapolated import Extrapolation
from operant.estimators.transform import Transform
from operant.objectives.rl import credit
from operant.published.paper import Recipe
from operant.published.rules import RULES, PublishedRule
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy
from operant.strategies.outcomes import Outcomes
from operant.strategies.routes import estimate

Center = Literal["loo", "mean"]
EXACT, EXTRAPOLATED = "exact", "extrapolated"
RECIPE_FORMS = {"paper-log": Recipe("log"), "paper-raw": Recipe("raw")}
WEIGHT_FORMS = (EXACT, EXTRAPOLATED, *RECIPE_FORMS, *RULES)
"""What the settings of a trainer call the weights."""
Substitute = Extrapolation | PublishedRule | Recipe
"""What can take the place of the exact credit."""
# Advantages up to this share of the rewards are rounding: equal rewards leave 1e-13 of the sums over ranks.
_ROUNDING = 1e-11


@dataclass(frozen=True, eq=False)
class Advantages:
    """Advantages of a batch of groups, with the value of each group and whether it has a signal.

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


def substitute(form: str) -> Substitute | None:
    """What a trainer's setting ``form`` stands for; None for "exact".

    Raises:
        InputError: for a form that does not exist.
    """
    if form not in WEIGHT_FORMS:
        raise InputError(f"form must be one of {', '.join(WEIGHT_FORMS)}, got {form!r}.")
    return Extrapolation() if form == EXTRAPOLATED else RECIPE_FORMS.get(form) or RULES.get(form)


def advantage(
    strategy: Strategy,
    reward: Tensor,
    answer: Tensor | None = None,
    score: Tensor | None = None,
    *,
    instead: Extrapolation | PublishedRule | None = None,
    transform: Transform | None = None,
    center: Center = "loo",
    log_ratio: Tensor | None = None,
) -> Advantages:
    """Advantages A_i = M w_i of B groups of M rollouts each, w the :func:`~operant.credit`.

    Args:
        strategy: what is deployed, budget N.
        reward: (B, M); NaN or infinite marks a rollout that could not be scored.
        answer: (B, M) integer classes, -1 without an answer; for votes.
        score: (B, M) what the deployed selector ranks by, default the reward; NaN as for ``reward``.
        instead: None takes the exact credit, which needs M >= N. An ``Extrapolation`` is for a budget N > M, biased
            across prompts. A rule of ``operant.published.RULES``, with budget N, is to compare with.
        transform: g of the objective E g(V), for the exact credit on-policy, M >= N + 1.
        center: "loo" multiplies the weights by M: unbiased; "mean" by M - 1, which for pass@1 is r - mean, GRPO's own
            scale.
        log_ratio: (B, M) log pi - log mu of whole rollouts that were sampled from mu; for the exact credit, M >= N + 1.

    Raises:
        InputError: for a center that does not exist.

    >>> from operant import PassAt
    >>> advantage(PassAt(1), torch.tensor([[1.0, 0.0, 0.0, float("nan")]])).advantage
    tensor([[ 1.3333, -0.6667, -0.6667,  0.0000]], dtype=torch.float64)
    """
    if center not in get_args(Center):
        raise InputError(f"center must be one of {', '.join(get_args(Center))}, got {center!r}.")
    m = reward.shape[-1]
    scored = reward.isfinite() if score is None else reward.isfinite() & score.isfinite()  # (B, M)
    found = torch.zeros_like(reward, dtype=torch.float64)
    value = torch.full_like(found[:, 0], torch.nan)
    first = (~scored).long().argsort(dim=-1, stable=True)  # scored rollouts first, in their order
    sizes = scored.sum(-1)
    for size in sizes.unique().tolist():
        if size < least_group(strategy, instead, spare=log_ratio is not None or transform is not None):
            continue
        rows = sizes == size
        kept = first[rows, :size]
        r, a, s, ratio = (None if x is None else x[rows].gather(-1, kept) for x in (reward, answer, score, log_ratio))
        assert r is not None
        o = Outcomes(r.double(), a, None if s is None else s.double())
        weights, value[rows] = _weights(strategy, o, instead, ratio, transform)
        found[rows] = torch.zeros_like(found[rows]).scatter(-1, kept, weights)
    found *= m if center == "loo" else m - 1
    largest = torch.where(scored, reward, 0.0).abs().amax(-1, keepdim=True)
    dead = found.abs().amax(-1, keepdim=True) <= _ROUNDING * m * largest
    return Advantages(found.masked_fill(dead, 0.0), value, dead[:, 0], ~scored)


def least_group(strategy: Strategy, instead: Substitute | None = None, *, spare: bool = False) -> int:
    """The least number of scored rollouts with which a group can be used; ``spare``: N + 1, for a jackknife."""
    if instead is None:
        return max(strategy.n + spare, 2)
    return _least_of_rule(instead, strategy.n) if isinstance(instead, PublishedRule) else 2


@lru_cache
def _least_of_rule(rule: PublishedRule, n: int) -> int:
    """The published rules say themselves when there are too few."""
    weigh = rule.make(n)
    for m in range(2, n + 2):
        try:
            weigh(torch.zeros(1, m))
        except BudgetError:
            continue
        return m
    return n + 2


def check_group(strategy: Strategy, m: int, instead: Substitute | None = None, *, spare: bool = False) -> None:
    """Say before training that groups of this size cannot be used for a strategy.

    Raises:
        BudgetError: if groups of ``m`` rollouts can give no weights for ``strategy``.
        InputError: for an extrapolation with a strategy that does not count successes, or with N <= M.
    """
    least = least_group(strategy, instead, spare=spare)
    if m < least:
        raise BudgetError(
            f"{strategy} needs groups of at least {least} rollouts, better {2 * strategy.n}, got {m}. Sample more "
            "rollouts a prompt, lower N, or take form='extrapolated' (counts only), which is biased across prompts."
        )
    if isinstance(instead, Extrapolation) and not (isinstance(strategy, CountStrategy) and strategy.n > m):
        raise InputError(
            f"form='extrapolated' is for strategies that count successes with a budget above the {m} rollouts of a "
            f"group, got {strategy}. Take form='exact'."
        )


def _weights(
    strategy: Strategy,
    o: Outcomes,
    instead: Extrapolation | PublishedRule | None,
    log_ratio: Tensor | None,
    transform: Transform | None,
) -> tuple[Tensor, Tensor]:
    """(b, m) weights and (b,) value."""
    if transform is not None and instead is not None:
        raise InputError("a transform is of the exact credit: leave out instead=, or transform=.")
    if isinstance(instead, Extrapolation):
        return instead.credit(strategy, o), instead.estimate(strategy, o)
    value = estimate(strategy, o).value if o.m >= strategy.n else torch.full_like(o.reward[:, 0], torch.nan)
    if instead is not None:
        return instead.make(strategy.n)(o.reward), value
    return credit(strategy, o, log_ratio=log_ratio, transform=transform), value
