"""Logarithms that stand for columns, and units: against the same data with logarithms taken by hand."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operant.core.checks import DataError, InputError
from operant.core.record import read_records
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.columns import Forms, is_geometric, parse_units, suspects
from operant.relational.config import ExtrapolateConfig
from operant.relational.run import extrapolate
from operant.relational.transforms import Transformation

SECONDS = np.geomspace(0.01, 100, 21)


def decay(t: float) -> Array:
    """A modulus that falls over two decades, earlier for hotter samples; positive."""
    return 10 ** (1.5 - np.tanh(np.log10(SECONDS) + 0.5 * t))


def write(path: Path, head: str, rows: Sequence[tuple[object, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return path


def files(
    folder: Path, x: Callable[[Array], Array], y: Callable[[Array], Array], units: tuple[str, ...] = ()
) -> ExtrapolateConfig:
    """Six known temperatures and a colder one, with x and y of the columns; the target is known at short times."""
    folder.mkdir()
    rows = [(t, a, b) for t in range(6) for a, b in zip(x(SECONDS), y(decay(t)), strict=True)]
    known = [(-1, a, b if i < 6 else "") for i, (a, b) in enumerate(zip(x(SECONDS), y(decay(-1)), strict=True))]
    head = [units] if units else []
    return ExtrapolateConfig(
        bank=write(folder / "bank.csv", "T,t,E", [*head, *rows]),
        target=write(folder / "target.csv", "T,t,E", known),
        task="T",
        x="t",
        y="E",
        params="T",
        operator="shift * xshift",
        output_dir=folder / "out",
    )


def predictions(config: ExtrapolateConfig) -> Array:
    """(Q, 4) x, mean, low and high."""
    with (extrapolate(config) / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(r[k]) for k in ("t", "E", "E_low", "E_high")] for r in rows])


def test_positive_forecasts_are_exponentials_of_forecasts_of_the_logarithm(tmp_path: Path) -> None:
    """The same files with the logarithms in them, to references that a user would compute, and no setting."""
    found = predictions(replace(files(tmp_path / "a", np.array, np.array), log_x="t", positive=True))
    y0 = np.exp(np.mean([np.log(decay(t)) for t in range(6)]))
    by_hand = predictions(files(tmp_path / "b", np.log10, lambda y: np.log(y / y0)))
    np.testing.assert_allclose(found[:, 1:], np.exp(by_hand[:, 1:]) * y0, rtol=1e-6)
    assert found[:, 0].tolist() == SECONDS[6:].tolist()  # to the last digit, so that tables can be joined
    assert (found[:, 1:] > 0).all() and (found[:, 2] <= found[:, 1]).all() and (found[:, 1] <= found[:, 3]).all()
    assert np.abs(np.log10(found[:, 1] / decay(-1)[6:])).max() < 0.05


def test_positive_forecasts_do_not_depend_on_units(tmp_path: Path) -> None:
    one = replace(files(tmp_path / "a", np.array, np.array), log_x="t", positive=True, operator="scale * xscale")
    other = files(tmp_path / "b", lambda x: x / 60, lambda y: 1e6 * y)
    other = replace(other, log_x="t", positive=True, operator="scale * xscale")
    np.testing.assert_allclose(predictions(one)[:, 1:] * 1e6, predictions(other)[:, 1:], rtol=1e-6)


def test_the_record_is_in_the_units_of_the_files(tmp_path: Path) -> None:
    config = replace(files(tmp_path / "a", np.array, np.array, ("°C", "s", "MPa")), log_x="t", positive=True)
    records = read_records(extrapolate(config) / "record.jsonl")
    bank, factors, target = records[-3:]
    assert bank["units"] == {"T": "°C", "t": "s", "E": "MPa"} and bank["log_x"] == ["t"] and bank["positive"]
    np.testing.assert_allclose(bank["curves"][2]["y"], decay(2)[:, None], rtol=1e-9)
    for curve, t, points in (("context", -1, slice(6)), ("anchor", int(target["anchor"]["key"]), slice(21))):
        np.testing.assert_allclose(target[curve]["x"], SECONDS[points, None], rtol=1e-9)
        np.testing.assert_allclose(target[curve]["y"], decay(t)[points, None], rtol=1e-9)
    # Half a decade per degree, as the curves were made; in the formula it is a factor on t itself.
    shifts = {r["task"]: r["xshift"] for r in factors["rows"]}
    reference = float(factors["reference"])
    for task, shift in shifts.items():
        assert shift == pytest.approx(0.5 * (float(task) - reference), abs=0.1)
    best = target["decompositions"][0]
    (factor,) = re.findall(r"f\(([\d.]+) x\)", best["transformation"])
    assert float(factor) == pytest.approx(10 ** best["parameters"]["xshift"][0], rel=1e-3)
    told = json.loads((config.output_dir / "predictions.units.json").read_text(encoding="utf-8"))
    assert told == {"T": "°C", "t": "s", "E": "MPa", "E_low": "MPa", "E_high": "MPa"}
    with (config.output_dir / "shift_factors.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["T", "known", "anchor", "reference", "xshift", "xshift_low", "xshift_high"]
    assert [(r["T"], r["known"]) for r in rows] == [*((str(t), "1") for t in range(6)), ("-1", "0")]


FACTORS = {"scale": 0.8, "shift": 0.3, "trend": 0.4, "xshift": 0.2, "xscale": 1.1}


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("kinds", ["", "shift xshift", "scale xscale", "trend", "shift scale trend xshift xscale"])
def test_a_formula_is_the_transformation(log_x: bool, positive: bool, kinds: str) -> None:
    """Its text as Python, against the transformation in the columns that the operators see."""
    bank = TaskBank.from_arrays({k: (SECONDS, decay(k)) for k in range(3)}, x_names=["t"], y_names=["E"])
    forms = Forms.of(bank, ["t"] if log_x else [], positive=positive)
    t = Transformation(tuple((k, (FACTORS[k],)) for k in kinds.split()))

    def f(x: Array) -> Array:
        return 3 + np.sin(x)

    x = np.linspace(0.5, 3, 9)[:, None]
    exact = forms.y_out(t.apply(lambda z: forms.y_in(f(forms.x_out(z))), forms.x_in(x)))
    text = forms.formula(t).removeprefix("y(x) = ").replace("log10 x", "log10(x)").replace("^", "**")
    code = re.sub(r"(?<=[\w)]) (?=[a-z])", " * ", text)
    names = {"f": f, "x": x, "exp": np.exp, "log10": np.log10}
    np.testing.assert_allclose(eval(code, names), exact, rtol=2e-3, err_msg=text)


def test_values_without_a_logarithm_are_refused_with_their_line(tmp_path: Path) -> None:
    config = files(tmp_path / "a", np.array, np.array)
    zero = write(tmp_path / "zero.csv", "T,t,E", [("°C", "s", "MPa"), (-1, 0.01, 30.0), (-1, 0.1, 0.0), (-1, 0.0, "")])
    with pytest.raises(
        InputError, match=r"zero.csv, line 4, column 'E': expected a positive value, because --positive"
    ):
        extrapolate(replace(config, target=zero, positive=True))
    with pytest.raises(InputError, match=r"zero.csv, line 5, column 't': expected a positive value, because --log_x"):
        extrapolate(replace(config, target=zero, log_x="t"))
    with pytest.raises(DataError, match="--log_x: expected inputs \\(t\\), got 'E'. For outputs, use --positive"):
        extrapolate(replace(config, log_x="E"))
    assert not config.output_dir.exists()


def test_the_data_ask_for_settings(tmp_path: Path) -> None:
    """Points even in their logarithm, and an interval of positive values that reaches zero."""
    config = replace(files(tmp_path / "a", np.array, np.array), operator="polynomial")
    notes = [r["text"] for r in read_records(extrapolate(config) / "record.jsonl") if r["kind"] == "note"]
    assert any("With --log_x t" in n for n in notes) and any("With --positive, it stays positive" in n for n in notes)
    (target, *_) = [r for r in read_records(config.output_dir / "record.jsonl") if r["kind"] == "target"]
    steps = np.diff(np.log([x for (x,) in target["prediction"]["x"]]))
    assert len(steps) > 9 and np.allclose(
        steps, steps[0]
    )  # where nothing is asked, points are even on the chart's axis
    config = replace(config, log_x="t", positive=True, output_dir=tmp_path / "again")
    assert not [r for r in read_records(extrapolate(config) / "record.jsonl") if r["kind"] == "note"]
    assert is_geometric(np.geomspace(1, 100, 9)) and not is_geometric(np.linspace(1, 100, 9))
    assert not is_geometric(np.geomspace(1, 10, 9)) and not is_geometric(np.array([0.0, 1.0, 100.0]))


def test_a_mistyped_value_is_found() -> None:
    """A decimal point in the wrong place, in any order of the points; smooth curves, steps and peaks pass."""
    x, rng = np.arange(12.0), np.random.default_rng(0)
    y = 1.1 - 0.02 * x + 0.002 * rng.normal(size=12)
    for i in (0, 5, 11):
        for wrong in (10 * y[i], y[i] / 10):
            order = rng.permutation(12)
            odd = np.where(x == i, wrong, y)
            assert x[order][suspects(x[order], odd[order])].tolist() == [i]
    for fine in (y, np.exp(2 * x), np.sin(x), np.tanh(3 * (x - 5.4)), np.ones(12), np.exp(-((x - 5) ** 2)), y[:4]):
        assert suspects(x[: len(fine)], fine) == []


def test_units_are_given_or_read_and_never_differ(tmp_path: Path) -> None:
    assert parse_units(["t=s", " E = N/mm = MPa"], ["t", "E"]) == {"t": "s", "E": "N/mm = MPa"}
    for given, message in (
        (["s"], "expected column=unit"),
        (["time=s"], "those used are t, E"),
        (["e=s"], "column 'e'"),
    ):
        with pytest.raises(InputError, match=message):
            parse_units(given, ["t", "E"])
    with pytest.raises(InputError, match="Did you mean temp"):
        parse_units(["tmp=K"], ["temp", "E"])
    config = files(tmp_path / "a", np.array, np.array, ("°C", "s", "MPa"))
    mixed = write(tmp_path / "t.csv", "T,t,E", [("°C", "min", "MPa"), (-1, 0.01, 30.0), (-1, 0.1, 20.0)])
    with pytest.raises(DataError, match=r"t is in s in .*bank.csv and in min in .*t.csv. Convert one of them"):
        extrapolate(replace(config, target=mixed))
    folder = extrapolate(replace(config, target=mixed, units="t=s"))
    assert next(r for r in read_records(folder / "record.jsonl") if r["kind"] == "bank")["units"]["t"] == "s"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_axes": ["time"]}, "--log_axes: expected columns of x or y \\(t, E\\), none or auto; got 'time'"),
        ({"reference": "9"}, "--reference: no task '9' in the bank; there are: 0, 1, 2"),
    ],
)
def test_names_that_are_not_there_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    config = files(tmp_path / "a", np.array, np.array)
    with pytest.raises(DataError, match=message):
        extrapolate(replace(config, **change))  # pyright: ignore[reportArgumentType]
