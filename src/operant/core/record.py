"""A run as data: one JSON object a line, append-only, readable after a crash."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from operant.core.checks import DataError

PACKAGES = ("operant", "torch", "numpy", "transformers", "trl", "peft", "datasets", "math-verify")
APPENDED = b'{"kind": '
"""How every appended line begins, and so any torn one."""


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole file of records at once; readers see the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        for record in records:
            file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def append_record(path: Path, kind: str, **fields: Any) -> None:
    """Append one record of this ``kind`` with the wall-clock time; it is on disk when this returns.

    A torn last line, left by a process killed while writing, is closed first, so that it cannot swallow
    the new record.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if file.tell() and not _ends_line(path):
            file.write(b"\n")
        file.write(_line({"kind": kind, "time": time.time(), **fields}))
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path) -> list[dict[str, Any]]:
    r"""The records of a file, oldest first. Lines end at ``\n`` only (text may hold U+2028).

    A line that a killed process left unfinished is skipped if it is the last, or if it stands where a
    resumed run began to append; any other damage is an error.

    Raises:
        DataError: if the file is missing, or holds a line that is not a JSON object.
    """
    if not path.is_file():
        raise DataError(f"expected a JSON lines file at {path}, found none.")
    lines = path.read_bytes().split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines) or APPENDED.startswith(line[: len(APPENDED)]):
                continue
            raise DataError(f"{path}, line {number}: expected a JSON object ({error}).") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, got {type(record).__name__}.")
        records.append(record)
    return records


def environment() -> dict[str, Any]:
    """What a reader needs to repeat a run: versions, platform, cores, threads."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
    }
    for name in PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    return facts


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _line(record: Mapping[str, Any]) -> bytes:
    """UTF-8, one line; a lone surrogate, which UTF-8 lacks, becomes its JSON escape."""
    text = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
