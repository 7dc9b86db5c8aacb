"""Choosing operators for a target without its answers: backtest them on the bank's own outer split.

The bank tasks that lie furthest in the direction of the target are taken out, and every operator predicts them from the
rest, with context points where the target has its own, as noisy as the target's seem to be. What an operator's error
will be on the target follows from how it did on the outer split, how well it predicts the target's context points,
each from the others, and its own standard deviation:

    log e_jk = t_j + a_k + beta rho_k log(r_jk / c) + gamma log s_jk + noise,      a_k ~ N(m, tau^2)

with e_jk the error of operator k on outer task j, t_j what makes the task hard for all operators alike, r_jk the
leave-one-out error, c a typical one, and s_jk the operator's own standard deviation at the query points. The weight of
an operator is the probability that its error is the smallest. The prediction is the mean of the operators without the
quarter of the weight at either end, point by point, since the one that goes astray is not known beforehand.

With noise, a second backtest without it measures b_k, the error of what an operator cannot express. Leave-one-out
errors measure that bias, not noise: rho_k = b_k / e_k, 1 without noise. The variance of the noise is added to r_jk^2,
since an error below the noise is luck. A target lies further out than the outer split does, where b_k is larger and the
noise is not: a_k is for the error sqrt(e_k^2 + (FURTHER^2 - 1) b_k^2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from operant.core.rng import numpy_generator
from operant.relational.bank.curves import Array
from operant.relational.operators.warp.operator import CHI2_MEDIAN
from operant.relational.selection.backtest import TINY, Backtest, Trial, log_mean

BETA_GAMMA, WEIGHT = np.array([0.7, 0.0]), 100.0
"""Prior values of beta and gamma, and the weight of the prior: that of so much variation of rho log r and log s."""
FURTHER = 2.0
"""How many times larger what an operator cannot express is taken to be on a target than on the outer split."""
TRIM = 0.25
"""Part of the weight that is left out at either end of the operators' predictions."""
TRANSFER = 0.3
"""Standard deviation of what changes between the outer split and the target, an operator's log error."""
DRAWS = 1000
"""Draws from which the probability of the smallest error is taken."""
REFERENCES = 3
"""Operators that say whether a target is one of the bank's family, at most."""
MISFIT = 0.2
"""Leave-one-out errors above this part of the context's spread are misfit, not noise, unless the noise is given or what
knows nothing of the bank does not do better."""
EXPLAINED = 1e-3
"""Leave-one-out errors below this, relative to the context's spread, speak for a member of the bank's family."""
Z90 = 1.6448536269514722


