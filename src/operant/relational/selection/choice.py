"""The choice of operators for one target, and the evidence on whether the bank explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.operators.base import Adapted, CannotAdaptError, Context, RelationalOperator
from operant.relational.selection.adaptation import ContextEvidence, FittedOperators
from operant.relational.selection.applicability import Applicability, assess, backtest_remark
from operant.relational.selection.backtest import Backtest
from operant.relational.selection.calibration import Calibration
from operant.relational.selection.outer_split import Learned, OuterSplit


@dataclass(frozen=True, eq=False)
class Choice:
    """How the operators were chosen.

    Args:
        weights: name -> weight in the mixture.
        predicted: name -> error expected on this target, in scaled units.
        loo_rmse: name -> root mean square leave-one-out error on the context, in scaled units.
        backtest: what the operators did on the outer split; None if there was no backtest.
        calibration: what the mixture did there.
        plain: names of the plain baselines among them.
        notes: name -> why an operator could not be used.
    """

    weights: dict[str, float]
    predicted: dict[str, float]
    loo_rmse: dict[str, float]
    backtest: Backtest | None
    calibration: Calibration
    plain: frozenset[str]
    notes: dict[str, str]

    @classmethod
    def of(cls, learned: Learned, evidence: ContextEvidence, plain: frozenset[str], notes: Mapping[str, str]) -> Choice:
        """The weights that follow from the evidence of the context; equal ones if no error can be expected."""
        names = evidence.loo_rmse
        return cls(
            weights=learned.errors.weights(evidence) or {n: 1 / len(names) for n in names},
            predicted={n: float(np.exp(e)) for n, e in learned.errors.predicted(evidence).items()},
            loo_rmse=dict(names),
            backtest=learned.backtest,
            calibration=learned.calibration,
            plain=plain,
            notes=dict(notes),
        )


def choose(
    operators: FittedOperators,
    tried: Mapping[str, RelationalOperator],
    outer: OuterSplit,
    context: Context,
    query: Array,
    *,
    fall_back: bool,
) -> tuple[dict[str, Adapted], Choice, Applicability]:
    """Adapt the operators to a target and weigh them.

    Args:
        operators: fitted to the bank.
        tried: those of them to backtest.
        outer: the bank's backtests.
        context: of the target.
        query: (Q, D) points that matter.
        fall_back: whether a target that the bank does not explain is predicted by plain baselines.

    Raises:
        CannotAdaptError: if no operator can be adapted.
    """
    adapted, notes = operators.adapt(context)
    if not adapted:
        raise CannotAdaptError("no operator can be adapted to this target: " + "; ".join(notes.values()))
    evidence = ContextEvidence.of(adapted, context, query)
    try:
        learned = outer.learn(context, query, evidence, tried)
        notes |= learned.backtest.notes if learned.backtest else {}
    except DataError as error:  # the bank is too small for an outer split
        notes["backtest"] = str(error)
        evidence = evidence.refitted(operators.fitted, context)
        learned = Learned.without_backtest(evidence)
    choice = Choice.of(learned, evidence, operators.plain, notes)
    covered = sum(w * float(adapted[n].covered(query).mean()) for n, w in choice.weights.items())
    verdict = assess(outer.bank, context, choice.loo_rmse, choice.calibration, covered)
    text = " ".join(filter(None, [verdict.text, backtest_remark(choice.backtest)]))
    if fall_back and not verdict.applicable:
        simple = learned.errors.weights(evidence.of_operators(choice.plain))
        choice = replace(choice, weights=simple or choice.weights)
    return adapted, choice, replace(verdict, text=text)
