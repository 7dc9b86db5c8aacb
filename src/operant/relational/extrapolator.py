"""The estimator: fit it to known tasks, adapt it to a few points of an unseen one, predict beyond the range."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from operant.core.checks import DataError, InputError
from operant.relational.adapted import AdaptedTask, Choice
from operant.relational.bank.curves import Array
from operant.relational.bank.frames import constant, long_data
from operant.relational.bank.reading import SINGLE, both, clean, matrix
from operant.relational.bank.tasks import FAR, TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, Fitted, RelationalOperator, by_unique_name
from operant.relational.operators.registry import candidates, is_named, parse_operator
from operant.relational.operators.warp.operator import Warp
from operant.relational.scoring import AdaptationScorer
from operant.relational.selection.applicability import (
    Applicability,
    NotApplicableError,
    NotApplicableWarning,
    assess,
    backtest_remark,
)
from operant.relational.selection.backtest import (
    adapt_all,
    fit_all,
    loo_rmse,
    loo_rmse_refitted,
    rms,
)
from operant.relational.selection.choose import Calibration, flat_rule
from operant.relational.selection.outer import OuterSplit
from operant.relational.single import single_target
from operant.relational.transforms import Transformation

FORMAT = 2
SETTINGS: dict[str, Callable[[Any], bool]] = {
    "operator": lambda v: isinstance(v, str) or (isinstance(v, list) and all(isinstance(o, str) for o in v)),
    "level": lambda v: isinstance(v, float),
    "on_inapplicable": lambda v: isinstance(v, str),
    "outer_share": lambda v: isinstance(v, float),
    "random_state": lambda v: v is None or (isinstance(v, int) and 0 <= v < 2**32),
}
"""What a saved estimator's settings are."""


