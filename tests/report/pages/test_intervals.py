"""The intervals of the page: closed forms, and how often they hold the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_1samp

from operant.core.bootstrap import resampled_means
from operant.report.pages.train.load import load_run
from operant.report.pages.train.tables import curves, intervals
from tests.report.pages import report_runs

DEMO = (0.020, 0.050, 0.19)
"""Standard deviations of seeds, prompts and the rest in the demo's gain at pass@64, of three seeds."""


def drawn(runs: int, seeds: int, prompts: int, spread: tuple[float, float, float]) -> np.ndarray:
    """(runs, S, P) gains around 0."""
    generator = np.random.default_rng(0)
    seed, prompt, rest = spread
    of_seed = generator.normal(0, seed, (runs, seeds, 1))
    of_prompt = generator.normal(0, prompt, (runs, 1, prompts))
    return of_seed + of_prompt + generator.normal(0, rest, (runs, seeds, prompts))


def test_one_seed_is_the_t_interval_over_prompts() -> None:
    gain = np.random.default_rng(0).normal(0.03, 0.2, (1, 50))
    (interval,) = intervals(gain[None])
    expected = ttest_1samp(gain[0], 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_prompts_that_add_nothing_leave_the_t_interval_over_seeds() -> None:
    seeds = np.array([0.077, 0.050, 0.033])
    (interval,) = intervals(np.broadcast_to(seeds[:, None], (3, 20))[None])
    expected = ttest_1samp(seeds, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_seeds_that_agree_leave_the_interval_over_prompts() -> None:
    prompts = np.random.default_rng(1).normal(size=30)
    (interval,) = intervals(np.broadcast_to(prompts, (4, 30))[None])
    assert interval.high - interval.mean == pytest.approx(t(29).ppf(0.975) * prompts.std(ddof=1) / 30**0.5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 10**6))
def test_intervals_hold_their_mean_and_scale(s: int, p: int, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0, 1, (2, s, p))
    scaled = intervals(-2 * values)
    for slab, i, j in zip(values, intervals(values), scaled, strict=True):
        assert i.mean == pytest.approx(np.mean(slab), abs=1e-12) and i.low <= i.mean <= i.high
        assert (j.low, j.high) == pytest.approx((-2 * i.high, -2 * i.low), abs=1e-12)
        assert s * p > 1 or i.low == i.high


@pytest.mark.parametrize(("seeds", "bootstrap"), [(3, 0.81), (5, 0.86), (8, 0.91)])
def test_coverage_with_the_spread_of_the_demo(seeds: int, bootstrap: float) -> None:
    """95 % up to simulation noise; the bootstrap of seeds and prompts falls short."""
    thin = (100 / 1500) ** 0.5
    spread = (DEMO[0], DEMO[1] * thin, DEMO[2] * thin)  # 100 prompts that add as much as 1,500
    runs = drawn(1500, seeds, 100, spread)
    held = np.mean([i.low <= 0 <= i.high for i in intervals(runs)])
    assert 0.93 < held < 0.975
    low, high = np.quantile(resampled_means(runs[:500], np.random.default_rng(1), resamples=500), [0.025, 0.975], -1)
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(bootstrap, abs=0.05) and bootstrap < 0.93


@pytest.mark.parametrize("spread", [(0.0, 0.05, 0.19), (0.0, 0.1, 0.05), (0.05, 0.0, 0.05), (0.01, 0.1, 0.1)])
def test_coverage_is_never_short(spread: tuple[float, float, float]) -> None:
    for seeds in (3, 5, 8):
        assert np.mean([i.low <= 0 <= i.high for i in intervals(drawn(1500, seeds, 60, spread))]) > 0.93


def test_the_interval_of_a_share_stays_within_0_and_1(tmp_path: Path) -> None:
    report_runs.make(tmp_path, {"ce": 0.0, "pass@16": 0.3}, seeds=(0, 1))
    means = curves(load_run(tmp_path))
    assert all(0 <= i.low <= i.mean <= i.high <= 1 for i in means.values())
