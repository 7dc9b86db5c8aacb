"""A run as data: one JSON object a line, append-only, readable after a crash; and the claim of a run's folder."""

from __future__ import annotations

import codecs
import json
import math
import os
import platform
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from operant.core.checks import DataError
from operant.core.trouble import naming

_PACKAGES = ("operant", "torch", "numpy", "transformers", "trl", "peft", "datasets", "math-verify")
LOCK = ".lock"
"""The file of a folder's lock. It is never removed: processes that wait for a removed file would lock another one."""
_HEAD = ("run", "environment")
_PARTIAL = ".partial"


@contextmanager
def lock_folder(folder: Path, *, wait: float = 0.0) -> Generator[None]:
    """Make a folder and keep other processes out of it. The kernel frees the lock of a process that was killed.

    Args:
        folder: what is written into.
        wait: seconds to wait for another process.

    Raises:
        DataError: if another process holds it, or the path is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"expected a folder to write into at {folder}, found a file. Choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise DataError(
            f"{folder} is in use: another process is writing there. Wait until it ends, or choose another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def claim_folder(
    folder: Path,
    command: str,
    config: Mapping[str, Any],
    *,
    resume: bool | None = None,
    loose: Collection[str] = (),
    outputs: Collection[str] = (),
    current: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Generator[list[dict[str, Any]]]:
    """Lock the folder of a run and begin or continue its record; yields the earlier records.

    A run that left only its settings and ``outputs`` starts over. A run that fails at that stage removes them.

    Args:
        folder: the run's.
        command: the command that writes it.
        config: its settings as JSON values.
        resume: whether to continue an existing run; None for a command that cannot.
        loose: settings that may differ between a run and its continuation.
        outputs: files that the command writes before it has results in the record.
        current: brings the settings that an older version recorded to today's names.

    Raises:
        DataError: if the folder is in use, or holds something that this run cannot continue.
    """
    record = folder / "record.jsonl"
    if folder.is_dir() and not (folder / LOCK).exists() and not record.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no run. Choose another --output_dir.")
    made, known = not folder.exists(), {LOCK, record.name, *outputs}
    with lock_folder(folder):
        records = read_records(record) if record.is_file() else []
        head: list[Mapping[str, Any]] = [
            {"kind": "run", "time": time.time(), "command": command, "name": folder.name, "config": config},
            {"kind": "environment", "time": time.time(), **environment()},
        ]
        if _is_begun(folder, records, known):
            write_records(record, head)
            try:
                yield []
            except BaseException:
                if _is_begun(folder, read_records(record), known):
                    _remove(folder, known if made else known - {LOCK})
                raise
            return
        _check_continues(folder, command, config, records, resume, loose, current)
        write_records(record, [*records, *head])
        yield records


def _is_begun(folder: Path, records: Iterable[Mapping[str, Any]], known: Collection[str]) -> bool:
    """Whether nothing of a run is there but its settings."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(_PARTIAL)}
    return names <= set(known) and all(r.get("kind") in _HEAD for r in records)


def _remove(folder: Path, names: Collection[str]) -> None:
    for path in folder.iterdir():
        if path.name in names or path.name.endswith(_PARTIAL):
            path.unlink()
    if LOCK in names:
        folder.rmdir()


def _check_continues(
    folder: Path,
    command: str,
    config: Mapping[str, Any],
    records: list[dict[str, Any]],
    resume: bool | None,
    loose: Collection[str],
    current: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    runs = [r for r in records if r.get("kind") == "run"]
    if not runs:
        raise DataError(f"{folder} is not empty and holds no run. Choose another --output_dir.")
    before, there = current(runs[-1].get("config") or {}), runs[-1].get("command")
    if there != command or not resume:
        advice = ", or --resume true to continue" if there == command and resume is not None else ""
        raise DataError(f"{folder} holds a run of operant {there} already. Give --output_dir another name{advice}.")
    changed = [k for k in config if k not in loose and config[k] != before.get(k)]
    if changed:
        pairs = ", ".join(f"{k}: {before.get(k)!r} -> {config[k]!r}" for k in changed)
        raise DataError(
            f"{folder} holds a run with other settings ({pairs}); it cannot be continued. Give --output_dir another "
            "name."
        )


def write_text(path: Path, text: str) -> None:
    """Write a whole text file at once."""
    _replace(path, [text.encode()])


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole file of records at once; readers see the old file or the new one, never half of it."""
    _replace(path, map(_line, records))


def extend_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add records to a file, all of them or none."""
    write_records(path, [*read_records(path), *records])


def append_record(path: Path, kind: str, **fields: Any) -> None:
    """Append one record of this ``kind`` with the wall-clock time; it is on disk when this returns.

    A torn last line, left by a process killed while writing, is cut off first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = _line({"kind": kind, "time": time.time(), **fields})
    with naming(path), path.open("a+b") as file:
        file.write(_mended(file) + line)
        file.flush()
        # A process that is killed after this line has written its record.
        os.fsync(file.fileno())


def read_records(path: Path, *, torn: bool = True) -> list[dict[str, Any]]:
    r"""The records of a file, oldest first. Lines end at ``\n`` only (text may hold U+2028).

    Args:
        path: a JSON lines file.
        torn: whether a last line without its end, which a killed process left, is skipped; any other damage is an
            error.

    Raises:
        DataError: if the file is missing, or holds a line that is not a JSON object.
    """
    if not path.is_file():
        raise DataError(f"expected a JSON lines file at {path}, found none.")
    return records_of(path.read_bytes(), path, torn=torn)


def records_of(data: bytes, path: Path, *, torn: bool) -> list[dict[str, Any]]:
    """The records in the bytes of a file; see :func:`read_records`."""
    lines = data.split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            if torn and number == len(lines) and isinstance(error, ValueError):
                continue
            raise DataError(f"{path}, line {number}: expected a JSON object {_damage(lines[0], error)}.") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, got {type(record).__name__}.")
        records.append(record)
    return records


def environment() -> dict[str, Any]:
    """What a reader needs to repeat a run: versions, platform, cores, threads."""
    import torch

    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
    }
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    return facts


def _damage(first: bytes, error: Exception) -> str:
    """What is wrong with a line, and what to do."""
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "(the file is UTF-16). Convert it to UTF-8"
    if isinstance(error, UnicodeDecodeError):
        return f"({error}). Convert the file to UTF-8, or mend this line"
    return f"({error}). Mend this line, or remove it"


def _replace(path: Path, chunks: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + _PARTIAL)
    try:
        with naming(path), partial.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        # A rename is atomic: a reader sees the old file or the new one.
        partial.replace(path)
    except BaseException:
        with suppress(OSError):  # the space may be all that is wanting
            partial.unlink()
        raise


def _mended(file: BinaryIO) -> bytes:
    """Cut a torn last line off; if a whole line lacks its end, return the end."""
    size = place = file.seek(0, os.SEEK_END)
    tail = b""
    # From the end, in steps: the last record can be long, and the file is not read whole.
    while place and b"\n" not in tail:
        step = min(place, 1 << 16)
        place = file.seek(place - step)
        tail = file.read(step) + tail
        file.seek(place)
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last.strip():
        return b""
    try:
        json.loads(last)
    except ValueError:
        file.truncate(size - len(last))
        return b""
    except RecursionError as error:  # whole, for all that can be told: nothing of it is thrown away
        raise DataError(f"{file.name}: the last line is nested too deeply {_damage(last, error)}.") from error
    return b"\n"


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
