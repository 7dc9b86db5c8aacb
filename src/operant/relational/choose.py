"""Choosing operators for a target without its answers: rehearse on the bank's own outer shell.

The bank tasks that lie furthest in the direction of the target are taken out, and every operator predicts them from the
rest, with context points where the target has its own, as noisy as the target's seem to be. What an operator's error
will be on the target follows from two things, how it did on the shell and how well it predicts the target's context
points, each from the others:

    log e_k = m + a_k + beta log r_k,      a_k ~ N(0, tau^2),      noise of a shell task ~ N(0, s^2)

with e_k the error and r_k the leave-one-out error of operator k. beta, the a_k and their posterior variances are
learned from the shell tasks; beta is drawn towards 1 (an operator that fits the context twice as badly errs twice as
much). The weight of an operator is the probability that its error is the smallest, and the prediction is the weighted
median of the operators, since the one that goes astray is not known beforehand.

With noise, the shell is predicted a second time without it, which says what an operator cannot express. That chooses
the judges of applicability, and the operators whose leave-one-out errors are taken for the noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from operant.core.rng import numpy_generator
from operant.relational.baselines import ContextMean, Interpolation, Polynomial
from operant.relational.curves import Array
from operant.relational.gp import ContextGP
from operant.relational.rehearsal import TINY, Rehearsal, Trial, log_mean
from operant.relational.warp import CHI2_MEDIAN

BETA, BETA_WEIGHT = 1.0, 30.0
"""What beta is before the shell has spoken, with the weight of how much variation of log r."""
GAMMA, LEAST = 0.2, 1e-4
"""How much the shell without noise counts for a judge, and the least ratio of an error there to that with noise."""
TRANSFER = 0.3
"""Standard deviation of what changes between the shell and the target, an operator's log error."""
DRAWS = 1000
"""Draws from which the probability of the smallest error is taken."""
JUDGES = 3
"""Operators that say whether a target is one of the bank's family, at most."""
MISFIT = 0.2
"""Leave-one-out errors above this part of the context's spread are misfit, not noise, unless the noise is given."""
EXPLAINED = 1e-3
"""Leave-one-out errors below this, relative to the context's spread, speak for a member of the bank's family."""
Z90 = 1.6448536269514722


@dataclass(frozen=True, eq=False)
class Rule:
    """What the shell says of errors to come.

    Args:
        level: name -> m + a_k, or the mean log error of an operator without leave-one-out errors.
        sd: name -> standard deviation of that.
        left_out: name -> mean log leave-one-out error on the shell, NaN if it has none.
        beta: how much of the leave-one-out error goes into the error.
    """

    level: dict[str, float]
    sd: dict[str, float]
    left_out: dict[str, float]
    beta: float

    def predicted(self, left_out: Mapping[str, float], points: int) -> dict[str, float]:
        """name -> predicted log error of a target with these leave-one-out errors from ``points`` points.

        A few points can agree by chance: r^2 is taken as (points r^2 + r_shell^2) / (points + 1).
        """
        log_r: dict[str, float] = {}
        for name, shell in self.left_out.items():
            r = left_out.get(name, np.nan)
            if np.isfinite(shell) and np.isfinite(r):
                log_r[name] = 0.5 * float(np.log((points * r**2 + np.exp(2 * shell)) / (points + 1) + TINY**2))
        moves = [r - self.left_out[n] for n, r in log_r.items()]
        typical = float(np.median(moves)) if moves else 0.0
        return {n: v + self.beta * log_r.get(n, typical) for n, v in self.level.items()}

    def weights(self, left_out: Mapping[str, float], points: int) -> dict[str, float]:
        """name -> probability of the smallest error, those above 1 % of the largest; sums to 1."""
        log_error = {n: e for n, e in self.predicted(left_out, points).items() if n in left_out}
        if not log_error:
            return {}
        names = list(log_error)
        mean, sd = (np.array([d[n] for n in names])[:, None] for d in (log_error, self.sd))
        noise = numpy_generator(0, "best").standard_normal((len(names), DRAWS))
        share = np.bincount((mean + sd * noise).argmin(0), minlength=len(names)) / DRAWS
        kept = {n: float(w) for n, w in zip(names, share, strict=True) if w > 0.01 * share.max()}
        total = sum(kept.values())
        return {n: w / total for n, w in sorted(kept.items(), key=lambda k: -k[1])}


def flat_rule(left_out: Mapping[str, float]) -> Rule:
    """Without a shell: the error is the leave-one-out error."""
    return Rule(
        dict.fromkeys(left_out, 0.0), dict.fromkeys(left_out, TRANSFER), {n: _log(e) for n, e in left_out.items()}, 1.0
    )


def _log(error: float) -> float:
    return float(np.log(error + TINY)) if np.isfinite(error) else float("nan")


