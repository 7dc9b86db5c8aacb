"""The mixture, its intervals and p-values, and the level of noise, by slow sums and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from operant.relational.selection.adaptation import ContextEvidence, spread_of
from operant.relational.selection.backtest import Backtest, Trial
from operant.relational.selection.calibration import (
    _EXPLAINED,
    _MISFIT,
    _REFERENCES,
    _TRIM,
    Calibration,
    _reference_operators,
    calibrate,
    misfit,
    mix,
    noise_level,
)
from operant.relational.selection.error_model import fit_error_model
from tests.relational.selection.cases import sure, trial


def test_the_mixture_is_the_trimmed_weighted_mean() -> None:
    """By slow sums over the quantile function: 1 / (1 - 2 _TRIM) int_TRIM^(1 - _TRIM) Q(u) du."""
    rng = np.random.default_rng(2)
    means, sds, w = rng.normal(size=(5, 4, 2)), rng.uniform(0.1, 1, (5, 4, 2)), rng.dirichlet(np.ones(5))
    middle, spread = mix(list(means), list(sds), (3 * w).tolist())
    u = _TRIM + (1 - 2 * _TRIM) * (np.arange(20000) + 0.5) / 20000
    for q in range(4):
        for c in range(2):
            order = np.argsort(means[:, q, c])
            wanted = means[order[np.searchsorted(np.cumsum(w[order]), u)], q, c].mean()
            assert middle[q, c] == pytest.approx(wanted, abs=1e-3)
            second = sum(w * (sds[:, q, c] ** 2 + (means[:, q, c] - middle[q, c]) ** 2))
            assert spread[q, c] == pytest.approx(np.sqrt(second))
    alone = mix([means[0]], [sds[0]], [0.3])
    assert alone[0] == pytest.approx(means[0]) and alone[1] == pytest.approx(sds[0])
    astray = [np.zeros((1, 1)), np.full((1, 1), 1e9), np.full((1, 1), 1.0)]
    assert mix(astray, [np.ones((1, 1))] * 3, [0.5, 0.2, 0.3])[0] < 1  # less than _TRIM of the weight moves nothing


def test_the_factor_is_the_conformal_quantile() -> None:
    ratio = np.sort(np.random.default_rng(3).exponential(size=500))
    c = Calibration(ratio, 20, np.empty(0), np.empty(0))
    for level in (0.5, 0.9):
        share = np.mean(ratio <= c.factor(level))
        assert level * 21 / 20 <= share <= level * 21 / 20 + 1 / 250
    assert c.factor(0.99) == ratio[-1]
    nothing = Calibration.none()
    for level in (0.5, 0.9, 0.99):  # without a backtest, as if normal
        assert nothing.factor(level) == pytest.approx(norm.ppf(0.5 + level / 2))


def test_the_p_value_is_that_of_a_new_member() -> None:
    """Uniform for members, by simulation; small for one that stands out; unknown with few outer tasks."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(2000):
        s = rng.normal(-3, 0.8, 9)
        found.append(Calibration(np.empty(0), 8, s[:8], np.empty(0)).p_value(float(s[8])))
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) < level) == pytest.approx(level, abs=4 * np.sqrt(0.25 / 2000))
    member = Calibration(np.empty(0), 8, rng.normal(-3, 0.3, 8), np.empty(0))
    assert member.p_value(0.0) < 1e-3 and np.isnan(member.p_value(float("nan")))
    assert np.isnan(Calibration(np.empty(0), 2, np.zeros(2), np.empty(0)).p_value(0.0))


