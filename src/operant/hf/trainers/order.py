"""The order of the prompts in a resumed run of TRL's GRPO and RLOO trainers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback


class PromptOrder(TrainerCallback):
    """Gives a run that is resumed after its first epoch the prompts that the uninterrupted run would have had.

    TRL's sampler draws a permutation of the prompts for each epoch from a generator of its own, which no checkpoint
    holds. A resumed trainer has a new sampler, and would repeat the order of the first epoch.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the permutations of the epochs that are over."""
        loader = kwargs.get("train_dataloader")
        batches = getattr(loader, "batch_sampler", None)
        sampler = getattr(getattr(batches, "batch_sampler", batches), "sampler", None)  # accelerate wraps it
        generator = getattr(sampler, "generator", None)
        if loader is None or sampler is None or generator is None:  # a stream, or a sampler that does not shuffle
            return
        steps = max(1, -(-len(loader) // args.gradient_accumulation_steps))
        for _ in range(state.global_step // steps):
            torch.randperm(sampler.num_samples, generator=generator)
