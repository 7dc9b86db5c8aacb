"""Gaussian processes: on (task parameters, x) with the context, and on the context alone with the bank's kernel.

Kernels are sums of terms; their variances, lengths and the noise maximise the marginal likelihood summed over blocks of
points (one block for :class:`TaskGP`, one a task for :class:`ContextGP`), times a weak log-normal prior on the lengths.
scikit-learn's regressor cannot share hyper-parameters over tasks and takes longer; the tests compare both.

A target's context may be noisier than the bank: its noise is the one of 25 levels from the bank's to one with the
highest evidence. Standard deviations contain the noise, and are widened by sqrt((2 + sum_i z_i^2) / (2 + P)) where that
is above one, z_i the leave-one-out errors of the context in units of their standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

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

JITTER = 1e-9
NOISE = (1e-8, 1.0)
"""Range of the noise's variance, in scaled units."""
VARIANCE = (1e-6, 1e4)
LENGTH = (0.05, 100.0)
LENGTH_PRIOR = (1.0, 1.0)
"""Mean and sd of log l: few tasks leave the lengths over parameters open, and short ones do not extrapolate."""
WIDTH = (0.3, 30.0)
"""Range of a periodic term's length, in units of the sine."""
PERIOD = (0.1, 4.0)
"""In scaled units, where the bank's range is [-1, 1]."""
TermKind = Literal["rbf", "matern", "linear", "constant", "periodic"]


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

    kind: TermKind
    columns: tuple[int, ...] = ()

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Of the hyper-parameters: variance, then lengths, then period."""
        more = {"rbf": [LENGTH] * len(self.columns), "periodic": [WIDTH, PERIOD]}
        return [VARIANCE, *more.get("rbf" if self.kind == "matern" else self.kind, [])]

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
    """The kernel that maximises the evidence of values (B, N, C) at points (B, N, E), and its log evidence.

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
        self._bank.check_reach(context.params)
        return _Posterior(self.prior, context, self._bank.standardized(context.params))


@register
@dataclass(frozen=True)
class TaskGP(RelationalOperator):
    """A Gaussian process on (task parameters, x), given points of the bank and the context.

    k = matern(p, x) + linear(p, x) + constant + noise, one length a column, parameters standardised, the C outputs
    independent with the same kernel.

    Args:
        learn: points of the bank that the hyper-parameters are learnt from, at most.
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
        if not bank.varying.any():
            raise CannotAdaptError("the parameters never vary in the bank: there is nothing to learn from them.")
        rng = np.random.default_rng(self.seed)
        params = bank.standardized(bank.params)
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

    k = rbf(x) + linear + constant [+ periodic(x)] + noise. The hyper-parameters maximise the evidence summed over
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
