"""Training, sampling and evaluation with transformers, TRL, peft and datasets; no other folder imports them.

The names are imported when they are first used: importing TRL takes seconds, and the command line needs only the
configurations.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operant.hf.config import EvaluateConfig, PlanConfig, TrainConfig
    from operant.hf.folder import Column, pass_at, quiet, summary, write_job, write_prompts
    from operant.hf.rollouts.logprobs import answer_log_probs
    from operant.hf.rollouts.plan import make_plan, plan
    from operant.hf.rollouts.policy import Encoded, Policy, add_lora, encode, load_policy
    from operant.hf.rollouts.prompts import DataConfig, load_prompts
    from operant.hf.rollouts.sampling import RolloutSettings, sample
    from operant.hf.rollouts.sweep.run import evaluate
    from operant.hf.train.run import run_training
    from operant.hf.trainers.rewards import AnsweredReward, VerifierReward
    from operant.hf.trainers.rl import AlignedGRPOTrainer, AlignedRLOOTrainer
    from operant.hf.trainers.rl_settings import AlignedGRPOConfig, AlignedRLOOConfig
    from operant.hf.trainers.sft import AlignedSFTTrainer
    from operant.hf.trainers.sft_settings import AlignedSFTConfig
    from operant.hf.trainers.trl_compat import UnsupportedTRLError
    from operant.hf.workers import worker_pool

_NAMES = {
    "config": ("EvaluateConfig", "PlanConfig", "TrainConfig"),
    "folder": ("Column", "pass_at", "quiet", "summary", "write_job", "write_prompts"),
    "rollouts.sweep.run": ("evaluate",),
    "rollouts.plan": ("make_plan", "plan"),
    "rollouts.logprobs": ("answer_log_probs",),
    "rollouts.policy": ("Encoded", "Policy", "add_lora", "encode", "load_policy"),
    "rollouts.prompts": ("DataConfig", "load_prompts"),
    "rollouts.sampling": ("RolloutSettings", "sample"),
    "train.run": ("run_training",),
    "trainers.rewards": ("AnsweredReward", "VerifierReward"),
    "trainers.rl": ("AlignedGRPOTrainer", "AlignedRLOOTrainer"),
    "trainers.rl_settings": ("AlignedGRPOConfig", "AlignedRLOOConfig"),
    "trainers.sft": ("AlignedSFTTrainer",),
    "trainers.sft_settings": ("AlignedSFTConfig",),
    "trainers.trl_compat": ("UnsupportedTRLError",),
    "workers": ("worker_pool",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "AlignedGRPOConfig",
    "AlignedGRPOTrainer",
    "AlignedRLOOConfig",
    "AlignedRLOOTrainer",
    "AlignedSFTConfig",
    "AlignedSFTTrainer",
    "AnsweredReward",
    "Column",
    "DataConfig",
    "Encoded",
    "EvaluateConfig",
    "PlanConfig",
    "Policy",
    "RolloutSettings",
    "TrainConfig",
    "UnsupportedTRLError",
    "VerifierReward",
    "add_lora",
    "answer_log_probs",
    "encode",
    "evaluate",
    "load_policy",
    "load_prompts",
    "make_plan",
    "pass_at",
    "plan",
    "quiet",
    "run_training",
    "sample",
    "summary",
    "worker_pool",
    "write_job",
    "write_prompts",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'operant.hf' has no attribute {name!r}")
    return getattr(import_module(f"operant.hf.{_MODULE_OF[name]}"), name)
