from __future__ import annotations

import numpy as np
import pytest

from operant.relational.bank.curves import Array
from operant.relational.bank.families import FAMILIES
from operant.relational.bank.primitives import polynomial_params, polynomial_values, polynomials
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, leave_one_out
from operant.relational.operators.extend import CoefficientPosterior, Extend, FittedExtend


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def bank() -> TaskBank:
    bank = polynomials(list(range(1, 6)) * 40, rng=rng())
    return bank.scaled(bank.scaling)


@pytest.fixture(scope="module")
def fitted(bank: TaskBank) -> FittedExtend:
    return Extend().fit(bank)


def target(bank: TaskBank, degree: int, seed: int, points: int) -> tuple[Array, Array]:
    """Points (2 P, 1) and values in the bank's units; the degree is not in the bank."""
    assert bank.units is not None and max(t.labels["order"] for t in bank.tasks) < degree
    x = rng(seed).uniform(-5, 5, (2 * points, 1))
    y = polynomial_values(polynomial_params([degree], rng(seed + 1)), x)[0]
    return bank.units.x_in(x), bank.units.y_in(y)


@pytest.mark.parametrize("labels", [{}, {"order": 6}])
def test_an_order_that_the_bank_does_not_have_is_found_exactly(bank: TaskBank, fitted: FittedExtend, labels) -> None:
    x, y = target(bank, 6, 1, 9)
    adapted = fitted.adapt(Context(x[:9], y[:9], labels=labels))
    mean, sd = adapted.predict(x[9:])
    assert np.abs(mean - y[9:]).max() < 1e-3 and sd.max() < 1e-2
    assert np.mean(np.abs(mean - y[9:]) < 3 * sd) > 0.9
    best = adapted.decompositions[0]
    assert "order 6" in best.transformation and best.weight > 0.99 and best.residual < 1e-4
    labels = {t.key: t.labels["order"] for t in bank.tasks}
    assert labels[best.anchor] == 5


def test_the_prior_is_the_true_one_and_goes_on_beyond_the_bank(fitted: FittedExtend, bank: TaskBank) -> None:
    """c_p ~ U(-2, 2) / 5^p: with m = x / 5 every coefficient has the variance 4/3."""
    (r,), s = fitted.outputs, bank.units
    assert s is not None and max(r.closure.values()) < 1e-10
    m = r.multiplier
    zero, one = (float(m(np.array([[v]]))[0]) for v in (0.0, 1.0))
    assert abs(zero / (one - zero)) < 0.15, "m is x / 5 up to its sign"
    ratio = r.variance * s.y_sd[0] ** 2 / (4 / 3)
    assert np.all((ratio > 0.6) & (ratio < 1.6)), ratio


def test_cosine_sums_take_chebyshev_polynomials_of_cos_x() -> None:
    c = rng(2).normal(size=(90, 4)) * (np.arange(4) < np.repeat([1, 2, 3], 30)[:, None])

    def waves(p: Array, x: Array) -> Array:
        return p @ np.cos(np.arange(1, p.shape[1] + 1)[:, None] * x[:, 0])

    labels = [{"order": o} for o in np.repeat([1, 2, 3], 30).tolist()]
    bank = TaskBank.from_callables(waves, np.linspace(-4, 4, 101), params=c, labels=labels)
    scaled = bank.scaled(bank.scaling)
    fitted = Extend().fit(scaled)
    assert fitted.outputs[0].multiplier.orthogonal
    x = rng(3).uniform(-4, 4, (16, 1))
    y = waves(np.array([[0.5, -1.0, 0.3, 0.8]]), x).T
    mean, _ = fitted.adapt(Context(bank.scaling.x_in(x[:8]), bank.scaling.y_in(y[:8]))).predict(
        bank.scaling.x_in(x[8:])
    )
    assert np.abs(bank.scaling.y_out(mean) - y[8:]).max() < 1e-3


def slow(post: CoefficientPosterior, phi: Array, y: Array, q: Array, *, noisy: bool) -> tuple[Array, Array]:
    """Mixture over orders and levels, each a textbook Gaussian conditional."""
    log, means, variances = [], [], []
    r = post.recursion
    for order in post.orders:
        n = order + 1
        k = phi[:, :n] @ np.diag(r.variance[:n]) @ phi[:, :n].T
        for level in post.levels:
            full = k + level * np.eye(len(y))
            rest = y - phi[:, :n] @ r.mean[:n]
            prior = -0.5 * (np.log(level / post.levels[0]) / np.log(100.0)) ** 2
            log.append(-0.5 * rest @ np.linalg.solve(full, rest) - 0.5 * np.linalg.slogdet(full)[1] + prior)
            gain = q[:, :n] @ np.diag(r.variance[:n]) @ phi[:, :n].T @ np.linalg.inv(full)
            means.append(q[:, :n] @ r.mean[:n] + gain @ rest)
            cross = phi[:, :n] @ np.diag(r.variance[:n]) @ q[:, :n].T
            own = np.einsum("qp,p,qp->q", q[:, :n], r.variance[:n], q[:, :n])
            variances.append(own - np.einsum("qi,iq->q", gain, cross) + level * noisy)
    w = np.exp(np.array(log) - max(log))
    w /= w.sum()
    mean = w @ np.array(means)
    return mean, np.sqrt(w @ (np.array(variances) + (np.array(means) - mean) ** 2))


