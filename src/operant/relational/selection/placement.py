"""Moving the points of a target onto a bank task that is not known there.

A backtest gives an outer task the context points of the target. If the task is not known at them, context and query
points move onto it together. Their number, their order and which of them are query points stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context


@dataclass(frozen=True, eq=False)
class Placement:
    """x -> scale x + shift, for each input.

    Args:
        scale: (D,) positive.
        shift: (D,).
    """

    scale: Array
    shift: Array

    @classmethod
    def none(cls, d: int) -> Placement:
        """The identity."""
        return cls(np.ones(d), np.zeros(d))

    @property
    def moved(self) -> bool:
        """Whether it is not the identity."""
        return bool((self.scale != 1).any() or (self.shift != 0).any())

    def __call__(self, x: Array) -> Array:
        """(P, D) points on the bank task."""
        return self.scale * x + self.shift if self.moved else x


def place(known: Array, context: Array, query: Array) -> Placement:
    """The smallest move that brings a target's points onto a task.

    Nothing moves if the task spans the context and a query point. Otherwise the box of context and query points is
    shrunk to the task's own box where it is larger, and then shifted until the task spans it.

    Args:
        known: (N, D) points where the task is known.
        context: (P, D) context points of the target.
        query: (Q, D) query points of the target.
    """
    low, high = known.min(0), known.max(0)
    slack = 1e-9 * np.maximum(high - low, 1e-300)
    inside = [((x >= low - slack) & (x <= high + slack)).all(1) for x in (context, query)]
    still = Placement.none(known.shape[1])
    if inside[0].all() and inside[1].any():
        return still
    every = np.concatenate([context, query])
    first, last = every.min(0), every.max(0)
    extent, room = last - first, high - low
    scale = np.where(extent > room, room / np.where(extent > 0, extent, 1.0), 1.0)
    if not (scale > 0).all():  # an input that never varies in the task
        return still
    shift = np.clip(0.0, low - scale * first, np.maximum(high - scale * last, low - scale * first))
    return Placement(scale, shift)


def layout_of(bank: TaskBank, context: Context) -> Array:
    """(P, D) the points of a context; if the bank is dense, (2, D) their rounded ends.

    A backtest uses nothing else of the points, so that its result does not depend on which target came first. Between
    the points of a dense task, interpolated values are as good as measured ones, so equal ends share a backtest.
    """
    if len(context.x) > 2 and _bank_is_dense(bank, len(context.x)):
        return np.stack([np.floor(2 * context.x.min(0) + 0.25), np.ceil(2 * context.x.max(0) - 0.25)]) / 2
    return context.x


def _bank_is_dense(bank: TaskBank, points: int) -> bool:
    """Whether values between the points of a task are as good as measured ones."""
    return bank.callable or (bank.d == 1 and min(len(t.x) for t in bank.tasks) >= max(24, 3 * points))
