"""Tables and arrays of every kind as numbers with names: data frames, series, mappings of columns, dates, arrays."""

from __future__ import annotations

import datetime
import difflib
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from operant.core.checks import DataError, InputError
from operant.relational.bank.csvtable import CSVTable, RelationalWarning
from operant.relational.bank.curves import Array

_EPOCH = "days since 1970-01-01"


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of numbers.

    Args:
        values: (n, k).
        names: k names, if they have any.
    """

    values: Array
    names: tuple[str, ...] | None


def columns_of(what: str, data: Any) -> Columns:
    """A data frame, a series, a mapping of columns or an array as columns of numbers.

    Raises:
        InputError: for columns of different lengths, or cells that are no numbers, with the column and the row.
    """
    if isinstance(data, Mapping) or hasattr(data, "columns"):
        names = tuple(str(n) for n in (data if isinstance(data, Mapping) else data.columns))
        each = [column(data, n) for n in (data if isinstance(data, Mapping) else data.columns)]
        check_lengths({f"{what} {n!r}": len(c) for n, c in zip(names, each, strict=True)})
        if not each:
            raise InputError(f"{what} has no columns.")
        return Columns(np.column_stack([numbers(f"{what} {n!r}", c) for n, c in zip(names, each, strict=True)]), names)
    array = plain_array(what, data)
    name = getattr(data, "name", None)
    if array.ndim == 1:
        return Columns(numbers(what, array)[:, None], (name,) if isinstance(name, str) else None)
    if array.ndim != 2:
        raise InputError(f"{what} must be one- or two-dimensional, got shape {array.shape}.")
    return Columns(np.column_stack([numbers(what, c) for c in array.T]) if array.size else array.astype(float), None)


def plain_array(what: str, data: Any) -> NDArray[Any]:
    """An array of whatever is in it; what a mask hides is NaN.

    Raises:
        InputError: for rows of different lengths.
    """
    if isinstance(data, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(data), np.nan, np.ma.getdata(data).astype(np.float64))
    try:
        return np.asarray(data)
    except ValueError as error:
        raise InputError(f"{what}: expected rows of one length ({error}).") from error


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Refuse columns of different lengths.

    Raises:
        InputError: with all of them.
    """
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(f"expected as many rows everywhere: {told}.")


def column(frame: Any, name: Any) -> NDArray[Any]:
    """One column of a data frame or a mapping.

    Raises:
        DataError: if there is none, or two.
    """
    if not isinstance(frame, Mapping) and not hasattr(frame, "columns"):
        raise InputError(f"expected a data frame or a mapping from column to values, got {type(frame).__name__}.")
    try:
        found = plain_array(f"column {name!r}", frame[name])
    except InputError:
        raise
    except (KeyError, IndexError, TypeError) as error:
        there = list(map(str, frame if isinstance(frame, Mapping) else frame.columns))
        where = f"{frame.path}: " if isinstance(frame, CSVTable) else ""
        close = difflib.get_close_matches(str(name), there, 1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise DataError(f"{where}no column {name!r}; there are: {', '.join(there)}.{meant}") from error
    except Exception as error:  # polars has an error type of its own
        raise DataError(f"no column {name!r} ({error}).") from error
    if found.ndim == 2:
        raise DataError(f"the column {name!r} comes {found.shape[1]} times. Rename or remove all but one.")
    if found.ndim != 1:
        raise DataError(f"the column {name!r} must be a list of cells, got shape {found.shape}.")
    return found


def place(frame: Any, row: int) -> str:
    """Where a row stands: file and line, or its number."""
    return frame.place(row) if isinstance(frame, CSVTable) else f"row {row}"


def numbers(name: str, cells: NDArray[Any], frame: Any = None, *, empty: bool = False) -> Array:
    """(n,) a column of numbers; dates become days, with a warning.

    Args:
        name: what they are, for messages.
        cells: of any type.
        frame: the table that they come from, for messages.
        empty: whether a cell may be empty; it is NaN then.

    Raises:
        InputError: for a cell that is empty, infinite or no number, with its row.
    """
    if _are_dates(cells):
        cells = _days(name, cells)
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells.tolist()) if cells.dtype.kind not in "fiub" else ():
        values[row] = _number(cell)
    if cells.dtype.kind in "fiub":
        values = cells.astype(np.float64)
    blank = np.array([c is None or (isinstance(c, str) and not c.strip()) for c in cells.tolist()], dtype=bool)
    missing = blank | (np.isnan(values) & _are_nan(cells))
    bad = np.flatnonzero(~np.isfinite(values) & ~(missing & empty))
    if bad.size:
        got = cells.tolist()[bad[0]]
        raise InputError(
            f"{place(frame, int(bad[0]))}, {name}: expected a number, got {got!r}"
            + (f" ({bad.size} such rows)" if bad.size > 1 else "")
            + ". Drop or repair such rows first."
        )
    return values


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _are_nan(cells: NDArray[Any]) -> NDArray[np.bool_]:
    """Which cells say that they are no number."""
    told = [str(c).strip().lower() in ("nan", "<na>", "nat", "none") for c in cells.tolist()]
    return np.array(told, dtype=bool)


