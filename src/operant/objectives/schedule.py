"""Which strategy a step trains for: one from given steps on, or one from the plateau of the value on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from operant.core.checks import ConfigError
from operant.strategies.base import Strategy
from operant.strategies.parse import parse

_LOGGER = logging.getLogger(__name__)
PLATEAU = "plateau"
WINDOW = 0.2
"""Default window, as a share of the steps. A convention: the first check is at 40 % of the run, the third at 80 %."""
_LEAST = 3
"""Fewest values of a window: the standard error of fewer is too uncertain."""


def at_plateau(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether values have stopped rising: mean(after) - mean(before) <= sqrt(var(before) / n + var(after) / n).

    Of flat values the rule recognizes 84 % at once. Of values that rise by D standard errors it takes Phi(1 - D) for
    flat: 16 % for D = 2, and 2 % for D = 3.

    Args:
        before: n values.
        after: the n values that follow them.
    """
    error = math.sqrt(np.var(before, ddof=1) / len(before) + np.var(after, ddof=1) / len(after))
    return fmean(after) - fmean(before) <= error


class StrategySchedule:
    """The strategy of every step; with a plateau, it has the values so far as its state.

    The values are those of the strategy in use, which is what the steps ascend: training for pass@16 may lower the
    mean reward. For pass@1 they are the mean reward. Every ``window`` values, the last ``window`` are compared with as
    many before them. At the first plateau the strategy changes for good.

    Args:
        first: strategy of the first step.
        later: step -> strategy from that step on; or "plateau" -> strategy from the plateau on, alone or with "0".
        window: values in a window; needed for a plateau.

    Attributes:
        strategies: all strategies of the schedule.
        switched: the first step after the plateau; None before it.

    Raises:
        ConfigError: for a key that is neither a step nor "plateau", or for both.
        ParseError: for a string that is no strategy.
    """

    def __init__(self, first: str, later: Mapping[Any, str] | None = None, *, window: int | None = None) -> None:
        check_keys(later)
        steps = {int(key): text for key, text in (later or {}).items() if key != PLATEAU}
        self._steps = {step: parse(text) for step, text in sorted(({0: first} | steps).items())}
        self._last = parse(later[PLATEAU]) if later and PLATEAU in later else None
        self._window = window
        self._values: list[float] = []
        self.switched: int | None = None
        self.strategies = (*self._steps.values(), *([] if self._last is None else [self._last]))

    @property
    def has_plateau(self) -> bool:
        """Whether the schedule has a plateau."""
        return self._last is not None

    def at(self, step: int) -> Strategy:
        """The strategy of a step."""
        if self._last is not None and self.switched is not None and step >= self.switched:
            return self._last
        return next(s for start, s in reversed(self._steps.items()) if start <= step)

    def observe(self, step: int, value: float) -> None:
        """Keep the value of the strategy in use on the rollouts of a step; NaN, of no rollouts, is left out."""
        if self._last is None or self._window is None or self.switched is not None or math.isnan(value):
            return
        self._values.append(value)
        w = self._window
        if len(self._values) >= 2 * w and len(self._values) % w == 0:
            before, after = self._values[-2 * w : -w], self._values[-w:]
            if at_plateau(before, after):
                self.switched = step + 1
                text = "plateau of %s (%.4f, then %.4f over %d batches each): from step %d on the strategy is %s."
                told = (self.at(step), fmean(before), fmean(after), w, step + 1, self._last)
                _LOGGER.warning(text, *told)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain JSON values."""
        return {"window": self._window, "switched": self.switched, "values": list(self._values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: if its window was another one.
        """
        if state["window"] != self._window:
            raise ConfigError(
                f"the checkpoint has a plateau window of {state['window']} batches of completions, and the settings "
                f"give {self._window}. Resume with the plateau_window and the max_steps of the run that wrote it."
            )
        self.switched, self._values = state["switched"], list(state["values"])


def check_keys(later: Mapping[Any, str] | None) -> None:
    """Reject keys of a schedule that are neither steps nor "plateau".

    Raises:
        ConfigError: naming the key.
    """
    keys = [str(key) for key in later or {}]
    for key in keys:
        if key != PLATEAU and not key.isdecimal():
            raise ConfigError(
                f"strategy_schedule must map steps to strategies, as in {{200: pass@16}}, or the plateau, as in "
                f"{{plateau: maj@16}}; got the step {key!r}."
            )
    if PLATEAU in keys and (others := [key for key in keys if key not in (PLATEAU, "0")]):
        raise ConfigError(
            f"strategy_schedule has both a plateau and the steps {', '.join(others)}. A change of the strategy moves "
            "its value, which would hide the plateau: leave out one of them."
        )


def window_of(window: float | None, steps: int | None, *, every: float = 1.0) -> int:
    """The window in batches of completions.

    Args:
        window: steps, or a share of all steps if below 1. None is 0.2.
        steps: all optimizer steps of the run; None or below 1 if unknown.
        every: optimizer steps on a batch of completions.

    Raises:
        ConfigError: for a window that cannot be used, with the remedy.
    """
    asked = WINDOW if window is None else window
    known = steps if steps and steps > 0 else None
    whole = isinstance(asked, int) or float(asked).is_integer()
    if not asked > 0 or (asked >= 1 and not whole):
        raise ConfigError(f"plateau_window is a number of steps, or a share of them below 1; got {asked!r}.")
    if asked < 1 and known is None:
        raise ConfigError(
            f"plateau_window is {asked:g}, a share of the steps, but max_steps is not set. Set plateau_window to a "
            "number of steps, or set max_steps."
        )
    length = asked * known if asked < 1 and known is not None else asked
    batches = round(length / every)
    if batches < _LEAST:
        raise ConfigError(
            f"a plateau_window of {length:g} steps holds {batches} batches of completions, and at least {_LEAST} are "
            "needed. Raise it, or train for more steps."
        )
    if known is not None and 2 * batches * every >= known:
        raise ConfigError(
            f"a plateau needs two windows of {length:g} steps, but the run has {known} steps and would end before it. "
            "Lower plateau_window."
        )
    return batches
