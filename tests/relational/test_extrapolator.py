"""The estimator: scikit-learn's checks, invariances, calibration, applicability, files and bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from operant.core.checks import DataError, InputError, OperantError, ParseError
from operant.relational import NotApplicableError, NotApplicableWarning
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator
from operant.relational.operators.base import RelationalOperator, by_unique_name
from operant.relational.operators.baselines import Interpolation, Nearest, Polynomial
from operant.relational.operators.registry import operator_names, parse_operator
from operant.relational.operators.span import Span
from operant.relational.operators.warp.operator import Warp
from operant.relational.transforms import Scale, Shift, Transformation, XShift

REPEATED = pytest.mark.filterwarnings("ignore::operant.relational.RelationalWarning")


@parametrize_with_checks([Extrapolator("polynomial")])
@REPEATED
def test_scikit_learn(estimator, check) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([Extrapolator()])
@REPEATED
def test_scikit_learn_with_all_operators(estimator, check) -> None:
    check(estimator)


X = np.linspace(0, 3, 13)
SIMPLE = ["span", "shift * scale", "interpolation"]


def curve(w: float, x: Array) -> Array:
    return 2 + w * np.sin(1.3 * x) + 0.3 * w**2 * x


def bank_of(
    tasks: int = 20, *, noise: float = 0.0, params: bool = True, dense: bool = False, seed: int = 0
) -> TaskBank:
    rng, w = np.random.default_rng(seed), np.linspace(1, 2, tasks)
    x = np.linspace(0, 3, 41) if dense else X
    return TaskBank.from_arrays(
        {f"task {i}": (x, curve(v, x) + noise * rng.normal(size=len(x))) for i, v in enumerate(w)},
        params=w if params else None,
        param_names=["w"] if params else None,
    )


CONTEXT = (X[::3], curve(2.4, X[::3]))
QUERY = np.linspace(0, 3, 31)


@pytest.fixture(scope="module")
def model() -> Extrapolator:
    return Extrapolator(SIMPLE).fit(bank_of())


def test_a_target_beyond_the_bank(model: Extrapolator) -> None:
    target = model.adapt(*CONTEXT, key="new")
    y, std = target.predict(QUERY, return_std=True)
    assert y.shape == std.shape == (31,) and (std > 0).all()
    assert y == pytest.approx(curve(2.4, QUERY), abs=0.01)
    assert target.applicable_ and target.operator_ == "span"
    assert model.predict(QUERY, context=CONTEXT) == pytest.approx(y)
    assert repr(target) == "AdaptedTask('new', 5 context points, span, applicable)"


def test_long_data_with_groups_is_the_bank(model: Extrapolator) -> None:
    bank = bank_of()
    x, y = np.concatenate([t.x for t in bank.tasks]), np.concatenate([t.y for t in bank.tasks])
    groups, w = np.repeat(bank.keys, 13), np.repeat(bank.params[:, 0], 13)
    again = Extrapolator(SIMPLE).fit(x, y[:, 0], groups=groups, params=w)
    assert again.bank_ is not None and again.bank_.keys == bank.keys
    a, b = (m.adapt(*CONTEXT, params=[2.4]).predict(QUERY, return_std=True) for m in (model, again))
    assert np.array_equal(a, b)


@pytest.mark.parametrize(("a", "b", "c", "d"), [(1e3, -5.0, 1e-4, 7.0), (0.01, 300.0, 50.0, 1e3)])
def test_units_do_not_matter(model: Extrapolator, a: float, b: float, c: float, d: float) -> None:
    """x' = a x + b, y' = c y + d."""
    tasks = {t.key: (a * t.x + b, c * t.y + d) for t in bank_of().tasks}
    other = Extrapolator(SIMPLE).fit(TaskBank.from_arrays(tasks, params=bank_of().params, param_names=["w"]))
    rough = (CONTEXT[0], CONTEXT[1] + 0.1 * np.cos(9 * CONTEXT[0]))
    mean, std = model.adapt(*rough).predict(QUERY, return_std=True)
    moved, spread = other.adapt(a * rough[0] + b, c * rough[1] + d).predict(a * QUERY + b, return_std=True)
    assert (moved - d) / c == pytest.approx(mean, rel=1e-5)
    assert spread / abs(c) == pytest.approx(std, rel=1e-4)


def test_the_order_of_tasks_and_of_points_does_not_matter() -> None:
    bank, rng = bank_of(params=False), np.random.default_rng(1)
    mixed = bank.select(rng.permutation(len(bank)))
    shuffled = rng.permutation(5)
    rough = CONTEXT[1] + 0.1 * np.cos(9 * CONTEXT[0])  # taken for noise, so the backtest draws some
    one = Extrapolator(SIMPLE).fit(bank)
    a = one.adapt(CONTEXT[0], rough).predict(QUERY, return_std=True)
    b = Extrapolator(SIMPLE).fit(bank).adapt(CONTEXT[0][shuffled], rough[shuffled]).predict(QUERY, return_std=True)
    assert np.array_equal(a, b)
    exact = [Extrapolator(SIMPLE).fit(k).adapt(*CONTEXT).predict(QUERY) for k in (bank, mixed)]
    assert exact[0] == pytest.approx(exact[1], rel=1e-6)


def test_the_same_seed_gives_the_same_and_clones_are_alike(model: Extrapolator) -> None:
    target, again = model.adapt(*CONTEXT), clone(model).fit(bank_of()).adapt(*CONTEXT)
    assert np.array_equal(target.predict(QUERY, True), again.predict(QUERY, True))
    assert np.array_equal(target.sample(QUERY, 3), again.sample(QUERY, 3))
    state = Extrapolator("span", random_state=np.random.RandomState(0)).fit(bank_of())
    assert state.adapt(*CONTEXT).predict(QUERY) == pytest.approx(curve(2.4, QUERY), abs=0.01)


def test_many_targets_are_one_after_the_other(model: Extrapolator) -> None:
    contexts = {f"t{w}": (X[::3], curve(w, X[::3])) for w in (2.2, 2.6, 0.7)}
    together = model.adapt_many(contexts, params=[[2.2], [2.6], [0.7]])
    fresh = Extrapolator(SIMPLE).fit(bank_of())
    for (key, (x, y)), target, w in zip(contexts.items(), together, (2.2, 2.6, 0.7), strict=True):
        alone = fresh.adapt(x, y, params=w, key=key)
        assert target.key == key
        assert np.array_equal(alone.predict(QUERY, True), target.predict(QUERY, True))
    assert len(model.adapt_many([CONTEXT, CONTEXT])) == 2


def test_a_prediction_does_not_depend_on_which_target_came_first() -> None:
    """Dense tasks, other points of the same range: both targets share a backtest."""
    rng, x = np.random.default_rng(5), np.linspace(0, 1, 61)
    bank = TaskBank.from_arrays([(x, np.sin(w * x) + 0.02 * rng.standard_normal(61)) for w in np.linspace(1, 3, 30)])
    first, second = (np.concatenate([[0.0, 1.0], rng.uniform(0.1, 0.9, 5)]) for _ in range(2))
    values = [np.sin(3.5 * p) + 0.02 * rng.standard_normal(7) for p in (first, second)]
    alone, later = (Extrapolator(["span", "shift * scale", "interpolation"]).fit(bank) for _ in range(2))
    later.adapt(first, values[0])
    a, b = (m.adapt(second, values[1]).predict(QUERY, True) for m in (alone, later))
    assert np.array_equal(a, b)


def test_what_was_saved_predicts_the_same(tmp_path: Path) -> None:
    operators = ["span", Shift() * Scale(1.23456789), Nearest()]
    made = [o if isinstance(o, (str, Nearest)) else Warp(o) for o in operators]
    model = Extrapolator(made, level=0.8, random_state=3).fit(bank_of(noise=0.05))
    folder = model.save(tmp_path / "model")
    again = Extrapolator.load(folder)
    assert again.get_params()["operator"] == ["span", "shift * scale(1.23456789)", "nearest task"]
    assert again.level == 0.8 and again.random_state == 3
    path = folder / "extrapolator.json"  # as the first format had it
    path.write_text(path.read_text().replace('"format": 2', '"format": 1').replace('"outer_share"', '"outer_share"'))
    assert Extrapolator.load(folder).get_params() == again.get_params()
    a, b = (m.adapt(*CONTEXT, params={"w": 2.4}) for m in (model, again))
    assert b.predict(QUERY, True)[0] == pytest.approx(a.predict(QUERY, True)[0], rel=1e-6)
    assert b.interval(QUERY)[1] == pytest.approx(a.interval(QUERY)[1], rel=1e-4)
    with pytest.raises(InputError, match="has settings that its name 'span' does not tell"):
        Extrapolator(Span(components=3)).fit(bank_of()).save(tmp_path)
    with pytest.raises(DataError, match=r"expected extrapolator\.json"):
        Extrapolator.load(tmp_path / "nowhere")
    (folder / "extrapolator.json").write_text('{"format": 0}')
    with pytest.raises(DataError, match="is of another format than 2"):
        Extrapolator.load(folder)


def test_every_named_operator_has_that_name() -> None:
    for name in operator_names():
        assert parse_operator(name).name == name
    assert {"compose", "psi", "bilinear"} <= set(operator_names())
    plane = np.random.default_rng(0).uniform(size=(9, 2))
    with pytest.raises(DataError, match="compose: expected one input, one output and a depth of at least 2, got 2, 1"):
        Extrapolator("compose").fit(TaskBank.from_arrays([(plane, plane[:, 0])] * 3))
    for text in ("shift", "shift * scale(2) * xshift", "scale by parameters"):
        assert parse_operator(text).name == text
    assert parse_operator("xwarp * shift by parameters") == Warp(
        Transformation.parse("shift * xshift * xscale"), follow=True
    )


@pytest.mark.filterwarnings("ignore::operant.relational.NotApplicableWarning")
def test_intervals_hold_on_held_out_tasks() -> None:
    """Outer targets with noisy contexts; the truth is the curve without noise. At 5 %, some members are flagged."""
    rng, inside, flagged = np.random.default_rng(5), [], 0
    model = Extrapolator(["span", "shift * scale", "bank PCA"]).fit(bank_of(42, dense=True, noise=0.02, params=False))
    for w in np.linspace(2.05, 2.6, 16):
        target = model.adapt(X[::2], curve(w, X[::2]) + 0.05 * rng.normal(size=7))
        low, high = target.interval(QUERY)
        flagged += not target.applicable_
        inside.append(np.mean((low <= curve(w, QUERY)) & (curve(w, QUERY) <= high)))
    assert 0.8 <= np.mean(inside) <= 1.0 and flagged <= 3
    wide, narrow = (np.subtract(*target.interval(QUERY, level)[::-1]) for level in (0.95, 0.5))
    assert (wide > narrow).all()


def shifted(tasks: int = 12) -> TaskBank:
    x = np.linspace(-3, 3, 25)
    return TaskBank.from_arrays([(x, np.tanh(x - v)) for v in np.linspace(-1, 1, tasks)])


ALIEN = np.random.default_rng(0).uniform(-3, 3, 10)
PLAIN_TOO = ["shift * xshift", "span", "interpolation", "polynomial"]


def test_an_alien_is_flagged() -> None:
    bank = shifted()
    model = Extrapolator(PLAIN_TOO).fit(bank)
    member = model.adapt(ALIEN, np.tanh(ALIEN - 1.4))
    evidence = member.applicability()
    assert member.applicable_ and evidence.p_value > 0.05 and evidence.reason == ""
    query = np.linspace(-3, 3, 40)
    assert member.predict(query) == pytest.approx(np.tanh(query - 1.4), abs=0.01)
    with pytest.warns(NotApplicableWarning, match="times worse, relative to their spread"):
        alien = model.adapt(ALIEN, np.sin(9 * ALIEN))
    evidence = alien.applicability()
    assert not alien.applicable_ and evidence.reason == "residual" and evidence.p_value < 0.05
    assert evidence.score > member.applicability().score + 1
    assert repr(alien).endswith("not applicable (residual))")

    with pytest.raises(NotApplicableError, match="Set on_inapplicable='warn' or 'baseline'"):
        model.set_params(on_inapplicable="raise").adapt(ALIEN, np.sin(9 * ALIEN))
    plain = model.set_params(on_inapplicable="baseline").adapt(ALIEN, np.sin(9 * ALIEN))
    assert not plain.applicable_ and set(plain.choice_.weights) <= {"interpolation", "polynomial"}


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_auto_flags_an_alien(noise: float) -> None:
    y = np.sin(9 * ALIEN) + noise * np.random.default_rng(1).normal(size=10)
    with pytest.warns(NotApplicableWarning):
        Extrapolator().fit(shifted()).adapt(ALIEN, y)


def test_one_point_cannot_speak_against_the_bank(model: Extrapolator) -> None:
    target = model.adapt([1.0], [curve(2.2, np.array([1.0]))[0]])
    assert target.applicable_ and target.applicability().reason == "too few points"
    assert np.isfinite(target.predict(QUERY, True)).all()


def test_anchor_and_transformation_by_hand(model: Extrapolator) -> None:
    bank = bank_of()
    target = model.adapt(*CONTEXT, anchor="task 11", transform="shift(0.5) * scale")
    best = target.decompositions_[0]
    assert best.anchor == "task 11" and best.transformation.get("shift") == (0.5,)
    same = model.adapt(*CONTEXT, anchor="task 11", transform=Shift(0.5) * Scale())
    assert np.array_equal(same.predict(QUERY), target.predict(QUERY))
    fixed = model.adapt(*CONTEXT, anchor="task 3", transform=Shift(1.0) * Scale(2.0))
    assert fixed.predict(X) == pytest.approx(2 * bank.tasks[3].y[:, 0] + 1)
    assert {d.anchor for d in model.adapt(*CONTEXT, anchor="task 4").decompositions_} == {"task 4"}
    with pytest.raises(OperantError, match="no task 'task 99' in the bank"):
        model.adapt(*CONTEXT, anchor="task 99")


def test_a_query_where_no_anchor_is_known_is_flagged() -> None:
    model = Extrapolator(["nearest task"]).fit(bank_of())
    with pytest.warns(NotApplicableWarning, match="of the query lies where the anchors are known"):
        target = model.adapt(X[::3], curve(1.95, X[::3]), query=np.linspace(2, 30, 20))
    assert target.applicability().reason == "anchor coverage"


def test_a_small_bank_has_no_outer_split() -> None:
    target = Extrapolator(["span", "shift * scale"]).fit(bank_of(3)).adapt(*CONTEXT)
    assert target.choice_.backtest is None and "at least two known" in target.choice_.notes["backtest"]
    assert np.isfinite(target.predict(QUERY, True)).all()
    assert np.isnan(target.applicability().p_value) and target.applicable_


def test_several_inputs_and_outputs() -> None:
    axes = np.meshgrid(np.linspace(0, 2, 5), np.linspace(0, 1, 5))
    x = np.stack([a.ravel() for a in axes], axis=1)

    def surface(w: float) -> Array:
        return np.column_stack([w * x[:, 0] + np.sin(x[:, 1]), w**2 * x[:, 1] - x[:, 0]])

    bank = TaskBank.from_arrays([(x, surface(w)) for w in np.linspace(1, 2, 16)])
    target = Extrapolator(["span", "shift * scale"]).fit(bank).adapt(x[::4], surface(2.5)[::4])
    y, std = target.predict(x, return_std=True)
    assert y.shape == std.shape == (25, 2) and y == pytest.approx(surface(2.5), abs=0.02)
    assert target.sample(x, 4).shape == (4, 25, 2) and target.interval(x)[0].shape == (25, 2)
    with pytest.raises(InputError, match="expected 2 inputs and 2 outputs as in the bank, got 2 and 1"):
        Extrapolator("span").fit(bank).adapt(x, x[:, 0])


@pytest.fixture(scope="module")
def auto() -> Extrapolator:
    return Extrapolator().fit(bank_of(8))


def test_auto_differs_from_its_baselines_and_is_better(auto: Extrapolator) -> None:
    target = auto.adapt(*CONTEXT)
    y, truth = target.predict(QUERY), curve(2.4, QUERY)
    error = np.sqrt(np.mean((y - truth) ** 2))
    for baseline in (Nearest(), Interpolation(), Polynomial()):
        other = Extrapolator(baseline).fit(bank_of(8)).adapt(*CONTEXT).predict(QUERY)
        assert error < 0.5 * np.sqrt(np.mean((other - truth) ** 2)) and not np.allclose(other, y)
    assert sum(target.choice_.weights.values()) == pytest.approx(1)
    tried = {row["operator"] for row in target.choice_table()}
    assert {"span", "bank PCA", "interpolation", "shift * scale * xshift * xscale"} <= tried
    assert target.choice_.backtest is not None
    # of the target's values nothing went into the backtest but their spread as noise
    other = auto.adapt(CONTEXT[0], curve(2.41, CONTEXT[0])).choice_.backtest
    assert other is target.choice_.backtest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0.0, np.nan], "y": [1.0, 2.0]}, "x of the context must be finite, got nan in row 1"),
        ({"x": [0.0, 1.0], "y": [1.0, np.inf]}, "y of the context must be finite, got inf"),
        ({"x": [], "y": []}, r"the target has no context: give at least one point \(x, y\)"),
        ({"x": [0.0, 1.0], "y": [1.0]}, "expected as many points as values, got 2 and 1"),
        ({"x": [[0.0, 1.0]], "y": [1.0]}, "expected 1 inputs and 1 outputs as in the bank, got 2 and 1"),
        ({"x": [0.0, 3000.0], "y": [1.0, 2.0]}, "times as far from the middle .* Are they in the bank's units"),
        ({"params": {"v": 1.0}}, r"expected the parameters \['w'\], got \['v'\]"),
        ({"params": [1.0, 2.0]}, r"expected finite values of the parameters \['w'\], got \[1.0, 2.0\]"),
        ({"params": np.nan}, "expected finite values of the parameters"),
        ({"noise": -1.0}, "noise must be finite and not negative, got -1.0"),
        ({"query": [[0.0, 1.0]]}, r"query must be finite points \(Q, 1\)"),
    ],
)
def test_bad_targets(model: Extrapolator, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.adapt(**({"x": CONTEXT[0], "y": CONTEXT[1]} | change))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
        ({"outer_share": 0.0}, "outer_share must lie between 0 and 1, got 0.0"),
        ({"on_inapplicable": "ignore"}, "on_inapplicable must be warn, raise or baseline, got 'ignore'"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Extrapolator(**settings).fit(bank_of())


def test_other_bad_input(model: Extrapolator) -> None:
    with pytest.raises(
        ParseError, match=r"expected 'auto', one of .*span.*, or a transformation such as .* got 'twist'"
    ):
        Extrapolator("twist").fit(bank_of())
    with pytest.raises(DataError, match="no operator can be fitted to this bank: .*no known parameters"):
        Extrapolator("shift by parameters").fit(bank_of(params=False))
    with pytest.raises(NotFittedError):
        Extrapolator().adapt(*CONTEXT)
    with pytest.raises(InputError, match=r"fitted to a bank: give predict\(X, context=\(x, y\)\)"):
        model.predict(QUERY)
    single = Extrapolator().fit(X[:, None], curve(1.0, X))
    with pytest.raises(InputError, match="fitted to a single task, there is no bank to adapt"):
        single.adapt(*CONTEXT)
    with pytest.raises(InputError, match="there is no bank to save"):
        single.save("nowhere")


def test_repeated_points_are_averaged(model: Extrapolator) -> None:
    x, y = np.append(CONTEXT[0], CONTEXT[0][0]), np.append(CONTEXT[1] + 0.0, CONTEXT[1][0] + 0.2)
    with pytest.warns(UserWarning, match="the context: 1 repeated points were averaged"):
        twice = model.adapt(x, y)
    y[0] = y[-1] = CONTEXT[1][0] + 0.1
    assert twice.predict(QUERY) == pytest.approx(model.adapt(x[:-1], y[:-1]).predict(QUERY))


def test_known_noise_widens_the_interval(model: Extrapolator) -> None:
    targets = [model.adapt(*CONTEXT, noise=s) for s in (0.02, 0.4)]
    widths = [float(np.mean(np.subtract(*t.interval(QUERY)[::-1]))) for t in targets]
    assert widths[1] > 3 * widths[0]


def test_a_single_task_is_continued_by_plain_operators() -> None:
    model = Extrapolator().fit(X[:, None], 3 * X - 1)
    assert model.predict(np.array([[4.0], [5.0]])) == pytest.approx([11.0, 14.0], abs=0.05)
    assert model.score(X[:, None], 3 * X - 1) > 0.999
    assert set(model.target_.choice_.loo_rmse) == {"interpolation", "polynomial", "GP on the context"}


def test_shifts_of_x_are_found_by_name() -> None:
    target = Extrapolator(Warp(XShift())).fit(shifted()).adapt(ALIEN, np.tanh(ALIEN - 1.3))
    best = target.decompositions_[0]
    anchor = np.linspace(-1, 1, 12)[best.anchor]
    assert best.transformation.get("xshift")[0] == pytest.approx(anchor - 1.3, abs=1e-3)
    assert replace(best).operator == "xshift"


def test_operators_of_one_name_are_kept_by_their_values() -> None:
    """A straight line, a cubic and the one that chooses its degree are three operators, each with its own answer."""
    three: list[str | RelationalOperator] = [Polynomial(1), Polynomial(3), "polynomial", Polynomial(3), "span"]
    target = Extrapolator(three).fit(bank_of()).adapt(*CONTEXT)
    names = ["polynomial [degree=1]", "polynomial [degree=3]", "polynomial", "span"]
    assert list(target.each(QUERY)) == names
    assert {row["operator"]: row["plain"] for row in target.choice_table()} == {n: n != "span" for n in names}
    for name, operator in zip(names, (Polynomial(1), Polynomial(3), Polynomial(), Span()), strict=True):
        alone = Extrapolator(operator).fit(bank_of()).adapt(*CONTEXT)
        assert np.array_equal(alone.each(QUERY)[operator.name], target.each(QUERY)[name])
    assert target.choice_.backtest is not None
    assert target.choice_.backtest.alone == set(names[:3])
    assert list(by_unique_name([Nearest(), Nearest()])) == ["nearest task"]
    single = Extrapolator([Polynomial(1), Polynomial(2)]).fit(X[:, None], curve(2.4, X)).target_
    assert set(single.each(QUERY)) == {"polynomial [degree=1]", "polynomial [degree=2]"}


def test_two_pinned_anchors_do_not_share_a_backtest(model: Extrapolator) -> None:
    one, two = (model.adapt(*CONTEXT, anchor=f"task {i}").choice_.backtest for i in (3, 12))
    assert one is not two


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda text: "", "expected the settings of an estimator"),
        (lambda text: "[" * 100_000, "expected the settings of an estimator"),
        (lambda text: text.replace('"format": 2', '"format": 9'), "of another format"),
        (lambda text: text.replace('"level": 0.9', '"level": "high"'), "level cannot be read"),
        (lambda text: text.replace('"outer_share"', '"shells"'), "outer_share, shells cannot be read"),
        (lambda text: text.replace('"shift"', "[3]"), "operator cannot be read"),
    ],
)
def test_damaged_settings_of_a_saved_estimator_are_refused(tmp_path, change, said):
    x = np.linspace(0, 1, 9)
    bank = TaskBank.from_arrays([(x, x), (x, x**2), (x, x**3)])
    folder = Extrapolator(operator="shift", random_state=0).fit(bank).save(tmp_path)
    path = folder / "extrapolator.json"
    whole = path.read_text()
    path.write_text(change(whole))
    assert path.read_text() != whole
    with pytest.raises(DataError, match=said):
        Extrapolator.load(folder)
