"""A task for the tests of the RL trainers: a random tiny Llama, a rule that it meets now and then, and recorders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from operant.hf.rollouts.policy import load_policy
from operant.hf.trainers.rewards import AnsweredReward
from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedRLOOTrainer
from operant.hf.trainers.rl_settings import AlignedGRPOConfig, AlignedRLOOConfig

CONFIG = {
    GRPOTrainer: GRPOConfig,
    RLOOTrainer: RLOOConfig,
    AlignedGRPOTrainer: AlignedGRPOConfig,
    AlignedRLOOTrainer: AlignedRLOOConfig,
}
PROMPTS = [f"{a}*{b}=" for a in (3, 7, 12, 45) for b in (2, 6, 88, 91)]
LENGTH = 4
COMMON: dict[str, Any] = dict(
    max_completion_length=LENGTH,
    max_steps=3,
    per_device_train_batch_size=16,
    num_generations=8,
    learning_rate=1e-2,
    lr_scheduler_type="constant",
    logging_steps=1,
    report_to="none",
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    save_strategy="no",
    disable_tqdm=True,
    seed=11,
)


class Even:
    """1 where the completion's first digit is even. The answer is that digit, None where there is none."""

    def __init__(self, name: str = "even") -> None:
        self.__name__ = name

    def equivalent(self, a: str, b: str) -> bool:
        return a == b

    def __call__(self, prompts: list[str], completions: list[str], **_: Any) -> list[AnsweredReward | None]:
        answers = [c[0] if c[:1].isdigit() else None for c in completions]
        return [AnsweredReward(a is not None and int(a) % 2 == 0, a) for a in answers]


def length(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """How long the completion is, a score."""
    return [len(c) / LENGTH for c in completions]


class Recorded:
    """Keeps what generation returns (before TRL shuffles it), its texts and rewards, and what every loss was given."""

    def __init__(self, **kwargs: Any) -> None:
        self.rollouts: list[dict[str, Tensor]] = []
        self.rewards: list[Tensor] = []
        self.texts: list[tuple[list[str], list[str]]] = []
        self.micro: list[dict[str, Tensor]] = []
        super().__init__(**kwargs)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.rewards.append(rewards.clone())
        self.texts.append((prompts, completions))
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        out = super()._generate_and_score_completions(inputs)
        self.rollouts.append(tensors(out))
        return out

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        self.micro.append(tensors(inputs))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def tensors(out: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in out.items() if isinstance(value, Tensor)}


def build(
    cls: Any,
    folder: Path | str,
    *,
    rewards: Any = None,
    model: Any = None,
    base: type | None = None,
    prompts: list[str] = PROMPTS,
    evaluation: list[str] | None = None,
    **settings: Any,
) -> Any:
    """A recorded trainer on a model of its own, always from the same seed; ``base`` in the place of ``cls``."""
    policy = load_policy("embedded", seed=3, device="cpu")
    if settings.get("beta"):  # TRL loads the reference model from where the policy lies
        policy.save(Path(folder) / "start")
        policy = load_policy(str(Path(folder) / "start"), device="cpu")
    config = next(CONFIG[base] for base in cls.__mro__ if base in CONFIG)
    if config is GRPOConfig:
        settings = {"scale_rewards": "none", "loss_type": "dr_grpo"} | settings
    settings = {"beta": 0.0} | COMMON | settings
    recorded = type(f"Recorded{cls.__name__}", (Recorded, base or cls), {})
    return recorded(
        model=policy.model if model is None else model,
        reward_funcs=[Even()] if rewards is None else rewards,
        args=config(output_dir=str(folder), **settings),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        eval_dataset=None if evaluation is None else Dataset.from_dict({"prompt": evaluation}),
        processing_class=policy.tokenizer,
    )


def trained(cls: Any, folder: Path | str, *, resume: str | None = None, **settings: Any) -> Any:
    trainer = build(cls, folder, **settings)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def parameters(trainer: Any) -> Tensor:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return torch.cat([p.detach().flatten() for p in model.parameters()])
