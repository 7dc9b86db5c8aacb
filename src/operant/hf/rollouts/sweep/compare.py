"""Rollouts of the same prompts from another sampler or model, beside those of a plan: what they gain, by prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operant.core.bootstrap import resampled_means
from operant.core.checks import DataError
from operant.core.rng import numpy_generator
from operant.hf.rollouts.families import StrategyFamily
from operant.hf.rollouts.recommend import quantiles
from operant.strategies import Outcomes, Strategy, estimate


def matched(path: Path, ids: Sequence[Any], other_ids: Sequence[Any], other: Outcomes) -> Outcomes:
    """The other rollouts in the order of the plan's prompts.

    Raises:
        DataError: if the prompts differ, naming one.
    """
    place = {p: i for i, p in enumerate(other_ids)}
    odd = [p for p in ids if p not in place] or [p for p in other_ids if p not in set(ids)]
    if odd:
        raise DataError(
            f"{path}: expected rollouts of the same prompts as the plan, but {odd[0]!r:.60} is in one file only. "
            "Values of other prompts cannot be compared."
        )
    order = torch.tensor([place[p] for p in ids])
    return other.map(lambda x: x[order])


def sentences(
    path: Path,
    here: Outcomes,
    other: Outcomes,
    families: Sequence[StrategyFamily],
    advised: Sequence[Mapping[str, Any]],
    *,
    confidence: float,
    seed: int,
) -> Iterator[str]:
    """What the other rollouts are worth, at every recommended strategy and at the smallest budget of its family.

    Args:
        path: of the other rollouts, for the text.
        here: (B, M) outcomes of the plan.
        other: (B, M') outcomes of the same prompts.
        families: those of the plan.
        advised: the recommendations, with family and n.
        confidence: level of the intervals.
        seed: of the bootstrap.
    """
    binary = here.binary and other.binary
    for advice in advised:
        for family in families:
            if family.label != advice.get("family") or advice.get("n") is None:
                continue
            s, one = family.at(advice["n"]), family.at(family.budgets[0])
            there, gain = _gain(s, here, other, confidence, seed, binary)
            text = f"{path}: {s} is worth {there} there, {gain} over these rollouts"
            yield text + (f"; {one}: {_gain(one, here, other, confidence, seed, binary)[1]}." if one != s else ".")


def _gain(s: Strategy, here: Outcomes, other: Outcomes, confidence: float, seed: int, binary: bool) -> tuple[str, str]:
    """The value of the other rollouts, and their gain with its interval, as texts."""
    values: Tensor = estimate(s, other).value.double()
    difference = values - estimate(s, here).value.double()  # (B,)
    draws = resampled_means(difference[None, None].numpy(), numpy_generator(seed, "plan", "compare"))
    low, high = quantiles(torch.from_numpy(draws).flatten(), confidence)
    numbers = (difference.mean().item(), low, high)
    mean, low, high = (f"{100 * x:+z.1f}" if binary else f"{x:+z.3g}" for x in numbers)
    there = f"{100 * values.mean().item():.1f} %" if binary else f"{values.mean().item():z.3g}"
    return there, f"{mean}{' points' * binary} ({100 * confidence:g} % interval {low} to {high})"
