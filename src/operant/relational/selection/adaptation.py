"""Operators fitted to a bank and adapted to a context together, and what the context says of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from operant.core.checks import OperantError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Adapted, CannotAdaptError, Context, Fitted, RelationalOperator


@dataclass(frozen=True, eq=False)
class FittedOperators:
    """The operators that can be fitted to a bank.

    Args:
        operators: name -> operator, those that cannot be fitted too.
        fitted: name -> the fitted operator.
        notes: name -> why an operator cannot be fitted.
    """

    operators: Mapping[str, RelationalOperator]
    fitted: Mapping[str, Fitted]
    notes: Mapping[str, str]

    @classmethod
    def of(cls, operators: Mapping[str, RelationalOperator], bank: TaskBank) -> FittedOperators:
        """Fit every operator to a bank in scaled units."""
        fitted: dict[str, Fitted] = {}
        notes: dict[str, str] = {}
        for name, operator in operators.items():
            try:
                fitted[name] = operator.fit(bank)
            except OperantError as error:
                notes[name] = str(error)
        return cls(operators, fitted, notes)

    @property
    def plain(self) -> frozenset[str]:
        """Names of the baselines."""
        return frozenset(name for name, operator in self.operators.items() if operator.plain)

    @property
    def alone(self) -> frozenset[str]:
        """Names of the operators whose curves are not made of the bank's."""
        return frozenset(name for name, operator in self.operators.items() if not operator.uses_bank)

    def adapt(self, context: Context) -> tuple[dict[str, Adapted], dict[str, str]]:
        """Name -> those that can be adapted to a context; and name -> why another one cannot be used."""
        adapted: dict[str, Adapted] = {}
        notes = dict(self.notes)
        for name, fitted in self.fitted.items():
            try:
                adapted[name] = fitted.adapt(context)
            except CannotAdaptError as error:
                notes[name] = str(error)
        return adapted, notes


@dataclass(frozen=True, eq=False)
class ContextEvidence:
    """What a context says of the errors to come.

    Args:
        loo_rmse: name -> root mean square leave-one-out error on the context; NaN if there is none.
        predictive_sd: name -> root mean square standard deviation at the query points.
        points: number of context points.
    """

    loo_rmse: Mapping[str, float]
    predictive_sd: Mapping[str, float]
    points: int

    @classmethod
    def of(cls, adapted: Mapping[str, Adapted], context: Context, query: Array) -> ContextEvidence:
        """Of adapted operators, at query points (Q, D)."""
        return cls(
            {n: loo_rmse(a, context) for n, a in adapted.items()},
            {n: rms(a.predict(query)[1]) for n, a in adapted.items()},
            len(context.x),
        )

    def refitted(self, fitted: Mapping[str, Fitted], context: Context) -> ContextEvidence:
        """The same with the leave-one-out errors of operators that are adapted anew without each point."""
        return replace(self, loo_rmse={n: _loo_rmse_refitted(fitted[n], context) for n in self.loo_rmse})

    def of_operators(self, names: Collection[str]) -> ContextEvidence:
        """The same with the leave-one-out errors of these operators alone."""
        return replace(self, loo_rmse={n: e for n, e in self.loo_rmse.items() if n in names})

    def known(self) -> ContextEvidence:
        """The same without operators that have no leave-one-out error."""
        return self.of_operators([n for n, e in self.loo_rmse.items() if np.isfinite(e)])


def rms(x: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(x**2)))


def spread_of(y: Array) -> float:
    """Root mean square distance of values (P, C) from their mean."""
    return rms(y - y.mean(0))


def loo_rmse(adapted: Adapted, context: Context) -> float:
    """Root mean square of the leave-one-out errors; NaN if there are none."""
    error = adapted.left_out()[0] - context.y
    fine = np.isfinite(error)
    return rms(error[fine]) if fine.any() else float("nan")


def _loo_rmse_refitted(fitted: Fitted, context: Context) -> float:
    """:func:`loo_rmse` by adapting anew without each point; NaN if that is impossible.

    Where an operator has about as many factors as there are points, the closed form of :meth:`Adapted.left_out`
    follows the fit to all of them, and is too small.
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
