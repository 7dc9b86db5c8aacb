"""Whether the bank explains a target: the evidence for and against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from operant.core.checks import OperantError
from operant.relational.bank.csvtable import RelationalWarning
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context
from operant.relational.selection.adaptation import spread_of
from operant.relational.selection.backtest import Backtest
from operant.relational.selection.calibration import Calibration, misfit

_SIGNIFICANT = 0.05
"""p-value below which a target is said not to be a member of the bank's family."""


class NotApplicableError(OperantError):
    """The target cannot be explained by a bank task and a known transformation."""


class NotApplicableWarning(RelationalWarning):
    """The target cannot be explained by a bank task and a known transformation; it is predicted all the same."""


@dataclass(frozen=True)
class Applicability:
    """Whether a target can be explained by the bank.

    Args:
        applicable: False if the evidence speaks against it.
        score: log leave-one-out error on the context relative to its spread, of the reference operators: those that do
            best on the bank's outer split. Larger is worse. NaN with a single context point.
        p_value: probability of such a score for a member of the bank's family, with the noise that was given, or else
            the largest that the context allows; NaN if there are too few outer tasks.
        reason: "residual", "combination", "anchor coverage", "too few points", or "".
        text: the reason in a sentence.
    """

    applicable: bool
    score: float
    p_value: float
    reason: str = ""
    text: str = ""


def assess(
    bank: TaskBank, context: Context, loo_rmse: Mapping[str, float], calibration: Calibration, covered: float
) -> Applicability:
    """The verdict on a target.

    Args:
        bank: in scaled units.
        context: of the target.
        loo_rmse: name -> leave-one-out error on the context.
        calibration: of the same error on the outer split.
        covered: share of the query points where the operators use measured values.
    """
    score = misfit(calibration.reference, loo_rmse, spread_of(context.y))
    s = calibration.statistic[np.isfinite(calibration.statistic)]
    p = calibration.p_value(score)
    combined = _combination_p(bank, context)
    if combined < _SIGNIFICANT:
        text = (
            "The effects of the parameters do not add up: the context differs from their sum by more "
            f"than tasks with equal parameters differ from each other (p = {combined:.2g})."
        )
        return Applicability(False, score, combined, "combination", text)
    if len(context.x) < 2:
        return Applicability(
            True,
            score,
            p,
            "too few points",
            "One context point is not enough to test whether the bank explains the target.",
        )
    if np.isfinite(p) and p < _SIGNIFICANT:
        text = (
            f"The context points predict each other {np.exp(score - s.mean()):.1f} times worse, relative to "
            f"their spread, than those of held-out bank tasks do (p = {p:.2g})."
        )
        return Applicability(False, score, p, "residual", text)
    if covered < 0.5:
        text = f"Only {covered:.0%} of the query lies where the anchors are known; elsewhere they are continued."
        return Applicability(False, score, p, "anchor coverage", text)
    return Applicability(True, score, p, "", "Nothing speaks against a bank task and a known transformation.")


def backtest_remark(backtest: Backtest | None) -> str:
    """A caution about the evidence, if the outer tasks are not known at the target's points; otherwise empty."""
    if backtest is None:
        return (
            "Nothing could be backtested on the bank: operators are weighed by their leave-one-out errors on the "
            "context alone, and the intervals are not calibrated."
        )
    used = backtest.seen.any(1)
    moved, count = int((backtest.moved & used).sum()), int(used.sum())
    if 2 * moved <= count:
        return ""
    return (
        f"In the backtest, {moved} of the {count} outer tasks took the nearest points at which they are known, "
        "since they are not known at the points of the target."
    )


def _combination_p(bank: TaskBank, context: Context) -> float:
    """p-value of a new combination of known parameter values if effects add up; NaN for any other target.

    m_i = mu + sum_k effect_k(level of task i) + N(0, sd^2), with m_i the mean of the logarithm of the values at the
    context points (of the values themselves where some are not positive), fitted to the bank by least squares. The
    target's m is compared with what the effects give, by Student's t with the bank's residual degrees of freedom.
    """
    if context.params is None or bank.params.shape[1] < 2:
        return float("nan")
    known = bank.params
    levels = [np.unique(known[:, k]) for k in range(known.shape[1])]
    new = not (known == context.params).all(1).any()
    seen = all(v in lv for v, lv in zip(context.params, levels, strict=True))
    # Without tasks of equal parameters there is no spread to compare with.
    replicated = sum(len(lv) for lv in levels) * 2 <= len(known)
    if not (new and seen and replicated):
        return float("nan")
    units = bank.units
    values, own = bank.values(context.x), context.y[None]
    if units is not None and min(units.y_out(values).min(), units.y_out(own).min()) > 0:
        values, own = np.log(units.y_out(values)), np.log(units.y_out(own))
    elif units is None and min(values.min(), own.min()) > 0:
        values, own = np.log(values), np.log(own)
    m, target = values.mean((1, 2)), float(own.mean())
    columns = [(known[:, [k]] == lv[1:]).astype(float) for k, lv in enumerate(levels)]
    design = np.concatenate([np.ones((len(known), 1)), *columns], axis=1)
    at = np.concatenate([[1.0], *[(context.params[k] == lv[1:]).astype(float) for k, lv in enumerate(levels)]])
    effects, _, rank, _ = np.linalg.lstsq(design, m, rcond=None)
    free = len(m) - int(rank)
    if free < 2 or rank < design.shape[1]:
        return float("nan")
    sd = np.sqrt(((m - design @ effects) ** 2).sum() / free)
    lever = float(at @ np.linalg.inv(design.T @ design) @ at)
    z = (target - float(at @ effects)) / max(sd * np.sqrt(1 + lever), 1e-12)
    return float(2 * student.sf(abs(z), free))
