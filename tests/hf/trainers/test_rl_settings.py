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
