"""What was observed of the rollouts of a prompt, as a strategy takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from operant.core.checks import InputError, check_finite


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What was observed on M rollouts a prompt. Leading batch dimensions are allowed, the last is M.

    Args:
        reward: (..., M) what a rollout is worth if it is the one returned (1.0 = correct). Booleans and
            integers are taken as float32.
        answer: (..., M) integer class of the extracted answer; -1 = none could be extracted.
        score: (..., M) what the deployed selector ranks by (a reward model, a verifier); default ``reward``.

    Raises:
        InputError: for NaN or infinite values, shapes that differ, or answers below -1.

    >>> Outcomes(torch.tensor([[1, 0, 0, 1]])).m
    4
    """

    reward: Tensor
    answer: Tensor | None = None
    score: Tensor | None = None
    binary: bool = field(init=False, repr=False)
    """Whether every reward is 0 or 1. Computed once, so that no credit waits for the device."""
    verdicts: bool = field(init=False, repr=False)
    """Whether every score is 0 or 1, or every reward where there is no score."""

    def __post_init__(self) -> None:
        """Check the values and the shapes."""
        if not self.reward.is_floating_point():
            object.__setattr__(self, "reward", self.reward.float())
        if self.reward.ndim == 0 or self.reward.shape[-1] == 0:
            raise InputError(f"reward must have shape (..., M) with M >= 1, got {tuple(self.reward.shape)}.")
        check_finite("reward", self.reward)
        object.__setattr__(self, "binary", _zero_or_one(self.reward))
        for name, value in (("answer", self.answer), ("score", self.score)):
            if value is not None and value.shape != self.reward.shape:
                raise InputError(
                    f"{name} must have the shape of reward, {tuple(self.reward.shape)}, got {tuple(value.shape)}."
                )
        if self.answer is not None and (self.answer.is_floating_point() or bool((self.answer.long() < -1).any())):
            raise InputError(
                "answer must hold integer classes >= 0, or -1 where no answer could be extracted, "
                f"got {self.answer.dtype} with minimum {self.answer.min().item()}."
            )
        if self.score is not None:
            if not self.score.is_floating_point():
                object.__setattr__(self, "score", self.score.float())
            check_finite("score", self.score)
        object.__setattr__(self, "verdicts", self.binary if self.score is None else _zero_or_one(self.score))

    @property
    def m(self) -> int:
        """Rollouts observed per prompt, M."""
        return self.reward.shape[-1]

    @property
    def selector(self) -> Tensor:
        """(..., M) what the deployed selector ranks by: ``score``, or ``reward`` where there is none."""
        return self.reward if self.score is None else self.score

    def map(self, function: Callable[[Tensor], Tensor]) -> Outcomes:
        """The same index operation on every field; the values were checked already, as a whole."""
        # Without the checks, which would wait for the device at every index operation.
        new = object.__new__(Outcomes)
        for name in ("binary", "verdicts"):
            object.__setattr__(new, name, getattr(self, name))
        for name in ("reward", "answer", "score"):
            value = getattr(self, name)
            object.__setattr__(new, name, None if value is None else function(value))
        return new

    def without(self, i: int) -> Outcomes:
        """The M - 1 rollouts that remain without rollout ``i``."""
        return self.map(lambda x: torch.cat([x[..., :i], x[..., i + 1 :]], dim=-1))


def _zero_or_one(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


class Outcome(NamedTuple):
    """One rollout, as a user's value function takes it."""

    reward: float
    answer: int
    score: float
