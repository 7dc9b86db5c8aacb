"""The span of the bank with a prior: a target is the bank's mean plus its principal components, weighed by the bank.

    f*(x) = mu(x) + sum_k z_k phi_k(x),    z_k ~ N(0, tau kappa_k),    y = f*(x) + noise

phi_k is component k times the standard deviation of its score in the bank. kappa_k >= 1 is how much more the tasks at
the ends of the bank vary than the inner ones: it is learned by taking the ends out. tau and the noise are averaged over
a grid by the marginal likelihood of the context. Given them, the posterior is Gaussian and in closed form (kriging with
the covariance of the bank).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from operant.relational.bank.curves import Array
from operant.relational.bank.splits import outer
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
from operant.relational.operators.components import Components

# tau multiplies variances: 256 allows 16 times the bank's standard deviations.
TAU = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
# Four levels a decade, from rounding to the spread of the bank.
SIGMA = np.logspace(-8, 0, 33)
TAIL = 0.1
"""Weight of log tau: a much wider prior than the bank's is chosen only if the context needs it."""
PULL = 4.0
"""Standard deviation of the prior on log sigma around what the bank leaves unexplained."""


@register
@dataclass(frozen=True)
class Span(RelationalOperator):
    """Bank mean and principal components, with the bank's prior.

    Args:
        components: the largest number of them.
        share: part of the bank at its ends from which the inflation is learned.
    """

    components: int = 30
    share: float = 1 / 3
    name = "span"
    expresses = "linear combinations of all bank tasks"

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """Tried on every bank."""
        return (cls(),)

    def fit(self, bank: TaskBank) -> FittedSpan:
        """See :meth:`RelationalOperator.fit`."""
        components = Components(bank, self.components)
        kappa, left = np.ones(components.count), np.full(bank.c, 1e-6)
        if len(bank) >= 6:  # fewer leave no two ends to take out
            kappa, left = self._inflation(bank, components.count)
        return FittedSpan(bank, components, kappa, left)

    def _inflation(self, bank: TaskBank, count: int) -> tuple[Array, Array]:
        """(count,) kappa, and (C,) what the inner components leave unexplained of the outer tasks."""
        grid, split = bank.grid(), outer(bank, share=self.share)
        inner = Components(split.train, self.components, grid)
        if inner.flat:
            return np.ones(count), np.full(bank.c, 1e-6)
        mean, phi = inner(grid)  # (G, C), (G, C, k)
        rest = split.test.values(grid) - mean  # (F', G, C)
        z = np.linalg.lstsq(phi.reshape(-1, inner.count), rest.reshape(len(rest), -1).T, rcond=1e-12)[0]
        ratio = np.maximum((z**2).mean(1), 1.0)
        left = rest - np.einsum("gck,kf->fgc", phi, z)
        kappa = np.full(count, float(np.median(ratio)))
        kappa[: len(ratio)] = ratio[:count]
        return kappa, np.maximum(np.sqrt((left**2).mean((0, 1))), 1e-8)


@dataclass(frozen=True, eq=False)
class FittedSpan(Fitted):
    """See :class:`Span`."""

    bank: TaskBank
    components: Components
    kappa: Array
    left: Array

    def adapt(self, context: Context) -> Adapted:
        """See :meth:`Fitted.adapt`."""
        if self.components.flat:
            raise CannotAdaptError("all tasks of the bank are the same function: there is no span.")
        return AdaptedSpan(self, context)


class AdaptedSpan(Adapted):
    """The posterior of the components, averaged over tau and sigma by their marginal likelihood."""

    def __init__(self, fitted: FittedSpan, context: Context) -> None:
        self.fitted, self.context = fitted, context
        root = np.sqrt(fitted.kappa)
        mu, phi = fitted.components(context.x)
        phi = (phi * root).reshape(-1, len(root))  # (P C, k)
        residual = (context.y - mu).reshape(-1)
        u, d, vt = np.linalg.svd(phi, full_matrices=False)  # z / root = vt^T q
        along = u.T @ residual
        rest = max(float(residual @ residual) - float(along @ along), 0.0)
        tau, sigma, w = self._grid(d, along, rest, len(residual))  # (W,) each
        spread = tau[:, None] * d**2 + sigma[:, None] ** 2
        shrink = tau[:, None] * d / spread  # (W, r)
        q = shrink * along
        mean = w @ q
        inside = (q - mean).T @ ((q - mean) * w[:, None]) + np.diag(w @ (tau[:, None] * sigma[:, None] ** 2 / spread))
        free = float(w @ tau)  # variance of the components that the context does not see
        self.z = root * (vt.T @ mean)
        covariance = free * np.eye(len(root)) + vt.T @ (inside - free * np.eye(len(d))) @ vt
        self.covariance = root[:, None] * covariance * root
        left = np.maximum(1 - (u**2) @ (d * shrink).T, 1e-12)  # (P C, W), 1 - hat
        gaps = (residual[:, None] - u @ (d * q).T) / left
        gap = gaps @ w
        self._loo = gap, np.sqrt(((gaps - gap[:, None]) ** 2 + sigma**2 / left) @ w)
        rms = float(np.sqrt(np.mean((residual - u @ (d * mean)) ** 2)))
        self.decompositions = (Decomposition(None, f"span of {len(root)} components", rms),)

    def _grid(self, d: Array, along: Array, rest: float, n: int) -> tuple[Array, Array, Array]:
        """Values of tau and sigma with weights N(r; 0, tau Phi Phi^T + sigma^2) times the pull on sigma."""
        floor = float(np.sqrt(np.mean(self.fitted.left**2)))
        if self.context.noise is not None:
            sigmas = np.array([np.hypot(np.sqrt(np.mean(self.context.noise**2)), floor)])
        else:
            sigmas = np.unique(np.maximum(SIGMA, floor))
        tau, sigma = (g.ravel() for g in np.meshgrid(TAU, sigmas, indexing="ij"))
        variance = tau[:, None] * d**2 + sigma[:, None] ** 2
        score = (np.log(variance) + along**2 / variance).sum(-1) + (n - len(d)) * 2 * np.log(sigma) + rest / sigma**2
        score = -0.5 * score - 0.5 * (np.log(sigma / max(floor, 1e-8)) / PULL) ** 2 - TAIL * np.log(tau)
        w = np.exp(score - score.max())
        kept = w > 1e-6
        return tau[kept], sigma[kept], w[kept] / w[kept].sum()

    def predict(self, x: Array) -> tuple[Array, Array]:
        """See :meth:`Adapted.predict`."""
        mu, phi = self.fitted.components(x)
        variance = np.einsum("qck,kl,qcl->qc", phi, self.covariance, phi)
        return mu + phi @ self.z, np.sqrt(np.maximum(variance, 0.0) + self.fitted.left**2)

    def left_out(self) -> tuple[Array, Array]:
        """See :meth:`Adapted.left_out`; in closed form."""
        shape = self.context.y.shape
        residual, sd = self._loo
        return self.context.y - residual.reshape(shape), sd.reshape(shape)

    def covered(self, x: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """See :meth:`Adapted.covered`: where at least half of the bank is known."""
        return self.fitted.bank.covers(x).mean(0) >= 0.5
