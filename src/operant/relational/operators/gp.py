"""Gaussian processes: on (task parameters, x) with the context, and on the context alone with the bank's kernel.

Kernels are learned from the bank: from one block of points for :class:`TaskGP`, from one a task for :class:`ContextGP`.
scikit-learn's regressor cannot share hyper-parameters over tasks and takes longer; the tests compare both.

A target's context may be noisier than the bank: its noise is the one of 25 levels from the bank's to one with the
highest evidence. Standard deviations contain the noise, and are widened by sqrt((2 + sum_i z_i^2) / (2 + P)) where that
is above one, z_i the leave-one-out errors of the context in units of their standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import (
    Adapted,
    CannotAdaptError,
    Context,
    Fitted,
    RelationalOperator,
    register,
)
from operant.relational.operators.kernels import JITTER, NOISE, PERIOD, Kernel, Term, fit_kernel


def _start(terms: Sequence[Term], rng: np.random.Generator | None = None) -> Array:
    """Unit lengths, half of the range for a period, small noise; scattered if there is a generator."""
    middle = np.array([x for t in terms for x in ([1.0] + [1.0] * (len(t.bounds) - 1))] + [1e-3])
    return np.log(middle) + (0.0 if rng is None else rng.normal(0, 1.0, len(middle)))


class _Prior:
    """A kernel conditioned on points of the bank (none for a process on the context alone)."""

    def __init__(self, kernel: Kernel, x: Array, y: Array) -> None:
        self.kernel, self._x = kernel, x
        self._low = np.linalg.cholesky(kernel(x, x) + (kernel.noise + JITTER) * np.eye(len(x)))
        self._seen = self._solve(y)  # (N, C)

    def _solve(self, b: Array) -> Array:
        return np.asarray(solve_triangular(self._low, b, lower=True), dtype=np.float64) if len(b) else b

    def whiten(self, points: Array) -> Array:
        """(N, M) L^-1 K(bank, points)."""
        return self._solve(self.kernel(self._x, points))

    def mean(self, whitened: Array) -> Array:
        """(M, C) given the bank."""
        return whitened.T @ self._seen


def _target_noise(k: Array, error: Array, least: float) -> float:
    """The variance of the noise of a target with errors (P, C) and covariance ``k`` before its noise.

    The level with the highest evidence among 25 from the bank's to one, where covariance and noise together may be
    widened as the module's docstring says, under the prior p(noise) ~ 1 / noise: a misfit is noise only where a larger
    amplitude does not explain it as well.
    """
    values, vectors = np.linalg.eigh(k)
    square = (vectors.T @ error) ** 2  # (P, C)
    noise = least * np.geomspace(1, max(NOISE[1] / least, 1), 25)
    total = (np.maximum(values, 0) + noise[:, None])[:, :, None]
    widen = np.maximum((2 + (square / total).sum(1)) / (2 + len(k)), 1.0)[:, None]  # (25, 1, C)
    evidence = -0.5 * (square / (total * widen) + np.log(total * widen)).sum((1, 2))
    return float(noise[int(np.argmax(evidence - np.log(noise)))])


class _Posterior(Adapted):
    """A Gaussian process given context points; ``before`` are mean and covariance before the context is seen."""

    def __init__(self, prior: _Prior, context: Context, extra: Array) -> None:
        self._prior, self._extra, self._y = prior, extra, context.y
        self._points = self._join(context.x)
        self._whitened = prior.whiten(self._points)
        k = prior.kernel(self._points, self._points) - self._whitened.T @ self._whitened
        self._error = context.y - prior.mean(self._whitened)  # (P, C)
        # The bank's noise would do for a context like the bank; on noisier ones it cost up to 90 times the error.
        self._noise = _target_noise(k, self._error, prior.kernel.noise + JITTER)
        self._inverse = np.linalg.inv(k + self._noise * np.eye(len(k)))
        self._alpha = self._inverse @ self._error
        z2 = self._alpha**2 / np.diag(self._inverse)[:, None]
        self._widen = np.sqrt(np.maximum((2 + z2.sum(0)) / (2 + len(k)), 1.0))

    def _join(self, x: Array) -> Array:
        return np.column_stack([np.tile(self._extra, (len(x), 1)), x])

    def predict(self, x: Array) -> tuple[Array, Array]:
        points = self._join(x)
        whitened = self._prior.whiten(points)
        cross = self._prior.kernel(points, self._points) - whitened.T @ self._whitened  # (Q, P)
        variance = self._prior.kernel.diagonal(points) - (whitened**2).sum(0) - ((cross @ self._inverse) * cross).sum(1)
        sd = np.sqrt(np.maximum(variance, 0) + self._noise)
        return self._prior.mean(whitened) + cross @ self._alpha, sd[:, None] * self._widen

    def left_out(self) -> tuple[Array, Array]:
        """Closed form, Rasmussen & Williams (2006), eq. 5.12, with the bank's points kept."""
        if len(self._y) == 1:
            return np.full_like(self._y, np.nan), np.full_like(self._y, np.nan)
        inverse = np.diag(self._inverse)[:, None]
        return self._y - self._alpha / inverse, np.sqrt(1 / inverse) * self._widen


