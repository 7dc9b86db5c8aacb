"""One task: a function known at points, or callable anywhere. Letters as in ``tasks``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from operant.core.checks import InputError
from operant.relational.bank.curves import Array, Function
from operant.relational.bank.scaling import Scaling

BatchFunction = Callable[[Array, Array], Array]
"""(F, K) parameters, (Q, D) points -> (F, Q, C) values of F functions at once."""


@dataclass(frozen=True, eq=False)
class Task:
    """One function known at points.

    Args:
        x: (P, D) distinct points.
        y: (P, C) values there.
        key: its name in the bank.
        params: (K,) known parameters, such as a temperature; empty if there are none.
        labels: further facts, such as {"order": 3}.
        function: (Q, D) -> (Q, C), if it can be evaluated anywhere.
        hidden: what the bank's ``batch`` takes for this task where that is not ``params``: parameters that no method
            may know.
    """

    x: Array
    y: Array
    key: Any = None
    params: Array = field(default_factory=lambda: np.empty(0))
    labels: Mapping[str, Any] = field(default_factory=dict)
    function: Function | None = None
    hidden: Array = field(default_factory=lambda: np.empty(0))

    def scaled(self, s: Scaling) -> Task:
        """The same task in scaled units."""
        function = None if self.function is None else partial(_scaled, self.function, s)
        return replace(self, x=s.x_in(self.x), y=s.y_in(self.y), function=function)


# A bank can be pickled, so its functions are partials of module functions, not closures.
def _scaled(f: Function, s: Scaling, x: Array) -> Array:
    return s.y_in(np.asarray(f(s.x_out(x))).reshape(len(x), len(s.y_mean)))


def scaled_batch(batch: BatchFunction, s: Scaling) -> BatchFunction:
    """The same functions in scaled units."""
    return partial(_all_scaled, batch, s)


def _all_scaled(batch: BatchFunction, s: Scaling, p: Array, x: Array) -> Array:
    return s.y_in(np.asarray(batch(p, s.x_out(x)), dtype=np.float64).reshape(len(p), len(x), len(s.y_mean)))


def member_of(batch: BatchFunction, params: Array) -> Function:
    """The one function of ``batch`` with these parameters (K,)."""
    return partial(_one, batch, params)


def _one(batch: BatchFunction, p: Array, x: Array) -> Array:
    return _shape(batch(p[None], x)[0], len(x))


def with_columns(f: Callable[[Array], ArrayLike]) -> Function:
    """A user's function, its values as (Q, C).

    Raises:
        InputError: when it is called and returns another shape than (Q,) or (Q, C).
    """
    return partial(_shaped, f)


def _shaped(f: Callable[[Array], ArrayLike], x: Array) -> Array:
    return _shape(f(x), len(x))


def _shape(values: ArrayLike, q: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if len(array) != q or array.ndim > 2:
        raise InputError(f"a task's function must return (Q,) or (Q, C) values for Q points, got shape {array.shape}.")
    return array.reshape(q, -1)
