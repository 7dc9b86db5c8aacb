from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from operant.relational.bank.curves import Array
from operant.relational.bank.families import FAMILIES
from operant.relational.bank.primitives import KINDS, composed, primitive_params, primitive_values, primitives
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context
from operant.relational.operators.baselines import Interpolation
from operant.relational.operators.chain import Tables, forward, profile, refine
from operant.relational.operators.compose import Compose, FittedCompose

THREE = tuple(KINDS) * 12


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def bank() -> TaskBank:
    return primitives(THREE, rng=rng())


@pytest.fixture(scope="module")
def fitted(bank: TaskBank) -> FittedCompose:
    return Compose(starts=120).fit(bank.scaled(bank.scaling))


def target(kinds: tuple[str, ...], seed: int, points: int = 25, *, rescaled: bool = False) -> tuple[Array, Array]:
    """A chain of fresh primitives, the innermost first, in original units."""
    r = rng(seed)
    x = r.uniform(-5, 5, (2 * points, 1))
    return x, composed([primitive_params([k], r, rescaled=rescaled) for k in kinds], x)[0]


def context(bank: TaskBank, x: Array, y: Array) -> Context:
    return Context(bank.scaling.x_in(x), bank.scaling.y_in(y))


def test_tables_are_the_functions_and_their_slopes(bank: TaskBank) -> None:
    tables = Tables.of(bank, reach=4, knots=4096)
    which, u = np.arange(len(bank)), rng(1).uniform(-15, 15, (len(bank), 40))
    value, slope = tables(which, u)
    exact = np.stack([t.function(p[:, None])[:, 0] for t, p in zip(bank.tasks, u, strict=True) if t.function])
    up, down = (
        np.stack([t.function(p[:, None])[:, 0] for t, p in zip(bank.tasks, u + h, strict=True) if t.function])
        for h in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(value, exact, atol=2e-8)
    np.testing.assert_allclose(slope, (up - down) / 2e-5, atol=1e-5)
    np.testing.assert_allclose(np.diagonal(tables.rough(u), axis1=0, axis2=2).T, exact, atol=1e-3)
    beyond, flat = tables(which[:1], np.array([[20.0, 21.0, 22.0]]))
    assert flat[0, 0] == flat[0, 2] and np.isclose(beyond[0, 2] - beyond[0, 1], flat[0, 0]), "straight on"


def test_the_jacobian_is_the_derivative(fitted: FittedCompose) -> None:
    r = rng(2)
    which = r.integers(len(fitted.bank), size=(5, 3))
    theta = np.tile([1.0, 0.0, *fitted.link, *fitted.link, 1.0, 0.0], (5, 1)) + 0.1 * r.normal(size=(5, 8))
    x = r.uniform(-1, 1, 7)
    _, jacobian = forward(fitted.tables, which, theta, x)
    for i in range(8):
        step = 1e-6 * np.eye(8)[i]
        up, down = (forward(fitted.tables, which, theta + d, x)[0] for d in (step, -step))
        np.testing.assert_allclose(jacobian[:, :, i], (up - down) / 2e-6, rtol=2e-3, atol=1e-4)


def test_the_plain_chain_in_scaled_units_is_the_composition_in_original_units(
    bank: TaskBank, fitted: FittedCompose
) -> None:
    """Both roads to f(g(x)): through tables and the link, and through the functions themselves."""
    x = rng(3).uniform(-5, 5, 30)
    inner, outer = bank.tasks[4], bank.tasks[8]
    assert inner.function and outer.function
    want = bank.scaling.y_in(outer.function(inner.function(x[:, None])))[:, 0]
    place = [fitted.bank.keys.index(t.key) for t in (inner, outer)]
    got, _ = forward(fitted.tables, np.array([place]), fitted.prior.nominal[None], bank.scaling.x_in(x[:, None])[:, 0])
    np.testing.assert_allclose(got[0], want, atol=1e-7)


def test_scores_of_all_pairs_are_those_of_a_loop(fitted: FittedCompose) -> None:
    """Two targets at once against least squares on one pair at a time."""
    r, size, ridge = rng(4), 6, 1e-4
    x, y = r.uniform(-1, 1, (2, 12)), r.normal(size=(2, 12))
    tables, (a, b) = fitted.tables, fitted.link
    inner = np.stack([tables(np.array([j]), x[t : t + 1])[0][0] for t in range(2) for j in range(size)])
    left, s, t = profile(tables, a * inner + b, np.repeat(y, size, 0), ridge=ridge)
    for row in range(2 * size):
        want = y[row // size]
        for i in range(len(fitted.bank)):
            h = tables.rough(a * inner[row] + b)[:, i]
            design = np.vstack([np.column_stack([h, np.ones(12)]), [np.sqrt(ridge), 0.0]])
            goal = np.append(want, np.sqrt(ridge))
            best = np.linalg.lstsq(design, goal, rcond=None)[0]
            np.testing.assert_allclose([s[row, i], t[row, i]], best, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(left[row, i], ((goal - design @ best) ** 2).sum(), rtol=1e-6, atol=1e-8)


def test_refinement_agrees_with_scipy(fitted: FittedCompose) -> None:
    from scipy.optimize import least_squares

    r = rng(5)
    x = r.uniform(-1, 1, 20)
    which = np.array([[1, 4]])
    truth = fitted.prior.nominal + 0.05 * r.normal(size=6)
    y = forward(fitted.tables, which, truth[None], x)[0][0] + 0.01 * r.normal(size=20)
    precision = 1e-3 / fitted.prior.spread**2

    def residuals(theta: Array) -> Array:
        rest = y - forward(fitted.tables, which, theta[None], x)[0][0]
        return np.concatenate([rest, np.sqrt(precision) * (theta - fitted.prior.nominal)])

    theta, cost = refine(
        fitted.tables,
        which,
        fitted.prior.nominal[None],
        x,
        y,
        nominal=fitted.prior.nominal,
        precision=precision,
        steps=60,
    )
    scipy = least_squares(residuals, fitted.prior.nominal, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(cost[0], 2 * scipy.cost, rtol=1e-5)
    np.testing.assert_allclose(cost[0], (residuals(theta[0]) ** 2).sum(), rtol=1e-9)


@pytest.mark.parametrize("kinds", [("tanh", "poly"), ("sin", "tanh"), ("poly", "sin")])
def test_a_composition_outside_the_library_is_found_exactly(
    bank: TaskBank, fitted: FittedCompose, kinds: tuple[str, str]
) -> None:
    x, y = target(kinds, 61)
    adapted = fitted.adapt(context(bank, x[:25], y[:25]))
    mean, sd = adapted.predict(bank.scaling.x_in(x[25:]))
    assert adapted.exact and np.mean((bank.scaling.y_out(mean) - y[25:]) ** 2) < 1e-8
    assert sd.max() < 1e-2
    left, _ = adapted.left_out()
    assert np.abs(left - bank.scaling.y_in(y[:25])).max() < 1e-3
    best = adapted.decompositions[0]
    assert len(best.anchor) == 2 and best.residual < 1e-5 and set(best.intervals) == {"b1", "c1", "b2", "c2", "s", "t"}
    assert best.weight == max(d.weight for d in adapted.decompositions)
    assert sum(d.weight for d in adapted.decompositions) == pytest.approx(1.0)
    assert adapted.predict(bank.scaling.x_in(x[25:]))[0].tolist() == mean.tolist()


def test_context_in_one_half_suffices_where_interpolation_fails(bank: TaskBank, fitted: FittedCompose) -> None:
    x, y = target(("sin", "poly"), 7)
    x = np.concatenate([-np.abs(x[:25]), np.abs(x[25:])])
    y = composed([primitive_params([k], rng(8)) for k in ("sin", "poly")], x)[0]
    c, q = context(bank, x[:25], y[:25]), bank.scaling.x_in(x[25:])
    line = Interpolation().fit(fitted.bank).adapt(c).predict(q)[0]
    ours = fitted.adapt(c).predict(q)[0]
    truth = bank.scaling.y_in(y[25:])
    assert np.mean((ours - truth) ** 2) < 1e-3 * np.mean((line - truth) ** 2)


def test_depth_three_with_a_recipe_that_no_training_pair_has_shown() -> None:
    bank = primitives(KINDS * 7, rng=rng(9), rescaled=True)
    fitted = Compose(depth=3, starts=400).fit(bank.scaled(bank.scaling))
    x, y = target(("sin", "tanh", "poly"), 64, 50, rescaled=True)
    adapted = fitted.adapt(context(bank, x[:50], y[:50]))
    mean = bank.scaling.y_out(adapted.predict(bank.scaling.x_in(x[50:]))[0])
    assert adapted.exact and np.mean((mean - y[50:]) ** 2) < 1e-6
    assert len(adapted.decompositions[0].anchor) == 3


def test_linearized_left_out_values_are_near_those_of_refitting(fitted: FittedCompose, bank: TaskBank) -> None:
    """One chain, noise: e_i / (1 - h_i) against refining without each point."""
    x, y = target(("sin", "poly"), 10)
    y = y + 0.02 * rng(11).normal(size=y.shape)
    c = context(bank, x[:25], y[:25])
    adapted = fitted.adapt(c)
    k = adapted.chains
    one = replace(
        k,
        which=k.which[:1],
        theta=k.theta[:1],
        covariance=k.covariance[:1],
        noise=k.noise[:1],
        weights=np.ones(1),
        residual=k.residual[:1],
    )
    adapted = replace(adapted, chains=one)
    linear, _ = adapted._linear()
    u, v = c.x[:, 0], c.y[:, 0]
    again = []
    for i in range(25):
        rest = np.arange(25) != i
        theta, _ = refine(
            fitted.tables,
            one.which,
            one.theta,
            u[rest],
            v[rest],
            nominal=fitted.prior.nominal,
            precision=one.noise[0] / fitted.prior.spread**2,
            steps=20,
        )
        again.append(forward(fitted.tables, one.which, theta, u[i : i + 1])[0][0, 0])
    ratio = (linear[:, 0] - v) / (np.array(again) - v)
    assert 0.8 < np.median(ratio) < 1.25
    assert np.corrcoef(linear[:, 0] - v, np.array(again) - v)[0, 1] > 0.95


def test_noise_is_estimated_and_widens_the_intervals(bank: TaskBank, fitted: FittedCompose) -> None:
    quick, inside = replace(fitted, settings=replace(fitted.settings, rounds=0)), []
    for seed in range(3):
        x, clean = target(("poly", "sin"), 20 + seed)
        y = clean + 0.05 * clean.std() * rng(40 + seed).normal(size=clean.shape)
        adapted = quick.adapt(context(bank, x[:25], y[:25]))
        mean, sd = adapted.predict(bank.scaling.x_in(x[25:]))
        inside.append(np.abs(mean - bank.scaling.y_in(clean[25:])) < 1.645 * sd)
        assert not adapted.exact
    assert np.mean(inside) > 0.7


def test_a_target_that_is_no_composition_shows_in_the_left_out_values(bank: TaskBank, fitted: FittedCompose) -> None:
    """Pure noise: whole searches fit what they have seen, and not what was left out."""
    x = rng(12).uniform(-5, 5, (25, 1))
    y = rng(13).normal(size=(25, 1))
    adapted = fitted.adapt(context(bank, x, y))
    c = context(bank, x, y)
    left, _ = adapted.left_out()
    assert np.sqrt(np.mean((left - c.y) ** 2)) > 0.9 * c.y.std()
    assert np.sqrt(np.mean((left - c.y) ** 2)) > 1.2 * adapted.chains.residual[0]
    assert adapted.inflation >= 1.0


def test_measured_functions_are_used_only_where_they_are_known(bank: TaskBank) -> None:
    measured = primitives(THREE, rng=rng(), points=60)
    fitted = Compose(library=12, starts=40, rounds=0).fit(measured.scaled(measured.scaling))
    x, y = target(("sin", "tanh"), 14)
    adapted = fitted.adapt(context(measured, x[:25], y[:25]))
    far = measured.scaling.x_in(np.array([[0.0], [30.0]]))
    assert adapted.covered(far)[1] == np.False_
    free = Compose(library=12, starts=40, rounds=0).fit(bank.scaled(bank.scaling))
    assert free.adapt(context(bank, x[:25], y[:25])).covered(far).all()


def test_the_same_seed_gives_the_same_answer(bank: TaskBank) -> None:
    x, y = target(("tanh", "sin"), 15)
    c, q = context(bank, x[:25], y[:25]), bank.scaling.x_in(x[25:])
    operator = Compose(library=20, starts=60)
    first, second = (operator.fit(bank.scaled(bank.scaling)).adapt(c).predict(q) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert len(operator.fit(bank).bank) == 20


def test_what_it_cannot_do_it_refuses(fitted: FittedCompose) -> None:
    with pytest.raises(CannotAdaptError, match="at least 4 context points, got 3"):
        fitted.adapt(Context(np.arange(3.0)[:, None], np.zeros((3, 1))))
    with pytest.raises(CannotAdaptError, match="one input, one output"):
        Compose().fit(FAMILIES["plume"].bank(4, 4, rng=rng()))
    with pytest.raises(CannotAdaptError, match="depth of at least 2"):
        Compose(depth=1).fit(primitives(KINDS, rng=rng()))


def test_few_points_are_left_to_the_prior(bank: TaskBank, fitted: FittedCompose) -> None:
    """Fewer points than parameters: finite answers, wide intervals, no claim of an exact fit."""
    x, y = target(("poly", "tanh"), 16)
    adapted = fitted.adapt(context(bank, x[:5], y[:5]))
    mean, sd = adapted.predict(bank.scaling.x_in(x[25:]))
    assert np.isfinite(mean).all() and np.isfinite(sd).all() and not adapted.exact
    assert sd.mean() > 1e-3
    assert np.isfinite(adapted.left_out()[0]).any()


def test_primitive_values_are_what_the_library_holds(bank: TaskBank) -> None:
    params = primitive_params(THREE, rng())
    x = np.linspace(-5, 5, 9)[:, None]
    np.testing.assert_allclose(primitive_values(params, x), bank.values(x))
