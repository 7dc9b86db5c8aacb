"""Kernels of Gaussian processes as sums of terms, and their hyper-parameters by the marginal likelihood.

The marginal likelihood is summed over blocks of points that share the kernel, and multiplied by a weak log-normal prior
on the lengths. Letters: ``B`` blocks, ``N`` points, ``E`` columns of a point, ``C`` outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from operant.relational.bank.curves import Array

# Keeps the Cholesky factor of smooth kernels positive; below the smallest noise by a factor of 10.
JITTER = 1e-9
# In scaled units 1 is the variance of the bank: more noise than that is no noise.
NOISE = (1e-8, 1.0)
"""Range of the noise's variance, in scaled units."""
_VARIANCE = (1e-6, 1e4)
LENGTH = (0.05, 100.0)
LENGTH_PRIOR = (1.0, 1.0)
"""Mean and sd of log l: few tasks leave the lengths over parameters open, and short ones do not extrapolate."""
WIDTH = (0.3, 30.0)
"""Range of a periodic term's length, in units of the sine."""
PERIOD = (0.1, 4.0)
"""In scaled units, where the bank's range is [-1, 1]."""
_TermKind = Literal["rbf", "matern", "linear", "constant", "periodic"]


@dataclass(frozen=True)
class Term:
    """One summand of a kernel, a positive definite function of two points.

    With r^2 = sum_d (x_d - x'_d)^2 / l_d^2 and variance v: rbf v exp(-r^2 / 2); matern (5/2)
    v (1 + a + a^2 / 3) exp(-a), a = sqrt(5) r; linear v sum_d x_d x'_d; constant v; periodic
    v exp(-2 sin^2(pi |x - x'| / p) / l^2).

    Args:
        kind: its form.
        columns: the columns of the points that it looks at.
    """

    kind: _TermKind
    columns: tuple[int, ...] = ()

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Of the hyper-parameters: variance, then lengths, then period."""
        more = {"rbf": [LENGTH] * len(self.columns), "periodic": [WIDTH, PERIOD]}
        return [_VARIANCE, *more.get("rbf" if self.kind == "matern" else self.kind, [])]

    def between(self, a: Array, b: Array) -> Array:
        """Products or squared differences (.., N, M, d) of two sets (.., N, E) and (.., M, E), as the kernel needs."""
        u, v = a[..., :, None, list(self.columns)], b[..., None, :, list(self.columns)]
        if self.kind == "linear":
            return u * v
        if self.kind == "constant":
            return np.ones((*np.broadcast_shapes(u.shape, v.shape)[:-1], 1))
        square = (u - v) ** 2
        return square.sum(-1, keepdims=True) if self.kind == "periodic" else square

    def diagonal(self, h: Array, a: Array) -> Array:
        """(N,) the kernel of each point with itself."""
        return h[0] * ((a[:, list(self.columns)] ** 2).sum(1) if self.kind == "linear" else np.ones(len(a)))

    def value(self, h: Array, between: Array) -> Array:
        """(.., N, M) the kernel."""
        return self.gradient(h, between, wanted=False)[0]

    def gradient(self, h: Array, between: Array, *, wanted: bool = True) -> list[Array]:
        """The kernel, and its derivative by the logarithm of each hyper-parameter after the variance."""
        if self.kind in ("linear", "constant"):
            return [h[0] * between.sum(-1)]
        if self.kind == "periodic":
            angle = np.pi * np.sqrt(between[..., 0]) / h[2]
            sine = np.sin(angle)
            k = h[0] * np.exp(-2 * (sine / h[1]) ** 2)
            by_period = 4 * k * sine * np.cos(angle) * angle / h[1] ** 2
            return [k, 4 * k * (sine / h[1]) ** 2, by_period] if wanted else [k]
        r2 = between @ (1 / h[1:] ** 2)
        if self.kind == "rbf":
            k = h[0] * np.exp(-0.5 * r2)
            slope = k
        else:
            a = np.sqrt(5 * r2)
            e = h[0] * np.exp(-a)
            k, slope = e * (1 + a + a**2 / 3), e * (5 / 3) * (1 + a)
        return [k, *(slope * between[..., d] / h[1 + d] ** 2 for d in range(len(self.columns)))] if wanted else [k]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A sum of terms with their hyper-parameters, and the variance of the noise."""

    terms: tuple[Term, ...]
    h: tuple[Array, ...]
    noise: float

    def __call__(self, a: Array, b: Array) -> Array:
        """(N, M) covariance of the noise-free values."""
        return np.sum([t.value(h, t.between(a, b)) for t, h in zip(self.terms, self.h, strict=True)], 0)

    def diagonal(self, a: Array) -> Array:
        """(N,) variances of the noise-free values."""
        return np.sum([t.diagonal(h, a) for t, h in zip(self.terms, self.h, strict=True)], 0)