def test_the_posterior_and_its_left_out_values_are_those_of_slow_conditionals(bank: TaskBank) -> None:
    fitted = Extend(floor=0.02).fit(bank)
    x, y = target(bank, 6, 4, 7)
    y = y + 0.05 * rng(5).normal(size=y.shape)
    post = fitted.adapt(Context(x[:7], y[:7])).posteriors[0]
    q = post.recursion.multiplier.basis(x[7:], post.orders[-1])
    mean, sd = post.predict(x[7:])
    slow_mean, slow_sd = slow(post, post.phi, y[:7, 0], q, noisy=False)
    np.testing.assert_allclose(mean, slow_mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sd, slow_sd, rtol=1e-5)
    left, left_sd = post.left_out()
    for i in range(7):
        others = np.arange(7) != i
        m, s = slow(post, post.phi[others], y[:7, 0][others], post.phi[i : i + 1], noisy=True)
        np.testing.assert_allclose([left[i], left_sd[i]], [m[0], s[0]], rtol=1e-5, atol=1e-7)


def test_left_out_agrees_with_adapting_anew(bank: TaskBank, fitted: FittedExtend) -> None:
    x, y = target(bank, 6, 6, 8)
    context = Context(x[:8], y[:8] + 0.02 * rng(7).normal(size=(8, 1)), labels={"order": 6})
    left, again = fitted.adapt(context).left_out()[0], leave_one_out(fitted, context)[0]
    assert np.abs(left - again).max() < 0.1 * np.ptp(context.y), "the grid of noise levels differs a little"


def test_intervals_cover_what_they_should(bank: TaskBank, fitted: FittedExtend) -> None:
    inside = []
    for seed in range(150):
        x, y = target(bank, 6, 100 + 2 * seed, 6)
        mean, sd = fitted.adapt(Context(x[:6], y[:6], labels={"order": 6})).predict(x[6:])
        inside.append(np.abs(mean - y[6:]) < 1.645 * sd)
    assert 0.84 < np.mean(inside) < 0.98


def test_several_outputs_are_explained_one_by_one() -> None:
    p = polynomial_params([1, 2, 3] * 20, rng(8))
    labels = [{"order": d} for d in [1, 2, 3] * 20]

    def both(params: Array, x: Array) -> Array:
        y = polynomial_values(params, x)
        return np.concatenate([y, -2 * y + 1], axis=2)

    bank = TaskBank.from_callables(both, np.linspace(-5, 5, 40), params=p, labels=labels)
    x = rng(9).uniform(-5, 5, (14, 1))
    y = both(polynomial_params([4], rng(10)), x)[0]
    s = bank.scaling
    mean, sd = Extend().fit(bank.scaled(s)).adapt(Context(s.x_in(x[:7]), s.y_in(y[:7]))).predict(s.x_in(x[7:]))
    assert mean.shape == sd.shape == (7, 2)
    assert np.abs(s.y_out(mean) - y[7:]).max() < 1e-2


def test_measured_tasks_leave_uncovered_what_they_have_not_seen() -> None:
    bank = polynomials([1, 2, 3] * 10, rng=rng(11), points=30, noise=0.01)
    fitted = Extend().fit(bank)
    x = np.linspace(-5, 5, 6)[:, None]
    adapted = fitted.adapt(Context(x, x**2 / 10))
    assert adapted.covered(np.array([[0.0], [4.9], [7.0]])).tolist() == [True, True, False]
    assert 0 < fitted.outputs[0].noise < 0.2


def test_where_it_does_not_apply_it_says_so_with_numbers(bank: TaskBank, fitted: FittedExtend) -> None:
    waves = FAMILIES["frequency"].bank(10, 10, rng=rng(12))
    with pytest.raises(CannotAdaptError, match="label 'order'"):
        Extend().fit(waves)
    with_labels = TaskBank.from_arrays(
        [(t.x, t.y) for t in waves.tasks], labels=[{"order": 1 + i // 10} for i in range(20)]
    )
    with pytest.raises(CannotAdaptError, match=r"second direction has 0\.\d+"):
        Extend().fit(with_labels)
    one = TaskBank.from_arrays(
        [(t.x, t.x if i < 10 else t.y) for i, t in enumerate(waves.tasks)],
        labels=[{"order": 1 + i // 10} for i in range(20)],
    )
    with pytest.raises(CannotAdaptError, match=r"order 2: [\d.]+, at most 0\.1"):
        Extend().fit(one)
    with pytest.raises(CannotAdaptError, match="orders \\[2\\]"):
        Extend().fit(polynomials([2] * 4, rng=rng()))
    with pytest.raises(CannotAdaptError, match="more than ahead = 1"):
        fitted.adapt(Context(np.zeros((1, 1)), np.zeros((1, 1)), labels={"order": 8}))
