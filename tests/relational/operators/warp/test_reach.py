"""Measured anchors beyond their ends: relations against the truth and slow roads, their sd, weights a point."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator
from operant.relational.operators.base import Context
from operant.relational.operators.warp import refine as refinement
from operant.relational.operators.warp.hops import Windows
from operant.relational.operators.warp.operator import AdaptedWarp, Warp
from operant.relational.operators.warp.parameters import Layout
from operant.relational.operators.warp.reach import KNOTS, Reach, _lagrange
from operant.relational.operators.warp.refine import refine
from operant.relational.transforms import Scale, Shift, XScale, XShift

X = np.linspace(0, 10, 81)
RATES = np.linspace(0.8, 1.6, 7)


def scaled(tasks, **more) -> TaskBank:
    bank = TaskBank.from_arrays(tasks, **more)
    return bank.scaled(bank.scaling)


def random_curves(tasks: int = 9, seed: int = 0, outputs: int = 1) -> TaskBank:
    """Sums of waves without a common period: no stretch repeats another."""
    rng = np.random.default_rng(seed)
    w, phase = rng.uniform(0.3, 2.5, (2, tasks, outputs, 12))
    y = np.sin(w * X[:, None, None, None] + 9 * phase).sum(-1)  # (P, F, C)
    return scaled([(X, y[:, i]) for i in range(tasks)])


FAMILIES = {
    "waves": lambda x, r: np.sin(r * x) + 0 * x,
    "waves on a slope": lambda x, r: np.sin(r * x) + 0.3 * x,
    "damped waves": lambda x, r: np.exp(-0.1 * x) * np.cos(r * x),
    "growth": lambda x, r: np.expm1(0.2 * r * x),
    "parabolas": lambda x, r: r * (x - 3) ** 2,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_curves_go_on_as_their_family_does(name: str) -> None:
    f = FAMILIES[name]
    bank = scaled([(X, f(X, r)) for r in RATES])
    assert bank.units is not None
    reach, units = Reach.of(bank), bank.units
    for q in (np.linspace(10, 15, 41), np.linspace(-5, 0, 41)):
        got, anchor_sd = reach.values(np.arange(7), units.x_in(q[:, None]))
        truth = np.stack([units.y_in(f(q[:, None], r)) for r in RATES])
        assert np.abs(got - truth).max() < 2e-3
        assert (np.abs(got - truth) <= 3 * anchor_sd + 1e-6).mean() > 0.9
        assert all(reach.covers(i, units.x_in(q[:, None])).all() for i in range(7))


def test_a_curve_goes_on_along_another_that_was_measured_further() -> None:
    """Five windows on one curve without a period: a master curve. The last window ends it."""

    def master(z: Array) -> Array:
        return np.tanh(z - 5) + 0.3 * np.sin(0.07 * z**2)

    starts = np.array([0.0, 1.5, 3.0, 4.5, 6.0])
    bank = scaled([(X, master(X + s)) for s in starts])
    assert bank.units is not None
    reach, units = Reach.of(bank), bank.units
    q = np.linspace(10, 11.2, 13)[:, None]
    for i in range(4):
        got, anchor_sd = reach.values(np.array([i]), units.x_in(q))
        assert np.abs(got[0] - units.y_in(master(q + starts[i]))).max() < 0.05
        assert reach.covers(i, units.x_in(q)).mean() > 0.5 and (anchor_sd[0] < 0.3).all()


def test_where_nothing_repeats_the_sd_is_that_of_going_straight_on() -> None:
    bank = random_curves(outputs=2)
    reach = Reach.of(bank)
    steps, errors = reach._grown[1]
    grid = reach._grid[:, None]
    values = bank.values(grid)
    for h in (1, 5, 20):
        square = [
            (values[f, p + h] - values[f, p] - h * (values[f, p] - values[f, p - 1])) ** 2
            for f in range(len(bank))
            for p in range(1, len(grid) - h)
        ]
        assert (errors[h] >= np.sqrt(np.mean(square, axis=0)) - 1e-12).all()
    assert (np.diff(errors, axis=0) >= 0).all() and not errors[0].any() and not steps[:1].any()
    far = np.array([[1.02], [1.2], [1.6], [2.8], [9.0]])
    anchor_sd = reach.values(np.arange(9), far)[1].mean((0, 2))
    assert (np.diff(anchor_sd) > 0).all() and anchor_sd[0] < 0.3 and anchor_sd[2] > 0.5


def slow_value(reach: Reach, i: int, x: float, side: int) -> Array:
    """The relation, applied to itself."""
    hops, end = reach._hops[side], reach._ends[:, 1 if side > 0 else 0]
    if side * (x - end[i]) <= 0 or hops.source[i] < 0:
        return reach.bank.curve(i)(np.array([[x]]))[0]
    return hops.s[i] * slow_value(reach, int(hops.source[i]), x + hops.b[i], side) + hops.t[i] + hops.u[i] * x


@pytest.mark.parametrize("side", [-1, 1])
def test_chains_and_tables_against_recursion(side: int) -> None:
    bank = scaled([(X, np.sin(r * X) + 0.1 * r * X) for r in RATES])
    reach = Reach.of(bank)
    x = side * np.linspace(1.001, 2.9, 23)
    table, anchor_sd = reach.values(np.arange(7), x[:, None])
    for i in range(7):
        slow = np.array([slow_value(reach, i, float(v), side) for v in x])
        got, _ = reach._chain(i, x, side)
        assert got == pytest.approx(slow, abs=1e-9)
        assert (np.abs(table[i] - slow) <= anchor_sd[i] + 1e-5).all()


def test_ends_are_alike() -> None:
    """A bank read backwards goes on below as the bank does above."""
    y = [np.exp(-0.1 * X) * np.sin(r * X) for r in RATES]
    forward, backward = scaled([(X, v) for v in y]), scaled([(X[::-1].max() - X, v) for v in y])
    q = np.linspace(1, 2.5, 31)[:, None]
    for a, b in zip(
        Reach.of(forward).values(np.arange(7), q), Reach.of(backward).values(np.arange(7), -q), strict=True
    ):
        assert a == pytest.approx(b, abs=1e-5)


def test_what_is_learned_does_not_depend_on_what_was_asked_before() -> None:
    tasks = [(X, np.sin(r * X) + 0.02 * np.random.default_rng(i).normal(size=81)) for i, r in enumerate(RATES)]
    q, every = np.linspace(-3, 3, 61)[:, None], np.arange(7)
    at_once, one_by_one = Reach.of(scaled(tasks)), Reach.of(scaled(tasks))
    for i in (3, 6, 0):
        one_by_one.values(np.array([i]), q)
    for a, b in zip(at_once.values(every, q), one_by_one.values(every, q), strict=True):
        assert a == pytest.approx(b, abs=1e-8)
    again = Reach.of(pickle.loads(pickle.dumps(at_once.bank)))
    assert np.array_equal(again.values(every, q)[0], at_once.values(every, q)[0])


def test_ways_to_ask_agree_and_nothing_changes_within_the_range() -> None:
    rng = np.random.default_rng(0)
    own = [np.sort(rng.uniform(0, 10, 40)) for _ in RATES]
    for bank in (random_curves(7), scaled([(x, np.sin(r * x)) for x, r in zip(own, RATES, strict=True)])):
        reach, q = Reach.of(bank), np.linspace(-2, 2, 41)[:, None]
        got, anchor_sd = reach.values(np.arange(7), q)
        for i in range(7):
            value, sd = reach.at(np.array([i]), q[None])
            assert value[0] == pytest.approx(got[i], abs=1e-12) and sd[0] == pytest.approx(anchor_sd[i], abs=1e-12)
        inside = bank.covers(q)
        assert np.array_equal(got[inside], bank.values(q)[inside]) and not anchor_sd[inside].any()
        fine = np.linspace(-2, 2, 20001)[:, None]
        assert np.abs(np.diff(reach.values(np.arange(7), fine)[0], axis=1)).max() < 0.02


def test_callables_are_known_everywhere_and_surfaces_go_on_as_before() -> None:
    functions = TaskBank.from_callables([np.sin, np.cos], X[:, None])
    value, anchor_sd = Reach.of(functions).at(np.array([1]), np.array([[[40.0]]]))
    assert (
        value[0, 0, 0] == np.cos(40.0) and not anchor_sd.any() and Reach.of(functions).covers(0, X[:, None] + 50).all()
    )
    plane = np.random.default_rng(0).uniform(-1, 1, (30, 2))
    surfaces = scaled([(plane, np.sin(k * plane[:, 0]) + plane[:, 1]) for k in (1, 2, 3)])
    far = np.array([[[2.0, 0.0]]])
    value, anchor_sd = Reach.of(surfaces).at(np.array([0]), far)
    near = surfaces.curve(0)(np.clip(far[0], surfaces.tasks[0].x.min(0), surfaces.tasks[0].x.max(0)))
    assert anchor_sd[0] == pytest.approx(0.5 * np.abs(value[0] - near))


def test_cubics_through_four_knots() -> None:
    z, p = np.linspace(0, 1, 11), np.polynomial.Polynomial([0.3, -1, 2, 0.7])
    assert sum(w * p(k) for w, k in zip(_lagrange(z), (-1, 0, 1, 2), strict=True)) == pytest.approx(p(z))
    assert KNOTS > 4


def test_misfits_of_shifts_are_those_of_least_squares() -> None:
    bank = random_curves(3, outputs=2)
    grid = np.linspace(-1, 1, 40)[:, None]
    window = Windows.of(bank.values(grid), bank.covers(grid))
    shifts = np.array([9, 14, 20])
    got = window._misfit(0, 1, shifts, 5)
    for k, value in zip(shifts, got, strict=True):
        g = np.arange(k, window.cut[0] + 1)
        total = 0.0
        for c in range(2):
            design = np.column_stack([window.values[1, g - k, c], g, np.ones(len(g))])
            total += np.linalg.lstsq(design, window.values[0, g, c])[1].sum()
        assert value == pytest.approx(np.sqrt(total / (len(g) - 4)), rel=1e-4)


def split_curve() -> tuple[TaskBank, Context]:
    """One curve, measured on the left and on the right as two tasks among others; the target is that curve.

    What the two have in common is too short to tell that one goes on as the other.
    """
    rng = np.random.default_rng(2)
    w, phase = rng.uniform(0.3, 2.5, (2, 5, 12))
    y = [np.sin(w[i] * X[:, None] + 9 * phase[i]).sum(-1) for i in range(5)]
    left, right = X < 5.2, X > 3.8
    bank = scaled([(X, v) for v in y[1:]] + [(X[left], y[0][left]), (X[right], y[0][right])])
    assert bank.units is not None
    x = np.linspace(3.9, 5.1, 7)
    truth = np.sin(w[0] * x[:, None] + 9 * phase[0]).sum(-1)
    return bank, Context(bank.units.x_in(x[:, None]), bank.units.y_in(truth[:, None]))


def test_each_point_is_predicted_by_what_covers_it() -> None:
    bank, context = split_curve()
    fitted = Warp(Shift() * XShift()).fit(bank)
    fitted = replace(fitted, prior=replace(fitted.prior, noise=np.full(1, 1e-3)))
    adapted = fitted.adapt(context)
    assert isinstance(adapted, AdaptedWarp)
    anchor = adapted.found.anchor[adapted.kept]
    assert {4, 5} <= set(anchor.tolist())
    fine = np.linspace(-1.6, 1.6, 3201)[:, None]
    _, _, _, w = adapted._each(fine)
    assert w.sum(0) == pytest.approx(1) and (w >= 0).all()
    of = {a: w[anchor == a, :, 0].sum(0) for a in (4, 5)}
    assert bank.units is not None
    at = bank.units.x_out(fine)[:, 0]
    left, right, both = (at > 0) & (at < 3), (at > 6) & (at < 10), (at > 3.9) & (at < 5.1)
    assert of[4][at < 1.5].min() > 0.8 and of[5][at > 7.5].min() > 0.8
    near = (at > 2) & (at < 3.9)  # the other one ends nearby and is still believed
    assert of[4][near].min() > 0.45 and (np.diff(of[4][near]) < 1e-3).all()
    assert of[4][both].min() > 0.1 and of[5][both].min() > 0.1
    mean, sd = adapted.predict(fine)
    truth = np.where(at[:, None] < 4.5, bank.curve(4)(fine), bank.curve(5)(fine))
    fixed = np.einsum("b,bqc->qc", adapted.weights, adapted._each(fine)[0])
    one_sided = left | right
    assert np.abs(mean - truth)[both].max() < 0.1
    assert np.mean((mean - truth)[one_sided] ** 2) < 0.1 * np.mean((fixed - truth)[one_sided] ** 2)
    assert (np.abs(mean - truth) < 2.5 * sd + 1e-3)[left | right | both].all()
    assert np.abs(np.diff(mean, axis=0)).max() < 0.05  # a step is 1/2000 of the range
    outside = (at < -1) | (at > 11)
    assert np.median(sd[outside]) > 4 * np.median(sd[left | right | both]) and sd[outside].min() > 0.1
    assert adapted.covered(fine)[left | right | both].all() and not adapted.covered(fine)[outside].any()
    draws = adapted.sample(fine[::160], 3000, np.random.default_rng(0))
    assert draws.mean(0) == pytest.approx(mean[::160], abs=float(0.1 * sd.max()))
    assert draws.std(0) == pytest.approx(sd[::160], rel=0.2, abs=0.06)  # rare candidates are drawn rarely


def test_context_beyond_an_anchor_does_not_spoil_its_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going straight on, the anchor gives way to points that it does not know; with its sd, it fits the others."""
    monkeypatch.setattr(refinement, "IGNORANT", 0.0)
    bank, _ = split_curve()
    layout = Layout.of(Scale() * XShift(), bank)
    x = np.linspace(-0.9, 0.9, 13)[:, None]
    y = 1.3 * bank.curve(4)(x + 0.02)
    known = bank.covers(x + 0.02)[4]
    y[~known] = np.array([[1.0], [-1.0]] * 6)[: (~known).sum()]
    given = {
        "mean": layout.identity()[None],
        "sd": np.array([[0.3, 1.0]]),
        "floor": np.array([1e-3]),
    }
    start, anchor = layout.identity()[None], np.array([4])
    among = refine(bank, layout, x, y, anchor, start, counts=known[None], steps=40, **given)
    with_sd = refine(bank, layout, x, y, anchor, start, reach=Reach.of(bank), steps=40, **given)
    spoiled = refine(bank, layout, x, y, anchor, start, steps=40, **given)
    assert among.theta[0] == pytest.approx([0.02, 1.3], abs=5e-3)
    assert with_sd.theta[0] == pytest.approx(among.theta[0], abs=5e-3)
    assert np.abs(spoiled.theta[0] - [0.02, 1.3]).max() > 0.05
    assert not with_sd.anchor_sd[0][known].any() and with_sd.anchor_sd[0][~known].min() > 0


