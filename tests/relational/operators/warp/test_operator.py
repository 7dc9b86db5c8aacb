"""Anchors and transformations: the search and the refinement against slow roads, and what is recovered exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context
from operant.relational.operators.warp.operator import INFLATIONS, AdaptedWarp, FittedWarp, Warp
from operant.relational.operators.warp.parameters import Layout
from operant.relational.operators.warp.refine import Candidates, model, refine
from operant.relational.operators.warp.search import search, warp_nodes
from operant.relational.transforms import Scale, Shift, Transformation, Trend, XScale, XShift, XWarp

X = np.linspace(0, 4, 33)[:, None]


def sines(params: Array, x: Array) -> Array:
    return np.sin(params[:, :1] * x[:, 0])


def frequencies(low: float = 1.0, high: float = 2.0, tasks: int = 12) -> TaskBank:
    bank = TaskBank.from_callables(sines, X, params=np.linspace(low, high, tasks), param_names=["w"])
    return bank.scaled(bank.scaling)


def bumps(tasks: int = 6, outputs: int = 1, seed: int = 0) -> TaskBank:
    """Curves that no transformation turns into each other."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-3, 3, 31)[:, None]
    a = rng.normal(size=(tasks, 3, outputs))
    functions = [
        lambda q, a=a[i]: a[0] * np.sin(q) + a[1] * np.exp(-(q**2)) + a[2] * np.cos(2 * q + a[0]) for i in range(tasks)
    ]
    bank = TaskBank.from_callables(functions, x)
    return bank.scaled(bank.scaling)


def context_of(bank: TaskBank, function, x: Array, **more) -> Context:
    """Original units in, scaled out."""
    assert bank.units is not None
    return Context(bank.units.x_in(x), bank.units.y_in(function(x)), **more)


def setting(form: Transformation, *, outputs: int = 1, points: int = 9, seed: int = 1, noise: float = 0.1):
    bank = bumps(outputs=outputs)
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(-1, 0.6, (points, 1)), axis=0)
    y = 0.8 * bank.curve(2)(1.2 * x + 0.1) + 0.3 + noise * rng.normal(size=(points, outputs))
    return bank, Layout.of(form, bank), Context(x, y)


@pytest.mark.parametrize(
    "form", [Shift() * Scale(), Shift() * Scale() * XShift(), Scale() * XScale(), Trend(), XShift()]
)
def test_the_search_is_a_loop_over_anchors_and_nodes(form: Transformation) -> None:
    bank, layout, context = setting(form, outputs=2)
    which, n = np.array([0, 2, 5]), layout.nonlinear
    rng = np.random.default_rng(3)
    mean, sd = layout.identity() + 0.1 * rng.normal(size=(3, layout.size)), rng.uniform(0.3, 1, (3, layout.size))
    noise = np.array([0.05, 0.2])
    rows, theta = search(bank, layout, context, which, mean, sd, noise, keep=5)

    found = []
    for i, anchor in enumerate(which):
        each = []
        for node in warp_nodes(layout, mean, sd):
            start = np.concatenate([node, np.zeros(layout.size - n)])
            value, jacobian, _ = model(bank, layout, np.array([anchor]), start[None], context.x)
            left = ((context.y - value[0]) / noise).ravel()
            design = (jacobian[0] / noise[:, None]).reshape(-1, layout.size)[:, n:]
            a = np.concatenate([design, np.diag(1 / sd[i, n:])])
            b = np.concatenate([left, (mean[i, n:]) / sd[i, n:]])
            best = np.linalg.lstsq(a, b, rcond=None)[0]
            cost = ((b - a @ best) ** 2).sum() + (((node - mean[i, :n]) / sd[i, :n]) ** 2).sum()
            each.append((cost, i, np.concatenate([node, best])))
        found += sorted(each, key=lambda e: e[0])[:2]
    found = sorted(found, key=lambda e: e[0])[:5]
    assert rows.tolist() == [i for _, i, _ in found]
    assert theta == pytest.approx(np.array([t for _, _, t in found]), rel=1e-7, abs=1e-9)


