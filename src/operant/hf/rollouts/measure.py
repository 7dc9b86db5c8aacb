"""The success rate of the current model on every prompt: measured by rollouts, and kept between measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import broadcast
from torch import Tensor

from operant.core.checks import DataError, InputError, check_int
from operant.core.rng import child_seed
from operant.hf.rollouts.policy import Encoded, Policy, sample
from operant.strategies.sampler import Sampler
from operant.verify import Prompt, Verdict


@dataclass
class SuccessRate:
    """p of every prompt by M rollouts: c / m with c correct of the m that the verifier could judge.

    c/m and not Laplace's (c+1)/(M+2): it is unbiased for p, and it is 0 where nothing succeeded, where the weight of
    the objective has its limit (1 for pass@N). Laplace gives such a prompt p = 1/(M+2), and from there pass@64 a weight
    of 0.01 at M = 8: the prompts that the objective is for would drop out. A rollout that the verifier failed on is no
    wrong answer: it drops out of c and of m. A prompt without a judged rollout has the rate NaN, "not known".

    Called from a trainer the model samples as it stands, without dropout, and is left in the mode it was in. Where
    several processes each hold the whole model they share the prompts, and each gets all rates.

    Args:
        policy: the model in training itself, not a copy.
        prompts: one for every value of ``prompt_index``, in its order.
        encoded: their tokens; only ``prompt`` of each is used.
        check: verdicts of (prompts, completions), such as ``hf.verify`` makes.
        rollouts: M. The weight tells apart p below and above log(N)/N if M is a few times N.
        max_new_tokens: longest completion.
        batch_size: prompts a call of generate; it is part of the random stream.
        sampler: the deployed one.
        seed: of the rollouts, the same at every call. None: follow torch's global generator, which the trainer
            seeds by its step, so that every refresh draws anew and a resumed run draws what it would have drawn.

    Raises:
        InputError: for prompts and tokens that differ in number.
        BudgetError: for counts below 1.
    """

    policy: Policy
    prompts: Sequence[Prompt]
    encoded: Sequence[Encoded]
    check: Callable[[Sequence[Prompt], Sequence[str]], Sequence[Verdict]]
    rollouts: int
    max_new_tokens: int
    batch_size: int = 32
    sampler: Sampler = field(default_factory=Sampler)
    seed: int | None = None
    failures: Counter[str] = field(default_factory=Counter[str], init=False)
    """Rollouts of this process's share that the verifier failed on, by kind, over all calls."""

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("rollouts", "max_new_tokens", "batch_size"):
            check_int(name, getattr(self, name), least=1)
        if not len(self.prompts) == len(self.encoded) > 0:
            raise InputError(
                f"expected one encoded prompt for every prompt, got {len(self.encoded)} for {len(self.prompts)}."
            )

    def __call__(self) -> Tensor:
        """Measure now: (P,) float64, NaN where no rollout could be judged.

        Raises:
            InputError: for a verdict that is neither 0 nor 1, or not one verdict a completion.
        """
        seed = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        world, rank = (dist.get_world_size(), dist.get_rank()) if _distributed() else (1, 0)
        chunks = range(rank * self.batch_size, len(self.prompts), world * self.batch_size)
        training = self.policy.model.training
        try:
            texts = {first: self._sample(first, child_seed(seed, "success rate", first)) for first in chunks}
        finally:
            self.policy.model.train(training)
        owners = [self._owners(first) for first in chunks]
        counts = self._count([i for rows in owners for i in rows], [t for first in chunks for t in texts[first]])
        shares = [counts]
        if world > 1:
            shares = [torch.empty(0)] * world
            dist.all_gather_object(shares, counts)
        correct, judged = torch.stack(shares).sum(0)
        return correct / judged  # 0 / 0 is NaN: not known

    def _owners(self, first: int) -> list[int]:
        """Prompt of every rollout of a chunk."""
        last = min(first + self.batch_size, len(self.prompts))
        return [i for i in range(first, last) for _ in range(self.rollouts)]

    def _sample(self, first: int, seed: int) -> list[str]:
        """Texts of a chunk's rollouts."""
        rows = self.encoded[first : first + self.batch_size]
        (tokens,) = sample(
            self.policy,
            rows,
            rollouts=self.rollouts,
            sampler=self.sampler,
            max_new_tokens=self.max_new_tokens,
            batch_size=len(rows),
            seed=seed,
        )
        return [self.policy.text(t) for t in tokens]

    def _count(self, owners: list[int], texts: list[str]) -> Tensor:
        """(2, P): correct and judged rollouts of each prompt."""
        verdicts = self.check([self.prompts[i] for i in owners], texts) if texts else []
        if len(verdicts) != len(texts):
            raise InputError(f"expected one verdict a completion, got {len(verdicts)} for {len(texts)} completions.")
        counts = torch.zeros(2, len(self.prompts), dtype=torch.float64)
        for i, verdict in zip(owners, verdicts, strict=True):
            if verdict.reward is None:
                self.failures[verdict.failure or "no reward"] += 1
                continue
            if verdict.reward not in (0, 1):
                raise InputError(
                    f"expected rewards of 0 or 1 for a success rate, got {verdict.reward}: let the verifier say what "
                    "counts as success."
                )
            counts[0, i] += verdict.reward
            counts[1, i] += 1
        return counts


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


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
