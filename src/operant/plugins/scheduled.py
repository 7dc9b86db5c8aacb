"""The estimator with a schedule of strategies: it counts its calls, one a training step, and keeps their values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from torch import Tensor

from operant.core.checks import ConfigError
from operant.estimators.transform import Transform
from operant.objectives.schedule import PLATEAU, StrategySchedule, check_keys, window_of
from operant.plugins.group import valued_advantages

_WINDOW = 20
"""Default window in steps. A convention: frameworks do not say how long a run is, and their batches are large."""


class ScheduledAdvantages:
    """:func:`~operant.plugins.token_advantages` with the strategy of the step.

    Args:
        strategy: what is deployed, "pass@16"; with a schedule, the first strategy.
        schedule: step -> strategy from that step on, or "plateau" -> strategy.
        plateau_window: steps; None is 20.
        first_step: the step of the first call, for a run that is resumed.
        votes_in_reward: the rewards are those of :func:`~operant.plugins.encode_vote`.
        transform: g of the objective E g(V), "log:0.02"; empty for E V.

    Raises:
        ConfigError: for a schedule, a window or a first step that cannot work.
        ParseError: for a string that is no strategy or no transform.
    """

    def __init__(
        self,
        strategy: str,
        *,
        schedule: Mapping[Any, str] | None = None,
        plateau_window: int | None = None,
        first_step: int = 0,
        votes_in_reward: bool = False,
        transform: str = "",
    ) -> None:
        check_keys(schedule)
        plateau = PLATEAU in (schedule or {})
        if plateau_window is not None and not plateau:
            raise ConfigError(f"plateau_window={plateau_window} needs a plateau in the schedule: add one, or leave it.")
        if first_step < 0 or (first_step and not schedule):
            raise ConfigError(f"first_step is the step at which a schedule goes on, at least 0; got {first_step}.")
        window = window_of(_WINDOW if plateau_window is None else plateau_window, None) if plateau else None
        self.schedule = StrategySchedule(strategy, schedule, window=window)
        self._step = first_step
        self._votes = votes_in_reward
        self._transform = Transform.parse(transform) if transform else None

    def __call__(
        self, token_level_rewards: Tensor, response_mask: Tensor, index: Iterable[Hashable]
    ) -> tuple[Tensor, Tensor]:
        """Advantages and returns of the next step, both (bs, L)."""
        advantages, value = valued_advantages(
            token_level_rewards,
            response_mask,
            index,
            self.schedule.at(self._step),
            votes_in_reward=self._votes,
            transform=self._transform,
        )
        self.schedule.observe(self._step, value)
        self._step += 1
        return advantages, advantages.clone()
