"""TRL's SFT trainer with the loss of a test-time strategy: only the loss, its normalizer and packing are overridden.

The loss is the mean over sequences of -log S(p); ``level`` says what p is the probability of. The mean is over the
sequences of the whole accumulation window on all processes, so that (batch 8, accumulation 1), (1, 8), packed rows and
two processes take the same step. It works with padded batches, padding-free batches and packing ("bfd"), LoRA, QLoRA
and full fine-tuning, on TRL 0.29 and later.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]
from trl.data_utils import pack_dataset

from operant.core.checks import ConfigError, DataError, DeferredChecks, check_log_p
from operant.core.rng import torch_generator
from operant.estimators import Transform
from operant.hf.trainers.layout import LAYOUT, LayoutCollator, TargetLayout, layout
from operant.hf.trainers.rates import Rates, with_prompt_index
from operant.hf.trainers.sft_settings import AlignedSFTConfig, Level, check_settings, default_folder
from operant.hf.trainers.targets import Targets, add, model_inputs, target_tokens
from operant.hf.trainers.trl_compat import SFT_METHODS, check_methods
from operant.objectives import elasticity, elasticity_at, sft_loss
from operant.objectives.margin import token_margin
from operant.strategies import PassAt, Strategy, parse

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
CONSTANT = 1e-3
"""If sd / mean of the weights is below this in every log, the run is cross-entropy up to a scale."""
KEPT = 512
"""Weights per micro-batch that are kept for the log, at an even stride: there can be one per token."""
ADVICE: Mapping[Level, str] = {
    "sequence": 'because its whole targets have p << 1/N. Train on shorter targets, or set level to "answer" (a '
    'measured success rate), "step" or "token".',
    "answer": "because all prompts have about the same measured success rate (for example 0). Use more rollouts, "
    "another N, or a model that solves some of the prompts.",
    "token": "because all of its tokens have p << 1/N, or all have p >> 1/N. Use another N.",
    "step": 'because its lines have p << 1/N. Set level to "token", or to "answer" (a measured success rate).',
}


class _RaiseBeforeStep(TrainerCallback):
    """Raises the deferred checks of a step before the optimizer takes it.

    The host waits until the loss is computed, while the backward pass is already queued: the GPU goes on.
    """

    def __init__(self, checks: DeferredChecks) -> None:
        self._checks = checks

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Raise the first that failed; the weights are as they were before the step."""
        self._checks.raise_found()


