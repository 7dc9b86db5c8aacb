"""Chains of library functions with a warp before each: y = s f_L(b_L ... f_1(b_1 x + c_1) ... + c_L) + t, many at once.

Letters: ``L`` functions of the library, ``M`` chains, ``P`` points, ``N`` depth, ``T`` targets. A chain has the
2 N + 2 parameters (b_1, c_1, ..., b_N, c_N, s, t); its functions are listed innermost first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Decomposition

Index = NDArray[np.intp]
# Each step without a gain multiplies the damping by 4: six of them raise it by 3.6 decades.
_IDLE = 6
"""Steps in which no chain gains one per cent, after which refinement stops."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Values and slopes of L functions of one variable at evenly spaced knots, straight on beyond them.

    Args:
        low: the first knot.
        step: distance of two knots.
        value: (L, G) values.
        slope: (L, G) slopes.
    """

    low: float
    step: float
    value: Array
    slope: Array

    @classmethod
    def of(cls, bank: TaskBank, *, reach: float, knots: int, largest: float = 1e6) -> Tables:
        """Tabulate the first output of a bank of one input.

        Args:
            bank: the library.
            reach: callables are tabulated on the domain widened by this factor.
            knots: their number.
            largest: values beyond are cut off, lest a library of exponentials overflows.
        """
        low, high = float(bank.range[0][0]), float(bank.range[1][0])
        middle, half = (low + high) / 2, (high - low) / 2 * (reach if bank.callable else 1.0)
        grid = np.linspace(middle - half, middle + half, knots)
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.nan_to_num(bank.values(grid[:, None])[:, :, 0], nan=largest, posinf=largest, neginf=-largest)
        values = np.clip(values, -largest, largest)
        slopes = CubicSpline(grid, values, axis=1).derivative()(grid)
        return cls(float(grid[0]), float(grid[1] - grid[0]), np.ascontiguousarray(values), np.ascontiguousarray(slopes))

    def __call__(self, which: Index, u: Array) -> tuple[Array, Array]:
        """(M, P) values and slopes of the functions ``which`` (M,) at points of their own (M, P), by cubic Hermite."""
        g = self.value.shape[1]
        z = (u - self.low) / self.step
        near = np.minimum(np.maximum(z, 0.0), g - 1.0)
        k = np.minimum(near.astype(np.intp), g - 2)
        w = near - k
        flat = which[:, None] * g + k
        v0, v1 = self.value.take(flat), self.value.take(flat + 1)
        s0, s1 = self.slope.take(flat) * self.step, self.slope.take(flat + 1) * self.step
        rise = v1 - v0
        a, b = s0 - rise, rise - s1  # Hermite in the form v0 + w rise + w (1 - w) (a (1 - w) + b w)
        v = 1 - w
        value = v0 + w * rise + w * v * (a * v + b * w)
        slope = (rise + (1 - 2 * w) * (a * v + b * w) + w * v * (b - a)) / self.step
        return value + slope * (z - near) * self.step, slope

    def only(self, which: Index) -> Tables:
        """The tables of some functions."""
        return Tables(self.low, self.step, self.value[which], self.slope[which])

    @cached_property
    def columns(self) -> Array:
        """(G, L) values, the functions side by side."""
        return np.ascontiguousarray(self.value.T)

    def rough(self, u: Array) -> Array:
        """(.., L) values of every function at points (..), linear between the knots: for scoring only."""
        z = np.clip((u - self.low) / self.step, 0.0, len(self.columns) - 1.0)
        k = np.minimum(z.astype(np.intp), len(self.columns) - 2)
        w = (z - k)[..., None]
        out = self.columns[k]
        out += w * (self.columns[k + 1] - out)
        return out


def profile(tables: Tables, z: Array, y: Array, *, ridge: float = 1e-4) -> tuple[Array, Array, Array]:
    """Every library function after S prefixes at once, its output fitted to the targets: y = s f_i(z) + t.

    Minimizes sum_p (y_p - s f_i(z_p) - t)^2 + ridge (s - 1)^2 in closed form, exact up to the table's linear steps.

    Args:
        tables: L functions.
        z: (S, P) inputs that each prefix hands to the last function.
        y: (P,) values of one target, or (S, P) of the target of each prefix.
        ridge: what a factor other than 1 costs.

    Returns:
        (S, L) sums of squares, factors s and offsets t.
    """
    h = tables.rough(z)  # (S, P, L)
    middle = y.mean(-1, keepdims=True)
    centered = np.broadcast_to(y - middle, z.shape)
    mean = h.mean(1)
    cross = np.matmul(centered[:, None, :], h)[:, 0]
    square = np.maximum(np.einsum("spl,spl->sl", h, h) - z.shape[1] * mean**2, 0.0)
    s = (cross + ridge) / (square + ridge)
    left = (centered**2).sum(1)[:, None] - 2 * s * cross + s**2 * square + ridge * (s - 1) ** 2
    return left, s, middle.reshape(-1, 1) - s * mean


def forward(tables: Tables, which: Index, theta: Array, x: Array) -> tuple[Array, Array]:
    """Values (M, P) of chains ``which`` (M, N) with parameters (M, 2 N + 2) at x (P,) or (M, P), and their Jacobian.

    The Jacobian (M, P, 2 N + 2) is forward accumulation: a layer multiplies what is below by b f'(u) and adds two
    columns, f'(u) z and f'(u).
    """
    m, depth = which.shape
    z = np.broadcast_to(x, (m, x.shape[-1]))
    jacobian = np.zeros((m, z.shape[1], 2 * depth + 2))
    for layer in range(depth):
        b, c = theta[:, 2 * layer, None], theta[:, 2 * layer + 1, None]
        value, slope = tables(which[:, layer], b * z + c)
        jacobian[:, :, : 2 * layer] *= (slope * b)[:, :, None]
        jacobian[:, :, 2 * layer] = slope * z
        jacobian[:, :, 2 * layer + 1] = slope
        z = value
    s = theta[:, -2, None]
    jacobian[:, :, :-2] *= s[:, :, None]
    jacobian[:, :, -2] = z
    jacobian[:, :, -1] = 1.0
    return s * z + theta[:, -1, None], jacobian


def refine(
    tables: Tables,
    which: Index,
    theta: Array,
    x: Array,
    y: Array,
    *,
    nominal: Array,
    precision: Array,
    steps: int,
) -> tuple[Array, Array]:
    """Levenberg-Marquardt on M chains at once: minimizes sum (y - chain)^2 + sum precision (theta - nominal)^2.

    Args:
        tables: the library.
        which: (M, N) chains.
        theta: (M, 2 N + 2) where they start.
        x: (P,) or (M, P) points.
        y: (P,) or (M, P) values.
        nominal: (2 N + 2,) parameters of the plain composition.
        precision: (2 N + 2,) what a deviation from it costs.
        steps: iterations at most.

    Returns:
        (M, 2 N + 2) parameters and (M,) objectives.
    """
    identity = np.eye(theta.shape[1])
    damping = np.full(len(theta), 1e-2)
    value, jacobian = forward(tables, which, theta, x)
    rest = y - value
    best = (rest**2).sum(1) + (precision * (theta - nominal) ** 2).sum(1)
    idle = 0
    for _ in range(steps):
        normal = np.einsum("mpi,mpj->mij", jacobian, jacobian, optimize=True) + precision * identity
        pull = np.einsum("mpi,mp->mi", jacobian, rest) - precision * (theta - nominal)
        scale = np.einsum("mii->mi", normal)
        damped = normal + identity * (damping[:, None] * scale + 1e-14 * scale.max(1, keepdims=True) + 1e-300)[:, None]
        trial = theta + np.linalg.solve(damped, pull[:, :, None])[:, :, 0]
        new_value, new_jacobian = forward(tables, which, trial, x)
        new_rest = y - new_value
        cost = (new_rest**2).sum(1) + (precision * (trial - nominal) ** 2).sum(1)
        better = cost < best
        idle = 0 if (cost < 0.99 * best - 1e-20).any() else idle + 1
        theta = np.where(better[:, None], trial, theta)
        rest = np.where(better[:, None], new_rest, rest)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        best = np.where(better, cost, best)
        damping = np.clip(np.where(better, damping * 0.2, damping * 4.0), 1e-14, 1e8)
        if idle == _IDLE:
            break
    return theta, best


def smallest(values: Array, count: int) -> Index:
    """Places of the ``count`` smallest of values (M,), in any order."""
    return np.argpartition(values, count)[:count] if count < len(values) else np.arange(len(values))


def diverse(chains: Index, count: int, cap: int, size: int) -> list[int]:
    """Positions of the first ``count`` chains in which no function takes the same slot more than ``cap`` times."""
    used, keep = [0] * (chains.shape[1] * size), list[int]()
    for position, places in enumerate((chains + size * np.arange(chains.shape[1])).tolist()):
        if all(used[p] < cap for p in places):
            for p in places:
                used[p] += 1
            keep.append(position)
            if len(keep) == count:
                break
    return keep


@dataclass(frozen=True, eq=False)
class ChainPrior:
    """N(nominal, spread^2) of the parameters of a chain.

    Args:
        nominal: (2 N + 2,) those of the plain composition.
        spread: (2 N + 2,) standard deviations.
    """

    nominal: Array
    spread: Array

    @cached_property
    def precision(self) -> Array:
        """(2 N + 2,) 1 / spread^2."""
        return 1 / self.spread**2


@dataclass(frozen=True)
class Chains:
    """Refined chains and their posterior.

    Args:
        which: (M, N) functions, innermost first.
        theta: (M, 2 N + 2) parameters.
        covariance: (M, 2 N + 2, 2 N + 2) of the parameters, linearized.
        noise: (M,) variance of the noise under each.
        weights: (M,) posterior probabilities.
        residual: (M,) root mean square residuals.
    """

    which: Index
    theta: Array
    covariance: Array
    noise: Array
    weights: Array
    residual: Array

    @classmethod
    def weigh(
        cls,
        tables: Tables,
        prior: ChainPrior,
        which: Index,
        theta: Array,
        x: Array,
        y: Array,
        *,
        floor: float,
        grid: Array,
    ) -> Chains:
        """Laplace evidence of each chain, its noise profiled; of chains that agree on ``grid`` the best one counts."""
        degrees = max(len(x) - theta.shape[1], len(x) / 4)
        rest = y - forward(tables, which, theta, x)[0]
        level = max(float((rest**2).sum(1).min()) / degrees, floor**2)
        theta, _ = refine(
            tables, which, theta, x, y, nominal=prior.nominal, precision=level * prior.precision, steps=10
        )
        value, jacobian = forward(tables, which, theta, x)
        left = ((y - value) ** 2).sum(1)
        noise = np.maximum(left / degrees, floor**2)
        bend = np.einsum("mpi,mpj->mij", jacobian, jacobian, optimize=True) / noise[:, None, None] + np.diag(
            prior.precision
        )
        away = ((theta - prior.nominal) ** 2 * prior.precision).sum(1)
        log = -0.5 * (left / noise + len(x) * np.log(noise) + away + np.linalg.slogdet(bend)[1])
        shape = forward(tables, which, theta, grid)[0]
        keep: list[int] = []
        for m in np.argsort(-log):
            if np.isfinite(log[m]) and all(np.abs(shape[m] - shape[k]).max() > 1e-4 for k in keep):
                keep.append(int(m))
        keep = keep or [0]
        weights = np.exp(log[keep] - logsumexp(log[keep])) if len(keep) > 1 else np.ones(1)
        return cls(
            which[keep],
            theta[keep],
            np.linalg.inv(bend[keep]),
            noise[keep],
            weights,
            np.sqrt(left[keep] / len(x)),
        )

    def predict(self, tables: Tables, x: Array) -> tuple[Array, Array]:
        """(Q,) mean and standard deviation of the mixture at (Q,)."""
        value, jacobian = forward(tables, self.which, self.theta, x)
        variance = np.einsum("mqi,mij,mqj->mq", jacobian, self.covariance, jacobian, optimize=True)
        return self.mix(value, variance)

    def mix(self, value: Array, variance: Array) -> tuple[Array, Array]:
        """(Q,) mean and standard deviation of components (M, Q)."""
        mean = self.weights @ value
        return mean, np.sqrt(self.weights @ (np.maximum(variance, 0.0) + (value - mean) ** 2))

    def ranked(self, names: Sequence[Any]) -> tuple[Decomposition, ...]:
        """The chains as formulas with the names of the library's functions, the most probable first."""
        return tuple(self._decomposition(int(m), names) for m in np.argsort(-self.weights))

    def _decomposition(self, m: int, names: Sequence[Any]) -> Decomposition:
        keys = tuple(names[i] for i in self.which[m][::-1])
        theta, sd = self.theta[m], np.sqrt(np.maximum(np.diagonal(self.covariance[m]), 0.0))
        text = "x"
        for layer, key in enumerate(keys[::-1]):
            text = f"[{key}]({theta[2 * layer]:z.4g} {text} {theta[2 * layer + 1]:+z.4g})"
        names = [f"{n}{layer}" for layer in range(1, len(keys) + 1) for n in "bc"] + ["s", "t"]
        spans = {n: (float(v - 1.645 * d), float(v + 1.645 * d)) for n, v, d in zip(names, theta, sd, strict=True)}
        return Decomposition(
            keys, f"{theta[-2]:z.4g} {text} {theta[-1]:+z.4g}", float(self.residual[m]), float(self.weights[m]), spans
        )
