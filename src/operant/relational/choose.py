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
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from operant.core.checks import OperantError
from operant.core.rng import numpy_generator
from operant.relational.baselines import BankPCA, ContextMean, Interpolation, Nearest, Polynomial
from operant.relational.curves import Array
from operant.relational.gp import ContextGP, TaskGP
from operant.relational.operators import Adapted, CannotAdaptError, Context, Fitted, RelationalOperator
from operant.relational.span import Span
from operant.relational.splits import outer
from operant.relational.tasks import TaskBank
from operant.relational.transforms import Scale, Shift, Trend, XScale, XShift, XWarp
from operant.relational.warp import CHI2_MEDIAN, Warp

BETA, BETA_WEIGHT = 1.0, 30.0
"""What beta is before the shell has spoken, with the weight of how much variation of log r."""
TRANSFER = 0.3
"""Standard deviation of what changes between the shell and the target, an operator's log error."""
DRAWS = 1000
"""Draws from which the probability of the smallest error is taken."""
JUDGES = 3
"""Operators that say whether a target is one of the bank's family, at most."""
MISFIT = 0.2
"""Leave-one-out errors above this part of the context's spread are misfit, not noise, unless the noise is given."""
SHELL_TASKS = 12
"""Tasks of the shell that are predicted, at most."""
SMALL = 40
"""Banks up to this size are rehearsed twice, with a larger shell too."""
RACE = (4, 20.0)
"""After so many tasks, operators are dropped whose error is so many times the smallest."""
TINY = 1e-6
"""Errors below this, in standard deviations of the bank, count as none."""
EXPLAINED = 1e-3
"""Leave-one-out errors below this, relative to the context's spread, speak for a member of the bank's family."""
Z90 = 1.6448536269514722

PLAIN = (ContextMean, Nearest, Interpolation, Polynomial, ContextGP, BankPCA, TaskGP)
"""Operators that a sceptic would try first."""


def candidates(bank: TaskBank, *, params: bool) -> list[RelationalOperator]:
    """What ``operator="auto"`` tries; ``params``: whether those of the target are known."""
    forms = [
        Shift(),
        Scale(),
        Shift() * Scale(),
        Shift() * Scale() * Trend(),
        Shift() * XShift(),
        Scale() * XScale(),
        Shift() * Scale() * XScale(),
        Shift() * Scale() * XWarp(),
    ]
    tried: list[RelationalOperator] = [Nearest(), Interpolation(), Polynomial(), ContextGP(tasks=16), BankPCA(), Span()]
    tried += [Warp(form) for form in forms]
    if params and bank.param_names:
        tried += [TaskGP(), *(Warp(form, follow=True) for form in (forms[2], forms[4], forms[7]))]
    return tried


