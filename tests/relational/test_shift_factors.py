"""Warps from one reference: exact families, and the errors of a composition against a simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator
from operant.relational.shift_factors import Warped, shift_factors

X = np.linspace(-3.0, 6.0, 37)


def shifted(t: float, x: Array) -> Array:
    return np.tanh(x - 0.5 * t)


def stretched(t: float, x: Array) -> Array:
    return np.sin(x * 1.1**t)


@pytest.mark.parametrize(
    ("curve", "form", "factor", "warp"),
    [
        (shifted, "shift * xshift", "xshift", lambda t, reference: -0.5 * (t - reference)),
        (stretched, "xscale", "xscale", lambda t, reference: 1.1 ** (t - reference)),
    ],
)
@pytest.mark.parametrize("reference", [None, "1"])
def test_targets_with_several_anchors_have_one_reference(
    curve: Callable[[float, Array], Array],
    form: str,
    factor: str,
    warp: Callable[[float, float], float],
    reference: str | None,
) -> None:
    bank = TaskBank.from_arrays({t: (X, curve(t, X)) for t in range(6)}, params=np.arange(6.0), param_names=["T"])
    model = Extrapolator(form).fit(bank)
    x = X[8:20:2]
    targets = {str(t): model.adapt(x, curve(t, x), params=[t], key=str(t)) for t in (-1.0, 6.0)}
    assert model.bank_ is not None
    found = shift_factors(model.bank_, targets, {k: np.array([float(k)]) for k in targets}, reference)
    assert found is not None and found["factors"] == [factor]
    assert reference is None or found["reference"] == reference
    rows = {r["task"]: r for r in found["rows"]}
    assert list(rows) == [*map(str, range(6)), "-1.0", "6.0"]
    for task, r in rows.items():
        exact = warp(float(task), float(found["reference"]))
        assert r[factor] == pytest.approx(exact, abs=0.02), task
        assert r[f"{factor}_low"] <= r[factor] <= r[f"{factor}_high"]
        assert r["known"] == (task in map(str, range(6))) and r["params"] == {"T": float(task)}
    assert rows[found["reference"]][f"{factor}_low"] == rows[found["reference"]][f"{factor}_high"]


def test_a_target_without_a_warp_has_no_shift_factor() -> None:
    bank = TaskBank.from_arrays({t: (X, shifted(t, X)) for t in range(4)})
    model = Extrapolator("shift * scale").fit(bank)
    assert model.bank_ is not None
    target = model.adapt(X[:9], shifted(4, X[:9]))
    assert shift_factors(model.bank_, {"target": target}, {"target": None}) is None


def test_warps_are_composed_with_their_errors() -> None:
    """(A (a x + b) + B) on points, and the covariance against 40,000 draws."""
    rng = np.random.default_rng(0)
    inner = Warped(0.8, 0.5, np.array([[4e-4, 1e-4], [1e-4, 9e-4]]))
    outer = Warped(1.3, -0.2, np.array([[1e-4, -5e-5], [-5e-5, 4e-4]]))
    both, x = inner.after(outer), np.linspace(-2, 2, 5)
    assert both.a * x + both.b == pytest.approx(outer.a * (inner.a * x + inner.b) + outer.b)

    def draws(w: Warped) -> Array:
        return rng.multivariate_normal([np.log(w.a), w.b], w.covariance, 40_000)

    u, v = draws(outer), draws(inner)
    simulated = np.cov(np.stack([u[:, 0] + v[:, 0], np.exp(u[:, 0]) * v[:, 1] + u[:, 1]]))
    np.testing.assert_allclose(both.covariance, simulated, rtol=0.05, atol=1e-5)
    numbers = both.numbers(["xscale", "xshift"])
    assert list(numbers)[:3] == ["xscale", "xscale_low", "xscale_high"]
    assert numbers["xscale"] ** 2 == pytest.approx(numbers["xscale_low"] * numbers["xscale_high"])
