"""A reinforcement-learning job: TRL's own trainer for the baseline, an aligned trainer for a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trl
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # pyright: ignore[reportPrivateImportUsage]

from operant.core.checks import ConfigError, DataError
from operant.hf.config import TrainConfig
from operant.hf.rollouts.policy import Encoded, Policy, dataset
from operant.hf.rollouts.rewardmodel import RewardModel
from operant.hf.train.job import Job, build
from operant.hf.trainers.order import PromptOrder
from operant.hf.trainers.rewards import VerifierReward
from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedRLOOTrainer
from operant.hf.trainers.rl_settings import AlignedGRPOConfig, AlignedRLOOConfig, check_settings
from operant.verify import Prompt, make_verifier

STOCK: dict[str, tuple[Any, Any]] = {"grpo": (GRPOConfig, GRPOTrainer), "rloo": (RLOOConfig, RLOOTrainer)}
ALIGNED: dict[str, tuple[Any, Any]] = {
    "grpo": (AlignedGRPOConfig, AlignedGRPOTrainer),
    "rloo": (AlignedRLOOConfig, AlignedRLOOTrainer),
}
TRL = (
    *("num_generations", "max_completion_length", "temperature", "top_p", "beta", "num_iterations"),
    *("steps_per_generation", "use_vllm", "vllm_mode"),
)
OURS = ("strategy_schedule", "plateau_window", "form", "transform", "center", "off_policy", "resample_dead")


def arguments(job: Job, config: TrainConfig) -> Any:
    """The settings of the trainer. The baseline has TRL's defaults for everything that the user did not set."""
    settings: dict[str, Any] = {name: getattr(config, name) for name in TRL}
    if config.verifier and config.reward_model:
        settings["reward_weights"] = [1.0, 0.0]
    if not job.baseline:
        settings |= {name: getattr(config, name) for name in OURS} | {"strategy": job.strategy}
        if config.verifier and config.reward_model:
            settings["score_func"] = RewardModel.__name__
    config_class = (STOCK if job.baseline else ALIGNED)[job.method][0]
    args = build(config_class, job, config, config.per_device_train_batch_size, **settings)
    if not job.baseline:
        check_settings(args)
    every = args.num_iterations * args.steps_per_generation
    if config.save_steps * args.gradient_accumulation_steps % every:
        raise ConfigError(
            f"save_steps must be a multiple of the optimizer steps per batch of completions, {every} / "
            f"gradient_accumulation_steps, got {config.save_steps}: a checkpoint in between would lose the completions."
        )
    return args


def trainer(
    job: Job, config: TrainConfig, args: Any, policy: Policy, prompts: Sequence[Prompt], rows: list[Encoded]
) -> Any:
    """The trainer of a job.

    Raises:
        DataError: for fewer prompts than one batch of completions takes.
        ConfigError: for a model with several end tokens, if the installed TRL stops at one of them only.
    """
    needed = args.generation_batch_size // args.num_generations
    if len(prompts) < needed:
        raise DataError(
            f"a batch of completions needs {needed} prompts (per_device_train_batch_size x processes x "
            f"steps_per_generation / num_generations), but the training data has {len(prompts)}. Lower one of these."
        )
    kind = (STOCK if job.baseline else ALIGNED)[job.method][1]
    made = kind(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=reward_functions(config, policy),
        train_dataset=dataset(policy, prompts, config.data),
        args=args,
    )
    if job.baseline:
        made.add_callback(PromptOrder())
    if len(policy.ends) > 1 and set(getattr(made, "eos_token_ids", ())) != set(policy.ends):
        raise ConfigError(
            f"the model may end a completion with any of the tokens {list(policy.ends)}, but TRL {trl.__version__} "
            "stops at one of them only and would train on the text after the others. Install trl 1.16 or later."
        )
    return made


def reward_functions(config: TrainConfig, policy: Policy) -> list[Any]:
    """The verifier, the reward model, or both in this order."""
    functions: list[Any] = [VerifierReward(make_verifier(config.verifier))] if config.verifier else []
    if config.reward_model:
        functions.append(RewardModel(config.reward_model, policy.device))
    return functions
