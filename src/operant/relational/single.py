"""Extrapolating a single task without a bank, by plain operators that are weighed by their leave-one-out errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from operant.core.checks import DataError
from operant.relational.adapted import AdaptedTask
from operant.relational.bank.curves import Array
from operant.relational.bank.scaling import Scaling
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context, RelationalOperator, by_unique_name
from operant.relational.selection.adaptation import ContextEvidence, FittedOperators
from operant.relational.selection.applicability import Applicability
from operant.relational.selection.choice import Choice
from operant.relational.selection.outer_split import Learned


def single_target(
    x: Array,
    y: Array,
    candidates: Callable[[TaskBank], list[RelationalOperator]],
    *,
    x_names: Sequence[str] | None,
    level: float,
    seed: int,
) -> tuple[AdaptedTask, Scaling]:
    """The adapted task of these points, and their scaling.

    Operators are fitted to a bank, so two flat tasks stand in for one; the operators used here take no curve from it.

    Args:
        x: (P, D) points.
        y: (P, C) values.
        candidates: stand-in bank -> operators to choose from.
        x_names: of the inputs, where they have any.
        level: of the intervals.
        seed: of draws.

    Raises:
        DataError: if no operator works.
    """
    scaling = Scaling.of(x.min(0), x.max(0), y)
    context = Context(scaling.x_in(x), scaling.y_in(y))
    # The stand-in tasks span the context, with slack for an input that never varies.
    ends = np.stack([context.x.min(0) - 1e-9, context.x.max(0) + 1e-9])
    bank = TaskBank.from_arrays([(ends, np.zeros((2, y.shape[1]))), (ends, np.ones((2, y.shape[1])))], x_names=x_names)
    adapted, notes = FittedOperators.of(by_unique_name(candidates(bank)), bank).adapt(context)
    if not adapted:
        raise DataError("no operator works on a single task of these points: " + "; ".join(notes.values()))
    evidence = ContextEvidence.of(adapted, context, context.x)
    target = AdaptedTask(
        key="single task",
        bank=bank,
        scaling=scaling,
        context=context,
        adapted=adapted,
        choice=Choice.of(Learned.without_backtest(evidence), evidence, frozenset(adapted), notes),
        applicability=Applicability(True, np.nan, np.nan, text="One task: there is no bank to check."),
        level=level,
        seed=seed,
    )
    return target, scaling
