"""Ridge regression with everything in closed form: fit, leverage, noise, and points left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from operant.relational.bank.curves import Array


def filters(s: Array, ridge: Array | float) -> Array:
    """s / (s^2 + ridge), 0 where both vanish."""
    bottom = s**2 + ridge
    return np.divide(s, bottom, out=np.zeros(np.broadcast_shapes(s.shape, bottom.shape)), where=bottom > 0)


@dataclass(frozen=True, eq=False)
class Ridge:
    """The fit z = argmin |y - Phi z|^2 + ridge |z|^2 of P points with B values each, from its singular values.

    With the prior z ~ N(0, s^2 / ridge) and noise N(0, s^2) it is the posterior mean; G = I - H is the matrix with
    residual = G y. Groups of B rows are left out together: e_{-i} = G_ii^-1 (G y)_i, with variance s^2 G_ii^-1.
    """

    y: Array
    """(P, B)"""
    ridge: float
    u: Array
    """(PB, N)"""
    s: Array
    """(N,)"""
    vt: Array
    """(N, K)"""

    @property
    def coef(self) -> Array:
        """(K,) z."""
        return (filters(self.s, self.ridge) * (self.u.T @ self.y.ravel())) @ self.vt

    def mean(self, design: Array) -> Array:
        """(Q, B) values for designs (Q, B, K)."""
        return design @ self.coef

    def leverage(self, design: Array) -> Array:
        """(Q, B) phi' (Phi' Phi + ridge I)^-1 phi: the variance of the mean in units of the noise."""
        inside = design @ self.vt.T  # (Q, B, N)
        known = (inside**2 / np.maximum(self.s**2 + self.ridge, 1e-300)).sum(-1)
        rest = np.maximum((design**2).sum(-1) - (inside**2).sum(-1), 0.0)  # directions without any data
        rest = np.where(rest > 1e-12 * (design**2).sum(-1), rest, 0.0)
        return known + rest / max(self.ridge, 1e-300)

    def _g(self) -> Array:
        """(PB, PB) I - H, without cancellation where the fit is exact."""
        n = len(self.u)
        left = 1 - self.s * filters(self.s, self.ridge)
        if self.ridge > 0:
            left = self.ridge / (self.s**2 + self.ridge)
        g = (self.u * left) @ self.u.T
        return g if self.u.shape[1] == n else g + np.eye(n) - self.u @ self.u.T

    def residual(self) -> Array:
        """(P, B) y less the fit."""
        return (self._g() @ self.y.ravel()).reshape(self.y.shape)

    def _blocks(self) -> tuple[Array, Array]:
        """(P, B, B) inverse diagonal blocks of G and (P, B) residuals."""
        p, b = self.y.shape
        g = self._g()
        at = np.arange(p)
        blocks = g.reshape(p, b, p, b)[at, :, at, :]
        if b == 1:
            return 1 / np.maximum(blocks, 1e-13), (g @ self.y.ravel()).reshape(p, b)
        inverse = np.asarray(np.linalg.pinv(blocks, rcond=1e-13, hermitian=True), dtype=np.float64)
        return inverse, (g @ self.y.ravel()).reshape(p, b)

    def left_out_error(self) -> Array:
        """(P, B) each value less its prediction from the other points."""
        inverse, residual = self._blocks()
        return (inverse @ residual[:, :, None])[:, :, 0]

    def left_out_factor(self) -> Array:
        """(P, B) the variance of each left-out prediction's error in units of the noise, 1 / (1 - h) for B = 1."""
        return np.diagonal(self._blocks()[0], axis1=1, axis2=2).copy()

    @property
    def noise(self) -> float:
        """s^2 = mean of e' G_ii^-1 e / B: unbiased, since E (G y)_i (G y)_i' = s^2 G_ii."""
        inverse, residual = self._blocks()
        return float(np.einsum("pi,pij,pj->", residual, inverse, residual) / residual.size)


def ridge(design: Array, y: Array, penalty: float) -> Ridge:
    """Fit values (P, B) on designs (P, B, K), all sharing the K coefficients."""
    u, s, vt = np.linalg.svd(design.reshape(y.size, -1), full_matrices=False)
    return Ridge(y, penalty, u, s, vt)
