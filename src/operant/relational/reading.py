"""Data on their way into a bank: tables, columns and arrays, checked; bad input is refused with its place."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from operant.core.checks import DataError, InputError
from operant.relational.curves import Array


class RelationalWarning(UserWarning):
    """A bank or a target that can be worked with, not as well as it seems."""


def read_csv(path: Path | str) -> dict[str, NDArray[Any]]:
    """Columns of a CSV file with a header, for :meth:`TaskBank.from_frame`; numbers where all cells are numbers.

    Raises:
        DataError: if there is no header, no row, or a row of another length.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) < 2:
        raise DataError(f"{path}: expected a header and at least one row.")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    for number, row in enumerate(body, 2):
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: expected {len(header)} cells, got {len(row)}.")
    columns: dict[str, NDArray[Any]] = {}
    for name, cells in zip(header, zip(*body, strict=True), strict=True):
        text = np.array([c.strip() for c in cells])
        try:
            columns[name] = text.astype(np.float64)
        except ValueError:
            columns[name] = text
    return columns


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
    columns = {
        name: _column(frame, name) for name in {task, *inputs, *outputs, *params, *labels, *([unit] if unit else [])}
    }
    if unit is not None and len(units := sorted(set(map(str, columns[unit])))) > 1:
        raise DataError(f"column {unit!r} mixes units: {', '.join(units)}. Convert all rows to one of them first.")
    numbers = {name: _numbers(name, columns[name]) for name in (*inputs, *outputs, *params)}
    tasks: dict[Any, list[int]] = {}
    for row, key in enumerate(columns[task].tolist()):
        tasks.setdefault(key, []).append(row)
    points, values = (np.column_stack([numbers[n] for n in group]) for group in (inputs, outputs))
    facts, known = [], []
    for key, rows in tasks.items():
        for name in (*params, *labels):
            if len(set(columns[name][rows].tolist())) > 1:
                raise DataError(
                    f"column {name!r} must be constant within a task, task {key!r} has "
                    f"{columns[name][rows].tolist()[:4]}."
                )
        facts.append({name: columns[name][rows[0]] for name in labels})
        known.append([numbers[name][rows[0]] for name in params])
    return {
        "tasks": {key: (points[rows], values[rows]) for key, rows in tasks.items()},
        "params": known if params else None,
        "labels": facts,
        "x_names": inputs,
        "y_names": outputs,
        "param_names": list(params),
    }


def clean(x: ArrayLike, y: ArrayLike, what: str) -> tuple[Array, Array, list[str]]:
    """Points (P, D), values (P, C), and a note where values at the same point were averaged.

    Raises:
        InputError: for NaN, infinities, or another number of points than values.
    """
    points, values = matrix(f"x of {what}", x), matrix(f"y of {what}", y)
    if len(points) != len(values):
        raise InputError(f"{what}: expected as many points as values, got {len(points)} and {len(values)}.")
    distinct, where, count = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    if len(distinct) == len(points):
        return points, values, []
    mean = np.zeros((len(distinct), values.shape[1]))
    np.add.at(mean, where.reshape(-1), values)
    note = f"{what}: {len(points) - len(distinct)} repeated points were averaged"
    warnings.warn(note, RelationalWarning, stacklevel=4)
    return distinct, mean / count[:, None], [note]


def matrix(name: str, value: ArrayLike, *, rows: int | None = None, what: str = "") -> Array:
    """(n, k) finite numbers of one or two dimensions; ``rows`` is how many are expected, one for each of ``what``."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold numbers ({error}).") from error
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise InputError(f"{name} must be one- or two-dimensional, got shape {array.shape}.")
    if rows is not None and len(array) != rows:
        raise InputError(f"{name}: expected {rows} rows, one for each of the {what}, got {len(array)}.")
    bad = ~np.isfinite(array)
    if bad.any():
        row, column = (int(i[0]) for i in np.nonzero(bad))
        raise InputError(
            f"{name} must be finite, got {array[row, column]} in row {row} ({int(bad.sum())} of {array.size} values). "
            "Drop or repair these rows first."
        )
    return array


def _column(frame: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(frame[name])
    except (KeyError, IndexError, TypeError) as error:
        there = ", ".join(map(str, getattr(frame, "columns", frame)))
        raise DataError(f"no column {name!r}; there are: {there}.") from error
    except Exception as error:  # polars has an error type of its own
        raise DataError(f"no column {name!r} ({error}).") from error


def _numbers(name: str, column: NDArray[Any]) -> Array:
    try:
        values = column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {name!r} must hold numbers ({error}).") from error
    if (bad := np.flatnonzero(~np.isfinite(values))).size:
        raise InputError(
            f"column {name!r}: expected a number in row {bad[0]}, got {plain(column[bad[0]])!r} "
            f"({bad.size} such rows). Drop or repair them first."
        )
    return values


def names(stem: str, given: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """``count`` names: those given, or x, x2, ..."""
    if given is None:
        return tuple(stem if i == 0 else f"{stem}{i + 1}" for i in range(count))
    if len(given) != count:
        raise InputError(f"expected {count} names, got {list(given)}.")
    return tuple(given)


def plain(value: Any) -> Any:
    """A numpy scalar as the Python one."""
    return value.item() if isinstance(value, np.generic) else value
