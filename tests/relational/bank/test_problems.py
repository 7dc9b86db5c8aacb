"""Families: each formula against a slow scalar one or the equation that it solves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp, trapezoid

from operant.core.checks import InputError
from operant.relational.bank import problems as families
from operant.relational.bank.families import FAMILIES, PAPER


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def triangle(x: float) -> float:
    u = 2 * x / (20 / 7)
    return 2 * abs(2 * (u / 2 - math.floor(u / 2)) - 1) - 0.5


def growth(x: float, r: float, middle: float, top: float) -> float:
    return top * math.exp(r * (x - middle)) / (1 + math.exp(r * (x - middle)))


SLOW = {
    "quadratic": lambda x, a, b, c: a * x * x + b * x + c,
    "exp": lambda x, beta, alpha, c: alpha * (math.exp(beta * (x - 10)) - 1) + c,
    "cubic": lambda x, a, b, c: a * ((x - 10) ** 3) / 400 + b * (x - 10) / 10 + c,
    "tri_trend": lambda x, s, a: s * x + a * triangle(x),
    "sin_trend": lambda x, s, a: s * x + a / 2 * math.sin(2 * math.pi * x * 7 / 20),
    "projectile": lambda x, v, th: (
        math.tan(math.radians(th)) * x - 9.81 / 2 * (x / (v * math.cos(math.radians(th)))) ** 2
    ),
    "frequency": lambda x, w, a: a * math.sin(w * x),
    "damped_oscillator": lambda x, w, gamma, a: a * math.cos(w * x) / math.exp(gamma * x),
    "logistic": growth,
    "michaelis_menten": lambda x, k, v: v / (1 + k / x),
}


@pytest.mark.parametrize("name", SLOW)
def test_values_equal_the_formula_point_by_point(name: str) -> None:
    family = FAMILIES[name]
    params = np.concatenate([family.sample(r, 2, rng()) for r in ("inner", "edge", "outer")])
    x = family.points(7, rng(1))
    wanted = [[SLOW[name](float(z), *map(float, p)) for z in x[:, 0]] for p in params]
    np.testing.assert_allclose(family.values(params, x)[..., 0], wanted, rtol=1e-10, atol=1e-10)


def test_a_projectile_with_drag_obeys_newton_and_loses_against_one_without() -> None:
    family = FAMILIES["projectile_drag"]
    (params,) = family.sample("outer", 1, rng())
    v, theta, k = params
    start = [0.0, 0.0, v * math.cos(math.radians(theta)), v * math.sin(math.radians(theta))]

    def slope(_: float, s: np.ndarray) -> list[float]:
        return [s[2], s[3], -k * s[2], -9.81 - k * s[3]]

    path = solve_ivp(slope, (0, 3), start, rtol=1e-11, atol=1e-11, t_eval=np.linspace(0.1, 3, 20)).y
    np.testing.assert_allclose(family.values(params, path[0][:, None])[0, :, 0], path[1], atol=1e-7)
    free = FAMILIES["projectile"].values(params[:2], path[0][:, None])[0, :, 0]
    assert (free > path[1]).all()


def test_drag_goes_on_smoothly_where_the_projectile_would_have_stopped() -> None:
    family, params = FAMILIES["projectile_drag"], np.array([30.0, 45.0, 0.1])
    edge = 0.95 * 30 * math.cos(math.pi / 4) / 0.1
    x = edge + np.array([-2e-3, -1e-3, 0, 1e-3, 2e-3])
    y = family.values(params, x[:, None])[0, :, 0]
    slope, bend = np.diff(y), np.diff(y, 2)
    assert slope[0] == pytest.approx(slope[-1], rel=1e-3) and bend[0] == pytest.approx(bend[-1], rel=1e-2)
    assert np.isfinite(family.values(params, np.array([[1e6]]))).all()


def test_a_plume_keeps_its_mass_and_solves_its_equation() -> None:
    family = FAMILIES["plume"]
    (params,) = family.sample("edge", 1, rng())
    spread, v, mass = params
    s = np.linspace(-30, 40, 4001)
    f = family.values(params, np.column_stack([s, np.full_like(s, 2.0)]))[0, :, 0]
    assert trapezoid(f, s) == pytest.approx(mass, rel=1e-9)

    def u(s: float, t: float) -> float:
        return family.values(params, np.array([[s, t]])).item()

    h = 1e-3
    for at in ((1.0, 1.5), (3.0, 4.0)):
        by_t = (u(at[0], at[1] + h) - u(at[0], at[1] - h)) / (2 * h)
        by_s = (u(at[0] + h, at[1]) - u(at[0] - h, at[1])) / (2 * h)
        bend = (u(at[0] + h, at[1]) - 2 * u(*at) + u(at[0] - h, at[1])) / h**2
        assert by_t == pytest.approx(-v * by_s + spread * bend, rel=1e-4, abs=1e-6)
    assert u(0.0, -1.0) == 0.0


def runge_kutta(params: np.ndarray, times: np.ndarray, steps: int = 400) -> np.ndarray:
    """(Q, 2) by the classical method with ``steps`` steps to each time."""
    g, d, prey = params

    def slope(s: np.ndarray) -> np.ndarray:
        return np.array([s[0] * (g - s[1]), s[1] * (s[0] - d)])

    out = []
    for t in times:
        s, h = np.array([prey, 0.5]), t / steps
        for _ in range(steps):
            a = slope(s)
            b = slope(s + h / 2 * a)
            c = slope(s + h / 2 * b)
            s = s + h / 6 * (a + 2 * b + 2 * c + slope(s + h * c))
        out.append(s)
    return np.array(out)


def test_two_species_equal_a_slow_integration_and_conserve_their_integral() -> None:
    family = FAMILIES["lotka_volterra"]
    params = np.concatenate([family.sample(r, 3, rng(2)) for r in ("inner", "outer")])
    times = np.array([0.0, 4.0, 15.0, -3.0])
    got = family.values(params, times[:, None])
    assert got.shape == (6, 4, 2)
    for i in (0, 5):
        np.testing.assert_allclose(got[i], runge_kutta(params[i], times), rtol=1e-6)
    far = family.values(params, np.linspace(-20, 50, 30)[:, None])
    prey, predator = far[..., 0], far[..., 1]
    g, d = params[:, :1], params[:, 1:2]
    integral = prey - d * np.log(prey) + predator - g * np.log(predator)
    np.testing.assert_allclose(integral, np.broadcast_to(integral[:, :1], integral.shape), rtol=1e-8)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_a_bank_of_callables(name: str) -> None:
    family = FAMILIES[name]
    bank = family.bank(4, 3, rng=rng(), with_params=True)
    assert bank.callable and len(bank) == 7 and bank.param_names == family.param_names
    assert [t.labels["region"] for t in bank.tasks] == ["inner"] * 4 + ["edge"] * 3
    x = family.points(6, rng(1))
    values = bank.values(x)
    assert values.shape == (7, 6, len(family.y_names)) and np.isfinite(bank.values(30 * x - 50)).all()
    one = bank.tasks[5]
    assert one.function is not None
    np.testing.assert_allclose(values[5], one.function(x), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(values[5], family.values(one.params, x)[0], rtol=1e-7, atol=1e-9)
    first = [family.sample(r, 200, rng())[:, 0] for r in ("inner", "edge", "outer")]
    assert first[0].max() < first[1].min() and first[1].max() < first[2].min()


@pytest.mark.parametrize("name", ["quadratic", "lotka_volterra", "plume"])
def test_hidden_parameters_work_and_are_not_shown(name: str) -> None:
    family, x = FAMILIES[name], FAMILIES[name].points(5, rng(3))
    hidden, known = (family.bank(4, 4, rng=rng(), with_params=w) for w in (False, True))
    assert hidden.params.shape == (8, 0) and hidden.param_names == () and known.params.shape[1] == 3
    assert (hidden.values(x) == known.values(x)).all()
    few = hidden.select([6, 1])
    np.testing.assert_allclose(few.values(x), known.values(x)[[6, 1]], rtol=1e-7, atol=1e-9)
    s = hidden.scaling
    np.testing.assert_allclose(s.y_out(hidden.scaled(s).values(s.x_in(x))), known.values(x), rtol=1e-9, atol=1e-9)


def test_measured_banks_have_the_noise_that_was_asked_for() -> None:
    family = FAMILIES["quadratic"]
    clean, noisy = (family.bank(30, 30, rng=rng(), points=40, noise=n) for n in (0.0, 0.05))
    assert not noisy.callable and noisy.shared and len(noisy.tasks[0].x) == 40
    y, z = (np.stack([t.y for t in b.tasks]) for b in (clean, noisy))
    ratio = (z - y) / y.std(1, keepdims=True)
    assert ratio.std() == pytest.approx(0.05, rel=4 / math.sqrt(2 * ratio.size))
    assert abs(ratio.mean()) < 4 * 0.05 / math.sqrt(ratio.size)


def test_the_papers_regions() -> None:
    assert set(PAPER) < set(FAMILIES)
    sides = {n: [FAMILIES[n].regions[r].sides[0] for r in ("inner", "edge", "outer")] for n in PAPER}
    assert sides["quadratic"] == sides["cubic"] == [(0.5, 1.5), (1.5, 2.5), (2.5, 3.5)]
    assert sides["exp"] == [(0.05, 0.1), (0.1, 0.15), (0.15, 0.2)]
    assert sides["tri_trend"] == sides["sin_trend"] == [(0.1, 0.2), (0.2, 0.3), (0.3, 0.4)]


def test_a_bank_is_repeatable() -> None:
    a, b, c = (FAMILIES["exp"].bank(3, 3, rng=rng(s)).values(np.ones((1, 1))) for s in (0, 0, 1))
    assert (a == b).all() and (a != c).all()


def test_a_lattice_holds_the_corners() -> None:
    x = families.lattice([(-1, 1), (0, 5)], 16)
    assert x.shape == (16, 2) and {(-1, 0), (-1, 5), (1, 0), (1, 5)} <= set(map(tuple, x.tolist()))
    assert len(families.lattice([(0, 1)] * 3, 27)) == 27  # 27 ** (1 / 3) is a little above 3


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: FAMILIES["exp"].sample("F2", 3, rng()), "expected a region of inner, edge, outer, got 'F2'"),
        (lambda: FAMILIES["exp"].bank(rng=rng(), noise=0.1), "Noise needs measured tasks"),
    ],
)
def test_errors(act, message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()
