"""The span against kriging with the covariance of the bank, a slow average, and refits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import operant.relational.operators.span as module
from operant.relational.bank.curves import Array
from operant.relational.bank.splits import outer
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, leave_one_out
from operant.relational.operators.components import Components
from operant.relational.operators.span import PULL, TAIL, TAU, AdaptedSpan, FittedSpan, Span


def bank_of(tasks: int = 30, *, outputs: int = 1, measured: bool = False, seed: int = 0) -> TaskBank:
    rng = np.random.default_rng(seed)
    params = np.column_stack([rng.uniform(1, 2, tasks), rng.uniform(-1, 1, tasks)])

    def curves(p: Array, x: Array) -> Array:
        first = np.sin(p[:, :1] * x[:, 0]) + p[:, 1:] * x[:, 0]
        return np.stack([first, np.cos(p[:, :1] * x[:, 0])], axis=2)[:, :, :outputs]

    x = np.linspace(0, 3, 21)[:, None]
    if measured:
        bank = TaskBank.from_arrays([(x, y) for y in curves(params, x)])
    else:
        bank = TaskBank.from_callables(curves, x, hidden=params)
    return bank.scaled(bank.scaling)


def context_of(bank: TaskBank, *, points: int = 7, noise: float = 0.05, seed: int = 1) -> Context:
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 0.3, points)[:, None]
    y = 1.3 * bank.values(x)[0] - 0.3 * bank.values(x)[1]
    return Context(x, y + noise * rng.normal(size=y.shape))


def one(fitted: FittedSpan, context: Context, tau: float, sigma: float, monkeypatch: pytest.MonkeyPatch) -> AdaptedSpan:
    """With a grid of one node."""
    monkeypatch.setattr(module, "TAU", np.array([tau]))
    fixed = replace(fitted, left=np.zeros_like(fitted.left))
    adapted = fixed.adapt(replace(context, noise=np.full(context.y.shape[1], sigma)))
    assert isinstance(adapted, AdaptedSpan)
    return adapted


def kriging(fitted: FittedSpan, context: Context, query: Array, tau: float, sigma: float) -> tuple[Array, Array, float]:
    """Dense: k(x, x') = tau sum_k kappa_k phi_k(x) phi_k(x'); mean, covariance of all values, log evidence."""

    def features(x: Array) -> Array:
        return fitted.components(x)[1].reshape(-1, len(fitted.kappa))

    a, b = features(context.x), features(query)
    prior = np.diag(tau * fitted.kappa)
    k = a @ prior @ a.T + sigma**2 * np.eye(len(a))
    cross = b @ prior @ a.T
    left = (context.y - fitted.components(context.x)[0]).ravel()
    mean = fitted.components(query)[0].ravel() + cross @ np.linalg.solve(k, left)
    evidence = -0.5 * (left @ np.linalg.solve(k, left) + np.linalg.slogdet(k)[1])
    return mean, b @ prior @ b.T - cross @ np.linalg.solve(k, cross.T), float(evidence)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("points", [2, 7, 40])
def test_given_tau_and_sigma_it_is_kriging(outputs: int, points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of(outputs=outputs)
    fitted, context = Span().fit(bank), context_of(bank, points=points)
    query = np.linspace(-1.2, 1.2, 5)[:, None]
    adapted = one(fitted, context, 4.0, 0.07, monkeypatch)
    mean, sd = adapted.predict(query)
    wanted, covariance, _ = kriging(fitted, context, query, 4.0, 0.07)
    assert mean.ravel() == pytest.approx(wanted, abs=1e-7)
    assert sd.ravel() ** 2 == pytest.approx(np.diag(covariance), rel=1e-5, abs=1e-9)
    full = fitted.components(query)[1].reshape(-1, len(fitted.kappa))
    assert full @ adapted.covariance @ full.T == pytest.approx(covariance, rel=1e-5, abs=1e-9)


def test_the_average_is_a_loop_over_the_grid() -> None:
    bank = bank_of(outputs=2)
    fitted, context = Span().fit(bank), context_of(bank)
    query = np.linspace(-1, 1.2, 5)[:, None]
    floor = np.sqrt(np.mean(fitted.left**2))
    nodes = []
    for tau in TAU:
        for sigma in module.SIGMA[module.SIGMA.searchsorted(max(floor, 1e-4)) :]:  # smaller ones explain no noise
            mean, covariance, evidence = kriging(fitted, context, query, tau, sigma)
            evidence -= 0.5 * (np.log(sigma / floor) / PULL) ** 2 + TAIL * np.log(tau)
            nodes.append((evidence, mean, np.diag(covariance)))
    best = max(n[0] for n in nodes)
    w = np.array([np.exp(n[0] - best) for n in nodes])
    w /= w.sum()
    wanted = sum(p * m for p, (_, m, _) in zip(w, nodes, strict=True))
    spread = sum(p * (v + (m - wanted) ** 2) for p, (_, m, v) in zip(w, nodes, strict=True))
    mean, sd = fitted.adapt(context).predict(query)
    assert (w > 0.01).sum() > 3
    assert mean.ravel() == pytest.approx(wanted, abs=1e-5)
    left = np.tile(fitted.left**2, len(query))
    assert sd.ravel() == pytest.approx(np.sqrt(spread + left), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("points", [3, 7, 30])
def test_left_out_is_refitting(points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given tau and sigma; the standard deviation is that of the value, noise included."""
    bank = bank_of()
    fitted, context = Span().fit(bank), context_of(bank, points=points)
    adapted = one(fitted, context, 4.0, 0.07, monkeypatch)
    mean, sd = adapted.left_out()
    again, spread = leave_one_out(adapted.fitted, replace(context, noise=np.array([0.07])))
    assert mean == pytest.approx(again, abs=1e-6)
    assert sd == pytest.approx(np.sqrt(spread**2 + 0.07**2), rel=1e-5)