def _are_dates(cells: NDArray[Any]) -> bool:
    if cells.dtype.kind in "mM":
        return True
    if cells.dtype.kind not in "OU":
        return False
    known = [c for c in cells.tolist() if c is not None and c != ""]
    return bool(known) and all(map(_is_date, known))


def _is_date(cell: Any) -> bool:
    if isinstance(cell, str):
        try:
            datetime.datetime.fromisoformat(cell)
        except ValueError:
            return False
        return not cell.strip().isdigit()  # 20240101 is a number, too
    return isinstance(cell, (datetime.date, datetime.timedelta))


def _days(name: str, cells: NDArray[Any]) -> Array:
    """Dates as days since 1970, spans of time as days."""
    if cells.dtype.kind in "mM":
        span = cells if cells.dtype.kind == "m" else cells - np.datetime64(0, "s")
        days, dates = span / np.timedelta64(1, "D"), cells.dtype.kind == "M"
    else:
        days = np.array([_day(c) for c in cells.tolist()])
        dates = not all(isinstance(c, datetime.timedelta) for c in cells.tolist() if c is not None)
    if dates:
        warnings.warn(
            f"{name} holds dates, which were taken as {_EPOCH}. Where each task has a start of its own, subtract it.",
            RelationalWarning,
            stacklevel=4,
        )
    return np.asarray(days, dtype=np.float64)


def _day(cell: Any) -> float:
    if cell is None or cell == "":
        return float("nan")
    if isinstance(cell, datetime.timedelta):
        return cell / datetime.timedelta(days=1)
    moment = datetime.datetime.fromisoformat(cell) if isinstance(cell, str) else cell
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return (moment - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1)


def keys_of(name: str, cells: NDArray[Any], frame: Any = None) -> list[Any]:
    """The task of each row.

    Raises:
        DataError: for a row without one.
    """
    found = cells.tolist()
    for row, key in enumerate(found):
        if not isinstance(key, Hashable) or key is None or key == "" or key != key:  # NaN
            raise DataError(f"{place(frame, row)}, {name}: expected the name of a task, got {key!r}.")
    return found


def long_data(
    x: Any, y: Any, groups: ArrayLike, params: Any
) -> tuple[dict[Any, list[int]], Columns, Columns, Columns | None]:
    """Rows of all tasks in scikit-learn's form: rows of each task, then points, values and parameters of all rows.

    Raises:
        InputError: if they differ in length.
    """
    if y is None:
        raise InputError("expected y, the values at the points X.")
    points, values = columns_of("X", x), columns_of("y", y)
    known = None if params is None else columns_of("params", params)
    of = plain_array("groups", groups)
    if of.ndim != 1:
        raise InputError(f"groups must be one-dimensional, the task of each row, got shape {of.shape}.")
    lengths = {"X": len(points.values), "y": len(values.values), "groups": len(of)}
    check_lengths(lengths | ({} if known is None else {"params": len(known.values)}))
    return rows_of(keys_of("groups", of)), points, values, known


def constant(name: str, values: Array, rows: Mapping[Any, Sequence[int]]) -> Array:
    """(F, K) what (n, K) values are in each task.

    Raises:
        DataError: if they vary within one.
    """
    for key, at in rows.items():
        if (values[at] != values[at[0]]).any():
            raise DataError(f"{name} must be constant within a task, task {key!r} has {values[at][:4].tolist()}.")
    return np.array([values[at[0]] for at in rows.values()])


def rows_of(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """Key -> rows, in the order of their first row."""
    rows: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows
