"""Gaussian processes against scikit-learn, refits and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, ExpSineSquared, Matern, WhiteKernel

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, leave_one_out
from operant.relational.operators.gp import ContextGP, TaskGP
from operant.relational.operators.kernels import JITTER, LENGTH_PRIOR, Kernel, Term, fit_kernel, negative_evidence

ALL = (Term("rbf", (0, 1)), Term("matern", (1, 2)), Term("linear", (0,)), Term("constant"), Term("periodic", (2,)))


def slope(p: Array, x: Array) -> Array:
    return np.sin(2 * x[:, 0] + p[:, :1]) * (1 + 0.3 * p[:, 1:2])


def family(rng: np.random.Generator, tasks: int = 20) -> TaskBank:
    params = rng.uniform(-1, 1, (tasks, 2))
    points = [np.sort(rng.uniform(-1, 1, (n, 1)), axis=0) for n in rng.integers(8, 16, tasks)]
    return TaskBank.from_arrays([(x, slope(p[None], x)[0]) for p, x in zip(params, points, strict=True)], params=params)


def test_kernels_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 1)), rng.normal(size=(4, 1))
    h = np.array([1.3, 0.7, 0.9])
    for term, theirs in [
        (Term("rbf", (0,)), RBF(0.7)),
        (Term("matern", (0,)), Matern(0.7, nu=2.5)),
        (Term("linear", (0,)), DotProduct(0.0)),
        (Term("constant"), ConstantKernel(1.0)),
        (Term("periodic", (0,)), ExpSineSquared(0.7, 0.9)),
    ]:
        hyper = h[: len(term.bounds)]
        kernel = Kernel((term,), (hyper,), 0.0)
        assert kernel(a, b) == pytest.approx(1.3 * theirs(a, b)), term.kind
        assert kernel.diagonal(a) == pytest.approx(np.diag(kernel(a, a)))


def test_the_gradient_of_the_evidence() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, 7, 3)), rng.normal(size=(3, 7, 2))
    theta = rng.normal(-0.5, 0.3, sum(len(t.bounds) for t in ALL) + 1)
    value, gradient = negative_evidence(theta, ALL, x, y)
    slow = approx_fprime(theta, lambda t: negative_evidence(t, ALL, x, y)[0], 1e-6)
    assert gradient == pytest.approx(slow, rel=1e-4, abs=1e-4)
    assert value == pytest.approx(
        sum(_log_prior(theta)) + sum(_nll(theta, x[b], y[b, :, c : c + 1]) for b in range(3) for c in range(2))
    )


def _log_prior(theta: Array) -> Array:
    """rbf and matern have two lengths each, behind their variances."""
    return 0.5 * ((theta[[1, 2, 4, 5]] - LENGTH_PRIOR[0]) / LENGTH_PRIOR[1]) ** 2


def _nll(theta: Array, x: Array, y: Array) -> float:
    e = np.exp(theta)
    kernel = Kernel(ALL, (e[:3], e[3:6], e[6:7], e[7:8], e[8:11]), float(e[11]))
    k = kernel(x, x) + (kernel.noise + JITTER) * np.eye(len(x))
    return float(0.5 * y[:, 0] @ np.linalg.solve(k, y[:, 0]) + 0.5 * np.linalg.slogdet(k)[1])


def test_the_fit_finds_what_scikit_learn_finds() -> None:
    """One block, the prior's pull small against 60 points."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (60, 1))
    y = np.sin(4 * x) + 0.1 * rng.normal(size=(60, 1))
    kernel, _ = fit_kernel((Term("rbf", (0,)),), x[None], y[None], starts=[np.log([1.0, 1.0, 0.01])])
    theirs = GaussianProcessRegressor(ConstantKernel() * RBF() + WhiteKernel(), random_state=0).fit(x, y)
    k = theirs.kernel_
    assert kernel.noise == pytest.approx(k.k2.noise_level, rel=0.05)
    assert kernel.h[0][1] == pytest.approx(k.k1.k2.length_scale, rel=0.25)