@dataclass(frozen=True, eq=False)
class Rule:
    """What the outer split says of errors to come.

    Args:
        level: name -> a_k.
        sd: name -> standard deviation of that.
        left_out: name -> mean log leave-one-out error on the outer split, NaN if it has none.
        rho: name -> part of the error that is not due to noise.
        center: log c, the median of the ``left_out``.
        beta: how much of the leave-one-out error goes into the error.
        gamma: how much of the operator's own standard deviation does.
        noise: standard deviation of the values of the context.
    """

    level: dict[str, float]
    sd: dict[str, float]
    left_out: dict[str, float]
    rho: dict[str, float]
    center: float
    beta: float
    gamma: float
    noise: float = 0.0

    def predicted(
        self, left_out: Mapping[str, float], predictive_sd: Mapping[str, float], points: int
    ) -> dict[str, float]:
        """name -> predicted log error of a target with these leave-one-out errors and own standard deviations.

        A few context points can agree by chance: of so many ``points``, r^2 is taken as
        (points r^2 + r_typical^2) / (points + 1).
        """
        log_r: dict[str, float] = {}
        for name, usual in self.left_out.items():
            r = np.hypot(left_out.get(name, np.nan), self.noise)
            if np.isfinite(usual) and np.isfinite(r):
                log_r[name] = 0.5 * float(np.log((points * r**2 + np.exp(2 * usual)) / (points + 1) + TINY**2))
        moves = [r - self.left_out[n] for n, r in log_r.items()]
        typical = float(np.median(moves)) if moves else 0.0
        predicted: dict[str, float] = {}
        for n in (n for n in self.level if n in predictive_sd):
            move = log_r.get(n, self.left_out[n] + typical) - self.center
            predicted[n] = self.level[n] + self.beta * self.rho[n] * (move if np.isfinite(move) else typical)
            own = float(np.log(predictive_sd[n] + TINY)) if np.isfinite(predictive_sd[n]) else np.inf
            predicted[n] += self.gamma * own if self.gamma else 0.0
        return predicted

    def weights(
        self, left_out: Mapping[str, float], predictive_sd: Mapping[str, float], points: int
    ) -> dict[str, float]:
        """name -> probability of the smallest error, those above 1 % of the largest; sums to 1."""
        log_error = {n: e for n, e in self.predicted(left_out, predictive_sd, points).items() if n in left_out}
        if not log_error:
            return {}
        names = list(log_error)
        mean, sd = (np.array([d[n] for n in names])[:, None] for d in (log_error, self.sd))
        noise = numpy_generator(0, "best").standard_normal((len(names), DRAWS))
        share = np.bincount((mean + sd * noise).argmin(0), minlength=len(names)) / DRAWS
        kept = {n: float(w) for n, w in zip(names, share, strict=True) if w > 0.01 * share.max()}
        total = sum(kept.values())
        return {n: w / total for n, w in sorted(kept.items(), key=lambda k: -k[1])}


def flat_rule(left_out: Mapping[str, float], points: int) -> Rule:
    """Without a backtest: the error is the leave-one-out error.

    The logarithm of a root mean square of P normal errors has a standard deviation of 1 / sqrt(2 P).
    """
    return Rule(
        level=dict.fromkeys(left_out, 0.0),
        sd=dict.fromkeys(left_out, float(np.hypot(TRANSFER, 1 / np.sqrt(2 * points)))),
        left_out={n: _log(e) for n, e in left_out.items()},
        rho=dict.fromkeys(left_out, 1.0),
        center=0.0,
        beta=1.0,
        gamma=0.0,
    )


def _log(error: float) -> float:
    return float(np.log(error + TINY)) if np.isfinite(error) else float("nan")


def learn_rule(trials: Mapping[str, Trial], clean: Mapping[str, Trial] | None = None, *, noise: float = 0.0) -> Rule:
    """beta, gamma and the a_k, shrunk to each other as far as the outer split does not tell them apart.

    Args:
        trials: name -> errors on the outer split. Operators that were dropped on the way are not in the rule.
        clean: the same without noise.
        noise: standard deviation of the values of the context.
    """
    count = {n: int(np.isfinite(t.error).sum()) for n, t in trials.items()}
    names = [n for n, c in count.items() if c > max(count.values()) / 2]
    e, r, own = (
        np.stack([getattr(trials[n], f) for n in names], axis=1) for f in ("error", "left_out", "predictive_sd")
    )
    r = np.hypot(r, noise)  # (S, K), as e and own
    left_out = {n: _mean_log(v) for n, v in zip(names, r.T, strict=True)}
    rho = {n: biased(n, trials, clean) for n in names}
    mean_r = np.array(list(left_out.values()))
    spoken = np.isfinite(mean_r)
    center = float(np.median(mean_r[spoken])) if spoken.any() else 0.0
    log_e, log_own = (np.log(v + TINY) for v in (e, own))
    log_r = np.where(np.isfinite(r), np.log(r + TINY), mean_r)  # typical where it is not known
    log_r = np.nan_to_num(log_r - center) * list(rho.values())
    beta, gamma = _slopes(log_e[:, spoken], np.stack([log_r, log_own])[..., spoken])
    rest = log_e - beta * log_r - gamma * log_own
    fine = np.isfinite(rest).any(1)
    rest[fine] -= _task_effects(rest[fine])[:, None]
    raw = np.array([log_mean(np.exp(v)) for v in rest.T])
    within = max(float(np.nanmean((rest - np.nanmean(rest, 0)) ** 2)), 0.01)
    middle = float(np.median(raw[spoken])) if spoken.any() else 0.0
    between = float(np.median((raw[spoken] - middle) ** 2)) / CHI2_MEDIAN if spoken.any() else 0.0
    tau2 = max(between - within / float(np.median([count[n] for n in names])), 0.01)
    level, sd = {}, {}
    for n, value, has in zip(names, raw, spoken, strict=True):
        variance = within / count[n]
        share = tau2 / (tau2 + variance) if has else 1.0
        level[n] = middle + share * (float(value) - middle) + further_out(rho[n])
        sd[n] = float(np.sqrt(variance * share + TRANSFER**2))
    return Rule(level, sd, left_out, rho, center, beta, gamma, noise)


