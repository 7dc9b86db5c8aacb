"""Log-probabilities of answers and of sampled tokens under a sampler."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from operant.hf.rollouts.policy import Encoded, Policy
from operant.strategies import Sampler


def target_log_probs(
    model: torch.nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor,
    sampler: Sampler = Sampler(),  # noqa: B008
    ends: Sequence[int] = (),
) -> Tensor:
    """Log-probability of each row's target under a sampler, summed over tokens with a label: (B, T) -> (B,) float32.

    Only the positions that predict a target token anywhere in the batch go through the vocabulary layer. -inf where
    a token of the target lies outside the nucleus: this sampler never returns the target.

    Args:
        model: causal language model.
        input_ids: (B, T), right-padded.
        attention_mask: (B, T).
        labels: (B, T), -100 outside the target.
        sampler: temperature and nucleus.
        ends: tokens that each end a completion. A target whose last token is one of them gets the probability of its
            text: log sum_e p(a, e) over the ends e after the answer a.
    """
    target, logits = _target_logits(model, input_ids, attention_mask, labels)
    return _under(sampler, target, logits, ends)


def _target_logits(
    model: torch.nn.Module, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Labels (B, k) and logits (B, k, V) at the positions before a target token."""
    keep = (labels[:, 1:] != -100).any(0).nonzero()[:, 0]  # (k,)
    logits = model(input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=keep, use_cache=False).logits
    return labels[:, keep + 1], logits.float()


def _under(sampler: Sampler, target: Tensor, logits: Tensor, ends: Sequence[int]) -> Tensor:
    """(B,) log-probabilities of the targets under a sampler."""
    logits = sampler.warp(logits)
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="none"
    ).view_as(target)  # (B, k)
    # Rollouts that stop at any of the ends have the same text, so the exact probability adds them up.
    if len(ends) > 1:
        row = torch.arange(len(target), device=target.device)
        places = torch.arange(1, target.shape[1] + 1, device=target.device)
        last = ((target != -100) * places).argmax(-1)  # (B,)
        any_end = logits[row, last].log_softmax(-1)[:, list(ends)].logsumexp(-1)
        closed = torch.isin(target[row, last], target.new_tensor(ends))
        nll = nll.index_put((row, last), torch.where(closed, -any_end, nll[row, last]))
    return -nll.sum(-1)


@torch.no_grad()
def completion_log_probs(
    model: torch.nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    *,
    sampler: Sampler,
    batch_size: int,
) -> Tensor:
    """(B, T) log-probability of every sampled token, 0 where masked; prompts (B, P) are left-padded."""
    ids, mask = torch.cat([prompt_ids, completion_ids], 1), torch.cat([prompt_mask, completion_mask], 1)
    width = completion_ids.shape[1]
    # In batches: logits of all rows at once, (B, T, V), may not fit into memory.
    parts = []
    for rows in torch.arange(len(ids), device=ids.device).split(batch_size):
        out = model(input_ids=ids[rows], attention_mask=mask[rows], logits_to_keep=width + 1, use_cache=False)
        logits = sampler.warp(out.logits[:, :-1].float())
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), completion_ids[rows].flatten(), reduction="none")
        parts.append(torch.where(completion_mask[rows] > 0, -nll.view(-1, width), 0.0))
    return torch.cat(parts)


@torch.no_grad()
def answer_log_probs(
    policy: Policy,
    encoded: Sequence[Encoded],
    *,
    batch_size: int,
    sampler: Sampler = Sampler(),  # noqa: B008
) -> Tensor:
    """Exact log-probability that the sampler returns each target: (len(encoded),) float64, -inf where it cannot.

    The target may end with any of the policy's end tokens: a rollout that stops at another one has the same text.
    """
    return log_probs_under(policy, encoded, [sampler], batch_size=batch_size)[0]


@torch.no_grad()
def log_probs_under(
    policy: Policy, encoded: Sequence[Encoded], samplers: Sequence[Sampler], *, batch_size: int
) -> Tensor:
    """:func:`answer_log_probs` under several samplers, from one forward pass: (len(samplers), len(encoded))."""
    was_training = policy.model.training
    policy.model.eval()
    # By length, so that batches have little padding.
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].prompt) + len(encoded[i].target))
    log_p = torch.empty(len(samplers), len(encoded), dtype=torch.float64)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate([encoded[i] for i in rows], policy.pad)
        batch = {name: value.to(policy.device) for name, value in batch.items()}
        target, logits = _target_logits(policy.model, **batch)
        for row, sampler in zip(log_p, samplers, strict=True):
            row[rows] = _under(sampler, target, logits, policy.ends).double().cpu()
    policy.model.train(was_training)
    return log_p


def collate(rows: Sequence[Encoded], pad: int) -> dict[str, Tensor]:
    """Right-padded input_ids, attention_mask and labels (-100 outside the target), each (B, T)."""
    width = max(len(r.prompt) + len(r.target) for r in rows)
    batch = {
        "input_ids": torch.full((len(rows), width), pad),
        "attention_mask": torch.zeros(len(rows), width, dtype=torch.long),
        "labels": torch.full((len(rows), width), -100),
    }
    for i, r in enumerate(rows):
        size = len(r.prompt) + len(r.target)
        batch["input_ids"][i, :size] = torch.tensor(r.prompt + r.target)
        batch["attention_mask"][i, :size] = 1
        batch["labels"][i, len(r.prompt) : size] = torch.tensor(r.target)
    return batch