def test_the_nodes_lie_where_the_prior_puts_the_warp() -> None:
    bank = bumps()
    nodes = warp_nodes(Layout.of(XWarp(), bank), np.array([[0.1, 0.0]]), np.array([[0.05, 9.0]]))
    assert nodes.shape == (625, 2)
    assert nodes.min(0) == pytest.approx([-0.05, -1.5]) and nodes.max(0) == pytest.approx([0.25, 1.5])
    assert warp_nodes(Layout.of(Shift(), bank), np.zeros((1, 1)), np.ones((1, 1))).shape == (1, 0)


def refined(form: Transformation, noise: Array | None, *, steps: int = 25):
    bank, layout, context = setting(form, outputs=2)
    anchor = np.array([2, 2, 4])
    mean, sd = np.tile(layout.identity(), (3, 1)), np.tile(np.linspace(0.5, 0.8, layout.size), (3, 1))
    start = mean + 0.1 * np.random.default_rng(4).normal(size=mean.shape)
    floor = np.array([0.01, 0.02])
    keywords = {"mean": mean, "sd": sd, "floor": floor, "noise": noise, "steps": steps}
    found = refine(bank, layout, context.x, context.y, anchor, start, **keywords)
    return bank, layout, context, anchor, start, keywords, found


FORMS = [Shift() * Scale() * XWarp(), Shift() * XShift(), Scale() * Trend(), XScale()]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("known", [True, False])
def test_the_refinement_reaches_the_optimum_of_scipy(form: Transformation, known: bool) -> None:
    noise = np.array([0.1, 0.15]) if known else None
    bank, layout, context, anchor, _, k, found = refined(form, noise, steps=60)
    if noise is not None:
        assert found.noise == pytest.approx(np.tile(np.hypot(noise, k["floor"]), (3, 1)))
    for i in range(3):

        def loss(theta: Array, i: int = i) -> Array:
            value = model(bank, layout, anchor[i : i + 1], theta[None], context.x)[0][0]
            return np.concatenate([((context.y - value) / found.noise[i]).ravel(), (theta - k["mean"][i]) / k["sd"][i]])

        best = least_squares(loss, found.theta[i], xtol=1e-12, ftol=1e-12, gtol=1e-10)
        covariance = np.linalg.inv(best.jac.T @ best.jac)
        apart = np.abs(found.theta[i] - best.x) / np.sqrt(np.diag(covariance))
        assert apart.max() < (0.1 if noise is None else 1e-4)  # unknown noise is settled to 5 %
        assert found.covariance[i] == pytest.approx(covariance, rel=1e-2, abs=1e-5)
        assert found.residual[i] == pytest.approx(
            context.y - model(bank, layout, anchor[i : i + 1], found.theta[i : i + 1], context.x)[0][0]
        )


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_unknown_noise_follows_the_residuals(form: Transformation) -> None:
    *_, k, found = refined(form, None, steps=60)
    for i in range(3):
        for c in range(2):
            j = (found.jacobian[i] / found.noise[i][:, None]).reshape(-1, found.theta.shape[1])
            hat = np.diag(j @ np.linalg.inv(j.T @ j + np.diag(1 / k["sd"][i] ** 2)) @ j.T).reshape(-1, 2)[:, c].sum()
            r = found.residual[i, :, c]
            wanted = np.sqrt((r @ r + k["floor"][c] ** 2) / (len(r) - hat + 1))
            assert found.noise[i, c] == pytest.approx(wanted, rel=0.06)


