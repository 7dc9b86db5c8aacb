"""Splits that ask for extrapolation: an outer region, an order, a combination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from operant.core.checks import DataError
from operant.relational.curves import Array
from operant.relational.tasks import TaskBank


@dataclass(frozen=True, eq=False)
class Split:
    """A bank to learn from, and the tasks that were held out of it."""

    train: TaskBank
    test: TaskBank
    why: str


def position(bank: TaskBank, *, by: str | None = None) -> Array:
    """(F,) where each task stands in the bank's range, increasing from one end to the other.

    The value of the parameter ``by``; without it the only parameter, or else the score of the task on the first
    principal component of the curves on a common grid.

    Raises:
        DataError: if there is no such parameter.
    """
    if by is not None:
        if by not in bank.param_names:
            raise DataError(f"no parameter {by!r}; there are: {', '.join(bank.param_names) or 'none'}.")
        return bank.params[:, bank.param_names.index(by)]
    if len(bank.param_names) == 1:
        return bank.params[:, 0]
    curves = bank.values(bank.grid()).reshape(len(bank), -1)
    centred = curves - curves.mean(0)
    return np.linalg.svd(centred, full_matrices=False)[2][0] @ centred.T


def outer(
    bank: TaskBank,
    *,
    share: float = 1 / 3,
    end: Literal["high", "low", "both"] = "both",
    by: str | None = None,
    along: Array | None = None,
) -> Split:
    """Hold out the tasks at the end of the range: what extrapolation within the bank means.

    Args:
        bank: at least three tasks.
        share: held-out part.
        end: which end; "both" takes half of the share from each.
        by: the parameter that orders the tasks, see :func:`position`.
        along: (F,) positions to order them by instead.

    Raises:
        DataError: if less than two tasks would be left to train on, or none to test on.
    """
    where = position(bank, by=by) if along is None else along
    rank = np.argsort(np.argsort(where, kind="stable"), kind="stable")
    f, k = len(bank), max(1, round(share * len(bank)))
    low = k // 2 if end == "both" else k if end == "low" else 0
    test = (rank < low) | (rank >= f - (k - low))
    if test.all() or f - test.sum() < 2:
        raise DataError(f"expected at least two tasks inside and one outside, got {f} tasks and share={share:g}.")
    name = by or (bank.param_names[0] if len(bank.param_names) == 1 else "the first principal component")
    return Split(
        bank.select(np.flatnonzero(~test)), bank.select(np.flatnonzero(test)), f"outer {end} {share:.0%} along {name}"
    )
