"""The target tokens of a batch, padded or packed: their log-probabilities, and the sequences they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import trl
from packaging.version import Version
from torch import Tensor

_CHUNK = 1024
"""Tokens whose entropy is computed at once: float32 copies of all (n, V) logits may not fit in memory."""


class Targets(NamedTuple):
    """Predictions of a model for the n target tokens of a batch, in row order.

    Args:
        log_p: (n,) float32 log-probabilities.
        entropy: (n,) entropy of the predicted distribution, in nats; without a gradient.
        top1: (n,) whether the target is the most probable token.
        logits: (n, V) if they were requested, else empty.
    """

    log_p: Tensor
    entropy: Tensor
    top1: Tensor
    logits: Tensor


def target_tokens(model: torch.nn.Module, inputs: Mapping[str, Any], mask: Tensor, *, logits: bool = False) -> Targets:
    """Log-probabilities of the target tokens, and the quantities that TRL logs.

    On a GPU, TRL 1.15 and later compute them with a fused LM head, which never holds (B, T, V) logits. Otherwise, and
    for the margin, only positions that predict a target token in some row go through the vocabulary layer.

    Args:
        model: causal language model.
        inputs: a batch of TRL's collator, padded or padding-free.
        mask: (B, T-1) where the next token is a target.
        logits: whether to return the logits.
    """
    own, labels = model_inputs(inputs), inputs["labels"]
    if not logits and has_fused_head(labels):
        out = model(**own, labels=labels, fused_lm_head=True)
        return Targets(out.log_probs[mask].float(), out.entropy.detach()[mask], out.is_top1[mask], labels.new_empty(0))
    keep = mask.any(0).nonzero()[:, 0]  # (k,)
    z = model(**own, logits_to_keep=keep).logits  # (B, k, V)
    target, wanted = labels[:, keep + 1], mask[:, keep]
    nll = torch.nn.functional.cross_entropy(z.float().flatten(0, 1), target.flatten(), reduction="none")
    here = z[wanted]  # (n, V)
    top1 = here.detach().argmax(-1) == target[wanted]
    return Targets(-nll.view_as(target)[wanted], _entropy(here.detach()), top1, here if logits else labels.new_empty(0))


def model_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a batch that the model takes."""
    return {name: value for name, value in inputs.items() if name not in ("labels", "prompt_index")} | {
        "use_cache": False
    }


def has_fused_head(labels: Tensor) -> bool:
    """Whether TRL has a fused LM head that is faster here: since TRL 1.15, on a GPU."""
    return labels.is_cuda and Version(trl.__version__) >= Version("1.15")


def _entropy(logits: Tensor) -> Tensor:
    """(n,) entropies of (n, V) logits, in pieces of ``_CHUNK`` tokens."""
    log_q = (part.float().log_softmax(-1) for part in logits.split(_CHUNK))
    return torch.cat([-(x.exp() * x).sum(-1) for x in log_q])


def sequences(inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
    """The sequence of each target position, (B, T-1), and their number; a packed row has several."""
    labels = inputs["labels"]
    if "attention_mask" in inputs or "position_ids" not in inputs:
        rows = torch.arange(len(labels), device=labels.device)
        return rows[:, None].expand(-1, labels.shape[1] - 1), len(labels)
    segment = (inputs["position_ids"] == 0).cumsum(-1) - 1
    return segment[:, 1:], int(segment.max()) + 1


def add(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sum of the values of each group, float64: (n,) -> (groups,)."""
    return values.new_zeros(groups, dtype=torch.float64).index_add(0, group, values.double())
