"""The mixture of operators, its intervals and its p-values, calibrated on the backtest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from operant.relational.bank.curves import Array
from operant.relational.selection.adaptation import ContextEvidence
from operant.relational.selection.backtest import Backtest, Trial, log_mean
from operant.relational.selection.error_model import ErrorModel, biased, further_out

# This mean took the place of the median: one of the changes that made noisy families better (LOG.md, 2026-11-26).
_TRIM = 0.25
"""Part of the weight that is left out at either end of the operators' predictions."""
_REFERENCES = 3
"""Operators that say whether a target is one of the bank's family, at most."""
# The exception for smooth curves ended the false alarms on noisy members of exp and logistic; on exp they were 30 %.
_MISFIT = 0.2
"""Leave-one-out errors above this part of the context's spread are misfit, not noise, unless the noise is given or an
operator that does not use the bank does no better."""
_EXPLAINED = 1e-3
"""Leave-one-out errors below this, relative to the context's spread, speak for a member of the bank's family."""


def mix(means: Sequence[Array], sds: Sequence[Array], weights: Sequence[float]) -> tuple[Array, Array]:
    """Trimmed weighted mean of the means, and the root mean square distance of the mixture from it."""
    m, s, w = np.array(means), np.array(sds), np.array(weights) / np.sum(weights)
    order = np.argsort(m, axis=0)
    share = w[order]
    above = np.cumsum(share, axis=0)
    kept = np.maximum(np.minimum(above, 1 - _TRIM) - np.maximum(above - share, _TRIM), 0.0)
    middle = (kept * np.take_along_axis(m, order, 0)).sum(0) / kept.sum(0)
    w = w.reshape(-1, *(1,) * (m.ndim - 1))
    return middle, np.sqrt((w * (s**2 + (m - middle) ** 2)).sum(0))


@dataclass(frozen=True, eq=False)
class Calibration:
    """How the mixture did in the backtest.

    Args:
        ratio: |error| / sd of all points of all outer tasks, sorted.
        tasks: number of outer tasks.
        statistic: (S,) log leave-one-out error of the reference operators relative to the spread of the context.
        errors: (S,) root mean square errors of the mixture.
        reference: reference operators, with weights: those that use the bank and do best on its outer split. A target
            that they cannot explain is not one of the bank's family, even if a polynomial can.
    """

    ratio: Array
    tasks: int
    statistic: Array
    errors: Array
    reference: dict[str, float] = field(default_factory=dict)

    @classmethod
    def none(cls) -> Calibration:
        """Without a backtest: intervals as if errors were normal, and no p-value."""
        return cls(np.empty(0), 0, np.empty(0), np.empty(0))

    def factor(self, level: float) -> float:
        """Half width of the interval in standard deviations, the quantile of the ratio: conformal prediction.

        Without a backtest, as if errors were normal.
        """
        if not len(self.ratio):
            return float(norm.ppf(0.5 + level / 2))
        # Tasks count and not points, since errors along one curve are correlated.
        rank = min(1.0, level * (1 + 1 / max(self.tasks, 1)))
        return float(np.quantile(self.ratio, rank, method="higher"))

    def p_value(self, statistic: float) -> float:
        """Probability of so large a leave-one-out error for a member of the bank: Student's t on the logarithm."""
        s = self.statistic[np.isfinite(self.statistic)]
        if len(s) < 3 or not np.isfinite(statistic):
            return float("nan")
        # With few outer tasks that are alike by chance, almost every target would be flagged without the floor.
        sd = max(float(s.std(ddof=1)), 0.25) * np.sqrt(1 + 1 / len(s))
        return float(student.sf((statistic - s.mean()) / sd, len(s) - 1))


