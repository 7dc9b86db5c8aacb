"""Curves through measured points: interpolation inside the measured range, straight on (and flagged) outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator, CubicSpline, PPoly, RBFInterpolator
from scipy.spatial import Delaunay, QhullError  # pyright: ignore[reportAttributeAccessIssue]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
"""(Q, D) -> (Q, K)."""

# Tried in this order, and the first of equal ones is taken: linear is the safest.
METHODS = ("linear", "makima", "cubic")
"""Ways to interpolate one input."""
MANY = 300
"""With more points than these, curves are evaluated one after the other: it is the faster way there."""


def interpolator(x: Array, y: Array, method: str) -> Function:
    """A curve through the points, continued linearly beyond them.

    Args:
        x: (P, D) distinct points; for D = 1 in any order.
        y: (P, K) values of K curves at once.
        method: one of METHODS for D = 1; several inputs take thin-plate splines.
    """
    if len(x) == 1:
        return partial(_constant, y)
    if x.shape[1] > 1:
        return _surface(x, y)
    t, inside = _pieces(x, y, method)
    return partial(_continued, inside, t[0], t[-1], inside.derivative()(t[[0, -1]]))


def _constant(y: Array, q: Array) -> Array:
    return np.broadcast_to(y, (len(q), y.shape[1])).copy()


def _continued(inside: Any, low: float, high: float, ends: Array, q: Array) -> Array:
    """``inside`` between low and high, straight on with the slopes ``ends`` (2, K) beyond."""
    z = q[:, 0]
    near = np.clip(z, low, high)
    out = np.asarray(inside(near), dtype=np.float64)
    beyond = z - near
    if beyond.any():
        out = out + beyond[:, None] * np.where((beyond < 0)[:, None], ends[0], ends[1])
    return out


def _pieces(x: Array, y: Array, method: str) -> tuple[Array, Any]:
    """Sorted points of one input, and the piecewise polynomial through them."""
    order = np.argsort(x[:, 0])
    t, v = x[order, 0], y[order]
    if len(t) < 4 or method == "linear":
        return t, PPoly(np.stack([np.diff(v, axis=0) / np.diff(t)[:, None], v[:-1]]), t)
    if method == "cubic":
        return t, CubicSpline(t, v)
    return t, Akima1DInterpolator(t, v, method="makima")


@dataclass(frozen=True, eq=False)
class Ragged:
    """Curves of one input, each through points of its own, evaluated all at once; the same as :func:`interpolator`.

    Args:
        rows: (F,) which of the curves.
        knots: (B,) knots of all curves, one after the other.
        terms: (B, 4, C) coefficients of the cubic from each knot on, the highest power first.
        first: (F',) where the knots of a curve begin.
        ends: (F', 2) first and last knot.
        slopes: (F', 2, C) at both ends.
    """

    rows: NDArray[np.intp]
    knots: Array
    terms: Array
    first: NDArray[np.intp]
    ends: Array
    slopes: Array

    @classmethod
    def of(cls, tasks: list[tuple[Array, Array]], method: str) -> Ragged:
        """Through points (P, 1) and values (P, C) of each task, P >= 2."""
        knots, terms, ends, slopes = [], [], [], []
        for x, y in tasks:
            t, inside = _pieces(x, y, method)
            padded = np.zeros((len(t), 4, y.shape[1]))  # nothing starts at the last knot
            padded[:-1, 4 - len(inside.c) :] = np.swapaxes(inside.c, 0, 1)
            knots.append(t)
            terms.append(padded)
            ends.append(t[[0, -1]])
            slopes.append(inside.derivative()(ends[-1]))
        first = np.cumsum([0, *(len(t) for t in knots[:-1])])
        return cls(
            np.arange(len(tasks)), np.concatenate(knots), np.concatenate(terms), first, np.array(ends), np.array(slopes)
        )

    def select(self, rows: NDArray[np.intp]) -> Ragged:
        """Some of the curves."""
        return replace(self, rows=self.rows[rows])

    @cached_property
    def _lined_up(self) -> tuple[Array, Array]:
        """Knots of all curves in increasing order, each curve in a stretch of its own, and where these start."""
        low, span = self.ends[:, 0], 1.5 * float(np.ptp(self.ends, axis=1).max())
        start = np.asarray(span * np.arange(len(low)), dtype=np.float64)
        of = np.repeat(np.arange(len(low)), np.diff(np.append(self.first, len(self.knots))))
        return self.knots - low[of] + start[of], start

    def __call__(self, q: Array) -> Array:
        """(F, Q, C) values at (Q, 1)."""
        if len(q) > MANY:
            return np.stack([self._one(row, q[:, 0]) for row in self.rows])
        low, high = self.ends[self.rows].T[:, :, None]  # (F, 1) each
        near = np.clip(q[:, 0], low, high)  # (F, Q)
        lined, start = self._lined_up
        at = np.searchsorted(lined, near - low + start[self.rows, None], side="right") - 1
        last = np.append(self.first[1:], len(self.knots))[self.rows, None] - 2
        at = np.clip(at, self.first[self.rows, None], last)
        return self._values(at, near, q[:, 0] - near, self.slopes[self.rows][:, None])

    def _one(self, row: int, z: Array) -> Array:
        first = self.first[row]
        last = (self.first[row + 1] if row + 1 < len(self.first) else len(self.knots)) - 1
        near = np.clip(z, self.knots[first], self.knots[last])
        at = first + np.searchsorted(self.knots[first + 1 : last], near, side="right")
        return self._values(at, near, z - near, self.slopes[row])

    def _values(self, at: NDArray[np.intp], near: Array, beyond: Array, slopes: Array) -> Array:
        """(.., Q, C) of the pieces ``at`` (.., Q), and straight on ``beyond`` (.., Q) with the slopes (.., 2, C)."""
        out, step = self.terms[at, 0], (near - self.knots[at])[..., None]
        for power in range(1, 4):
            out = out * step + self.terms[at, power]
        if beyond.any():
            out = out + beyond[..., None] * np.where(beyond[..., None] < 0, slopes[..., 0, :], slopes[..., 1, :])
        return out


def _surface(x: Array, y: Array) -> Function:
    p, d = x.shape
    if (
        p <= d + 1 or np.linalg.matrix_rank(x - x.mean(0), tol=1e-9 * np.ptp(x)) < d
    ):  # too few points for a curved surface
        design = np.column_stack([np.ones(p), x])
        plane = np.asarray(np.linalg.lstsq(design, y, rcond=None)[0], dtype=np.float64)
        return partial(_plane, plane)
    return RBFInterpolator(x, y, kernel="thin_plate_spline")


def _plane(plane: Array, q: Array) -> Array:
    return np.column_stack([np.ones(len(q)), q]) @ plane


def cover(x: Array) -> Callable[[Array], NDArray[np.bool_]]:
    """Whether points (Q, D) lie inside what ``x`` (P, D) spans: its range, its hull for D in 2..4, else its box."""
    low, high = x.min(0), x.max(0)
    box = partial(_in_box, low, high, 1e-9 * np.maximum(high - low, 1e-300))
    if not 2 <= x.shape[1] <= 4 or len(x) <= x.shape[1]:
        return box
    try:
        return partial(_in_hull, Delaunay(x))
    except QhullError:  # all on one plane
        return box


def _in_box(low: Array, high: Array, slack: Array, q: Array) -> NDArray[np.bool_]:
    return np.all((q >= low - slack) & (q <= high + slack), axis=1)


def _in_hull(hull: Any, q: Array) -> NDArray[np.bool_]:
    return hull.find_simplex(q, tol=1e-9) >= 0


def choose_method(tasks: list[tuple[Array, Array]], limit: int = 50) -> str:
    """The method of METHODS that predicts every second inner point best from the others, over tasks of one input."""
    usable = [(x, y) for x, y in tasks if len(x) >= 7][:limit]
    if not usable or usable[0][0].shape[1] > 1:
        return "linear" if not usable else "makima"
    error = dict.fromkeys(METHODS, 0.0)
    for x, y in usable:
        order = np.argsort(x[:, 0])
        x, y = x[order], y[order]
        left_out = np.zeros(len(x), dtype=bool)
        left_out[1:-1:2] = True
        scale = float(np.var(y)) or 1.0
        for method in METHODS:
            guess = interpolator(x[~left_out], y[~left_out], method)(x[left_out])
            error[method] += float(np.mean((guess - y[left_out]) ** 2)) / scale
    return min(METHODS, key=lambda m: error[m])
