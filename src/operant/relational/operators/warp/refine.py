"""Fitting a transformation of an anchor by Levenberg-Marquardt, many candidates at once.

Letters: ``A`` anchors, ``B`` candidates (an anchor and a vector), ``T`` entries of a vector, ``N`` of them
nonlinear, ``L`` linear ones an output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.warp.parameters import Layout

FLOOR = 1e-7
"""Smallest standard deviation of the values, in scaled units."""
# A node lies up to half a step away from the optimum. With less noise than this, the nearest node would be rejected.
GRID_NOISE = 0.03
"""The grid's own error acts as noise of this size."""
# With 0, the error of shift * xshift on relaxation, hotter, rose from .065 to .102.
IGNORANT = 1.0
"""anchor_sd below this, in standard deviations of the bank, is ignored by a fit: only what is worse than knowing
nothing counts. With 0, fits on real curves, whose straight continuations are good, are up to twice as bad."""
# The square of the step is the relative error of a central difference; rounding adds 1e-16 / 1e-5.
_STEP = 1e-5
"""Half width of the difference that gives an anchor's slope, in scaled units."""


class Continuation(Protocol):
    """How anchors go on beyond their range, with standard deviations that are 0 within it; see ``reach``."""

    def values(self, which: NDArray[np.intp], x: Array) -> tuple[Array, Array]:
        """(A, Q, C) values of tasks at (Q, D), and their standard deviations."""
        ...

    def at(self, which: NDArray[np.intp], x: Array) -> tuple[Array, Array]:
        """(B, .., C) the same of each task at its own points (B, .., D)."""
        ...


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates after Levenberg-Marquardt, with the curvature there.

    Args:
        anchor: (B,) positions in the bank.
        theta: (B, T) vectors.
        residual: (B, P, C) value minus prediction; 0 at points that do not count.
        jacobian: (B, P, C, T).
        covariance: (B, T, T).
        noise: (B, C).
        anchor_sd: (B, P, C) standard deviation of the anchor beyond its range, above IGNORANT, added to the noise.
        evidence: (B,) log N(y; prediction, noise) + log N(theta; prior) + log |2 pi covariance| / 2 (Laplace), with the
            noise of the best candidate.
    """

    anchor: NDArray[np.intp]
    theta: Array
    residual: Array
    jacobian: Array
    covariance: Array
    noise: Array
    anchor_sd: Array
    evidence: Array

    @property
    def total(self) -> Array:
        """(B, P, C) noise and anchor_sd."""
        return np.hypot(self.noise[:, None], self.anchor_sd)


def model(
    bank: TaskBank,
    layout: Layout,
    anchor: NDArray[np.intp],
    theta: Array,
    x: Array,
    reach: Continuation | None = None,
) -> tuple[Array, Array, Array]:
    """(B, Q, C) transformed anchors at (Q, D), their Jacobians (B, Q, C, T), and their standard deviations (B, Q, C).

    Anchors go straight on beyond their range, without anchor_sd, or as ``reach`` says.
    """
    d, q, c = layout.d, len(x), layout.c
    a, b = layout.warp(theta)
    at = a[:, None] * x + b[:, None]  # (B, Q, D)
    slope = None
    if layout.nonlinear:
        steps = _STEP * np.concatenate([np.zeros((1, d)), np.eye(d), -np.eye(d)])
        f, anchor_sd = _values(bank, anchor, at[:, None] + steps[:, None], reach)  # (B, 2 D + 1, Q, C)
        slope = np.moveaxis((f[:, 1 : d + 1] - f[:, d + 1 :]) / (2 * _STEP), 1, -1)  # (B, Q, C, D)
        f, anchor_sd = f[:, 0], anchor_sd[:, 0]
    else:
        f, anchor_sd = _values(bank, anchor, at, reach)
    columns, offset = layout.design(f, x)
    mean = offset + (columns * layout.linear(theta)[:, None]).sum(-1)
    jacobian = np.zeros((*mean.shape, layout.size))
    if slope is not None:
        inner = slope @ layout.warp_slope(a, x)  # (B, Q, C, N)
        jacobian[..., : layout.nonlinear] = layout.gain(theta)[:, None, :, None] * inner
    done = 0
    for kind in ("scale", "trend", "shift"):
        if kind in layout.slices:
            width, start = (d if kind == "trend" else 1), layout.slices[kind].start
            for i in range(c):
                place = slice(start + i * width, start + (i + 1) * width)
                jacobian[:, :, i, place] = columns[:, :, i, done : done + width]
            done += width
    anchor_sd = anchor_sd * np.abs(layout.gain(theta))[:, None]
    return mean, jacobian.reshape(len(theta), q, c, layout.size), anchor_sd


def _values(bank: TaskBank, anchor: NDArray[np.intp], x: Array, reach: Continuation | None) -> tuple[Array, Array]:
    """(B, .., C) each candidate's anchor at its own points (B, .., D), and its standard deviation."""
    if reach is not None:
        return reach.at(anchor, x)
    out = np.empty((*x.shape[:-1], bank.c))
    for i in np.unique(anchor):
        rows = anchor == i
        out[rows] = bank.curve(int(i))(x[rows].reshape(-1, bank.d)).reshape(*out[rows].shape)
    return out, np.zeros_like(out)