class AlignedSFTTrainer(SFTTrainer):
    """Minimize -log S(p) of a test-time strategy. ``pass@1`` is cross-entropy, summed within a sequence.

    With a transform g the loss is g(1) - g(S(p)).

    The data set has ``input_ids`` and ``labels`` (-100 outside the target), or any columns that TRL makes them from.
    For level "answer" it also has ``prompt_index``, the index of the prompt in the result of ``measure``.

    On a GPU the loss does not wait for the host. A log-probability that is NaN or infinite raises before the optimizer
    steps (with DeepSpeed, which steps on its own: within the loss), in evaluation at its end.

    Args:
        model: as for TRL.
        args: the settings. None takes the defaults, with an output folder named after the model as in TRL.
        strategy: a strategy value that replaces ``args.strategy``, for example your own class.
        measure: returns the success rate of every prompt, (P,) in [0, 1], NaN where unknown; only for level "answer".
            Every process calls it at the start and every ``refresh_steps`` steps, with its own random stream.
        **kwargs: arguments of TRL's trainer: train_dataset, processing_class, peft_config, callbacks, ...

    Raises:
        ConfigError: for settings that would change the objective, each with its reason.
        NotDefinedError: for a strategy without an S(p).
        DataError: for a row longer than a bin, a row without a target, or a missing or unknown prompt_index.
    """

    loss_is_scaled_for_ga = True
    _name = "Aligned SFT"
    _tag_names = ["operant", "sft", "compute-aligned-training"]
    _paper = {  # noqa: RUF012
        "title": "Compute Aligned Training: Optimizing for Test Time Inference",
        "id": "2604.24957",
    }

    def __init__(
        self,
        model: Any = None,
        args: AlignedSFTConfig | None = None,
        *,
        strategy: Strategy | None = None,
        measure: Callable[[], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            args = AlignedSFTConfig(default_folder(model, "SFT"))
        check_settings(args, measure, kwargs)
        check_methods(SFTTrainer, SFT_METHODS)
        self.strategy: Strategy = strategy or parse(args.strategy)
        self.strategy.log_success(torch.zeros(1))  # raises for a strategy without an S(p)
        args.strategy = str(self.strategy)
        self.transform = Transform.parse(args.transform) if args.transform else None
        self.level: Level = args.level
        self.rates: Rates | None = None
        self._newline = torch.ones(0)
        self._weights: list[Tensor] = []
        self._seen: dict[str, list[tuple[int, int, Tensor]]] = {"train": [], "eval": []}
        self._sequences = torch.ones(())
        self._micro = 0
        self._checks = DeferredChecks()
        super().__init__(model, args=args, **kwargs)
        if any(c.is_prompt_learning for c in getattr(self.model, "peft_config", {}).values()):
            raise ConfigError("prompt tuning shifts the positions of the target: use LoRA or full fine-tuning.")
        if getattr(self, "aux_loss_enabled", False):
            raise ConfigError(
                "an auxiliary router loss changes the objective: set output_router_logits=False in the model's config."
            )
        if measure is not None:
            self.rates = Rates(measure, self.train_dataset, every=args.refresh_steps, seed=args.seed)
            self.data_collator = with_prompt_index(self.data_collator)
        if self.level == "step":
            tokenizer: Any = self.processing_class
            texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
            self._newline = torch.tensor(["\n" in text for text in texts])
        if self.accelerator.num_processes == 1 or isinstance(self.train_dataset, Dataset):
            # accelerate cuts the batches of a stream for its processes: their layout is found in each of them
            self.data_collator = LayoutCollator(self.data_collator, self.level, self._newline)
        self.add_callback(_RaiseBeforeStep(self._checks))

    def _prepare_dataset(
        self,
        dataset: Any,
        processing_class: Any,
        args: SFTConfig,
        packing: bool,
        formatting_func: Any,
        dataset_name: str,
    ) -> Any:
        """TRL's preparation, with packing that keeps rows whole and repeats their prompt index at every token."""
        whole = copy.copy(args)
        whole.max_length = None
        rows = super()._prepare_dataset(dataset, processing_class, whole, False, formatting_func, dataset_name)
        if not packing:
            return rows
        if not isinstance(rows, Dataset):
            raise ConfigError(
                f"packing needs a {dataset_name} data set with a length, got a stream: set packing=False."
            )
        lengths = [len(ids) for ids in rows["input_ids"]]
        size = int(args.max_length or 0)
        if max(lengths) > size:
            raise DataError(
                f"{sum(n > size for n in lengths)} of {len(lengths)} {dataset_name} rows are longer than max_length = "
                f"{size} (longest {max(lengths)}). Rows are not truncated: raise max_length, or remove them."
            )
        names = ("input_ids", "labels", "completion_mask", "assistant_masks", "prompt_index")
        rows = rows.select_columns([name for name in names if name in rows.column_names])
        if "prompt_index" in rows.column_names:
            rows = rows.map(lambda row: {"prompt_index": [row["prompt_index"]] * len(row["input_ids"])})
        return pack_dataset(rows, size, "bfd")

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the prompt index beside TRL's columns."""
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        if self.level == "answer" and "prompt_index" not in columns:
            self._signature_columns = [*columns, "prompt_index"]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Count the sequences of the accumulation window on all processes, and measure success rates when it is due."""
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        found = sum(self._layout(batch).sequences for batch in batches)
        count = torch.full((), found, device=device)
        everywhere: Any = self.accelerator.gather(count)
        self._sequences = everywhere.sum()
        self._micro = 0
        if self.rates is not None and batches:
            self.rates.update(self.state, self.model, device)
        return batches, tokens

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean loss over sequences. Evaluation leaves the margin out, and takes cross-entropy at level "answer"."""
        training, known = model.training, self._layout(inputs)
        with self._checks.collect():
            losses, weights, tokens = self._losses(model, inputs, known)
        if getattr(self, "is_deepspeed_enabled", False):
            self._checks.raise_found()
        made = torch.stack([tokens.entropy.double().sum(), tokens.top1.double().sum()])
        self._seen["train" if training else "eval"].append((len(tokens.log_p), known.tokens, made))
        if not training:
            return self._returned(losses.mean().float(), model, inputs, return_outputs)
        self._micro += 1
        self._weights.append(weights.detach()[:: -(-len(weights) // KEPT)])
        loss = (losses.sum() / self._sequences.to(losses) * self.accelerator.num_processes).float()
        return self._returned(loss, model, inputs, return_outputs)

    def _layout(self, inputs: dict[str, Any]) -> TargetLayout:
        """The layout of a batch, found here if its collator was not ours."""
        if LAYOUT not in inputs:
            inputs[LAYOUT] = layout(inputs, self.level, self._newline).to(inputs["labels"].device)
        return inputs[LAYOUT]

    def _losses(
        self, model: torch.nn.Module, inputs: Mapping[str, Any], known: TargetLayout
    ) -> tuple[Tensor, Tensor, Targets]:
        """Loss of each sequence, (S,), the weights of its units on cross-entropy, and the predictions."""
        args: Any = self.args
        training, places, count = model.training, known.places, known.sequences
        margin = args.margin if training else 0.0
        tokens = target_tokens(model, inputs, places, logits=margin > 0)
        log_p = add(tokens.log_p, places.owner, count)
        share = None
        if self.rates is not None and training:
            rates, share = self.rates.of(inputs["prompt_index"])
            losses = sft_loss(self.strategy, log_p, success_rate=rates, transform=self.transform)
            weights = elasticity_at(self.strategy, rates, self.transform)
        elif self.rates is not None:
            check_log_p(log_p)
            losses = weights = -log_p
        else:
            unit_log_p = add(tokens.log_p, places.unit, len(places.of_unit))
            losses = add(sft_loss(self.strategy, unit_log_p, transform=self.transform), places.of_unit, count)
            weights = elasticity(self.strategy, unit_log_p, self.transform) if training else losses
        if margin:
            names = ("rivals", self.state.global_step, self._micro, self.accelerator.process_index)
            generator = torch_generator(args.seed, *names, device=log_p.device)
            gold = inputs["labels"][:, 1:].flatten()[places.dense]
            pair = token_margin(tokens.logits, gold, rivals=args.rivals, generator=generator)
            losses = (1 - margin) * losses + margin * add(pair, places.owner, count)
        return losses if share is None else losses * share, weights, tokens

    def _returned(self, loss: Tensor, model: Any, inputs: Mapping[str, Any], outputs: bool) -> Any:
        """The loss; with ``outputs`` also the output of the model with all logits, from a separate forward pass."""
        if not outputs:
            return loss
        with torch.no_grad():
            return loss, model(**model_inputs(inputs))

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Return logits only if ``compute_metrics`` needs them, as in the latest TRL; older releases always do."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            if prediction_loss_only:
                return self.compute_loss(model, inputs), None, None
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        return loss, outputs.logits, inputs["labels"]

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as transformers does, and raise if a log-probability was NaN or infinite."""
        result = super().evaluation_loop(*args, **kwargs)
        self._checks.raise_found()
        return result

    def _record(self, mode: str) -> None:
        """Record TRL's metrics since the last log: accuracy and entropy of the target tokens, and training tokens."""
        found, self._seen[mode] = self._seen[mode], []
        if not found:
            return
        made = torch.stack([x for *_, x in found])
        counts = torch.tensor([x[:2] for x in found], dtype=torch.float64, device=made.device)
        everywhere: Any = self.accelerator.gather(torch.cat([counts, made], 1)[None])  # (processes, batches, 4)
        metrics: Any = self._metrics[mode]
        for count, seen, entropy, right in everywhere.sum(0).tolist():
            metrics["entropy"].append(entropy / count)
            metrics["mean_token_accuracy"].append(right / count)
            if mode == "train":
                self._total_train_tokens += int(seen) // getattr(self, "_tp_size", 1)
        metrics["num_tokens"] = [self._total_train_tokens]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the distribution of the weights since the last log, and the measured success rates."""
        train = bool(self.model.training)  # pyright: ignore[reportOptionalMemberAccess]
        self._record("train")
        self._record("eval")
        metrics: Any = self._metrics["train" if train else "eval"]
        # in place, as in the latest TRL: evaluate() returns this dict
        logs |= {name if train else f"eval_{name}": sum(x) / len(x) for name, x in metrics.items()}
        if self._weights:
            mine = torch.cat(self._weights).double()
            padded: Any = self.accelerator.pad_across_processes(mine, pad_index=math.nan)  # pyright: ignore[reportArgumentType]
            everywhere: Any = self.accelerator.gather(padded)
            weights = everywhere[~everywhere.isnan()].cpu().numpy()
            self._weights = []
            logs["weight_mean"] = float(weights.mean())
            logs["weight_sd"] = float(weights.std())
            for q, value in zip(QUANTILES, np.quantile(weights, QUANTILES).tolist(), strict=True):
                logs[f"weight_q{100 * q:g}"] = value
            if self.rates is not None:
                logs |= self.rates.summary()
        super().log(logs, start_time)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does, and warn if all weights were constant: the run was cross-entropy."""
        result = super().train(*args, **kwargs)
        logs = [log for log in self.state.log_history if "weight_sd" in log]
        constant = [log["weight_sd"] <= CONSTANT * abs(log["weight_mean"]) for log in logs]
        if logs and all(constant) and (self.strategy != PassAt(1) or self.transform is not None):
            logging.getLogger(__name__).warning(
                "the weights of %s are constant: this run is cross-entropy up to a scale, %s",
                self.strategy,
                ADVICE[self.level],
            )
        return result
