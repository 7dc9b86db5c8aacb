"""Targets from JSON lines: supports, queries and known answers of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operant.core.checks import DataError
from operant.core.record import read_records
from operant.language.bank import TextBank, check_function

Line = Mapping[str, Any]
ONLY = "target"
"""What a target is called whose file has no column of the task."""


@dataclass(frozen=True)
class TextColumns:
    """Names of the columns.

    Args:
        task: tells the tasks apart.
        x: inputs.
        y: outputs.
    """

    task: str
    x: str
    y: str


@dataclass(frozen=True)
class TextTarget:
    """The lines of one target.

    Args:
        key: its name.
        supports: (input, output) pairs; "" is an output.
        queries: inputs to predict, each once.
        truth: outputs of queries that are known; never used for a prediction.
    """

    key: str
    supports: tuple[tuple[str, str], ...]
    queries: tuple[str, ...]
    truth: Mapping[str, str]


def read_bank(path: Path, columns: TextColumns, parts: str = "") -> TextBank:
    """The bank of a file.

    Raises:
        DataError: as :meth:`TextBank.from_rows`, with the file.
    """
    rows = read_records(path, torn=False)
    try:
        if not rows:
            raise DataError("expected a line for every demonstration of a known task, found none.")
        return TextBank.from_rows(rows, task=columns.task, input=columns.x, output=columns.y, parts=parts or None)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_targets(path: Path, columns: TextColumns, query: Path | None = None) -> list[TextTarget]:
    """The targets of a file, with the queries of another one.

    Raises:
        DataError: for a missing column, a value that is no text, supports that contradict each other, and a target
            without supports or queries.
    """
    rows = _by_task(path, read_records(path, torn=False), columns)
    if not rows:
        raise DataError(f"{path}: expected a line for every support and query, found none.")
    asked = _by_task(query, read_records(query, torn=False), columns, alone="") if query else {}
    if query and (strange := [key for key in asked if key and key not in rows]):
        raise DataError(f"{query}: no target is called {strange[0]!r}. The targets: {', '.join(list(rows)[:8])}.")
    return [_target(path, key, own, [*asked.get("", ()), *asked.get(key, ())], columns) for key, own in rows.items()]


def _target(path: Path, key: str, rows: Sequence[Line], asked: Sequence[Line], columns: TextColumns) -> TextTarget:
    x, y = columns.x, columns.y
    supports = tuple(dict.fromkeys((r[x], r[y]) for r in rows if r.get(y) is not None))
    queries = dict.fromkeys(r[x] for r in (*(r for r in rows if r.get(y) is None), *asked))
    truth = tuple(dict.fromkeys((r[x], r[y]) for r in asked if r.get(y) is not None))
    if not supports:
        raise DataError(
            f"{path}: target {key!r} has no line with {y!r}. A target needs a support, an input with its output."
        )
    check_function(supports, f"{path}: target {key!r}")
    check_function(truth, f"the queries of target {key!r}")
    if not queries:
        empty = sum(out == "" for _, out in supports)
        hint = f' {empty} of its lines have the output "", which is an output.' if empty else ""
        raise DataError(
            f"{path}: target {key!r} has no query.{hint} Add a line without {y!r} (or with null) for each input to "
            "predict, or give --query."
        )
    return TextTarget(key, supports, tuple(queries), dict(truth))


def _by_task(path: Path, rows: Sequence[Line], columns: TextColumns, *, alone: str = ONLY) -> dict[str, list[Line]]:
    """The lines of each task; all of them under ``alone`` if the file has no column of the task."""
    named = [columns.task in r for r in rows]
    if any(named) and not all(named):
        raise DataError(f"{path}, row {named.index(False) + 1}: no column {columns.task!r}, which other rows have.")
    found: dict[str, list[Line]] = {}
    for number, row in enumerate(rows, start=1):
        _check(f"{path}, row {number}", row, columns)
        found.setdefault(str(row.get(columns.task, alone)), []).append(row)
    return found


def _check(where: str, row: Line, columns: TextColumns) -> None:
    if columns.x not in row:
        raise DataError(f"{where}: no column {columns.x!r}. Its columns: {', '.join(row)}. Name it by --x.")
    task = row.get(columns.task, "")
    if isinstance(task, bool) or not isinstance(task, (str, int)):
        raise DataError(f"{where}: column {columns.task!r} must hold a name, got {task!r}.")
    if not isinstance(row[columns.x], str):
        raise DataError(f"{where}: column {columns.x!r} must hold text, got {row[columns.x]!r}.")
    if not isinstance(row.get(columns.y), (str, type(None))):
        raise DataError(f"{where}: column {columns.y!r} must hold text or null, got {row[columns.y]!r}.")
