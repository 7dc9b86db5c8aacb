"""Baselines: closed forms against slow loops and exact families, standard deviations against what they claim."""

from __future__ import annotations

import numpy as np
import pytest

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, RelationalOperator, leave_one_out
from operant.relational.operators.baselines import ContextMean, Interpolation, Nearest, Polynomial, Widening
from operant.relational.operators.pca import BankPCA
from operant.relational.operators.ridge import ridge

ALL = [ContextMean(), Nearest(), Interpolation(), Interpolation("makima"), Polynomial(), Polynomial(1), BankPCA()]
FIXED = [ContextMean(), Nearest(), Interpolation(), Polynomial(2), BankPCA(rank=2, ridge=1e-3)]


def cubic(p: Array, x: Array) -> Array:
    return p[:, :1] * x[:, 0] ** 3 + p[:, 1:2] * x[:, 0] + p[:, 2:3]


def bank_of(kind: str, rng: np.random.Generator) -> TaskBank:
    """Cubics known by formula, on shared points or on points of their own; or two inputs and two outputs, ragged."""
    params = rng.uniform(-1, 1, (24, 3))
    x = np.linspace(-1, 1, 41)[:, None]
    if kind == "callable":
        return TaskBank.from_callables(cubic, x, params=params)
    if kind == "shared":
        return TaskBank.from_arrays([(x, cubic(p[None], x)[0]) for p in params])
    if kind == "ragged":
        points = [np.sort(rng.uniform(-1, 1, (n, 1)), axis=0) for n in rng.integers(20, 40, 24)]
        return TaskBank.from_arrays([(q, cubic(p[None], q)[0]) for p, q in zip(params, points, strict=True)])
    points = [rng.uniform(-1, 1, (n, 2)) for n in rng.integers(20, 40, 24)]
    plane = [np.column_stack([p[0] * q[:, 0] + p[1], p[2] * q[:, 1]]) for p, q in zip(params, points, strict=True)]
    return TaskBank.from_arrays(list(zip(points, plane, strict=True)))


def target(bank: TaskBank, rng: np.random.Generator, p: int = 8) -> Context:
    x = rng.uniform(-1, 1, (p, bank.d))
    y = cubic(np.array([[1.5, -0.5, 0.2]]), x).T if bank.d == 1 else np.column_stack([x[:, 0] - 1.2, x[:, 1]])
    return Context(x, y)


@pytest.mark.parametrize("kind", ["callable", "shared", "ragged", "two by two"])
@pytest.mark.parametrize("p", [1, 2, 3, 8])
@pytest.mark.parametrize("operator", ALL, ids=lambda o: f"{o.name} {getattr(o, 'degree', '')}")
def test_every_baseline_answers_on_every_kind_of_bank(operator: RelationalOperator, kind: str, p: int) -> None:
    rng = np.random.default_rng(p)
    bank = bank_of(kind, rng)
    context = target(bank, rng, p)
    if isinstance(operator, Polynomial) and operator.degree and p <= bank.d + 1:
        with pytest.raises(CannotAdaptError, match=f"got {p}"):
            operator.fit(bank).adapt(context)
        return
    adapted = operator.fit(bank).adapt(context)
    q = rng.uniform(-1.5, 1.5, (5, bank.d))
    mean, sd = adapted.predict(q)
    assert mean.shape == sd.shape == (5, bank.c)
    assert np.isfinite(mean).all() and np.isfinite(sd).all() and (sd >= 0).all()
    mean, sd = adapted.left_out()
    assert mean.shape == sd.shape == (p, bank.c)
    assert np.isfinite(mean).all() == np.isfinite(sd).all() == (p > 1)
    assert adapted.covered(q).shape == (5,)


