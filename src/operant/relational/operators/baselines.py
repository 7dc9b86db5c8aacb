"""Plain baselines: what a relational operator has to beat, each an operator itself.

Standard deviations of the methods without a model of their own come from the context's leave-one-out errors
e_i = y_i - yhat_{-i}(x_i), found at the distance d_i from the nearest other point, and grow with the distance:

    sd(x)^2 = s^2 (1/2 + (d(x) / g)^2),   s^2 = mean_i e_i^2 / (1/2 + (d_i / g)^2),   g = median_i d_i,

so that errors grow linearly away from the context, as for a curve of unknown slope. A single context point has
s = g = 1: the spread of the bank, over half of its range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from operant.relational.bank.curves import Array, interpolator
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import (
    Adapted,
    CannotAdaptError,
    Context,
    Decomposition,
    Fitted,
    RelationalOperator,
    register,
)
from operant.relational.operators.ridge import Ridge, ridge

_RUNNERS_UP = 5
"""Known tasks whose distance from the nearest one gives its uncertainty."""
# Polynomials of high degree leave the range of their points steeply.
_DEGREES = 7
"""Polynomial degrees tried at most: 0 to 6."""


@dataclass(frozen=True)
class Widening:
    """The standard deviation of the module's docstring.

    Args:
        x: (P, D) context points.
        error: (P, C) leave-one-out errors; those that are not finite do not count.
    """

    x: Array
    error: Array

    def __call__(self, q: Array) -> Array:
        """(Q, C) standard deviation at (Q, D)."""
        return self._grown(cdist(q, self.x).min(1))

    def left_out(self) -> Array:
        """(P, C) standard deviation at each context point, seen from the others."""
        if len(self.x) == 1:
            return np.full_like(self.error, np.nan)
        return self._grown(self._gaps())

    def _gaps(self) -> Array:
        apart = cdist(self.x, self.x)
        np.fill_diagonal(apart, np.inf)
        return apart.min(1)

    def _grown(self, distance: Array) -> Array:
        usable = np.isfinite(self.error).all(1)
        if len(self.x) == 1 or not usable.any():
            return np.sqrt(0.5 + distance**2)[:, None] * np.ones(self.error.shape[1])
        gaps = self._gaps()
        g = float(np.median(gaps))
        s2 = np.mean(self.error[usable] ** 2 / (0.5 + (gaps[usable, None] / g) ** 2), axis=0)
        return np.sqrt((0.5 + (distance[:, None] / g) ** 2) * s2)


class _Unfitted(Fitted):
    """Nothing to learn from the bank."""

    def __init__(self, adapt: Callable[[Context], Adapted]) -> None:
        self._adapt = adapt

    def adapt(self, context: Context) -> Adapted:
        return self._adapt(context)


@register
@dataclass(frozen=True)
class ContextMean(RelationalOperator):
    """The mean of the context, everywhere.

    sd(x)^2 = s^2 (1 + 1/P + (d(x) / R)^2), with s the standard deviation of the context, d the distance to the nearest
    context point and R the context's extent; a single point has s = R = 1.
    """

    name = "context mean"
    expresses = "constants"
    uses_bank = False
    plain = True

    def fit(self, bank: TaskBank) -> Fitted:
        """Nothing is learned from the bank."""
        return _Unfitted(_Mean)


class _Mean(Adapted):
    def __init__(self, context: Context) -> None:
        self._context = context

    def predict(self, x: Array) -> tuple[Array, Array]:
        c = self._context
        p = len(c.x)
        extent = float(np.linalg.norm(np.ptp(c.x, axis=0))) if p > 1 else 1.0
        s2 = c.y.var(0, ddof=1) if p > 1 else np.ones(c.y.shape[1])
        growth = 1 + 1 / p + (cdist(x, c.x).min(1) / extent) ** 2
        return np.broadcast_to(c.y.mean(0), (len(x), c.y.shape[1])).copy(), np.sqrt(growth[:, None] * s2)

    def left_out(self) -> tuple[Array, Array]:
        """Closed form: (P ybar - y_i) / (P - 1), with the deviation of the others around it."""
        y, p = self._context.y, len(self._context.y)
        if p == 1:
            return np.full_like(y, np.nan), np.full_like(y, np.nan)
        error = (y - y.mean(0)) * p / (p - 1)
        if p == 2:
            return y - error, np.full_like(y, np.sqrt(2.0))
        total = ((y - y.mean(0)) ** 2).sum(0)
        s2 = (total - error**2 * (p - 1) / p) / (p - 2)
        return y - error, np.sqrt(np.maximum(s2, 0) * p / (p - 1))


@register
@dataclass(frozen=True)
class Nearest(RelationalOperator):
    """The known task that is nearest on the context, unchanged.

    sd(x)^2 = r^2 + mean over the next _RUNNERS_UP tasks j of (f_j(x) - f_1(x))^2, with r the anchor's root mean square
    residual on the context.
    """

    name = "nearest task"
    expresses = "the bank's own functions"
    plain = True

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """Tried on every bank."""
        return (cls(),)

    def fit(self, bank: TaskBank) -> Fitted:
        """Keep the bank."""
        return _NearestFitted(bank)


class _NearestFitted(Fitted):
    def __init__(self, bank: TaskBank) -> None:
        self._bank = bank

    def adapt(self, context: Context) -> Adapted:
        return _NearestAdapted(self._bank, context)


class _NearestAdapted(Adapted):
    def __init__(self, bank: TaskBank, context: Context) -> None:
        self._values = bank.values(context.x)  # (F, P, C)
        self._square = ((self._values - context.y) ** 2).mean(2)  # (F, P)
        self._bank = bank
        distance = self._square.mean(1)
        self._order = np.argsort(distance, kind="stable")[: _RUNNERS_UP + 1]
        self._few = bank.select(self._order, method=bank.method)
        self._residual = np.sqrt(distance[self._order[0]])
        floor = max(float(distance[self._order[0]]), 1e-12)  # weights of a likelihood with the best residual as noise
        likelihood = np.exp(-0.5 * len(context.x) * (distance[self._order] / floor - 1))
        self.decompositions = tuple(
            Decomposition(bank.keys[i], "unchanged", float(np.sqrt(distance[i])), float(w))
            for i, w in zip(self._order, likelihood / likelihood.sum(), strict=True)
        )

    def predict(self, x: Array) -> tuple[Array, Array]:
        values = self._few.values(x)
        differ = np.mean((values[1:] - values[0]) ** 2, axis=0)
        return values[0], np.sqrt(self._residual**2 + differ)

    def covered(self, x: Array) -> NDArray[np.bool_]:
        return self._few.covers(x)[0]

    def left_out(self) -> tuple[Array, Array]:
        """The distances to all tasks, less the point's own share."""
        p = self._square.shape[1]
        if p == 1:
            return np.full_like(self._values[0], np.nan), np.full_like(self._values[0], np.nan)
        without = (self._square.sum(1, keepdims=True) - self._square) / (p - 1)  # (F, P)
        best = np.argsort(without, axis=0, kind="stable")[: _RUNNERS_UP + 1]  # (R, P)
        values = np.take_along_axis(self._values, best[:, :, None], axis=0)  # (R, P, C)
        residual = np.take_along_axis(without, best[:1], axis=0)[0]
        return values[0], np.sqrt(residual[:, None] + np.mean((values[1:] - values[0]) ** 2, axis=0))


