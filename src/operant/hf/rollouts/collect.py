"""From a model and prompts to rows: sample, decode, verify, score. Evaluation, training and measurement share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from operant.core.checks import InputError
from operant.core.rng import child_seed
from operant.hf.rollouts.chat import answers, asked
from operant.hf.rollouts.policy import Encoded, Policy
from operant.hf.rollouts.rows import Row, VerifyBatch, failed, verified
from operant.hf.rollouts.sampling import RolloutSettings, sample
from operant.verify import Prompt

Score = Callable[[Sequence[Any], Sequence[Any]], Sequence[float]]
"""A reward model: scores of (what was asked, answers), both texts or both conversations."""


@dataclass(frozen=True)
class Collector:
    """Rollouts of any number of prompts, verified and scored. Several processes share the prompts by chunks.

    Args:
        settings: how many rollouts, and how they are drawn.
        grade: the verifier; None leaves the reward to ``score``.
        score: the reward model.
        chat: whether the reward model reads conversations.
    """

    settings: RolloutSettings
    grade: VerifyBatch | None
    score: Score | None = None
    chat: bool = False

    def __call__(self, policy: Policy, prompts: Sequence[Prompt], encoded: Sequence[Encoded]) -> list[Row]:
        """M rows a prompt, in the order of the prompts, equal on all processes.

        The model samples without dropout and is left in the mode it was in. Every chunk has its own seed: the rows do
        not depend on the number of processes.
        """
        rank, world = _rank_and_world()
        training = policy.model.training
        try:
            chunks = list(sampled(policy, prompts, encoded, self.settings, start=rank, step=world))
        finally:
            policy.model.train(training)
        rows = [row for chunk in chunks for row in chunk]
        size = self.settings.batch_size
        first = [i * size for i in range(rank, -(-len(prompts) // size), world)]
        owners = [p for i in first for p in prompts[i : i + size] for _ in range(self.settings.rollouts)]
        if self.grade is not None:
            rows = verified(rows, owners, self.grade)
        if self.score is not None and rows:
            rows = scored(rows, asked(owners, chat=self.chat), self.score)
            # Without a verifier the score is the reward; a verdict stays.
            rows = [{"reward": row["score"], **row} for row in rows]
        return _gathered(rows, len(prompts) * self.settings.rollouts, size * self.settings.rollouts)


@dataclass
class SuccessRate:
    """p of every prompt by M rollouts: c / m with c correct of the m that the verifier could grade.

    The rate is c/m and not Laplace's (c+1)/(M+2). It is unbiased for p, and it is 0 where nothing succeeded, where the
    weight of the objective has its limit (1 for pass@N). Laplace gives such a prompt p = 1/(M+2), and pass@64 then
    gives it a weight of 0.01 at M = 8: the prompts that the objective is for would drop out. A rollout that the
    verifier failed on is no wrong answer: it drops out of c and of m. A prompt without a graded rollout has the rate
    NaN, "not known".

    The model samples as it stands in the trainer. Where several processes each hold the whole model they share the
    prompts, and each gets all rates.

    Args:
        policy: the model in training itself, not a copy.
        prompts: one for every value of ``prompt_index``, in its order.
        encoded: their tokens; only ``prompt`` of each is used.
        grade: the verifier.
        settings: of the rollouts. The weight tells apart p below and above log(N)/N if M is a few times N.
        fresh: whether every call draws anew, from torch's global generator. The trainer seeds it by its step, so a
            resumed run draws what it would have drawn. False: from the seed of ``settings``, the same at every call.

    Raises:
        InputError: for prompts and tokens that differ in number.
    """

    policy: Policy
    prompts: Sequence[Prompt]
    encoded: Sequence[Encoded]
    grade: VerifyBatch
    settings: RolloutSettings
    fresh: bool = True
    failures: Counter[str] = field(default_factory=Counter[str], init=False)
    """Rollouts that the verifier failed on, by kind, over all calls."""

    def __post_init__(self) -> None:
        """Check the sizes."""
        if not len(self.prompts) == len(self.encoded) > 0:
            raise InputError(
                f"expected one encoded prompt for every prompt, got {len(self.encoded)} for {len(self.prompts)}."
            )

    def __call__(self) -> Tensor:
        """Measure now: (P,) float64, NaN where no rollout could be graded.

        Raises:
            InputError: for a reward that is neither 0 nor 1, or not one verdict a completion.
        """
        seed = int(torch.randint(2**62, ())) if self.fresh else self.settings.seed
        collect = Collector(replace(self.settings, seed=child_seed(seed, "success rate")), self.grade)
        rows = collect(self.policy, self.prompts, self.encoded)
        self.failures.update(failed(rows))
        rewards = [row["reward"] for row in rows]
        odd = [r for r in rewards if r not in (None, 0, 1)]
        if odd:
            raise InputError(
                f"expected rewards of 0 or 1 for a success rate, got {odd[0]}: let the verifier say what counts as "
                "success."
            )
        known = torch.tensor([r is not None for r in rewards]).view(len(self.prompts), -1)  # (P, M)
        correct = torch.tensor([r or 0.0 for r in rewards], dtype=torch.float64).view_as(known)
        return correct.sum(-1) / known.sum(-1)  # 0 / 0 is NaN: not known


def sampled(
    policy: Policy,
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
    settings: RolloutSettings,
    *,
    start: int = 0,
    step: int = 1,
) -> Iterator[list[Row]]:
    """Rows of the chunks start, start + step, ...: what was asked, the completion's text, and how it ended."""
    chunks = sample(policy, encoded, settings, start=start, step=step)
    for i, chunk in enumerate(chunks):
        first = (start + i * step) * settings.batch_size
        owners = [p for p in prompts[first : first + settings.batch_size] for _ in range(settings.rollouts)]
        yield [
            {
                "prompt": p.id,
                "target": p.target,
                "completion": policy.text(tokens),
                "tokens": len(tokens),
                "finished": policy.finished(tokens),
            }
            for p, tokens in zip(owners, chunk, strict=True)
        ]


def scored(rows: Sequence[Row], questions: Sequence[Any], score: Score) -> list[Row]:
    """Rows with the reward model's score.

    Args:
        rows: with a completion.
        questions: the text or the conversation that each row answers.
        score: the reward model.
    """
    said = answers([row["completion"] for row in rows], chat=not isinstance(questions[0], str))
    scores = score(questions, said)
    return [{**row, "score": value} for row, value in zip(rows, scores, strict=True)]


def _rank_and_world() -> tuple[int, int]:
    """Number of this process among those that share the prompts, and how many they are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def _gathered(rows: list[Row], total: int, size: int) -> list[Row]:
    """The rows of all processes in the order of the prompts; the chunks of ``size`` rows were dealt out in turn."""
    _, world = _rank_and_world()
    if world == 1:
        return rows
    shares: list[list[Row]] = [[] for _ in range(world)]
    # Texts have different lengths, so objects are gathered and not tensors.
    dist.all_gather_object(shares, rows)
    chunks = range(-(-total // size))
    return [row for c in chunks for row in shares[c % world][c // world * size : (c // world + 1) * size]]
