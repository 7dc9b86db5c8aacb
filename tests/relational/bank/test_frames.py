"""What fit, adapt and from_frame take: lengths, names, dates, sizes; each works or is refused with the reason."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from operant.core.checks import DataError, InputError, OperantError
from operant.relational.bank.csvtable import RelationalWarning
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator

X = np.linspace(0, 3, 13)
W = np.linspace(1, 2, 10)
SIMPLE = ["span", "shift * scale", "interpolation"]


def curve(w: float, x: Array = X) -> Array:
    return 2 + w * np.sin(1.3 * x) + 0.3 * w**2 * x


POINTS, VALUES = np.tile(X, 10), np.concatenate([curve(w) for w in W])
GROUPS, LOADS = np.repeat([f"p{i}" for i in range(10)], 13), np.repeat(W, 13)
CONTEXT = (X[::3], curve(2.4, X[::3]))
BANK = TaskBank.from_arrays({f"p{i}": (X, curve(w)) for i, w in enumerate(W)}, params=W)


@pytest.fixture(scope="module")
def want() -> Array:
    return np.array(Extrapolator(SIMPLE).fit(BANK).adapt(*CONTEXT, params=[2.4]).predict(X, True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": POINTS[:-1]}, "X has 129, y has 130, groups has 130"),
        ({"y": VALUES[:-3]}, "X has 130, y has 127, groups has 130"),
        ({"y": np.repeat(VALUES, 2)}, "X has 130, y has 260, groups has 130"),  # interleaved outputs
        ({"groups": GROUPS[:40]}, "X has 130, y has 130, groups has 40"),
        ({"params": LOADS[:10]}, "X has 130, y has 130, groups has 130, params has 10"),
        ({"params": np.arange(130.0)}, r"params must be constant within a task, task 'p0' has \[\[0.0\], \[1.0\]"),
        ({"y": None}, "expected y, the values at the points X"),
        ({"groups": GROUPS[:, None]}, r"groups must be one-dimensional, .* got shape \(130, 1\)"),
        ({"groups": np.where(np.arange(130) == 7, np.nan, 1.0)}, "row 7, groups: expected the name of a task, got nan"),
        (
            {"X": POINTS.astype(str), "y": np.where(np.arange(130) == 5, "x", "1")},
            "row 5, y: expected a number, got 'x'",
        ),
        ({"X": np.zeros((130, 2, 2))}, r"X must be one- or two-dimensional, got shape \(130, 2, 2\)"),
    ],
)
def test_unequal_lengths_are_refused_by_name(change, message: str) -> None:
    given = {"X": POINTS, "y": VALUES, "groups": GROUPS, "params": LOADS} | change
    with pytest.raises((InputError, DataError), match=message):
        Extrapolator("span").fit(given["X"], given["y"], groups=given["groups"], params=given["params"])


def test_unequal_columns_are_refused_by_name() -> None:
    frame = {"task": GROUPS, "x": POINTS, "y": VALUES[:-1]}
    with pytest.raises(InputError, match="column 'task' has 130, column 'x' has 130, column 'y' has 129"):
        TaskBank.from_frame(frame, task="task", x="x", y="y")
    with pytest.raises(InputError, match="'x' is named twice"):
        TaskBank.from_frame(frame, task="task", x=["x", "x"], y="y")
    twice = pd.DataFrame({"task": GROUPS, "x": POINTS, "y": VALUES, "z": VALUES}).set_axis(
        ["task", "x", "y", "y"], axis=1
    )
    with pytest.raises(DataError, match="the column 'y' comes 2 times"):
        TaskBank.from_frame(twice, task="task", x="x", y="y")


@pytest.mark.parametrize("kind", ["arrays", "lists", "frame", "series", "mapping", "float32", "text", "shuffled"])
def test_every_container_gives_the_same_numbers(kind: str, want: Array) -> None:
    x, y, groups, params = POINTS, VALUES, GROUPS, LOADS
    tolerance = 1e-9
    if kind == "lists":
        x, y, groups, params = x.tolist(), y.tolist(), groups.tolist(), params.tolist()
    elif kind == "frame":
        table = pd.DataFrame({"t": x, "y": y, "p": params, "g": groups}, index=range(500, 630))
        x, y, groups, params = table[["t"]], table[["y"]], table["g"], table[["p"]]
    elif kind == "series":
        x, y, groups, params = (pd.Series(v, name="v") for v in (x, y, groups, params))
    elif kind == "mapping":
        x, y, params = {"t": x.tolist()}, {"y": y.tolist()}, {"p": params}
    elif kind == "float32":
        x, y, params, tolerance = x.astype(np.float32), y.astype(np.float32), params.astype(np.float32), 1e-2
    elif kind == "text":
        x, y, params = x.astype(str), y.astype(object), params.astype(str)
    elif kind == "shuffled":
        tolerance = 1e-4
        order = np.lexsort([np.random.default_rng(0).permutation(130), GROUPS])
        x, y, groups, params = x[order], y[order], groups[order], params[order]
    model = Extrapolator(SIMPLE).fit(x, y, groups=groups, params=params)
    found = np.array(model.adapt(*CONTEXT, params=[2.4]).predict(X, True))
    assert found == pytest.approx(want, rel=tolerance, abs=tolerance)


def test_frames_keep_their_names_up_to_the_record() -> None:
    frame = pd.DataFrame({"angle": POINTS, "depth": np.cos(POINTS)})
    values = pd.DataFrame({"level": VALUES, "phase": VALUES**2})
    model = Extrapolator("shift * scale").fit(frame, values, groups=GROUPS, params=pd.Series(LOADS, name="load"))
    assert model.bank_ is not None
    assert repr(model.bank_).endswith("level, phase of angle, depth, by load)")
    turned = pd.DataFrame({"depth": np.cos(X[::3]), "angle": X[::3]})
    outputs = pd.DataFrame({"phase": curve(2.4, X[::3]) ** 2, "level": curve(2.4, X[::3])})
    target = model.adapt(turned, outputs, params={"load": 2.4})
    plain = model.adapt(turned[["angle", "depth"]].to_numpy(), outputs[["level", "phase"]].to_numpy(), params=[2.4])
    assert np.array_equal(target.predict(turned), plain.predict(turned[["angle", "depth"]].to_numpy()))
    record = target.record(turned)
    assert (record["x_names"], record["y_names"], record["params"]) == (
        ["angle", "depth"],
        ["level", "phase"],
        {"load": 2.4},
    )
    with pytest.raises(
        InputError, match=r"x of the context: expected the columns \['angle', 'depth'\], got \['angle'\]"
    ):
        model.adapt(turned[["angle"]], outputs)
    with pytest.raises(InputError, match=r"query: expected the columns"):
        model.adapt(turned, outputs, query=turned.rename(columns={"depth": "height"}))


DAY = datetime.datetime(2024, 3, 1)
STAMPS = [DAY + datetime.timedelta(days=float(x)) for x in X]


@pytest.mark.parametrize("kind", ["pandas", "datetime64", "objects", "text", "zoned"])
def test_dates_count_in_days_and_the_origin_is_told(kind: str) -> None:
    stamps = {
        "pandas": pd.Series(STAMPS),
        "datetime64": np.array(STAMPS, dtype="datetime64[ms]"),
        "objects": np.array(STAMPS, dtype=object),
        "text": np.array([s.isoformat() for s in STAMPS]),
        "zoned": pd.Series(STAMPS).dt.tz_localize("Europe/Berlin").dt.tz_convert("UTC") + pd.Timedelta(hours=1),
    }[kind]
    frame = {"task": GROUPS, "when": np.tile(np.asarray(stamps), 10), "y": VALUES}
    with pytest.warns(RelationalWarning, match="'when' holds dates, which were taken as days since 1970-01-01"):
        bank = TaskBank.from_frame(frame, task="task", x="when", y="y")
    assert bank.tasks[0].x[:, 0] == pytest.approx(19783 + X, abs=1e-6)
    model = Extrapolator("span").fit(bank)
    with pytest.warns(RelationalWarning, match="holds dates"):
        target = model.adapt(stamps[::3], curve(2.4, X[::3]), query=stamps)
    assert target.predict(19783 + X) == pytest.approx(curve(2.4), abs=0.05)


def test_spans_of_time_are_days_without_a_warning() -> None:
    spans = np.array([datetime.timedelta(days=float(x)) for x in X])
    bank = TaskBank.from_arrays({"a": (spans, VALUES[:13]), "b": (spans.astype("timedelta64[us]"), VALUES[13:26])})
    assert bank.tasks[0].x[:, 0] == pytest.approx(X, abs=1e-6) and bank.shared


@pytest.mark.parametrize("size", [1e-170, 1e-30, 1e170, 1e290])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_very_small_and_very_large_values_are_scaled_first(size: float, axis: str, want: Array) -> None:
    a, b = (size, 1.0) if axis == "x" else (1.0, size)
    bank = TaskBank.from_arrays({f"p{i}": (a * X, b * curve(w)) for i, w in enumerate(W)}, params=W)
    target = Extrapolator(SIMPLE).fit(bank).adapt(a * CONTEXT[0], b * CONTEXT[1], params=[2.4])
    assert np.array(target.predict(a * X, True)) / b == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert np.isfinite(target.interval(a * X)).all() and target.record()["key"] == "target"


def test_numbers_without_a_sum_are_refused() -> None:
    with pytest.raises(InputError, match=r"y of task 0 must be smaller than 1e\+300, got 1e\+307 in row 1"):
        TaskBank.from_arrays([([0, 1], [0, 1e307]), ([0, 1], [0, 1])])


def test_data_without_groups_that_repeat_their_points_ask_for_them() -> None:
    with pytest.warns(
        RelationalWarning, match="117 repeated points were averaged; if its rows belong to several tasks"
    ):
        Extrapolator("polynomial").fit(POINTS[:, None], VALUES)


@pytest.mark.filterwarnings("ignore::operant.relational.RelationalWarning")
@pytest.mark.parametrize("operators", [SIMPLE, "auto"])
def test_odd_but_sound_targets_are_answered(operators) -> None:
    """One point, unsorted and repeated points, the name of a known task, all points equal to a known task's."""
    model = Extrapolator(operators).fit(BANK)
    for x, y in (
        ([1.5], [curve(2.1, np.array([1.5]))[0]]),
        (CONTEXT[0][::-1], CONTEXT[1][::-1]),
        (np.repeat(CONTEXT[0], 2), np.repeat(CONTEXT[1], 2)),
        (X[:2], [3.0, 3.0]),
    ):
        target = model.adapt(x, y, key="p3")
        assert np.isfinite(target.predict(X, True)).all() and np.isfinite(target.interval(X)).all()
    known = model.adapt(X, curve(W[3]), key="p3")
    assert known.predict(X) == pytest.approx(curve(W[3]), abs=1e-3)