@register
@dataclass(frozen=True)
class Interpolation(RelationalOperator):
    """A curve through the context, straight on outside it; no use is made of the bank.

    The standard deviation is that of the module's docstring.

    Args:
        method: of :data:`operant.relational.bank.curves.METHODS`.
    """

    method: str = "linear"
    name = "interpolation"
    expresses = "what the context resolves"
    uses_bank = False
    plain = True

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """Tried on every bank."""
        return (cls(),)

    def fit(self, bank: TaskBank) -> Fitted:
        """Nothing is learned from the bank."""
        return _Unfitted(partial(_Interpolated, method=self.method))


class _Interpolated(Adapted):
    def __init__(self, context: Context, method: str) -> None:
        self._context, self._method = context, method
        self._curve = interpolator(context.x, context.y, method)
        self._left_out = self._others()
        self._sd = Widening(context.x, context.y - self._left_out)

    def _others(self) -> Array:
        out = np.full_like(self._context.y, np.nan)
        if len(out) > 1:
            for i in range(len(out)):
                rest = self._context.without(i)
                out[i] = interpolator(rest.x, rest.y, self._method)(self._context.x[i : i + 1])[0]
        return out

    def predict(self, x: Array) -> tuple[Array, Array]:
        return np.asarray(self._curve(x), dtype=np.float64), self._sd(x)

    def left_out(self) -> tuple[Array, Array]:
        return self._left_out.copy(), self._sd.left_out()