def calibrate(backtest: Backtest, errors: ErrorModel, clean: Mapping[str, Trial] | None = None) -> Calibration:
    """The mixture on each outer task, with the weights that its own context gives it."""
    ratios, statistic, sizes = [], [], []
    reference = _reference_operators(backtest.trials, clean, alone=backtest.alone)
    trials = backtest.trials
    for j in range(len(backtest.truth)):
        did = {n: t for n, t in trials.items() if np.isfinite(t.error[j])}
        loo, own = ({n: float(getattr(t, f)[j]) for n, t in did.items()} for f in ("loo_rmse", "predictive_sd"))
        weights = errors.weights(ContextEvidence(loo, own, backtest.points))
        seen = backtest.seen[j]
        if not weights or not seen.any():
            continue
        mean, sd = mix([trials[n].mean[j] for n in weights], [trials[n].sd[j] for n in weights], list(weights.values()))
        error = np.abs(mean - backtest.truth[j])[seen]
        ratios.append((error / np.maximum(sd[seen], 1e-12)).ravel())
        sizes.append(float(np.sqrt(np.mean(error**2))))
        statistic.append(misfit(reference, loo, float(backtest.spread[j])))
    flat = np.sort(np.concatenate(ratios)) if ratios else np.empty(0)
    return Calibration(flat, len(ratios), np.array(statistic), np.array(sizes), reference)


def _reference_operators(
    trials: Mapping[str, Trial], clean: Mapping[str, Trial] | None = None, *, alone: frozenset[str] = frozenset()
) -> dict[str, float]:
    """At most _REFERENCES operators that use the bank, with errors up to 1.5 times the smallest on the outer split.

    Args:
        trials: name -> errors on the outer split.
        clean: the same without noise.
        alone: names of the operators that do not use the bank.
    """
    error = {
        n: log_mean(t.error) + further_out(biased(n, trials, clean))
        for n, t in trials.items()
        if n not in alone and np.isfinite(t.loo_rmse).any()
    }
    best = sorted(error, key=lambda n: error[n])[:_REFERENCES]
    kept = [n for n in best if error[n] <= error[best[0]] + np.log(1.5)]
    return {n: 1 / len(kept) for n in kept}


def misfit(weights: Mapping[str, float], loo_rmse: Mapping[str, float], spread: float) -> float:
    """log of the mixed leave-one-out error relative to the context's spread, at least log _EXPLAINED."""
    used = [(w, loo_rmse[n]) for n, w in weights.items() if np.isfinite(loo_rmse.get(n, np.nan))]
    if not used:
        return float("nan")
    total = sum(w for w, _ in used)
    mean = np.sqrt(sum(w * e**2 for w, e in used) / total)
    # 0.1 of the bank's standard deviation keeps a flat context, whose spread is near zero, from looking misfit.
    return float(np.log(max(mean / (0.1 + spread), _EXPLAINED)))


def noise_level(
    weights: Mapping[str, float],
    loo_rmse: Mapping[str, float],
    spread: float,
    *,
    alone: frozenset[str] = frozenset(),
) -> float:
    """Geometric mean of the leave-one-out errors, on a grid of two steps a decade; 0 below 1e-3.

    At most _MISFIT times the spread of the context, or the smallest error of the operators that know nothing of the
    bank: if a smooth curve through the points leaves less, the rest is no noise.

    Args:
        weights: name -> weight of an operator in a backtest without noise. Other operators predict a few points well by
            chance.
        loo_rmse: name -> leave-one-out error, finite.
        spread: of the context.
        alone: names of the operators that know nothing of the bank.
    """
    if not weights:
        return 0.0
    mean = sum(w * np.log(loo_rmse[n] + 1e-12) for n, w in weights.items()) / sum(weights.values())
    smooth = min((e for n, e in loo_rmse.items() if n in alone), default=0.0)
    size = min(float(np.exp(mean)), max(_MISFIT * spread, smooth))
    # On a grid, targets with about the same noise share a backtest.
    return 0.0 if size < 1e-3 else float(10 ** (round(2 * np.log10(size)) / 2))
