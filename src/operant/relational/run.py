"""``operant extrapolate``: targets from CSV files, explained and predicted from a bank; records and predictions."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from operant.core.checks import DataError, InputError, check_int
from operant.core.record import claim_folder, extend_records, write_text
from operant.relational.bank.csvtable import RelationalWarning
from operant.relational.bank.tasks import TaskBank
from operant.relational.columns import Forms, is_geometric, suspects
from operant.relational.config import ExtrapolateConfig, names_of
from operant.relational.files import CurveTables, TargetRows, read_bank, read_targets, read_units
from operant.relational.transforms import Transformation

if TYPE_CHECKING:
    from operant.relational.adapted import AdaptedTask
    from operant.relational.extrapolator import Extrapolator

_PREDICTIONS, _FACTORS, _UNITS = "predictions.csv", "shift_factors.csv", "predictions.units.json"


@dataclass(frozen=True, eq=False)
class _Question:
    """What the files ask.

    Args:
        bank: the known tasks, in the units of the files.
        targets: the targets.
        forms: what the operators see in place of the columns.
        units: column -> unit.
    """

    bank: TaskBank
    targets: Sequence[TargetRows]
    forms: Forms
    units: Mapping[str, str]


def extrapolate(config: ExtrapolateConfig, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Fit the bank, explain and predict every target, write what was found; return the folder.

    The folder gets record.jsonl, predictions.csv, shift_factors.csv where targets are led by warps along x, and
    predictions.units.json where units are known.

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
        asked = _question(config)
        with claim_folder(config.output_dir, "extrapolate", settings, outputs=(_PREDICTIONS, _FACTORS, _UNITS)):
            _write(config, tell, asked, caught)
    return config.output_dir


def _question(config: ExtrapolateConfig) -> _Question:
    """Read and check the files and the settings about their columns."""
    tables = CurveTables.of(config)
    bank = read_bank(config, tables)
    forms = Forms.of(bank, names_of(config.log_x), positive=config.positive)
    units, shown = read_units(config, tables, bank), [*bank.x_names, *bank.y_names]
    for name in _log_axes(config) or ():
        if name not in shown:
            raise DataError(f"--log_axes: expected columns of x or y ({', '.join(shown)}), none or auto; got {name!r}.")
    if config.reference is not None and config.reference not in map(str, bank.keys):
        raise DataError(
            f"--reference: no task {config.reference!r} in the bank; there are: {', '.join(map(str, bank.keys[:20]))}."
        )
    return _Question(bank, read_targets(config, bank, tables), forms, units)


def _log_axes(config: ExtrapolateConfig) -> list[str] | None:
    """Columns with logarithmic axes; None to choose them by the data."""
    names = names_of(config.log_axes)
    return None if names == ["auto"] else [] if names == ["none"] else names


def _write(
    config: ExtrapolateConfig,
    tell: Callable[[str], None],
    asked: _Question,
    caught: Sequence[warnings.WarningMessage],
) -> None:
    """Fit, adapt and write; the record comes last, and a folder without results in it holds no extrapolation."""
    # The command line imports this module for its settings alone.
    from operant.relational.extrapolator import Extrapolator
    from operant.relational.records import bank_record
    from operant.relational.selection.applicability import NotApplicableWarning
    from operant.relational.shift_factors import shift_factors

    bank, forms = asked.bank, asked.forms
    tell(f"fitting {len(bank)} tasks")
    model = Extrapolator(operator=config.operator, level=config.level, random_state=config.seed)
    model.fit(forms.bank_in(bank))
    adapted: dict[str, AdaptedTask] = {}
    records: list[dict[str, Any]] = []
    for i, t in enumerate(asked.targets, 1):
        tell(f"target {i} of {len(asked.targets)}: {t.key}")
        adapted[str(t.key)] = target = _adapted(model, forms, t, config.noise)
        records.append(_target_record(target, forms, t))
    tell("comparing shifts along x")
    assert model.bank_ is not None
    params = {str(t.key): t.params for t in asked.targets}
    factors = shift_factors(model.bank_, adapted, params, config.reference)
    about = {
        "task_name": config.task,
        "units": dict(asked.units),
        "log_axes": _log_axes(config),
        "log_x": [n for n, log in zip(bank.x_names, forms.log_x, strict=True) if log],
        "positive": forms.positive,
    }
    known_tasks = bank_record(bank.scaled(bank.scaling), bank.scaling) | about
    told = [w for w in caught if issubclass(w.category, RelationalWarning)]
    notes = dict.fromkeys(str(w.message) for w in told if not issubclass(w.category, NotApplicableWarning))
    notes = [*_same_names(bank, asked.targets), *(n for n in notes if n not in bank.notes)]
    notes += _hints(asked, records)
    _write_predictions(config, records, asked.units)
    if factors is not None:
        _write_factors(config, bank, factors)
    told = [{"kind": "note", "text": text} for text in notes]
    more = [] if factors is None else [factors]
    extend_records(config.output_dir / "record.jsonl", [*told, known_tasks, *more, *records])


def _adapted(model: Extrapolator, forms: Forms, asked: TargetRows, noise: float | None) -> AdaptedTask:
    return model.adapt(
        forms.x_in(asked.x),
        forms.y_in(asked.y),
        params=asked.params,
        labels=asked.labels,
        query=forms.x_in(asked.query),
        noise=noise,
        key=str(asked.key),
    )


def _target_record(target: AdaptedTask, forms: Forms, asked: TargetRows) -> dict[str, Any]:
    record = forms.record_out(target.record(forms.x_in(asked.query)), asked.query, asked.truth)
    for told, found in zip(record["decompositions"], target.decompositions_, strict=False):
        if isinstance(found.transformation, Transformation):
            told["transformation"] = forms.formula(found.transformation)
    return record


def _same_names(bank: TaskBank, targets: Sequence[TargetRows]) -> list[str]:
    both = [str(t.key) for t in targets if t.key in set(bank.keys)]
    if not both:
        return []
    return [f"The bank has tasks with the names of targets ({', '.join(both)}): if they are the same, they are known."]


def _hints(asked: _Question, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Values that may be wrong, and settings that the data ask for: the logarithm of an input, positive forecasts."""
    told: list[str] = []
    bank, forms = asked.bank, asked.forms
    points, values = (np.concatenate([getattr(t, k) for t in bank.tasks]) for k in ("x", "y"))
    for i, name in enumerate(bank.x_names):
        if not forms.log_x[i] and is_geometric(points[:, i]):
            told.append(
                f"The points of {name} are spaced evenly in its logarithm. With --log_x {quote(name)}, a shift along "
                "it is a factor."
            )
    told += _doubts(asked)
    if forms.positive:
        return told
    for c, name in enumerate(bank.y_names):
        below = [
            r["key"]
            for r in records
            if min(v[c] for v in r["context"]["y"]) > 0 and any(v[c] <= 0 for v in r["prediction"]["low"])
        ]
        if below and values[:, c].min() > 0:
            told.append(
                f"All known values of {name} are positive, and the interval of {', '.join(below[:5])} reaches zero. "
                f"With --positive, it stays positive: the operators then see the logarithm of {name}."
            )
    return told


