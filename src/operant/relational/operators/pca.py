"""The bank's principal components, one more plain baseline: ``Components``, and the operator that fits them.

Letters: ``F`` tasks, ``P`` context points, ``D`` inputs, ``C`` outputs, ``Q`` query points, ``G`` points of the bank's
grid, ``K`` components, ``R`` ranks, ``L`` ridges, ``T`` tasks of the outer split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from operant.core.checks import DataError
from operant.relational.bank.curves import Array, Function, interpolator
from operant.relational.bank.splits import outer
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Adapted, Context, Decomposition, Fitted, RelationalOperator, register
from operant.relational.operators.components import Components
from operant.relational.operators.ridge import Ridge, filters, ridge

_RANKS = 10
"""Principal components tried at most."""
# Denser at the end where noise matters; the smallest only guards against singular designs.
_RIDGES = (1e-12, 1e-8, 1e-5, 1e-3, 1e-2, 1e-1)
"""Ridges tried, in units of the variance of a component's score in the bank."""
OUTER_TASKS = 64
"""Tasks of the outer split used for choosing, at most."""


@register
@dataclass(frozen=True)
class BankPCA(RelationalOperator):
    """Mean and principal components of the bank's curves, fitted to the context by ridge regression.

    f(x) = m(x) + sum_k z_k phi_k(x), phi_k the component times the standard deviation of its score in the bank,
    z = argmin |y - f(x_c)|^2 + ridge |z|^2; all C outputs share z. Rank and ridge are chosen when the context is known:
    components of the inner two thirds of the bank are fitted to the its outer tasks at the *same* context
    points. What is minimized is their mean squared error v^2 over the whole range, times h^(P / (P + 8)) where h >= 1
    is how much larger the target's leave-one-out error on the context is than theirs, plus what noise of variance
    s^2 (1 + 2 / tr(I - H)) adds through the same smoother: where the context leaves no degree of freedom to see noise,
    it may be as large as the signal.

    sd(x)^2 = s^2 (1 + phi' A^-1 phi) + h v(x)^2, A = Phi' Phi + ridge I, s^2 = mean_i e_i^2 / (1 - h_i).

    Args:
        rank: number of components; None chooses.
        ridge: in units of a score's variance in the bank; None chooses.
    """

    rank: int | None = None
    ridge: float | None = None
    name = "bank PCA"
    expresses = "the linear span of the bank"
    plain = True

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """Tried on every bank."""
        return (cls(),)

    def fit(self, bank: TaskBank) -> Fitted:
        """Components of the whole bank, and of its inner part for choosing."""
        return _PCAFitted(self, bank)


class _Outer:
    """Inner components and outer tasks, to try ranks and ridges on."""

    def __init__(self, bank: TaskBank, most: int) -> None:
        split = outer(bank, share=1 / 3, end="both")
        test = split.test
        if len(test) > OUTER_TASKS:
            test = test.select(np.linspace(0, len(test) - 1, OUTER_TASKS).astype(int))
        self._inner, self._test = Components(split.train, most), test
        grid = bank.grid(32)
        self.grid = grid[np.linspace(0, len(grid) - 1, min(len(grid), 32)).astype(int)]
        self._mean, self._phi = self._inner(self.grid)
        self._truth = test.values(self.grid)  # (T, G, C)

    def errors(self, context: Context, ranks: list[int], ridges: list[float]) -> tuple[Array, Array, Array]:
        """Mean squared errors (R, L, G, C) for each rank and ridge, the hardness (R, L), and what noise adds (R, L).

        The hardness is the target's mean squared leave-one-out error on the context over that of the outer tasks at the
        same points.
        """
        mean, phi = self._inner(context.x)
        k = phi.shape[2]
        keep = np.arange(k) < np.array(ranks)[:, None]  # (R, K)
        design = phi.reshape(-1, k) * keep[:, None, :]  # (R, N, K) for N = P C rows
        u, s, vt = np.linalg.svd(design, full_matrices=False)
        penalty = np.array(ridges)[:, None]
        query = (self._phi.reshape(-1, k) * keep[:, None, :]) @ vt.swapaxes(1, 2)  # (R, GC, M)
        smoother = (query[:, None] * filters(s[:, None, :], penalty)[:, :, None, :]) @ u.swapaxes(1, 2)[:, None]
        seen = (self._test.values(context.x) - mean).reshape(len(self._test), -1)  # (T, N)
        want = (self._truth - self._mean).reshape(len(self._test), -1)
        error = np.mean((smoother @ seen.T - want.T) ** 2, axis=-1)
        left = penalty / (s[:, None, :] ** 2 + penalty)  # I - H without cancellation
        target, free = _residuals(u, left, (context.y - mean).reshape(1, -1))
        others, _ = _residuals(u, left, seen)
        hardness = _mean_square(target / free) / np.maximum(_mean_square(others / free), 1e-28)
        noise = _mean_square(target / np.sqrt(free)) * (1 + 2 / free.sum((2, 3)))
        added = noise * np.mean((smoother**2).sum(-1), axis=-1)
        return error.reshape(len(ranks), len(ridges), len(self.grid), -1), hardness, added