@dataclass(frozen=True, eq=False)
class Trial:
    """One operator on the shell.

    Args:
        mean: (S, Q, C) predictions; NaN where it could not.
        sd: (S, Q, C) standard deviations.
        error: (S,) root mean square error over the query points.
        left_out: (S,) root mean square leave-one-out error on the context.
        gap_z: (S,) root mean square of the leave-one-out errors over their standard deviations.
    """

    mean: Array
    sd: Array
    error: Array
    left_out: Array
    gap_z: Array


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Every operator on the shell of the bank.

    Args:
        why: how the shell was taken.
        truth: (S, Q, C) values of the shell tasks at the query points.
        seen: (S, Q) which of them count: where the task is known.
        spread: (S,) spread of the context values.
        trials: by name of the operator.
        points: number of context points.
        notes: name -> why an operator could not be used.
    """

    why: str
    truth: Array
    seen: Array
    spread: Array
    trials: dict[str, Trial]
    points: int
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Direction:
    """Where a target lies, seen from the bank.

    Args:
        name: the same for targets that share a shell.
        along: (F,) how far each task lies in that direction; None where it cannot be said.
    """

    name: str
    along: Array | None = None


def toward(bank: TaskBank, context: Context) -> Direction:
    """By the order of the target, its known parameters, or its values at the context points.

    Parameters are compared in standard deviations of the bank's, values in the plane of their first two principal
    components. Directions are rounded, so that neighbouring targets share a rehearsal.
    """
    if "order" in context.facts and all("order" in t.labels for t in bank.tasks):
        return Direction("order", np.array([float(t.labels["order"]) for t in bank.tasks]))
    if context.params is not None and bank.param_names:
        sd = np.where(bank.params.std(0) > 0, bank.params.std(0), 1.0)
        z, target = (bank.params - bank.params.mean(0)) / sd, (context.params - bank.params.mean(0)) / sd
        kind = "parameters"
    else:
        values = bank.values(context.x).reshape(len(bank), -1)
        centred = values - values.mean(0)
        _, s, vt = np.linalg.svd(centred, full_matrices=False)
        kept = (s > 1e-6 * max(s[0], 1e-300)) & (np.arange(len(s)) < 2)
        if not kept.any():
            return Direction("nowhere")
        axes = vt[kept] * np.where(vt[kept].sum(1) < 0, -1.0, 1.0)[:, None]
        scale = s[kept] / np.sqrt(len(bank))
        z, target = centred @ axes.T / scale, (context.y.reshape(-1) - values.mean(0)) @ axes.T / scale
        kind = "values"
    length = float(np.linalg.norm(target))
    if not length > 0.5:
        return Direction("inside")
    unit = np.round(target / np.abs(target).max())
    return Direction(f"{kind} {unit.tolist()}", z @ unit)


@dataclass(frozen=True, eq=False)
class Stage:
    """A bank without its shell, and the operators fitted to it."""

    tasks: TaskBank
    fitted: dict[str, Fitted]
    notes: dict[str, str]
    why: str


def set_stages(
    bank: TaskBank, operators: Sequence[RelationalOperator], direction: Direction, share: float
) -> list[Stage]:
    """Take a shell out in this direction, and fit every operator to the rest; of a small bank also a larger shell.

    Raises:
        DataError: if the bank is too small.
    """
    end: Literal["both", "high"] = "both" if direction.along is None else "high"
    stages = []
    for part in (share, 1.5 * share) if len(bank) <= SMALL and 1.5 * share < 0.8 else (share,):
        split = outer(bank, share=part, end=end, along=direction.along)
        fitted, notes = fit_all(operators, split.train)
        stages.append(Stage(_spread(split.test, SHELL_TASKS), fitted, notes, split.why))
    return stages


def join(rehearsals: Sequence[Rehearsal]) -> Rehearsal:
    """The shell tasks of several rehearsals as one."""
    first = rehearsals[0]
    names = {n for r in rehearsals for n in r.trials}
    trials = {n: _join_trials([r.trials.get(n) or blank_trial(r.truth.shape) for r in rehearsals]) for n in names}
    notes = {n: t for r in rehearsals for n, t in r.notes.items() if n not in names}
    truth, seen, spread = (np.concatenate([getattr(r, f) for r in rehearsals]) for f in ("truth", "seen", "spread"))
    in_order = {n: trials[n] for n in sorted(names)}
    return Rehearsal(first.why, truth, seen, spread, in_order, first.points, notes)


def _join_trials(trials: Sequence[Trial]) -> Trial:
    return Trial(*(np.concatenate([getattr(t, f.name) for t in trials]) for f in fields(Trial)))


def blank_trial(shape: tuple[int, ...]) -> Trial:
    """NaN for (S, Q, C)."""
    return Trial(*(np.full(s, np.nan) for s in (shape, shape, shape[0], shape[0], shape[0])))


def rehearse(stage: Stage, context: Context, query: Array, *, layout: Array, noise: float, seed: int) -> Rehearsal:
    """Predict the shell of the bank from its inside, as the target will be predicted from the whole.

    Args:
        stage: in scaled units.
        context: of the target; of its values nothing is used.
        query: (Q, D) points that matter.
        layout: see :func:`layout_of`.
        noise: standard deviation of the values of the target's context.
        seed: of the noise and of the context points where they vary.
    """
    tasks, fitted, notes = stage.tasks, dict(stage.fitted), dict(stage.notes)
    rng = numpy_generator(seed, "rehearse", len(context.x), round(noise, 9))
    s, q, c = len(tasks), len(query), tasks.c
    truth, seen, spread = tasks.values(query), np.zeros((s, q), dtype=bool), np.zeros(s)
    blank = {name: blank_trial((s, q, c)) for name in fitted}
    for j in range(s):
        inner = _context(tasks, j, context, layout, noise, rng)
        if inner is None:
            continue
        near = np.abs(query[:, None] - inner.x[None]).max(-1).min(1) < 1e-9
        seen[j] = tasks.covers(query)[j] & ~near
        spread[j] = spread_of(inner.y)
        if not seen[j].any():
            continue
        for name, f in list(fitted.items()):
            _try(f, inner, query, j, seen[j], truth[j], blank[name])
        if j + 1 == RACE[0]:
            fitted = _race(fitted, blank, j + 1)
    done = {name: t for name, t in blank.items() if np.isfinite(t.error).sum() >= min(2, s)}
    notes |= {name: "failed on the shell" for name in blank if name not in done}
    return Rehearsal(stage.why, truth, seen, spread, done, len(context.x), notes)


def fit_all(operators: Sequence[RelationalOperator], bank: TaskBank) -> tuple[dict[str, Fitted], dict[str, str]]:
    """Those that can be fitted to the bank, by name; and why the others cannot."""
    fitted: dict[str, Fitted] = {}
    notes: dict[str, str] = {}
    for op in operators:
        try:
            fitted[op.name] = op.fit(bank)
        except OperantError as error:
            notes[op.name] = str(error)
    return fitted, notes


def adapt_all(fitted: dict[str, Fitted], context: Context) -> tuple[dict[str, Adapted], dict[str, str]]:
    """Those that can be adapted to the context, by name; and why the others cannot."""
    adapted: dict[str, Adapted] = {}
    notes: dict[str, str] = {}
    for name, f in fitted.items():
        try:
            adapted[name] = f.adapt(context)
        except CannotAdaptError as error:
            notes[name] = str(error)
    return adapted, notes


def _try(f: Fitted, inner: Context, query: Array, j: int, seen: Array, truth: Array, out: Trial) -> None:
    try:
        adapted = f.adapt(inner)
    except CannotAdaptError:
        return
    out.mean[j], out.sd[j] = adapted.predict(query)
    out.error[j] = np.sqrt(np.mean((out.mean[j] - truth)[seen] ** 2))
    out.left_out[j], out.gap_z[j] = gaps(adapted, inner)


def gaps(adapted: Adapted, context: Context) -> tuple[float, float]:
    """Root mean square of the leave-one-out errors, and of the same over their standard deviations; NaN if none."""
    mean, sd = adapted.left_out()
    error = mean - context.y
    fine = np.isfinite(error) & np.isfinite(sd)
    if not fine.any():
        return float("nan"), float("nan")
    return (
        float(np.sqrt(np.mean(error[fine] ** 2))),
        float(np.sqrt(np.mean((error[fine] / np.maximum(sd[fine], TINY)) ** 2))),
    )


def _race(fitted: dict[str, Fitted], trials: dict[str, Trial], count: int) -> dict[str, Fitted]:
    scores = {name: _log_mean(trials[name].error[:count]) for name in fitted}
    best = min((v for v in scores.values() if np.isfinite(v)), default=np.inf)
    return {n: f for n, f in fitted.items() if scores[n] <= best + np.log(RACE[1])}


def _context(
    tasks: TaskBank, j: int, context: Context, layout: Array, noise: float, rng: np.random.Generator
) -> Context | None:
    """Context of a shell task: the points of the layout, or as many within its ends if it has only these."""
    task, p = tasks.tasks[j], len(context.x)
    x = layout if len(layout) == p else rng.uniform(layout[0], layout[-1], size=context.x.shape)
    x = x[tasks.covers(x)[j]]
    if not len(x):
        return None
    y = tasks.values(x)[j]
    y = y + noise * rng.standard_normal(y.shape)
    known = task.params if tasks.param_names and context.params is not None else None
    facts = {**context.facts, **{k: task.labels[k] for k in context.facts if k in task.labels}}
    return Context(x, y, known, facts, context.noise)


def layout_of(bank: TaskBank, context: Context) -> Array:
    """(P, D) the context's points; (2, D) their rounded ends where the bank is dense, since then others are as good.

    All that a rehearsal takes from the points: what it gives must not depend on which target came first.
    """
    if len(context.x) > 2 and bank_is_dense(bank, len(context.x)):
        return np.stack([np.floor(2 * context.x.min(0) + 0.25), np.ceil(2 * context.x.max(0) - 0.25)]) / 2
    return context.x


def bank_is_dense(bank: TaskBank, points: int) -> bool:
    """Whether values between the points of a task are as good as measured ones."""
    return bank.callable or (bank.d == 1 and min(len(t.x) for t in bank.tasks) >= max(24, 3 * points))


def _spread(bank: TaskBank, limit: int) -> TaskBank:
    if len(bank) <= limit:
        return bank
    chosen = bank.select(np.unique(np.linspace(0, len(bank) - 1, limit).astype(int)))
    chosen.__dict__["method"] = bank.method
    return chosen


def spread_of(y: Array) -> float:
    """Root mean square distance of values (P, C) from their mean."""
    return float(np.sqrt(np.mean((y - y.mean(0)) ** 2)))


def _log_mean(error: Array) -> float:
    """Between the mean of the logarithm and the logarithm of the mean: large errors count, one does not decide."""
    fine = error[np.isfinite(error)]
    if not len(fine):
        return np.inf
    return float(0.5 * np.mean(np.log(fine + TINY)) + 0.25 * np.log(np.mean(fine**2) + TINY**2))


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
    raw = {n: _log_mean(t.error) - beta * left_out[n] for n, t in trials.items() if np.isfinite(left_out[n])}
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
            level[n], sd[n] = _log_mean(t.error), float(np.sqrt(own + TRANSFER**2))
    return Rule(level, sd, left_out, beta)


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


def calibrate(rehearsal: Rehearsal, rule: Rule) -> Calibration:
    """The mixture on each shell task, with the weights that its own context gives it."""
    ratios, statistic, errors = [], [], []
    judges = choose_judges(rehearsal.trials)
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


def choose_judges(trials: Mapping[str, Trial]) -> dict[str, float]:
    """Operators that use the bank, at most JUDGES of them, with errors up to half above the smallest on the shell."""
    alone = {op.name for op in (ContextMean(), Interpolation(), Polynomial(), ContextGP())}
    error = {n: _log_mean(t.error) for n, t in trials.items() if n not in alone and np.isfinite(t.left_out).any()}
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


def noise_level(left_out: Mapping[str, float], spread: float) -> float:
    """What the best leave-one-out error says of the noise, on a grid of two steps a decade; 0 below 1e-3.

    At most MISFIT times the spread of the context.
    """
    fine = [v for v in left_out.values() if np.isfinite(v)]
    smallest = min(*fine, MISFIT * spread) if fine else 0.0
    return 0.0 if smallest < 1e-3 else float(10 ** (round(2 * np.log10(smallest)) / 2))
