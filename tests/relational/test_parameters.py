"""Known parameters that say nothing, lie far out, or come in odd forms."""

from __future__ import annotations

import numpy as np
import pytest

from operant.core.checks import InputError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator
from operant.relational.operators.base import CannotAdaptError, Context
from operant.relational.operators.gp import TaskGP
from operant.relational.operators.registry import candidates
from operant.relational.operators.warp.operator import Warp
from operant.relational.selection.folds import toward
from operant.relational.transforms import Transformation

X = np.linspace(0, 3, 11)
W = np.linspace(1, 2, 9)
FOLLOWING = "shift * scale * xshift * xscale by parameters"
OPERATORS = ["span", "shift * scale", "shift * scale by parameters", FOLLOWING]
CONTEXT = (X[::3], np.sin(2.2 * X[::3]))
NOTE = "flow never varies in the bank (it is 200); it was not used"


def curve(w: float) -> Array:
    return np.sin(w * X)


def bank_of(params: Array, names: list[str]) -> TaskBank:
    return TaskBank.from_arrays([(X, curve(w)) for w in W], params=params, param_names=names)


FLAT = bank_of(np.full(9, 200.0), ["flow"])
BOTH = bank_of(np.column_stack([W, np.full(9, 200.0)]), ["w", "flow"])
VARYING = bank_of(W, ["w"])


def test_a_parameter_that_never_varies_is_not_used() -> None:
    """The same prediction as without it, whatever the target's is, and the reader is told."""
    without = Extrapolator(OPERATORS[:2]).fit(TaskBank.from_arrays([(X, curve(w)) for w in W]))
    want = without.adapt(*CONTEXT).predict(X, True)
    model = Extrapolator(OPERATORS).fit(FLAT)
    for value in (200.0, 300.0, -1e9):
        target = model.adapt(*CONTEXT, params=[value])
        assert np.array_equal(target.predict(X, True), want)
        assert target.explain()["notes"] == [NOTE]
    assert "the parameters never vary in the bank" in target.choice_.notes[FOLLOWING]
    assert {op.name for op in candidates(FLAT, params=True)} == {op.name for op in candidates(FLAT, params=False)}
    with pytest.raises(CannotAdaptError, match="never vary in the bank"):
        TaskGP().fit(FLAT)


@pytest.mark.parametrize(
    "operator", [TaskGP(restarts=0, learn=60), Warp(Transformation.parse("shift * xscale"), follow=True)]
)
def test_of_two_parameters_the_constant_one_does_nothing(operator) -> None:
    context = Context(VARYING.tasks[0].x[::3], np.sin(2.2 * VARYING.tasks[0].x[::3]), np.array([2.2]))
    want = operator.fit(VARYING).adapt(context).predict(VARYING.tasks[0].x)
    for flow in (200.0, 900.0):
        other = Context(context.x, context.y, np.array([2.2, flow]))
        found = operator.fit(BOTH).adapt(other).predict(VARYING.tasks[0].x)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
    assert NOTE in BOTH.notes and VARYING.notes == ()


def test_a_constant_parameter_gives_no_direction() -> None:
    x, y = CONTEXT[0][:, None], CONTEXT[1][:, None]
    assert toward(FLAT, Context(x, y, np.array([300.0]))).name == toward(FLAT, Context(x, y)).name
    named = toward(BOTH, Context(x, y, np.array([2.2, 300.0])))
    assert named.name == "parameters [1.0, 0.0]" and named.along is not None
    assert np.array_equal(np.argsort(named.along), np.arange(9))


@pytest.fixture(scope="module")
def following() -> Extrapolator:
    return Extrapolator([*OPERATORS, "GP on parameters"]).fit(VARYING)


@pytest.mark.filterwarnings("ignore::operant.relational.NotApplicableWarning")
@pytest.mark.parametrize("w", [-40.0, 30.0, 1e6, -1e170])
def test_parameters_far_out_leave_the_forms_out_that_follow_them(following: Extrapolator, w: float) -> None:
    target = following.adapt(*CONTEXT, params=[w])
    assert np.isfinite(target.predict(X, True)).all() and np.isfinite(target.interval(X)).all()
    for name in (*OPERATORS[2:], "GP on parameters"):
        assert "times as far from the middle of the bank's values as these do (1 to 2)" in target.choice_.notes[name]
    assert "by parameters" not in target.operator_
    assert target.record()["params"] == {"w": w}


@pytest.mark.filterwarnings("ignore::operant.relational.NotApplicableWarning")
@pytest.mark.parametrize("w", [3.0, 6.0, 11.0])
def test_far_but_not_too_far_is_a_number_with_finite_ends(w: float) -> None:
    target = Extrapolator(FOLLOWING).fit(VARYING).adapt([0.0], [0.0], params=[w])
    assert np.isfinite(target.predict(X, True)).all()
    for d in target.decompositions_:
        assert np.isfinite(list(d.intervals.values())).all() and d.intervals["xscale"][0] > 0


@pytest.mark.parametrize("params", [2, [2], np.array(2), np.float32(2.0), "2", ["2"], {"w": "2"}, {"w": np.int64(2)}])
def test_parameters_of_any_type_are_numbers(params) -> None:
    model = Extrapolator("shift * scale by parameters").fit(VARYING)
    want = model.adapt(*CONTEXT, params=[2.0]).predict(X)
    assert np.array_equal(model.adapt(*CONTEXT, params=params).predict(X), want)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([1.0, 2.0], r"expected finite values of the parameters \['w'\], got \[1.0, 2.0\]"),
        ("hot", r"expected finite values of the parameters \['w'\], got 'hot'"),
        ({"w": None}, r"expected finite values of the parameters \['w'\], got \{'w': None\}"),
        ([np.nan], "expected finite values"),
        ({"v": 1.0}, r"expected the parameters \['w'\], got \['v'\]"),
    ],
)
def test_parameters_that_are_no_numbers_are_refused(params, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Extrapolator("span").fit(VARYING).adapt(*CONTEXT, params=params)