@pytest.mark.parametrize("noise", [None, np.array([0.1, 0.1])])
def test_side_by_side_is_one_by_one(noise: Array | None) -> None:
    form = Shift() * Scale() * XWarp()
    bank, layout, context, anchor, start, k, found = refined(form, noise, steps=40)
    for i in range(3):
        one = {n: (v[i : i + 1] if n in ("mean", "sd") else v) for n, v in k.items()}
        alone = refine(bank, layout, context.x, context.y, anchor[i : i + 1], start[i : i + 1], **one)
        assert alone.theta[0] == pytest.approx(found.theta[i], abs=1e-3 if noise is None else 1e-5)
        assert alone.noise[0] == pytest.approx(found.noise[i], rel=0.06)


def test_points_that_do_not_count_change_nothing() -> None:
    bank, layout, context = setting(Shift() * XShift())
    k = {"mean": layout.identity()[None], "sd": np.ones((1, 2)), "floor": np.array([0.01])}
    anchor, counts = np.array([2]), np.arange(9) < 6
    few = refine(bank, layout, context.x[:6], context.y[:6], anchor, layout.identity()[None], **k)
    masked = refine(bank, layout, context.x, context.y, anchor, layout.identity()[None], counts=counts[None], **k)
    assert masked.theta == pytest.approx(few.theta) and masked.evidence == pytest.approx(few.evidence)
    assert masked.noise == pytest.approx(few.noise) and not masked.residual[0, 6:].any()


def test_the_evidence_of_a_linear_form_is_exact() -> None:
    """Laplace's approximation is none there: log N(y; offset + A m, A S A^T + sigma^2), a constant apart."""
    bank, layout, context = setting(Shift() * Scale(), noise=0.2)
    anchor, noise = np.array([0, 2, 4]), np.array([0.2])
    mean, sd = np.tile(layout.identity(), (3, 1)), np.array([[0.5, 0.7]] * 3)
    found = refine(bank, layout, context.x, context.y, anchor, mean, mean=mean, sd=sd, floor=np.zeros(1), noise=noise)
    exact = []
    for i in range(3):
        value, jacobian, _ = model(bank, layout, anchor[i : i + 1], mean[i : i + 1], context.x)
        a, r = jacobian[0, :, 0], (context.y - value[0])[:, 0]
        cov = a @ np.diag(sd[i] ** 2) @ a.T + noise[0] ** 2 * np.eye(len(r))
        exact.append(-0.5 * (r @ np.linalg.solve(cov, r) + np.linalg.slogdet(cov)[1]))
    assert found.evidence == pytest.approx(np.array(exact), rel=1e-6)


def test_a_frequency_beyond_the_bank_is_recovered_exactly() -> None:
    bank = frequencies()
    x = np.linspace(0, 4, 9)[:, None]
    for form in (XScale(), Scale() * XScale(), Shift() * Scale() * XScale()):
        adapted = Warp(form).fit(bank).adapt(context_of(bank, lambda q: np.sin(2.6 * q), x))
        query = context_of(bank, lambda q: np.sin(2.6 * q), np.linspace(0, 4, 50)[:, None])
        assert np.mean((adapted.predict(query.x)[0] - query.y) ** 2) < 1e-12, form
        best = adapted.decompositions[0]
        w = dict(zip(bank.keys, bank.params[:, 0], strict=True))[best.anchor]
        assert best.transformation.get("xscale")[0] == pytest.approx(2.6 / w, abs=1e-6)


