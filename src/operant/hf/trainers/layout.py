"""Where the target tokens of a batch are, found on the host when the batch is put together.

How many there are depends on the data. A GPU that is asked in the middle of a step makes the host wait for everything
before it; the collator has the labels on the host anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from operant.core.checks import DataError
from operant.hf.trainers.sft_settings import Level

LAYOUT = "target_layout"
"""The key of a batch's layout, beside the columns that the model takes."""


class Places(NamedTuple):
    """Indices of the n target tokens in row order, of their U units, and of the k positions that predict any."""

    columns: Tensor
    """(k,) positions that predict a target token in some row"""
    kept: Tensor
    """(n,) place of each token's prediction in (B k)"""
    dense: Tensor
    """(n,) the same in (B (T-1))"""
    owner: Tensor
    """(n,) sequence of each token"""
    unit: Tensor
    """(n,) unit of each token: the sequence, line or token that p is the probability of"""
    of_unit: Tensor
    """(U,) sequence of each unit"""


@dataclass(frozen=True)
class TargetLayout:
    """The target tokens of a batch: their places on the device, their numbers on the host.

    Args:
        index: the places, one after the other, so that one copy moves them.
        sizes: how many of each.
        sequences: S, a packed row has several.
        tokens: of the batch, prompts included and padding not.
    """

    index: Tensor
    sizes: tuple[int, ...]
    sequences: int
    tokens: int

    @property
    def places(self) -> Places:
        """The parts of the index."""
        return Places(*self.index.split(self.sizes))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same on a device; accelerate calls it as it calls a tensor's."""
        return replace(self, index=self.index.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same in page-locked memory; PyTorch's data loader calls it."""
        return replace(self, index=self.index.pin_memory())


def layout(batch: Mapping[str, Any], level: Level, newline: Tensor) -> TargetLayout:
    """Find the target tokens of a batch; waits for the device if the batch is not on the host.

    Args:
        batch: of TRL's collator: padded, padding-free or packed.
        level: what a unit is.
        newline: (V,) whether a token has a newline, for level "step".

    Raises:
        DataError: for a row without a target.
    """
    labels: Tensor = batch["labels"].cpu()
    sequence, count = sequences({name: x.cpu() for name, x in batch.items() if isinstance(x, Tensor)})
    mask = labels[:, 1:] != -100  # (B, T-1)
    dense, columns = mask.flatten().nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    owner = sequence.flatten()[dense]
    if bool((torch.bincount(owner, minlength=count) == 0).any()):
        raise DataError("a row has no target token: every row needs labels other than -100.")
    starts = torch.zeros(len(owner), dtype=torch.bool)
    if level == "token":
        starts[1:] = True
    else:
        starts[1:] = owner[1:] != owner[:-1]
    if level == "step":
        starts[1:] |= newline[labels[:, 1:].flatten()[dense][:-1]]
    unit = starts.cumsum(0)
    of_unit = torch.zeros(int(unit[-1]) + 1, dtype=torch.long).scatter_(0, unit, owner)
    parts = Places(columns, mask[:, columns].flatten().nonzero()[:, 0], dense, owner, unit, of_unit)
    attended = batch.get("attention_mask")
    tokens = int(attended.sum()) if attended is not None else labels.numel()
    return TargetLayout(torch.cat(parts), tuple(map(len, parts)), count, tokens)


def sequences(batch: Mapping[str, Any]) -> tuple[Tensor, int]:
    """The sequence of each target position, (B, T-1), and their number; a packed row has several."""
    labels = batch["labels"]
    if "attention_mask" in batch or "position_ids" not in batch:
        rows = torch.arange(len(labels), device=labels.device)
        return rows[:, None].expand(-1, labels.shape[1] - 1), len(labels)
    segment = (batch["position_ids"] == 0).cumsum(-1) - 1
    return segment[:, 1:], int(segment.max()) + 1


@dataclass(frozen=True)
class LayoutCollator:
    """A collator that adds the layout of its batches."""

    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    level: Level
    newline: Tensor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of these rows, with its layout."""
        batch = self.collator(rows)
        batch[LAYOUT] = layout(batch, self.level, self.newline)
        return batch
