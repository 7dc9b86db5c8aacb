"""Reinforce a policy with :class:`AlignedGRPOTrainer` in one call; a run that was killed goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from operant.core.checks import DataError
from operant.hf.folder import quiet
from operant.hf.rollouts.policy import Policy
from operant.hf.train.checkpoints import clear, go_back, newest
from operant.hf.trainers.rl import AlignedGRPOTrainer
from operant.hf.trainers.rl_settings import AlignedGRPOConfig


class _Report(TrainerCallback):
    def __init__(self, progress: Callable[[int, float], None]) -> None:
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Pass step and mean reward on."""
        if logs and "reward" in logs:
            self.progress(state.global_step, logs["reward"])


def reinforce(
    policy: Policy,
    prompts: Sequence[str],
    reward: Callable[[Sequence[str], Sequence[str]], list[float]],
    *,
    steps: int,
    batch_size: int,
    rollouts: int,
    learning_rate: float,
    max_new_tokens: int,
    strategy: str = "pass@1",
    form: str = "exact",
    transform: str = "",
    temperature: float = 1.0,
    seed: int = 0,
    folder: Path | None = None,
    save_steps: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> list[tuple[int, float]]:
    """Train the policy in place on its own completions; returns (step, mean reward) of every log.

    Args:
        policy: model or adapter, and tokenizer.
        prompts: distinct texts.
        reward: prompts and completions, (B * M,) each, to rewards; a prompt's M completions stand together.
        steps: optimizer steps, with a linear warm-up over 5 % of them and a constant rate after it.
        batch_size: prompts a step, B.
        rollouts: completions of each, M.
        learning_rate: after the warm-up.
        max_new_tokens: after which a completion is cut; it is scored as it is.
        strategy: whose value is raised; its budget may be M - 1 at most.
        form: "exact", or a published rule such as "grpo", see :class:`AlignedGRPOConfig`.
        transform: of a group's value, such as "log:0.02"; "" for none.
        temperature: of the sampler.
        seed: of the order of the prompts and of the completions.
        folder: where checkpoints lie. A run that is started again there goes on from its newest whole checkpoint.
        save_steps: steps between checkpoints; 0 for none.
        progress: called with step and mean reward.

    Raises:
        DataError: for fewer prompts than a step takes.
    """
    if len(prompts) < batch_size:
        raise DataError(f"expected at least {batch_size} prompts, one step's, got {len(prompts)}.")
    cuda = policy.device.type == "cuda"
    streams = torch.random.fork_rng(devices=[policy.device] if cuda else [])  # the trainer seeds the global ones
    with TemporaryDirectory() as scratch, warnings.catch_warnings(), streams:
        quiet()
        args = AlignedGRPOConfig(
            output_dir=str(folder or scratch),
            strategy=strategy,
            form=form,
            transform=transform,
            max_steps=steps,
            per_device_train_batch_size=batch_size * rollouts,
            num_generations=rollouts,
            max_completion_length=max_new_tokens,
            temperature=temperature,
            learning_rate=learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=max(1, steps // 20),
            logging_steps=max(1, steps // 100),
            save_strategy="steps" if save_steps else "no",
            save_steps=save_steps or 500,
            save_total_limit=2,
            seed=seed,
            disable_tqdm=True,
            report_to="none",
            bf16=cuda,
            gradient_checkpointing=False,
            use_cpu=not cuda,
        )

        def rewarded(prompts: list[str], completions: list[str], **_: object) -> list[float]:
            return reward(prompts, completions)

        trainer = AlignedGRPOTrainer(
            policy.model,
            [rewarded],
            args,
            processing_class=policy.tokenizer,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            callbacks=[_Report(progress)] if progress else None,
        )
        trainer.remove_callback(PrinterCallback)
        start = None
        if folder is not None and save_steps:
            go_back(folder, folder / "record.jsonl", last=steps)
            start = newest(folder)
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        history = [(int(log["step"]), float(log["reward"])) for log in trainer.state.log_history if "reward" in log]
        if folder is not None:
            clear(folder)
    policy.model.eval()
    return history
