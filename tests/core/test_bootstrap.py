"""The bootstrap of seeds and prompts against its exact variance."""

from __future__ import annotations

import numpy as np
import pytest

from operant.core import bootstrap
from operant.core.bootstrap import resampled_means


def crossed_variance(values: np.ndarray) -> float:
    """The exact variance of the crossed bootstrap mean of values (S, P), over all resamples.

    With multinomial counts ``E[a_s a_t] = 1 - 1/S + [s = t]``, and likewise for prompts.
    """
    seeds, prompts = values.shape
    s, p = 1 - 1 / seeds, 1 - 1 / prompts
    second = (
        s * p * values.sum() ** 2 + s * (values.sum(0) ** 2).sum() + p * (values.sum(1) ** 2).sum() + (values**2).sum()
    )
    return second / values.size**2 - values.mean() ** 2


@pytest.mark.parametrize("shape", [(1, 50), (3, 40), (12, 7), (2, 1)])
def test_crossed_bootstrap_has_its_exact_variance(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=shape) + generator.normal(size=(shape[0], 1))
    means = resampled_means(values, np.random.default_rng(0), resamples=40_000)
    assert means.var() == pytest.approx(crossed_variance(values), rel=0.05)
    error = np.sqrt(crossed_variance(values) / 40_000)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * error)


def test_crossed_variance_is_the_sum_of_its_components() -> None:
    generator = np.random.default_rng(2)
    of_seed = generator.normal(0, 0.05, (40, 1))
    of_prompt = generator.normal(0, 0.3, (1, 900))
    values = of_seed + of_prompt
    components = of_seed.var() / 40 + of_prompt.var() / 900
    assert resampled_means(values, np.random.default_rng(0), resamples=10_000).var() == pytest.approx(
        components, rel=0.05
    )


def test_chunks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=(2, 3, 50))
    whole = resampled_means(values, np.random.default_rng(0), resamples=64)
    monkeypatch.setattr(bootstrap, "_CELLS", 50 * 7)
    np.testing.assert_allclose(resampled_means(values, np.random.default_rng(0), resamples=64), whole, rtol=1e-12)
