"""What users pass to ``adapt``, checked and in the scaled units of the bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from operant.core.checks import InputError
from operant.relational.bank.curves import Array
from operant.relational.bank.parameters import FAR
from operant.relational.bank.reading import clean, matrix
from operant.relational.bank.scaling import Scaling
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context


def target_context(
    bank: TaskBank, x: ArrayLike, y: ArrayLike, *, params: Any = None, labels: Any = None, noise: Any = None
) -> Context:
    """The context of a target, in the order of its points.

    Args:
        bank: in scaled units.
        x: (P,) or (P, D) points.
        y: (P,) or (P, C) values.
        params: K known parameters, or a mapping from their names; None if they are unknown.
        labels: further facts, such as {"order": 9}.
        noise: standard deviation of the values, one number or (C,); None if it is unknown.

    Raises:
        InputError: for NaN, infinities, no point, or another D or C than the bank's.
    """
    if np.size(x) == 0:
        raise InputError("the target has no context: give at least one point (x, y).")
    points, values, _ = clean(x, y, "the context", (bank.x_names, bank.y_names))
    if points.shape[1] != bank.d or values.shape[1] != bank.c:
        raise InputError(
            f"expected {bank.d} inputs and {bank.c} outputs as in the bank, got {points.shape[1]} and "
            f"{values.shape[1]}."
        )
    in_order = np.lexsort(points.T[::-1])  # the backtest must not depend on the order in which points are given
    units = _units(bank)
    inside = units.x_in(points[in_order])
    if (np.abs(inside) > FAR).any():
        raise InputError(
            f"context points reach {np.abs(inside).max():.0f} times as far from the middle of the bank as the bank "
            "does. Are they in the bank's units?"
        )
    known = None if params is None else _known(bank, params)
    sd = None if noise is None else _noise(bank, noise) / units.y_sd
    return Context(inside, units.y_in(values[in_order]), known, dict(labels or {}), sd)


def query_points(bank: TaskBank, query: ArrayLike | None) -> Array:
    """(Q, D) points that matter, in scaled units; by default a grid over the range of the bank.

    Raises:
        InputError: for NaN, infinities, no point, or another D than the bank's.
    """
    if query is None:
        return bank.grid(40)
    points = matrix("query", query, expected=bank.x_names)
    if points.shape[1] != bank.d or not len(points):
        raise InputError(f"query must be finite points (Q, {bank.d}), at least one, got shape {np.shape(query)}.")
    return _units(bank).x_in(points)


def one_each(name: str, values: Any, count: int) -> Sequence[Any]:
    """One for each target, None where nothing is known.

    Raises:
        InputError: if their number is not that of the targets.
    """
    if values is None:
        return [None] * count
    if len(values) != count:
        raise InputError(f"expected {name} for each of {count} targets, got {len(values)}.")
    return values


def _units(bank: TaskBank) -> Scaling:
    assert bank.units is not None
    return bank.units


def _known(bank: TaskBank, params: Any) -> Array:
    """(K,) parameters."""
    if isinstance(params, Mapping) and set(params) != set(bank.param_names):
        raise InputError(f"expected the parameters {list(bank.param_names)}, got {list(params)}.")
    given = [params[n] for n in bank.param_names] if isinstance(params, Mapping) else np.atleast_1d(params)
    try:
        known = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        known = np.empty(0)
    if known.shape != (len(bank.param_names),) or not np.isfinite(known).all():
        raise InputError(f"expected finite values of the parameters {list(bank.param_names)}, got {params!r}.")
    return known


def _noise(bank: TaskBank, noise: Any) -> Array:
    """(C,) standard deviations in original units."""
    given = matrix("noise", np.atleast_1d(np.asarray(noise)))[:, 0] if np.ndim(noise) < 2 else np.empty(0)
    if len(given) not in (1, bank.c):
        raise InputError(
            f"noise must be one standard deviation, or one for each of {bank.c} outputs, got the shape "
            f"{np.shape(noise)}. One for each point is not supported: give their root mean square."
        )
    if (given < 0).any():
        raise InputError(f"noise must be finite and not negative, got {noise!r}.")
    return np.broadcast_to(given, (bank.c,))
