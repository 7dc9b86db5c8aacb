"""The errors for a TRL that moved a method or attribute, and the contract with the installed TRL."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trl import GRPOTrainer, RLOOTrainer

from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedMixin, AlignedRLOOTrainer
from operant.hf.trainers.trl_compat import (
    OUTPUT,
    RL_ATTRIBUTES,
    RL_METHODS,
    UnsupportedTRLError,
    check_attributes,
    check_methods,
    check_output,
)
from tests.hf.trainers.rl_task import build, parameters, trained

STOCK = pytest.mark.parametrize("stock", [GRPOTrainer, RLOOTrainer])
VERSIONS = r"The installed trl \d+\.\d+.* with transformers \d+\..*operant was tested with trl"


@STOCK
def test_the_installed_trl_has_everything_that_is_overridden(tmp_path, stock) -> None:
    check_methods(stock)
    trainer = trained(stock, tmp_path, max_steps=1)
    check_attributes(trainer)
    check_output(trainer.rollouts[0], 16, 1)


@STOCK
@pytest.mark.parametrize("aligned", ["pass@4", "maj@3"])
def test_a_run_on_this_trl_takes_the_credit(tmp_path, stock, aligned) -> None:
    """The contract: own advantages in every step, own metrics, weights that move."""
    cls = AlignedGRPOTrainer if stock is GRPOTrainer else AlignedRLOOTrainer
    before = parameters(build(cls, tmp_path, strategy=aligned))
    settings: dict[str, Any] = {"max_steps": 2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}
    trainer = trained(cls, tmp_path, strategy=aligned, resample_dead=1, **settings)
    theirs = trained(stock, tmp_path, **settings)
    ours, stocks = trainer.rollouts[0]["advantages"], theirs.rollouts[0]["advantages"]
    assert torch.equal(trainer.rewards[0], theirs.rewards[0]) and not torch.equal(ours, stocks)
    assert torch.equal(torch.cat([m["advantages"] for m in trainer.micro[:2]]).sort()[0], ours.sort()[0])
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 2 and all(next(iter(log)) == aligned for log in logs)
    assert not torch.equal(parameters(trainer), before)


def moved(**members: Any) -> type:
    """TRL's GRPO trainer with some members of another shape."""
    stock = type("MovedTrainer", (GRPOTrainer,), members)
    return type("Ours", (AlignedMixin, stock), {"_name": "Ours"})


@pytest.mark.parametrize("name", RL_METHODS)
def test_a_moved_signature_is_named(name: str) -> None:
    def other(self: Any, batch: Any) -> None: ...

    with pytest.raises(
        UnsupportedTRLError, match=rf"MovedTrainer.{name}\('self'.*but it takes \('self', 'batch'\).*{VERSIONS}"
    ):
        check_methods(type("MovedTrainer", (GRPOTrainer,), {name: other}))
    gone = type("Bare", (), {n: getattr(GRPOTrainer, n) for n in RL_METHODS if n != name})
    with pytest.raises(UnsupportedTRLError, match=rf"expected Bare.{name}.*but it does not exist"):
        check_methods(gone)


def test_an_aligned_trainer_on_a_moved_trl_is_refused_at_once(tmp_path) -> None:
    def other(self: Any, rows: Any) -> None: ...

    with pytest.raises(UnsupportedTRLError, match="_generate_and_score_completions"):
        build(AlignedGRPOTrainer, tmp_path, strategy="pass@4", base=moved(_generate_and_score_completions=other))


@pytest.mark.parametrize("name", RL_ATTRIBUTES)
def test_a_missing_attribute_is_named(tmp_path, name: str) -> None:
    class Hidden:
        def __getattr__(self, asked: str) -> int:
            if asked == name:
                raise AttributeError(asked)
            return 0

    with pytest.raises(UnsupportedTRLError, match=rf"expected Hidden to have {name}\. {VERSIONS}"):
        check_attributes(Hidden())


@pytest.mark.parametrize("name", OUTPUT)
def test_a_missing_key_is_named(name: str) -> None:
    out = dict.fromkeys(OUTPUT, torch.zeros(4))
    check_output(out, 8, 2)
    del out[name]
    with pytest.raises(UnsupportedTRLError, match=rf"in the output of generation, found \[(?!.*{name}).*{VERSIONS}"):
        check_output(out, 8, 2)


def test_rewards_of_this_rank_alone_are_refused() -> None:
    with pytest.raises(UnsupportedTRLError, match="expected 8 rewards, those of all 2 processes, got 4"):
        check_output(dict.fromkeys(OUTPUT, torch.zeros(4)), 4, 2)


@pytest.mark.parametrize("key", OUTPUT)
def test_a_run_whose_generation_lacks_a_key_stops(tmp_path, key: str) -> None:
    def without(self: Any, inputs: Any) -> Any:
        out = GRPOTrainer._generate_and_score_completions(self, inputs)
        del out[key]
        return out

    trainer = build(
        AlignedGRPOTrainer, tmp_path, strategy="pass@4", base=moved(_generate_and_score_completions=without)
    )
    with pytest.raises(UnsupportedTRLError, match=rf"in the output of generation, found \[(?!.*{key}')"):
        trainer.train()


def test_a_trl_that_calculates_rewards_elsewhere_is_an_error(tmp_path) -> None:
    """A TRL that scores somewhere else would leave the gathered rewards empty."""

    def elsewhere(self: Any, inputs: Any) -> Any:
        out = GRPOTrainer._generate_and_score_completions(self, inputs)
        self._rewards = torch.empty(0)
        return out

    trainer = build(
        AlignedGRPOTrainer, tmp_path, strategy="pass@4", base=moved(_generate_and_score_completions=elsewhere)
    )
    with pytest.raises(UnsupportedTRLError, match="expected 16 rewards, those of all 1 processes, got 0"):
        trainer.train()
