"""The backtest: every operator predicts the outer tasks of the bank, as the target will be predicted from the bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from operant.core.rng import numpy_generator
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, Fitted
from operant.relational.selection.adaptation import loo_rmse, rms, spread_of
from operant.relational.selection.folds import Fold
from operant.relational.selection.placement import Placement, place

# An operator so far behind gets no weight; dropping it saves the time of its other fits.
_RACE = (4, 20.0)
"""After so many tasks, operators are dropped whose error is so many times the smallest."""
TINY = 1e-6
"""Errors below this, in standard deviations of the bank, count as none."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One operator in a backtest.

    Args:
        mean: (S, Q, C) predictions; NaN for tasks that it could not be adapted to.
        sd: (S, Q, C) standard deviations.
        error: (S,) root mean square error over the query points.
        loo_rmse: (S,) root mean square leave-one-out error on the context.
        predictive_sd: (S,) root mean square standard deviation over the query points.
    """

    mean: Array
    sd: Array
    error: Array
    loo_rmse: Array
    predictive_sd: Array


@dataclass(frozen=True, eq=False)
class Backtest:
    """The predictions of every operator for S outer tasks.

    Args:
        why: which tasks were held out.
        truth: (S, Q, C) values of the outer tasks at the query points.
        seen: (S, Q) which of them count: where the task is known, and is not at a context point.
        spread: (S,) spread of the context values.
        trials: by name of the operator.
        moved: (S,) whether the target's points were moved onto the task, see
            :mod:`operant.relational.selection.placement`.
        points: number of context points.
        alone: names of operators whose curves are not made of the bank's.
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


def join(backtests: Sequence[Backtest]) -> Backtest:
    """The outer tasks of several backtests as one."""
    first = backtests[0]
    names = {n for r in backtests for n in r.trials}
    trials = {n: _join_trials([r.trials.get(n) or _blank_trial(r.truth.shape) for r in backtests]) for n in names}
    notes = {n: t for r in backtests for n, t in r.notes.items() if n not in names}
    truth, seen, spread, moved = (
        np.concatenate([getattr(r, f) for r in backtests]) for f in ("truth", "seen", "spread", "moved")
    )
    in_order = {n: trials[n] for n in sorted(names)}
    return Backtest(first.why, truth, seen, spread, moved, in_order, first.points, first.alone, notes)


def _join_trials(trials: Sequence[Trial]) -> Trial:
    return Trial(*(np.concatenate([getattr(t, f.name) for t in trials]) for f in fields(Trial)))


def _blank_trial(shape: tuple[int, ...]) -> Trial:
    """NaN for (S, Q, C)."""
    return Trial(*(np.full(s, np.nan) for s in (shape, shape, shape[0], shape[0], shape[0])))


def run_backtest(fold: Fold, context: Context, query: Array, *, layout: Array, noise: float, seed: int) -> Backtest:
    """Predict the outer split of the bank from the other tasks, as the target will be predicted from the whole bank.

    Args:
        fold: in scaled units.
        context: of the target; its values are not used.
        query: (Q, D) points that matter.
        layout: see :func:`layout_of`.
        noise: standard deviation of the values of the target's context.
        seed: of the noise and of the context points where they vary.
    """
    tasks, fitted, notes = fold.tasks, dict(fold.operators.fitted), dict(fold.operators.notes)
    rng = numpy_generator(seed, "rehearse", len(context.x), round(noise, 9))  # another word draws other noise
    s, q, c = fold.count, len(query), tasks.c
    truth, seen, spread = tasks.values(query)[:s], np.zeros((s, q), dtype=bool), np.zeros(s)
    moved = np.zeros(s, dtype=bool)
    blank = {name: _blank_trial((s, q, c)) for name in fitted}
    for j in range(s):
        # Of a dense bank only the ends of the layout are given, and points are drawn between them.
        points = layout if len(layout) == len(context.x) else rng.uniform(*layout[[0, -1]], size=context.x.shape)
        move = Placement.none(tasks.d) if tasks.callable else place(tasks.tasks[j].x, points, query)
        inner = _context(tasks, j, context, move(points), noise, rng)
        if inner is None:
            continue
        asked, moved[j] = move(query), move.moved
        if moved[j]:
            truth[j] = tasks.curve(j)(asked)
        # At a context point interpolation would be exact, which says nothing about extrapolation.
        near = np.abs(asked[:, None] - inner.x[None]).max(-1).min(1) < 1e-9
        seen[j] = tasks.covers(asked)[j] & ~near
        spread[j] = spread_of(inner.y)
        if not seen[j].any():
            continue
        for name, f in list(fitted.items()):
            _try(f, inner, asked, j, seen[j], truth[j], blank[name])
        if j + 1 == _RACE[0]:
            fitted = _race(fitted, blank, j + 1)
    # A single error does not show how much the errors of an operator vary.
    done = {name: t for name, t in blank.items() if np.isfinite(t.error).sum() >= min(2, s)}
    notes |= {name: "failed in the backtest" for name in blank if name not in done}
    return Backtest(fold.why, truth, seen, spread, moved, done, len(context.x), fold.operators.alone, notes)


def _try(f: Fitted, inner: Context, query: Array, j: int, seen: Array, truth: Array, out: Trial) -> None:
    try:
        adapted = f.adapt(inner)
    except CannotAdaptError:
        return
    out.mean[j], out.sd[j] = adapted.predict(query)
    out.error[j] = rms((out.mean[j] - truth)[seen])
    out.loo_rmse[j], out.predictive_sd[j] = loo_rmse(adapted, inner), rms(out.sd[j][seen])


def _race(fitted: dict[str, Fitted], trials: dict[str, Trial], count: int) -> dict[str, Fitted]:
    scores = {name: log_mean(trials[name].error[:count]) for name in fitted}
    best = min((v for v in scores.values() if np.isfinite(v)), default=np.inf)
    return {n: f for n, f in fitted.items() if scores[n] <= best + np.log(_RACE[1])}


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


def log_mean(error: Array) -> float:
    """The mean of log e and of log sqrt(mean e^2): large errors count, and a single one does not decide."""
    fine = error[np.isfinite(error)]
    if not len(fine):
        return np.inf
    return float(0.5 * np.mean(np.log(fine + TINY)) + 0.25 * np.log(np.mean(fine**2) + TINY**2))
