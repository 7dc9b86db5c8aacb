"""Replace groups without any signal by groups of other prompts, drawn from the training set.

New prompts and not new rollouts of the same prompt, as in DAPO's dynamic sampling (arXiv 2503.14476). A group is then
accepted with the probability that it has a signal, so the expected gradient of each prompt keeps its weight. Sampling
one prompt until its group has a signal would multiply that weight by 1 / P(signal).
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from operant.core.checks import ConfigError
from operant.core.rng import child_seed

LEFT = ("prompt_ids", "prompt_mask")
"""Columns that are padded on the left; all other (B, T) columns are padded on the right."""


def resample(trainer: Any, out: dict[str, Any], batch: Any, turn: int) -> Any:
    """One round: generate as many groups as are dead, and replace dead groups by those with a signal.

    Args:
        trainer: an aligned trainer.
        out: this process's rows, changed in place.
        batch: the rollouts of all processes.
        turn: index of the round, for the seed.

    Returns:
        The batch with the new groups.

    Raises:
        ConfigError: if the training set cannot be indexed, or the rows hold more than text.
    """
    m, ranks, rank = trainer.num_generations, trainer.accelerator.num_processes, trainer.accelerator.process_index
    dead = batch.groups.dead.nonzero()[:, 0].tolist()
    count = next(k for k in range(len(dead), len(dead) + ranks) if k * m % ranks == 0)
    if not hasattr(trainer.train_dataset, "__getitem__"):
        raise ConfigError(
            "resample_dead draws prompts at random and needs a data set that can be indexed, got a stream."
        )
    foreign = [name for name, value in out.items() if not isinstance(value, Tensor)]
    if foreign:
        raise ConfigError(f"resample_dead works with text only, but these rows hold {', '.join(foreign)}.")
    draw = random.Random(child_seed(trainer.args.seed, "resample", trainer.state.global_step, turn))
    rows = [i for i in draw.choices(range(len(trainer.train_dataset)), k=count) for _ in range(m)]
    share = len(rows) // ranks
    inputs = [trainer.train_dataset[i] for i in rows[rank * share : (rank + 1) * share]]
    new, fresh = trainer._scored(inputs)
    alive = (~fresh.groups.dead).nonzero()[:, 0].tolist()
    pairs = list(zip(dead, alive, strict=False))
    if not pairs:
        return batch
    to, source = (torch.tensor([g[side] * m + j for g in pairs for j in range(m)]) for side in (0, 1))
    local = len(out["advantages"])
    mine = (to >= rank * local) & (to < (rank + 1) * local)
    for name, value in out.items():
        if value.ndim:
            out[name] = _merged(trainer, name, value, new[name], to[mine] - rank * local, source[mine])
    if "num_items_in_batch" in out:
        out["num_items_in_batch"] = trainer.accelerator.gather(
            (out["completion_mask"] * out.get("tool_mask", 1)).sum()
        ).sum()
    old, got = (torch.tensor([g[side] for g in pairs], device=batch.reward.device) for side in (0, 1))
    for name in ("reward", "answer", "score", "log_p"):
        if (value := getattr(batch, name)) is not None:
            value[old] = getattr(fresh, name)[got]
    for name in ("advantage", "value", "dead", "unscored"):
        getattr(batch.groups, name)[old] = getattr(fresh.groups, name)[got]
    return batch


def _merged(trainer: Any, name: str, old: Tensor, new: Tensor, to: Tensor, source: Tensor) -> Tensor:
    """``old`` with rows ``to`` replaced by rows ``source`` of all processes' ``new``, at a common width."""
    pad = trainer.processing_class.pad_token_id if name in ("prompt_ids", "completion_ids") else 0
    if old.ndim == 1:
        everywhere: Any = trainer.accelerator.gather(new)
    else:
        everywhere = trainer.accelerator.gather(
            trainer.accelerator.pad_across_processes(new, dim=1, pad_index=pad, pad_first=name in LEFT)
        )
        width = max(old.shape[1], everywhere.shape[1])
        old, everywhere = (_padded(x, width, pad, left=name in LEFT) for x in (old, everywhere))
    merged = old.clone()
    merged[to.to(old.device)] = everywhere[source.to(old.device)]
    return merged


def _padded(x: Tensor, width: int, pad: int, *, left: bool) -> Tensor:
    size = width - x.shape[1]
    return torch.nn.functional.pad(x, (size, 0) if left else (0, size), value=pad)
