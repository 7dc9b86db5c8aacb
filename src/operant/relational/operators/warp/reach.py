"""How measured curves go on beyond their ends, and how far to trust that.

An x-warp asks its anchor for points beyond its measured range. There the bank itself can say how the curve goes on: as
an earlier stretch of itself or of another curve did, where the two agree,

    f_i(x) = s f_j(x + b) + t + u x.

A wave repeats, an exponential grows by a factor a step, a curve measured at another temperature was measured further
along. The module ``hops`` finds such relations; they are chained for points still further out. A curve also goes
straight on, with the error that straight continuations of the bank's own curves have at this distance; relation and
straight line are weighed by their precision.

One input only; letters as in ``refine``, ``G`` points of a grid.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array
from operant.relational.bank.splits import position
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.warp.hops import Hops

# Set on relaxation, fatigue and synthetic curves, as in hops. Each further source costs one relation search a task.
SOURCES = 4
"""Other curves that are tried, evenly spread over the bank."""
_HOPS = 32
"""Relations in a chain, at most."""
_TRUSTED = 0.1
"""A chain whose error is below this, in standard deviations of the bank, counts as known."""
# Tables are read by cubic interpolation, whose error is added to the doubt: fewer knots would flag more points.
KNOTS = 320
"""Knots over which a curve is continued at either end."""
# The widest x-warp searched (scale 4, shift 1.5) asks for points 2.25 ranges beyond an end.
FAR = 2.0
"""How far that is, in ranges of the bank; an x-warp asks for little more."""
_LAGRANGE = 3 / 128
"""Largest error of a cubic through four knots, in fourth differences."""


class Reach:
    """A bank whose measured curves go on beyond their ends; learned when asked for, task by task."""

    def __init__(self, bank: TaskBank) -> None:
        self.bank = bank
        self.tabled = bank.d == 1 and not bank.callable
        self._hops = {side: Hops.none(len(bank), bank.c) for side in (-1, 1)}
        self._tables = np.full(len(bank), -1), np.empty((2, 2, 0, KNOTS + 2, bank.c))

    @classmethod
    def of(cls, bank: TaskBank) -> Reach:
        """Of a bank in scaled units, remembered by it."""
        return bank.remembered("reach", lambda: cls(bank))

    def values(self, which: NDArray[np.intp], x: Array) -> tuple[Array, Array]:
        """(A, Q, C) values of tasks at (Q, D), and their standard deviations, 0 within the measured range."""
        out = self.bank.subset(tuple(which.tolist())).values(x)[: len(which)]
        if not self.tabled:
            return out, np.zeros_like(out)
        return self._continued(which, np.broadcast_to(x[:, 0], (len(which), len(x))), out)

    def at(self, which: NDArray[np.intp], x: Array) -> tuple[Array, Array]:
        """(B, .., C) the same of each task at its own points (B, .., D).

        With several inputs, anchor_sd is half of what a curve adds beyond its range.
        """
        out, anchor_sd = np.empty((*x.shape[:-1], self.bank.c)), np.zeros((*x.shape[:-1], self.bank.c))
        for i in np.unique(which):
            rows, curve, points = which == i, self.bank.curve(int(i)), self.bank.tasks[i].x
            at, shape = x[rows].reshape(-1, self.bank.d), out[rows].shape
            out[rows] = curve(at).reshape(shape)
            if not (self.tabled or self.bank.callable):
                near = curve(np.clip(at, points.min(0), points.max(0))).reshape(shape)
                anchor_sd[rows] = 0.5 * np.abs(out[rows] - near)
        if not self.tabled:
            return out, anchor_sd
        flat = out.reshape(len(which), -1, self.bank.c)
        values, anchor_sd = self._continued(which, x.reshape(len(which), -1), flat)
        return values.reshape(out.shape), anchor_sd.reshape(out.shape)

    def covers(self, i: int, x: Array) -> NDArray[np.bool_]:
        """(Q,) where task i was measured, or where relations carry it on with an error below _TRUSTED."""
        inside = self.bank.subset((i,)).covers(x)[0]
        if not self.tabled or inside.all():
            return inside
        which = np.array([i])
        anchor_sd = self.at(which, x[None])[1][0]
        related = np.where(x[:, 0] > self._ends[i, 1], *(self._hops[side].source[i] >= 0 for side in (1, -1)))
        return inside | (related & (anchor_sd < _TRUSTED).all(1))

    def _continued(self, which: NDArray[np.intp], x: Array, straight: Array) -> tuple[Array, Array]:
        """(B, Q, C) values and anchor_sd at (B, Q): ``straight`` within the range, from the tables beyond it."""
        anchor_sd = np.zeros_like(straight)
        for side, end in ((-1, self._ends[which, :1]), (1, self._ends[which, 1:])):
            steps = side * (x - end) / self._step
            beyond = steps > 0
            if not beyond.any():
                continue
            rows, tables = self._learned(which)
            (value, sd), row, z = (
                tables[max(side, 0)],
                np.broadcast_to(rows[which, None], x.shape)[beyond],
                steps[beyond],
            )
            further = np.maximum(z - (KNOTS - 1), 0.0)[:, None]
            m = np.minimum(z.astype(np.intp), KNOTS - 2)
            part = np.minimum(z - m, 1.0)[:, None]
            straight = straight if anchor_sd.any() else straight.copy()
            straight[beyond] = sum(w * value[row, m + k] for k, w in enumerate(_lagrange(part)))
            straight[beyond] += further * (value[row, KNOTS] - value[row, KNOTS - 1])
            anchor_sd[beyond] = (1 - part) * sd[row, m + 1] + part * sd[row, m + 2]
            if further.any():
                anchor_sd[beyond] += self._strayed(further[:, 0] * self._step, side)
        return straight, anchor_sd

    def _beyond(self, i: int, x: Array, side: int) -> tuple[Array, Array]:
        """(Q, C) values and standard deviations of task i at even points (Q,): by relations and straight on, mixed."""
        values, sd = self._chain(i, x, side)
        straight, other = self._straight(i, x, side)
        w = other**2 / np.maximum(sd**2 + other**2, 1e-300)
        apart = w * (1 - w) * (values - straight) ** 2
        values = w * values + (1 - w) * straight
        sd = np.sqrt(w**2 * sd**2 + (1 - w) ** 2 * other**2 + apart)
        sd[2:] += _LAGRANGE * np.abs(np.diff(values, 4, axis=0)).max(0)
        return values, sd

    def _chain(self, i: int, x: Array, side: int) -> tuple[Array, Array]:
        """(Q, C) values and standard deviations of task i at points (Q,), by relation after relation."""
        hops, c = self._hops[side], self.bank.c
        at, x = np.full(len(x), i), x.copy()
        gain, offset, sd = np.ones((len(x), c)), np.zeros((len(x), c)), np.zeros((len(x), c))
        end = self._ends[:, 1 if side > 0 else 0]
        for _ in range(_HOPS):
            distance = side * (x - end[at])
            go = (distance > 0) & (hops.source[at] >= 0)
            if not go.any():
                break
            j = at[go]
            grown = np.maximum(distance[go] / hops.length[j], 1.0) ** 2
            sd[go] += np.abs(gain[go]) * hops.error[j] * grown[:, None]
            offset[go] += gain[go] * (hops.t[j] + hops.u[j] * x[go, None])
            gain[go] *= hops.s[j]
            x[go] += hops.b[j]
            at[go] = hops.source[j]
        values = np.empty((len(x), c))
        for j in np.unique(at):
            rows = at == j
            values[rows], beyond = self._straight(int(j), x[rows], side)
            sd[rows] += np.abs(gain[rows]) * beyond
        return offset + gain * values, sd

    def _straight(self, i: int, x: Array, side: int) -> tuple[Array, Array]:
        """(Q, C) task i at points (Q,), straight on beyond its end, and how wrong that may be.

        As wrong as straight continuations within the bank are, and by half of what is added.
        """
        distance = np.maximum(side * (x - self._ends[i, max(side, 0)]), 0.0)
        values = self.bank.curve(i)(x[:, None])
        added = values - self.bank.curve(i)((x - side * distance)[:, None])
        return values, np.maximum(self._strayed(distance, side), 0.5 * np.abs(added))

    def _strayed(self, distance: Array, side: int) -> Array:
        """(Q, C) error of going straight on so far (Q,); in proportion beyond half of the bank's range."""
        steps, errors = self._grown[side]
        out = np.stack([np.interp(distance, steps, e) for e in errors.T], axis=1)
        return out * np.maximum(distance / steps[-1], 1.0)[:, None]

    @cached_property
    def _ends(self) -> Array:
        """(F, 2) first and last point of each task."""
        return np.array([[t.x.min(), t.x.max()] for t in self.bank.tasks])

    @cached_property
    def _step(self) -> float:
        """Between knots of the tables."""
        return float(self.bank.range[1][0] - self.bank.range[0][0]) * FAR / KNOTS

    @cached_property
    def _grid(self) -> Array:
        """(G,) evenly spread points of the bank's range."""
        count = int(np.clip(np.median([len(t.x) for t in self.bank.tasks]), 33, 97))
        return np.linspace(self.bank.range[0][0], self.bank.range[1][0], count)

    @cached_property
    def _others(self) -> NDArray[np.intp]:
        """(S,) curves that others may follow."""
        order = np.argsort(position(self.bank), kind="stable")
        return np.unique(order[np.linspace(0, len(order) - 1, min(SOURCES, len(order))).astype(int)])

    @cached_property
    def _grown(self) -> dict[int, tuple[Array, Array]]:
        """side -> (H,) distances and (H, C) root mean square errors of straight continuations within the bank."""
        rows = np.unique(np.linspace(0, len(self.bank) - 1, min(24, len(self.bank))).astype(int))
        x = self._grid[:, None]
        some = self.bank.subset(tuple(rows.tolist()))
        values, inside = some.values(x)[: len(rows)], some.covers(x)[: len(rows)]
        out = {}
        for side in (-1, 1):
            v, m = values[:, ::side], inside[:, ::side]
            errors = [np.zeros(self.bank.c)]
            for h in range(1, len(x) // 2 + 1):
                fine = m[:, :-h][:, 1:] & m[:, h + 1 :] & m[:, : -h - 1]
                gap = v[:, h + 1 :] - v[:, 1:-h] - h * (v[:, 1:-h] - v[:, : -h - 1])
                mean = (gap**2 * fine[..., None]).sum((0, 1)) / max(int(fine.sum()), 1)
                errors.append(np.maximum(np.sqrt(mean), errors[-1]))
            out[side] = (x[: len(errors), 0] - x[0, 0], np.array(errors))
        return out

    def _learned(self, which: NDArray[np.intp]) -> tuple[NDArray[np.intp], Array]:
        """(F,) rows of tasks in the tables, with those of ``which``; and the tables, (2, 2, A, KNOTS + 2, C).

        By side, value or anchor_sd, task, and knot from one before the end on. Adding something makes new tables, since
        other threads may be reading the old ones.
        """
        rows, tables = self._tables
        if (rows[which] >= 0).all():
            return rows, tables
        new = np.unique(np.concatenate([which, self._others]))
        new = new[rows[new] < 0]
        steps, more = self._step * np.arange(-1, KNOTS + 1), np.empty((2, 2, len(new), KNOTS + 2, self.bank.c))
        for place, side in enumerate((-1, 1)):
            self._hops[side].learn(self.bank, new, self._others, self._grid, side)
            for row, i in enumerate(new):
                more[place, :, row] = self._beyond(int(i), self._ends[i, place] + side * steps, side)
        rows = rows.copy()
        rows[new] = tables.shape[2] + np.arange(len(new))
        self._tables = rows, np.concatenate([tables, more], axis=2)
        return self._tables


def _lagrange(z: Array) -> tuple[Array, ...]:
    """Weights of the values at -1, 0, 1, 2 in the cubic through them, at z."""
    a, b, c, d = z + 1, z, z - 1, z - 2
    return -b * c * d / 6, a * c * d / 2, -a * b * d / 2, a * b * c / 6
