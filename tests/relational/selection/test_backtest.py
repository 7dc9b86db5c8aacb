"""The backtest against a direct loop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from operant.core.checks import DataError
from operant.relational.bank.splits import outer
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, Fitted, RelationalOperator, by_unique_name
from operant.relational.operators.baselines import Nearest
from operant.relational.operators.gp import TaskGP
from operant.relational.operators.registry import candidates
from operant.relational.selection.adaptation import loo_rmse
from operant.relational.selection.backtest import _RACE, join, run_backtest
from operant.relational.selection.folds import OUTER_TASKS, Direction, Fold, make_folds, toward
from tests.relational.selection.cases import PLAIN, bank_of, target


def test_the_backtest_is_a_loop_over_the_outer_split() -> None:
    bank = bank_of(60)
    context = target(bank, 2.3, params=np.array([2.3]))
    query = np.linspace(-1, 1, 13)[:, None]
    direction = toward(bank, context)
    (fold,) = make_folds(bank, by_unique_name(PLAIN), direction, 1 / 3)
    found = run_backtest(fold, context, query, layout=context.x, noise=0.0, seed=0)

    split = outer(bank, share=1 / 3, end="high", along=direction.along)
    chosen = [split.test.tasks[i] for i in np.unique(np.linspace(0, 19, OUTER_TASKS).astype(int))]
    assert [t.key for t in fold.tasks.tasks] == [t.key for t in chosen]
    near = np.array([min(abs(q - c) for c in context.x[:, 0]) < 1e-9 for q in query[:, 0]])
    assert near.sum() == 5
    for op in PLAIN:
        fitted = op.fit(split.train)
        for j, task in enumerate(chosen):
            values = fold.tasks.curve(j)
            inner = Context(context.x, values(context.x), task.params)
            adapted = fitted.adapt(inner)
            wanted = values(query)
            error = np.sqrt(np.mean((adapted.predict(query)[0] - wanted)[~near] ** 2))
            trial = found.trials[op.name]
            if np.isfinite(trial.error[j]):  # the race drops hopeless ones
                assert trial.error[j] == pytest.approx(error), op.name
                assert trial.loo_rmse[j] == pytest.approx(loo_rmse(adapted, inner), nan_ok=True)
            else:
                assert j >= _RACE[0] and error > 3 * found.trials["bank PCA"].error[j]
    assert found.truth == pytest.approx(fold.tasks.values(query))
    assert found.seen.tolist() == [(~near).tolist()] * OUTER_TASKS
    assert found.points == 5


def test_of_the_context_only_the_points_are_used() -> None:
    """Other values of the target: the same backtest."""
    bank = bank_of()
    context = target(bank, 2.3)
    shuffled = replace(context, y=np.random.default_rng(0).permutation(context.y))
    query = np.linspace(-1, 1, 13)[:, None]
    (fold, *_) = make_folds(bank, by_unique_name(PLAIN), toward(bank, context), 1 / 3)
    a, b = (run_backtest(fold, c, query, layout=c.x, noise=0.1, seed=0) for c in (context, shuffled))
    for name, trial in a.trials.items():
        assert np.array_equal(trial.mean, b.trials[name].mean, equal_nan=True)
    assert not np.array_equal(run_backtest(fold, context, query, layout=context.x, noise=0.1, seed=1).spread, a.spread)


def test_a_small_bank_is_backtested_from_every_cut() -> None:
    """Each outer task's error is the operator's, fitted to the tasks before the cut."""
    bank = bank_of(12)
    context, query = target(bank, 2.1, params=np.array([2.1])), np.linspace(-1, 1, 7)[:, None]
    direction = toward(bank, context)
    assert direction.along is not None
    folds = make_folds(bank, by_unique_name(PLAIN), direction, 1 / 3)
    assert [s.count for s in folds] == [6, 4, 3, 1]  # cuts at 6, 8, 9, 11
    for fold in folds:
        found = run_backtest(fold, context, query, layout=context.x, noise=0.0, seed=0)
        assert len(found.truth) == fold.count and not found.moved.any()
        for j in range(fold.count):
            held = bank.keys.index(fold.tasks.keys[j])
            known = bank.select(i for i in range(12) if i in fold_keys(fold))
            assert held not in fold_keys(fold)
            values = bank.curve(held)
            guess = Nearest().fit(known).adapt(Context(context.x, values(context.x))).predict(query)[0]
            error = np.sqrt(np.mean((guess - values(query))[found.seen[j]] ** 2))
            had = found.trials["nearest task"].error[j]
            assert had == pytest.approx(error) or (np.isnan(had) and j >= _RACE[0])  # the race drops it


def fold_keys(fold: Fold) -> set[int]:
    """Keys of the tasks that its operators know."""
    adapted = fold.operators.fitted["nearest task"].adapt(Context(np.zeros((1, 1)), np.zeros((1, 1))))
    return set(adapted._bank.keys)


def test_small_banks_are_backtested_twice() -> None:
    bank = bank_of(30)
    folds = make_folds(bank, by_unique_name(PLAIN), Direction("inside"), 1 / 3)
    context, query = target(bank, 1.5), np.linspace(-1, 1, 7)[:, None]
    each = [run_backtest(s, context, query, layout=context.x, noise=0.0, seed=0) for s in folds]
    both = join(each)
    assert [len(s.tasks) for s in folds] == [10, min(15, OUTER_TASKS)]
    assert len(both.truth) == sum(len(s.tasks) for s in folds)
    for name, trial in both.trials.items():
        parts = [r.trials[name].error if name in r.trials else np.full(len(r.truth), np.nan) for r in each]
        assert np.array_equal(trial.error, np.concatenate(parts), equal_nan=True)
    with pytest.raises(DataError, match="expected at least two known"):
        make_folds(bank_of(3), by_unique_name(PLAIN), Direction("inside"), 1 / 3)


@dataclass(frozen=True)
class _Broken(RelationalOperator):
    name = "broken"
    expresses = "nothing"

    def fit(self, bank: TaskBank) -> Fitted:
        raise CannotAdaptError("it is broken")


def test_an_operator_that_cannot_be_used_is_noted() -> None:
    bank = bank_of()
    (fold, _) = make_folds(bank, by_unique_name([*PLAIN, _Broken()]), Direction("inside"), 1 / 3)
    assert fold.operators.notes == {"broken": "it is broken"}
    context = target(bank, 2.3, points=3)
    found = run_backtest(fold, context, np.linspace(-1, 1, 5)[:, None], layout=context.x, noise=0.0, seed=0)
    assert found.notes["broken"] == "it is broken"
    names = [op.name for op in candidates(bank, params=True)]
    assert len(set(names)) == len(names)
    without = {op.name for op in candidates(bank, params=False)}
    assert {TaskGP().name, "shift * scale by parameters"} <= set(names) - without