def test_pinned_factors_of_x_are_used_where_the_others_are_linear() -> None:
    bank = random_curves(5)
    assert bank.units is not None
    units, x = bank.units, np.linspace(1, 7, 9)[:, None]
    anchor = bank.curve(2)
    y = 1.5 * units.y_out(anchor(units.x_in(1.1 * x + 0.3)))
    form = Scale() * XShift(0.3) * XScale(1.1)
    fitted = Warp(form, anchor=2).fit(bank)
    fitted = replace(fitted, prior=replace(fitted.prior, noise=np.full(1, 1e-4)))
    best = fitted.adapt(Context(units.x_in(x), units.y_in(y))).decompositions[0]
    assert best.transformation.get("scale")[0] == pytest.approx(1.5, abs=1e-3) and best.residual < 1e-3


def sine_bank(tasks: int) -> TaskBank:
    return TaskBank.from_arrays([(X, np.sin(w * X)) for w in np.linspace(0.8, 1.6, tasks)])


def test_a_sine_faster_than_a_measured_bank() -> None:
    """The anchor ends at 10 w0 / w: what comes after is the same anchor, a period before."""
    bank = sine_bank(12)
    bank = bank.scaled(bank.scaling)
    assert bank.units is not None
    units, q = bank.units, X[:, None]
    fitted = Warp(Scale() * XScale()).fit(bank)
    for w, seed in ((1.75, 0), (1.9, 1), (2.05, 2)):
        x = np.random.default_rng(seed).uniform(0, 10, (8, 1))
        adapted = fitted.adapt(Context(units.x_in(x), units.y_in(np.sin(w * x))))
        mean, sd = adapted.predict(units.x_in(q))
        assert np.mean((mean - units.y_in(np.sin(w * q))) ** 2) < 1e-5 and sd.max() < 0.1
        assert adapted.covered(units.x_in(q)).all()


@pytest.mark.slow
def test_a_sine_faster_than_a_measured_bank_without_naming_the_form() -> None:
    model = Extrapolator().fit(sine_bank(40))
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        w, x = rng.uniform(1.6, 2.08), rng.uniform(0, 10, 8)
        target = model.adapt(x, np.sin(w * x), query=X)
        errors.append(np.mean((target.predict(X) - np.sin(w * X)) ** 2))
    assert max(errors) < 1e-3
