"""One task, a function known at points or callable anywhere, and its making. Letters of ``tasks``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from operant.core.checks import DataError, InputError
from operant.relational.bank.curves import Array, Function
from operant.relational.bank.reading import both, clean, matrix
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


def _member_of(batch: BatchFunction, params: Array) -> Function:
    """The one function of ``batch`` with these parameters (K,)."""
    return partial(_one, batch, params)


def _one(batch: BatchFunction, p: Array, x: Array) -> Array:
    return _shape(batch(p[None], x)[0], len(x))


def _with_columns(f: Callable[[Array], ArrayLike]) -> Function:
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


def measured_tasks(
    named: Mapping[Any, tuple[ArrayLike, ArrayLike]],
    params: Array | None,
    labels: Sequence[Mapping[str, Any]] | None,
) -> tuple[tuple[Task, ...], list[str]]:
    """Tasks of key -> (x, y), and notes about what was done to the data.

    Args:
        named: key -> (x, y).
        params: (F, K) known parameters.
        labels: further facts for each task.

    Raises:
        DataError, InputError: as :meth:`TaskBank.from_arrays`.
    """
    if labels is not None and len(labels) != len(named):
        raise InputError(f"labels: expected one mapping for each of {len(named)} tasks, got {len(labels)}.")
    built: list[Task] = []
    notes: list[str] = []
    for i, (key, pair) in enumerate(named.items()):
        x, y = both(pair, f"task {key!r}")
        points, values, note = clean(x, y, f"task {key!r}")
        if len(points) < 2:
            raise DataError(
                f"task {key!r} has {len(points)} distinct point{'' if len(points) == 1 else 's'}; a task of the "
                "bank needs at least two. Drop it, or measure it again."
            )
        notes += note
        known = np.empty(0) if params is None else params[i]
        built.append(Task(points, values, key, known, dict(labels[i]) if labels else {}))
    if not built:
        raise DataError("A bank needs at least two tasks, got none.")
    return tuple(built), notes


def callable_tasks(
    functions: Sequence[Callable[[Array], ArrayLike]] | BatchFunction, grid: Array, params: Any, hidden: Any
) -> tuple[list[Function], Array]:
    """One function a task, and their values (F, G, C) on the grid (G, D).

    Raises:
        InputError: as :meth:`TaskBank.from_callables`.
    """
    if not callable(functions):
        each = [_with_columns(f) for f in functions]
        return each, np.stack([f(grid) for f in each])
    given = params if hidden is None else hidden
    if given is None:
        raise InputError("One function for all tasks needs their params (F, K), or hidden ones.")
    known = matrix("params" if hidden is None else "hidden", given)
    values = np.asarray(functions(known, grid), dtype=np.float64)
    values = values[:, :, None] if values.ndim == 2 else values
    if values.shape[:2] != (len(known), len(grid)):
        raise InputError(f"the function must return (F, Q) or (F, Q, C) values, got {values.shape}.")
    return [_member_of(functions, p) for p in known], values
