"""The tasks of a bank from what a user gives: pairs of arrays, or functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from operant.core.checks import DataError, InputError
from operant.relational.bank.curves import Array, Function
from operant.relational.bank.reading import both, clean, matrix
from operant.relational.bank.task import BatchFunction, Task, member_of, with_columns


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
        each = [with_columns(f) for f in functions]
        return each, np.stack([f(grid) for f in each])
    given = params if hidden is None else hidden
    if given is None:
        raise InputError("One function for all tasks needs their params (F, K), or hidden ones.")
    known = matrix("params" if hidden is None else "hidden", given)
    values = np.asarray(functions(known, grid), dtype=np.float64)
    values = values[:, :, None] if values.ndim == 2 else values
    if values.shape[:2] != (len(known), len(grid)):
        raise InputError(f"the function must return (F, Q) or (F, Q, C) values, got {values.shape}.")
    return [member_of(functions, p) for p in known], values
