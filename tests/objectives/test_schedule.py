"""Schedules: the plateau rule against simulation and by hand, windows, keys, the state of a checkpoint."""

from __future__ import annotations

import json
import logging
import math
import random

import pytest

from operant.core.checks import ConfigError, ParseError
from operant.objectives.schedule import StrategySchedule, at_plateau, window_of

STEPS, W = 180, 36
SD = 0.05
"""Standard deviation of the mean reward of a step: 16 prompts with success rates of sd .2."""


def switch(rise: float, seed: int, *, until: int = STEPS) -> int | None:
    """Where a schedule switches whose value rises by ``rise`` in 180 steps, up to step ``until``."""
    noise = random.Random(seed)
    schedule = StrategySchedule("pass@1", {"plateau": "maj@16"}, window=W)
    for step in range(STEPS):
        schedule.observe(step, 0.2 + rise * min(step, until) / STEPS + noise.gauss(0, SD))
    return schedule.switched


def test_a_flat_value_is_recognized_and_a_rising_one_is_not_in_the_stated_shares() -> None:
    """A second road: simulation. 500 runs; 3 standard errors of a share of .84 are .05."""
    seeds = range(500)
    flat = [switch(0.0, seed) for seed in seeds]
    assert sum(step == 2 * W for step in flat) / 500 == pytest.approx(0.84, abs=0.05)  # Phi(1)
    assert sum(step is not None and step <= 4 * W for step in flat) / 500 > 0.95
    error = SD * math.sqrt(2 / W)
    for d, share in ((2, 0.16), (3, 0.023)):  # rise from one window to the next in standard errors; Phi(1 - d)
        rising = [switch(d * error * STEPS / W, seed) for seed in seeds]
        assert sum(step == 2 * W for step in rising) / 500 == pytest.approx(share, abs=0.05)
    assert sum(step is None or step > 4 * W for step in rising) / 500 > 0.9


def test_a_value_that_stops_rising_is_recognized_after_it_stopped() -> None:
    """It rises by 4 standard errors a window until step 72."""
    found = [switch(4 * SD * math.sqrt(2 / W) * STEPS / W, seed, until=72) for seed in range(300)]
    assert sum(step in (108, 144, 180) for step in found) / 300 > 0.95


def test_the_rule_by_hand() -> None:
    """Variances of 1 and 3 values: the standard error is sqrt(1/3 + 1/3)."""
    before = [0.0, 1.0, 2.0]
    assert at_plateau(before, [x + 0.81 for x in before]) and not at_plateau(before, [x + 0.82 for x in before])
    assert at_plateau([0.5] * 4, [0.5] * 4) and not at_plateau([0.5] * 4, [0.75] * 4)
    assert at_plateau(before, [-5.0, -4.0, -3.0]), "a value that falls does not rise"


def test_the_strategy_changes_once_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    schedule = StrategySchedule("pass@4", {"plateau": "maj@4"}, window=3)
    values = [0.1, 0.2, 0.3, 0.5, math.nan, 0.6, 0.7, 0.6, 0.6, 0.6, 0.9, 0.9, 0.9]
    seen = []
    with caplog.at_level(logging.WARNING):
        for step, value in enumerate(values):
            seen.append(str(schedule.at(step)))
            schedule.observe(step, value)
    assert schedule.switched == 10 and seen == ["pass@4"] * 10 + ["maj@4"] * 3
    (line,) = caplog.messages
    assert line == (
        "plateau of pass@4 (0.6000, then 0.6000 over 3 batches each): from step 10 on the strategy is maj@4."
    )
    assert str(schedule.at(9)) == "pass@4", "the strategy of an earlier step is what it was"


def test_steps_and_growing_budgets() -> None:
    schedule = StrategySchedule("pass@1", {"100": "pass@4", 0: "pass@2"})
    assert [str(schedule.at(step)) for step in (0, 99, 100, 500)] == ["pass@2", "pass@2", "pass@4", "pass@4"]
    assert [str(s) for s in schedule.strategies] == ["pass@2", "pass@4"] and not schedule.has_plateau
    start = StrategySchedule("pass@1", {"0": "pass@2", "plateau": "pass@8"}, window=5)
    assert str(start.at(0)) == "pass@2" and start.has_plateau


def test_a_checkpoint_keeps_the_state_and_its_window() -> None:
    noise = random.Random(1)
    values = [noise.gauss(0.2 + 0.004 * min(step, 25), 0.01) for step in range(60)]
    whole = StrategySchedule("pass@1", {"plateau": "maj@4"}, window=10)
    for step, value in enumerate(values):
        whole.observe(step, value)
    assert whole.switched == 50
    for cut in (7, 25, 49, 55):
        first = StrategySchedule("pass@1", {"plateau": "maj@4"}, window=10)
        for step in range(cut):
            first.observe(step, values[step])
        state = json.loads(json.dumps(first.state_dict()))
        again = StrategySchedule("pass@1", {"plateau": "maj@4"}, window=10)
        again.load_state_dict(state)
        for step in range(cut, 60):
            again.observe(step, values[step])
        assert again.state_dict() == whole.state_dict()
    with pytest.raises(ConfigError, match="has a plateau window of 10 batches of completions, and the settings give 8"):
        StrategySchedule("pass@1", {"plateau": "maj@4"}, window=8).load_state_dict(whole.state_dict())


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"late": "pass@2"}, r"or the plateau, as in \{plateau: maj@16\}; got the step 'late'"),
        ({"-1": "pass@2"}, "got the step '-1'"),
        ({"plateau": "maj@4", "20": "pass@2"}, "both a plateau and the steps 20"),
    ],
)
def test_keys_that_make_no_sense_are_refused(later: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        StrategySchedule("pass@1", later, window=5)


def test_a_string_that_is_no_strategy_is_refused() -> None:
    with pytest.raises(ParseError):
        StrategySchedule("pass@1", {"plateau": "most@4"}, window=5)


def test_windows() -> None:
    assert window_of(None, 180) == 36 and window_of(0.1, 180) == 18 and window_of(20, None) == 20
    assert window_of(20.0, -1, every=4.0) == 5 and window_of(10, 100, every=0.5) == 20
    for window, steps, every, said in (
        (None, -1, 1.0, "plateau_window is 0.2, a share of the steps, but max_steps is not set"),
        (0, 100, 1.0, "a number of steps, or a share of them below 1; got 0"),
        (2.5, 100, 1.0, "got 2.5"),
        (math.nan, 100, 1.0, "got nan"),
        (math.inf, 100, 1.0, "got inf"),
        (20, 200, 10.0, "holds 2 batches of completions, and at least 3 are needed"),
        (0.5, 100, 1.0, "two windows of 50 steps, but the run has 100 steps"),
    ):
        with pytest.raises(ConfigError, match=said):
            window_of(window, steps, every=every)
