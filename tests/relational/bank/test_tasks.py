"""Banks: what goes in, what is refused and why, and values against slow interpolation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operant.core.checks import DataError, InputError
from operant.relational.bank.csvtable import RelationalWarning, read_csv
from operant.relational.bank.curves import cover, interpolator
from operant.relational.bank.families import FAMILIES
from operant.relational.bank.reading import clean
from operant.relational.bank.scaling import Scaling
from operant.relational.bank.task import Task
from operant.relational.bank.tasks import TaskBank

X = np.linspace(0, 1, 9)


def ragged(d: int = 1, c: int = 1, seed: int = 0) -> TaskBank:
    """Five tasks of different lengths and ranges."""
    rng = np.random.default_rng(seed)
    tasks = {}
    for i, p in enumerate((8, 12, 9, 15, 10)):
        x = rng.uniform(0, 1 + 0.2 * i, size=(p, d))
        tasks[f"t{i}"] = (x, np.column_stack([np.sin((i + 1) * x.sum(1) + k) for k in range(c)]))
    return TaskBank.from_arrays(tasks, params=[[i, i**2] for i in range(5)], param_names=["a", "b"])


FRAME = {
    "cell": np.array(["u", "u", "v", "v", "v"]),
    "cycle": np.array([0.0, 1, 0, 1, 2]),
    "capacity": np.array([1.0, 0.9, 1.1, 1.0, 0.8]),
    "fade": np.array([0.0, 0.1, 0.0, 0.1, 0.3]),
    "heat": np.array([20.0, 20, 40, 40, 40]),
    "maker": np.array(["A", "A", "B", "B", "B"]),
    "unit": np.array(["Ah"] * 5),
}


def frame(**changes: object) -> dict[str, np.ndarray]:
    return {**FRAME, **{k: np.asarray(v) for k, v in changes.items()}}


def test_a_table_becomes_a_bank() -> None:
    bank = TaskBank.from_frame(
        FRAME, task="cell", x="cycle", y=["capacity", "fade"], params=["heat"], labels=["maker"], unit="unit"
    )
    assert bank.keys == ("u", "v") and bank.y_names == ("capacity", "fade") and bank.param_names == ("heat",)
    assert bank.params.tolist() == [[20], [40]] and bank.tasks[1].labels == {"maker": "B"}
    assert bank.tasks[1].x.tolist() == [[0], [1], [2]] and bank.tasks[0].y.tolist() == [[1, 0], [0.9, 0.1]]
    assert repr(bank) == "TaskBank(2 measured tasks, 5 points, capacity, fade of cycle, by heat)"


def test_a_pandas_frame_is_the_same_as_a_mapping() -> None:
    pandas = pytest.importorskip("pandas")
    a, b = (TaskBank.from_frame(f, task="cell", x="cycle", y="fade") for f in (FRAME, pandas.DataFrame(FRAME)))
    assert a.keys == b.keys and all((s.y == t.y).all() for s, t in zip(a.tasks, b.tasks, strict=True))


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"capacity": [1, np.nan, 1, 1, 1]}, {}, InputError, "row 1, column 'capacity': expected a number, got nan"),
        ({"cycle": [0, 1, np.inf, 1, 2]}, {}, InputError, "row 2, column 'cycle': expected a number, got inf"),
        (
            {"capacity": ["a", "b", "c", "d", "e"]},
            {},
            InputError,
            "row 0, column 'capacity': expected a number",
        ),
        ({"cell": ["u", "v", "v", "v", "v"]}, {}, DataError, "task 'u' has 1 distinct point; .* at least two"),
        ({"cell": ["u"] * 5, "cycle": range(5)}, {}, DataError, "at least two tasks, got 1"),
        (
            {"heat": [20, 21, 40, 40, 40]},
            {"params": ["heat"]},
            DataError,
            "'heat' must be constant within a task, .*'u'",
        ),
        ({"maker": list("ABCCC")}, {"labels": ["maker"]}, DataError, "'maker' must be constant within a task, .*'u'"),
        ({"unit": ["Ah", "mAh", "Ah", "Ah", "Ah"]}, {"unit": "unit"}, DataError, "mixes units: Ah, mAh"),
        ({}, {"x": "time"}, DataError, "no column 'time'; there are: cell, cycle, capacity"),
        ({}, {"params": ["mass"]}, DataError, "no column 'mass'"),
        ({}, {"task": "id"}, DataError, "no column 'id'"),
    ],
)
def test_bad_tables_are_refused_with_the_place_named(changes, options, error, message: str) -> None:
    arguments = {"task": "cell", "x": "cycle", "y": "capacity", **options}
    with pytest.raises(error, match=message):
        TaskBank.from_frame(frame(**changes), **arguments)


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        ([([0, 1], [0, np.nan]), ([0, 1], [0, 1])], InputError, "y of task 0 must be finite, got nan in row 1"),
        ([([0, 1], [0, 1]), ([0, np.inf], [0, 1])], InputError, "x of task 1 must be finite, got inf in row 1"),
        ([([0], [1]), ([0, 1], [0, 1])], DataError, "task 0 has 1 distinct point"),
        ([([0, 1], [0, 1]), ([], [])], DataError, "task 1 has 0 distinct points"),
        ([([0, 1], [0, 1, 2]), ([0, 1], [0, 1])], InputError, "as many points as values, got 2 and 3"),
        ([([0, 1], [0, 1]), ([[0, 1], [1, 0]], [0, 1])], InputError, "as many inputs, .* 0 has 1, 1 and 0, 1 has 2"),
        ([([0, 1], [0, 1]), ([0, 1], [[0, 1], [1, 0]])], InputError, "1 has 1, 2 and 0"),
        ([([0, 1], ["a", "b"]), ([0, 1], [0, 1])], InputError, "row 0, y of task 0: expected a number, got 'a'"),
        ([([[[0]], [[1]]], [0, 1]), ([0, 1], [0, 1])], InputError, "one- or two-dimensional"),
        ([([0, 1], [0, 1])], DataError, "at least two tasks, got 1"),
        ([], DataError, "at least two tasks, got none"),
    ],
)
def test_bad_arrays_are_refused(tasks, error, message: str) -> None:
    with pytest.raises(error, match=message):
        TaskBank.from_arrays(tasks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": [1.0]}, "params: expected 2 rows"),
        ({"params": [1.0, np.nan]}, "params must be finite"),
        ({"x_names": ["a", "b"]}, "expected 1 different names"),
        ({"y_names": []}, "expected 1 different names"),
        ({"params": [1, 2], "param_names": ["a", "b"]}, "expected 1 different names"),
    ],
)
def test_names_and_parameters_must_fit(options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TaskBank.from_arrays([([0, 1], [0, 1]), ([0, 1], [1, 2])], **options)


def test_keys_must_differ() -> None:
    task = Task(X[:, None], X[:, None], "a")
    with pytest.raises(DataError, match="'a' comes twice"):
        TaskBank((task, task), ("x",), ("y",))


def test_values_at_the_same_point_are_averaged_and_said_so() -> None:
    with pytest.warns(RelationalWarning, match="task 'a': 2 repeated points were averaged"):
        bank = TaskBank.from_arrays(
            {"a": ([1, 0, 1, 1], [[2, 0], [1, 1], [4, 2], [6, 4]]), "b": ([0, 1], [[0, 0], [1, 1]])}
        )
    assert bank.tasks[0].x.tolist() == [[0], [1]] and bank.tasks[0].y.tolist() == [[1, 1], [4, 2]]
    assert bank.notes == ("task 'a': 2 repeated points were averaged",)
    with pytest.warns(RelationalWarning), pytest.raises(DataError, match="1 distinct point;"):
        TaskBank.from_arrays([([1, 1, 1], [1, 2, 3]), ([0, 1], [0, 1])])


def test_points_are_the_same_only_in_all_their_inputs() -> None:
    x, y, notes = clean([[0, 1], [0, 2], [1, 1]], [1, 2, 3], "task")
    assert x.shape == (3, 2) and y.shape == (3, 1) and notes == []


@pytest.mark.parametrize(("d", "c"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)])
def test_values_and_covers_of_ragged_banks_equal_one_task_at_a_time(d: int, c: int) -> None:
    bank = ragged(d, c)
    q = np.random.default_rng(1).uniform(-0.2, 2, size=(40, d))
    values, covers = bank.values(q), bank.covers(q)
    assert values.shape == (5, 40, c) and covers.shape == (5, 40) and not bank.shared
    for i, t in enumerate(bank.tasks):
        for k in range(c):
            slow = interpolator(t.x, t.y[:, k : k + 1], bank.method)(q)[:, 0]
            np.testing.assert_allclose(values[i, :, k], slow, rtol=1e-8, atol=1e-9)
        assert (covers[i] == cover(t.x)(q)).all()
    assert covers.any() and not covers.all()


@pytest.mark.parametrize("c", [1, 2])
def test_a_shared_grid_gives_the_same_values_as_its_tasks_alone(c: int) -> None:
    y = np.random.default_rng(0).normal(size=(6, 9, c))
    bank = TaskBank.from_arrays([(X, v) for v in y])
    q = np.linspace(-0.3, 1.3, 17)[:, None]
    assert bank.shared
    for i in range(6):
        np.testing.assert_allclose(bank.values(q)[i], interpolator(X[:, None], y[i], bank.method)(q), atol=1e-12)
    np.testing.assert_allclose(bank.values(X[:, None]), y, atol=1e-12)
    assert (bank.covers(q) == ((q[:, 0] >= 0) & (q[:, 0] <= 1))).all() and bank.grid() is bank.tasks[0].x


def test_one_function_or_many_give_the_same_bank() -> None:
    slopes = np.array([[1.0], [2.0], [-3.0]])
    many = TaskBank.from_callables([lambda x, a=a: a * x[:, 0] for a in slopes[:, 0]], X, params=slopes)
    one = TaskBank.from_callables(lambda p, x: p * x[:, 0], X, params=slopes)
    secret = TaskBank.from_callables(lambda p, x: (p * x[:, 0])[..., None], X, hidden=slopes)
    q = np.array([[-5.0], [0.3], [9.0]])
    for bank in (many, one, secret):
        np.testing.assert_allclose(bank.values(q)[..., 0], slopes * q[:, 0])
        assert bank.callable and bank.covers(q).all()
        np.testing.assert_allclose(bank.select([2, 0]).values(q)[..., 0], slopes[[2, 0]] * q[:, 0])
        assert all(t.function is not None for t in bank.tasks)
    assert secret.params.shape == (3, 0) and one.params.shape == (3, 1)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: TaskBank.from_callables(lambda p, x: p * x[:, 0], X), "needs their params"),
        (lambda: TaskBank.from_callables(lambda p, x: p, X, params=[1, 2]), r"must return \(F, Q\)"),
        (lambda: TaskBank.from_callables([lambda x: x[:3], lambda x: x], X), r"must return \(Q,\)"),
        (lambda: TaskBank.from_callables([lambda x: x / 0 * 0, lambda x: x], X), "must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_of_the_wrong_kind_are_refused(act, message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()


@pytest.mark.parametrize(
    "bank",
    [
        ragged(1, 2),
        ragged(2, 1),
        TaskBank.from_arrays([(X, np.exp(X)), (X, np.ones(9))], y_names=["E"]),
        FAMILIES["frequency"].bank(4, 4, rng=np.random.default_rng(0)),
        FAMILIES["lotka_volterra"].bank(3, 3, rng=np.random.default_rng(0), with_params=True),
        TaskBank.from_callables([np.sin, np.cos], X),
    ],
    ids=["ragged C=2", "ragged D=2", "shared", "hidden batch", "batch C=2", "functions"],
)
def test_a_scaled_bank_is_the_bank_through_its_scaling(bank: TaskBank) -> None:
    s = bank.scaling
    inside = bank.scaled(s)
    low, high = bank.range
    q = np.random.default_rng(2).uniform(low - 0.3, high + 0.3, size=(20, bank.d))
    rtol = 1e-6 if bank.d > 1 else 1e-9  # thin plates are affine, not equivariant to unequal scales
    covered = bank.covers(q)
    assert (inside.covers(s.x_in(q)) == covered).mean() > 0.98
    wanted, got = bank.values(q), s.y_out(inside.values(s.x_in(q)))
    if bank.d == 1:
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=1e-9)
    else:
        at = bank.tasks[0].x
        np.testing.assert_allclose(s.y_out(inside.values(s.x_in(at)))[0], bank.tasks[0].y, atol=1e-7)
    assert inside.method == bank.method and inside.units is s
    every = np.concatenate([t.y for t in inside.tasks])
    np.testing.assert_allclose(every.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(inside.range, (-np.ones(bank.d), np.ones(bank.d)), atol=1e-12)


def test_a_constant_has_the_scale_one() -> None:
    bank = TaskBank.from_arrays([(X, np.c_[X, np.full(9, 4.0)]), (X, np.c_[-X, np.full(9, 4.0)])])
    assert bank.scaling.y_sd[1] == 1 and bank.scaling.y_mean[1] == 4
    s = Scaling(np.zeros(1), np.full(1, 2.0), np.ones(1), np.full(1, 3.0))
    q = np.array([[0.3], [7.0]])
    np.testing.assert_allclose(s.x_out(s.x_in(q)), q)
    np.testing.assert_allclose(s.y_out(s.y_in(q)), q)
    assert s.y_in(np.array([[4.0]])).item() == 1 and s.x_in(np.array([[4.0]])).item() == 2


@pytest.mark.parametrize("bank", [ragged(1, 1), ragged(2, 2)], ids=["D=1", "D=2, C=2"])
def test_a_bank_comes_back_from_its_files(bank: TaskBank, tmp_path: Path) -> None:
    back = TaskBank.load(bank.save(tmp_path / "bank"))
    assert (back.keys, back.x_names, back.y_names, back.param_names) == (
        bank.keys,
        bank.x_names,
        bank.y_names,
        bank.param_names,
    )
    assert (back.params == bank.params).all() and back.method == bank.method
    q = np.random.default_rng(0).uniform(0, 1, size=(9, bank.d))
    assert (back.values(q) == bank.values(q)).all() and (back.covers(q) == bank.covers(q)).all()


def test_labels_notes_and_keys_of_any_plain_kind_come_back(tmp_path: Path) -> None:
    tasks = {("a", 1): (X, X), 7: (X, -X), np.float64(2.5): (X, X**2)}
    labels = [{"order": np.int64(3), "kind": "sin"}, {}, {"pair": ("f", "g")}]
    bank = replace(TaskBank.from_arrays(tasks, labels=labels), notes=("dried first",))
    back = TaskBank.load(bank.save(tmp_path))
    assert back.keys == (("a", 1), 7, 2.5) and back.notes == ("dried first",)
    assert [t.labels for t in back.tasks] == [{"order": 3, "kind": "sin"}, {}, {"pair": ("f", "g")}]
    json.loads((tmp_path / "bank.json").read_text())


def test_functions_are_saved_as_points_and_say_so(tmp_path: Path) -> None:
    bank = FAMILIES["frequency"].bank(3, 3, rng=np.random.default_rng(0))
    back = TaskBank.load(bank.save(tmp_path))
    assert not back.callable and "known at its points only" in back.notes[-1]
    np.testing.assert_allclose(back.values(bank.tasks[0].x), bank.values(bank.tasks[0].x), atol=1e-12)


def test_loading_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected bank.json"):
        TaskBank.load(tmp_path)


def test_a_csv_file_becomes_columns(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    path.write_text("\ufeffcell, cycle ,y\nu,0,1.5\nu,1,2\n\nv,0,3\n", encoding="utf-8")
    columns = read_csv(path)
    assert list(columns) == ["cell", "cycle", "y"] and columns["y"].tolist() == [1.5, 2, 3]
    assert columns["cell"].tolist() == ["u", "u", "v"]
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match="line 3: expected 2 cells as in the header, got 1"):
        read_csv(path)
    path.write_text("a,b\n")
    with pytest.raises(DataError, match="a header and at least one row"):
        read_csv(path)


def test_a_grid_lies_where_most_tasks_are_known() -> None:
    tasks = [(np.linspace(0.1 * i, 5 + i, 8), np.zeros(8)) for i in range(5)]
    grid = TaskBank.from_arrays(tasks).grid(20)
    assert grid.shape == (20, 1) and grid[0] >= 0.3 and grid[-1] <= 5.5
    apart = TaskBank.from_arrays([(X, X), (X + 5, X)]).grid(10)
    assert apart[0] == 0 and apart[-1] == 6
    plane = ragged(2).grid(12)
    assert plane.shape == (12, 2)


@pytest.mark.parametrize(
    "name, change",
    [
        ("bank.json", lambda data: b""),
        ("bank.json", lambda data: data.replace(b'"x"', b"\xff")),
        ("bank.json", lambda data: data.replace(b'"cubic"', b'"magic"').replace(b'"linear"', b'"magic"')),
        ("bank.json", lambda data: data.replace(b'"tasks"', b'"task"')),
        ("bank.json", lambda data: data.replace(b'"key": 1', b'"key": 0')),
        ("bank.json", lambda data: data.replace(b'"key": 1', b'"key": {}')),
        ("bank.json", lambda data: b"[" * 100_000),
        ("bank.npz", lambda data: b""),
        ("bank.npz", lambda data: data[:100]),
        ("bank.npz", lambda data: b"\xff\xfe" + data),
        ("bank.npz", lambda data: data.replace(b"params.npy", b"params.npz")),
    ],
)
def test_a_damaged_bank_is_refused(tmp_path, name, change):
    x = np.linspace(0, 1, 9)
    folder = TaskBank.from_arrays([(x, x), (x, x**2), (x, x**3)], params=[1.0, 2.0, 3.0]).save(tmp_path)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(change(whole))
    assert (folder / name).read_bytes() != whole
    with pytest.raises(DataError, match="does not hold a whole bank.*Save it again"):
        TaskBank.load(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=r"expected bank\.json and bank\.npz in"):
        TaskBank.load(folder)
