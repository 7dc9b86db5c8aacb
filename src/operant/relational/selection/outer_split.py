"""The backtests of a bank: made once for all targets with the same direction, layout of points and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context, RelationalOperator
from operant.relational.selection.adaptation import ContextEvidence, spread_of
from operant.relational.selection.backtest import Backtest, join, run_backtest
from operant.relational.selection.calibration import Calibration, calibrate, noise_level
from operant.relational.selection.error_model import ErrorModel, fit_error_model, model_without_backtest
from operant.relational.selection.folds import Fold, make_folds, toward
from operant.relational.selection.placement import layout_of

BacktestKey = tuple[Any, ...]
"""Direction, operators, points and noise: targets with equal keys share a backtest."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What a backtest teaches about the errors on a target.

    Args:
        errors: the errors to expect.
        calibration: of the mixture.
        backtest: the source of both; None if the bank is too small for one.
    """

    errors: ErrorModel
    calibration: Calibration
    backtest: Backtest | None

    @classmethod
    def without_backtest(cls, evidence: ContextEvidence) -> Learned:
        """From the context alone."""
        return cls(model_without_backtest(evidence), Calibration.none(), None)


@dataclass(eq=False)
class OuterSplit:
    """Backtests of a bank, and what was learned from them.

    Args:
        bank: in scaled units.
        share: part of it that is held out.
        seed: of the backtests.
    """

    bank: TaskBank
    share: float
    seed: int
    _folds: dict[BacktestKey, list[Fold]] = field(default_factory=dict[BacktestKey, list[Fold]])
    _backtests: dict[BacktestKey, Backtest] = field(default_factory=dict[BacktestKey, Backtest])
    _learned: dict[BacktestKey, Learned] = field(default_factory=dict[BacktestKey, Learned])

    def learn(
        self, context: Context, query: Array, evidence: ContextEvidence, operators: Mapping[str, RelationalOperator]
    ) -> Learned:
        """Backtest the operators for targets like this one, with the noise that its context seems to have.

        Args:
            context: of the target.
            query: (Q, D) points that matter.
            evidence: of the context.
            operators: name -> an operator to backtest.

        Raises:
            DataError: if the bank is too small, or no operator could be backtested.
        """
        direction = toward(self.bank, context)
        kind = (direction.name, context.params is not None, tuple(operators.items()))
        if kind not in self._folds:
            self._folds[kind] = make_folds(self.bank, operators, direction, self.share)
        if context.noise is not None:
            return self._learn(kind, context, query, float(np.mean(context.noise)))[1]
        # For the operators that do best without noise, the leave-one-out errors on the context are noise.
        quiet, learned = self._learn(kind, context, query, 0.0)
        known = evidence.known()
        weights = learned.errors.weights(known)
        noise = noise_level(weights, known.loo_rmse, spread_of(context.y), alone=quiet.alone)
        return self._learn(kind, context, query, noise)[1] if noise else learned

    def _backtest(
        self, kind: BacktestKey, context: Context, query: Array, noise: float
    ) -> tuple[BacktestKey, Backtest]:
        """The backtest for targets with this layout of points, made once, with its key."""
        layout = layout_of(self.bank, context)
        labels = tuple(sorted(context.labels.items()))
        key = (*kind, len(context.x), layout.tobytes(), labels, query.tobytes(), noise)
        if key not in self._backtests:
            folds = self._folds[kind]
            found = join([run_backtest(f, context, query, layout=layout, noise=noise, seed=self.seed) for f in folds])
            if not found.trials:
                raise DataError("no operator could be backtested on the outer tasks of the bank")
            self._backtests[key] = found
        return key, self._backtests[key]

    def _learn(self, kind: BacktestKey, context: Context, query: Array, noise: float) -> tuple[Backtest, Learned]:
        key, backtest = self._backtest(kind, context, query, noise)
        if key not in self._learned:
            clean = self._backtest(kind, context, query, 0.0)[1].trials if noise else None
            errors = fit_error_model(backtest.trials, clean, noise=noise)
            self._learned[key] = Learned(errors, calibrate(backtest, errors, clean), backtest)
        return backtest, self._learned[key]
