"""Curves through points, and where they are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline, make_interp_spline

from operant.relational.bank.curves import MANY, METHODS, Ragged, choose_method, cover, interpolator

RNG = np.random.default_rng(0)
X = np.array([3.0, 0.0, 1.0, 4.5, 2.0, 6.0])[:, None]  # in no order
Y = np.column_stack([X[:, 0] ** 2, np.sin(X[:, 0])])


@pytest.mark.parametrize("method", METHODS)
def test_a_curve_goes_through_its_points_whatever_their_order(method: str) -> None:
    curve = interpolator(X, Y, method)
    np.testing.assert_allclose(curve(X), Y, atol=1e-12)
    order = np.argsort(X[:, 0])
    q = RNG.uniform(-2, 8, size=(30, 1))
    np.testing.assert_allclose(interpolator(X[order], Y[order], method)(q), curve(q), atol=1e-12)


def test_linear_is_the_line_between_neighbors() -> None:
    q = np.linspace(0, 6, 25)
    order = np.argsort(X[:, 0])
    wanted = np.column_stack([np.interp(q, X[order, 0], Y[order, c]) for c in (0, 1)])
    np.testing.assert_allclose(interpolator(X, Y, "linear")(q[:, None]), wanted, atol=1e-12)


def test_cubic_is_scipys() -> None:
    q, order = np.linspace(0, 6, 25), np.argsort(X[:, 0])
    wanted = CubicSpline(X[order, 0], Y[order])(q)
    np.testing.assert_allclose(interpolator(X, Y, "cubic")(q[:, None]), wanted, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_beyond_its_points_a_curve_goes_straight_on(method: str) -> None:
    curve, h = interpolator(X, Y, method), 1e-6
    for end, side in ((0.0, -1), (6.0, 1)):
        at, near = curve(np.array([[end]])), curve(np.array([[end - side * h]]))
        slope = side * (at - near) / h
        for step in (0.5, 40.0):
            far = curve(np.array([[end + side * step]]))
            np.testing.assert_allclose(far, at + side * step * slope, atol=1e-3 * step)


@pytest.mark.parametrize("points", [1, 2, 3])
def test_few_points_still_make_a_curve(points: int) -> None:
    x = np.arange(points, dtype=float)[:, None]
    curve = interpolator(x, 2 * x + 1, "makima")
    wanted = 2 * np.array([[-1.0], [0.5], [5.0]]) + 1 if points > 1 else np.ones((3, 1))
    np.testing.assert_allclose(curve(np.array([[-1.0], [0.5], [5.0]])), wanted)


def test_a_single_point_gives_a_constant_that_may_be_written_to() -> None:
    out = interpolator(np.zeros((1, 1)), np.array([[1.0, 2.0]]), "linear")(np.zeros((3, 1)))
    out[0] = 9
    assert out[1].tolist() == [1, 2]


def test_a_surface_goes_through_its_points_and_reproduces_planes() -> None:
    x = RNG.uniform(-1, 1, size=(25, 2))
    plane = x @ [[1.0, -2.0], [3.0, 0.5]] + [0.5, 1.0]
    q = RNG.uniform(-2, 2, size=(10, 2))
    wanted = q @ [[1.0, -2.0], [3.0, 0.5]] + [0.5, 1.0]
    np.testing.assert_allclose(interpolator(x, plane, "linear")(q), wanted, atol=1e-8)
    bent = np.sin(2 * x[:, :1]) * x[:, 1:]
    np.testing.assert_allclose(interpolator(x, bent, "linear")(x), bent, atol=1e-8)


@pytest.mark.parametrize("x", [[[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]], [[0, 0], [1, 0], [0, 1]], [[0, 0], [1, 2]]])
def test_points_on_a_line_or_too_few_make_a_plane(x: list[list[float]]) -> None:
    points = np.array(x, dtype=float)
    y = points.sum(1, keepdims=True)
    np.testing.assert_allclose(interpolator(points, y, "linear")(points), y, atol=1e-9)


def test_cover_is_the_range_the_hull_or_the_box() -> None:
    one = cover(np.array([[3.0], [1.0]]))
    assert one(np.array([[1.0], [3.0], [2.0], [0.99], [3.01]])).tolist() == [True, True, True, False, False]
    triangle = cover(np.array([[0.0, 0], [1, 0], [0, 1]]))
    assert triangle(np.array([[0.2, 0.2], [0.9, 0.9], [0.5, 0.5]])).tolist() == [True, False, True]
    line = cover(np.array([[0.0, 0], [1, 1], [2, 2], [3, 3]]))  # no hull: its box
    assert line(np.array([[1.0, 2.0], [4.0, 1.0]])).tolist() == [True, False]
    many = cover(RNG.uniform(0, 1, size=(50, 6)))
    assert many(np.array([[0.5] * 6, [0.5] * 5 + [2.0]])).tolist() == [True, False]


def test_the_hull_agrees_with_solving_for_barycentric_weights() -> None:
    corners = np.array([[0.0, 0.1], [2, 0.3], [0.7, 1.9]])
    q = RNG.uniform(-0.5, 2.5, size=(200, 2))
    weights = np.linalg.solve(np.vstack([corners.T, np.ones(3)]), np.vstack([q.T, np.ones(200)]))
    assert (cover(corners)(q) == (weights >= 0).all(0)).all()


def test_the_method_is_the_one_that_predicts_points_left_out() -> None:
    x = np.linspace(0, 6, 21)[:, None]
    smooth = [(x, np.sin(x + p)) for p in range(4)]
    rough = [(x, np.random.default_rng(p).normal(size=(21, 1))) for p in range(4)]
    assert choose_method(smooth) == "cubic" and choose_method(rough) == "linear"
    for tasks in (smooth, rough):
        error = {m: 0.0 for m in METHODS}
        for z, y in tasks:
            left = np.arange(1, 20, 2)
            kept = np.setdiff1d(np.arange(21), left)
            for m in METHODS:
                guess = interpolator(z[kept], y[kept], m)(z[left])
                error[m] += float(((guess - y[left]) ** 2).mean() / y.var())
        assert choose_method(tasks) == min(error, key=lambda m: error[m])


def test_the_method_for_few_points_or_several_inputs() -> None:
    assert choose_method([(np.zeros((3, 1)), np.zeros((3, 1)))]) == "linear"
    assert choose_method([(np.zeros((9, 2)), np.zeros((9, 1)))]) == "makima"
    flat = np.linspace(0, 1, 9)[:, None]
    assert choose_method([(flat, np.ones((9, 1)))]) in METHODS


def test_linear_needs_no_derivative_at_the_knots() -> None:
    spline = make_interp_spline([0.0, 1, 2], [0.0, 1, 0], k=1).derivative()
    assert spline(2.0) == -1  # the last slope is the one from within, which the continuation relies on


@pytest.mark.parametrize("method", METHODS)
def test_ragged_curves_at_once_are_one_after_the_other(method: str) -> None:
    rng = np.random.default_rng(1)
    tasks = [(rng.uniform(-5, 5, (n, 1)) + 100 * (n == 7), rng.normal(size=(n, 2))) for n in (2, 3, 4, 7, 30, 4)]
    both = Ragged.of(tasks, method)
    ends = np.concatenate([[x.min(), x.max()] for x, _ in tasks])[:, None]
    q = np.concatenate([rng.uniform(-8, 8, (180, 1)), rng.uniform(90, 110, (50, 1)), ends, tasks[4][0]])
    wanted = np.stack([interpolator(x, y, method)(q) for x, y in tasks])
    np.testing.assert_allclose(both(q), wanted, rtol=1e-9, atol=1e-9)
    assert len(q) <= MANY < len(np.tile(q, (2, 1)))  # the other way to evaluate
    np.testing.assert_allclose(both(np.tile(q, (2, 1)))[:, : len(q)], wanted, rtol=1e-9, atol=1e-9)
    some = np.array([4, 1, 4])
    np.testing.assert_array_equal(both.select(some)(q), both(q)[some])
    np.testing.assert_array_equal(both.select(some).select(np.array([1]))(q), both(q)[[1]])
