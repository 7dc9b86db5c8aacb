"""The files of ``operant extrapolate`` for curves: the bank, the targets and their query points, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from operant.core.checks import DataError, OperantError
from operant.relational.bank.csvtable import CSVTable, read_csv
from operant.relational.bank.curves import Array
from operant.relational.bank.frames import column, keys_of, numbers
from operant.relational.bank.tasks import TaskBank
from operant.relational.columns import check_positive, is_geometric, joined_units, parse_units
from operant.relational.config import ExtrapolateConfig, names_of


@dataclass(frozen=True, eq=False)
class TargetRows:
    """The rows of one target in its files, in original units.

    Args:
        key: its name.
        x: (P, D) points of the context.
        y: (P, C) values there.
        params: (K,) known parameters; None if there are none.
        labels: the values of its labels.
        query: (Q, D) points to predict.
        truth: (Q, C) known values there, NaN where there is none.
    """

    key: Any
    x: Array
    y: Array
    params: Array | None
    labels: dict[str, Any]
    query: Array
    truth: Array


@dataclass(frozen=True, eq=False)
class CurveTables:
    """The files as they were read; the query may be part of the target."""

    bank: CSVTable
    target: CSVTable
    query: CSVTable | None

    @classmethod
    def of(cls, config: ExtrapolateConfig) -> CurveTables:
        """Read the files.

        Raises:
            DataError: for a file that is missing, or that is no table.
        """
        query = None if config.query is None else _read(config.query, config.task)
        return cls(_read(config.bank, config.task), _read(config.target, config.task), query)


def read_bank(config: ExtrapolateConfig, tables: CurveTables | None = None) -> TaskBank:
    """The bank of a file.

    Raises:
        DataError, InputError: as :meth:`TaskBank.from_frame`; for a value without the logarithm that is asked for.
    """
    table = _read(config.bank, config.task) if tables is None else tables.bank
    try:
        bank = TaskBank.from_frame(
            table,
            task=config.task,
            x=names_of(config.x),
            y=names_of(config.y),
            params=names_of(config.params),
            labels=names_of(config.labels),
        )
    except OperantError as error:
        if str(config.bank) in str(error):
            raise
        raise type(error)(f"{config.bank}: {error}") from error
    _check_logarithms(config, table, bank)
    return bank


def read_units(config: ExtrapolateConfig, tables: CurveTables, bank: TaskBank) -> dict[str, str]:
    """Column -> unit, of the settings or of rows of units in the files.

    Raises:
        InputError, DataError: as :func:`parse_units` and :func:`joined_units`.
    """
    columns = list(dict.fromkeys([config.task, *bank.x_names, *bank.y_names, *bank.param_names]))
    read = [t for t in (tables.bank, tables.target, tables.query) if t is not None]
    return joined_units(read, parse_units(names_of(config.units), columns), columns)


def _check_logarithms(config: ExtrapolateConfig, table: CSVTable, bank: TaskBank) -> None:
    """Refuse values in the rows of a file that have no logarithm where one is taken."""
    asked = {name: "--log_x" for name in bank.x_names if name in names_of(config.log_x)}
    asked |= dict.fromkeys(bank.y_names if config.positive else (), "--positive")
    for name, flag in asked.items():
        if name in table:
            check_positive(table, name, _matrix(table, [name])[:, 0], flag)


def read_targets(config: ExtrapolateConfig, bank: TaskBank, tables: CurveTables | None = None) -> list[TargetRows]:
    """The targets of a file with the points to predict.

    Raises:
        DataError: for a missing column, a row with some values of y, a target without context, or a parameter that
            varies within a target.
        InputError: for a value that is no number.
    """
    tables = CurveTables.of(config) if tables is None else tables
    columns = tables.target
    keys = keys_of(f"column {config.task!r}", column(columns, config.task), columns)
    x = _matrix(columns, bank.x_names, empty=False)
    y = _matrix(columns, bank.y_names)
    params = _matrix(columns, bank.param_names, empty=False)
    _check_logarithms(config, columns, bank)
    missing = np.isnan(y).sum(1)
    half = (missing > 0) & (missing < bank.c)
    if half.any():
        raise DataError(
            f"{columns.place(int(half.argmax()))}: expected all of {', '.join(bank.y_names)} or none of them in a row."
        )
    labels = [n for n in names_of(config.labels) if n in columns]
    extra = None if tables.query is None else _Query(tables.query, config, bank)
    found: list[TargetRows] = []
    for key in dict.fromkeys(keys):
        rows = np.array([k == key for k in keys])
        known = rows & ~np.isnan(y[:, 0])
        if not known.any():
            raise DataError(f"{config.target}: target {key!r} has no row with a value of {', '.join(bank.y_names)}.")
        if (params[rows] != params[rows][0]).any():
            raise DataError(f"{config.target}: {', '.join(bank.param_names)} must be constant within target {key!r}.")
        said = {n: set(columns[n][rows].tolist()) for n in labels}
        if several := [n for n, values in said.items() if len(values) > 1]:
            raise DataError(f"{config.target}: {several[0]} must be constant within target {key!r}.")
        query, truth = x[rows & ~known], y[rows & ~known]
        if extra is not None:
            asked, values = extra.of(key)
            query, truth = np.concatenate([query, asked]), np.concatenate([truth, values])
        if not len(query):
            query = _whole_range(config, bank, x[known])
            truth = np.full((len(query), bank.c), np.nan)
        given = params[rows][0] if bank.param_names else None
        one_each = {n: values.pop() for n, values in said.items()}
        found.append(TargetRows(key, x[known], y[known], given, one_each, query, truth))
    return found


class _Query:
    """The points of a query file."""

    def __init__(self, columns: CSVTable, config: ExtrapolateConfig, bank: TaskBank) -> None:
        _check_logarithms(config, columns, bank)
        self.keys = (
            keys_of(f"column {config.task!r}", columns[config.task], columns) if config.task in columns else None
        )
        self.x = _matrix(columns, bank.x_names, empty=False)
        known = all(name in columns for name in bank.y_names)
        self.y = _matrix(columns, bank.y_names) if known else np.full((len(self.x), bank.c), np.nan)

    def of(self, key: Any) -> tuple[Array, Array]:
        """(Q, D) points and (Q, C) values for one target."""
        rows = np.array([self.keys is None or self.keys[i] == key for i in range(len(self.x))])
        return self.x[rows], self.y[rows]


def _whole_range(config: ExtrapolateConfig, bank: TaskBank, context: Array) -> Array:
    """(Q, D) points over what the bank and the context span; for several inputs, where the bank's tasks are known."""
    points = config.query_points
    if bank.d > 1:
        return bank.grid(points)
    low, high = np.minimum(bank.range[0], context.min(0)), np.maximum(bank.range[1], context.max(0))
    seen = np.concatenate([*(t.x[:, 0] for t in bank.tasks), context[:, 0]])
    # As the axis of the chart: straight lines between even points would miss the bends of a logarithmic one.
    if names_of(config.log_x) or (names_of(config.log_axes) == ["auto"] and is_geometric(seen)):
        # Both ends are met exactly: a rounded one would lie outside the bank's range.
        return np.clip(np.geomspace(low, high, points), low, high)
    return np.linspace(low, high, points)


def _read(path: Path, task: str) -> CSVTable:
    """The columns of a file; tasks that are numbered are called 7 and not 7.0."""
    if not path.is_file():
        raise DataError(f"expected a CSV file at {path}, found none.")
    table = read_csv(path)
    keys = table.get(task)
    if keys is None or keys.dtype.kind != "f":
        return table
    named = np.array([int(k) if float(k).is_integer() else float(k) for k in keys], dtype=object)
    return replace(table, columns=table.columns | {task: named})


def _matrix(table: CSVTable, names: Sequence[str], *, empty: bool = True) -> Array:
    """(rows, len(names)) numbers; an empty cell is NaN where that is allowed."""
    found = np.empty((len(table.lines), len(names)))
    for i, name in enumerate(names):
        found[:, i] = numbers(f"column {name!r}", column(table, name), table, empty=empty)
    return found