def test_left_out_of_two_outputs_leaves_one_value_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of(outputs=2)
    fitted, context = Span().fit(bank), context_of(bank, points=5)
    adapted = one(fitted, context, 1.0, 0.05, monkeypatch)
    mean, _ = adapted.left_out()
    a = fitted.components(context.x)[1].reshape(10, -1)
    r = (context.y - fitted.components(context.x)[0]).ravel()
    k = a @ np.diag(fitted.kappa) @ a.T + 0.05**2 * np.eye(10)
    for i in range(10):
        rest = np.arange(10) != i
        guess = k[i, rest] @ np.linalg.solve(k[np.ix_(rest, rest)], r[rest])
        assert mean.ravel()[i] == pytest.approx(fitted.components(context.x)[0].ravel()[i] + guess, abs=1e-8)


@pytest.mark.parametrize("measured", [False, True])
def test_a_linear_family_is_exact(measured: bool) -> None:
    rng = np.random.default_rng(2)
    x = np.linspace(-2, 2, 25)[:, None]

    def cubics(p: Array, q: Array) -> Array:
        return p @ np.stack([np.ones(len(q)), q[:, 0], q[:, 0] ** 2, q[:, 0] ** 3])

    p = rng.normal(size=(20, 4))
    y = cubics(p, x)
    bank = TaskBank.from_arrays([(x, v) for v in y]) if measured else TaskBank.from_callables(cubics, x, hidden=p)
    bank = bank.scaled(bank.scaling)
    assert bank.units is not None
    c, at = np.array([[9.0, -7.0, 5.0, 3.0]]), x[::3]
    adapted = Span().fit(bank).adapt(Context(bank.units.x_in(at), bank.units.y_in(cubics(c, at)[0][:, None])))
    query = x if measured else np.linspace(-3, 3, 31)[:, None]
    mean, sd = adapted.predict(bank.units.x_in(query))
    wanted = bank.units.y_in(cubics(c, query)[0][:, None])
    assert mean == pytest.approx(wanted, abs=1e-5) and sd.max() < 1e-4
    assert adapted.decompositions[0].transformation == "span of 4 components"


def test_the_prior_is_widened_by_the_ends_of_the_bank() -> None:
    bank = bank_of(measured=True)
    split = outer(bank, share=1 / 3)
    mean, phi = Components(split.train, 30)(bank.grid())
    rest = [(values - mean)[:, 0] for values in split.test.values(bank.grid())]
    z = [np.linalg.lstsq(phi[:, 0], r, rcond=1e-12)[0] for r in rest]
    ratio = np.maximum(np.mean(np.square(z), axis=0), 1.0)
    kappa = Span().fit(bank).kappa
    assert kappa[: len(ratio)] == pytest.approx(ratio[: len(kappa)], rel=1e-4)
    assert kappa[len(ratio) :] == pytest.approx(np.median(ratio), rel=1e-4)
    assert (Span().fit(bank.select(range(5))).kappa == 1).all()


def test_known_noise_is_used() -> None:
    bank = bank_of()
    fitted, context = Span().fit(bank), context_of(bank, noise=0.3)
    spread = [fitted.adapt(replace(context, noise=np.array([s]))).predict(context.x)[1].mean() for s in (1e-4, 0.3)]
    assert spread[0] < 0.01 < 0.05 < spread[1]


def test_a_ragged_measured_bank() -> None:
    rng = np.random.default_rng(3)
    tasks = []
    for _ in range(25):
        x = np.sort(rng.uniform(0, 3, rng.integers(20, 40)))
        x[0], x[-1] = 0.0, 3.0
        tasks.append((x, rng.normal() * np.sin(x) + rng.normal()))
    bank = TaskBank.from_arrays(tasks)
    bank = bank.scaled(bank.scaling)
    assert bank.units is not None and not bank.shared
    x = np.linspace(0, 3, 9)[:, None]
    adapted = Span().fit(bank).adapt(Context(bank.units.x_in(x), bank.units.y_in(4 * np.sin(x) - 3)))
    query = np.linspace(0, 3, 30)[:, None]
    mean, _ = adapted.predict(bank.units.x_in(query))
    assert bank.units.y_out(mean) == pytest.approx(4 * np.sin(query) - 3, abs=0.05)
    assert adapted.covered(np.array([[-2.0], [0.0], [2.0]])).tolist() == [False, True, False]


def test_a_bank_of_one_function_has_no_span() -> None:
    x = np.linspace(0, 1, 5)
    bank = TaskBank.from_arrays([(x, x), (x, x), (x, x)])
    with pytest.raises(CannotAdaptError, match="all tasks of the bank are the same function"):
        Span().fit(bank).adapt(Context(x[:, None], x[:, None]))
