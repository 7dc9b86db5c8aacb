"""An adapted target: the units of its prediction, its samples, explanation, record and chart."""

from __future__ import annotations

import json

import numpy as np
import pytest

from operant.core.checks import InputError
from operant.relational.adapted import AdaptedTask
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator
from operant.relational.operators.warp.operator import Z90
from operant.relational.records import bank_record
from operant.relational.selection.calibration import mix
from operant.report import target_chart

X = np.linspace(0, 3, 13)
QUERY = np.linspace(0, 3.5, 21)


def curve(w: float, x: Array) -> Array:
    return 20 + w * np.sin(1.3 * x) + 0.3 * w**2 * x


@pytest.fixture(scope="module")
def model() -> Extrapolator:
    rng = np.random.default_rng(0)
    w = np.linspace(1, 2, 20)
    tasks = {("cell", i): (X, curve(v, X) + 0.02 * rng.normal(size=13)) for i, v in enumerate(w)}
    bank = TaskBank.from_arrays(tasks, params=w, param_names=["w"])
    return Extrapolator(["span", "shift * scale", "interpolation", "polynomial", "psi"][:4]).fit(bank)


@pytest.fixture(scope="module")
def target(model: Extrapolator) -> AdaptedTask:
    noise = 0.05 * np.random.default_rng(1).normal(size=7)
    return model.adapt(X[::2], curve(2.2, X[::2]) + noise, params=[2.2], key=("cell", 99))


def test_the_prediction_is_the_mixture_in_the_units_of_the_data(model: Extrapolator, target: AdaptedTask) -> None:
    s = model.scaling_
    inside = s.x_in(QUERY[:, None])
    names = list(target.choice_.weights)
    answers = [target._adapted[n].predict(inside) for n in names]
    mean, sd = mix([m for m, _ in answers], [d for _, d in answers], [target.choice_.weights[n] for n in names])
    y, std = target.predict(QUERY, return_std=True)
    assert y == pytest.approx(mean[:, 0] * s.y_sd[0] + s.y_mean[0])
    factor = target.choice_.calibration.factor(0.9)
    assert std == pytest.approx(sd[:, 0] * s.y_sd[0] * factor / Z90)
    assert np.array_equal(target.predict(QUERY[:, None]), y)
    low, high = target.interval(QUERY, 0.9)
    assert (high - low) / 2 == pytest.approx(Z90 * std) and (high + low) / 2 == pytest.approx(y)
    assert np.array_equal(target.interval(QUERY)[0], low)


@pytest.mark.parametrize("operator", ["span", "shift * scale", "interpolation"])
def test_samples_agree_with_the_prediction(model: Extrapolator, operator: str) -> None:
    """Of one operator, whose mean is that of its samples."""
    assert model.bank_ is not None
    noise = 0.1 * np.random.default_rng(2).normal(size=7)
    bank = TaskBank.from_arrays([(X, curve(w, X)) for w in np.linspace(1, 2, 20)])
    single = Extrapolator(operator).fit(bank).adapt(X[::2], curve(2.1, X[::2]) + noise)
    y, std = single.predict(QUERY, return_std=True)
    draws = single.sample(QUERY, 3000)
    assert draws.shape == (3000, 21) and np.array_equal(draws, single.sample(QUERY, 3000))
    assert np.abs((draws.mean(0) - y) / std).max() < 4 / np.sqrt(3000)
    assert draws.std(0) == pytest.approx(std, rel=0.1)


def test_the_explanation(target: AdaptedTask, model: Extrapolator) -> None:
    found = target.explain()
    assert found["operator"] == target.operator_ == " + ".join(target.choice_.weights)
    assert found["applicability"] is target.applicability()
    first = target.decompositions_[0]
    assert found["anchor"] == first.anchor and found["residual"] == first.residual
    weights = [d.weight for d in target.decompositions_]
    assert weights == sorted(weights, reverse=True)
    assert target.explain(np.linspace(0, 3, 9))["share_covered"] == 1.0
    assert model.bank_ is not None
    x, units = X[::2, None], model.scaling_
    span = Extrapolator("span").fit(model.bank_).adapt(units.x_in(x), units.y_in(curve(1.5, x)))
    assert span.explain(np.linspace(1.1, 5, 9))["share_covered"] == 0.0
    anchored = Extrapolator("shift * scale").fit(model_bank()).adapt(X[::2], 1.2 * curve(2.0, X[::2]) + 1)
    found = anchored.explain()
    assert found["anchor"] == 19 and found["transformation"].get("scale")[0] == pytest.approx(1.2, abs=0.01)
    low, high = found["intervals"]["scale"]
    assert low < found["transformation"].get("scale")[0] < high
    assert found["residual"] < 0.05 and 19 not in found["runners_up"][:1]