def _doubts(asked: _Question) -> list[str]:
    """Values of known tasks and targets that look mistyped, with one input."""
    told: list[str] = []
    curves = [(t.key, t.x, t.y) for t in (*asked.bank.tasks, *asked.targets)]
    for key, x, y in curves if asked.bank.d == 1 else ():
        for c, name in enumerate(asked.bank.y_names):
            for i in suspects(x[:, 0], y[:, c]):
                told.append(
                    f"{key}: {name} = {y[i, c]:g} at {asked.bank.x_names[0]} = {x[i, 0]:g} differs from its neighbors "
                    "by several times what all other values there span. Is it mistyped?"
                )
    return told


def _write_predictions(
    config: ExtrapolateConfig, records: Sequence[Mapping[str, Any]], units: Mapping[str, str]
) -> None:
    """A row a query point: task, inputs, for each output the mean and its interval, and whether it is covered.

    Headers are the names alone, so that programs find them; the units stand in a file beside it.
    """
    first = records[0]
    head = [config.task, *first["x_names"]]
    for name in first["y_names"]:
        head += [name, f"{name}_low", f"{name}_high"]
    rows: list[list[Any]] = []
    for r in records:
        asked = r["prediction"]
        for i, x in enumerate(asked["x"]):
            values = [asked[k][i][c] for c in range(len(r["y_names"])) for k in ("mean", "low", "high")]
            rows.append([r["key"], *x, *values, int(asked["covered"][i])])
    _write_csv(config.output_dir / _PREDICTIONS, [[*head, "covered"], *rows])
    if units:
        ends = {f"{n}{end}": units[n] for n in first["y_names"] if n in units for end in ("", "_low", "_high")}
        told = {name: unit for name in head if (unit := ends.get(name) or units.get(name))}
        write_text(config.output_dir / _UNITS, json.dumps(told, ensure_ascii=False, indent=1) + "\n")


def _write_factors(config: ExtrapolateConfig, bank: TaskBank, factors: Mapping[str, Any]) -> None:
    """A row a task: its parameters, its anchor, and its warp from the reference with a 90 % interval."""
    params = [n for n in bank.param_names if n != config.task]
    columns = [f"{k}{end}" for k in factors["factors"] for end in ("", "_low", "_high")]
    rows: list[list[Any]] = [[config.task, *params, "known", "anchor", "reference", *columns]]
    for r in factors["rows"]:
        known = [r["params"].get(n, "") for n in params]
        values = [r[k] for k in columns]
        rows.append([r["task"], *known, int(r["known"]), r["anchor"], factors["reference"], *values])
    _write_csv(config.output_dir / _FACTORS, rows)


def _write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    write_text(path, file.getvalue())
