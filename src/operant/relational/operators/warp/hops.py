"""Relations between stretches of measured curves: f_i(x) = s f_j(x + b) + t + u x, found on all of a curve but its end.

A relation is looked for on an even grid, refined by Levenberg-Marquardt, and kept if it predicts the last fifth of the
curve, which it was not fitted to, much better than going straight on does. One input; letters as in ``refine``, ``G``
points of a grid, ``K`` shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.warp.parameters import Layout
from operant.relational.operators.warp.refine import FLOOR, model, refine
from operant.relational.transforms import Scale, Shift, Trend, XShift

# The constants of this module were set on relaxation, fatigue and synthetic curves.
_HELD = 0.2
"""Part of a curve that a relation must predict before it is used."""
# With 3 instead of 10, relations fitted logistic curves by chance and their predictions got worse.
_BETTER = 10.0
"""How many times better than going straight on it must do so: of many relations, some fit by chance."""
_LEAST = 0.3
"""Part of a curve on which it must agree."""
_TRIED = (3, 1)
"""Relations that are refined: to the curve itself, to others."""
STEPS = 12
"""Of the refinement, at most."""
_DIGITS = 10
"""Relations are rounded, so that they do not depend on those that are refined beside them."""


@dataclass(frozen=True, eq=False)
class Hops:
    """One relation a task at one end, in scaled units; ``source`` is -1 where there is none.

    Args:
        source: (F,) positions of f_j.
        b: (F,) shift.
        s: (F, C) factor.
        t: (F, C) offset.
        u: (F, C) slope.
        error: (F, C) root mean square error on the part that was held out.
        length: (F,) of that part.
    """

    source: NDArray[np.intp]
    b: Array
    s: Array
    t: Array
    u: Array
    error: Array
    length: Array

    @classmethod
    def none(cls, f: int, c: int) -> Hops:
        """None yet."""
        s, t, u, error = np.zeros((4, f, c))
        return cls(np.full(f, -1), np.zeros(f), s, t, u, error, np.ones(f))

    def learn(self, bank: TaskBank, rows: NDArray[np.intp], others: NDArray[np.intp], grid: Array, side: int) -> None:
        """Write the best relation of each task of ``rows`` at one end.

        Args:
            bank: measured, in scaled units.
            rows: (A,) tasks.
            others: (S,) tasks that they may follow, beside themselves.
            grid: (G,) evenly spread points.
            side: 1 for the upper end, -1 for the lower one.
        """
        every = np.unique(np.concatenate([rows, others]))
        part = bank.subset(tuple(every.tolist()))
        x = grid[::side][:, None]  # the end that matters is the last one
        window = Windows.of(part.values(x)[: len(every)], part.covers(x)[: len(every)])
        near = np.searchsorted(every, others)
        found = [r for i in np.searchsorted(every, rows) for r in window.relations(int(i), near)]
        if not found:
            return
        layout = Layout.of(Shift() * Scale() * Trend() * XShift(), bank)
        i, j, k = (np.array(v) for v in zip(*found, strict=True))
        step = float(x[1, 0] - x[0, 0])  # negative at the lower end
        theta = np.tile(layout.identity(), (len(i), 1))
        theta[:, 0] = -k * step
        counts, held = window.counts(i, j, k)
        theta = _refined(bank, layout, x, window.values[i], every[j], theta, counts)
        guess, *_ = model(bank, layout, every[j], theta, x)
        error = window.error(guess, i, held)  # (B, C)
        score = (error**2).mean(1)
        good = held.any(1) & (_BETTER**2 * score < (window.error(window.straight(i), i, held) ** 2).mean(1))
        ranked = np.flatnonzero(good)[np.lexsort((score[good], i[good]))]
        b = ranked[np.unique(i[ranked], return_index=True)[1]]  # the best of each task
        if not len(b):
            return
        theta = _refined(bank, layout, x, window.values[i[b]], every[j[b]], theta[b], (counts | held)[b])
        linear, at = layout.linear(theta), every[i[b]]  # (B, C, 3): scale, trend, shift
        self.source[at], self.b[at] = every[j[b]], theta[:, 0]
        self.s[at], self.u[at], self.t[at] = linear[..., 0], linear[..., 1], linear[..., 2]
        self.error[at], self.length[at] = np.maximum(error[b], FLOOR), held[b].sum(1) * abs(step)


def _refined(
    bank: TaskBank,
    layout: Layout,
    x: Array,
    y: Array,
    anchor: NDArray[np.intp],
    theta: Array,
    counts: NDArray[np.bool_],
) -> Array:
    """(B, T) least squares from ``theta``, of which the shift moves little: where all shifts fit, 0 would be one."""
    mean = np.tile(layout.identity(), (len(theta), 1))
    sd = np.full(theta.shape, 3.0)
    mean[:, 0], sd[:, 0] = theta[:, 0], abs(x[1, 0] - x[0, 0])
    floor = np.full(bank.c, FLOOR)
    found = refine(bank, layout, x, y, anchor, theta, mean=mean, sd=sd, floor=floor, counts=counts, steps=STEPS)
    return np.round(found.theta, _DIGITS)


@dataclass(frozen=True, eq=False)
class Windows:
    """Curves on an even grid whose last points are the end that matters.

    Args:
        values: (F, G, C).
        inside: (F, G) where they are known.
        first: (F,) first known point.
        cut: (F,) last point that relations are fitted to.
        last: (F,) last known point.
    """

    values: Array
    inside: NDArray[np.bool_]
    first: NDArray[np.intp]
    cut: NDArray[np.intp]
    last: NDArray[np.intp]

    @classmethod
    def of(cls, values: Array, inside: NDArray[np.bool_]) -> Windows:
        """From curves and where they are known."""
        first, last = inside.argmax(1), inside.shape[1] - 1 - inside[:, ::-1].argmax(1)
        return cls(values, inside, first, last - np.maximum(np.round(_HELD * (last - first)).astype(int), 2), last)

    def relations(self, i: int, others: NDArray[np.intp]) -> list[tuple[int, int, int]]:
        """(i, j, k): curve i as curve j did k points before; the best few by least squares."""
        size = int(self.last[i] - self.first[i])
        if size < 8:
            return []
        found: list[tuple[int, int, int]] = []
        for sources, limit in zip(([i], [int(o) for o in others if o != i]), _TRIED, strict=True):
            each: list[tuple[float, tuple[int, int, int]]] = []
            for j in sources:
                further = int(self.last[i] - self.last[j] + 0.1 * size) + 1
                shifts = np.arange(self.last[i] - self.cut[i] if i == j else max(further, -size), size)
                misfit = self._misfit(i, j, shifts, max(_LEAST * size, 5))
                low = np.isfinite(misfit)
                low[1:] &= misfit[1:] <= misfit[:-1]
                low[:-1] &= misfit[:-1] <= misfit[1:]
                each += [(float(misfit[n]), (i, j, int(shifts[n]))) for n in np.flatnonzero(low)]
            found += [r for _, r in sorted(each)[:limit]]
        return found

    def counts(
        self, i: NDArray[np.intp], j: NDArray[np.intp], k: NDArray[np.intp]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(B, G) points that relations are fitted to, and points that are held out."""
        g = np.arange(self.values.shape[1])
        back = g - k[:, None]
        most = np.where(i == j, self.cut[j], self.last[j])[:, None]
        source = self.inside[j[:, None], np.clip(back, 0, len(g) - 1)] & (back >= self.first[j][:, None])
        both = self.inside[i] & source & (back <= most)
        return both & (g <= self.cut[i][:, None]), both & (g > self.cut[i][:, None])

    def error(self, guess: Array, i: NDArray[np.intp], held: NDArray[np.bool_]) -> Array:
        """(B, C) root mean square errors of curves (B, G, C) where (B, G) they are held out."""
        square = (guess - self.values[i]) ** 2 * held[..., None]
        return np.round(np.sqrt(square.sum(1) / np.maximum(held.sum(1), 1)[:, None]), _DIGITS)

    def straight(self, i: NDArray[np.intp]) -> Array:
        """(B, G, C) curves going straight on from the cut."""
        at, cut = np.arange(len(i)), self.cut[i]
        end, slope = self.values[i][at, cut], self.values[i][at, cut] - self.values[i][at, cut - 1]
        return end[:, None] + slope[:, None] * (np.arange(self.values.shape[1]) - cut[:, None])[..., None]

    def _misfit(self, i: int, j: int, shifts: NDArray[np.intp], least: float) -> Array:
        """(K,) root mean square residuals of f_i(x) = s f_j(x - k) + t + u x up to the cut; inf for a short overlap."""
        many = np.full(len(shifts), 1)
        counts = self.counts(i * many, j * many, shifts)[0].astype(np.float64)  # (K, G)
        g = np.linspace(-1, 1, counts.shape[1])
        back = np.clip(np.arange(len(g)) - shifts[:, None], 0, len(g) - 1)
        free = counts.sum(1) - 4
        total = np.zeros(len(shifts))
        for c in range(self.values.shape[2]):
            y = self.values[i, :, c]
            design = np.stack([self.values[j, back, c], np.broadcast_to(g, back.shape), np.ones(back.shape)], axis=-1)
            weighted = design * counts[..., None]
            gram = weighted.swapaxes(1, 2) @ design + 1e-9 * np.eye(3)
            best = np.linalg.solve(gram, weighted.swapaxes(1, 2) @ y[:, None])
            total += (counts * (y - (design @ best)[..., 0]) ** 2).sum(1)
        return np.where(free + 4 > least, np.sqrt(total / np.maximum(free, 1)), np.inf)