def _unpack(terms: Sequence[Term], theta: Array) -> tuple[list[Array], float]:
    ends = np.cumsum([len(t.bounds) for t in terms])
    return np.split(np.exp(theta[:-1]), ends[:-1]), float(np.exp(theta[-1]))


def negative_evidence(theta: Array, terms: Sequence[Term], x: Array, y: Array) -> tuple[float, Array]:
    """-log p(y) summed over B blocks and C outputs less the log prior of the lengths, without constants; its gradient.

    Args:
        theta: logarithms of each term's hyper-parameters and of the noise's variance.
        terms: of the kernel.
        x: (B, N, E) points.
        y: (B, N, C) values.
    """
    pre = [t.between(x, x) for t in terms]
    return _evidence(theta, terms, pre, y)


def _evidence(theta: Array, terms: Sequence[Term], pre: list[Array], y: Array) -> tuple[float, Array]:
    hs, noise = _unpack(terms, theta)
    parts = [t.gradient(h, between) for t, h, between in zip(terms, hs, pre, strict=True)]
    n, c = y.shape[1:]
    k = np.sum([p[0] for p in parts], 0)
    k = np.broadcast_to(k, (len(y), n, n)) + (noise + JITTER) * np.eye(n)
    try:
        low = np.linalg.cholesky(k)
    except np.linalg.LinAlgError:
        return 1e25, np.zeros_like(theta)
    inverse = np.linalg.inv(k)
    alpha = inverse @ y
    value = 0.5 * float((y * alpha).sum()) + c * float(np.log(np.diagonal(low, axis1=1, axis2=2)).sum())
    w = 0.5 * (c * inverse - alpha @ alpha.swapaxes(1, 2))
    slopes: list[float] = []
    for p in parts:
        slopes += [float(np.vdot(w, np.broadcast_to(g, w.shape))) for g in p]
    gradient = np.array([*slopes, noise * float(np.trace(w, axis1=1, axis2=2).sum())])
    at = 0
    for t in terms:  # the prior on lengths
        lengths = slice(at + 1, at + 1 + len(t.columns) * (t.kind in ("rbf", "matern")))
        z = (theta[lengths] - LENGTH_PRIOR[0]) / LENGTH_PRIOR[1]
        value += 0.5 * float(z @ z)
        gradient[lengths] += z / LENGTH_PRIOR[1]
        at += len(t.bounds)
    return value, gradient


def fit_kernel(
    terms: Sequence[Term], x: Array, y: Array, *, starts: Sequence[Array], iterations: int = 60
) -> tuple[Kernel, float]:
    """The kernel that maximizes the evidence of values (B, N, C) at points (B, N, E), and its log evidence.

    Args:
        terms: of the kernel.
        x: points in blocks.
        y: values.
        starts: where L-BFGS starts, in logarithms; a short run from each, the best goes on.
        iterations: of the long run.
    """
    bounds = np.log([b for t in terms for b in t.bounds] + [NOISE])
    pre = [t.between(x, x) for t in terms]

    def run(start: Array, most: int) -> tuple[float, Array]:
        inside = np.clip(start, bounds[:, 0], bounds[:, 1])
        found = minimize(
            _evidence, inside, (terms, pre, y), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": most}
        )
        return float(found.fun), np.asarray(found.x)

    short = max(10, iterations // 5)
    value, theta = min((run(s, short) for s in starts), key=lambda found: found[0])
    value, theta = run(theta, iterations)
    hs, noise = _unpack(terms, theta)
    return Kernel(tuple(terms), tuple(hs), noise), -value
