"""Token-level rewards of a flat batch -> token-level advantages, the estimator that verl and SkyRL call."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable

import torch
from torch import Tensor

from operant.core.checks import InputError
from operant.estimators.transform import Transform
from operant.objectives.groups import advantage, check_group
from operant.plugins.votes import decode_votes
from operant.strategies.base import Strategy
from operant.strategies.classes import equivalence_classes

_LOGGER = logging.getLogger(__name__)


@torch.no_grad()
def token_advantages(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Iterable[Hashable],
    strategy: Strategy,
    *,
    answers: Iterable[Hashable | None] | None = None,
    votes_in_reward: bool = False,
    transform: Transform | None = None,
) -> tuple[Tensor, Tensor]:
    """A_i = M w_i on every token of response i; positive = more likely.

    The rollouts of a prompt, wherever they stand in the batch, are a group of M; w is its
    :func:`~operant.credit`, so that the mean of A_i grad log pi(y_i) over a group is unbiased for the slope
    of the strategy's value. Groups may differ in size. Advantages are 0 for a rollout whose reward is NaN or infinite
    and for groups with fewer than N scored rollouts, such as the rows that a framework pads a batch with; the log says
    how many these are.

    Args:
        token_level_rewards: (bs, L), the reward of a rollout is their sum.
        response_mask: (bs, L), 1 on the tokens of the response.
        index: (bs,) the prompt of every rollout: equal values are one group.
        strategy: what is deployed, budget N.
        answers: (bs,) the answer of every rollout, None without one; for votes.
        votes_in_reward: the rewards are those of :func:`~operant.plugins.encode_vote`.
        transform: g of the objective E g(V), for groups of N + 1 rollouts or more; None is E V.

    Returns:
        advantages and returns, both (bs, L) and equal, dtype of the rewards.

    Raises:
        BudgetError: if the largest group has fewer than N rollouts.
        InputError: if shapes do not fit together, or a strategy that votes has no answers.
    """
    spread, _ = valued_advantages(
        token_level_rewards,
        response_mask,
        index,
        strategy,
        answers=answers,
        votes_in_reward=votes_in_reward,
        transform=transform,
    )
    return spread, spread.clone()


@torch.no_grad()
def valued_advantages(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Iterable[Hashable],
    strategy: Strategy,
    *,
    answers: Iterable[Hashable | None] | None = None,
    votes_in_reward: bool = False,
    transform: Transform | None = None,
) -> tuple[Tensor, float]:
    """The advantages of :func:`token_advantages`, and the mean value of the strategy over groups; NaN without one."""
    groups, answers = list(index), None if answers is None else list(answers)
    size = len(token_level_rewards)
    if token_level_rewards.shape != response_mask.shape or token_level_rewards.ndim != 2 or len(groups) != size:
        raise InputError(
            "expected token_level_rewards and response_mask of one shape (bs, L) and index (bs,), got "
            f"{tuple(token_level_rewards.shape)}, {tuple(response_mask.shape)} and {len(groups)}."
        )
    if answers is not None and len(answers) != size:
        raise InputError(f"answers must hold one answer a rollout, {size} in all, got {len(answers)}.")
    # In float64: a reward of encode_vote holds 16 bits below the verdict.
    reward = token_level_rewards.double().sum(-1)
    classes = None if answers is None else equivalence_classes([answers])[0].to(reward.device)
    if votes_in_reward:
        if answers is not None:
            raise InputError(
                "the answers are given and in the rewards: leave out one of answers= and votes_in_reward=."
            )
        reward, classes = decode_votes(reward)
    group = equivalence_classes([groups])[0].to(reward.device)
    per_rollout, value = _by_group(reward, group, strategy, classes, transform)
    spread = per_rollout[:, None].to(token_level_rewards.dtype) * response_mask.to(token_level_rewards.dtype)
    return spread, value


def _by_group(
    reward: Tensor, group: Tensor, strategy: Strategy, classes: Tensor | None, transform: Transform | None
) -> tuple[Tensor, float]:
    """(bs,) advantages, all groups of one size at once, and the mean value of the groups."""
    order = group.argsort(stable=True)
    sizes = group.bincount()
    starts = sizes.cumsum(0) - sizes
    check_group(strategy, int(sizes.max()), spare=transform is not None)
    if classes is None and strategy.traits.answers:
        raise InputError(
            f"{strategy} votes, and the framework passes no answers to an advantage estimator. Return "
            "operant.plugins.encode_vote(correct, answer) from the reward function and set the option votes_in_reward."
        )
    result, unscored, idle = torch.zeros_like(reward), 0, 0
    values: list[Tensor] = []
    for m in sizes.unique().tolist():
        rows = order[starts[sizes == m][:, None] + torch.arange(m, device=reward.device)]  # (groups of size m, m)
        found = advantage(strategy, reward[rows], None if classes is None else classes[rows], transform=transform)
        result[rows] = found.advantage
        values.append(found.value[found.value.isfinite()])
        unscored, idle = unscored + int(found.unscored.sum()), idle + int(found.value.isnan().sum())
    if unscored or idle:
        _LOGGER.warning(
            "%s: %d of %d rollouts without a finite reward, %d of %d groups with too few rollouts: advantage 0.",
            *(strategy, unscored, len(reward), idle, len(sizes)),
        )
    return result, torch.cat(values).mean().item()