def model_bank() -> TaskBank:
    return TaskBank.from_arrays([(X, curve(w, X)) for w in np.linspace(1, 2, 20)])


def test_the_table_of_the_choice(target: AdaptedTask, model: Extrapolator) -> None:
    rows = target.choice_table()
    assert [r["operator"] for r in rows] and {r["operator"] for r in rows} == set(model._operators.fitted)
    predicted = [r["predicted_error"] for r in rows]
    assert predicted == sorted(predicted)
    assert {r["operator"]: r["plain"] for r in rows} == {
        "span": False,
        "shift * scale": False,
        "interpolation": True,
        "polynomial": True,
    }
    assert sum(r["weight"] for r in rows) == pytest.approx(1)
    assert target.choice_.backtest is not None
    for row in rows:
        error = target.choice_.backtest.trials[row["operator"]].error
        error = error[np.isfinite(error)] * model.scaling_.y_sd[0]
        assert row["backtest_error"] == pytest.approx(np.sqrt(np.mean(error**2)))
        assert (
            row["backtest_low"] <= row["backtest_error"] <= error.max() and row["backtest_high"] >= row["backtest_low"]
        )
        assert row["context_error"] == pytest.approx(target.choice_.loo_rmse[row["operator"]] * model.scaling_.y_sd[0])


def test_the_record_is_plain_and_in_the_units_of_the_data(target: AdaptedTask, model: Extrapolator) -> None:
    truth = (QUERY, curve(2.2, QUERY))
    record = json.loads(json.dumps(target.record(QUERY, truth)))
    assert record["kind"] == "target" and record["key"] == "('cell', 99)"
    assert np.array(record["prediction"]["mean"])[:, 0] == pytest.approx(target.predict(QUERY))
    low, high = target.interval(QUERY)
    assert np.array(record["prediction"]["low"])[:, 0] == pytest.approx(low)
    assert np.array(record["prediction"]["high"])[:, 0] == pytest.approx(high)
    assert record["prediction"]["covered"] == target.covered(QUERY).tolist()
    assert np.array(record["context"]["x"])[:, 0] == pytest.approx(X[::2])
    assert record["truth"]["y"] == [[v] for v in truth[1].tolist()]
    assert record["params"] == {"w": 2.2} and record["baseline"]["name"] in ("interpolation", "polynomial")
    assert len(record["choice"]) == 4 and record["applicability"]["applicable"] == target.applicable_
    plain = json.loads(json.dumps(target.record()))
    assert plain["truth"] is None and len(plain["prediction"]["x"]) == 100

    assert model.bank_ is not None
    bank = json.loads(json.dumps(bank_record(model.bank_, model.scaling_, limit=5)))
    assert bank["tasks"] == 20 and bank["points"] == 260 and len(bank["curves"]) == 5
    assert np.array(bank["curves"][0]["x"])[:, 0] == pytest.approx(X)
    assert bank["curves"][-1]["params"] == {"w": 2.0} and bank["curves"][-1]["key"] == "('cell', 19)"
    assert np.array(bank["curves"][-1]["y"])[:, 0] == pytest.approx(curve(2.0, X), abs=0.1)


def test_the_record_of_an_anchor() -> None:
    target = Extrapolator("shift * scale").fit(model_bank()).adapt(X[::2], 1.2 * curve(2.0, X[::2]) + 1)
    record = json.loads(json.dumps(target.record()))
    assert record["anchor"]["key"] == "19"
    assert np.array(record["anchor"]["y"])[:, 0] == pytest.approx(curve(2.0, X))
    first = record["decompositions"][0]
    assert first["transformation"].startswith("y(x) = 1.") and set(first["parameters"]) == {"shift", "scale"}
    assert record["baseline"] is None


def test_the_chart(target: AdaptedTask) -> None:
    altair = pytest.importorskip("altair")
    chart = target_chart(target.records(truth=(QUERY, curve(2.2, QUERY))))
    assert isinstance(chart, altair.TopLevelMixin)
    assert '"truth"' in json.dumps(chart.to_dict())
    assert target_chart(target).to_dict() == target_chart(target.records()).to_dict()


def test_bad_queries(target: AdaptedTask) -> None:
    with pytest.raises(InputError, match=r"expected points \(Q, 1\) as in the context, at least one, got \(1, 2\)"):
        target.predict([[0.0, 1.0]])
    with pytest.raises(InputError, match="query points must be finite"):
        target.predict([np.nan])
    for level in (0.0, 1.0, 90):
        with pytest.raises(InputError, match=f"level must lie between 0 and 1, got {level}"):
            target.interval(QUERY, level)
