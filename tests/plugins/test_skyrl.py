"""SkyRL itself calls the estimator; run with ``make test-plugins``, Python 3.12 or newer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from operant import Outcomes, PassAt, credit
from operant.core.checks import OperantError
from operant.plugins import skyrl

ppo_utils = pytest.importorskip(
    "skyrl.backends.skyrl_train.utils.ppo_utils", reason="SkyRL has an environment of its own"
)

PROMPTS = ["q1", "q2"] * 4
REWARD = torch.tensor([1.0, 0, 0, 0, 0, 1, 0, 1])


def advantages(name: str, **others: Any) -> torch.Tensor:
    """What SkyRL's trainer asks for."""
    tokens = torch.zeros(8, 3)
    tokens[:, -1] = REWARD
    call = {"index": PROMPTS, "config": None, "values": None, "gamma": 1.0, "lambd": 1.0, **others}
    return ppo_utils.compute_advantages_and_returns(tokens, torch.ones(8, 3), adv_estimator=name, **call)[0]


@pytest.fixture(params=["pass@2", "pass@1"])
def strategy(request: pytest.FixtureRequest) -> Any:
    skyrl.register(request.param)
    yield request.param
    ppo_utils.AdvantageEstimatorRegistry.unregister("operant")


def test_skyrl_takes_the_credit_of_the_registered_strategy(strategy: str) -> None:
    got = advantages("operant")
    for first in (0, 1):
        w = credit(PassAt(int(strategy[-1])), Outcomes(REWARD[first::2]))
        torch.testing.assert_close(got[first::2], 4 * w[:, None].expand(4, 3))
    if strategy == "pass@1":
        torch.testing.assert_close(got, advantages("rloo"))  # a second road: SkyRL's code


def test_skyrls_padding_gets_no_advantage(strategy: str) -> None:
    from skyrl.backends.skyrl_train.training_batch import TrainingInputBatch, pad_training_input_batch

    batch = TrainingInputBatch({"rewards": REWARD[:, None], "response_mask": torch.ones(8, 1)})
    batch.metadata = {"uids": list(PROMPTS)}
    padded = pad_training_input_batch(batch, 3)
    function = ppo_utils.AdvantageEstimatorRegistry.get("operant")
    got, _ = function(padded["rewards"], padded["response_mask"], index=padded.metadata["uids"])
    torch.testing.assert_close(got[:8], advantages("operant")[:, :1])
    assert len(got) == 11 and (got[8:] == 0).all()


def test_skyrl_refuses_a_second_registration_and_a_strategy_that_is_none(strategy: str) -> None:
    with pytest.raises(ValueError, match="already registered"):
        skyrl.register("pass@4")
    with pytest.raises(OperantError):
        skyrl.register("pass of 4")


@pytest.mark.parametrize("strategy", ["pass@2"], indirect=True)
def test_the_estimator_reaches_other_processes_through_ray(strategy: str) -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        ppo_utils.sync_registries()

        @ray.remote(num_cpus=1)
        def elsewhere() -> torch.Tensor:
            from skyrl.backends.skyrl_train.utils.ppo_utils import AdvantageEstimatorRegistry

            tokens = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
            return AdvantageEstimatorRegistry.get("operant")(tokens, torch.ones(4, 1), index=[0] * 4)[0]

        want = 4 * credit(PassAt(int(strategy[-1])), Outcomes(torch.tensor([1.0, 0, 0, 0])))
        torch.testing.assert_close(ray.get(elsewhere.remote())[:, 0], want)
    finally:
        ray.shutdown()