class Extrapolator(RegressorMixin, BaseEstimator):
    """Predict a task outside the bank as a known task plus a known transformation.

    ``fit`` takes a :class:`TaskBank`, or long data ``(X, y, groups=task of each row)``. ``adapt`` explains one unseen
    task by its context points and returns an :class:`AdaptedTask`. ``fit(X, y)`` without groups fits a single task: its
    rows are the context, and ``predict`` extrapolates from them with the plain operators.

    Args:
        operator: "auto" backtests all operators on the bank's outer split and mixes the best; a name, see
            :func:`operant.relational.parse_operator`, a transformation such as "shift * xshift", a
            :class:`RelationalOperator`, or a list of these to choose from.
        level: probability that intervals hold.
        on_inapplicable: what to do about a target that the bank does not explain: "warn", "raise", or "baseline", which
            predicts with the best plain baseline.
        outer_share: part of the bank that is taken out for the backtest.
        random_state: seed of the backtest and of :meth:`AdaptedTask.sample`.

    Attributes:
        bank_: the bank, in scaled units; None for a single task.
        scaling_: between the data's units and the scaled ones.
        n_features_in_: D.
        notes_: name -> why an operator cannot be used on this bank.

    Source: arXiv 2605.30132 for the idea; what is done here differs, see docs/extrapolation.md.
    """

    # scikit-learn's metadata routing passes the tasks of rows on without being asked to
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
        self._check_settings()
        self._seed = self._draw_seed()
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
            raise InputError("rows of held-out tasks are not weighed; use AdaptationScorer with a metric that does.")
        return AdaptationScorer()(self, X, y, groups=groups, params=params)

    def __sklearn_tags__(self) -> Any:
        """Several outputs are fine."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_settings(self) -> None:
        for name in ("level", "outer_share"):
            if not isinstance(value := getattr(self, name), Real):
                raise InputError(f"{name} must be a number between 0 and 1, got {value!r}.")
        listed: list[Any] = list(self.operator) if isinstance(self.operator, (list, tuple)) else [self.operator]
        if strange := [o for o in listed if not isinstance(o, (str, RelationalOperator))]:
            raise InputError(f"operator must be a name, a RelationalOperator or a list of these, got {strange[0]!r}.")
        if not listed:
            raise InputError("operator must name at least one, got an empty list.")
        if not 0 < self.level < 1:
            raise InputError(f"level must lie between 0 and 1, got {self.level}.")
        if self.on_inapplicable not in ("warn", "raise", "baseline"):
            raise InputError(f"on_inapplicable must be warn, raise or baseline, got {self.on_inapplicable!r}.")
        if not 0 < self.outer_share < 1:
            raise InputError(f"outer_share must lie between 0 and 1, got {self.outer_share}.")

    def _draw_seed(self) -> int:
        if isinstance(self.random_state, np.random.RandomState):
            return int(self.random_state.randint(2**31 - 1))
        return int(np.random.SeedSequence().entropy % 2**31) if self.random_state is None else int(self.random_state)  # pyright: ignore

    def _operators(self, bank: TaskBank, *, params: bool, single: bool = False) -> list[RelationalOperator]:
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
        self._operators_by_name = by_unique_name(self._operators(self.bank_, params=True))
        self._fitted, self.notes_ = fit_all(self._operators_by_name, self.bank_)
        if not self._fitted:
            raise DataError("no operator can be fitted to this bank: " + "; ".join(self.notes_.values()))
        return self

    def _fit_single(self, X: Any, y: Any) -> Extrapolator:
        """One task: its rows are the context."""
        points, values = validate_data(self, X, y, y_numeric=True, multi_output=True, dtype=np.float64)
        x, v, _ = clean(points, np.asarray(values, dtype=np.float64), SINGLE)
        self.bank_ = None
        operators = partial(self._operators, params=False, single=True)
        self.target_, self.scaling_ = single_target(
            x, v, operators, x_names=getattr(self, "feature_names_in_", None), level=self.level, seed=self._seed
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
        self._check_bank()
        context = self._context(x, y, params, labels, noise)
        points = None if query is None else self.scaling_.x_in(self._points("query", query))
        pinned: list[RelationalOperator] | None = None
        if anchor is not None or transform is not None:
            form = Transformation.parse("shift * scale") if transform is None else transform
            form = Transformation.parse(form) if isinstance(form, str) else form
            pinned = [Warp(form, anchor=anchor)]
        return self._told(self._target(context, points, key, pinned))

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
        self._check_bank()
        named = dict(contexts) if isinstance(contexts, Mapping) else dict(enumerate(contexts))
        known, told = (_one_each(n, v, len(named)) for n, v in (("params", params), ("labels", labels)))
        points = None if query is None else self.scaling_.x_in(self._points("query", query))
        pairs = {key: both(pair, f"target {key!r}") for key, pair in named.items()}
        given = [(key, self._context(x, y, known[i], told[i], noise)) for i, (key, (x, y)) in enumerate(pairs.items())]
        # The first is adapted here: what it learns about the outer split goes along with the others.
        first = [self._target(context, points, key, None) for key, context in given[:1]]
        work = (delayed(self._target)(context, points, key, None) for key, context in given[1:])
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

    def _points(self, name: str, x: Any) -> Array:
        bank = self.bank_
        assert bank is not None
        points = matrix(name, x, expected=bank.x_names)
        if points.shape[1] != bank.d or not len(points):
            raise InputError(f"{name} must be finite points (Q, {bank.d}), at least one, got shape {np.shape(x)}.")
        return points

    def _check_bank(self) -> None:
        check_is_fitted(self, "bank_")
        if self.bank_ is None:
            raise InputError(
                "fitted to a single task, there is no bank to adapt: fit(bank) or fit(X, y, groups=tasks)."
            )

    def _context(self, x: ArrayLike, y: ArrayLike, params: Any, labels: Any, noise: Any) -> Context:
        bank = self.bank_
        assert bank is not None
        if np.size(x) == 0:
            raise InputError("the target has no context: give at least one point (x, y).")
        points, values, _ = clean(x, y, "the context", (bank.x_names, bank.y_names))
        if points.shape[1] != bank.d or values.shape[1] != bank.c:
            raise InputError(
                f"expected {bank.d} inputs and {bank.c} outputs as in the bank, got {points.shape[1]} and "
                f"{values.shape[1]}."
            )
        in_order = np.lexsort(points.T[::-1])  # the backtest must not depend on the order in which points are given
        points, values = points[in_order], values[in_order]
        inside = self.scaling_.x_in(points)
        if (np.abs(inside) > FAR).any():
            raise InputError(
                f"context points reach {np.abs(inside).max():.0f} times as far from the middle of the bank as the bank "
                "does. Are they in the bank's units?"
            )
        known = None
        if params is not None:
            if isinstance(params, Mapping) and set(params) != set(bank.param_names):
                raise InputError(f"expected the parameters {list(bank.param_names)}, got {list(params)}.")
            given = [params[n] for n in bank.param_names] if isinstance(params, Mapping) else np.atleast_1d(params)
            try:
                known = np.asarray(given, dtype=np.float64)
            except (TypeError, ValueError):
                known = np.empty(0)
            if known.shape != (len(bank.param_names),) or not np.isfinite(known).all():
                raise InputError(f"expected finite values of the parameters {list(bank.param_names)}, got {params!r}.")
        sd = None
        if noise is not None:
            given = matrix("noise", np.atleast_1d(np.asarray(noise)))[:, 0] if np.ndim(noise) < 2 else np.empty(0)
            if len(given) not in (1, bank.c):
                raise InputError(
                    f"noise must be one standard deviation, or one for each of {bank.c} outputs, got the shape "
                    f"{np.shape(noise)}. One for each point is not supported: give their root mean square."
                )
            if (given < 0).any():
                raise InputError(f"noise must be finite and not negative, got {noise!r}.")
            sd = np.broadcast_to(given, (bank.c,)) / self.scaling_.y_sd
        return Context(inside, self.scaling_.y_in(values), known, dict(labels or {}), sd)

    def _target(
        self, context: Context, query: Array | None, key: Any, pinned: list[RelationalOperator] | None
    ) -> AdaptedTask:
        bank = self.bank_
        assert bank is not None
        known = self._operators_by_name if pinned is None else by_unique_name(pinned)
        fitted, notes = (self._fitted, self.notes_) if pinned is None else fit_all(known, bank)
        adapted, more = adapt_all(fitted, context)
        notes = notes | more
        if not adapted:
            raise CannotAdaptError("no operator can be adapted to this target: " + "; ".join(notes.values()))
        left_out = {n: loo_rmse(a, context) for n, a in adapted.items()}
        points = bank.grid(40) if query is None else query
        predictive_sd = {n: rms(a.predict(points)[1]) for n, a in adapted.items()}
        try:
            backtest, rule, calibration = self._outer.teaches(
                context, points, left_out, predictive_sd, self._backtested(fitted, context) if pinned is None else known
            )
        except DataError as error:  # too small a bank to take an outer split from
            backtest, notes = None, notes | {"backtest": str(error)}
            left_out = {n: loo_rmse_refitted(fitted[n], context) for n in adapted}
            rule = flat_rule(left_out, len(context.x))
            calibration = Calibration(np.empty(0), 0, np.empty(0), np.empty(0))
        else:
            notes = notes | backtest.notes
        plain = frozenset(label for label, op in known.items() if op.plain)
        weights = rule.weights(left_out, predictive_sd, len(context.x))
        if not weights:
            weights = {n: 1 / len(adapted) for n in adapted}
        covered = sum(w * float(adapted[n].covered(points).mean()) for n, w in weights.items())
        evidence = assess(bank, context, left_out, calibration, covered)
        evidence = replace(evidence, text=" ".join(filter(None, [evidence.text, backtest_remark(backtest)])))
        if not evidence.applicable:
            simple = {n: e for n, e in left_out.items() if n in plain}
            weights = self._inapplicable(evidence, weights, rule.weights(simple, predictive_sd, len(context.x)))
        predicted = {n: float(np.exp(e)) for n, e in rule.predicted(left_out, predictive_sd, len(context.x)).items()}
        return AdaptedTask(
            key=key,
            bank=bank,
            scaling=self.scaling_,
            context=context,
            adapted=adapted,
            choice=Choice(weights, predicted, left_out, backtest, calibration, plain, notes),
            applicability=evidence,
            level=self.level,
            seed=self._seed,
        )

    def _backtested(self, fitted: dict[str, Fitted], context: Context) -> dict[str, RelationalOperator]:
        """Those of the operators that this target can have."""
        assert self.bank_ is not None
        tried = self._operators(self.bank_, params=context.params is not None)
        return {label: op for label, op in self._operators_by_name.items() if label in fitted and op in tried}

    def _inapplicable(
        self, evidence: Applicability, weights: dict[str, float], simple: dict[str, float]
    ) -> dict[str, float]:
        if self.on_inapplicable == "raise":
            raise NotApplicableError(
                f"{evidence.text} Set on_inapplicable='warn' or 'baseline' to predict all the same."
            )
        return (simple or weights) if self.on_inapplicable == "baseline" else weights

    def _told(self, target: AdaptedTask) -> AdaptedTask:
        """The target, with a warning where it is not applicable; a worker process could not give it."""
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
        listed = [self.operator] if isinstance(self.operator, (str, RelationalOperator)) else list(self.operator)
        names = [o if isinstance(o, str) else o.name for o in listed]
        for operator, name in zip(listed, names, strict=True):
            if isinstance(operator, RelationalOperator) and not is_named(operator):
                raise InputError(
                    f"{operator!r} has settings that its name {name!r} does not tell, and only names are saved. Save "
                    "the bank and make the estimator again in code."
                )
        folder = Path(folder)
        self.bank_.scaled(self.scaling_.inverse()).save(folder)
        settings = {
            "format": FORMAT,
            "operator": names[0] if len(names) == 1 else names,
            "level": self.level,
            "on_inapplicable": self.on_inapplicable,
            "outer_share": self.outer_share,
            "random_state": self._seed,
        }
        (folder / "extrapolator.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> Extrapolator:
        """Read what :meth:`save` wrote, and fit.

        Raises:
            DataError: if the files are not there or of another format.
        """
        path = Path(folder) / "extrapolator.json"
        if not path.is_file():
            raise DataError(f"expected extrapolator.json in {folder}, as Extrapolator.save writes it.")
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: expected the settings of an estimator ({error}). Save it again.") from error
        form = settings.pop("format", None) if isinstance(settings, dict) else None
        if form not in (1, FORMAT):
            raise DataError(f"{path} is of another format than {FORMAT}: save it again with this version.")
        if form == 1 and "outer_share" in settings:  # what format 1 calls outer_share
            settings["outer_share"] = settings.pop("outer_share")
        wrong = [name for name, fits in SETTINGS.items() if not fits(settings.get(name))]
        if wrong or settings.keys() != SETTINGS.keys():
            odd = sorted({*wrong, *(settings.keys() ^ SETTINGS.keys())})
            raise DataError(f"{path}: {', '.join(odd)} cannot be read. Save the estimator again.")
        return cls(**settings).fit(TaskBank.load(folder))


def _one_each(name: str, values: Any, count: int) -> Sequence[Any]:
    """One for each target, None where nothing is known."""
    if values is None:
        return [None] * count
    if len(values) != count:
        raise InputError(f"expected {name} for each of {count} targets, got {len(values)}.")
    return values
