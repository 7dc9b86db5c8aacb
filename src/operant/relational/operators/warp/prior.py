"""What transformations are expected of a target, learned from those between tasks of the bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array
from operant.relational.bank.splits import position
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context
from operant.relational.operators.warp.linear import solve
from operant.relational.operators.warp.parameters import Layout
from operant.relational.operators.warp.reach import Reach
from operant.relational.operators.warp.refine import FLOOR, GRID_NOISE, Candidates, refine
from operant.relational.operators.warp.search import search

# Medians, since a few pairs of tasks are no transformations of each other and would rule a mean.
CHI2_MEDIAN = 0.455
"""Median of chi^2 with one degree of freedom: makes a variance of a median of squares."""


@dataclass(frozen=True, eq=False)
class WarpPrior:
    """What transformations are expected.

    Args:
        mean: (T,) center, the identity.
        sd: (T,) spread between tasks of the bank.
        noise: (C,) what the transformation leaves unexplained between tasks of the bank.
        slope: (T, 2 K) how the vector follows the difference of the parameters, or None.
        about: (2, K) center and scale of the parameters.
        spread: (T, 2) variance around that: at no distance, and by squared distance.
    """

    mean: Array
    sd: Array
    noise: Array
    slope: Array | None = None
    about: Array | None = None
    spread: Array | None = None

    def at(self, anchors: Array, target: Array | None) -> tuple[Array, Array]:
        """(A, T) means and standard deviations for anchors with parameters (A, K)."""
        a = len(anchors)
        if self.slope is None or self.about is None or self.spread is None or target is None:
            return np.tile(self.mean, (a, 1)), np.tile(self.sd, (a, 1))
        phi, far = _features(anchors, target, self.about)
        return self.mean + phi @ self.slope.T, np.sqrt(self.spread[:, 0] + far[:, None] * self.spread[:, 1])


def _features(anchors: Array, target: Array, about: Array) -> tuple[Array, Array]:
    """(A, 2 K) difference and difference times middle; (A,) squared distance."""
    p, q = (anchors - about[0]) / about[1], (target - about[0]) / about[1]
    delta = q - p
    return np.concatenate([delta, delta * (p + q) / 2], axis=1), (delta**2).sum(1)


def tabled(bank: TaskBank) -> Reach | None:
    """How anchors go on while a transformation is fitted; None where they are known everywhere or go straight on."""
    reach = Reach.of(bank)
    return reach if reach.tabled else None


def fit(
    bank: TaskBank, layout: Layout, x: Array, y: Array, anchor: NDArray[np.intp], theta: Array, **given: Any
) -> Candidates:
    """In closed form where the anchor is taken at x itself; ``theta`` is where the search starts otherwise."""
    if layout.warped:
        return refine(bank, layout, x, y, anchor, theta, reach=tabled(bank), **given)
    return solve(bank, layout, x, y, anchor, **given)


def learn_prior(bank: TaskBank, layout: Layout, *, follow: bool, targets: int = 12, near: int = 4) -> WarpPrior:
    """Fit transformations between tasks of the bank: their spread is the prior.

    Each of ``targets`` evenly spread tasks is written as a transformation of its neighbors in position, ``near`` of
    them, and of the tasks at both ends.
    """
    t, f = layout.size, len(bank)
    identity, wide = layout.identity(), np.where(np.arange(t) < layout.nonlinear, 2.0, 3.0)
    x = bank.grid(24)
    curves, counts = bank.values(x), bank.covers(x)
    order = np.argsort(position(bank), kind="stable")
    to, starts, anchors = [], [], []
    for spot in np.unique(np.linspace(0, f - 1, min(targets, f)).astype(int)):
        target = int(order[spot])
        if counts[target].sum() < 2:
            continue
        spots = {spot + step for step in range(-(near // 2), near // 2 + 1)} | {0, f - 1}
        others = np.array([order[s] for s in sorted(spots) if 0 <= s < f and s != spot])
        mean, sd = np.tile(identity, (len(others), 1)), np.tile(wide, (len(others), 1))
        if layout.nonlinear:
            context = Context(x[counts[target]], curves[target][counts[target]])
            noise = np.full(bank.c, GRID_NOISE)
            rows, theta = search(
                bank, layout, context, others, mean, sd, noise, keep=2 * len(others), reach=tabled(bank)
            )
            first = np.unique(rows, return_index=True)[1]  # the best of each anchor
            others, mean = others[rows[first]], theta[first]
        to += [target] * len(others)
        starts.append(mean)
        anchors.append(others)
    if not to:
        raise CannotAdaptError("no two tasks of the bank overlap: there is no transformation to learn from.")
    found = fit(
        bank,
        layout,
        x,
        curves[to],
        np.concatenate(anchors),
        np.concatenate(starts),
        mean=np.tile(identity, (len(to), 1)),
        sd=np.tile(wide, (len(to), 1)),
        floor=np.full(bank.c, FLOOR),
        counts=counts[to],
        steps=12,
    )
    clear = counts[to][..., None] * (found.noise[:, None] / found.total) ** 2  # continued values are uncertain
    left = (clear * found.residual**2).sum(1) / clear.sum(1)
    spread = np.sqrt(np.median((found.theta - identity) ** 2, axis=0) / CHI2_MEDIAN)
    prior = WarpPrior(identity, np.maximum(spread, 0.02), np.sqrt(np.median(left, axis=0)))
    return _follow(prior, bank, found.theta, found.anchor, np.array(to)) if follow else prior


def _follow(
    prior: WarpPrior, bank: TaskBank, theta: Array, anchor: NDArray[np.intp], to: NDArray[np.intp]
) -> WarpPrior:
    """Regress the vectors on the difference of the parameters; what is left has a part that grows with it."""
    p = bank.params
    about = np.stack([p.mean(0), np.where(bank.parameters.varying, p.std(0), np.inf)])
    rows = [_features(p[i : i + 1], p[j], about) for i, j in zip(anchor, to, strict=True)]
    phi, far = np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows])
    weight, y = 1 / (0.05 + far), theta - prior.mean
    gram = (phi * weight[:, None]).T @ phi + 1e-3 * np.eye(phi.shape[1])
    slope = np.asarray(np.linalg.solve(gram, (phi * weight[:, None]).T @ y).T, dtype=np.float64)  # (T, 2 K)
    rest, near = (y - phi @ slope.T) ** 2, far <= np.median(far)
    base = np.maximum(np.median(rest[near], axis=0) / CHI2_MEDIAN, 1e-6)
    grows = np.maximum(np.median(rest / np.maximum(far, 0.05)[:, None], axis=0) / CHI2_MEDIAN, 1e-4)
    return WarpPrior(prior.mean, prior.sd, prior.noise, slope, about, np.stack([base, grows], axis=1))
