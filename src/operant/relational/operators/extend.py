"""Length: one more step of a recursion. Tasks of order d span S_d = S_{d-1} + m S_{d-1} for one multiplier m(x).

The multiplier is read from the tasks of the lowest order, S_d = span{1, m, ..., m^d} is checked on every order of the
bank, the variance of each coefficient is learned there and continued to orders that the bank does not have. A target is
then explained by Bayesian linear regression on its context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from operant.relational.bank.curves import Array
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
from operant.relational.operators.recursion import Recursion, learn_recursion

LEVELS = 16
"""Noise levels between the floor and the spread of the context over which the posterior is averaged."""


@register
@dataclass(frozen=True)
class Extend(RelationalOperator):
    r"""f(x) = sum_{p <= d} c_p m(x)^p, with d up to ``ahead`` orders beyond the bank; m is learned from the bank.

    Args:
        label: the label of the tasks that holds their order, 0, 1, 2, ...
        ahead: orders beyond the bank that a target of unknown order may have; the fact ``label`` gives it.
        closure: largest relative residual of the bank in S_d = S_{d-1} + m S_{d-1} with which it applies.
        floor: smallest standard deviation of the noise, in scaled units.
    """

    label: str = "order"
    ahead: int = 1
    closure: float = 0.1
    floor: float = 1e-6

    name = "extend"
    expresses = "sums of powers of one multiplier m(x): polynomials, sums of cosines, one or more steps beyond the bank"
    needs = "labels"

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """Tried where every task has an order."""
        return (cls(),) if all(cls.label in t.labels for t in bank.tasks) else ()

    def fit(self, bank: TaskBank) -> FittedExtend:
        """Learn the multiplier and the prior of the coefficients.

        Raises:
            CannotAdaptError: if the tasks carry no orders, fewer than two, none of 0 or 1, or if the recursion does not
                close on the bank.
        """
        found = [t.labels.get(self.label) for t in bank.tasks]
        if not all(isinstance(o, int | float | np.number) and o == int(o) and o >= 0 for o in found):
            raise CannotAdaptError(f"extend: every task needs the label {self.label!r} with an integer order >= 0.")
        orders = np.array([int(o) for o in found if o is not None])
        if not (orders == 1).any() or orders.max() < 2:
            raise CannotAdaptError(
                f"extend: expected tasks of order 1 and of a higher one, got the orders {sorted(set(orders.tolist()))}."
            )
        outputs = tuple(
            learn_recursion(bank, orders, c, ahead=self.ahead, tolerance=self.closure) for c in range(bank.c)
        )
        return FittedExtend(self, bank, orders, outputs)


@dataclass(frozen=True)
class FittedExtend(Fitted):
    """A recursion learned from a bank; one :class:`Recursion` for each output."""

    settings: Extend
    bank: TaskBank
    orders: NDArray[np.intp]
    outputs: tuple[Recursion, ...]

    def adapt(self, context: Context) -> _AdaptedExtend:
        """Posterior of the coefficients, over orders and noise levels.

        Raises:
            CannotAdaptError: if the order given lies more than ``ahead`` beyond the bank.
        """
        highest = int(self.orders.max())
        given = context.labels.get(self.settings.label)
        orders = list(range(highest + self.settings.ahead + 1)) if given is None else [int(given)]
        if not 0 <= orders[-1] <= highest + self.settings.ahead:
            raise CannotAdaptError(
                f"extend: a target of order {given} lies more than ahead = {self.settings.ahead} orders beyond the "
                f"bank's highest, {highest}."
            )
        posteriors = tuple(
            CoefficientPosterior(r, orders, context.x, context.y[:, c], self.settings.floor)
            for c, r in enumerate(self.outputs)
        )
        return _AdaptedExtend(self, posteriors)


class CoefficientPosterior:
    r"""y = Phi c + e, c ~ N(mean, V), e ~ N(0, s^2), mixed over orders and noise levels by their evidence.

    With Phi V Phi' = U L U' every noise level costs no more than a division.

    Args:
        recursion: prior and basis.
        orders: candidate orders.
        x: (P, D) context.
        y: (P,) values.
        floor: smallest s.
    """

    def __init__(self, recursion: Recursion, orders: list[int], x: Array, y: Array, floor: float) -> None:
        self.recursion, self.orders = recursion, orders
        self.phi = recursion.multiplier.basis(x, orders[-1])
        low = max(floor, min(recursion.noise, 0.5 * float(np.std(y)) + floor))
        self.levels = np.geomspace(low, max(float(np.std(y)), 10 * low), LEVELS) ** 2  # (S,) variances
        v, mu = recursion.variance[: orders[-1] + 1], recursion.mean[: orders[-1] + 1]
        inside = np.arange(orders[-1] + 1) <= np.array(orders)[:, None]  # (O, p)
        self.v = v * inside
        self.rest = y - (self.phi @ (mu * inside).T).T  # (O, P)
        values, self.u = np.linalg.eigh(np.einsum("ip,op,jp->oij", self.phi, self.v, self.phi))
        self.root = np.maximum(values, 0.0)[:, None] + self.levels[:, None]  # (O, S, P)
        self.turned = np.einsum("oij,oi->oj", self.u, self.rest)  # (O, P)
        prior = (
            -0.5 * (np.log(self.levels / self.levels[0]) / np.log(100.0)) ** 2
        )  # the bank's noise, a factor 10 or so
        self.evidence = -0.5 * (self.turned[:, None] ** 2 / self.root + np.log(self.root)).sum(-1) + prior
        self.weights = np.exp(self.evidence - logsumexp(self.evidence))  # (O, S)
        self.mu = mu * inside

    def coefficients(self) -> Array:
        """(O, p) posterior mean under each order."""
        solved = np.einsum("oij,osj,oj->osi", self.u, 1 / self.root, self.turned)
        share = self.weights / np.maximum(self.weights.sum(1, keepdims=True), 1e-300)
        return self.mu + self.v * np.einsum("os,osi,ip->op", share, solved, self.phi)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """(Q,) mean and standard deviation of the curve at (Q, D)."""
        phi = self.recursion.multiplier.basis(x, self.orders[-1])
        cross = np.einsum("qp,op,ip,oij->oqj", phi, self.v, self.phi, self.u, optimize=True)
        mean = (phi @ self.mu.T).T[:, None] + np.einsum("oqj,osj->osq", cross, self.turned[:, None] / self.root)
        variance = np.einsum("qp,op,qp->oq", phi, self.v, phi)[:, None] - np.einsum(
            "oqj,osj->osq", cross**2, 1 / self.root
        )
        return _mixture(mean, np.maximum(variance, 0.0), self.weights)

    def left_out(self) -> tuple[Array, Array]:
        """(P,) mean and standard deviation of each value from the others; every mixture weight is that without it."""
        inverse = np.einsum("oij,osj->osi", self.u**2, 1 / self.root)
        solved = np.einsum("oij,osj->osi", self.u, self.turned[:, None] / self.root)
        off, variance = solved / inverse, 1 / inverse
        log = self.evidence[:, :, None] + 0.5 * (off**2 / variance + np.log(variance))
        weights = np.exp(log - logsumexp(log, axis=(0, 1)))
        y = self.rest + (self.phi @ self.mu.T).T
        return _mixture(y[:, None] - off, variance, weights)


def _mixture(mean: Array, variance: Array, weights: Array) -> tuple[Array, Array]:
    """(Q,) mean and sd of components (O, S, Q) with weights (O, S) or (O, S, Q)."""
    w = weights if weights.ndim == 3 else weights[:, :, None]
    middle = (w * mean).sum((0, 1))
    return middle, np.sqrt((w * (variance + (mean - middle) ** 2)).sum((0, 1)))


@dataclass(frozen=True)
class _AdaptedExtend(Adapted):
    """The coefficients of one target."""

    fitted: FittedExtend
    posteriors: tuple[CoefficientPosterior, ...]

    @property
    def decompositions(self) -> tuple[Decomposition, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """One for each probable order of the first output: the nearest task of one order less, and the step."""
        p, out = self.posteriors[0], []
        bank, orders = self.fitted.bank, self.fitted.orders
        weights = p.weights.sum(1)
        for i in np.argsort(-weights):
            if weights[i] < 1e-3:
                break
            order, c = p.orders[i], p.coefficients()[i]
            below = np.flatnonzero(orders == order - 1)
            anchor = None
            if len(below):
                known = p.recursion.coefficients[below, :order]
                scale = np.sqrt(p.recursion.variance[:order]) + 1e-300
                anchor = bank.keys[below[np.argmin((((known - c[:order]) / scale) ** 2).sum(1))]]
            left = p.rest[i] - p.phi @ (c - p.mu[i])
            step = f"one more step to order {order}, last coefficient {c[order]:z.4g}"
            out.append(Decomposition(anchor, step, float(np.sqrt(np.mean(left**2))), float(weights[i])))
        return tuple(out)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """(Q, C) mean and standard deviation at (Q, D)."""
        both = [p.predict(x) for p in self.posteriors]
        return np.column_stack([m for m, _ in both]), np.column_stack([s for _, s in both])

    def left_out(self) -> tuple[Array, Array]:
        """(P, C) each context value from the others, in closed form."""
        both = [p.left_out() for p in self.posteriors]
        return np.column_stack([m for m, _ in both]), np.column_stack([s for _, s in both])

    def covered(self, x: Array) -> NDArray[np.bool_]:
        """(Q,) where the tasks of order 1, and so the multiplier, are known."""
        return np.all([p.recursion.multiplier.bank.covers(x).all(0) for p in self.posteriors], axis=0)
