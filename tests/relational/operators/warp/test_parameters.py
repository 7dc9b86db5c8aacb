"""The vector of a transformation in scaled units, against the transformation applied in the original units."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from operant.core.checks import InputError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.warp.parameters import Layout
from operant.relational.operators.warp.refine import model
from operant.relational.transforms import KINDS, Scale, Shift, Transformation, Trend, XShift, XWarp

PINNED = {
    "shift": (0.3, -40.0),
    "scale": (1.7, -0.6),
    "trend": (0.2, -0.1, 5.0, 3.0),
    "xshift": (0.4, -2.0),
    "xscale": (1.2, 0.8),
}
FORMS = [
    Transformation(tuple((k, PINNED[k] if pin else None) for k, pin in zip(kinds, pins, strict=True)))
    for n in range(len(KINDS) + 1)
    for kinds in combinations(KINDS, n)
    for pins in product((False, True), repeat=n)
]


def one(x: Array) -> Array:
    return np.column_stack([np.sin(0.3 * x[:, 0]) + 0.01 * x[:, 1], 100 + 5 * x[:, 0] * np.cos(0.05 * x[:, 1])])


def other(x: Array) -> Array:
    return np.column_stack([np.cos(0.2 * x[:, 0]) * x[:, 1] / 40, 90 + 0.3 * x[:, 0] ** 2 - x[:, 1]])


@pytest.fixture(scope="module")
def banks() -> tuple[TaskBank, TaskBank]:
    """Two inputs and two outputs, all far from zero and of different sizes; original and scaled."""
    axes = np.meshgrid(np.linspace(5, 9, 6), np.linspace(-30, 50, 6))
    bank = TaskBank.from_callables([one, other], np.stack([a.ravel() for a in axes], axis=1))
    return bank, bank.scaled(bank.scaling)


def vectors(layout: Layout, seed: int, count: int = 2) -> Array:
    return layout.identity() + 0.3 * np.random.default_rng(seed).normal(size=(count, layout.size))


def test_every_form_is_the_same_in_both_units(banks: tuple[TaskBank, TaskBank]) -> None:
    original, scaled = banks
    s = original.scaling
    x = np.random.default_rng(0).uniform([5, -30], [9, 50], size=(7, 2))
    assert len(FORMS) == 3 ** len(KINDS)
    for i, form in enumerate(FORMS):
        layout = Layout.of(form, scaled)
        theta = vectors(layout, i)
        got, _, _ = model(scaled, layout, np.array([0, 1]), theta, s.x_in(x))
        for k, f in enumerate((one, other)):
            wanted = layout.transformation(theta[k]).apply(f, x)
            assert s.y_out(got[k]) == pytest.approx(wanted, rel=1e-9, abs=1e-9), form


@pytest.mark.parametrize("form", FORMS[:: len(FORMS) // 40], ids=str)
def test_the_jacobian_against_finite_differences(banks: tuple[TaskBank, TaskBank], form: Transformation) -> None:
    _, scaled = banks
    layout, x = Layout.of(form, scaled), np.random.default_rng(1).uniform(-1, 1, (3, 2))
    theta, anchor = vectors(layout, 5), np.array([1, 0])
    _, jacobian, _ = model(scaled, layout, anchor, theta, x)
    assert jacobian.shape == (2, 3, 2, layout.size)
    for k in range(2):
        if layout.size:
            slow = approx_fprime(
                theta[k], lambda t, k=k: model(scaled, layout, anchor[k : k + 1], t[None], x)[0].ravel(), 1e-7
            )
            assert jacobian[k].reshape(-1, layout.size) == pytest.approx(slow, abs=2e-5)


def test_the_vector_comes_apart_and_together_again(banks: tuple[TaskBank, TaskBank]) -> None:
    _, scaled = banks
    x = np.random.default_rng(2).uniform(-1, 1, (4, 2))
    for form in FORMS:
        layout = Layout.of(form, scaled)
        theta = vectors(layout, 3)
        linear = layout.linear(theta)
        assert np.array_equal(layout.join(theta[:, : layout.nonlinear], linear), theta)
        assert np.array_equal(layout.linear(theta[0]), linear[0])
        f = np.random.default_rng(4).normal(size=(2, 4, 2))
        columns, offset = layout.design(f, x)
        assert columns.shape == (2, 4, 2, linear.shape[-1]) and offset.shape == (2, 4, 2)
        assert sum(s.stop - s.start for s in layout.slices.values()) == layout.size


def test_the_identity_changes_nothing(banks: tuple[TaskBank, TaskBank]) -> None:
    _, scaled = banks
    x = np.random.default_rng(5).uniform(-1, 1, (4, 2))
    for form in (f for f in FORMS if not f.pinned):
        layout = Layout.of(form, scaled)
        got, _, _ = model(scaled, layout, np.array([1]), layout.identity()[None], x)
        assert got[0] == pytest.approx(scaled.values(x)[1])


def test_one_pinned_value_stands_for_all_and_a_wrong_number_is_refused(banks: tuple[TaskBank, TaskBank]) -> None:
    _, scaled = banks
    layout = Layout.of(Shift() * Scale(2.0) * XShift(0.5), scaled)
    assert layout.gain(layout.identity()[None]).tolist() == [[2.0, 2.0]]
    for form, message in (
        (Scale(1.0, 2.0, 3.0), "scale needs 1 or 2 values for this bank, got 3"),
        (Trend(1.0, 2.0), "trend needs 1 or 4 values for this bank, got 2"),
    ):
        with pytest.raises(InputError, match=message):
            Layout.of(form, scaled)


def test_one_pinned_trend_stands_for_all(banks: tuple[TaskBank, TaskBank]) -> None:
    original, scaled = banks
    layout, x = Layout.of(Trend(0.5) * Shift(), scaled), np.array([[6.0, 10.0], [8.0, -20.0]])
    got, _, _ = model(scaled, layout, np.array([0]), np.zeros((1, 2)), original.scaling.x_in(x))
    wanted = layout.transformation(np.zeros(2)).apply(one, x)
    assert original.scaling.y_out(got[0]) == pytest.approx(wanted)


def test_a_bank_that_was_not_scaled_has_the_units_one(banks: tuple[TaskBank, TaskBank]) -> None:
    original, _ = banks
    layout = Layout.of(Shift() * Scale() * XWarp(), original)
    theta = vectors(layout, 6)[0]
    found = layout.transformation(theta)
    assert found.get("xshift") == pytest.approx(theta[2:4]) and found.get("shift") == pytest.approx(theta[-2:])
    assert found.get("xscale") == pytest.approx(np.exp(theta[:2]))


def test_the_covariance_in_original_units(banks: tuple[TaskBank, TaskBank]) -> None:
    """Against finite differences of the transformation itself, in two inputs and two outputs far from zero."""
    _, scaled = banks
    rng = np.random.default_rng(7)
    for form in FORMS[:: len(FORMS) // 60]:
        layout = Layout.of(form, scaled)
        if not layout.size:
            continue
        theta, root = vectors(layout, 3)[0], rng.normal(size=(layout.size, layout.size))

        def original(t: Array, layout: Layout = layout) -> Array:
            found = layout.transformation(t)
            values = {k: np.array(found.get(k)) for k in layout.slices}
            return np.concatenate([np.log(v) if k == "xscale" else v for k, v in values.items()])

        slope = np.atleast_2d(np.array(approx_fprime(theta, original, 1e-7), dtype=np.float64))
        found = layout.covariance(theta, root @ root.T)
        assert found == pytest.approx(slope @ root @ root.T @ slope.T, rel=1e-4, abs=1e-4), form
        warp = layout.warp_covariance(found)
        assert warp.shape == (4, 4) and np.trace(warp) == pytest.approx(
            np.trace(found[: layout.nonlinear, :][:, : layout.nonlinear])
        )