def test_conditioning_is_that_of_one_big_process() -> None:
    """The update of the bank's Cholesky factor against a process on bank and context together, and scikit-learn."""
    rng = np.random.default_rng(3)
    bank = family(rng)
    fitted = TaskGP(restarts=0, learn=100, keep=10_000).fit(bank)
    kernel = fitted.prior.kernel
    x, q, p = rng.uniform(-1, 0, (5, 1)), rng.uniform(-1, 1, (7, 1)), np.array([1.3, -0.4])
    context = Context(x, slope(p[None], x).T + 0.01, params=p)
    mean, sd = fitted.adapt(context).predict(q)
    z = (np.concatenate([bank.params, p[None]]) - bank.params.mean(0)) / bank.params.std(0)
    points = [*[t.x for t in bank.tasks], x]
    every = np.concatenate([np.column_stack([np.tile(v, (len(t), 1)), t]) for v, t in zip(z, points, strict=True)])
    values = np.concatenate([*[t.y for t in bank.tasks], context.y])
    h = kernel.h
    theirs = (
        ConstantKernel(h[0][0]) * Matern(h[0][1:], nu=2.5)
        + ConstantKernel(h[1][0]) * DotProduct(0.0, "fixed")
        + ConstantKernel(h[2][0])
        + WhiteKernel(kernel.noise)
    )
    reference = GaussianProcessRegressor(theirs, optimizer=None, alpha=JITTER).fit(every, values)
    want, spread = reference.predict(np.column_stack([np.tile(z[-1], (7, 1)), q]), return_std=True)
    assert mean[:, 0] == pytest.approx(want, rel=1e-5, abs=1e-6)
    widened = sd[:, 0] / spread
    assert (widened > 1 - 1e-4).all() and np.ptp(widened) < 1e-3


@pytest.mark.parametrize("operator", [TaskGP(restarts=0, learn=100), ContextGP(periodic=False)], ids=lambda o: o.name)
def test_left_out_is_what_adapting_without_each_point_predicts(operator: TaskGP | ContextGP) -> None:
    rng = np.random.default_rng(4)
    fitted = operator.fit(family(rng))
    x, p = rng.uniform(-1, 1, (6, 1)), np.array([1.2, 0.3])
    context = Context(x, slope(p[None], x).T, params=p)
    mean, sd = fitted.adapt(context).left_out()
    assert mean == pytest.approx(leave_one_out(fitted, context)[0], rel=1e-5, abs=1e-7)
    assert (sd > 0).all()
    single, _ = fitted.adapt(Context(x[:1], context.y[:1], params=p)).left_out()
    assert np.isnan(single).all()


def test_parameters_extrapolate_better_with_a_context() -> None:
    rng = np.random.default_rng(5)
    fitted = TaskGP(restarts=0, learn=100).fit(family(rng, 30))
    x, q, p = np.array([[-0.8], [-0.4], [0.0]]), np.linspace(0, 1, 9)[:, None], np.array([1.5, 1.4])
    truth = slope(p[None], q).T
    one, _ = fitted.adapt(Context(x[:1], slope(p[None], x[:1]).T, params=p)).predict(q)
    three, sd = fitted.adapt(Context(x, slope(p[None], x).T, params=p)).predict(q)
    assert np.mean((three - truth) ** 2) < min(np.mean((one - truth) ** 2), 0.02)
    assert sd[-1] > sd[0]


def test_without_parameters_there_is_no_process_on_them() -> None:
    x = np.linspace(0, 1, 5)
    with pytest.raises(CannotAdaptError, match="parameters"):
        TaskGP().fit(TaskBank.from_arrays([(x, x), (x, 2 * x)]))
    fitted = TaskGP(restarts=0, learn=100).fit(TaskBank.from_arrays([(x, x), (x, 2 * x)], params=[1.0, 2.0]))
    with pytest.raises(CannotAdaptError, match="1 parameters, got none"):
        fitted.adapt(Context(np.array([[0.5]]), np.array([[1.0]])))
    with pytest.raises(CannotAdaptError, match="1 parameters, got 2"):
        fitted.adapt(Context(np.array([[0.5]]), np.array([[1.0]]), params=np.ones(2)))


