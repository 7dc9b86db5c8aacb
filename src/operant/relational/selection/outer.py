"""What the bank's outer shell teaches about targets of one kind, learned once."""

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
    Rehearsal,
    Stage,
    join,
    rehearse,
    set_stages,
    spread_of,
    toward,
)
from operant.relational.selection.choose import Calibration, Rule, calibrate, learn_rule, noise_level
from operant.relational.selection.placement import layout_of

Lesson = tuple[Rehearsal, Rule, Calibration]


@dataclass(eq=False)
class Shell:
    """Rehearsals of a bank and what they teach, remembered.

    Args:
        bank: in scaled units.
        share: part of it that is taken out.
        seed: of the rehearsals.
    """

    bank: TaskBank
    share: float
    seed: int
    _stages: dict[tuple[Any, ...], list[Stage]] = field(default_factory=dict[tuple[Any, ...], list[Stage]])
    _rehearsals: dict[tuple[Any, ...], Rehearsal] = field(default_factory=dict[tuple[Any, ...], Rehearsal])
    _rules: dict[tuple[Any, ...], tuple[Rule, Calibration]] = field(
        default_factory=dict[tuple[Any, ...], tuple[Rule, Calibration]]
    )

    def teaches(
        self,
        context: Context,
        points: Array,
        left_out: Mapping[str, float],
        doubt: Mapping[str, float],
        operators: Mapping[str, RelationalOperator],
    ) -> Lesson:
        """The rehearsal for targets like this one, at the noise that its context seems to have.

        Args:
            context: of the target.
            points: (Q, D) that matter.
            left_out: name -> leave-one-out error on the context.
            doubt: name -> standard deviation at the points.
            operators: label -> an operator that is rehearsed.

        Raises:
            DataError: if the bank is too small, or no operator could be rehearsed.
        """
        direction = toward(self.bank, context)
        kind = (direction.name, context.params is not None, tuple(operators.items()))
        if kind not in self._stages:
            self._stages[kind] = set_stages(self.bank, operators, direction, self.share)
        if context.noise is not None:
            return self._lesson(kind, context, points, float(np.mean(context.noise)))
        quiet = self._lesson(kind, context, points, 0.0)
        spoken = {n: e for n, e in left_out.items() if np.isfinite(e)}
        weights = quiet[1].weights(spoken, doubt, len(context.x))
        noise = noise_level(weights, spoken, spread_of(context.y), alone=quiet[0].alone)
        return self._lesson(kind, context, points, noise) if noise else quiet

    def _rehearsal(
        self, kind: tuple[Any, ...], context: Context, points: Array, noise: float
    ) -> tuple[tuple[Any, ...], Rehearsal]:
        """Made once for targets with the same layout of points; and what it is remembered by."""
        layout = layout_of(self.bank, context)
        facts = tuple(sorted(context.facts.items()))
        key = (*kind, len(context.x), layout.tobytes(), facts, points.tobytes(), noise)
        if key not in self._rehearsals:
            stages = self._stages[kind]
            found = join([rehearse(s, context, points, layout=layout, noise=noise, seed=self.seed) for s in stages])
            if not found.trials:
                raise DataError("no operator could be rehearsed on the bank's shell")
            self._rehearsals[key] = found
        return key, self._rehearsals[key]

    def _lesson(self, kind: tuple[Any, ...], context: Context, points: Array, noise: float) -> Lesson:
        key, rehearsal = self._rehearsal(kind, context, points, noise)
        if key not in self._rules:
            clean = self._rehearsal(kind, context, points, 0.0)[1].trials if noise else None
            rule = learn_rule(rehearsal.trials, clean, noise=noise)
            self._rules[key] = rule, calibrate(rehearsal, rule, clean)
        return rehearsal, *self._rules[key]
