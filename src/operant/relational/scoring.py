"""Cross-validation over tasks: adapt to the first points of a held-out task, and score its other points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.metrics import r2_score
from sklearn.utils.metadata_routing import MetadataRequest

from operant.core.checks import InputError
from operant.relational.bank.curves import Array
from operant.relational.bank.frames import constant, long_data


class _Adapts(Protocol):
    """The part of :class:`operant.relational.Extrapolator` used here; that class imports this module."""

    def adapt(self, x: Array, y: Array, *, params: Any, query: Array, key: Any) -> Any:
        """An adapted task."""
        ...


@dataclass(frozen=True)
class AdaptationScorer:
    """A scorer for :func:`sklearn.model_selection.cross_val_score` and similar functions.

    Each task of the rows that are held out is adapted to its first points in the order of x, and asked for the others.
    The metric compares all answers with all values. Groups and params come by scikit-learn's metadata routing; without
    groups all rows are one task.

    Args:
        context: points that each task is adapted to: a number, or a share below 1 (at least one point).
        metric: (n,) or (n, C) values and predictions -> a number, as in :mod:`sklearn.metrics`.
        greater_is_better: whether the metric is; otherwise the score is the negative metric.

    Raises:
        InputError: for a context that is no number of points.
    """

    context: float = 0.5
    metric: Callable[[Array, Array], float] = r2_score
    greater_is_better: bool = True

    def __post_init__(self) -> None:
        if not (0 < self.context < 1 or (self.context >= 1 and float(self.context).is_integer())):
            raise InputError(f"context must be a number of points or a share below 1, got {self.context!r}.")

    def get_metadata_routing(self) -> MetadataRequest:
        """Groups and params, for scikit-learn."""
        request = MetadataRequest(owner=type(self).__name__)
        for name in ("groups", "params"):
            request.score.add_request(param=name, alias=True)
        return request

    def __call__(self, estimator: _Adapts, X: Any, y: Any, *, groups: Any = None, params: Any = None) -> float:
        """The score of an estimator that was fitted to the other tasks.

        Raises:
            InputError: if no task has a point beyond its context, or the lengths differ.
        """
        one = np.zeros(len(X), dtype=int)
        rows, points, values, known = long_data(X, y, one if groups is None else groups, params)
        each = None if known is None else constant("params", known.values, rows)
        truth, answer = [], []
        for i, (key, at) in enumerate(rows.items()):
            x, v = points.values[at], values.values[at]
            # Later points are those further along x, as in extrapolation, and not later rows.
            order = np.lexsort(x.T[::-1])
            count = max(1, round(self.context * len(at))) if self.context < 1 else int(self.context)
            first, later = order[:count], order[count:]
            if not len(later):
                continue
            p = None if each is None else each[i]
            target = estimator.adapt(x[first], v[first], params=p, query=x[later], key=key)
            truth.append(v[later])
            answer.append(np.reshape(target.predict(x[later]), (len(later), -1)))
        if not truth:
            longest = max(map(len, rows.values()))
            raise InputError(f"no task has a point beyond a context of {self.context:g}: the longest has {longest}.")
        both = (np.concatenate(v) for v in (truth, answer))
        score = float(self.metric(*(v[:, 0] if v.shape[1] == 1 else v for v in both)))
        return score if self.greater_is_better else -score
