"""Later optimizer steps on the same rollouts: the advantages are computed anew, for the current policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from operant.hf.trainers.rl_batch import Batch


def refresh(trainer: Any, batch: Batch, parts: list[dict[str, Any]]) -> None:
    """Replace the advantages of the buffered micro-batches by the off-policy credit of the current policy.

    The old log-probabilities become the current ones: TRL's token-level ratio is then 1, because the credit already
    has the ratio of whole sequences, pi(y) / mu(y).

    Args:
        trainer: an aligned trainer.
        batch: the rollouts of all processes; its groups and step are replaced.
        parts: TRL's buffered micro-batches of this process, changed in place. Their column "rollout" says which of
            the rollouts each row is: TRL shuffles them.
    """
    now: list[Tensor] = [trainer._token_log_probs(part) for part in parts]
    rows = torch.cat([part["rollout"] for part in parts])
    if batch.log_mu is None:
        old = torch.cat([_sampled_log_p(part) for part in parts])
        batch.log_mu = torch.empty(len(rows), device=rows.device).scatter(0, rows, old.float())
    current = torch.empty_like(batch.log_mu).scatter(0, rows, torch.cat([x.sum(-1) for x in now]).float())
    local = (current - batch.log_mu).clamp(-trainer.args.log_ratio_clip, trainer.args.log_ratio_clip)
    log_ratio = trainer.accelerator.gather(local).view(-1, trainer.num_generations).double()  # (B, M)
    batch.groups = trainer._groups(batch, log_ratio)
    batch.step = trainer.state.global_step
    first = trainer.accelerator.process_index * len(rows)
    advantage = batch.groups.advantage.reshape(-1)[first : first + len(rows)]
    for part, log_p in zip(parts, now, strict=True):
        part["advantages"] = advantage[part["rollout"]].to(part["advantages"])
        if "old_logps" in part:
            part["old_logps"] = log_p.sum(-1)
        else:
            part["old_per_token_logps"] = log_p


def _sampled_log_p(part: Mapping[str, Any]) -> Tensor:
    """(rows,) log-probabilities under the policy that sampled; RLOO keeps them by sequence, GRPO by token."""
    if "old_logps" in part:
        return part["old_logps"]
    return (part["old_per_token_logps"] * part["completion_mask"] * part.get("tool_mask", 1)).sum(-1)