@pytest.mark.parametrize(
    "form",
    [Shift(), Scale(), Shift() * Scale() * Trend(), Shift() * Scale() * XShift(), Shift() * Scale() * XWarp()],
    ids=str,
)
def test_what_was_done_is_found(form: Transformation) -> None:
    """The anchor and each number, with the evidence on the right anchor; the prior takes such a form to be exact."""
    values = {"shift": [0.7], "scale": [1.4], "trend": [-0.3], "xshift": [0.35], "xscale": [1.15]}
    done = form.filled({k: values[k] for k in form.free})
    bank = bumps()
    fitted = Warp(form).fit(bank)
    fitted = replace(fitted, prior=replace(fitted.prior, noise=np.full(1, 1e-7)))
    x = np.linspace(-2, 2, 12)[:, None]
    assert bank.units is not None
    units = bank.units

    def original(q: Array) -> Array:
        return units.y_out(bank.curve(3)(units.x_in(q)))

    adapted = fitted.adapt(context_of(bank, lambda q: done.apply(original, q), x))
    best = adapted.decompositions[0]
    assert best.anchor == 3 and best.weight > 0.99 and best.residual < 1e-3
    for kind in form.free:
        assert best.transformation.get(kind)[0] == pytest.approx(values[kind][0], abs=5e-3)
        low, high = best.intervals[kind]
        assert low <= best.transformation.get(kind)[0] <= high
    assert sum(d.weight for d in adapted.decompositions) == pytest.approx(1)


@pytest.mark.parametrize("form", [Shift(), Shift() * Scale(), Shift() * Scale() * Trend()], ids=str)
def test_left_out_is_leaving_points_out_where_the_form_is_linear(form: Transformation) -> None:
    """Given the noise and the candidate, r / (1 - h) is exact."""
    bank, layout, context = setting(form)
    fitted = Warp(form, anchor=2).fit(bank)
    assert isinstance(fitted, FittedWarp)
    adapted = fitted.adapt(replace(context, noise=np.array([0.1])))
    assert isinstance(adapted, AdaptedWarp)
    found, first = adapted.found, adapted.kept[0]
    only = _only(adapted, first)
    mean, sd = only.left_out()
    scale = INFLATIONS[first] * fitted.prior.sd  # one anchor: the candidates are the inflations
    keywords = {
        "mean": layout.identity()[None],
        "sd": scale[None],
        "floor": np.zeros(1),
        "noise": found.noise[first],
    }
    for i in range(len(context.x)):
        less = context.without(i)
        alone = refine(bank, layout, less.x, less.y, np.array([2]), layout.identity()[None], **keywords)
        value, jacobian, _ = model(bank, layout, alone.anchor, alone.theta, context.x[i : i + 1])
        variance = jacobian[0, 0, 0] @ alone.covariance[0] @ jacobian[0, 0, 0]
        assert mean[i] == pytest.approx(value[0, 0], rel=1e-6)
        assert sd[i, 0] == pytest.approx(np.sqrt(variance + found.noise[first, 0] ** 2), rel=1e-6)


def _only(adapted: AdaptedWarp, i: int) -> AdaptedWarp:
    """The mixture of one candidate."""
    f = adapted.found
    rows = {k: getattr(f, k)[i : i + 1] for k in Candidates.__dataclass_fields__}
    return AdaptedWarp(adapted.fitted, adapted.context, Candidates(**rows))


def test_the_prediction_is_the_mixture_and_samples_agree_with_it() -> None:
    bank, _, context = setting(Shift() * Scale() * XShift(), noise=0.15, points=6)
    adapted = Warp(Shift() * Scale() * XShift()).fit(bank).adapt(context)
    assert isinstance(adapted, AdaptedWarp) and len(adapted.kept) > 1
    x = np.linspace(-1, 1, 5)[:, None]
    mean, sd = adapted.predict(x)
    each = [_only(adapted, i).predict(x) for i in adapted.kept]
    w = adapted.weights
    slow = sum(p * m for p, (m, _) in zip(w, each, strict=True))
    second = sum(p * (s**2 + m**2) for p, (m, s) in zip(w, each, strict=True))
    assert mean == pytest.approx(slow) and sd == pytest.approx(np.sqrt(second - slow**2))
    draws = adapted.sample(x, 4000, np.random.default_rng(0))
    assert draws.shape == (4000, 5, 1)
    assert np.abs(draws.mean(0) - mean).max() < 4 * (sd / np.sqrt(4000)).max() + 1e-3
    assert draws.std(0) == pytest.approx(sd, rel=0.1)


