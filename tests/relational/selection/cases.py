"""Banks, targets and errors that the tests of the selection share."""

from __future__ import annotations

import numpy as np

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context, RelationalOperator
from operant.relational.operators.baselines import ContextMean, Interpolation, Nearest, Polynomial
from operant.relational.operators.pca import BankPCA
from operant.relational.selection.backtest import Trial


def bank_of(tasks: int = 24, *, params: bool = True, orders: bool = False) -> TaskBank:
    w = np.linspace(1, 2, tasks)
    x = np.linspace(0, 3, 13)
    bank = TaskBank.from_arrays(
        [(x, np.sin(v * x)) for v in w],
        params=w if params else None,
        labels=[{"order": i // 4} for i in range(tasks)] if orders else None,
    )
    return bank.scaled(bank.scaling)


def target(bank: TaskBank, w: float, points: int = 5, **more) -> Context:
    assert bank.units is not None
    x = np.linspace(0, 3, 13)[:: 12 // (points - 1)][:, None]
    return Context(bank.units.x_in(x), bank.units.y_in(np.sin(w * x)), **more)


PLAIN: list[RelationalOperator] = [ContextMean(), Nearest(), Interpolation(), Polynomial(), BankPCA()]


def trial(error: Array, loo: Array, predictive_sd: Array | None = None) -> Trial:
    blank = np.zeros((len(error), 1, 1))
    return Trial(blank, blank, error, loo, np.ones(len(error)) if predictive_sd is None else predictive_sd)


def sure(names) -> dict[str, float]:
    """1 for each: operators that are all as sure as the next, or whose errors are not due to noise."""
    return dict.fromkeys(names, 1.0)
