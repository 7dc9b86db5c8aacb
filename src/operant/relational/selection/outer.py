"""What the bank's outer split teaches about targets of one kind, learned once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context, RelationalOperator
from operant.relational.selection.backtest import (
    Backtest,
    Fold,
    join,
    make_folds,
    run_backtest,
    spread_of,
    toward,
)
from operant.relational.selection.choose import Calibration, Rule, calibrate, learn_rule, noise_level
from operant.relational.selection.placement import layout_of

Lesson = tuple[Backtest, Rule, Calibration]


@dataclass(eq=False)
class OuterSplit:
    """Backtests of a bank and what they teach, remembered.

    Args:
        bank: in scaled units.
        share: part of it that is taken out.
        seed: of the backtests.
    """

    bank: TaskBank
    share: float
    seed: int
    _folds: dict[tuple[Any, ...], list[Fold]] = field(default_factory=dict[tuple[Any, ...], list[Fold]])
    _backtests: dict[tuple[Any, ...], Backtest] = field(default_factory=dict[tuple[Any, ...], Backtest])
    _rules: dict[tuple[Any, ...], tuple[Rule, Calibration]] = field(
        default_factory=dict[tuple[Any, ...], tuple[Rule, Calibration]]
    )

    def teaches(
        self,
        context: Context,
        points: Array,
        left_out: Mapping[str, float],
        predictive_sd: Mapping[str, float],
        operators: Mapping[str, RelationalOperator],
    ) -> Lesson:
        """The backtest for targets like this one, at the noise that its context seems to have.

        Args:
            context: of the target.
            points: (Q, D) that matter.
            left_out: name -> leave-one-out error on the context.
            predictive_sd: name -> standard deviation at the points.
            operators: label -> an operator that is backtested.

        Raises:
            DataError: if the bank is too small, or no operator could be backtested.
        """
        direction = toward(self.bank, context)
        kind = (direction.name, context.params is not None, tuple(operators.items()))
        if kind not in self._folds:
            self._folds[kind] = make_folds(self.bank, operators, direction, self.share)
        if context.noise is not None:
            return self._lesson(kind, context, points, float(np.mean(context.noise)))
        quiet = self._lesson(kind, context, points, 0.0)
        spoken = {n: e for n, e in left_out.items() if np.isfinite(e)}
        weights = quiet[1].weights(spoken, predictive_sd, len(context.x))
        noise = noise_level(weights, spoken, spread_of(context.y), alone=quiet[0].alone)
        return self._lesson(kind, context, points, noise) if noise else quiet

    def _backtest(
        self, kind: tuple[Any, ...], context: Context, points: Array, noise: float
    ) -> tuple[tuple[Any, ...], Backtest]:
        """Made once for targets with the same layout of points; and what it is remembered by."""
        layout = layout_of(self.bank, context)
        labels = tuple(sorted(context.labels.items()))
        key = (*kind, len(context.x), layout.tobytes(), labels, points.tobytes(), noise)
        if key not in self._backtests:
            folds = self._folds[kind]
            found = join([run_backtest(s, context, points, layout=layout, noise=noise, seed=self.seed) for s in folds])
            if not found.trials:
                raise DataError("no operator could be backtested on the bank's outer split")
            self._backtests[key] = found
        return key, self._backtests[key]

    def _lesson(self, kind: tuple[Any, ...], context: Context, points: Array, noise: float) -> Lesson:
        key, backtest = self._backtest(kind, context, points, noise)
        if key not in self._rules:
            clean = self._backtest(kind, context, points, 0.0)[1].trials if noise else None
            rule = learn_rule(backtest.trials, clean, noise=noise)
            self._rules[key] = rule, calibrate(backtest, rule, clean)
        return backtest, *self._rules[key]
