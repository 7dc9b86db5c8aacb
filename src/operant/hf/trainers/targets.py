"""The log-probabilities of the target tokens of a batch, and what is logged of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import trl
from packaging.version import Version
from torch import Tensor

from operant.hf.trainers.layout import LAYOUT, Places

_CHUNK = 1024
"""Tokens whose entropy is computed at once: its terms are as large as the (n, V) logits."""


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


def target_tokens(
    model: torch.nn.Module, inputs: Mapping[str, Any], places: Places, *, logits: bool = False
) -> Targets:
    """Log-probabilities of the target tokens, and the quantities that TRL logs.

    On a GPU, TRL 1.15 and later compute them with a fused LM head, which never holds (B, T, V) logits. Otherwise, and
    for the margin, only positions that predict a target token in some row go through the vocabulary layer.

    Args:
        model: causal language model.
        inputs: a batch of TRL's collator, padded or padding-free.
        places: where its target tokens are.
        logits: whether to return the logits.
    """
    own, labels = model_inputs(inputs), inputs["labels"]
    if not logits and has_fused_head(labels):
        out = model(**own, labels=labels, fused_lm_head=True)
        log_p, entropy, top1 = (x.flatten()[places.dense] for x in (out.log_probs, out.entropy.detach(), out.is_top1))
        return Targets(log_p.float(), entropy, top1, labels.new_empty(0))
    rows = model(**own, logits_to_keep=places.columns).logits.flatten(0, 1)  # (B k, V)
    if len(places.kept) < len(rows):
        rows = rows.index_select(0, places.kept)  # (n, V)
    target = labels[:, 1:].flatten()[places.dense]
    log_q = rows.float().log_softmax(-1)
    log_p = log_q.gather(-1, target[:, None])[:, 0]
    top1 = rows.detach().argmax(-1) == target
    return Targets(log_p, _entropy(log_q.detach()), top1, rows if logits else labels.new_empty(0))


def model_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a batch that the model takes."""
    return {name: value for name, value in inputs.items() if name not in ("labels", "prompt_index", LAYOUT)} | {
        "use_cache": False
    }


def has_fused_head(labels: Tensor) -> bool:
    """Whether TRL has a fused LM head that is faster here: since TRL 1.15, on a GPU."""
    return labels.is_cuda and Version(trl.__version__) >= Version("1.15")


def _entropy(log_q: Tensor) -> Tensor:
    """(n,) entropies of (n, V) log-probabilities, in pieces of ``_CHUNK`` tokens."""
    return torch.cat([-(x.exp() * x).sum(-1) for x in log_q.split(_CHUNK)])


def add(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sum of the values of each group, float64: (n,) -> (groups,)."""
    return values.new_zeros(groups, dtype=torch.float64).index_add(0, group, values.double())
