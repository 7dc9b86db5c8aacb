"""One unseen task, explained from its context, in the units of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from operant.core.checks import InputError
from operant.relational.bank.curves import Array
from operant.relational.bank.reading import matrix
from operant.relational.bank.scaling import Scaling
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Adapted, Context, Decomposition
from operant.relational.operators.warp.operator import Z90
from operant.relational.records import anchor_record, bank_record, decomposition_record
from operant.relational.selection.applicability import Applicability
from operant.relational.selection.calibration import mix
from operant.relational.selection.choice import Choice


class AdaptedTask:
    """The prediction and explanation of one unseen task. Made by :meth:`Extrapolator.adapt`.

    Attributes:
        operator_: names of the operators in the mixture, the heaviest first.
        decompositions_: ranked (anchor, transformation, residual, weight) of the mixture, in the data's units.
        applicable_: whether the bank explains the target.
    """

    def __init__(
        self,
        *,
        key: Any,
        bank: TaskBank,
        scaling: Scaling,
        context: Context,
        adapted: Mapping[str, Adapted],
        choice: Choice,
        applicability: Applicability,
        level: float,
        seed: int,
    ) -> None:
        self.key, self._bank, self._scaling, self._context = key, bank, scaling, context
        self._adapted, self.choice_, self._applicability = dict(adapted), choice, applicability
        self.level, self._seed = level, seed
        self.operator_ = " + ".join(choice.weights)
        self.decompositions_ = self._decompositions()
        self.applicable_ = applicability.applicable

    def __repr__(self) -> str:
        state = "applicable" if self.applicable_ else f"not applicable ({self._applicability.reason})"
        return f"AdaptedTask({self.key!r}, {len(self._context.x)} context points, {self.operator_}, {state})"

    def _points(self, x: Any) -> Array:
        """(Q, D) points of an array or a data frame."""
        points = matrix("query points", x, expected=self._bank.x_names)
        if points.shape[1] != self._context.x.shape[1] or not len(points):
            raise InputError(
                f"expected points (Q, {self._context.x.shape[1]}) as in the context, at least one, got {np.shape(x)}."
            )
        return points

    def _inside(self, x: Any) -> Array:
        return self._scaling.x_in(self._points(x))

    def _raw(self, x: Array) -> tuple[Array, Array]:
        """(Q, C) mean and uncalibrated standard deviation of the mixture, scaled."""
        answers = [self._adapted[n].predict(x) for n in self.choice_.weights]
        return mix([m for m, _ in answers], [s for _, s in answers], list(self.choice_.weights.values()))

    def predict(self, x: ArrayLike, return_std: bool = False) -> Any:
        """The predicted curve.

        Args:
            x: (Q,) or (Q, D) points.
            return_std: whether to return a standard deviation too: half the width of the calibrated 90 % interval over
                1.645.

        Returns:
            (Q, C) values, or (Q,) where the bank's were; and the same of standard deviations.

        Raises:
            InputError: for points of another dimension, NaN or infinities.
        """
        mean, sd = self._raw(self._inside(x))
        mean = self._scaling.y_out(mean)
        std = sd * self._scaling.y_sd * self.choice_.calibration.factor(0.9) / Z90
        if mean.shape[1] == 1:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean

    def each(self, x: ArrayLike) -> dict[str, Array]:
        """name -> (Q,) or (Q, C) prediction of each operator alone, also of those without weight."""
        points = self._inside(x)
        values = {n: self._scaling.y_out(a.predict(points)[0]) for n, a in self._adapted.items()}
        return {n: v[:, 0] if v.shape[1] == 1 else v for n, v in values.items()}

    def interval(self, x: ArrayLike, level: float | None = None) -> tuple[Array, Array]:
        """Lower and upper ends, shaped like the prediction; they hold with probability ``level`` on the outer split."""
        chosen = self.level if level is None else level
        if not 0 < chosen < 1:
            raise InputError(f"level must lie between 0 and 1, got {level}.")
        mean, sd = self._raw(self._inside(x))
        half = sd * self.choice_.calibration.factor(chosen)
        low, high = (self._scaling.y_out(m) for m in (mean - half, mean + half))
        return (low[:, 0], high[:, 0]) if low.shape[1] == 1 else (low, high)

    def sample(self, x: ArrayLike, n: int = 1) -> Array:
        """(n, Q) or (n, Q, C) curves: an operator by weight, then a draw of its posterior; seeded."""
        points = self._inside(x)
        rng = np.random.default_rng(self._seed)
        names, weights = list(self.choice_.weights), np.array(list(self.choice_.weights.values()))
        # Samples spread as far around the mean as the calibrated interval does.
        stretch = self.choice_.calibration.factor(0.9) / Z90
        counts = rng.multinomial(n, weights)
        draws = []
        for name, count in zip(names, counts, strict=True):
            if count:
                mean = self._adapted[name].predict(points)[0]
                draws.append(mean + stretch * (self._adapted[name].sample(points, count, rng) - mean))
        curves = self._scaling.y_out(rng.permutation(np.concatenate(draws)))
        return curves[..., 0] if curves.shape[-1] == 1 else curves

    def covered(self, x: ArrayLike) -> Array:
        """(Q,) whether every operator with at least a tenth of the weight uses what is known there."""
        points = self._inside(x)
        return np.all([self._adapted[n].covered(points) for n, w in self.choice_.weights.items() if w >= 0.1], axis=0)

    def applicability(self) -> Applicability:
        """The evidence for and against a bank task and a known transformation."""
        return self._applicability

    def explain(self, x: ArrayLike | None = None) -> dict[str, Any]:
        """The most probable decomposition: anchor, transformation with intervals, residual; further anchors; coverage.

        "notes" are about the bank, such as a parameter that never varies in it.

        Args:
            x: query points whose share covered by the anchor is given; default the bank's range.
        """
        first = self.decompositions_[0] if self.decompositions_ else None
        return {
            "operator": self.operator_,
            "anchor": None if first is None else first.anchor,
            "transformation": None if first is None else first.transformation,
            "intervals": {} if first is None else first.intervals,
            "residual": None if first is None else first.residual,
            "runners_up": [d.anchor for d in self.decompositions_[1:4]],
            "share_covered": float(np.mean(self.covered(self._default(x)))),
            "applicability": self._applicability,
            "notes": list(self._bank.notes),
        }

    def _decompositions(self) -> tuple[Decomposition, ...]:
        found = [
            replace(d, weight=d.weight * w, residual=d.residual * float(np.mean(self._scaling.y_sd)), operator=n)
            for n, w in self.choice_.weights.items()
            for d in self._adapted[n].decompositions
        ]
        return tuple(sorted(found, key=lambda d: -d.weight))

    def _default(self, x: ArrayLike | None) -> Array:
        if x is not None:
            return self._points(x)
        if self._bank.d > 1:
            return self._scaling.x_out(self._bank.grid())
        low, high = self._bank.range
        ends = min(low[0], self._context.x.min()), max(high[0], self._context.x.max())
        return self._scaling.x_out(np.linspace(*ends, 100)[:, None])

    def choice_table(self) -> list[dict[str, Any]]:
        """A row for each operator, in the data's units, the smallest expected error first.

        ``backtest_error`` with the 90 % range ``backtest_low`` to ``backtest_high`` over outer tasks, ``context_error``
        (leave-one-out), ``predicted_error`` (expected on this target), ``weight``, and ``note`` if it cannot be used.
        """
        unit = float(np.mean(self._scaling.y_sd))
        rows = []
        trials = {} if self.choice_.backtest is None else self.choice_.backtest.trials
        names = {**self.choice_.predicted, **dict.fromkeys(self.choice_.loo_rmse), **dict.fromkeys(self.choice_.notes)}
        for name in names:
            error = trials[name].error if name in trials else np.empty(0)
            error = error[np.isfinite(error)]
            low, high = np.quantile(error, [0.05, 0.95]) if len(error) else (np.nan, np.nan)
            rows.append(
                {
                    "operator": name,
                    "plain": name in self.choice_.plain,
                    "backtest_error": float(np.sqrt(np.mean(error**2))) * unit if len(error) else float("nan"),
                    "backtest_low": float(low) * unit,
                    "backtest_high": float(high) * unit,
                    "context_error": self.choice_.loo_rmse.get(name, float("nan")) * unit,
                    "predicted_error": self.choice_.predicted.get(name, float("nan")) * unit,
                    "weight": self.choice_.weights.get(name, 0.0),
                    "note": self.choice_.notes.get(name, ""),
                }
            )
        return sorted(rows, key=lambda r: (np.isnan(r["predicted_error"]), r["predicted_error"]))

    def record(
        self, x_query: ArrayLike | None = None, truth: tuple[ArrayLike, ArrayLike] | None = None
    ) -> dict[str, Any]:
        """Everything of the above as plain numbers, for JSON and the report.

        Args:
            x_query: (Q,) or (Q, D) points of the prediction; by default the range of the bank.
            truth: known points and values, to be shown beside the prediction.
        """
        points = self._default(x_query)
        mean = np.asarray(self.predict(points)).reshape(len(points), -1)
        low, high = (e.reshape(len(points), -1) for e in self.interval(points))
        s, c, bank = self._scaling, self._context, self._bank
        first = next((d for d in self.decompositions_ if d.anchor is not None), None)
        covered = self.covered(points)
        return {
            "kind": "target",
            "key": str(self.key),
            "x_names": list(bank.x_names),
            "y_names": list(bank.y_names),
            "params": {} if c.params is None else dict(zip(bank.param_names, c.params.tolist(), strict=True)),
            "operator": self.operator_,
            "level": self.level,
            "context": {"x": s.x_out(c.x).tolist(), "y": s.y_out(c.y).tolist()},
            "prediction": {
                "x": points.tolist(),
                "mean": mean.tolist(),
                "low": low.tolist(),
                "high": high.tolist(),
                "covered": covered.tolist(),
            },
            "truth": None if truth is None else self._truth(*truth),
            "anchor": None if first is None else anchor_record(bank, s, first.anchor),
            "baseline": self._baseline(points),
            "decompositions": [decomposition_record(d) for d in self.decompositions_[:8]],
            "choice": self.choice_table(),
            "applicability": vars(self._applicability),
            "share_covered": float(np.mean(covered)),
        }

    def records(
        self, x_query: ArrayLike | None = None, truth: tuple[ArrayLike, ArrayLike] | None = None
    ) -> list[dict[str, Any]]:
        """The record of the bank and :meth:`record`: what :func:`operant.report.target_chart` draws."""
        return [bank_record(self._bank, self._scaling), self.record(x_query, truth)]

    def _truth(self, x: Any, y: Any) -> dict[str, Any]:
        values = matrix("truth", y, expected=self._bank.y_names)
        return {"x": self._points(x).tolist(), "y": values.tolist()}

    def _baseline(self, points: Array) -> dict[str, Any] | None:
        """Name and prediction of the plain baseline with the smallest error to expect."""
        plain = {n: e for n, e in self.choice_.predicted.items() if n in self.choice_.plain and n in self._adapted}
        if not plain:
            return None
        name = min(plain, key=lambda n: plain[n])
        mean = self._adapted[name].predict(self._scaling.x_in(points))[0]
        return {"name": name, "mean": self._scaling.y_out(mean).tolist()}
