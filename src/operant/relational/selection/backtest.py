"""The backtest: every operator predicts the bank's own outer split, as the target will be predicted from the bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from operant.core.checks import OperantError
from operant.core.rng import numpy_generator
from operant.relational.bank.curves import Array
from operant.relational.bank.splits import ahead, outer
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Adapted, CannotAdaptError, Context, Fitted, RelationalOperator
from operant.relational.selection.placement import Placement, place

OUTER_TASKS = 12
"""Tasks of the outer split that are predicted, at most."""
SMALL = 40
"""Banks up to this size are backtested several times."""
RACE = (4, 20.0)
"""After so many tasks, operators are dropped whose error is so many times the smallest."""
TINY = 1e-6
"""Errors below this, in standard deviations of the bank, count as none."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One operator on the outer split.

    Args:
        mean: (S, Q, C) predictions; NaN where it could not.
        sd: (S, Q, C) standard deviations.
        error: (S,) root mean square error over the query points.
        left_out: (S,) root mean square leave-one-out error on the context.
        predictive_sd: (S,) root mean square standard deviation over the query points.
    """

    mean: Array
    sd: Array
    error: Array
    left_out: Array
    predictive_sd: Array


@dataclass(frozen=True, eq=False)
class Backtest:
    """Every operator on the outer split of the bank.

    Args:
        why: how the outer split was taken.
        truth: (S, Q, C) values of the outer tasks at the query points.
        seen: (S, Q) which of them count: where the task is known.
        spread: (S,) spread of the context values.
        trials: by label of the operator.
        moved: (S,) whether the target's points were moved onto the task, which is not known at them.
        points: number of context points.
        alone: labels of operators that know nothing of the bank.
        notes: name -> why an operator could not be used.
    """

    why: str
    truth: Array
    seen: Array
    spread: Array
    moved: NDArray[np.bool_]
    trials: dict[str, Trial]
    points: int
    alone: frozenset[str] = frozenset()
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Direction:
    """Where a target lies, seen from the bank.

    Args:
        name: the same for targets that share an outer split.
        along: (F,) how far each task lies in that direction; None where it cannot be said.
    """

    name: str
    along: Array | None = None


def toward(bank: TaskBank, context: Context) -> Direction:
    """By the order of the target, its known parameters, or its values at the context points.

    Parameters are compared in standard deviations of the bank's, values in the plane of their first two principal
    components. Directions are rounded, so that neighboring targets share a backtest.
    """
    if "order" in context.labels and all("order" in t.labels for t in bank.tasks):
        return Direction("order", np.array([float(t.labels["order"]) for t in bank.tasks]))
    if context.params is not None and bank.varying.any():
        z, target = bank.standardized(bank.params), bank.standardized(context.params)
        kind = "parameters"
    else:
        values = bank.values(context.x).reshape(len(bank), -1)
        centered = values - values.mean(0)
        _, s, vt = np.linalg.svd(centered, full_matrices=False)
        kept = (s > max(1e-6 * s[0], 1e-9)) & (np.arange(len(s)) < 2)  # below, all tasks are the same but for rounding
        if not kept.any():
            return Direction("nowhere")
        axes = vt[kept] * np.where(vt[kept].sum(1) < 0, -1.0, 1.0)[:, None]
        scale = s[kept] / np.sqrt(len(bank))
        z, target = centered @ axes.T / scale, (context.y.reshape(-1) - values.mean(0)) @ axes.T / scale
        kind = "values"
    length = float(np.linalg.norm(target))
    if not length > 0.5:
        return Direction("inside")
    unit = np.round(target / np.abs(target).max())
    return Direction(f"{kind} {unit.tolist()}", z @ unit)


@dataclass(frozen=True, eq=False)
class Fold:
    """A bank without its outer split, and the operators fitted to it.

    Args:
        tasks: of the outer split.
        count: the first so many of them are predicted.
        fitted: by label.
        alone: labels of operators that know nothing of the bank.
        notes: label -> why an operator cannot be used.
        why: how the outer split was taken.
    """

    tasks: TaskBank
    count: int
    fitted: dict[str, Fitted]
    alone: frozenset[str]
    notes: dict[str, str]
    why: str


def make_folds(
    bank: TaskBank, operators: Mapping[str, RelationalOperator], direction: Direction, share: float
) -> list[Fold]:
    """Take an outer split out in this direction, and fit every operator to the rest.

    A small bank has several outer splits, see :func:`operant.relational.bank.splits.ahead`; without a direction, two.

    Raises:
        DataError: if the bank is too small.
    """
    small = len(bank) <= SMALL
    alone = frozenset(label for label, op in operators.items() if not op.uses_bank)
    if small and direction.along is not None:
        return [
            Fold(test, count, *_fitted(operators, known, alone), f"{why} along {direction.name}")
            for known, test, count, why in ahead(bank, direction.along, share=1.5 * share)
        ]
    end: Literal["both", "high"] = "both" if direction.along is None else "high"
    folds = []
    for part in (share, 1.5 * share) if small and 1.5 * share < 0.8 else (share,):
        split = outer(bank, share=part, end=end, along=direction.along)
        test = _spread(split.test, OUTER_TASKS)
        folds.append(Fold(test, len(test), *_fitted(operators, split.train, alone), split.why))
    return folds


def _fitted(
    operators: Mapping[str, RelationalOperator], bank: TaskBank, alone: frozenset[str]
) -> tuple[dict[str, Fitted], frozenset[str], dict[str, str]]:
    fitted, notes = fit_all(operators, bank)
    return fitted, alone, notes


def join(backtests: Sequence[Backtest]) -> Backtest:
    """The outer tasks of several backtests as one."""
    first = backtests[0]
    names = {n for r in backtests for n in r.trials}
    trials = {n: _join_trials([r.trials.get(n) or blank_trial(r.truth.shape) for r in backtests]) for n in names}
    notes = {n: t for r in backtests for n, t in r.notes.items() if n not in names}
    truth, seen, spread, moved = (
        np.concatenate([getattr(r, f) for r in backtests]) for f in ("truth", "seen", "spread", "moved")
    )
    in_order = {n: trials[n] for n in sorted(names)}
    return Backtest(first.why, truth, seen, spread, moved, in_order, first.points, first.alone, notes)


def _join_trials(trials: Sequence[Trial]) -> Trial:
    return Trial(*(np.concatenate([getattr(t, f.name) for t in trials]) for f in fields(Trial)))


def blank_trial(shape: tuple[int, ...]) -> Trial:
    """NaN for (S, Q, C)."""
    return Trial(*(np.full(s, np.nan) for s in (shape, shape, shape[0], shape[0], shape[0])))


def run_backtest(fold: Fold, context: Context, query: Array, *, layout: Array, noise: float, seed: int) -> Backtest:
    """Predict the outer split of the bank from its inside, as the target will be predicted from the whole.

    Args:
        fold: in scaled units.
        context: of the target; of its values nothing is used.
        query: (Q, D) points that matter.
        layout: see :func:`layout_of`.
        noise: standard deviation of the values of the target's context.
        seed: of the noise and of the context points where they vary.
    """
    tasks, fitted, notes = fold.tasks, dict(fold.fitted), dict(fold.notes)
    rng = numpy_generator(seed, "rehearse", len(context.x), round(noise, 9))
    s, q, c = fold.count, len(query), tasks.c
    truth, seen, spread = tasks.values(query)[:s], np.zeros((s, q), dtype=bool), np.zeros(s)
    moved = np.zeros(s, dtype=bool)
    blank = {name: blank_trial((s, q, c)) for name in fitted}
    for j in range(s):
        points = layout if len(layout) == len(context.x) else rng.uniform(*layout[[0, -1]], size=context.x.shape)
        move = Placement.none(tasks.d) if tasks.callable else place(tasks.tasks[j].x, points, query)
        inner = _context(tasks, j, context, move(points), noise, rng)
        if inner is None:
            continue
        asked, moved[j] = move(query), move.moved
        if moved[j]:
            truth[j] = tasks.curve(j)(asked)
        near = np.abs(asked[:, None] - inner.x[None]).max(-1).min(1) < 1e-9
        seen[j] = tasks.covers(asked)[j] & ~near
        spread[j] = spread_of(inner.y)
        if not seen[j].any():
            continue
        for name, f in list(fitted.items()):
            _try(f, inner, asked, j, seen[j], truth[j], blank[name])
        if j + 1 == RACE[0]:
            fitted = _race(fitted, blank, j + 1)
    done = {name: t for name, t in blank.items() if np.isfinite(t.error).sum() >= min(2, s)}
    notes |= {name: "failed in the backtest" for name in blank if name not in done}
    return Backtest(fold.why, truth, seen, spread, moved, done, len(context.x), fold.alone, notes)


def fit_all(operators: Mapping[str, RelationalOperator], bank: TaskBank) -> tuple[dict[str, Fitted], dict[str, str]]:
    """Those that can be fitted to the bank, by label; and why the others cannot."""
    fitted: dict[str, Fitted] = {}
    notes: dict[str, str] = {}
    for label, op in operators.items():
        try:
            fitted[label] = op.fit(bank)
        except OperantError as error:
            notes[label] = str(error)
    return fitted, notes


def adapt_all(fitted: dict[str, Fitted], context: Context) -> tuple[dict[str, Adapted], dict[str, str]]:
    """Those that can be adapted to the context, by label; and why the others cannot."""
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
    out.error[j] = rms((out.mean[j] - truth)[seen])
    out.left_out[j], out.predictive_sd[j] = loo_rmse(adapted, inner), rms(out.sd[j][seen])


def rms(x: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(x**2)))


def loo_rmse(adapted: Adapted, context: Context) -> float:
    """Root mean square of the leave-one-out errors; NaN if there are none."""
    error = adapted.left_out()[0] - context.y
    fine = np.isfinite(error)
    return rms(error[fine]) if fine.any() else float("nan")


def loo_rmse_refitted(fitted: Fitted, context: Context) -> float:
    """The same, with the operator adapted anew without each point; NaN if it cannot be.

    Where an operator has about as many factors as there are points, the closed form of :meth:`Adapted.left_out`
    follows the fit to all of them.
    """
    if len(context.x) < 2:
        return float("nan")
    error: list[Array] = []
    for i in range(len(context.x)):
        try:
            adapted = fitted.adapt(context.without(i))
        except CannotAdaptError:
            return float("nan")
        error.append(adapted.predict(context.x[i : i + 1])[0][0] - context.y[i])
    return rms(np.array(error))


def _race(fitted: dict[str, Fitted], trials: dict[str, Trial], count: int) -> dict[str, Fitted]:
    scores = {name: log_mean(trials[name].error[:count]) for name in fitted}
    best = min((v for v in scores.values() if np.isfinite(v)), default=np.inf)
    return {n: f for n, f in fitted.items() if scores[n] <= best + np.log(RACE[1])}


def _context(
    tasks: TaskBank, j: int, context: Context, x: Array, noise: float, rng: np.random.Generator
) -> Context | None:
    """Context of an outer task at those of the points ``x`` where it is known."""
    task = tasks.tasks[j]
    x = x[tasks.covers(x)[j]]
    if not len(x):
        return None
    y = tasks.values(x)[j]
    y = y + noise * rng.standard_normal(y.shape)
    known = task.params if tasks.param_names and context.params is not None else None
    labels = {**context.labels, **{k: task.labels[k] for k in context.labels if k in task.labels}}
    return Context(x, y, known, labels, context.noise)


def _spread(bank: TaskBank, limit: int) -> TaskBank:
    if len(bank) <= limit:
        return bank
    return bank.select(np.unique(np.linspace(0, len(bank) - 1, limit).astype(int)), method=bank.method)


def spread_of(y: Array) -> float:
    """Root mean square distance of values (P, C) from their mean."""
    return rms(y - y.mean(0))


def log_mean(error: Array) -> float:
    """Between the mean of the logarithm and the logarithm of the mean: large errors count, one does not decide."""
    fine = error[np.isfinite(error)]
    if not len(fine):
        return np.inf
    return float(0.5 * np.mean(np.log(fine + TINY)) + 0.25 * np.log(np.mean(fine**2) + TINY**2))