def learn_rule(trials: dict[str, Trial]) -> Rule:
    """beta within operators, and the a_k, shrunk to each other as far as the shell does not tell them apart."""
    left_out = {n: _mean_log(t.left_out) for n, t in trials.items()}
    x, y = [], []
    for t in trials.values():
        fine = np.isfinite(t.error) & np.isfinite(t.left_out)
        if fine.sum() >= 3:
            lx, ly = np.log(t.left_out[fine] + TINY), np.log(t.error[fine] + TINY)
            x.append(lx - lx.mean())
            y.append(ly - ly.mean())
    a, b = (np.concatenate(v) if v else np.zeros(1) for v in (x, y))
    beta = float(np.clip((a @ b + BETA_WEIGHT * BETA) / (a @ a + BETA_WEIGHT), 0.0, 1.0))
    within = max(float(np.mean((b - beta * a) ** 2)), 0.01)
    raw = {n: log_mean(t.error) - beta * left_out[n] for n, t in trials.items() if np.isfinite(left_out[n])}
    count = {n: int(np.isfinite(t.error).sum()) for n, t in trials.items()}
    middle = float(np.median(list(raw.values()))) if raw else 0.0
    between = float(np.median([(v - middle) ** 2 for v in raw.values()])) / CHI2_MEDIAN if raw else 0.0
    tau2 = max(between - within / float(np.median(list(count.values()))), 0.01)
    level, sd = {}, {}
    for n, t in trials.items():
        own = within / count[n]
        if n in raw:
            level[n] = middle + tau2 / (tau2 + own) * (raw[n] - middle)
            sd[n] = float(np.sqrt(own * tau2 / (own + tau2) + TRANSFER**2))
        else:
            level[n], sd[n] = log_mean(t.error), float(np.sqrt(own + TRANSFER**2))
    return Rule(level, sd, left_out, beta)


def _unexpressed(name: str, trials: Mapping[str, Trial], clean: Mapping[str, Trial] | None) -> float:
    """gamma (log e_clean - log e_noisy) of an operator; 0 without a shell without noise."""
    if clean is None or name not in clean:
        return 0.0
    ratio = log_mean(clean[name].error) - log_mean(trials[name].error)
    return GAMMA * max(ratio, float(np.log(LEAST)))


def _mean_log(x: Array) -> float:
    fine = x[np.isfinite(x)]
    return float(np.mean(np.log(fine + TINY))) if len(fine) else float("nan")


def mix(means: Sequence[Array], sds: Sequence[Array], weights: Sequence[float]) -> tuple[Array, Array]:
    """Weighted median of the means, and the root mean square distance of the mixture from it."""
    m, s, w = np.array(means), np.array(sds), np.array(weights)
    order = np.argsort(m, axis=0)
    below = np.cumsum(w[order], axis=0) / w.sum()
    middle = np.take_along_axis(np.take_along_axis(m, order, 0), (below >= 0.5).argmax(0)[None], 0)[0]
    w = w.reshape(-1, *(1,) * (m.ndim - 1)) / w.sum()
    return middle, np.sqrt((w * (s**2 + (m - middle) ** 2)).sum(0))


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the mixture itself did on the shell.

    Args:
        ratio: |error| / sd of all points of all shell tasks, sorted.
        tasks: number of shell tasks.
        statistic: (S,) log leave-one-out error of the judges relative to the spread of the context.
        errors: (S,) root mean square errors of the mixture.
    """

    ratio: Array
    tasks: int
    statistic: Array
    errors: Array
    judges: dict[str, float] = field(default_factory=dict)
    """Operators that use the bank and do best on its shell, with weights: a target that they cannot explain is not one
    of the bank's family, even if a polynomial can."""

    def factor(self, level: float) -> float:
        """Half width of the interval in standard deviations, the quantile of the ratio: conformal prediction.

        Without a shell, as if errors were normal.
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


def calibrate(rehearsal: Rehearsal, rule: Rule, clean: Mapping[str, Trial] | None = None) -> Calibration:
    """The mixture on each shell task, with the weights that its own context gives it."""
    ratios, statistic, errors = [], [], []
    judges = choose_judges(rehearsal.trials, clean)
    trials = rehearsal.trials
    for j in range(len(rehearsal.truth)):
        left_out = {n: float(t.left_out[j]) for n, t in trials.items() if np.isfinite(t.error[j])}
        weights = rule.weights(left_out, rehearsal.points)
        seen = rehearsal.seen[j]
        if not weights or not seen.any():
            continue
        mean, sd = mix([trials[n].mean[j] for n in weights], [trials[n].sd[j] for n in weights], list(weights.values()))
        gap = np.abs(mean - rehearsal.truth[j])[seen]
        ratios.append((gap / np.maximum(sd[seen], 1e-12)).ravel())
        errors.append(float(np.sqrt(np.mean(gap**2))))
        statistic.append(misfit(judges, left_out, float(rehearsal.spread[j])))
    flat = np.sort(np.concatenate(ratios)) if ratios else np.empty(0)
    return Calibration(flat, len(ratios), np.array(statistic), np.array(errors), judges)


def choose_judges(trials: Mapping[str, Trial], clean: Mapping[str, Trial] | None = None) -> dict[str, float]:
    """Operators that use the bank, at most JUDGES of them, with errors up to half above the smallest on the shell."""
    alone = {op.name for op in (ContextMean(), Interpolation(), Polynomial(), ContextGP())}
    error = {
        n: log_mean(t.error) + _unexpressed(n, trials, clean)
        for n, t in trials.items()
        if n not in alone and np.isfinite(t.left_out).any()
    }
    best = sorted(error, key=lambda n: error[n])[:JUDGES]
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


def noise_level(weights: Mapping[str, float], left_out: Mapping[str, float], spread: float) -> float:
    """Geometric mean of the leave-one-out errors, on a grid of two steps a decade; 0 below 1e-3.

    At most MISFIT times the spread of the context.

    Args:
        weights: name -> weight of an operator by a rehearsal without noise: of those that would be right then. Of all
            operators some predict a few points well by chance.
        left_out: name -> leave-one-out error, finite.
        spread: of the context.
    """
    if not weights:
        return 0.0
    mean = sum(w * np.log(left_out[n] + 1e-12) for n, w in weights.items()) / sum(weights.values())
    size = min(float(np.exp(mean)), MISFIT * spread)
    return 0.0 if size < 1e-3 else float(10 ** (round(2 * np.log10(size)) / 2))