def refine(
    bank: TaskBank,
    layout: Layout,
    x: Array,
    y: Array,
    anchor: NDArray[np.intp],
    theta: Array,
    *,
    mean: Array,
    sd: Array,
    floor: Array,
    noise: Array | None = None,
    counts: NDArray[np.bool_] | None = None,
    steps: int = 25,
    reach: Continuation | None = None,
) -> Candidates:
    """Levenberg-Marquardt on residuals / noise and (theta - mean) / sd, for all candidates side by side.

    Where an anchor is asked beyond its range, its anchor_sd d above IGNORANT is part of the noise. With unknown noise,
    sigma^2 = (sum w r^2 + floor^2) / (sum w - tr H + 1) follows the residuals, w = sigma^2 / (sigma^2 + d^2).

    Args:
        bank: in scaled units.
        layout: of the transformation.
        x: (P, D) points.
        y: (B, P, C) or (P, C) values.
        anchor: (B,) positions in the bank.
        theta: (B, T) starts.
        mean: (B, T) prior means.
        sd: (B, T) prior standard deviations.
        floor: (C,) what the transformation leaves unexplained.
        noise: (C,) standard deviation of the values, if known.
        counts: (B, P) points that count; default all.
        steps: at most.
        reach: how anchors go on beyond their range.
    """
    fit = _Fit(bank, layout, x, np.broadcast_to(y, (len(theta), *y.shape[-2:])), anchor, mean, sd, counts, reach)
    sigma = np.maximum(floor, GRID_NOISE / 3) if noise is None else np.hypot(noise, floor)
    sigma = np.tile(sigma, (len(theta), 1))
    damp = np.full(len(theta), 1e-3)
    live = np.ones(len(theta), dtype=bool)  # what has settled stays, whatever is refined beside it
    residual, jacobian, anchor_sd = fit.residual(theta)
    for _ in range(steps):
        move = fit.step(theta, residual, jacobian, np.hypot(sigma[:, None], anchor_sd), damp)
        new_residual, new_jacobian, new_anchor_sd = fit.residual(theta + move)
        cost = fit.cost(residual, theta, sigma, anchor_sd) * (1 + 1e-12) + 1e-20
        better = live & (fit.cost(new_residual, theta + move, sigma, new_anchor_sd) <= cost)
        theta = np.where(better[:, None], theta + move, theta)
        residual = np.where(better[:, None, None], new_residual, residual)
        anchor_sd = np.where(better[:, None, None], new_anchor_sd, anchor_sd)
        jacobian = np.where(better[:, None, None, None], new_jacobian, jacobian)
        damp = np.clip(np.where(better, damp / 30, damp * 100), 1e-14, 1e10)
        settled = better & (np.abs(move).max(1, initial=0.0) < 1e-7) | (damp >= 1e9)
        if noise is None:
            updated = np.where(live[:, None], fit.noise(residual, jacobian, sigma, anchor_sd, floor), sigma)
            settled &= (np.abs(np.log(updated / sigma)) < 0.05).all(1)
            sigma = updated
        live &= ~settled
        if not live.any():
            break
    _, upper = fit.triangle(jacobian, np.hypot(sigma[:, None], anchor_sd))
    root = np.linalg.inv(upper)
    each = fit.cost(residual, theta, sigma, anchor_sd) + 2 * fit.weight.sum(1) * np.log(sigma).sum(1)
    return Candidates(
        anchor,
        theta,
        residual,
        jacobian,
        root @ root.swapaxes(1, 2),
        sigma,
        anchor_sd,
        fit.evidence(residual, jacobian, theta, sigma[np.argmin(each)], anchor_sd),
    )


