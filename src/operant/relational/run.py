"""``operant extrapolate``: targets from CSV files, explained and predicted from a bank; records and predictions."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from operant.core.checks import DataError, InputError, OperantError, check_int
from operant.core.record import claim_folder, extend_records, write_text
from operant.relational.bank.csvtable import CSVTable, RelationalWarning, read_csv
from operant.relational.bank.curves import Array
from operant.relational.bank.frames import column, keys_of, numbers
from operant.relational.bank.tasks import TaskBank
from operant.relational.config import ExtrapolateConfig

if TYPE_CHECKING:
    from operant.relational.extrapolator import Extrapolator

_PREDICTIONS = "predictions.csv"


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


def extrapolate(config: ExtrapolateConfig, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Fit the bank, explain and predict every target, write record.jsonl and predictions.csv; return the folder.

    Args:
        config: the settings.
        tell: called with a line on each step.

    Raises:
        DataError: for a folder in use, a file or column that is missing, a target without context.
        InputError: for values that are no numbers, or settings that cannot work.
    """
    if not 0 < config.level < 1:
        raise InputError(f"expected 0 < level < 1, got {config.level}.")
    check_int("query_points", config.query_points, least=2)
    known = {"bank": str(config.bank), "target": str(config.target), "query": config.query and str(config.query)}
    settings = asdict(config) | known | {"output_dir": str(config.output_dir)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RelationalWarning)
        tell("reading the bank")
        bank = read_bank(config)
        targets = read_targets(config, bank)
        with claim_folder(config.output_dir, "extrapolate", settings, outputs=(_PREDICTIONS,)):
            _write(config, tell, bank, targets, caught)
    return config.output_dir


def _write(
    config: ExtrapolateConfig,
    tell: Callable[[str], None],
    bank: TaskBank,
    targets: Sequence[TargetRows],
    caught: Sequence[warnings.WarningMessage],
) -> None:
    """Fit, adapt and write; the record comes last, and a folder without results in it holds no extrapolation."""
    # The command line imports this module for its settings alone.
    from operant.relational.extrapolator import Extrapolator
    from operant.relational.records import bank_record
    from operant.relational.selection.applicability import NotApplicableWarning

    tell(f"fitting {len(bank)} tasks")
    model = Extrapolator(operator=config.operator, level=config.level, random_state=config.seed).fit(bank)
    known_tasks = bank_record(bank.scaled(bank.scaling), bank.scaling)
    records: list[dict[str, Any]] = []
    for i, t in enumerate(targets, 1):
        tell(f"target {i} of {len(targets)}: {t.key}")
        records.append(_target_record(model, t, config.noise))
    told = [w for w in caught if issubclass(w.category, RelationalWarning)]
    notes = dict.fromkeys(str(w.message) for w in told if not issubclass(w.category, NotApplicableWarning))
    notes = [*_same_names(bank, targets), *(n for n in notes if n not in bank.notes)]
    _write_predictions(config.output_dir / _PREDICTIONS, config.task, records)
    told = [{"kind": "note", "text": text} for text in notes]
    extend_records(config.output_dir / "record.jsonl", [*told, known_tasks, *records])


def read_bank(config: ExtrapolateConfig) -> TaskBank:
    """The bank of a file.

    Raises:
        DataError, InputError: as :meth:`TaskBank.from_frame`.
    """
    table = _read(config.bank, config.task)
    try:
        return TaskBank.from_frame(
            table,
            task=config.task,
            x=_names(config.x),
            y=_names(config.y),
            params=_names(config.params),
            labels=_names(config.labels),
        )
    except OperantError as error:
        if str(config.bank) in str(error):
            raise
        raise type(error)(f"{config.bank}: {error}") from error


def read_targets(config: ExtrapolateConfig, bank: TaskBank) -> list[TargetRows]:
    """The targets of a file with the points to predict.

    Raises:
        DataError: for a missing column, a row with some values of y, a target without context, or a parameter that
            varies within a target.
        InputError: for a value that is no number.
    """
    columns = _read(config.target, config.task)
    keys = keys_of(f"column {config.task!r}", column(columns, config.task), columns)
    x = _matrix(columns, bank.x_names, empty=False)
    y = _matrix(columns, bank.y_names)
    params = _matrix(columns, bank.param_names, empty=False)
    missing = np.isnan(y).sum(1)
    half = (missing > 0) & (missing < bank.c)
    if half.any():
        raise DataError(
            f"{columns.place(int(half.argmax()))}: expected all of {', '.join(bank.y_names)} or none of them in a row."
        )
    labels = [n for n in _names(config.labels) if n in columns]
    extra = _Query(config.query, config, bank) if config.query else None
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
            query = _whole_range(bank, x[known], config.query_points)
            truth = np.full((len(query), bank.c), np.nan)
        given = params[rows][0] if bank.param_names else None
        one_each = {n: values.pop() for n, values in said.items()}
        found.append(TargetRows(key, x[known], y[known], given, one_each, query, truth))
    return found


class _Query:
    """The points of a query file."""

    def __init__(self, path: Path, config: ExtrapolateConfig, bank: TaskBank) -> None:
        columns = _read(path, config.task)
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


def _whole_range(bank: TaskBank, context: Array, points: int) -> Array:
    """(Q, D) points over what the bank and the context span; for several inputs, where the bank's tasks are known."""
    if bank.d > 1:
        return bank.grid(points)
    low, high = np.minimum(bank.range[0], context.min(0)), np.maximum(bank.range[1], context.max(0))
    return np.linspace(low, high, points)


def _target_record(model: Extrapolator, asked: TargetRows, noise: float | None) -> dict[str, Any]:
    target = model.adapt(
        asked.x, asked.y, params=asked.params, labels=asked.labels, query=asked.query, noise=noise, key=str(asked.key)
    )
    known = ~np.isnan(asked.truth).any(1)
    return target.record(asked.query, (asked.query[known], asked.truth[known]) if known.any() else None)


def _same_names(bank: TaskBank, targets: Sequence[TargetRows]) -> list[str]:
    both = [str(t.key) for t in targets if t.key in set(bank.keys)]
    if not both:
        return []
    return [f"The bank has tasks with the names of targets ({', '.join(both)}): if they are the same, they are known."]


def _write_predictions(path: Path, task: str, records: Sequence[dict[str, Any]]) -> None:
    """A row a query point: task, inputs, for each output the mean and its interval, and whether it is covered."""
    first = records[0]
    head = [task, *first["x_names"]]
    for name in first["y_names"]:
        head += [name, f"{name}_low", f"{name}_high"]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([*head, "covered"])
    for r in records:
        asked = r["prediction"]
        for i, x in enumerate(asked["x"]):
            values = [asked[k][i][c] for c in range(len(r["y_names"])) for k in ("mean", "low", "high")]
            writer.writerow([r["key"], *x, *values, int(asked["covered"][i])])
    write_text(path, file.getvalue())


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


def _names(given: list[str] | str) -> list[str]:
    """Names of columns; a text may hold several, with commas between them."""
    return [n.strip() for n in given.split(",") if n.strip()] if isinstance(given, str) else list(given)


def _matrix(table: CSVTable, names: Sequence[str], *, empty: bool = True) -> Array:
    """(rows, len(names)) numbers; an empty cell is NaN where that is allowed."""
    found = np.empty((len(table.lines), len(names)))
    for i, name in enumerate(names):
        found[:, i] = numbers(f"column {name!r}", column(table, name), table, empty=empty)
    return found
