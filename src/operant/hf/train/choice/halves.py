"""Choose on one half of the prompts and report on the other, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from operant.core.checks import NotDefinedError
from operant.core.rng import torch_generator
from operant.strategies import Strategy

K = TypeVar("K", bound=Hashable)


def has_success(s: Strategy) -> bool:
    """Whether S(p) of a single p exists."""
    try:
        s.success(torch.tensor(-1.0, dtype=torch.float64))
    except NotDefinedError:
        return False
    return True


def cross_fitted(values: Mapping[K, Tensor], seed: int, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[K]]:
    """Each half's scores at the setting with the largest mean score on the other half, and the two settings.

    Args:
        values: (B,) by setting, log-probabilities for example.
        seed: of the halves.
        score: of these values, elementwise.
    """
    scores = {setting: score(value) for setting, value in values.items()}
    size = len(next(iter(scores.values())))
    first = torch.zeros(size, dtype=torch.bool)
    first[torch.randperm(size, generator=torch_generator(seed, "halves"))[: size // 2]] = True
    found, chosen = torch.empty(size, dtype=torch.float64), list[K]()
    for half in (first, ~first):
        best = max(scores, key=lambda s: scores[s][~half].mean().item())
        found[half] = scores[best][half]
        chosen.append(best)
    return found, chosen
