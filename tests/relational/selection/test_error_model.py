"""The error model on synthetic errors with known levels and slopes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from operant.relational.selection.adaptation import ContextEvidence as Evidence
from operant.relational.selection.error_model import (
    _DRAWS,
    _FURTHER,
    ErrorModel,
    biased,
    fit_error_model,
    further_out,
    model_without_backtest,
)
from tests.relational.selection.cases import sure, trial


def test_the_model_finds_levels_and_slopes() -> None:
    """log e = t_j + a_k + 0.6 log r + 0.3 log s + noise, with 400 outer tasks that differ widely."""
    rng = np.random.default_rng(0)
    a, trials, hard = {"one": -1.0, "two": 0.5, "three": 2.0}, {}, rng.normal(0, 3, 400)
    for name, level in a.items():
        log_r, log_s = rng.normal(-2, 1.5, 400), rng.normal(-1, 1.5, 400)
        log_e = hard + level + 0.6 * log_r + 0.3 * log_s + 0.1 * rng.normal(size=400)
        trials[name] = trial(np.exp(log_e), np.exp(log_r), np.exp(log_s))
    model = fit_error_model(trials)
    assert model.beta == pytest.approx(0.6, abs=0.03) and model.gamma == pytest.approx(0.3, abs=0.02)
    assert max(model.sd.values()) < 0.31  # how hard a task is does not blur the operators
    for name in a:
        assert model.log_loo[name] == pytest.approx(-2, abs=0.3)
    predicted = model.predicted(Evidence(dict.fromkeys(a, float(np.exp(-3))), sure(a), 10**6))
    # large errors weigh more than in the mean of the logarithm, alike for all
    assert predicted["two"] - predicted["one"] == pytest.approx(1.5, abs=0.25)
    assert predicted["three"] - predicted["two"] == pytest.approx(1.5, abs=0.25)
    other = model.predicted(Evidence({**dict.fromkeys(a, float(np.exp(-3))), "two": float(np.exp(-4))}, sure(a), 10**6))
    assert predicted["two"] - other["two"] == pytest.approx(model.beta, abs=1e-3)
    doubtful = model.predicted(Evidence(dict.fromkeys(a, float(np.exp(-3))), {**sure(a), "two": float(np.e)}, 10**6))
    assert doubtful["two"] - predicted["two"] == pytest.approx(model.gamma, abs=1e-3)


def test_the_model_with_gaps() -> None:
    """A tenth of errors and leave-one-out errors is missing; dropped operators do not count."""
    rng = np.random.default_rng(3)
    a, trials, hard = {"one": -1.0, "two": 0.5, "three": 2.0}, {}, rng.normal(0, 1, 400)
    for name, level in a.items():
        log_r = rng.normal(-2, 1.5, 400)
        error, r = np.exp(hard + level + 0.6 * log_r + 0.1 * rng.normal(size=400)), np.exp(log_r)
        error[rng.uniform(size=400) < 0.1], r[rng.uniform(size=400) < 0.1] = np.nan, np.nan
        error[7] = np.nan
        trials[name] = trial(error, r)
    trials["dropped"] = trial(np.where(np.arange(400) < 4, 1e3, np.nan), np.ones(400))
    model = fit_error_model(trials)
    assert set(model.level) == set(a)
    assert model.beta == pytest.approx(0.6, abs=0.1)  # missing r are filled with the operator's mean
    predicted = model.predicted(Evidence(dict.fromkeys(a, 0.05), sure(a), 10**6))
    assert predicted["two"] - predicted["one"] == pytest.approx(1.5, abs=0.3)


def test_what_an_operator_cannot_express_is_worse_further_out() -> None:
    """sqrt(e^2 + 3 b^2): 1 without bias, _FURTHER where there is nothing but bias, and never more."""
    error, r = np.full(6, 0.1), np.full(6, 0.1)
    noisy = {n: trial(error, r) for n in ("exact", "half", "biased", "worse")}
    clean = {n: trial(error * k, r) for n, k in (("exact", 1e-9), ("half", 0.5), ("biased", 1.0), ("worse", 2.0))}
    grown = {n: float(np.exp(further_out(biased(n, noisy, clean)))) for n in noisy}
    wanted = {"exact": 1, "half": np.sqrt(1 + (_FURTHER**2 - 1) / 4), "biased": _FURTHER, "worse": _FURTHER}
    assert grown == pytest.approx(wanted, abs=1e-3)
    assert biased("half", noisy, None) == 1.0 == biased("half", noisy, {})
    before, after = fit_error_model(noisy), fit_error_model(noisy, clean)
    at = {
        n: r.predicted(Evidence({"exact": 0.1, "half": 0.1, "biased": 0.1, "worse": 0.1}, sure(noisy), 9))
        for n, r in (("b", before), ("a", after))
    }
    for n in noisy:
        assert at["a"][n] - at["b"][n] == pytest.approx(np.log(grown[n] / _FURTHER), abs=0.01)


def test_leave_one_out_errors_speak_of_what_is_not_noise() -> None:
    """An operator that is exact without noise is not thought better of for a lucky context; one with bias is."""
    rng = np.random.default_rng(4)
    log_r = rng.normal(-2, 1, 200)
    noisy = {n: trial(np.exp(log_r + 0.1 * rng.normal(size=200)), np.exp(log_r)) for n in ("exact", "biased")}
    clean = {"exact": trial(np.full(200, 1e-9), np.exp(log_r)), "biased": noisy["biased"]}
    model = fit_error_model(noisy, clean)
    before, after = (model.predicted(Evidence({"exact": r, "biased": r}, sure(noisy), 10**6)) for r in (0.1, 0.01))
    assert before["exact"] == pytest.approx(after["exact"], abs=1e-2)
    assert before["biased"] - after["biased"] == pytest.approx(model.beta * np.log(10), abs=1e-2)


def test_levels_are_drawn_together_where_the_outer_split_tells_little() -> None:
    rng = np.random.default_rng(1)
    spread = {}
    for tasks in (3, 300):
        trials = {str(k): trial(np.exp(rng.normal(0.1 * k, 1.0, tasks)), np.ones(tasks)) for k in range(8)}
        model = fit_error_model(trials)
        raw = [0.5 * np.mean(np.log(t.error)) + 0.25 * np.log(np.mean(t.error**2)) for t in trials.values()]
        spread[tasks] = np.std(list(model.level.values())) / np.std(raw)
        assert max(model.sd.values()) < np.sqrt(0.3**2 + 1.0)
    assert spread[3] < 0.7 < spread[300] < 1


def test_few_points_are_not_believed() -> None:
    model = ErrorModel({"a": 0.0}, {"a": 0.3}, {"a": np.log(0.1)}, sure("ab"), 0.0, 1.0, 0.0)
    near, far = (model.predicted(Evidence({"a": 1e-4}, {"a": 1.0}, n))["a"] for n in (1, 10**9))
    assert near == pytest.approx(np.log(0.1 / np.sqrt(2)), abs=1e-3)
    assert far == pytest.approx(np.log(1e-4), abs=0.01)


def test_an_operator_without_leave_one_out_errors_moves_with_the_others() -> None:
    level, sd, both = {"a": 0.0, "b": -1.0}, {"a": 0.3, "b": 0.3}, sure("ab")
    mute = Evidence({"a": 0.3, "b": np.nan}, both, 10**9)
    model = ErrorModel(level, sd, {"a": np.log(0.1), "b": np.nan}, both, 0.0, 1.0, 0.0)
    assert model.predicted(mute)["b"] == pytest.approx(-1 + np.log(3), abs=1e-3)
    known = ErrorModel(level, sd, {"a": np.log(0.1), "b": np.log(0.5)}, both, 0.0, 1.0, 0.0)
    assert known.predicted(mute)["b"] == pytest.approx(-1 + np.log(1.5), abs=1e-3)
    assert model.predicted(Evidence({"a": 0.3}, {"a": 1.0, "b": np.nan}, 5))["a"] < np.inf
    weighs = ErrorModel({"a": 0.0}, {"a": 0.3}, {"a": 0.0}, sure("a"), 0.0, 1.0, 0.5)
    lost = weighs.predicted(Evidence({"a": 0.3}, {"a": np.nan}, 5))
    assert lost == {"a": np.inf}  # an operator without a standard deviation comes last


def test_weights_are_the_probability_of_the_smallest_error() -> None:
    """By quadrature: P(k smallest) = int phi(e) prod_j P(e_j > e)."""
    level, sd = {"a": 0.0, "b": 0.2, "c": 0.5, "d": 9.0}, {"a": 0.3, "b": 0.6, "c": 0.3, "d": 0.3}
    model = ErrorModel(level, sd, dict.fromkeys(level, np.nan), sure(level), 0.0, 1.0, 0.0)
    weights = model.weights(Evidence(dict.fromkeys(level, np.nan), sure(level), 5))
    e = np.linspace(-5, 5, 4001)
    wanted = {}
    for k in level:
        others = np.prod([norm.sf(e, level[j], sd[j]) for j in level if j != k], axis=0)
        wanted[k] = float(np.sum(norm.pdf(e, level[k], sd[k]) * others) * (e[1] - e[0]))
    assert "d" not in weights and sum(weights.values()) == pytest.approx(1)
    assert list(weights) == sorted(weights, key=lambda k: -weights[k])
    for k in "abc":
        assert weights[k] == pytest.approx(wanted[k], abs=4 * np.sqrt(0.25 / _DRAWS))
    assert ErrorModel(level, sd, {}, {}, 0.0, 1.0, 0.0).weights(Evidence({}, {}, 5)) == {}


def test_without_a_backtest_the_context_decides() -> None:
    model = model_without_backtest(Evidence({"good": 0.01, "bad": 1.0, "mute": float("nan")}, {}, 5))
    weights = model.weights(Evidence({"good": 0.01, "bad": 1.0}, {"good": 1.0, "bad": 1.0, "mute": 1.0}, 5))
    assert list(weights) == ["good"]
