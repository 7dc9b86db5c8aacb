"""The error of each operator to expect on a target, without the target's answers: learned from a backtest.

The bank tasks that lie furthest in the direction of the target are held out, and every operator predicts them from the
rest. They get context points where the target has its own, with as much noise. The error to expect on the target
follows from three things: the error in this backtest, the leave-one-out error on the target's context, and the
operator's own standard deviation:

    log e_jk = t_j + a_k + beta rho_k log(r_jk / c) + gamma log s_jk + noise,      a_k ~ N(m, tau^2)

with e_jk the error of operator k on outer task j, t_j what makes the task hard for all operators alike, r_jk the
leave-one-out error, c a typical one, and s_jk the operator's own standard deviation at the query points. The weight of
an operator is the probability that its error is the smallest.

With noise, a second backtest without it measures b_k, the error of what an operator cannot express. Leave-one-out
errors measure that bias, not noise: rho_k = b_k / e_k, 1 without noise. The variance of the noise is added to r_jk^2,
since an error below the noise is luck. A target lies further out than the outer split does, where b_k is larger and the
noise is not: a_k is for the error sqrt(e_k^2 + (_FURTHER^2 - 1) b_k^2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from operant.core.rng import numpy_generator
from operant.relational.bank.curves import Array
from operant.relational.operators.warp.prior import CHI2_MEDIAN
from operant.relational.selection.adaptation import ContextEvidence
from operant.relational.selection.backtest import TINY, Trial, log_mean

# A compromise, set on 14 development families and the curves of relaxation (LOG.md, 2026-11-26). With less weight on
# leave-one-out errors the 14 families gain, .57 instead of .59 of the best plain error; relaxation, colder, doubles.
_BETA_GAMMA, _WEIGHT = np.array([0.7, 0.0]), 100.0
"""Prior values of beta and gamma, and the weight of the prior: that of so much variation of rho log r and log s."""
_FURTHER = 2.0
"""The bias of an operator on a target over its bias on the outer split, as assumed."""
_TRANSFER = 0.3
"""Standard deviation of the change of an operator's log error from the outer split to the target, as assumed."""
_DRAWS = 1000
"""Draws from which the probability of the smallest error is taken: its standard error is at most .016."""


@dataclass(frozen=True, eq=False)
class ErrorModel:
    """The errors to expect on a target, by operator.

    Args:
        level: name -> a_k.
        sd: name -> standard deviation of that.
        log_loo: name -> mean log leave-one-out error on the outer split, NaN if it has none.
        rho: name -> part of the error that is not due to noise.
        center: log c, the median of the ``log_loo``.
        beta: how much of the leave-one-out error goes into the error.
        gamma: how much of the operator's own standard deviation does.
        noise: standard deviation of the values of the context.
    """

    level: dict[str, float]
    sd: dict[str, float]
    log_loo: dict[str, float]
    rho: dict[str, float]
    center: float
    beta: float
    gamma: float
    noise: float = 0.0

    def predicted(self, evidence: ContextEvidence) -> dict[str, float]:
        """name -> log error to expect on a target with this evidence.

        A few context points can agree by chance: with P of them, r^2 is taken as (P r^2 + r_typical^2) / (P + 1).
        """
        points, predictive_sd = evidence.points, evidence.predictive_sd
        log_r: dict[str, float] = {}
        for name, usual in self.log_loo.items():
            r = np.hypot(evidence.loo_rmse.get(name, np.nan), self.noise)
            if np.isfinite(usual) and np.isfinite(r):
                log_r[name] = 0.5 * float(np.log((points * r**2 + np.exp(2 * usual)) / (points + 1) + TINY**2))
        moves = [r - self.log_loo[n] for n, r in log_r.items()]
        typical = float(np.median(moves)) if moves else 0.0
        predicted: dict[str, float] = {}
        for n in (n for n in self.level if n in predictive_sd):
            move = log_r.get(n, self.log_loo[n] + typical) - self.center
            predicted[n] = self.level[n] + self.beta * self.rho[n] * (move if np.isfinite(move) else typical)
            own = float(np.log(predictive_sd[n] + TINY)) if np.isfinite(predictive_sd[n]) else np.inf
            predicted[n] += self.gamma * own if self.gamma else 0.0
        return predicted

    def weights(self, evidence: ContextEvidence) -> dict[str, float]:
        """name -> probability of the smallest error, scaled to a sum of 1 without those below 1 % of the largest."""
        log_error = {n: e for n, e in self.predicted(evidence).items() if n in evidence.loo_rmse}
        if not log_error:
            return {}
        names = list(log_error)
        mean, sd = (np.array([d[n] for n in names])[:, None] for d in (log_error, self.sd))
        # The seed is fixed, so that equal evidence gives equal weights.
        noise = numpy_generator(0, "best").standard_normal((len(names), _DRAWS))
        share = np.bincount((mean + sd * noise).argmin(0), minlength=len(names)) / _DRAWS
        # Every kept operator is adapted and asked at each prediction; one so light hardly moves the mean.
        kept = {n: float(w) for n, w in zip(names, share, strict=True) if w > 0.01 * share.max()}
        total = sum(kept.values())
        return {n: w / total for n, w in sorted(kept.items(), key=lambda k: -k[1])}


