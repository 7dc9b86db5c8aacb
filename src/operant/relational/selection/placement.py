"""Where the points of a target lie on a bank task that is not known there.

A backtest gives a bank task the context points of the target. Where the task is not known at them, the target's points
are moved onto it as a whole, so that the number of points, their order, and which of them are asked for stay the same.
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
        """The one that does nothing."""
        return cls(np.ones(d), np.zeros(d))

    @property
    def moved(self) -> bool:
        """Whether it does anything."""
        return bool((self.scale != 1).any() or (self.shift != 0).any())

    def __call__(self, x: Array) -> Array:
        """(P, D) points on the bank task."""
        return self.scale * x + self.shift if self.moved else x


def place(known: Array, context: Array, query: Array) -> Placement:
    """The smallest move that brings a target's points onto a task.

    Nothing moves where the task spans the context and a query. Otherwise the box of context and queries is
    shifted until the task spans it, and is first shrunk to the task's own box where it is larger.

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
    """(P, D) the context's points; (2, D) their rounded ends where the bank is dense, since then others are as good.

    All that a backtest takes from the points: what it gives must not depend on which target came first.
    """
    if len(context.x) > 2 and bank_is_dense(bank, len(context.x)):
        return np.stack([np.floor(2 * context.x.min(0) + 0.25), np.ceil(2 * context.x.max(0) - 0.25)]) / 2
    return context.x


def bank_is_dense(bank: TaskBank, points: int) -> bool:
    """Whether values between the points of a task are as good as measured ones."""
    return bank.callable or (bank.d == 1 and min(len(t.x) for t in bank.tasks) >= max(24, 3 * points))
