"""The estimator: fit it to known tasks, adapt it to a few points of an unseen one, and predict the rest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from operant.core.checks import DataError, InputError
from operant.relational.adapted import AdaptedTask
from operant.relational.bank.curves import Array
from operant.relational.bank.frames import constant, long_data
from operant.relational.bank.reading import SINGLE, both, clean
from operant.relational.bank.tasks import TaskBank
from operant.relational.inputs import one_each, query_points, target_context
from operant.relational.operators.base import Context, RelationalOperator, by_unique_name
from operant.relational.operators.registry import candidates, parse_operator
from operant.relational.operators.warp.operator import Warp
from operant.relational.scoring import AdaptationScorer
from operant.relational.selection.adaptation import FittedOperators
from operant.relational.selection.applicability import NotApplicableError, NotApplicableWarning
from operant.relational.selection.choice import choose
from operant.relational.selection.outer_split import OuterSplit
from operant.relational.settings import check_settings, draw_seed, read_settings, saved_names, write_settings
from operant.relational.single import single_target
from operant.relational.transforms import Transformation


class Extrapolator(RegressorMixin, BaseEstimator):
    """Predict a task outside the bank as a known task plus a known transformation.

    ``fit`` takes a :class:`TaskBank`, or long data ``(X, y, groups=task of each row)``. ``adapt`` explains one unseen
    task by its context points and returns an :class:`AdaptedTask`. ``fit(X, y)`` without groups fits a single task: its
    rows are the context, and ``predict`` extrapolates from them with the plain operators.

    Args:
        operator: "auto" backtests all operators on the bank's outer split and mixes the best; a name, see
            :func:`operant.relational.parse_operator`, a transformation such as "shift * xshift", a
            :class:`RelationalOperator`, or a list of these to choose from.
        level: probability that an interval covers the value.
        on_inapplicable: what happens if the bank does not explain a target: "warn", "raise", or "baseline", which
            predicts it by plain baselines alone.
        outer_share: part of the bank that is held out for the backtest.
        random_state: seed of the backtest and of :meth:`AdaptedTask.sample`.

    Attributes:
        bank_: the bank, in scaled units; None for a single task.
        scaling_: between the data's units and the scaled ones.
        n_features_in_: D.
        notes_: name -> why an operator cannot be used on this bank.

    Source: arXiv 2605.30132 for the idea; what is done here differs, see docs/extrapolation.md.
    """

    # With these, scikit-learn's metadata routing passes groups and params on without set_fit_request.
    __metadata_request__fit = {"groups": True, "params": True}
    __metadata_request__score = {"groups": True, "params": True}

    def __init__(
        self,
        operator: str | RelationalOperator | Sequence[str | RelationalOperator] = "auto",
        *,
        level: float = 0.9,
        on_inapplicable: Literal["warn", "raise", "baseline"] = "warn",
        outer_share: float = 1 / 3,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.operator = operator
        self.level = level
        self.on_inapplicable = on_inapplicable
        self.outer_share = outer_share
        self.random_state = random_state

    def fit(
        self, X: Any, y: ArrayLike | None = None, *, groups: ArrayLike | None = None, params: ArrayLike | None = None
    ) -> Extrapolator:
        """Learn from the known tasks.

        Args:
            X: a TaskBank; or (n, D) points of all tasks.
            y: (n,) or (n, C) values.
            groups: (n,) the task of each row.
            params: (n, K) or (n,) known parameters of the task of each row.

        Raises:
            InputError: for settings out of range.
            DataError: for a bank that cannot be used.
        """
        check_settings(self)
        self._seed = draw_seed(self.random_state)
        if isinstance(X, TaskBank):
            return self._fit_bank(X)
        if groups is not None:
            rows, points, values, known = long_data(X, y, groups, params)
            tasks = {key: (points.values[at], values.values[at]) for key, at in rows.items()}
            return self._fit_bank(
                TaskBank.from_arrays(
                    tasks,
                    params=None if known is None else constant("params", known.values, rows),
                    x_names=points.names,
                    y_names=values.names,
                    param_names=None if known is None else known.names,
                )
            )
        return self._fit_single(X, y)

    def score(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, *, groups: Any = None, params: Any = None
    ) -> float:
        """R^2: of a single task at these points, of a bank at the later points of tasks adapted to their first half.

        Other metrics and contexts: :class:`operant.relational.scoring.AdaptationScorer`.

        Args:
            X: (n, D) points.
            y: (n,) or (n, C) values.
            sample_weight: (n,), of a single task only.
            groups: (n,) the task of each row; without them all rows are one.
            params: (n, K) known parameters of the task of each row.

        Raises:
            InputError: if there is no point to score, or for weights where there is a bank.
        """
        check_is_fitted(self, "bank_")
        if self.bank_ is None:
            return float(super().score(X, y, sample_weight))
        if sample_weight is not None:
            raise InputError(
                "sample_weight is for a single task. For held-out tasks, use AdaptationScorer with such a metric."
            )
        return AdaptationScorer()(self, X, y, groups=groups, params=params)

    def __sklearn_tags__(self) -> Any:
        """Several outputs are fine."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _candidates(self, bank: TaskBank, *, params: bool, single: bool = False) -> list[RelationalOperator]:
        """What may be tried.

        Args:
            bank: in scaled units.
            params: whether those of the target are known.
            single: whether the bank only stands in, because there is one task.
        """
        if isinstance(self.operator, str) and self.operator == "auto":
            return [op for op in candidates(bank, params=params) if not (single and op.uses_bank)]
        listed = [self.operator] if isinstance(self.operator, (str, RelationalOperator)) else list(self.operator)
        return [parse_operator(o) if isinstance(o, str) else o for o in listed]

    def _fit_bank(self, bank: TaskBank) -> Extrapolator:
        self.scaling_ = bank.scaling
        self.bank_: TaskBank | None = bank.scaled(self.scaling_)
        self.n_features_in_ = bank.d
        self._outer = OuterSplit(self.bank_, self.outer_share, self._seed)
        self._operators = FittedOperators.of(by_unique_name(self._candidates(self.bank_, params=True)), self.bank_)
        self.notes_ = dict(self._operators.notes)
        if not self._operators.fitted:
            raise DataError("no operator can be fitted to this bank: " + "; ".join(self.notes_.values()))
        return self

    def _fit_single(self, X: Any, y: Any) -> Extrapolator:
        """One task: its rows are the context."""
        points, values = validate_data(self, X, y, y_numeric=True, multi_output=True, dtype=np.float64)
        x, v, _ = clean(points, np.asarray(values, dtype=np.float64), SINGLE)
        self.bank_ = None
        candidates_of = partial(self._candidates, params=False, single=True)
        self.target_, self.scaling_ = single_target(
            x, v, candidates_of, x_names=getattr(self, "feature_names_in_", None), level=self.level, seed=self._seed
        )
        return self

    def adapt(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        params: ArrayLike | Mapping[str, float] | None = None,
        labels: Mapping[str, Any] | None = None,
        query: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        anchor: Any = None,
        transform: Transformation | str | None = None,
        key: Any = "target",
    ) -> AdaptedTask:
        """Explain an unseen task by its context.

        Args:
            x: (P,) or (P, D) context points, at least one.
            y: (P,) or (P, C) values there.
            params: the target's known parameters, K numbers or a mapping from the bank's names.
            labels: further facts, such as {"order": 9}.
            query: (Q,) or (Q, D) points that matter; the operators are chosen for them. Default: the bank's range.
            noise: standard deviation of the values, one number or (C,); default: estimated.
            anchor: key of the bank task to start from, instead of searching.
            transform: a transformation with free or pinned factors, instead of choosing.
            key: a name for the target.

        Raises:
            NotFittedError: before fit.
            InputError: for NaN, infinities, no point, or another D or C than the bank's.
            NotApplicableError: with ``on_inapplicable="raise"``, if the bank does not explain the target.
        """
        bank = self._bank()
        context = target_context(bank, x, y, params=params, labels=labels, noise=noise)
        form = "shift * scale" if transform is None and anchor is not None else transform
        form = Transformation.parse(form) if isinstance(form, str) else form
        return self._told(self._target(context, query_points(bank, query), key, form, anchor))

    def adapt_many(
        self,
        contexts: Sequence[tuple[ArrayLike, ArrayLike]] | Mapping[Any, tuple[ArrayLike, ArrayLike]],
        *,
        params: ArrayLike | Sequence[Mapping[str, float]] | None = None,
        labels: Sequence[Mapping[str, Any]] | None = None,
        query: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> list[AdaptedTask]:
        """:meth:`adapt` for several targets; contexts of one layout share a backtest.

        Args:
            contexts: (x, y) of each target; a mapping gives the keys.
            params: (targets, K), or a mapping for each target.
            labels: of each target.
            query: as for :meth:`adapt`, the same for all.
            noise: as for :meth:`adapt`, the same for all.
            n_jobs: as for joblib: targets that are adapted at once, -1 for one on each core. Default: what
                ``joblib.parallel_config`` says, otherwise 1. It also sets the backend: threads, processes, Dask, Ray.
                The numbers do not depend on it, except for rounding where a backend limits the threads of BLAS.

        Raises:
            InputError: if there are not as many params or labels as contexts; else as :meth:`adapt`.
        """
        bank = self._bank()
        named = dict(contexts) if isinstance(contexts, Mapping) else dict(enumerate(contexts))
        known, told = (one_each(n, v, len(named)) for n, v in (("params", params), ("labels", labels)))
        points = query_points(bank, query)
        pairs = {key: both(pair, f"target {key!r}") for key, pair in named.items()}
        given = [
            (key, target_context(bank, x, y, params=known[i], labels=told[i], noise=noise))
            for i, (key, (x, y)) in enumerate(pairs.items())
        ]
        # The first is adapted here, so that the workers get its backtest with the estimator and make none of their own.
        first = [self._target(context, points, key, None, None) for key, context in given[:1]]
        work = (delayed(self._target)(context, points, key, None, None) for key, context in given[1:])
        rest = cast("list[AdaptedTask]", Parallel(n_jobs=n_jobs)(work))
        return [self._told(target) for target in [*first, *rest]]

    def predict(
        self,
        X: Any,
        return_std: bool = False,
        *,
        context: tuple[ArrayLike, ArrayLike] | None = None,
        params: ArrayLike | Mapping[str, float] | None = None,
    ) -> Any:
        """Values at (Q, D): of the single task that was fitted, or of the target with this context.

        Raises:
            InputError: if the estimator was fitted to a bank and no context is given.
        """
        check_is_fitted(self, "bank_")
        if context is not None:
            return self.adapt(*context, params=params).predict(X, return_std)
        if self.bank_ is not None:
            raise InputError("fitted to a bank: give predict(X, context=(x, y)), or adapt(x, y) and predict with that.")
        return self.target_.predict(validate_data(self, X, reset=False, dtype=np.float64), return_std)

    def _bank(self) -> TaskBank:
        check_is_fitted(self, "bank_")
        if self.bank_ is None:
            raise InputError(
                "fitted to a single task, there is no bank to adapt: fit(bank) or fit(X, y, groups=tasks)."
            )
        return self.bank_

    def _target(
        self, context: Context, query: Array, key: Any, form: Transformation | None, anchor: Any
    ) -> AdaptedTask:
        bank = self.bank_
        assert bank is not None
        if form is None:
            operators = self._operators
            usable = self._candidates(bank, params=context.params is not None)
            tried = {n: o for n, o in operators.operators.items() if n in operators.fitted and o in usable}
        else:
            operators = FittedOperators.of(by_unique_name([Warp(form, anchor=anchor)]), bank)
            tried = operators.operators
        fall_back = self.on_inapplicable == "baseline"
        adapted, choice, verdict = choose(operators, tried, self._outer, context, query, fall_back=fall_back)
        if self.on_inapplicable == "raise" and not verdict.applicable:
            raise NotApplicableError(
                f"{verdict.text} Set on_inapplicable='warn' or 'baseline' to predict all the same."
            )
        return AdaptedTask(
            key=key,
            bank=bank,
            scaling=self.scaling_,
            context=context,
            adapted=adapted,
            choice=choice,
            applicability=verdict,
            level=self.level,
            seed=self._seed,
        )

    def _told(self, target: AdaptedTask) -> AdaptedTask:
        """The target, with a warning if it is not applicable: a warning in a worker process would be lost."""
        if not target.applicable_ and self.on_inapplicable == "warn":
            warnings.warn(target.applicability().text, NotApplicableWarning, stacklevel=3)
        return target

    def save(self, folder: Path | str) -> Path:
        """Write settings, bank and seed as JSON and npz; no code is stored, and :meth:`load` fits again.

        Raises:
            InputError: if an operator is more than its name tells.
        """
        check_is_fitted(self, "bank_")
        if self.bank_ is None:
            raise InputError("fitted to a single task, there is no bank to save.")
        names = saved_names(self.operator)
        self.bank_.scaled(self.scaling_.inverse()).save(folder)
        settings = {
            "operator": names[0] if len(names) == 1 else names,
            "level": self.level,
            "on_inapplicable": self.on_inapplicable,
            "outer_share": self.outer_share,
            "random_state": self._seed,
        }
        return write_settings(Path(folder), settings)

    @classmethod
    def load(cls, folder: Path | str) -> Extrapolator:
        """Read what :meth:`save` wrote, and fit.

        Raises:
            DataError: if the files are not there or of another format.
        """
        return cls(**read_settings(Path(folder))).fit(TaskBank.load(folder))