def _residuals(u: Array, left: Array, values: Array) -> tuple[Array, Array]:
    """(R, L, N, T) residuals G v of values (T, N), and (R, L, N, 1) diagonal of G = u diag(left) u' + (I - u u')."""
    inside = u.swapaxes(1, 2) @ values.T  # (R, M, T)
    residual = u[:, None] @ (left[..., None] * inside[:, None])
    free = np.einsum("rnm,rlm->rln", u**2, left)
    if u.shape[1] > u.shape[2]:
        residual = residual + (values.T - u @ inside)[:, None]
        free = free + (1 - (u**2).sum(-1))[:, None]
    return residual, np.maximum(free, 1e-14)[..., None]


def _mean_square(values: Array) -> Array:
    return np.asarray(np.mean(values**2, axis=(2, 3)), dtype=np.float64)


class _PCAFitted(Fitted):
    def __init__(self, settings: BankPCA, bank: TaskBank) -> None:
        most = settings.rank or _RANKS
        self._components = Components(bank, most)
        self._settings = settings
        self._keys = bank.keys
        try:
            self._outer: _Outer | None = _Outer(bank, most)
        except DataError:  # too few tasks for an outer split
            self._outer = None

    def adapt(self, context: Context) -> Adapted:
        mean, phi = self._components(context.x)
        most = phi.shape[2]
        fixed = self._settings
        ranks = [min(fixed.rank, most)] if fixed.rank else list(range(1, most + 1))
        ridges = [fixed.ridge] if fixed.ridge is not None else list(_RIDGES)
        if self._outer is None:
            rank = ranks[0]
            fit = ridge(phi[:, :, :rank], context.y - mean, fixed.ridge if fixed.ridge is not None else 1e-5)
            return _PCAdapted(self._components, context, fit, rank, None)
        error, hardness, added = self._outer.errors(context, ranks, ridges)
        harder, p = np.maximum(hardness, 1.0), len(context.x)
        # Without the last term, three points would determine three components and leave no residual to see noise in.
        expected = error.mean((2, 3)) * harder ** (p / (p + 8)) + added
        r, c = (int(i) for i in np.unravel_index(int(np.argmin(expected)), expected.shape))
        fit = ridge(phi[:, :, : ranks[r]], context.y - mean, ridges[c])
        error = error[r, c] * harder[r, c]
        outer = interpolator(self._outer.grid, error, "linear")
        return _PCAdapted(self._components, context, fit, ranks[r], outer)


class _PCAdapted(Adapted):
    def __init__(self, components: Components, context: Context, fit: Ridge, rank: int, outer: Function | None) -> None:
        self._components, self._context, self._fit, self._rank, self._outer = components, context, fit, rank, outer
        residual = float(np.sqrt(np.mean(fit.residual() ** 2)))
        text = f"{rank} component{'s' * (rank > 1)}, ridge {fit.ridge:g}: " + ", ".join(f"{z:z.3g}" for z in fit.coef)
        self.decompositions = (Decomposition(None, text, residual),)

    def _error(self, x: Array) -> Array | float:
        return 0.0 if self._outer is None else np.maximum(self._outer(x), 0.0)

    def predict(self, x: Array) -> tuple[Array, Array]:
        mean, phi = self._components(x)
        phi = phi[:, :, : self._rank]
        spread = self._fit.noise * (1 + self._fit.leverage(phi))
        return mean + self._fit.mean(phi), np.sqrt(spread + self._error(x))

    def left_out(self) -> tuple[Array, Array]:
        """From the hat matrix, rank and ridge held."""
        c = self._context
        if len(c.x) == 1:
            return np.full_like(c.y, np.nan), np.full_like(c.y, np.nan)
        return c.y - self._fit.left_out_error(), np.sqrt(
            self._fit.noise * self._fit.left_out_factor() + self._error(c.x)
        )