class _Fit:
    """What stays the same while candidates are refined."""

    def __init__(
        self,
        bank: TaskBank,
        layout: Layout,
        x: Array,
        y: Array,
        anchor: NDArray[np.intp],
        mean: Array,
        sd: Array,
        counts: NDArray[np.bool_] | None,
        reach: Continuation | None,
    ) -> None:
        self.bank, self.layout, self.x, self.y, self.anchor = bank, layout, x, y, anchor
        self.mean, self.sd, self.reach = mean, sd, reach
        self.weight = np.ones(y.shape[:2]) if counts is None else counts.astype(np.float64)
        self.prior = np.eye(layout.size) / sd[:, None, :]

    def residual(self, theta: Array) -> tuple[Array, Array, Array]:
        value, jacobian, anchor_sd = model(self.bank, self.layout, self.anchor, theta, self.x, self.reach)
        anchor_sd = np.maximum(anchor_sd - IGNORANT, 0.0)
        return (self.y - value) * self.weight[..., None], jacobian * self.weight[..., None, None], anchor_sd

    def cost(self, residual: Array, theta: Array, sigma: Array, anchor_sd: Array) -> Array:
        """-2 log of likelihood and prior, without the logarithm of sigma."""
        vague = 1 + (anchor_sd / sigma[:, None]) ** 2
        misfit = ((residual / sigma[:, None]) ** 2 / vague + self.weight[..., None] * np.log(vague)).sum((1, 2))
        return misfit + (((theta - self.mean) / self.sd) ** 2).sum(1)

    def _whitened(self, jacobian: Array, total: Array) -> Array:
        return (jacobian / total[..., None]).reshape(len(total), self.y[0].size, self.layout.size)

    def step(self, theta: Array, residual: Array, jacobian: Array, total: Array, damp: Array) -> Array:
        j = self._whitened(jacobian, total)
        r = np.concatenate([(residual / total).reshape(len(theta), -1), (self.mean - theta) / self.sd], axis=1)
        scale = np.sqrt((j**2).sum(1) + 1 / self.sd**2) * np.sqrt(damp)[:, None]
        stacked = np.concatenate([j, self.prior, np.eye(self.layout.size) * scale[:, None]], axis=1)
        q, upper = np.linalg.qr(stacked)
        right = np.einsum("bit,bi->bt", q[:, : r.shape[1]], r)
        move = np.linalg.solve(upper, right[..., None])[..., 0]
        n = self.layout.nonlinear
        move[:, :n] = np.clip(move[:, :n], -0.3, 0.3)
        return move

    def triangle(self, jacobian: Array, total: Array) -> tuple[Array, Array]:
        """QR factors of the whitened Jacobian over the prior's: J^T J + Lambda = R^T R."""
        return np.linalg.qr(np.concatenate([self._whitened(jacobian, total), self.prior], axis=1))

    def noise(self, residual: Array, jacobian: Array, sigma: Array, anchor_sd: Array, floor: Array) -> Array:
        """(B, C) the noise that goes with the residuals."""
        q, _ = self.triangle(jacobian, np.hypot(sigma[:, None], anchor_sd))
        hat = (q[:, : residual[0].size] ** 2).sum(-1).reshape(residual.shape).sum(1)
        clear = self.weight[..., None] / (1 + (anchor_sd / sigma[:, None]) ** 2)
        left = np.maximum(clear.sum(1) - hat, 0.0)
        return np.maximum(np.sqrt(((clear * residual**2).sum(1) + floor**2) / (left + 1)), floor)

    def evidence(self, residual: Array, jacobian: Array, theta: Array, sigma: Array, anchor_sd: Array) -> Array:
        each = np.tile(sigma, (len(theta), 1))
        _, upper = self.triangle(jacobian, np.hypot(sigma, anchor_sd))
        # The QR factor keeps its digits where I + J^T J would lose them: factors can be redundant, noise 1e-7.
        volume = 2 * np.log(np.abs(np.diagonal(upper, axis1=1, axis2=2)) * self.sd).sum(1)
        rest = self.weight.sum(1) * np.log(sigma).sum()
        return -0.5 * (self.cost(residual, theta, each, anchor_sd) + volume) - rest