@pytest.mark.filterwarnings("ignore::operant.relational.RelationalWarning")
def test_banks_of_flat_or_equal_curves_are_answered_or_refused() -> None:
    flat = TaskBank.from_arrays([(X, np.full(13, 5.0))] * 4)
    assert Extrapolator().fit(flat).adapt(X[:4], np.full(4, 5.0)).predict(X) == pytest.approx(
        np.full(13, 5.0), abs=1e-6
    )
    same = TaskBank.from_arrays([(X, curve(1.0))] * 5)
    assert np.isfinite(Extrapolator().fit(same).adapt(X[:4], curve(1.2, X[:4])).predict(X, True)).all()
    with pytest.raises(DataError, match="at least two tasks, got 1"):
        Extrapolator().fit(X, curve(1.0), groups=np.zeros(13))


@pytest.mark.parametrize("noise", [0.125, [0.125], np.array(0.125), "0.125", np.float32(0.125)])
def test_noise_is_one_number(noise) -> None:
    model = Extrapolator("span").fit(BANK)
    want = model.adapt(*CONTEXT, noise=np.array([0.125])).predict(X, True)
    assert np.array(model.adapt(*CONTEXT, noise=noise).predict(X, True)) == pytest.approx(np.array(want))


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.full(5, 0.1), r"or one for each of 1 outputs, got the shape \(5,\). One for each point is not supported"),
        (np.full((5, 1), 0.1), r"got the shape \(5, 1\). One for each point is not supported"),
        (np.nan, "noise must be finite, got nan"),
        ([-0.1], "noise must be finite and not negative"),
        ("much", "noise: expected a number, got 'much'"),
    ],
)
def test_noise_of_another_shape_is_refused(noise, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Extrapolator("span").fit(BANK).adapt(*CONTEXT, noise=noise)


SMALL = Extrapolator("span").fit(BANK)
MASKED = np.ma.masked_greater(X[:4], 0.4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SMALL.fit([], [], groups=[]), "at least two tasks, got none"),
        (lambda: SMALL.fit(X[:2], [[1], [1, 2]], groups=[0, 0]), "y: expected rows of one length"),
        (lambda: SMALL.fit(X[:2], X[:2], groups=np.array([[1], {}], dtype=object)), "row 0, groups: expected the name"),
        (lambda: SMALL.adapt(MASKED, X[:4]), "x of the context must be finite, got nan in row 2"),
        (lambda: SMALL.adapt(X[:2] + 1j, X[:2]), "row 0, x of the context: expected a number"),
        (lambda: SMALL.adapt(None, None), r"x of the context must be one- or two-dimensional, got shape \(\)"),
        (lambda: SMALL.adapt_many([(X,)]), r"target 0: expected a pair \(x, y\)"),
        (lambda: SMALL.adapt(*CONTEXT, query=[]), "query must be finite points .* at least one"),
        (lambda: SMALL.adapt(*CONTEXT).predict([]), "at least one, got"),
        (lambda: TaskBank.from_arrays([X, X]), r"task 0: expected a pair \(x, y\)"),
        (lambda: TaskBank.from_arrays([(X, X)] * 2, labels=[{}]), "one mapping for each of 2 tasks, got 1"),
        (lambda: TaskBank.from_arrays([(X, X)] * 2, params=[1.0, None]), "row 1, params: expected a number, got None"),
        (lambda: TaskBank.from_arrays([(X, np.ones((13, 2)))] * 2, y_names=["a", "a"]), "2 different names"),
        (lambda: TaskBank.from_frame(None, task="a", x="x", y="y"), "expected a data frame or a mapping"),
        (lambda: TaskBank.from_frame({"a": [1], "y": [1]}, task="a", x=[], y="y"), "at least one column for x"),
        (lambda: Extrapolator(3).fit(BANK), "operator must be a name, .* got 3"),  # pyright: ignore[reportArgumentType]
        (lambda: Extrapolator([]).fit(BANK), "operator must name at least one"),
        (lambda: Extrapolator("span", level="a").fit(BANK), "level must be a number"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_is_no_data_is_refused(call, message: str) -> None:
    with pytest.raises(OperantError, match=message):
        call()
