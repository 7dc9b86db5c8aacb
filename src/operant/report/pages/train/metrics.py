"""The metrics of a run, and the metric at which each branch is judged, from the fields of its records.

Early folders lack these fields. Only there the family and the budget are read from the name of the metric or branch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operant.core.checks import DataError

_OLD_NAME = re.compile(r"(?P<family>.+)@(?P<budget>[1-9][0-9]*)")
_OLD_BRANCH = re.compile(r"([A-Za-z_]+)@([0-9]+)")


@dataclass(frozen=True, order=True)
class Metric:
    """A family of strategies, such as ``threshold@N:2``, at one budget."""

    family: str
    n: int


def measured(names: Iterable[str], evaluations: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Metric]:
    """The metric of every column, from the curves of the evaluations.

    Raises:
        DataError: for a column that no evaluation describes and whose name holds no budget.
    """
    said = {name: entry for e in evaluations for name, entry in (e.get("curve") or {}).items()}
    return {name: _metric(said.get(name) or {}) or _of_old_name(name, path) for name in names}


def aims(about: Mapping[str, Any], path: Path) -> tuple[Metric | None, tuple[Metric, ...]]:
    """The objective of a branch, None if unknown, and the parts that it mixes, from its job.json.

    Raises:
        DataError: for fields that do not hold metrics.
    """
    if "objective" not in about:
        found = _OLD_BRANCH.findall(str(required(about, "branch", path)))
        return None, tuple(Metric(f"{family}@N", int(n)) for family, n in found)
    parts = about.get("parts")
    every = [_metric(x) for x in [about["objective"], *(parts if isinstance(parts, list) else [None])]]
    if None in every:
        raise DataError(f"{path}: expected the family and the budget n of its objective and parts, got {dict(about)}.")
    objective, *rest = [m for m in every if m is not None]
    return objective, tuple(rest)


def required(record: Mapping[str, Any], key: str, path: Path) -> Any:
    """A field that a record must have.

    Raises:
        DataError: if it is missing.
    """
    if key not in record:
        raise DataError(f"{path}: expected the key {key!r}, got {sorted(record)}. Was it written by another version?")
    return record[key]


def _metric(entry: Any) -> Metric | None:
    family, n = (entry.get("family"), entry.get("n")) if isinstance(entry, dict) else (None, None)
    return Metric(family, n) if isinstance(family, str) and isinstance(n, int) else None


def _of_old_name(name: str, path: Path) -> Metric:
    match = _OLD_NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{path}: expected a metric named like 'pass@16' (family@budget), got {name!r}.")
    return Metric(f"{match['family']}@N", int(match["budget"]))
