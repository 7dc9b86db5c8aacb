"""Fine-tune a policy on encoded examples with :class:`AlignedSFTTrainer`; a run that was killed goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from operant.core.checks import DataError, InputError
from operant.core.rng import numpy_generator
from operant.hf.folder import quiet
from operant.hf.rollouts.policy import Encoded, Policy
from operant.hf.train.checkpoints import clear, go_back, newest
from operant.hf.train.muon import MuonAdamW
from operant.hf.trainers.sft import AlignedSFTConfig, AlignedSFTTrainer

LOGS = 100
"""Logs a run, about: what a progress display shows without the run waiting for it."""

PARTS = 4
"""Parts of a batch on a CPU, each of rows of similar length; their gradients are added. In a random batch of the string
programs two thirds of the tokens were padding: a step of the embedded model took 0.62 CPU seconds, in four parts 0.29.
Batches of one length (transformers' "group_by_length") took 0.21, but each held few programs only: 400 steps for 58 %
of the tokens, where random batches had 62 % after 271."""


class _Report(TrainerCallback):
    def __init__(self, progress: Callable[[int, float], None]) -> None:
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Pass step and loss on."""
        if logs and "loss" in logs:
            self.progress(state.global_step, logs["loss"])


def finetune(
    policy: Policy,
    rows: Sequence[Encoded],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    muon: bool = False,
    in_order: bool = False,
    strategy: str = "pass@1",
    transform: str = "",
    seed: int = 0,
    folder: Path | None = None,
    save_steps: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> list[tuple[int, float]]:
    """Train the policy in place; returns (step, loss) of every log.

    Args:
        policy: model or adapter, and tokenizer.
        rows: prompts and targets as tokens.
        steps: optimizer steps, with a linear warm-up over 5 % of them and a cosine decay.
        batch_size: rows a step.
        learning_rate: the largest.
        muon: whether :class:`MuonAdamW` takes the steps, which suits random weights; else AdamW.
        in_order: whether the first epoch keeps the order of the rows.
        strategy: what the loss aims at; pass@1 is cross-entropy.
        transform: g in the place of the logarithm of -log S, such as "log:0.1".
        seed: of the order of the rows.
        folder: where checkpoints lie. A run that is started again there goes on from its newest whole checkpoint.
        save_steps: steps between checkpoints; 0 for none.
        progress: called with step and loss.

    Raises:
        DataError: if the training diverges.
    """
    cuda = policy.device.type == "cuda"
    streams = torch.random.fork_rng(devices=[policy.device] if cuda else [])  # the trainer seeds the global ones
    with TemporaryDirectory() as scratch, warnings.catch_warnings(), streams:
        quiet()
        place = folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        parts = 1 if cuda or batch_size % PARTS else PARTS
        args = AlignedSFTConfig(
            output_dir=str(place),
            strategy=strategy,
            transform=transform,
            max_steps=steps,
            per_device_train_batch_size=batch_size // parts,
            gradient_accumulation_steps=parts,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, steps // 20),
            weight_decay=0.0,
            logging_steps=max(1, steps // LOGS),
            save_strategy="steps" if save_steps else "no",
            save_steps=save_steps or 500,
            save_total_limit=2,
            seed=seed,
            data_seed=seed,
            train_sampling_strategy="sequential",
            disable_tqdm=True,
            report_to="none",
            bf16=cuda,
            gradient_checkpointing=False,
            use_cpu=not cuda,
        )
        order = sorted_batches(
            [len(r.prompt) + len(r.target) for r in rows], steps, batch_size, seed=seed, in_order=in_order
        )
        data = Dataset.from_list(
            [
                {"input_ids": r.prompt + r.target, "labels": [-100] * len(r.prompt) + r.target}
                for r in (rows[i] for i in order)
            ]
        )
        trainer = AlignedSFTTrainer(
            policy.model,
            args,
            processing_class=policy.tokenizer,
            train_dataset=data,
            callbacks=[_Report(progress)] if progress else None,
            optimizers=(MuonAdamW(policy.model, lr=learning_rate) if muon else None, None),
        )
        trainer.remove_callback(PrinterCallback)
        start = None
        if folder is not None and save_steps:
            go_back(folder, folder / "record.jsonl", last=steps)
            start = newest(folder)
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        except InputError as error:  # the loss refuses what is not finite; after a step, the rate is to blame
            if trainer.state.global_step:
                raise _diverged(trainer.state.global_step, learning_rate) from error
            raise
        if not all(bool(p.isfinite().all()) for p in policy.model.parameters()):
            raise _diverged(steps, learning_rate)
        history = [(int(log["step"]), float(log["loss"])) for log in trainer.state.log_history if "loss" in log]
        if folder is not None:
            clear(folder)
    # Accelerate leaves its wrapped forward on the model: a deep copy would compute with the weights of the original.
    policy.model.__dict__.pop("forward", None)
    policy.model.eval()
    return history


def _diverged(step: int, learning_rate: float) -> DataError:
    return DataError(
        f"the training diverged by step {step}: the model no longer gives finite numbers. Train again with a "
        f"learning_rate smaller than {learning_rate:g}; a run with a folder needs a new one."
    )


def sorted_batches(
    lengths: Sequence[int], steps: int, batch_size: int, *, seed: int, in_order: bool = False
) -> list[int]:
    """Indices of the rows of every batch, (steps * batch_size,): epochs in random order, each batch sorted by length.

    The whole order is known before the first step, so that a resumed run skips exactly what it has seen.

    Args:
        lengths: tokens of each row.
        steps: batches.
        batch_size: rows a batch.
        seed: of the order.
        in_order: whether the first epoch keeps the order of the rows.
    """
    rng = numpy_generator(seed, "order of rows")
    size, total = np.array(lengths), steps * batch_size
    epochs = -(-total // len(size))
    order = [rng.permutation(len(size)) for _ in range(epochs)]
    if in_order:
        order[0] = np.arange(len(size))
    drawn = np.concatenate(order)[:total].reshape(steps, batch_size)
    return np.take_along_axis(drawn, np.argsort(size[drawn], axis=1, kind="stable"), axis=1).ravel().tolist()
