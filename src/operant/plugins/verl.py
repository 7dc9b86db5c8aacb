"""verl's advantage estimator "operant", registered on import; verl imports this module itself, as an entry point.

    algorithm.adv_estimator=operant +algorithm.operant_strategy=pass@16

verl hides an error in a plugin: if it does not know the estimator, import this module to see why.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

from torch import Tensor

from operant.core.checks import InputError
from operant.plugins.scheduled import ScheduledAdvantages


class _Settings(Protocol):
    """verl's ``algorithm`` section: an omegaconf ``DictConfig`` or its ``AlgoConfig``."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Value of a key, or the default."""
        ...


def operant(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Iterable[Any],
    config: _Settings | None = None,
    **others: object,
) -> tuple[Tensor, Tensor]:
    """:func:`~operant.plugins.token_advantages`, in verl's signature.

    Args:
        token_level_rewards: (bs, L).
        response_mask: (bs, L).
        index: (bs,) verl's uid of the prompt.
        config: holds ``operant_strategy``, for votes ``operant_votes_in_reward=true``, and if wanted a transform,
            ``operant_transform=log:0.02``, and a schedule: ``operant_schedule={plateau: maj@16}`` with
            ``operant_plateau_window``, and ``operant_first_step`` where a run is resumed.
        others: what verl passes to every estimator; not used.

    Raises:
        InputError: without ``operant_strategy``, or with a KL penalty in rewards that carry votes.
        ConfigError: for a schedule that cannot work.
    """
    strategy = None if config is None else config.get("operant_strategy")
    if config is None or strategy is None:
        raise InputError(
            "the estimator 'operant' needs a strategy, got none: add +algorithm.operant_strategy=pass@16, or another, "
            "to the command."
        )
    votes = bool(config.get("operant_votes_in_reward", False))
    if votes and config.get("use_kl_in_reward", False):
        raise InputError(
            "a reward that carries a vote takes no KL penalty: set algorithm.use_kl_in_reward=false, and "
            "actor_rollout_ref.actor.use_kl_loss=true for one in the loss."
        )
    schedule = config.get("operant_schedule") or {}
    settings = (
        strategy,
        tuple(sorted((str(key), text) for key, text in schedule.items())),
        config.get("operant_plateau_window"),
        config.get("operant_first_step", 0),
        votes,
        config.get("operant_transform") or "",
    )
    return _advantages(*settings)(token_level_rewards, response_mask, index)


@cache
def _advantages(
    strategy: str, schedule: tuple[tuple[str, str], ...], window: int | None, first: int, votes: bool, transform: str
) -> ScheduledAdvantages:
    """One estimator for all steps of a run: verl calls a function, which has no place for the steps so far."""
    return ScheduledAdvantages(
        strategy,
        schedule=dict(schedule),
        plateau_window=window,
        first_step=first,
        votes_in_reward=votes,
        transform=transform,
    )


# The plugin is importable without verl, for its tests and its documentation.
if find_spec("verl") is not None:
    importlib.import_module("verl.trainer.ppo.core_algos").register_adv_est("operant")(operant)
