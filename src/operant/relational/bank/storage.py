"""A bank in a folder: ``bank.json`` holds its facts, ``bank.npz`` its numbers. No code is stored."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from operant.core.checks import DataError
from operant.relational.bank.curves import METHODS, Array
from operant.relational.bank.reading import plain
from operant.relational.bank.task import Task


@dataclass(frozen=True, eq=False)
class _Stored:
    """What a folder holds.

    Args:
        arguments: of :meth:`TaskBank.from_arrays`.
        method: how the tasks are interpolated.
        notes: what was done to the data.
    """

    arguments: dict[str, Any]
    method: str
    notes: tuple[str, ...]


def write(folder: Path, facts: Mapping[str, Any], tasks: Sequence[Task], params: Array) -> Path:
    """Write the facts of a bank, its tasks, and their parameters (F, K)."""
    folder.mkdir(parents=True, exist_ok=True)
    told = [{"key": plain(t.key), "labels": {k: plain(v) for k, v in t.labels.items()}} for t in tasks]
    arrays = {f"x{i}": t.x for i, t in enumerate(tasks)} | {f"y{i}": t.y for i, t in enumerate(tasks)}
    (folder / "bank.json").write_text(json.dumps({**facts, "tasks": told}, indent=1), encoding="utf-8")
    np.savez(folder / "bank.npz", allow_pickle=False, params=params, **arrays)
    return folder


@contextmanager
def reading(folder: Path) -> Generator[_Stored]:
    """What :func:`write` wrote, while it is made a bank.

    Raises:
        DataError: if the files are missing or damaged.
    """
    if not ((folder / "bank.json").is_file() and (folder / "bank.npz").is_file()):
        raise DataError(f"expected bank.json and bank.npz in {folder}, as TaskBank.save writes them.")
    try:
        yield _read(folder)
    except Exception as error:  # NumPy and zipfile raise nearly anything on a damaged file
        raise DataError(
            f"{folder} does not hold a whole bank ({type(error).__name__}: {error}). Save it again."
        ) from error


def _read(folder: Path) -> _Stored:
    facts = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
    x_names, y_names, param_names = (_texts(facts, n) for n in ("x_names", "y_names", "param_names"))
    if facts["method"] not in METHODS:
        raise DataError(f"expected a method of {', '.join(METHODS)}, got {facts['method']!r}")
    data = io.BytesIO((folder / "bank.npz").read_bytes())  # NumPy leaves a damaged file open
    with np.load(data, allow_pickle=False) as arrays:
        tasks = {_tuples(t["key"]): (arrays[f"x{i}"], arrays[f"y{i}"]) for i, t in enumerate(facts["tasks"])}
        params = arrays["params"]
    if len(tasks) < len(facts["tasks"]):
        raise DataError("two of its tasks have one key")
    arguments = {
        "tasks": tasks,
        "params": params if param_names else None,
        "labels": [_tuples(t["labels"]) for t in facts["tasks"]],
        "x_names": x_names,
        "y_names": y_names,
        "param_names": param_names,
    }
    said = ["saved from functions: known at its points only"] if facts["callable"] else []
    return _Stored(arguments, facts["method"], (*_texts(facts, "notes"), *said))


def _texts(facts: Mapping[str, Any], name: str) -> tuple[str, ...]:
    if not isinstance(facts[name], list) or not all(isinstance(text, str) for text in facts[name]):
        raise DataError(f"{name} must be a list of texts")
    return tuple(facts[name])


def _tuples(value: Any) -> Any:
    """What JSON wrote as lists, as the tuples that they were."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