class _Conditioned(Fitted):
    """A prior, and how a target's parameters become coordinates."""

    def __init__(self, prior: _Prior, evidence: float, bank: TaskBank | None = None) -> None:
        self.prior, self.evidence, self._bank = prior, evidence, bank

    def adapt(self, context: Context) -> Adapted:
        if self._bank is None:
            return _Posterior(self.prior, context, np.empty(0))
        count = len(self._bank.param_names)
        if context.params is None or len(context.params) != count:
            got = "none" if context.params is None else f"{len(context.params)}"
            raise CannotAdaptError(f"this process needs the target's {count} parameters, got {got}.")
        self._bank.parameters.check_reach(context.params)
        return _Posterior(self.prior, context, self._bank.parameters.standardized(context.params))


@register
@dataclass(frozen=True)
class TaskGP(RelationalOperator):
    """A Gaussian process on (task parameters, x), given points of the bank and the context.

    k = matern(p, x) + linear(p, x) + constant + noise, one length a column, parameters standardized, the C outputs
    independent with the same kernel.

    Args:
        learn: points of the bank that the hyper-parameters are learned from, at most.
        keep: points of the bank that predictions are conditioned on, at most.
        restarts: random starts besides the first.
        seed: of the subsamples and the starts.
    """

    learn: int = 400
    keep: int = 1000
    restarts: int = 2
    seed: int = 0
    name = "GP on parameters"
    expresses = "functions smooth in x and in the task's parameters"
    plain = True
    needs = "params"

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """Tried where parameters are known."""
        return (cls(),)

    def fit(self, bank: TaskBank) -> Fitted:
        """Learn the kernel from points of all tasks.

        Raises:
            CannotAdaptError: if the tasks of the bank have no parameters.
        """
        k = len(bank.param_names)
        if not k:
            raise CannotAdaptError("a process on task parameters needs a bank whose tasks have parameters.")
        if not bank.parameters.varying.any():
            raise CannotAdaptError("the parameters never vary in the bank: there is nothing to learn from them.")
        rng = np.random.default_rng(self.seed)
        params = bank.parameters.standardized(bank.params)
        columns = tuple(range(k + bank.d))
        terms = (Term("matern", columns), Term("linear", columns), Term("constant"))
        x, y = _flat(bank, params, self.learn, rng)
        starts = [_start(terms), *(_start(terms, rng) for _ in range(self.restarts))]
        kernel, evidence = fit_kernel(terms, x[None], y[None], starts=starts)
        x, y = _flat(bank, params, self.keep, rng)
        return _Conditioned(_Prior(kernel, x, y), evidence, bank)


def _flat(bank: TaskBank, params: Array, most: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """At most ``most`` points (N, K + D) of all tasks, and values (N, C)."""
    which = np.repeat(np.arange(len(bank)), [len(t.x) for t in bank.tasks])
    x = np.column_stack([params[which], np.concatenate([t.x for t in bank.tasks])])
    some = np.sort(rng.permutation(len(x))[:most])
    return x[some], np.concatenate([t.y for t in bank.tasks])[some]


@register
@dataclass(frozen=True)
class ContextGP(RelationalOperator):
    """A Gaussian process on the context alone, its kernel shared by the tasks of the bank.

    k = rbf(x) + linear + constant [+ periodic(x)] + noise. The hyper-parameters maximize the evidence summed over
    tasks; the periodic term is kept where it raises the evidence by more than its three parameters cost (BIC).

    Args:
        periodic: None decides; for several inputs never.
        tasks: tasks of the bank to learn from, at most.
        points: points of each of them, at most.
        seed: of the subsamples and the starts.
    """

    periodic: bool | None = None
    tasks: int = 50
    points: int = 20
    seed: int = 0
    name = "GP on the context"
    expresses = "functions as smooth, steep and periodic as those of the bank"
    uses_bank = False
    plain = True

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """Tried on every bank; of its tasks 16 suffice to learn a kernel."""
        return (cls(tasks=16),)

    def fit(self, bank: TaskBank) -> Fitted:
        """Learn the kernel."""
        rng = np.random.default_rng(self.seed)
        x, y = _blocks(bank, self.tasks, self.points, rng)
        xs = tuple(range(bank.d))
        plain = (Term("rbf", xs), Term("linear", xs), Term("constant"))
        best = fit_kernel(plain, x, y, starts=[_start(plain), _start(plain) + np.log(0.3)])
        if bank.d == 1 and self.periodic is not False:
            terms = (*plain, Term("periodic", xs))
            first = np.concatenate([_log(best[0])[:-1], np.log([1.0, 1.0, 1.0, best[0].noise])])
            starts = [first + np.eye(len(first))[-2] * np.log(p) for p in np.geomspace(*PERIOD, 12)]
            found = fit_kernel(terms, x, y, starts=starts)
            if self.periodic or found[1] - best[1] > 1.5 * np.log(y.size):
                best = found
        prior = _Prior(best[0], np.empty((0, bank.d)), np.empty((0, bank.c)))
        return _Conditioned(prior, best[1])


def _log(kernel: Kernel) -> Array:
    return np.log(np.concatenate([*kernel.h, [kernel.noise]]))


def _blocks(bank: TaskBank, tasks: int, points: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """(B, N, D) points and (B, N, C) values of tasks with at least N points, N their median or ``points``."""
    n = min(points, int(np.median([len(t.x) for t in bank.tasks])))
    usable = [i for i, t in enumerate(bank.tasks) if len(t.x) >= n]
    chosen = rng.permutation(usable)[:tasks]
    some = [(bank.tasks[i], rng.permutation(len(bank.tasks[i].x))[:n]) for i in chosen]
    return np.stack([t.x[s] for t, s in some]), np.stack([t.y[s] for t, s in some])
