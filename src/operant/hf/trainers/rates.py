"""The success rates of the training prompts that a trainer weighs by: measured on a schedule, saved with its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor

from operant.core.checks import DataError
from operant.core.rng import child_seed

RATES = "operant success rates"
"""Where the trainer's saved state holds them."""


class Rates:
    """Success rates that a trainer uses: measured at the start and on a schedule, saved and resumed with its state.

    A prompt whose rate is not known keeps its last one; before it has one it takes the mean of the others. A prompt's
    weight is shared by its solutions: with R rows, P prompts and s solutions of this prompt each has the share
    R / (P s), which is 1 where every prompt has one.

    Args:
        measure: success rate of every prompt, (P,), NaN where not known.
        rows: the training rows, with a column ``prompt_index``.
        every: steps between measurements, 0 = at the start only.
        seed: of the random stream that ``measure`` finds; training's own stream is left as it was.

    Raises:
        DataError: for rows without a prompt_index >= 0.
    """

    def __init__(self, measure: Callable[[], Tensor], rows: Any, *, every: int, seed: int) -> None:
        names = [name for name in ("prompt_index", "seq_lengths") if name in rows.column_names]
        if "prompt_index" not in names:
            raise DataError('level="answer" needs a column prompt_index: the place of the row\'s prompt in the rates.')
        index = torch.cat([_prompt_index(row) for row in rows.select_columns(names)])
        if int(index.min()) < 0:
            raise DataError(f"expected prompt_index >= 0, got {int(index.min())}.")
        solutions = torch.bincount(index)
        self.share = len(index) / (int((solutions > 0).sum()) * solutions.double())
        self.rates = torch.empty(0)
        self.unknown: float = 0.0
        self._measure, self._every, self._seed = measure, every, seed
        self._loaded: object = None

    def update(self, state: Any, model: Any, device: torch.device) -> None:
        """Measure if the step is due; take what a resumed run was using if it is not."""
        step = int(state.global_step)
        saved: Any = state.stateful_callbacks.get(RATES)
        due = step % self._every == 0 if self._every else step == 0
        if saved is None or (due and saved["step"] != step):
            rates = self._known(self._new(step, model, device), saved)
            saved = state.stateful_callbacks[RATES] = {"step": step, "rates": rates.tolist(), "unknown": self.unknown}
        if saved is not self._loaded:
            self.rates = torch.tensor(saved["rates"], dtype=torch.float64, device=device)
            self.share, self.unknown, self._loaded = self.share.to(device), saved["unknown"], saved

    def of(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Success rate and share of rows with these prompt indices."""
        return self.rates[index], self.share[index]

    def summary(self) -> dict[str, float]:
        """For the log: mean rate, and the share of prompts that the last measurement could not tell."""
        return {"success_rate": float(self.rates.mean()), "success_rate_unknown": self.unknown}

    def _new(self, step: int, model: Any, device: torch.device) -> Tensor:
        training = model.training
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(child_seed(self._seed, "measure", step))
            rates = self._measure().to(device, torch.float64)
        model.train(training)
        shared: Any = broadcast(rates)
        return shared

    def _known(self, rates: Tensor, saved: Mapping[str, Any] | None) -> Tensor:
        if rates.ndim != 1 or len(rates) < len(self.share):
            raise DataError(
                f"expected measure() to return (P,) rates with P > {len(self.share) - 1}, the largest prompt_index, "
                f"got {tuple(rates.shape)}."
            )
        known = ~rates.isnan()
        if not bool(known.any()):
            raise DataError("no success rate could be measured, every one is NaN: look at the verifier's failures.")
        self.unknown = 1 - known.double().mean().item()
        last = rates[known].mean().expand_as(rates) if saved is None else rates.new_tensor(saved["rates"])
        return torch.where(known, rates, last)


def with_prompt_index(collator: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """TRL's collator, and the prompt index of every sequence of the batch as ``prompt_index``, (S,)."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collator(rows)
        if "prompt_index" in rows[0]:
            batch["prompt_index"] = torch.cat([_prompt_index(row) for row in rows])
        return batch

    return collate


def _prompt_index(row: Mapping[str, Any]) -> Tensor:
    """Prompt index of each sequence of a row: one, or in a packed row the one at the end of each."""
    index = torch.tensor(row["prompt_index"])
    if index.ndim == 0:
        return index[None]
    return index[torch.tensor(row["seq_lengths"]).cumsum(0) - 1]
