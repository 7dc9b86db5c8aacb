"""One task and no bank: its rows are the context, and plain operators, chosen by leaving out, go beyond them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from operant.core.checks import DataError
from operant.relational.adapted import AdaptedTask, Choice
from operant.relational.bank.curves import Array
from operant.relational.bank.scaling import Scaling
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context, RelationalOperator, by_unique_name
from operant.relational.selection.applicability import Applicability
from operant.relational.selection.backtest import adapt_all, fit_all, loo_rmse, rms
from operant.relational.selection.choose import Calibration, flat_rule


def single_target(
    x: Array,
    y: Array,
    operators: Callable[[TaskBank], list[RelationalOperator]],
    *,
    x_names: Sequence[str] | None,
    level: float,
    seed: int,
) -> tuple[AdaptedTask, Scaling]:
    """Plain operators chosen by their leave-one-out errors; they need no bank, so a stand-in of two flat tasks.

    Args:
        x: (P, D) points.
        y: (P, C) values.
        operators: stand-in bank -> those to choose from.
        x_names: of the inputs, where they have any.
        level: of the intervals.
        seed: of draws.

    Raises:
        DataError: if no operator works.
    """
    scaling = Scaling.of(x.min(0), x.max(0), y)
    context = Context(scaling.x_in(x), scaling.y_in(y))
    ends = np.stack([context.x.min(0) - 1e-9, context.x.max(0) + 1e-9])
    bank = TaskBank.from_arrays([(ends, np.zeros((2, y.shape[1]))), (ends, np.ones((2, y.shape[1])))], x_names=x_names)
    fitted, notes = fit_all(by_unique_name(operators(bank)), bank)
    adapted, more = adapt_all(fitted, context)
    if not adapted:
        raise DataError("no operator works on a single task of these points: " + "; ".join((notes | more).values()))
    left_out = {n: loo_rmse(a, context) for n, a in adapted.items()}
    predictive_sd = {n: rms(a.predict(context.x)[1]) for n, a in adapted.items()}
    rule = flat_rule(left_out, len(context.x))
    choice = Choice(
        weights=rule.weights(left_out, predictive_sd, len(context.x)),
        predicted={n: float(np.exp(e)) for n, e in rule.predicted(left_out, predictive_sd, len(context.x)).items()},
        left_out=left_out,
        backtest=None,
        calibration=Calibration(np.empty(0), 0, np.empty(0), np.empty(0)),
        plain=frozenset(left_out),
        notes=notes | more,
    )
    told = Applicability(True, float("nan"), float("nan"), text="One task: there is no bank to check.")
    target = AdaptedTask(
        key="single task",
        bank=bank,
        scaling=scaling,
        context=context,
        adapted=adapted,
        choice=choice,
        applicability=told,
        level=level,
        seed=seed,
    )
    return target, scaling
