"""The RL trainers take their settings as TRL's do, and keep the best model by any metric that they log."""

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from trl import GRPOTrainer, RLOOTrainer

from operant.core.checks import ConfigError
from operant.hf.rollouts.policy import load_policy
from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedRLOOTrainer
from operant.hf.trainers.rl_settings import AlignedGRPOConfig, AlignedRLOOConfig
from tests.hf.trainers.rl_task import PROMPTS, Even, build

PAIRS = [
    (AlignedGRPOTrainer, AlignedGRPOConfig, GRPOTrainer),
    (AlignedRLOOTrainer, AlignedRLOOConfig, RLOOTrainer),
]


@pytest.mark.parametrize(("cls", "config", "stock"), PAIRS)
def test_settings_are_positional_or_left_out_as_in_trl(tmp_path, monkeypatch, cls, config, stock):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "transformers.training_args.is_torch_bf16_gpu_available", lambda: True
    )  # the default asks for it
    policy = load_policy("embedded", seed=3, device="cpu")
    policy.save(tmp_path / "small")
    policy = load_policy(str(tmp_path / "small"), device="cpu")
    data = {"processing_class": policy.tokenizer, "train_dataset": Dataset.from_dict({"prompt": PROMPTS})}
    args = config("mine", use_cpu=True, bf16=False, strategy="pass@2", num_generations=8)
    ours = cls(policy.model, [Even()], args, **data)
    assert ours.args is args and str(ours.strategy) == "pass@2"
    theirs = stock(policy.model, [Even()], **data)
    ours = cls(policy.model, [Even()], **data)
    assert ours.args.output_dir == theirs.args.output_dir and type(ours.args) is config
    assert str(ours.strategy) == "pass@4"
    with pytest.raises(ConfigError, match=f"args must be an {config.__name__}, which has the strategy, got "):
        cls(policy.model, [Even()], theirs.args, **data)


@pytest.mark.parametrize("cls", [AlignedGRPOTrainer, AlignedRLOOTrainer])
@pytest.mark.parametrize("metric", ["pass@4", "eval_reward", "eval_num_tokens"])
def test_the_best_model_is_loaded_at_the_end(tmp_path, cls, metric):
    best = max if metric != "eval_num_tokens" else min
    trainer = build(
        cls,
        tmp_path,
        strategy="pass@4",
        evaluation=PROMPTS[:4],
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=16,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=best is max,
    )
    trainer.train()
    name = f"eval_{metric.removeprefix('eval_')}"
    values = [log[name] for log in trainer.state.log_history if name in log]
    assert len(values) == 2 and trainer.state.best_metric == best(values)
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{values.index(best(values)) + 1}")
    saved = load_file(f"{trainer.state.best_model_checkpoint}/model.safetensors")
    assert all(torch.equal(value, trainer.model.state_dict()[key]) for key, value in saved.items())


def test_schedules_that_make_no_sense_are_refused(tmp_path):
    plateau = {"strategy_schedule": {"plateau": "maj@4"}, "max_steps": 100}
    for settings, said in (
        ({"plateau_window": 20}, "plateau_window=20 needs a plateau"),
        ({"strategy_schedule": {"soon": "pass@2"}}, "got the step 'soon'"),
        (plateau | {"strategy_schedule": {"plateau": "maj@4", "9": "pass@2"}}, "both a plateau and the steps 9"),
        (plateau | {"max_steps": -1}, "max_steps is not set. Set plateau_window to a number of steps"),
        (plateau | {"plateau_window": 60}, "the run has 100 steps and would end before it"),
        (plateau | {"num_iterations": 10}, "holds 2 batches of completions"),
        (plateau | {"form": "pkpo", "strategy": "pass@16"}, "the value of pass@16, which 8 rollouts cannot estimate"),
    ):
        for cls in (AlignedGRPOTrainer, AlignedRLOOTrainer):
            with pytest.raises(ConfigError, match=said):
                build(cls, tmp_path, **{"strategy": "pass@1"} | settings)


@pytest.mark.parametrize(
    "more", [{"transform": "log:0.1", "resample_dead": 1}, {"off_policy": True, "num_iterations": 2}], ids=str
)
def test_a_plateau_goes_with_transforms_reused_rollouts_and_resampling(tmp_path, more):
    """One value a batch of completions, of the rollouts that no resampling has selected."""
    settings = {"strategy": "pass@2", "strategy_schedule": {"plateau": "maj@4"}, "learning_rate": 1e-9}
    reused = more.get("num_iterations", 1)
    trainer = build(AlignedGRPOTrainer, tmp_path, max_steps=16, plateau_window=3 * reused, **settings, **more)
    trainer.train()
    switched = trainer.schedule.switched
    values = trainer.schedule.state_dict()["values"]
    assert switched is not None and len(values) % 3 == 0
    logs = [log for log in trainer.state.log_history if "loss" in log]
    first = [log["pass@2"] for log in logs if "pass@2" in log]
    assert first == pytest.approx(values) and len(first) < 16 / reused
    assert [log["maj@4"] for log in logs if "maj@4" in log]