def _slopes(log_e: Array, features: Array) -> tuple[float, float]:
    """beta and gamma by ridge regression within operators and tasks: (S, K) errors, (2, S, K) features."""
    y, *x = (_centered(np.where(np.isfinite(log_e), v, np.nan)) for v in (log_e, *features))
    fine = np.isfinite(y)
    phi = np.stack([v[fine] for v in x])
    gram = phi @ phi.T + WEIGHT * np.eye(2)
    beta, gamma = np.clip(np.linalg.solve(gram, phi @ y[fine] + WEIGHT * BETA_GAMMA), 0.0, 1.0)
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
    return float(0.5 * np.log1p((FURTHER**2 - 1) * rho**2))


def _mean_log(x: Array) -> float:
    fine = x[np.isfinite(x)]
    return float(np.mean(np.log(fine + TINY))) if len(fine) else float("nan")


def mix(means: Sequence[Array], sds: Sequence[Array], weights: Sequence[float]) -> tuple[Array, Array]:
    """Trimmed weighted mean of the means, and the root mean square distance of the mixture from it."""
    m, s, w = np.array(means), np.array(sds), np.array(weights) / np.sum(weights)
    order = np.argsort(m, axis=0)
    share = w[order]
    above = np.cumsum(share, axis=0)
    kept = np.maximum(np.minimum(above, 1 - TRIM) - np.maximum(above - share, TRIM), 0.0)
    middle = (kept * np.take_along_axis(m, order, 0)).sum(0) / kept.sum(0)
    w = w.reshape(-1, *(1,) * (m.ndim - 1))
    return middle, np.sqrt((w * (s**2 + (m - middle) ** 2)).sum(0))


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the mixture itself did on the outer split.

    Args:
        ratio: |error| / sd of all points of all outer tasks, sorted.
        tasks: number of outer tasks.
        statistic: (S,) log leave-one-out error of the reference operators relative to the spread of the context.
        errors: (S,) root mean square errors of the mixture.
    """

    ratio: Array
    tasks: int
    statistic: Array
    errors: Array
    reference: dict[str, float] = field(default_factory=dict)
    """Reference operators, with weights: those that use the bank and do best on its outer split. A target that they
    cannot explain is not one of the bank's family, even if a polynomial can."""

    def factor(self, level: float) -> float:
        """Half width of the interval in standard deviations, the quantile of the ratio: conformal prediction.

        Without a backtest, as if errors were normal.
        """
        if not len(self.ratio):
            return float(norm.ppf(0.5 + level / 2))
        rank = min(1.0, level * (1 + 1 / max(self.tasks, 1)))
        return float(np.quantile(self.ratio, rank, method="higher"))

    def p_value(self, statistic: float) -> float:
        """Probability of so large a leave-one-out error for a member of the bank: Student's t on the logarithm."""
        s = self.statistic[np.isfinite(self.statistic)]
        if len(s) < 3 or not np.isfinite(statistic):
            return float("nan")
        sd = max(float(s.std(ddof=1)), 0.25) * np.sqrt(1 + 1 / len(s))
        return float(student.sf((statistic - s.mean()) / sd, len(s) - 1))


