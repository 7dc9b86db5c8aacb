"""Schedules in the plug-ins: the strategy of the step, the plateau, and processes that get a pickled copy."""

from __future__ import annotations

import pickle

import pytest
import torch

from operant import PassAt
from operant.core.checks import ConfigError
from operant.plugins import encode_vote, token_advantages, verl
from operant.plugins.scheduled import ScheduledAdvantages
from operant.strategies import Majority

PROMPTS = ["q1"] * 4 + ["q2"] * 4
MASK = torch.ones(8, 1)
LOW = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])[:, None]
HIGH = torch.tensor([1.0, 1, 0, 0, 1, 0, 0, 0])[:, None]


def of(reward: torch.Tensor, n: int) -> torch.Tensor:
    return token_advantages(reward, MASK, PROMPTS, PassAt(n))[0]


def test_the_strategy_of_a_step_and_of_a_resumed_run() -> None:
    scheduled = ScheduledAdvantages("pass@1", schedule={2: "pass@2"})
    assert not torch.equal(of(HIGH, 1), of(HIGH, 2))
    for n in (1, 1, 2, 2):
        assert torch.equal(scheduled(HIGH, MASK, PROMPTS)[0], of(HIGH, n))
    resumed = ScheduledAdvantages("pass@1", schedule={2: "pass@2"}, first_step=2)
    assert torch.equal(resumed(HIGH, MASK, PROMPTS)[0], of(HIGH, 2))


def test_the_plateau_of_the_value_switches_the_strategy_in_verl_and_in_a_pickled_copy() -> None:
    """pass@1 is 1/8 for three steps, then 3/8 for six: it rises until step 6, and is flat from there to step 9."""
    rewards = [LOW] * 3 + [HIGH] * 7
    settings = {"operant_strategy": "pass@1", "operant_schedule": {"plateau": "pass@2"}, "operant_plateau_window": 3}
    scheduled = ScheduledAdvantages("pass@1", schedule={"plateau": "pass@2"}, plateau_window=3)
    for step, reward in enumerate(rewards):
        if step == 4:
            scheduled = pickle.loads(pickle.dumps(scheduled))
        want = of(reward, 1 if step < 9 else 2)
        assert torch.equal(scheduled(reward, MASK, PROMPTS)[0], want)
        assert torch.equal(verl.operant(reward, MASK, PROMPTS, settings)[0], want)
    assert scheduled.schedule.switched == 9


def test_votes_take_over_from_the_plateau_on() -> None:
    answers = ["5", "7", "6", None, "6", "7", "5", "7"]
    codes = torch.tensor([encode_vote(a == "7", a) for a in answers])[:, None]
    scheduled = ScheduledAdvantages("pass@1", schedule={"plateau": "maj@3"}, plateau_window=3, votes_in_reward=True)
    got = [scheduled(codes, MASK, PROMPTS)[0] for _ in range(7)]
    want, _ = token_advantages(codes, MASK, PROMPTS, Majority(3), votes_in_reward=True)
    one, _ = token_advantages(codes, MASK, PROMPTS, PassAt(1), votes_in_reward=True)
    assert torch.equal(got[5], one) and torch.equal(got[6], want) and not torch.equal(one, want)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"plateau_window": 5}, "plateau_window=5 needs a plateau"),
        ({"first_step": 5}, "the step at which a schedule goes on, at least 0; got 5"),
        ({"schedule": {"plateau": "pass@2"}, "plateau_window": 2}, "holds 2 batches of completions"),
        ({"schedule": {"plateau": "pass@2"}, "plateau_window": 0.2}, "Set plateau_window to a number of steps"),
        ({"schedule": {"plateau": "pass@2", 9: "pass@4"}}, "both a plateau and the steps 9"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said) -> None:
    with pytest.raises(ConfigError, match=said):
        ScheduledAdvantages("pass@1", **settings)
