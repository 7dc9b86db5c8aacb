"""``operant extrapolate`` in one process: what is read from the files, what is written, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operant.core.checks import DataError, InputError, OperantError
from operant.core.record import read_records
from operant.relational.bank.tasks import TaskBank
from operant.relational.config import ExtrapolateConfig
from operant.relational.extrapolator import Extrapolator
from operant.relational.files import read_bank, read_targets
from operant.relational.run import extrapolate

X = np.linspace(0.0, 4.0, 21)


def curve(t: float) -> np.ndarray:
    """A bend that moves with t: its own anchor, shifted."""
    return np.tanh(X - 0.5 * t) + 0.1 * t


def write(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@pytest.fixture
def config(tmp_path: Path) -> ExtrapolateConfig:
    """Six known tasks; a target of four points, and another with a blank y."""
    bank = [[t, x, y] for t in range(6) for x, y in zip(X, curve(t), strict=True)]
    target = [[t, x, y] for t in (-1, -1.5) for x, y in zip(X[:8:2], curve(t)[:8:2], strict=True)]
    return ExtrapolateConfig(
        bank=write(tmp_path / "bank.csv", ["T", "x", "y"], bank),
        target=write(tmp_path / "target.csv", ["T", "x", "y"], [*target, [-1, 2.0, ""], [-1, 2.4, " "]]),
        task="T",
        x="x",
        y="y",
        params="T",
        operator="shift * xshift",
        query_points=11,
        output_dir=tmp_path / "out",
    )


def test_blank_values_are_asked_and_the_others_are_context(config: ExtrapolateConfig) -> None:
    bank = read_bank(config)
    one, other = read_targets(config, bank)
    assert (one.key, other.key, bank.keys[-1]) == (-1, -1.5, 5)
    np.testing.assert_array_equal(one.query, [[2.0], [2.4]])
    np.testing.assert_array_equal(one.x[:, 0], X[:8:2])
    np.testing.assert_allclose(one.y[:, 0], curve(-1)[:8:2])
    assert one.params is not None and one.params.tolist() == [-1.0] and np.isnan(one.truth).all()
    np.testing.assert_allclose(other.query[:, 0], np.linspace(0, 4, 11))


def test_tasks_are_named_as_they_were_written(config: ExtrapolateConfig, tmp_path: Path) -> None:
    named = [["a", 0.0, 1.0], ["a", 1.0, 2.0], ["b", 0.0, 1.0], ["b", 1.0, 3.0]]
    other = replace(config, bank=write(tmp_path / "named.csv", ["T", "x", "y"], named), params=[])
    assert read_bank(other).keys == ("a", "b") and read_bank(config).keys == (0, 1, 2, 3, 4, 5)


def test_the_query_may_lie_outside_the_bank_if_the_context_does(config: ExtrapolateConfig, tmp_path: Path) -> None:
    rows = [[6, -1.0, 0.0], [6, 0.5, 0.0]]
    (one,) = read_targets(replace(config, target=write(tmp_path / "t.csv", ["T", "x", "y"], rows)), read_bank(config))
    assert (one.query[0, 0], one.query[-1, 0], len(one.query)) == (-1.0, 4.0, 11)


def test_a_query_file_is_for_its_target_or_for_all(config: ExtrapolateConfig, tmp_path: Path) -> None:
    bank = read_bank(config)
    own = write(tmp_path / "own.csv", ["T", "x", "y"], [[-1.5, 3.0, 0.25], [-1.5, 3.5, ""]])
    one, other = read_targets(replace(config, query=own), bank)
    assert one.query[:, 0].tolist() == [2.0, 2.4] and other.query[:, 0].tolist() == [3.0, 3.5]
    assert other.truth[0, 0] == 0.25 and np.isnan(other.truth[1, 0])
    every = write(tmp_path / "every.csv", ["x"], [[3.0], [3.5]])
    one, other = read_targets(replace(config, query=every), bank)
    assert one.query[:, 0].tolist() == [2.0, 2.4, 3.0, 3.5] and other.query[:, 0].tolist() == [3.0, 3.5]


def test_what_is_written_is_what_the_estimator_says(config: ExtrapolateConfig, tmp_path: Path) -> None:
    """Record and CSV against the estimator on plain arrays; and against the function that made the data."""
    queried = write(
        tmp_path / "q.csv", ["T", "x", "y"], [[-1, x, y] for x, y in zip(X[8:], curve(-1)[8:], strict=True)]
    )
    told: list[str] = []
    folder = extrapolate(replace(config, query=queried), told.append)
    each = ["target 1 of 2: -1", "target 2 of 2: -1.5"]
    assert told == ["reading the bank", "fitting 6 tasks", *each, "comparing shifts along x"]

    bank = TaskBank.from_arrays([(X, curve(t)) for t in range(6)], params=[float(t) for t in range(6)])
    model = Extrapolator(operator="shift * xshift").fit(bank)
    query = np.array([2.0, 2.4, *X[8:]])
    target = model.adapt(X[:8:2], curve(-1)[:8:2], params=[-1.0], query=query)

    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = [r for r in rows if r["T"] == "-1"]
    assert list(rows[0]) == ["T", "x", "y", "y_low", "y_high", "covered"] and len(rows) == len(query) + 11
    np.testing.assert_allclose([float(r["y"]) for r in first], target.predict(query), rtol=1e-6)
    np.testing.assert_allclose([float(r["y_low"]) for r in first], target.interval(query)[0], rtol=1e-6)
    error = target.predict(query) - (np.tanh(query + 0.5) - 0.1)
    assert np.sqrt(np.mean(error**2)) < 0.05

    records = read_records(folder / "record.jsonl")
    assert [r["kind"] for r in records] == ["run", "environment", "bank", "shift_factors", "target", "target"]
    run, _, known, _, one, other = records
    assert run["command"] == "extrapolate" and run["config"]["noise"] is None and run["config"]["x"] == "x"
    assert (known["tasks"], known["points"], len(known["curves"])) == (6, 126, 6)
    np.testing.assert_allclose(known["curves"][2]["y"], curve(2)[:, None])
    np.testing.assert_allclose(one["truth"]["y"], curve(-1)[8:, None])
    found = one["decompositions"][0]
    assert found["anchor"] == "0" and found["parameters"]["xshift"] == pytest.approx([0.5], abs=0.01)
    assert found["parameters"]["shift"] == pytest.approx([-0.1], abs=0.01)
    assert other["truth"] is None and one["params"] == {"T": -1.0} and one["key"] == "-1"


def test_two_outputs_and_two_inputs(tmp_path: Path) -> None:
    grid = [(a, b) for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0, 2.0)]
    bank = [[f"t{k}", a, b, k * a + b, a - k * b] for k in range(4) for a, b in grid]
    head = ["name", "a", "b", "u", "v"]
    target = [["new", a, b, 4 * a + b, a - 4 * b] for a, b in grid[:7]]
    config = ExtrapolateConfig(
        bank=write(tmp_path / "bank.csv", head, bank),
        target=write(tmp_path / "target.csv", head, target),
        task="name",
        x="a, b",
        y=["u", "v"],
        operator="span",
        query_points=9,
        output_dir=tmp_path / "out",
    )
    record = read_records(extrapolate(config) / "record.jsonl")[-1]
    asked = np.array(record["prediction"]["x"])
    assert asked.shape == (9, 2) and record["x_names"] == ["a", "b"]
    exact = np.column_stack([4 * asked[:, 0] + asked[:, 1], asked[:, 0] - 4 * asked[:, 1]])
    np.testing.assert_allclose(record["prediction"]["mean"], exact, atol=1e-3)
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        assert file.readline().strip() == "name,a,b,u,u_low,u_high,v,v_low,v_high,covered"


def test_what_was_done_to_the_data_is_noted(config: ExtrapolateConfig, tmp_path: Path) -> None:
    """Repeated points of a target, and a target that the bank knows by name."""
    rows = [[5, x, y] for x, y in zip(X[:4], curve(5)[:4], strict=True)]
    folder = extrapolate(
        replace(config, target=write(tmp_path / "t.csv", ["T", "x", "y"], [*rows, rows[0]])), lambda _: None
    )
    notes = [r["text"] for r in read_records(folder / "record.jsonl") if r["kind"] == "note"]
    assert len(notes) == 2 and "names of targets (5)" in notes[0] and "repeated points were averaged" in notes[1]


Change = Callable[[Path], dict[str, object]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p: {"bank": p / "nowhere.csv"}, DataError, "expected a CSV file"),
        (lambda p: {"query": p / "nowhere.csv"}, DataError, "expected a CSV file"),
        (lambda p: {"x": "z"}, DataError, "no column 'z'; there are: T, x, y"),
        (lambda p: {"level": 90.0}, InputError, "0 < level < 1"),
        (lambda p: {"query_points": 1}, OperantError, "query_points must be an integer >= 2"),
        (lambda p: {"operator": "twist"}, OperantError, "'twist'"),
        (lambda p: {"noise": -1.0}, InputError, "noise must be finite and not negative"),
        (lambda p: {"output_dir": p}, DataError, "is not empty and holds no run"),
        (lambda p: {"target": write(p / "t.csv", ["T", "x"], [[6, 1.0]])}, DataError, "no column 'y'"),
        (lambda p: {"target": write(p / "t.csv", ["T", "x", "y"], [[6, 1.0, ""]])}, DataError, "6 has no row with a"),
        (
            lambda p: {"target": write(p / "t.csv", ["T", "x", "y"], [[6, 1.0, 1.0], [6, "", 1.0]])},
            InputError,
            "t.csv, line 3, column 'x': expected a number, got ''",
        ),
        (
            lambda p: {"target": write(p / "t.csv", ["T", "x", "y"], [[6, 1.0, "high"]])},
            InputError,
            "t.csv, line 2, column 'y': expected a number, got 'high'",
        ),
        (
            lambda p: {
                "target": write(p / "t.csv", ["T", "x", "y", "K"], [[6, 1.0, 1.0, 1], [6, 2.0, 1.0, 2]]),
                "bank": write(p / "b.csv", ["T", "x", "y", "K"], [[t, x, 1.0, t] for t in range(3) for x in range(3)]),
                "params": "K",
            },
            DataError,
            "K must be constant within target 6",
        ),
        (
            lambda p: {
                "target": write(p / "t.csv", ["T", "x", "y", "z"], [[6, 1.0, 1.0, ""]]),
                "bank": write(p / "b.csv", ["T", "x", "y", "z"], [[t, x, 1.0, 2] for t in range(3) for x in range(3)]),
                "y": ["y", "z"],
            },
            DataError,
            "t.csv, line 2: expected all of y, z or none",
        ),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    config: ExtrapolateConfig, tmp_path: Path, change: Change, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        extrapolate(replace(config, **change(tmp_path)))  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "out").exists()


def test_labels_of_the_bank_and_facts_of_the_target(tmp_path: Path) -> None:
    """Polynomials of orders 1 to 4, and one of order 5: extend continues the recursion, with the order told or not."""
    rng, x = np.random.default_rng(0), np.linspace(-1, 1, 15)
    rows = [
        [f"{order}-{i}", order, v, np.polyval(c, v)]
        for order in range(1, 5)
        for i in range(6)
        for c in [rng.normal(size=order + 1)]
        for v in x
    ]
    high = rng.normal(size=6)
    truth = np.polyval(high, x)
    target = [["high", 5, v, y if i % 2 else ""] for i, (v, y) in enumerate(zip(x, truth, strict=True))]
    config = ExtrapolateConfig(
        bank=write(tmp_path / "bank.csv", ["task", "order", "x", "y"], rows),
        target=write(tmp_path / "target.csv", ["task", "order", "x", "y"], target),
        task="task",
        x="x",
        y="y",
        labels="order",
        operator="extend",
        output_dir=tmp_path / "out",
    )
    bank = read_bank(config)
    (asked,) = read_targets(config, bank)
    assert asked.labels == {"order": 5.0} and bank.tasks[-1].labels == {"order": 4.0}
    extrapolate(config)
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as file:
        predicted = [float(r["y"]) for r in csv.DictReader(file)]
    np.testing.assert_allclose(predicted, truth[::2], atol=1e-3)
    unknown = write(tmp_path / "unknown.csv", ["task", "x", "y"], [[t, v, y] for t, _, v, y in target])
    (asked,) = read_targets(replace(config, target=unknown), bank)
    assert asked.labels == {}
    twice = write(tmp_path / "twice.csv", ["task", "order", "x", "y"], [["a", 5, 0.0, 1.0], ["a", 6, 0.5, 1.0]])
    with pytest.raises(DataError, match="order must be constant within target 'a'"):
        read_targets(replace(config, target=twice), bank)
