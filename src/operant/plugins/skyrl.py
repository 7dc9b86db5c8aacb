"""SkyRL's advantage estimator "operant", registered by :func:`register` before SkyRL's own ``main`` runs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from operant.plugins.scheduled import ScheduledAdvantages


def register(
    strategy: str,
    *,
    votes_in_reward: bool = False,
    transform: str = "",
    schedule: Mapping[int | str, str] | None = None,
    plateau_window: int | None = None,
    first_step: int = 0,
) -> None:
    """Make ``trainer.algorithm.advantage_estimator=operant`` the credit of a strategy, in every process of the run.

    Args:
        strategy: what is deployed, "pass@16"; with a schedule, the first strategy.
        votes_in_reward: the rewards are those of :func:`~operant.plugins.encode_vote`.
        transform: g of the objective E g(V), "log:0.02"; empty for E V.
        schedule: {100: "pass@16"}, strategy from step 100 on; or {"plateau": "maj@16"}, from the plateau on.
        plateau_window: steps in a window of the plateau; None is 20.
        first_step: the step at which a resumed run goes on.

    Raises:
        ConfigError: for a schedule that cannot work.
        ParseError: for a string that is no strategy or no transform.
        ValueError: of SkyRL, for a second call.
    """
    registry = importlib.import_module("skyrl.backends.skyrl_train.utils.ppo_utils").AdvantageEstimatorRegistry
    advantages = ScheduledAdvantages(
        strategy,
        schedule=schedule,
        plateau_window=plateau_window,
        first_step=first_step,
        votes_in_reward=votes_in_reward,
        transform=transform,
    )
    registry.register("operant", partial(operant, advantages=advantages))


def operant(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Iterable[Any],
    *,
    advantages: ScheduledAdvantages,
    **others: object,
) -> tuple[Tensor, Tensor]:
    """:func:`~operant.plugins.token_advantages`, in SkyRL's signature; ``others`` are not used."""
    return advantages(token_level_rewards, response_mask, index)
