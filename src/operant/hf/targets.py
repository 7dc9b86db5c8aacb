"""The target tokens of a batch, padded or packed: their log-probabilities, and the sequences they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import trl
from packaging.version import Version
from torch import Tensor


def target_tokens(
    model: torch.nn.Module, inputs: Mapping[str, Any], mask: Tensor, *, logits: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the n target tokens in row order, (n,) float32, and their logits (n, V) if asked for.

    On a GPU with TRL 1.15 and later through its fused LM head, which never holds (B, T, V) logits. Elsewhere, and for
    the margin, only the positions that predict a target token anywhere in the batch go through the vocabulary layer.

    Args:
        model: causal language model.
        inputs: a batch of TRL's collator, padded or padding-free.
        mask: (B, T-1) where the next token is a target.
        logits: whether the logits are wanted.
    """
    own = {name: value for name, value in inputs.items() if name not in ("labels", "prompt_index")}
    own["use_cache"] = False
    labels = inputs["labels"]
    if labels.is_cuda and not logits and Version(trl.__version__) >= Version("1.15"):
        return model(**own, labels=labels, fused_lm_head=True).log_probs[mask].float(), labels.new_empty(0)
    keep = mask.any(0).nonzero()[:, 0]  # (k,)
    z = model(**own, logits_to_keep=keep).logits  # (B, k, V)
    target, wanted = labels[:, keep + 1], mask[:, keep]
    nll = torch.nn.functional.cross_entropy(z.float().flatten(0, 1), target.flatten(), reduction="none")
    return -nll.view_as(target)[wanted], z[wanted] if logits else labels.new_empty(0)


def sequences(inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
    """Sequence that each target position belongs to, (B, T-1), and their number: rows, or segments of a packed row."""
    labels = inputs["labels"]
    if "attention_mask" in inputs or "position_ids" not in inputs:
        rows = torch.arange(len(labels), device=labels.device)
        return rows[:, None].expand(-1, labels.shape[1] - 1), len(labels)
    segment = (inputs["position_ids"] == 0).cumsum(-1) - 1
    return segment[:, 1:], int(segment.max()) + 1


def add(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sum of the values of each group, float64: (n,) -> (groups,)."""
    return values.new_zeros(groups, dtype=torch.float64).index_add(0, group, values.double())
