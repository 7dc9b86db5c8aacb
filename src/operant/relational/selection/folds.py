"""Folds of a bank: its outer tasks in the direction of a target, and the operators fitted to the other tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from operant.relational.bank.curves import Array
from operant.relational.bank.splits import ahead, outer
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context, RelationalOperator
from operant.relational.selection.adaptation import FittedOperators

# 33 instead of 12, with a plain mean of the predictions, was worse on noisy families (LOG.md, 2026-11-26).
OUTER_TASKS = 12
"""Tasks of an outer split that are predicted, at most."""
# One outer split of a small bank has too few tasks to tell operators apart, so several cuts are used. Six versions were
# compared on eleven families of measured curves. The one cut that is as far from its tasks as the target from the bank
# was worse: an error of .51 instead of .16 on plazek_colder, of .79 instead of .35 on earthquake.
_SMALL = 40
"""Banks up to this size have several folds."""
_WIDER = 1.5
"""The outer split of a small bank is so many times larger."""


@dataclass(frozen=True, eq=False)
class Direction:
    """The direction in which a target lies, seen from the bank.

    Args:
        name: equal for targets that share an outer split.
        along: (F,) how far each task lies in that direction; None if there is none.
    """

    name: str
    along: Array | None = None


def toward(bank: TaskBank, context: Context) -> Direction:
    """The direction of a target: by its order, its known parameters, or its values at the context points.

    Parameters are compared in standard deviations of the bank's, values in the plane of their first two principal
    components. Directions are rounded, so that neighboring targets share a backtest.
    """
    if "order" in context.labels and all("order" in t.labels for t in bank.tasks):
        return Direction("order", np.array([float(t.labels["order"]) for t in bank.tasks]))
    if context.params is not None and bank.parameters.varying.any():
        z, target = bank.parameters.standardized(bank.params), bank.parameters.standardized(context.params)
        kind = "parameters"
    else:
        values = bank.values(context.x).reshape(len(bank), -1)
        centered = values - values.mean(0)
        _, s, vt = np.linalg.svd(centered, full_matrices=False)
        kept = (s > max(1e-6 * s[0], 1e-9)) & (np.arange(len(s)) < 2)  # below, all tasks are the same but for rounding
        if not kept.any():
            return Direction("nowhere")
        axes = vt[kept] * np.where(vt[kept].sum(1) < 0, -1.0, 1.0)[:, None]
        scale = s[kept] / np.sqrt(len(bank))
        z, target = centered @ axes.T / scale, (context.y.reshape(-1) - values.mean(0)) @ axes.T / scale
        kind = "values"
    length = float(np.linalg.norm(target))
    # In the middle of the bank there is no direction; both ends are then held out.
    if not length > 0.5:
        return Direction("inside")
    # Rounded to -1, 0 and 1 for each coordinate, so that neighboring targets share folds.
    unit = np.round(target / np.abs(target).max())
    return Direction(f"{kind} {unit.tolist()}", z @ unit)


@dataclass(frozen=True, eq=False)
class Fold:
    """A bank without its outer split, and the operators fitted to it.

    Args:
        tasks: of the outer split.
        count: the first so many of them are predicted.
        operators: fitted to the other tasks.
        why: how the outer split was taken.
    """

    tasks: TaskBank
    count: int
    operators: FittedOperators
    why: str


def make_folds(
    bank: TaskBank, operators: Mapping[str, RelationalOperator], direction: Direction, share: float
) -> list[Fold]:
    """Hold out the outer tasks in this direction, and fit every operator to the rest.

    A small bank is cut at several places by :func:`operant.relational.bank.splits.ahead`; without a direction, at two.

    Raises:
        DataError: if the bank is too small.
    """
    small = len(bank) <= _SMALL
    if small and direction.along is not None:
        return [
            Fold(test, count, FittedOperators.of(operators, known), f"{why} along {direction.name}")
            for known, test, count, why in ahead(bank, direction.along, share=_WIDER * share)
        ]
    end: Literal["both", "high"] = "both" if direction.along is None else "high"
    folds: list[Fold] = []
    for part in (share, _WIDER * share) if small and _WIDER * share < 0.8 else (share,):
        split = outer(bank, share=part, end=end, along=direction.along)
        test = _spread(split.test, OUTER_TASKS)
        folds.append(Fold(test, len(test), FittedOperators.of(operators, split.train), split.why))
    return folds


def _spread(bank: TaskBank, limit: int) -> TaskBank:
    if len(bank) <= limit:
        return bank
    return bank.select(np.unique(np.linspace(0, len(bank) - 1, limit).astype(int)), method=bank.method)
