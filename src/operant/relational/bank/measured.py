"""Measured tasks as functions, evaluated together. Letters as in ``tasks``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array, Function, Ragged, cover, interpolator
from operant.relational.bank.task import Task


@dataclass(frozen=True, eq=False)
class Measured:
    """The tasks of a bank, interpolated.

    Args:
        tasks: F tasks, at least one of them measured.
        method: how they are interpolated, of METHODS.
        shared: whether all are known at the same points.
        lined_up: all curves of one input side by side, where a larger bank has built them.
    """

    tasks: Sequence[Task]
    method: str
    shared: bool
    lined_up: Ragged | None = None
    _single: dict[int, Function] = field(default_factory=dict[int, Function], init=False, repr=False)

    def part(self, tasks: Sequence[Task], rows: Sequence[int]) -> Measured:
        """Some of the tasks, with the curves that stand here already."""
        lined_up = None if self.ragged is None else self.ragged.select(np.array(rows))
        return Measured(tasks, self.method, False, lined_up)

    @cached_property
    def ragged(self) -> Ragged | None:
        """All tasks of one input, where their points differ; None where that cannot be."""
        if self.lined_up is not None:
            return self.lined_up
        if self.tasks[0].x.shape[1] > 1 or any(t.function is not None for t in self.tasks):
            return None
        return Ragged.of([(t.x, t.y) for t in self.tasks], self.method)

    @cached_property
    def _curves(self) -> list[Function]:
        """One curve for all tasks on shared points, otherwise one a task."""
        if self.shared:
            y = np.concatenate([t.y for t in self.tasks], axis=1)  # (P, F C)
            return [interpolator(self.tasks[0].x, y, self.method)]
        return [t.function or interpolator(t.x, t.y, self.method) for t in self.tasks]

    @cached_property
    def _covers(self) -> list[Callable[[Array], NDArray[np.bool_]]]:
        return [cover(t.x) for t in (self.tasks[:1] if self.shared else self.tasks)]

    def values(self, x: Array) -> Array:
        """(F, Q, C) values at (Q, D)."""
        if self.shared:
            return self._curves[0](x).reshape(len(x), len(self.tasks), -1).swapaxes(0, 1)
        if self.ragged is not None:
            return self.ragged(x)
        return np.stack([curve(x) for curve in self._curves])

    def curve(self, i: int) -> Function:
        """One measured task as a function (Q, D) -> (Q, C)."""
        if i not in self._single:
            self._single[i] = interpolator(self.tasks[i].x, self.tasks[i].y, self.method)
        return self._single[i]

    def covers(self, x: Array) -> NDArray[np.bool_]:
        """(F, Q) whether points (Q, D) lie where a task is known."""
        inside = np.stack([c(x) for c in self._covers])
        return np.broadcast_to(inside, (len(self.tasks), len(x)))