def calibrate(backtest: Backtest, rule: Rule, clean: Mapping[str, Trial] | None = None) -> Calibration:
    """The mixture on each outer task, with the weights that its own context gives it."""
    ratios, statistic, errors = [], [], []
    reference = choose_reference(backtest.trials, clean, alone=backtest.alone)
    trials = backtest.trials
    for j in range(len(backtest.truth)):
        did = {n: t for n, t in trials.items() if np.isfinite(t.error[j])}
        left_out, predictive_sd = (
            {n: float(getattr(t, f)[j]) for n, t in did.items()} for f in ("left_out", "predictive_sd")
        )
        weights = rule.weights(left_out, predictive_sd, backtest.points)
        seen = backtest.seen[j]
        if not weights or not seen.any():
            continue
        mean, sd = mix([trials[n].mean[j] for n in weights], [trials[n].sd[j] for n in weights], list(weights.values()))
        gap = np.abs(mean - backtest.truth[j])[seen]
        ratios.append((gap / np.maximum(sd[seen], 1e-12)).ravel())
        errors.append(float(np.sqrt(np.mean(gap**2))))
        statistic.append(misfit(reference, left_out, float(backtest.spread[j])))
    flat = np.sort(np.concatenate(ratios)) if ratios else np.empty(0)
    return Calibration(flat, len(ratios), np.array(statistic), np.array(errors), reference)


def choose_reference(
    trials: Mapping[str, Trial], clean: Mapping[str, Trial] | None = None, *, alone: frozenset[str] = frozenset()
) -> dict[str, float]:
    """At most REFERENCES operators that use the bank, with errors up to half above the smallest on the outer split.

    Args:
        trials: name -> errors on the outer split.
        clean: the same without noise.
        alone: names of the operators that do not use the bank.
    """
    error = {
        n: log_mean(t.error) + further_out(biased(n, trials, clean))
        for n, t in trials.items()
        if n not in alone and np.isfinite(t.left_out).any()
    }
    best = sorted(error, key=lambda n: error[n])[:REFERENCES]
    kept = [n for n in best if error[n] <= error[best[0]] + np.log(1.5)]
    return {n: 1 / len(kept) for n in kept}


def misfit(weights: Mapping[str, float], left_out: Mapping[str, float], spread: float) -> float:
    """log of the mixed leave-one-out error relative to the context's spread, at least log EXPLAINED."""
    used = [(w, left_out[n]) for n, w in weights.items() if np.isfinite(left_out.get(n, np.nan))]
    if not used:
        return float("nan")
    total = sum(w for w, _ in used)
    mean = np.sqrt(sum(w * e**2 for w, e in used) / total)
    return float(np.log(max(mean / (0.1 + spread), EXPLAINED)))


def noise_level(
    weights: Mapping[str, float],
    left_out: Mapping[str, float],
    spread: float,
    *,
    alone: frozenset[str] = frozenset(),
) -> float:
    """Geometric mean of the leave-one-out errors, on a grid of two steps a decade; 0 below 1e-3.

    At most MISFIT times the spread of the context, or the smallest error of the operators that know nothing of the
    bank: if a smooth curve through the points leaves less, the rest is no noise.

    Args:
        weights: name -> weight of an operator by a backtest without noise: of those that would be right then. Of all
            operators some predict a few points well by chance.
        left_out: name -> leave-one-out error, finite.
        spread: of the context.
        alone: names of the operators that know nothing of the bank.
    """
    if not weights:
        return 0.0
    mean = sum(w * np.log(left_out[n] + 1e-12) for n, w in weights.items()) / sum(weights.values())
    smooth = min((e for n, e in left_out.items() if n in alone), default=0.0)
    size = min(float(np.exp(mean)), max(MISFIT * spread, smooth))
    return 0.0 if size < 1e-3 else float(10 ** (round(2 * np.log10(size)) / 2))
