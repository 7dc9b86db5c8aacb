"""Data on their way into a bank: tables and arrays, checked; bad input is refused with its place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from operant.core.checks import DataError, InputError
from operant.relational.bank.csvtable import RelationalWarning
from operant.relational.bank.curves import Array
from operant.relational.bank.frames import check_lengths, column, columns_of, keys_of, numbers, plain_array, rows_of

LARGEST = 1e300
"""Sums of larger numbers may overflow."""


def long_form(
    frame: Any,
    *,
    task: str,
    x: str | Sequence[str],
    y: str | Sequence[str],
    params: Sequence[str],
    labels: Sequence[str],
    unit: str | None,
) -> dict[str, Any]:
    """The arguments of :meth:`TaskBank.from_arrays` for a table with a row a point, as :meth:`TaskBank.from_frame`."""
    inputs, outputs = ([x] if isinstance(x, str) else list(x)), ([y] if isinstance(y, str) else list(y))
    params, labels = (([v] if isinstance(v, str) else list(v)) for v in (params, labels))
    if not inputs or not outputs:
        raise InputError("expected at least one column for x and one for y.")
    for name in (wanted := [*inputs, *outputs, *params]):
        if wanted.count(name) > 1:
            raise InputError(f"the column {name!r} is named twice among x, y and params.")
    columns = {
        name: column(frame, name)
        for name in dict.fromkeys([task, *wanted, *labels, *([unit] if unit is not None else [])])
    }
    check_lengths({f"column {name!r}": len(cells) for name, cells in columns.items()})
    if unit is not None and len(units := sorted(set(map(str, columns[unit])))) > 1:
        raise DataError(f"column {unit!r} mixes units: {', '.join(units)}. Convert all rows to one of them first.")
    found = {name: numbers(f"column {name!r}", columns[name], frame) for name in wanted}
    tasks = rows_of(keys_of(f"column {task!r}", columns[task], frame))
    points, values = (np.column_stack([found[n] for n in group]) for group in (inputs, outputs))
    facts, known = [], []
    for key, rows in tasks.items():
        for name in (*params, *labels):
            if len(set(columns[name][rows].tolist())) > 1:
                raise DataError(
                    f"column {name!r} must be constant within a task, task {key!r} has "
                    f"{columns[name][rows].tolist()[:4]}."
                )
        facts.append({name: columns[name][rows[0]] for name in labels})
        known.append([found[name][rows[0]] for name in params])
    return {
        "tasks": {key: (points[rows], values[rows]) for key, rows in tasks.items()},
        "params": known if params else None,
        "labels": facts,
        "x_names": inputs,
        "y_names": outputs,
        "param_names": list(params),
    }


def both(pair: Any, what: str) -> tuple[Any, Any]:
    """Points and values of a task.

    Raises:
        InputError: if it is no such pair.
    """
    if not isinstance(pair, Sequence | np.ndarray) or len(pair) != 2:
        raise InputError(f"{what}: expected a pair (x, y) of points and values, got {type(pair).__name__}.")
    return pair[0], pair[1]


SINGLE = "the single task"
"""What data without groups are."""


def clean(
    x: ArrayLike, y: ArrayLike, what: str, expected: tuple[Sequence[str], Sequence[str]] | None = None
) -> tuple[Array, Array, list[str]]:
    """Points (P, D), values (P, C), and a note where values at the same point were averaged.

    Args:
        x: points.
        y: values.
        what: whose they are, for messages.
        expected: names of the columns that data frames of points and of values must have.

    Raises:
        InputError: for NaN, infinities, or another number of points than values.
    """
    x_names, y_names = expected or (None, None)
    points = matrix(f"x of {what}", x, expected=x_names)
    values = matrix(f"y of {what}", y, expected=y_names)
    if len(points) != len(values):
        raise InputError(f"{what}: expected as many points as values, got {len(points)} and {len(values)}.")
    distinct, where, count = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    if len(distinct) == len(points):
        return points, values, []
    mean = np.zeros((len(distinct), values.shape[1]))
    np.add.at(mean, where.reshape(-1), values)
    note = f"{what}: {len(points) - len(distinct)} repeated points were averaged"
    hint = f"{note}; if its rows belong to several tasks, give fit their groups" if what == SINGLE else note
    warnings.warn(hint, RelationalWarning, stacklevel=4)
    return distinct, mean / count[:, None], [note]


def matrix(
    name: str, value: Any, *, rows: int | None = None, what: str = "", expected: Sequence[str] | None = None
) -> Array:
    """(n, k) finite numbers.

    Args:
        name: for messages.
        value: an array of one or two dimensions, a data frame or a mapping of columns.
        rows: how many are expected, one for each of ``what``.
        what: what they are.
        expected: names of the columns that a data frame must have; its order does not matter.

    Raises:
        InputError: for other shapes or names, cells that are no numbers, NaN and infinities.
    """
    array = _as_array(name, value, expected)
    if array.ndim != 2:
        raise InputError(f"{name} must be one- or two-dimensional, got shape {array.shape}.")
    if rows is not None and len(array) != rows:
        raise InputError(f"{name}: expected {rows} rows, one for each of the {what}, got {len(array)}.")
    bad = ~(np.abs(array) < LARGEST)
    if bad.any():
        row, at = (int(i[0]) for i in np.nonzero(bad))
        least = "finite" if not np.isfinite(array[bad]).all() else f"smaller than {LARGEST:g}"
        raise InputError(
            f"{name} must be {least}, got {array[row, at]} in row {row} ({int(bad.sum())} of {array.size} values). "
            "Drop or repair these rows first."
        )
    return array


def _as_array(name: str, value: Any, expected: Sequence[str] | None) -> Array:
    framed = isinstance(value, Mapping) or hasattr(value, "columns")
    if framed and expected is not None:
        there = list(map(str, value if isinstance(value, Mapping) else value.columns))
        if sorted(there) != sorted(expected):
            raise InputError(f"{name}: expected the columns {list(expected)}, got {there}.")
        value = {n: value[n] for n in expected}
    if not framed:
        array = plain_array(name, value)
        if array.dtype.kind in "fiub":
            array = array.astype(np.float64)
            return array[:, None] if array.ndim == 1 else array
    return columns_of(name, value).values


def names(stem: str, given: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """``count`` names: those given, or x, x2, ..."""
    if given is None:
        return tuple(stem if i == 0 else f"{stem}{i + 1}" for i in range(count))
    if len(given) != count or len(set(given)) < count:
        raise InputError(f"expected {count} different names, got {list(given)}.")
    return tuple(given)


def plain(value: Any) -> Any:
    """A numpy scalar as the Python one."""
    return value.item() if isinstance(value, np.generic) else value
