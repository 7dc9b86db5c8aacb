"""Means of bootstrap resamples: of prompts, or of seeds and prompts at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""Enough for the 2.5 % tails: each holds 50 resamples."""
_CELLS = 4_000_000  # counts held in memory at once: 32 MB


def resampled_means(
    values: NDArray[np.float64], generator: np.random.Generator, *, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Means of a crossed bootstrap: seeds and prompts are drawn independently, with replacement.

    ``mean*[r] = sum_sp a[r,s] b[r,p] values[..., s, p] / (S P)`` with multinomial counts ``a (R, S)`` and
    ``b (R, P)``: the pigeonhole bootstrap of Owen (2007), Annals of Applied Statistics 1(2), 386-411. With S = 1 it is
    the bootstrap over prompts.

    Args:
        values: shape (..., S, P).
        generator: the source of the counts; all leading dimensions share them, so differences are paired.
        resamples: R.

    Returns:
        Shape (..., R).
    """
    # scipy.stats.bootstrap resamples one axis only; here both the seeds and the prompts are samples.
    seeds, prompts = values.shape[-2:]
    a = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)  # (R, S)
    chunk = max(1, _CELLS // prompts)
    means: list[NDArray[np.float64]] = []
    for start in range(0, resamples, chunk):
        part = a[start : start + chunk]  # (r, S)
        # Counts instead of indices: one matrix product then gives the means of a whole chunk.
        b = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=len(part))
        per_seed = values @ b.T.astype(float)  # (..., S, r)
        means.append((per_seed * part.T).sum(axis=-2) / (seeds * prompts))
    return np.concatenate(means, axis=-1)