def model_without_backtest(evidence: ContextEvidence) -> ErrorModel:
    """The leave-one-out error is the error to expect.

    The logarithm of a root mean square of P normal errors has a standard deviation of 1 / sqrt(2 P).
    """
    names = evidence.loo_rmse
    return ErrorModel(
        level=dict.fromkeys(names, 0.0),
        sd=dict.fromkeys(names, float(np.hypot(_TRANSFER, 1 / np.sqrt(2 * evidence.points)))),
        log_loo={n: _log(e) for n, e in names.items()},
        rho=dict.fromkeys(names, 1.0),
        center=0.0,
        beta=1.0,
        gamma=0.0,
    )


def _log(error: float) -> float:
    return float(np.log(error + TINY)) if np.isfinite(error) else float("nan")


def fit_error_model(
    trials: Mapping[str, Trial], clean: Mapping[str, Trial] | None = None, *, noise: float = 0.0
) -> ErrorModel:
    """beta, gamma and the a_k, shrunk to each other as far as the outer split does not tell them apart.

    Args:
        trials: name -> errors on the outer split. Operators that were dropped on the way are left out.
        clean: the same without noise.
        noise: standard deviation of the values of the context.
    """
    count = {n: int(np.isfinite(t.error).sum()) for n, t in trials.items()}
    # The race stops operators after a few tasks; so few errors cannot be compared with those of all tasks.
    names = [n for n, c in count.items() if c > max(count.values()) / 2]
    e, r, own = (
        np.stack([getattr(trials[n], f) for n in names], axis=1) for f in ("error", "loo_rmse", "predictive_sd")
    )
    r = np.hypot(r, noise)  # (S, K), as e and own; an error below the noise is luck
    log_loo = {n: _mean_log(v) for n, v in zip(names, r.T, strict=True)}
    rho = {n: biased(n, trials, clean) for n in names}
    mean_r = np.array(list(log_loo.values()))
    spoken = np.isfinite(mean_r)
    center = float(np.median(mean_r[spoken])) if spoken.any() else 0.0
    log_e, log_own = (np.log(v + TINY) for v in (e, own))
    log_r = np.where(np.isfinite(r), np.log(r + TINY), mean_r)  # typical where it is not known
    log_r = np.nan_to_num(log_r - center) * list(rho.values())
    beta, gamma = _slopes(log_e[:, spoken], np.stack([log_r, log_own])[..., spoken])
    rest = log_e - beta * log_r - gamma * log_own
    fine = np.isfinite(rest).any(1)
    # Hard tasks are hard for all operators: without their effect, fewer tasks tell operators apart.
    rest[fine] -= _task_effects(rest[fine])[:, None]
    raw = np.array([log_mean(np.exp(v)) for v in rest.T])
    within = max(float(np.nanmean((rest - np.nanmean(rest, 0)) ** 2)), 0.01)
    # Medians, because one operator that diverges must not move the common level.
    middle = float(np.median(raw[spoken])) if spoken.any() else 0.0
    between = float(np.median((raw[spoken] - middle) ** 2)) / CHI2_MEDIAN if spoken.any() else 0.0
    tau2 = max(between - within / float(np.median([count[n] for n in names])), 0.01)
    level, sd = {}, {}
    for n, value, has in zip(names, raw, spoken, strict=True):
        variance = within / count[n]
        share = tau2 / (tau2 + variance) if has else 1.0
        level[n] = middle + share * (float(value) - middle) + further_out(rho[n])
        sd[n] = float(np.sqrt(variance * share + _TRANSFER**2))
    return ErrorModel(level, sd, log_loo, rho, center, beta, gamma, noise)


def _slopes(log_e: Array, features: Array) -> tuple[float, float]:
    """beta and gamma by ridge regression within operators and tasks: (S, K) errors, (2, S, K) features."""
    y, *x = (_centered(np.where(np.isfinite(log_e), v, np.nan)) for v in (log_e, *features))
    fine = np.isfinite(y)
    phi = np.stack([v[fine] for v in x])
    gram = phi @ phi.T + _WEIGHT * np.eye(2)
    beta, gamma = np.clip(np.linalg.solve(gram, phi @ y[fine] + _WEIGHT * _BETA_GAMMA), 0.0, 1.0)
    return float(beta), float(gamma)


def _centered(x: Array) -> Array:
    """(S, K) without the means of columns and rows; NaN are left out."""
    x = x - np.nanmean(x, axis=0)
    fine = np.isfinite(x).any(1)
    x[fine] -= np.nanmean(x[fine], axis=1, keepdims=True)
    return x


def _task_effects(rest: Array) -> Array:
    """(S,) t_j, of mean 0: the median over operators of what a task adds to their means."""
    t = np.nanmedian(rest - np.nanmean(rest, axis=0), axis=1)
    return t - t.mean()


def biased(name: str, trials: Mapping[str, Trial], clean: Mapping[str, Trial] | None) -> float:
    """Error without noise over that with it, 1 at most, and where there is no backtest without noise."""
    if clean is None or name not in clean:
        return 1.0
    return float(np.exp(min(log_mean(clean[name].error) - log_mean(trials[name].error), 0.0)))


def further_out(rho: float) -> float:
    """log of the factor by which an operator's error grows from the outer split to the target."""
    return float(0.5 * np.log1p((_FURTHER**2 - 1) * rho**2))


def _mean_log(x: Array) -> float:
    fine = x[np.isfinite(x)]
    return float(np.mean(np.log(fine + TINY))) if len(fine) else float("nan")
