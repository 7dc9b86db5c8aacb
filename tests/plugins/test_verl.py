"""verl itself finds the estimator, through the entry point of the installed package; run with ``make test-plugins``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from operant import Outcomes, PassAt, credit
from operant.core.checks import InputError
from operant.plugins import encode_vote, token_advantages
from operant.strategies import Majority

core_algos = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl has an environment of its own")

PROMPTS = ["q1", "q2"] * 4
REWARD = torch.tensor([1.0, 0, 0, 0, 0, 1, 0, 1])


def algorithm(*overrides: str) -> Any:
    """The section ``algorithm`` of verl's own configuration, changed on the command line."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(Path(core_algos.__file__).parents[1] / "config"), version_base=None):
        return compose("ppo_trainer", overrides=list(overrides)).algorithm


def advantages(config: Any, reward: torch.Tensor) -> torch.Tensor:
    """What verl's trainer computes for a batch."""
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    tokens = torch.zeros(8, 3)
    tokens[:, -1] = reward
    batch = {"token_level_rewards": tokens, "response_mask": torch.ones(8, 3)}
    data = DataProto.from_dict(tensors=batch, non_tensors={"uid": np.array(PROMPTS, dtype=object)})
    return compute_advantage(data, adv_estimator=config.adv_estimator, config=config).batch["advantages"]


def test_verl_knows_the_estimator_from_the_entry_point() -> None:
    assert core_algos.get_adv_estimator_fn("operant").__module__ == "operant.plugins.verl"


def test_verls_trainer_takes_the_credit_of_the_strategy_on_the_command_line() -> None:
    config = algorithm("algorithm.adv_estimator=operant", "+algorithm.operant_strategy=pass@2")
    got = advantages(config, REWARD)
    for first in (0, 1):
        w = credit(PassAt(2), Outcomes(REWARD[first::2]))
        torch.testing.assert_close(got[first::2], 4 * w[:, None].expand(4, 3))
    with pytest.raises(InputError, match=r"\+algorithm.operant_strategy"):
        advantages(algorithm("algorithm.adv_estimator=operant"), REWARD)


def test_verls_own_rloo_is_pass_at_1() -> None:
    """A second road: verl's code."""
    ours = advantages(algorithm("algorithm.adv_estimator=operant", "+algorithm.operant_strategy=pass@1"), REWARD)
    torch.testing.assert_close(ours, advantages(algorithm("algorithm.adv_estimator=rloo"), REWARD))


def test_votes_reach_verls_trainer_in_the_reward() -> None:
    answers = ["5", "7", "6", None, "6", "7", "5", "7"]
    config = algorithm(
        "algorithm.adv_estimator=operant",
        "+algorithm.operant_strategy=maj@3",
        "+algorithm.operant_votes_in_reward=true",
    )
    correct = [r == 1 for r in REWARD.tolist()]
    codes = torch.tensor([encode_vote(c, a) for c, a in zip(correct, answers, strict=True)])
    want, _ = token_advantages(REWARD[:, None], torch.ones(8, 1), PROMPTS, Majority(3), answers=answers)
    torch.testing.assert_close(advantages(config, codes), want.expand(8, 3))
