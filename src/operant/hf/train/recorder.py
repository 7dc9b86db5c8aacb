"""Writes the log of a trainer into the record of its job; only the first process does."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from operant.core.record import append_record
from operant.hf.trainers.sft import QUANTILES

NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward": "reward",
    "frac_reward_zero_std": "dead_groups",  # TRL's own trainers; the aligned ones log dead_groups, which comes later
    "dead_groups": "dead_groups",
    "entropy": "entropy",
    "kl": "kl",
    "unscored": "unscored",
    "plateau_step": "plateau_step",
    "verifier_failures": "verifier_failures",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "cut",  # share of the completions that did not end within their limit
}
"""Name in the trainer's log -> name in the record."""


class Trained(Exception):
    """Raised when a resumed trainer has taken its last step already; its weights are loaded by then."""


class Recorder(TrainerCallback):
    """Writes loss, rewards and weights into a run's record, and calls ``evaluate(step)`` after every step.

    Args:
        record: the job's record.
        strategies: the strategies whose values the trainer logs.
        evaluate: called on every process after every step; it decides whether an evaluation is due.
    """

    def __init__(self, record: Path, strategies: Collection[str], evaluate: Callable[[int], None]) -> None:
        self.record = record
        self.strategies = strategies
        self.evaluate = evaluate

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop a trainer that was resumed after its last step: it checks that only after one more step.

        Raises:
            Trained: if no step is left.
        """
        if state.global_step >= state.max_steps:
            raise Trained

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Append a record for each log of the trainer."""
        logs = kwargs["logs"]
        if "loss" not in logs or not state.is_world_process_zero:
            return
        fields: dict[str, Any] = {ours: logs[name] for name, ours in NAMES.items() if logs.get(name) is not None}
        values = {name: logs[name] for name in self.strategies if logs.get(name) is not None}
        if values:
            fields = {"strategy": values, **fields}
        if "weight_mean" in logs:
            fields["weight"] = {"mean": logs["weight_mean"], "sd": logs["weight_sd"]}
            if "weight_q0" in logs:
                fields["weight"]["quantiles"] = [logs[f"weight_q{100 * q:g}"] for q in QUANTILES]
        append_record(self.record, "step", step=state.global_step, **fields)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call ``evaluate``."""
        self.evaluate(state.global_step)
