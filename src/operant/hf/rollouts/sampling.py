"""Sample completions of a policy, i.i.d. from the stated sampler."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from operant.core.checks import check_int
from operant.core.rng import child_seed
from operant.hf.rollouts.policy import Encoded, Policy
from operant.strategies import Sampler

# Defaults of transformers that would sample from another distribution than stated.
_NEUTRAL: dict[str, Any] = {"top_k": 0, "num_beams": 1}


@dataclass(frozen=True)
class RolloutSettings:
    """How many rollouts are drawn, and how.

    Args:
        rollouts: M, completions of each prompt.
        max_new_tokens: tokens after which a completion is cut.
        batch_size: prompts of a chunk, which is one call of generate; it is part of the random stream.
        seed: of the random stream.
        sampler: temperature and nucleus.

    Raises:
        BudgetError: for counts below 1.
    """

    rollouts: int
    max_new_tokens: int
    batch_size: int
    seed: int = 0
    sampler: Sampler = field(default_factory=Sampler)

    def __post_init__(self) -> None:
        """Check the counts."""
        for name in ("rollouts", "max_new_tokens", "batch_size"):
            check_int(name, getattr(self, name), least=1)


@torch.no_grad()
def sample(
    policy: Policy, encoded: Sequence[Encoded], settings: RolloutSettings, *, start: int = 0, step: int = 1
) -> Iterator[list[list[int]]]:
    """Yield completions as token lists, chunk by chunk of prompts: M for the first prompt, M for the second, ...

    They are i.i.d. from the sampler, whatever generation settings the model was saved with. A completion stops at any
    of the policy's ends, which is kept where the model produced it.

    Args:
        policy: the model; it is left in evaluation mode.
        encoded: the prompts.
        settings: how many completions, and how they are drawn.
        start: the first chunk. Every chunk has its own seed, so a run that is continued after ``start`` chunks samples
            what it would have sampled.
        step: every ``step``-th chunk from there on.
    """
    policy.model.eval()
    device = policy.device
    for chunk, first in list(enumerate(range(0, len(encoded), settings.batch_size)))[start::step]:
        rows = encoded[first : first + settings.batch_size]
        width = max(len(r.prompt) for r in rows)
        ids = torch.full((len(rows), width), policy.pad)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, r in enumerate(rows):
            # Padded on the left: all completions then start at the same position.
            ids[i, width - len(r.prompt) :] = torch.tensor(r.prompt)
            mask[i, width - len(r.prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        # The prompts go through the model once and not once per rollout.
        cache = DynamicCache(config=policy.model.config)
        if width > 1:
            _prefill(policy, ids[:, :-1], mask[:, :-1], cache)
            cache.batch_repeat_interleave(settings.rollouts)
        # Training's own random stream must not depend on whether an evaluation came between.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _plain(policy.model):
            torch.manual_seed(child_seed(settings.seed, "sample", chunk))
            out = policy.model.generate(
                input_ids=ids.repeat_interleave(settings.rollouts, 0),
                attention_mask=mask.repeat_interleave(settings.rollouts, 0),
                past_key_values=cache,
                do_sample=True,
                temperature=settings.sampler.temperature,
                top_p=settings.sampler.top_p,
                **_NEUTRAL,
                max_new_tokens=settings.max_new_tokens,
                pad_token_id=policy.pad,
                eos_token_id=list(policy.ends),
            )
        new = out[:, width:].tolist()
        yield [trim(tokens, policy.ends) for tokens in new]


@contextmanager
def _plain(model: Any) -> Generator[None]:
    """The model without the generation settings that it was saved with.

    generate takes from them what it is not told. Some would change the distribution (suppress_tokens, min_length,
    sequence_bias), some would stop it (cache_implementation, which gemma ships).
    """
    holders: list[Any] = [model, model.get_base_model()] if isinstance(model, PeftModel) else [model]
    kept = [holder.generation_config for holder in holders]
    try:
        for holder in holders:
            holder.generation_config = GenerationConfig()
        yield
    finally:
        for holder, config in zip(holders, kept, strict=True):
            holder.generation_config = config


def _prefill(policy: Policy, ids: Tensor, mask: Tensor, cache: DynamicCache) -> None:
    """Keys and values of the prompts, computed once and not once per rollout; (B, T) left-padded."""
    policy.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )


def trim(tokens: list[int], ends: Collection[int]) -> list[int]:
    """Tokens up to and including the first end."""
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in ends), None)]