def test_the_period_is_found_where_there_is_one() -> None:
    rng = np.random.default_rng(6)
    x = np.linspace(-1, 1, 41)[:, None]
    f = lambda a, b, v: a * np.sin(2 * np.pi * v / 0.3) + b * v  # noqa: E731
    bank = TaskBank.from_arrays([(x, f(*rng.uniform(0.5, 1, 2), x)) for _ in range(12)])
    fitted = ContextGP(tasks=12).fit(bank)
    assert fitted.prior.kernel.terms[-1].kind == "periodic"
    period = fitted.prior.kernel.h[-1][2]
    assert min(abs(period / 0.3 - round(period / 0.3)), 1) < 0.02 and round(period / 0.3) >= 1
    c = rng.uniform(-1, 0, (8, 1))
    mean, _ = fitted.adapt(Context(c, f(1.2, 1.5, c))).predict(x)
    assert np.sqrt(np.mean((mean - f(1.2, 1.5, x)) ** 2)) < 0.1
    straight = TaskBank.from_arrays([(x, v * x + v) for v in rng.uniform(0.5, 1, 12)])
    assert all(t.kind != "periodic" for t in ContextGP(tasks=6).fit(straight).prior.kernel.terms)


def test_two_inputs_and_two_outputs() -> None:
    rng = np.random.default_rng(7)
    f = lambda p, x: np.column_stack([np.sin(x[:, 0] + p), x[:, 0] * x[:, 1] * p])  # noqa: E731
    params = rng.uniform(0, 1, 12)
    points = [rng.uniform(-1, 1, (n, 2)) for n in rng.integers(12, 20, 12)]
    bank = TaskBank.from_arrays([(x, f(p, x)) for p, x in zip(params, points, strict=True)], params=params)
    x, q = rng.uniform(-1, 1, (8, 2)), rng.uniform(-1, 1, (9, 2))
    for operator in (TaskGP(restarts=0, learn=100), ContextGP()):
        mean, sd = operator.fit(bank).adapt(Context(x, f(1.1, x), params=np.array([1.1]))).predict(q)
        assert mean.shape == sd.shape == (9, 2)
        assert np.sqrt(np.mean((mean - f(1.1, q)) ** 2)) < (0.05 if operator.name.endswith("parameters") else 0.4)


def test_intervals_widen_for_a_target_unlike_the_bank() -> None:
    rng = np.random.default_rng(8)
    fitted = ContextGP(periodic=False).fit(family(rng))
    x, q = rng.uniform(-1, 1, (8, 1)), np.linspace(-1, 1, 20)[:, None]
    calm = fitted.adapt(Context(x, slope(np.array([[0.2, 0.1]]), x).T)).predict(q)[1].mean()
    rough = fitted.adapt(Context(x, 2 * np.sin(25 * x))).predict(q)[1].mean()
    assert rough > 10 * calm


def test_a_noisy_context_is_seen_to_be_noisy() -> None:
    """The bank is exact; the target's noise must come from its own context, and cost an exact one nothing."""
    rng = np.random.default_rng(9)
    fitted = TaskGP(restarts=0, learn=100).fit(family(rng))
    x, q, p = rng.uniform(-1, 0, (8, 1)), np.linspace(-1, 1, 20)[:, None], np.array([1.2, 0.3])
    truth = slope(p[None], x).T
    error: dict[str, list[float]] = {"chosen": [], "bank's": []}
    for _ in range(20):
        adapted = fitted.adapt(Context(x, truth + rng.normal(0, 0.2, x.shape), params=p))
        error["chosen"].append(float(np.mean((adapted.predict(q)[0] - slope(p[None], q).T) ** 2)))
        k = np.linalg.inv(adapted._inverse) - adapted._noise * np.eye(8)
        trusting = np.linalg.solve(k + (fitted.prior.kernel.noise + JITTER) * np.eye(8), adapted._error)
        points = adapted._join(q)
        whitened = fitted.prior.whiten(points)
        cross = fitted.prior.kernel(points, adapted._points) - whitened.T @ adapted._whitened
        mean = fitted.prior.mean(whitened) + cross @ trusting
        error["bank's"].append(float(np.mean((mean - slope(p[None], q).T) ** 2)))
    assert np.mean(error["chosen"]) < 0.5 * np.mean(error["bank's"])
    assert fitted.adapt(Context(x, truth, params=p))._noise == fitted.prior.kernel.noise + JITTER