@register
@dataclass(frozen=True)
class Polynomial(RelationalOperator):
    """Least squares on polynomials of the context; no use is made of the bank.

    sd(x)^2 = s^2 (1 + h(x)) (1 + 2 / nu), with h the leverage, nu = P - terms and s^2 = mean_i e_i^2 / (1 - h_i).

    Args:
        degree: total degree; None takes the smallest one whose leave-one-out error is within 10 % of the best, up to
            _DEGREES - 1 for one input and 2 for several.
    """

    degree: int | None = None
    name = "polynomial"
    expresses = "polynomials of x"
    uses_bank = False
    plain = True

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """Tried on every bank."""
        return (cls(),)

    def fit(self, bank: TaskBank) -> Fitted:
        """Nothing is learned from the bank."""
        return _Unfitted(self._adapt)

    def _adapt(self, context: Context) -> Adapted:
        return _Fit(context, *self._chosen(context))

    def _chosen(self, context: Context) -> tuple[int, list[Ridge]]:
        p, d = context.x.shape
        if self.degree is not None:
            if (terms := _legendre(context.x, self.degree).shape[1]) >= p:
                raise CannotAdaptError(f"degree {self.degree} needs more than {terms} context points, got {p}.")
            return self.degree, _polynomial(context, self.degree)
        found: list[tuple[float, int, list[Ridge]]] = []
        for degree in range(_DEGREES if d == 1 else 3):
            if degree and _legendre(context.x[:1], degree).shape[1] >= p:
                break
            fits = _polynomial(context, degree)
            found.append((sum(float(np.mean(f.left_out_error()[:, 0] ** 2)) for f in fits), degree, fits))
        enough = 1.1 * min(f[0] for f in found) + 1e-24
        return next((degree, fits) for error, degree, fits in found if error <= enough)


def _legendre(x: Array, degree: int) -> Array:
    """(P, K) products of Legendre polynomials of total degree <= ``degree``."""
    if x.shape[1] == 1:
        return np.asarray(np.polynomial.legendre.legvander(x[:, 0], degree), dtype=np.float64)
    each = [()] + [t for n in range(1, degree + 1) for t in combinations_with_replacement(range(x.shape[1]), n)]
    return np.stack([np.prod(x[:, list(t)], axis=1) for t in each], axis=1)


def _polynomial(context: Context, degree: int) -> list[Ridge]:
    """One fit for each output; the tiny ridge only guards against points that do not determine it."""
    design = _legendre(context.x, degree)[:, None, :]
    return [ridge(design, context.y[:, c : c + 1], 1e-14) for c in range(context.y.shape[1])]


class _Fit(Adapted):
    def __init__(self, context: Context, degree: int, fits: list[Ridge]) -> None:
        self._context, self._degree, self._fits = context, degree, fits
        dof = len(context.x) - _legendre(context.x, degree).shape[1]
        self._s2 = [f.noise * (1 + 2 / dof) if dof else 1.0 for f in fits]

    def predict(self, x: Array) -> tuple[Array, Array]:
        design = _legendre(x, self._degree)[:, None, :]
        mean = np.concatenate([f.mean(design) for f in self._fits], axis=1)
        leverage = np.concatenate([f.leverage(design) for f in self._fits], axis=1)
        return mean, np.sqrt(np.array(self._s2) * (1 + leverage))

    def left_out(self) -> tuple[Array, Array]:
        """From the hat matrix, the degree held."""
        y = self._context.y
        if len(y) == 1:
            return np.full_like(y, np.nan), np.full_like(y, np.nan)
        error = np.concatenate([f.left_out_error() for f in self._fits], axis=1)
        factor = np.concatenate([f.left_out_factor() for f in self._fits], axis=1)
        return y - error, np.sqrt(np.array(self._s2) * factor)
