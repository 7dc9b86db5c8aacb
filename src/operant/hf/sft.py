"""TRL's SFT trainer with the loss of a test-time strategy: only the loss and its normaliser are overridden.

The loss is the mean over sequences of -log S(p), p = exp(sum of the target's token log-probabilities). It is
normalised by the sequences of the whole accumulation window over all ranks, so (batch 8, accumulation 1) and
(1, 8) take the same step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from operant.core.checks import DataError, OperantError
from operant.core.record import append_record
from operant.hf.policy import target_log_probs
from operant.objectives import sft
from operant.strategies import PassAt, Strategy, parse

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
CONSTANT = 1e-3
"""Below this sd / mean the weights are constant, and the run is cross-entropy up to a scale."""


class ConfigError(OperantError):
    """Trainer settings that would change the objective."""


@dataclass
class AlignedSFTConfig(SFTConfig):
    """TRL's SFTConfig, and the strategy that the model will be deployed with.

    Args:
        strategy: a strategy string with an S(p), such as "pass@16" or "mix(pass@1:0.25, pass@64:0.75)".
        max_length: must stay None: the probability of a cut answer is another probability.
    """

    strategy: str = field(default="pass@16", metadata={"help": "Strategy string, for example pass@16."})
    max_length: int | None = field(default=None, metadata={"help": "Must be None: targets are never cut."})


class AlignedSFTTrainer(SFTTrainer):
    """Minimise -log S(p) of a test-time strategy. ``pass@1`` is cross-entropy, summed within a sequence.

    The data set holds ``input_ids`` and ``labels`` (-100 outside the target). Needs padded batches.

    Raises:
        ConfigError: for packing, padding-free batches, a max_length, or a strategy without an S(p).
    """

    loss_is_scaled_for_ga = True
    _name = "Aligned SFT"
    _tag_names = ["operant", "sft", "compute-aligned-training"]
    _paper = {  # noqa: RUF012
        "title": "Compute Aligned Training: Optimizing for Test Time Inference",
        "id": "2604.24957",
    }

    def __init__(self, *, args: AlignedSFTConfig, **kwargs: Any) -> None:
        if args.packing or args.padding_free or args.max_length is not None:
            raise ConfigError(
                "the probability of a whole target needs one unbroken target a row: set packing=False, "
                f"padding_free=False, max_length=None (got {args.packing}, {args.padding_free}, {args.max_length})."
            )
        self.strategy: Strategy = parse(args.strategy)
        self.strategy.log_success(torch.zeros(1))  # raises now if this strategy has no S(p)
        self._weights: list[Tensor] = []
        self._sequences = torch.ones(())
        super().__init__(args=args, **kwargs)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Count the sequences of the whole accumulation window, over all ranks."""
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = torch.tensor(sum(len(batch["labels"]) for batch in batches), device=device)
        everywhere: Any = self.accelerator.gather(count)
        self._sequences = everywhere.sum()
        return batches, tokens

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over sequences of -log S(p)."""
        labels = inputs["labels"]
        if bool((labels[:, 1:] == -100).all(-1).any()):
            raise DataError("a training row has no target token: every row needs labels other than -100.")
        log_p = target_log_probs(model, inputs["input_ids"], inputs.get("attention_mask"), labels)
        losses = sft.loss(self.strategy, log_p)
        if not model.training:
            return (losses.mean(), {"log_p": log_p}) if return_outputs else losses.mean()
        self._weights.append(sft.elasticity(self.strategy, log_p))
        loss = losses.sum() / self._sequences.to(losses) * self.accelerator.num_processes
        return (loss, {"log_p": log_p}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the distribution of the weights since the last log."""
        if self._weights:
            everywhere: Any = self.accelerator.gather(torch.cat(self._weights))
            weights = everywhere.double()
            self._weights = []
            points = torch.tensor(QUANTILES, dtype=weights.dtype, device=weights.device)
            logs["weight_mean"] = weights.mean().item()
            logs["weight_sd"] = weights.std(correction=0).item()
            for q, value in zip(QUANTILES, torch.quantile(weights, points).tolist(), strict=True):
                logs[f"weight_q{100 * q:g}"] = value
        super().log(logs, start_time)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does; a run whose weights were constant throughout is cross-entropy, and says so."""
        result = super().train(*args, **kwargs)
        logs = [log for log in self.state.log_history if "weight_sd" in log]
        constant = [log["weight_sd"] < CONSTANT * abs(log["weight_mean"]) for log in logs]
        if logs and all(constant) and self.strategy != PassAt(1):
            logging.getLogger(__name__).warning(
                "the weights of %s are constant: this run is cross-entropy up to a scale, because as whole sequences "
                "its targets have p << 1/N. Train on shorter targets, or weigh by a measured success rate.",
                self.strategy,
            )
        return result


class Recorder(TrainerCallback):
    """Writes loss and weights into a run's record, and calls ``evaluate(step)`` after every step."""

    def __init__(self, record: Path, evaluate: Callable[[int], None]) -> None:
        self.record = record
        self.evaluate = evaluate

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One record for each of the trainer's logs."""
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        values = {name: float(logs[name]) for name in ("loss", "grad_norm", "learning_rate")}
        weight = {
            "mean": float(logs["weight_mean"]),
            "sd": float(logs["weight_sd"]),
            "quantiles": [float(logs[f"weight_q{100 * q:g}"]) for q in QUANTILES],
        }
        append_record(self.record, "step", step=state.global_step, weight=weight, **values)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluation is the caller's: it decides whether one is due."""
        self.evaluate(state.global_step)