def test_the_calibration_is_the_mixture_on_each_outer_task() -> None:
    rng = np.random.default_rng(5)
    s, q = 6, 7
    truth, seen = rng.normal(size=(s, q, 1)), rng.uniform(size=(s, q)) < 0.7
    trials = {}
    for name, size in (("a", 0.1), ("b", 0.3)):
        mean = truth + size * rng.normal(size=truth.shape)
        error = np.array([np.sqrt(np.mean((mean - truth)[j][seen[j]] ** 2)) for j in range(s)])
        trials[name] = Trial(mean, np.full_like(truth, size), error, error * rng.uniform(0.8, 1.2, s), np.ones(s))
    backtest = Backtest("", truth, seen, np.ones(s), np.zeros(s, dtype=bool), trials, 5)
    model = fit_error_model(trials)
    found = calibrate(backtest, model)
    ratios, errors, statistic = [], [], []
    for j in range(s):
        loo = {n: float(t.loo_rmse[j]) for n, t in trials.items()}
        w = model.weights(ContextEvidence(loo, sure(trials), 5))
        mean, sd = mix([trials[n].mean[j] for n in w], [trials[n].sd[j] for n in w], list(w.values()))
        error = np.abs(mean - truth[j])[seen[j]]
        ratios += list((error / sd[seen[j]]).ravel())
        errors.append(np.sqrt(np.mean(error**2)))
        statistic.append(misfit(found.reference, loo, 1.0))
    assert found.ratio == pytest.approx(sorted(ratios)) and found.tasks == s
    assert found.reference == _reference_operators(trials) == {"a": 1.0}
    assert found.errors == pytest.approx(errors) and found.statistic == pytest.approx(statistic)


def test_reference_operators_use_the_bank_and_are_among_the_best() -> None:
    error, r = np.array([0.1, 0.1, 0.1]), np.ones(3)
    names = ("interpolation", "polynomial", "span", "bank PCA", "shift", "scale", "trend")
    trials = {n: trial(error * (1 + 0.1 * i), r) for i, n in enumerate(names)} | {"mute": trial(error, r * np.nan)}
    alone = frozenset(names[:2])
    three = {"span": 1 / _REFERENCES, "bank PCA": 1 / _REFERENCES, "shift": 1 / _REFERENCES}
    assert _reference_operators(trials, alone=alone) == three and set(_reference_operators(trials)) == {*names[:3]}
    trials["span"] = trial(error / 9, r)
    assert _reference_operators(trials, alone=alone) == {"span": 1.0}
    assert _reference_operators({n: trials[n] for n in names[:2]}, alone=alone) == {}


def test_misfit_is_relative_to_the_spread() -> None:
    assert misfit({"a": 0.5, "b": 0.5}, {"a": 0.3, "b": 0.4}, 0.9) == pytest.approx(np.log(np.sqrt(0.125)))
    assert misfit({"a": 0.9, "b": 0.1}, {"a": 0.3, "b": float("nan")}, 0.9) == pytest.approx(np.log(0.3))
    assert misfit({"a": 1.0}, {"a": 1e-12}, 0.9) == pytest.approx(np.log(_EXPLAINED))
    assert np.isnan(misfit({"a": 1.0}, {"a": float("nan")}, 1.0))
    y = np.random.default_rng(6).normal(size=(7, 2))
    assert spread_of(y) == pytest.approx(np.sqrt(y.var(0).mean()))


def test_the_noise_level_comes_in_two_steps_a_decade() -> None:
    assert noise_level({"a": 1.0}, {"a": 0.1, "b": 0.001}, 10.0) == pytest.approx(0.1)
    assert noise_level({"a": 0.5, "b": 0.5}, {"a": 0.01, "b": 1.0}, 10.0) == pytest.approx(0.1)
    assert noise_level({"a": 1.0}, {"a": 0.9}, 0.5) == pytest.approx(10 ** (round(2 * np.log10(_MISFIT * 0.5)) / 2))
    line = frozenset({"line"})
    rough, fine = {"a": 0.9, "line": 0.4}, {"a": 0.9, "line": 1e-3}
    assert noise_level({"a": 1.0}, rough, 0.5, alone=line) == pytest.approx(10**-0.5)  # no better alone
    assert noise_level({"a": 1.0}, rough, 0.5) == noise_level({"a": 1.0}, fine, 0.5, alone=line) == pytest.approx(0.1)
    assert noise_level({"a": 1.0}, {"a": 5e-4}, 1.0) == 0.0 == noise_level({}, {}, 1.0)


def test_what_an_operator_cannot_express_counts_against_a_reference() -> None:
    """Two operators alike on the noisy outer split: the one that is exact without noise is the reference."""
    error, r = np.full(6, 0.1), np.full(6, 0.1)
    ties = {n: trial(error, r) for n in ("span", "shift")}
    assert set(_reference_operators(ties)) == {"span", "shift"}
    exact = {"span": trial(error * 1e-9, r), "shift": trial(error, r)}
    assert _reference_operators(ties, exact) == {"span": 1.0}
