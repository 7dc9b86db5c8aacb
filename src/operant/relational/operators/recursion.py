"""What a bank says of a recursion S_d = S_{d-1} + m S_{d-1}: the multiplier m, and the prior of the coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError


@dataclass(frozen=True)
class _Multiplier:
    """m(x) = sum_i w_i f_i(x) - offset over tasks of the lowest order, and the basis built of its powers.

    Args:
        bank: those tasks.
        weights: (F,) w.
        output: which output of the tasks.
        offset: what is subtracted; it centers m where the coefficients are independent.
        scale: what it is divided by, so that |m| <= 1 on the grid.
        orthogonal: basis of Chebyshev polynomials T_p(m) in place of powers m^p.
    """

    bank: TaskBank
    weights: Array
    output: int
    offset: float
    scale: float
    orthogonal: bool

    def __call__(self, x: Array) -> Array:
        """(Q,) values at (Q, D)."""
        return (self.weights @ self.bank.values(x)[:, :, self.output] - self.offset) / self.scale

    def basis(self, x: Array, order: int) -> Array:
        """(Q, order + 1) basis at (Q, D)."""
        return _powers(self(x), order, self.orthogonal)


@dataclass(frozen=True)
class Recursion:
    """What one output of the bank says of the recursion.

    Args:
        multiplier: m.
        mean: (order + 1,) prior mean of the coefficients.
        variance: (order + 1,) their prior variance, continued log-linearly beyond the bank's orders.
        closure: relative residual of the tasks of each order in S_d.
        noise: root mean square of that residual.
        coefficients: (F, highest + 1) of the bank's tasks.
    """

    multiplier: _Multiplier
    mean: Array
    variance: Array
    closure: dict[int, float]
    noise: float
    coefficients: Array


def _powers(m: Array, order: int, orthogonal: bool) -> Array:
    if orthogonal:
        return np.asarray(chebyshev.chebvander(m, order), dtype=np.float64)
    return np.vander(m, order + 1, increasing=True)


def learn_recursion(
    bank: TaskBank, orders: NDArray[np.intp], output: int, *, ahead: int, tolerance: float
) -> Recursion:
    """_Multiplier, closure and prior of one output."""
    grid = bank.grid()
    first = bank.select(np.flatnonzero(orders == 1)[:64])
    weights, m = _direction(first.values(grid)[:, :, output], tolerance)
    values = bank.values(grid)[:, :, output]
    highest = int(orders.max())
    fits = _fits(m, values, orders, orthogonal=False, offset=0.0)
    spread = values - values.mean(1, keepdims=True)
    closure, noise = {}, 0.0
    for o in sorted(set(orders.tolist())):
        at = orders == o
        left = values[at] - fits[at] @ _powers(m, highest, False).T
        closure[o] = float(np.sqrt((left**2).sum() / max((spread[at] ** 2).sum(), (values[at] ** 2).sum() * 1e-12)))
        noise = max(noise, float(np.sqrt(np.mean(left**2))))
    if max(closure.values()) > tolerance:
        numbers = ", ".join(f"order {o}: {c:z.2g}" for o, c in closure.items())
        raise CannotAdaptError(
            f"extend: the bank does not follow S_d = S_(d-1) + m S_(d-1); relative residuals {numbers}, "
            f"at most {tolerance:g} expected."
        )
    orthogonal, offset, scale = _best_basis(m, values, orders)
    c = _fits((m - offset) / scale, values, orders, orthogonal=orthogonal)
    known = highest + 1
    mean = np.array([c[orders >= p, p].mean() for p in range(known)])
    variance = np.array([np.mean((c[orders >= p, p] - mean[p]) ** 2) for p in range(known)])
    beyond = np.arange(known, known + ahead)
    line = np.polyfit(np.arange(1, known), np.log(np.maximum(variance[1:], 1e-300)), 1 if known > 2 else 0)
    return Recursion(
        _Multiplier(first, weights, output, offset, scale, orthogonal),
        np.concatenate([mean, np.zeros(ahead)]),
        np.concatenate([variance, np.exp(np.polyval(line, beyond))]),
        closure,
        noise,
        c,
    )


def _direction(values: Array, tolerance: float) -> tuple[Array, Array]:
    """Weights (F,) and grid values (G,) of the one way in which tasks of order 1 (F, G) vary beyond a constant."""
    centered = values - values.mean(1, keepdims=True)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    if s[0] <= 1e-9 * np.abs(values).max():
        raise CannotAdaptError("extend: the tasks of order 1 are constant.")
    if len(s) > 1 and s[1] > tolerance * s[0]:
        raise CannotAdaptError(
            "extend: beyond a constant, the tasks of order 1 must vary in one way only; their second direction has "
            f"{s[1] / s[0]:.2g} of the first's size."
        )
    weights = u[:, 0] / s[0] * np.sqrt(values.shape[1])
    return weights, weights @ values


def _fits(m: Array, values: Array, orders: NDArray[np.intp], *, orthogonal: bool, offset: float = 0.0) -> Array:
    """(F, highest + 1) coefficients of every task in the span of its own order."""
    out = np.zeros((len(values), int(orders.max()) + 1))
    for o in set(orders.tolist()):
        basis = _powers(m - offset, o, orthogonal)
        out[orders == o, : o + 1] = np.linalg.lstsq(basis, values[orders == o].T, rcond=None)[0].T
    return out


def _best_basis(m: Array, values: Array, orders: NDArray[np.intp]) -> tuple[bool, float, float]:
    """Chebyshev or powers, the offset and the scale of m: those under which the bank's coefficients are most probable.

    All choices span the same S_d. Densities are compared in common coordinates: log N(c) - sum_p log |R_pp|, with
    R of the QR decomposition of the basis.
    """
    middle, half = (m.max() + m.min()) / 2, np.ptp(m) / 2

    def evidence(offset: float, orthogonal: bool) -> float:
        z = (m - offset) / half
        c = _fits(z, values, orders, orthogonal=orthogonal)
        diagonal = np.abs(np.diag(np.linalg.qr(_powers(z, c.shape[1] - 1, orthogonal), mode="r")))
        total = 0.0
        for p in range(c.shape[1]):
            at = orders >= p
            total -= at.sum() * (0.5 * np.log(c[at, p].var() + 1e-300) + np.log(diagonal[p]))
        return total

    offsets = np.linspace(-1.0, 1.0, 21) * half + middle
    start = max(offsets, key=lambda o: evidence(o, False))
    step = offsets[1] - offsets[0]
    found: Any = minimize_scalar(
        lambda o: -evidence(o, False),
        bounds=(start - step, start + step),
        method="bounded",
        options={"xatol": 1e-6 * half},
    )
    if evidence(middle, True) > -float(found.fun):
        return True, float(middle), float(half)
    return False, float(found.x), float(half)