@pytest.mark.parametrize("kind", ["callable", "ragged", "two by two"])
@pytest.mark.parametrize("operator", FIXED, ids=lambda o: o.name)
def test_left_out_is_what_adapting_without_each_point_predicts(operator: RelationalOperator, kind: str) -> None:
    rng = np.random.default_rng(0)
    bank = bank_of(kind, rng)
    context = target(bank, rng)
    fitted = operator.fit(bank)
    mean, _ = fitted.adapt(context).left_out()
    assert mean == pytest.approx(leave_one_out(fitted, context)[0], rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("operator", [ContextMean(), Nearest()], ids=lambda o: o.name)
def test_left_out_standard_deviations_of_the_others(operator: RelationalOperator) -> None:
    rng = np.random.default_rng(1)
    bank = bank_of("shared", rng)
    context = target(bank, rng)
    fitted = operator.fit(bank)
    slow = leave_one_out(fitted, context)[1]
    fast = fitted.adapt(context).left_out()[1]
    if isinstance(operator, Nearest):
        assert fast == pytest.approx(slow, rel=1e-7)
    else:  # the mean's grows with the distance of the point left out besides
        assert (fast <= slow).all() and fast == pytest.approx(slow, rel=0.3)


def test_ridge_against_normal_equations_and_refits() -> None:
    rng = np.random.default_rng(2)
    design, y = rng.normal(size=(7, 2, 4)), rng.normal(size=(7, 2))
    for penalty in (1e-3, 0.7):
        fit = ridge(design, y, penalty)
        flat = design.reshape(14, 4)
        inverse = np.linalg.inv(flat.T @ flat + penalty * np.eye(4))
        assert fit.coef == pytest.approx(inverse @ flat.T @ y.ravel())
        assert fit.residual() == pytest.approx(y - fit.mean(design))
        query = rng.normal(size=(3, 2, 4))
        assert fit.leverage(query) == pytest.approx(np.einsum("qbk,kl,qbl->qb", query, inverse, query))
        for i in range(7):
            rest = ridge(np.delete(design, i, 0), np.delete(y, i, 0), penalty)
            assert fit.left_out_error()[i] == pytest.approx(y[i] - rest.mean(design[i : i + 1])[0])
            assert fit.left_out_factor()[i] == pytest.approx(1 + rest.leverage(design[i : i + 1])[0])


def test_ridge_with_fewer_points_than_coefficients() -> None:
    rng = np.random.default_rng(3)
    design, y = rng.normal(size=(2, 1, 5)), rng.normal(size=(2, 1))
    fit = ridge(design, y, 0.1)
    inverse = np.linalg.inv(design[:, 0].T @ design[:, 0] + 0.1 * np.eye(5))
    query = rng.normal(size=(3, 1, 5))
    assert fit.leverage(query)[:, 0] == pytest.approx(np.einsum("qk,kl,ql->q", query[:, 0], inverse, query[:, 0]))
    assert ridge(design, y, 0.0).mean(design) == pytest.approx(y)


def test_the_noise_of_a_ridge_fit_is_unbiased() -> None:
    """Under its own prior: z ~ N(0, s^2 / ridge), noise N(0, s^2)."""
    rng = np.random.default_rng(4)
    design, penalty, s = rng.normal(size=(6, 1, 3)), 0.5, 0.7
    draws = [
        ridge(design, design @ rng.normal(0, s / penalty**0.5, 3) + rng.normal(0, s, (6, 1)), penalty).noise
        for _ in range(2000)
    ]
    assert np.mean(draws) == pytest.approx(s**2, abs=4 * np.std(draws) / 2000**0.5)


def test_polynomial_finds_the_degree() -> None:
    rng = np.random.default_rng(7)
    bank = bank_of("shared", rng)
    x, q = rng.uniform(-1, 1, (9, 1)), np.linspace(-2, 2, 9)[:, None]
    mean, sd = Polynomial().fit(bank).adapt(Context(x, 2 * x**3 - x)).predict(q)
    assert mean == pytest.approx(2 * q**3 - q, abs=1e-9) and sd.max() < 1e-6
    plane = bank_of("two by two", rng)
    x2, q2 = rng.uniform(-1, 1, (9, 2)), rng.uniform(-2, 2, (5, 2))
    surface = lambda v: np.column_stack([v[:, 0] * v[:, 1] - 1, v[:, 1]])  # noqa: E731
    assert Polynomial().fit(plane).adapt(Context(x2, surface(x2))).predict(q2)[0] == pytest.approx(surface(q2))


def test_standard_deviations_grow_away_from_the_context() -> None:
    rng = np.random.default_rng(8)
    bank = bank_of("shared", rng)
    x = rng.uniform(-1, 0, (8, 1))
    context = Context(x, np.sin(5 * x) + rng.normal(0, 0.1, (8, 1)))
    q = np.array([[x.max()], [0.3], [0.6], [1.0]])
    for operator in (ContextMean(), Interpolation(), Polynomial(1), Polynomial(2)):
        sd = operator.fit(bank).adapt(context).predict(q)[1][:, 0]
        assert (np.diff(sd) > 0).all(), operator.name


def test_widening_by_hand() -> None:
    x = np.array([[0.0], [1.0], [3.0]])
    error = np.array([[1.0], [2.0], [np.nan]])  # gaps 1, 1, 2, median 1
    s2 = (1 / 1.5 + 4 / 1.5) / 2
    assert Widening(x, error)(np.array([[0.0], [5.0]]))[:, 0] == pytest.approx([(s2 / 2) ** 0.5, (s2 * 4.5) ** 0.5])
    assert Widening(x, error).left_out()[2, 0] == pytest.approx((s2 * 4.5) ** 0.5)


def test_nearest_is_the_nearest_and_flags_what_it_does_not_cover() -> None:
    x = np.linspace(0, 1, 9)
    bank = TaskBank.from_arrays({f"slope {a}": (x[: 9 - a], a * x[: 9 - a]) for a in range(5)})
    adapted = Nearest().fit(bank).adapt(Context(np.array([[0.2], [0.4]]), np.array([[0.62], [1.21]])))
    assert adapted.decompositions[0].anchor == "slope 3"
    assert adapted.predict(np.array([[0.5]]))[0][0, 0] == pytest.approx(1.5)
    assert adapted.covered(np.array([[0.5], [0.9]])).tolist() == [True, False]
    assert sum(d.weight for d in adapted.decompositions) == pytest.approx(1)


def test_intervals_of_interpolation_cover() -> None:
    """Smooth random curves: nominal 90 % intervals hold 80 to 100 %."""
    rng = np.random.default_rng(9)
    bank = bank_of("shared", rng)
    inside = []
    for _ in range(200):
        a, phase = rng.normal(size=3), rng.uniform(0, 6, 3)
        f = lambda v, a=a, phase=phase: (a * np.sin(v * [2, 4, 6] + phase)).sum(1, keepdims=True)  # noqa: E731
        x, q = rng.uniform(-1, 1, (10, 1)), rng.uniform(-1, 1, (10, 1))
        mean, sd = Interpolation().fit(bank).adapt(Context(x, f(x))).predict(q)
        inside.append(np.mean(np.abs(mean - f(q)) <= 1.645 * sd))
    assert 0.8 <= np.mean(inside) <= 1.0