def test_following_parameters_predicts_the_transformation() -> None:
    """One context point, at zero, says nothing: the parameter does."""
    bank = frequencies(tasks=16)
    x, query = np.array([[0.0]]), context_of(bank, lambda q: np.sin(2.2 * q), X)
    context = context_of(bank, lambda q: np.sin(2.2 * q), x, params=np.array([2.2]))
    error = {}
    for follow in (False, True):
        mean, _ = Warp(XScale(), follow=follow).fit(bank).adapt(context).predict(query.x)
        error[follow] = np.sqrt(np.mean((mean - query.y) ** 2))
    assert error[True] < 0.1 < error[False]
    with pytest.raises(CannotAdaptError, match="needs those of the target"):
        Warp(XScale(), follow=True).fit(bank).adapt(replace(context, params=None))


def test_pinned_anchor_and_factors_stay() -> None:
    bank = frequencies()
    context = context_of(bank, lambda q: np.sin(2.6 * q), np.linspace(0, 4, 9)[:, None])
    adapted = Warp(Scale(1.0) * XScale(), anchor=bank.keys[4]).fit(bank).adapt(context)
    assert {d.anchor for d in adapted.decompositions} == {bank.keys[4]}
    assert all(d.transformation.get("scale") == (1.0,) for d in adapted.decompositions)
    done = XScale(2.6 / bank.params[4, 0])
    fixed = Warp(done, anchor=bank.keys[4]).fit(bank).adapt(context)
    assert fixed.predict(context.x)[0] == pytest.approx(context.y, abs=1e-9)
    assert fixed.decompositions[0].transformation == done and fixed.decompositions[0].intervals == {}


def test_banks_that_cannot_be_used() -> None:
    bank = bumps()
    with pytest.raises(CannotAdaptError, match="no known parameters"):
        Warp(Shift(), follow=True).fit(bank)
    with pytest.raises(CannotAdaptError, match="no task 'alien' in the bank"):
        Warp(Shift(), anchor="alien").fit(bank)
    apart = TaskBank.from_arrays([([i, i + 0.5, i + 0.9], [0, 1, 2]) for i in range(40)])
    with pytest.raises(CannotAdaptError, match="no two tasks of the bank overlap"):
        Warp(Shift()).fit(apart.scaled(apart.scaling))


def test_measured_anchors_cover_their_own_range_and_no_more_where_nothing_tells_how_they_go_on() -> None:
    x, rng = np.linspace(0, 3, 25), np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=25)) for _ in range(8)]  # no stretch of one tells how another goes on
    bank = TaskBank.from_arrays([(x, w) for w in walks])
    bank = bank.scaled(bank.scaling)
    context = context_of(bank, lambda q: np.interp(q, x, walks[7]), np.linspace(0, 3, 9)[:, None])
    adapted = Warp(XShift(-0.5), anchor=bank.keys[7]).fit(bank).adapt(context)  # the anchor at x - 0.5
    covered = adapted.covered(np.linspace(-1, 1, 31)[:, None])
    assert bank.units is not None
    at = bank.units.x_out(np.linspace(-1, 1, 31)) - 0.5
    assert covered.tolist() == ((at >= -1e-6) & (at <= 3 + 1e-6)).tolist()
    callable_ = Warp(XShift(-0.5)).fit(frequencies())
    assert callable_.adapt(context_of(callable_.bank, np.sin, X[:5])).covered(np.array([[-9.0], [9.0]])).all()


def test_only_some_anchors_of_a_large_bank_are_tried() -> None:
    bank = frequencies(tasks=90)
    fitted = Warp(XScale(), anchors=10).fit(bank)
    context = context_of(bank, lambda q: np.sin(1.97 * q), X[::4])
    tried = fitted._anchors(context)
    assert len(tried) <= 10 and {0, 89} <= set(tried) and len(np.unique(tried)) == len(tried)
    assert np.abs(bank.params[tried, 0] - 1.97).min() < 0.01
