"""SkyRL's advantage estimator "operant", registered by :func:`register` before SkyRL's own ``main`` runs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor

from operant.estimators.transform import Transform
from operant.plugins.group import token_advantages
from operant.strategies.base import Strategy
from operant.strategies.parse import parse


def register(strategy: str, *, votes_in_reward: bool = False, transform: str = "") -> None:
    """Make ``trainer.algorithm.advantage_estimator=operant`` the credit of a strategy, in every process of the run.

    Args:
        strategy: what is deployed, "pass@16".
        votes_in_reward: the rewards are those of :func:`~operant.plugins.encode_vote`.
        transform: g of the objective E g(V), "log:0.02"; empty for E V.

    Raises:
        ParseError: for a string that is no strategy or no transform.
        ValueError: of SkyRL, for a second call.
    """
    registry = importlib.import_module("skyrl.backends.skyrl_train.utils.ppo_utils").AdvantageEstimatorRegistry
    options = {"votes_in_reward": votes_in_reward, "transform": Transform.parse(transform) if transform else None}
    registry.register("operant", partial(operant, strategy=parse(strategy), **options))


def operant(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Iterable[Any],
    *,
    strategy: Strategy,
    votes_in_reward: bool = False,
    transform: Transform | None = None,
    **others: object,
) -> tuple[Tensor, Tensor]:
    """:func:`~operant.plugins.token_advantages`, in SkyRL's signature; ``others`` are not used."""
    return token_advantages(
        token_level_rewards, response_mask, index, strategy, votes_in_reward=votes_in_reward, transform=transform
    )
