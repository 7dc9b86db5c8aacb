"""``operant extrapolate`` for curves (CSV) and text tasks (JSON lines): one verb, whose files say which it is."""

from __future__ import annotations

import codecs
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from operant.core.checks import ConfigError, DataError
from operant.hf.text_config import TextConfig
from operant.relational.config import ExtrapolateConfig as CurveConfig

_HEAD = 4096
"""Bytes of a file that are read to find its kind."""


@dataclass(frozen=True)
class Files:
    """Settings for both kinds.

    Args:
        bank: the known tasks: CSV with a row a point (curves), or JSON lines with a line a demonstration (text tasks).
        target: the targets, in the same form. A row whose y is empty in CSV, null or missing in JSON is a query.
        query: further queries, in the same form: of each target, or of all of them if they lack the column of the task.
            Values of y in it are shown beside the predictions and never used.
        task: the column that tells the tasks apart.
        x: columns of the inputs. Default for text tasks: input.
        y: columns of the outputs. Default for text tasks: output.
        seed: seed of everything random.
        output_dir: folder of the results. It must be new, unless --resume is set.
        open: whether to open the page in a browser.
    """

    bank: Path
    target: Path
    query: Path | None = None
    task: str = "task"
    x: list[str] | str = ""
    y: list[str] | str = ""
    seed: int = 0
    output_dir: Path = Path("runs/extrapolation")
    open: bool = False


@dataclass(frozen=True)
class ExtrapolateSettings(Files, TextConfig, CurveConfig):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Every setting of the verb, for curves and for text tasks."""

    @property
    def resumable(self) -> bool:
        """Whether a run that was stopped can be continued: curves take seconds, and are not."""
        return holds_text(self.bank)


def groups() -> list[tuple[type, set[str]]]:
    """The groups of ``--help``: whose settings they are, and those that stand in another group."""
    shared = {f.name for f in fields(Files)}
    return [(Files, {"bank"}), (CurveConfig, shared), (TextConfig, shared)]


def of_kind(config: ExtrapolateSettings) -> CurveConfig | TextConfig:
    """The settings of the kind that the files have.

    Raises:
        DataError: for files of both kinds.
        ConfigError: for a setting of the other kind, or curves without columns.
    """
    text = holds_text(config.bank)
    for name in ("target", "query"):
        path = getattr(config, name)
        if path is not None and path.is_file() and holds_text(path) != text:
            said = ("JSON lines (text tasks)", "CSV (curves)")
            raise DataError(
                f"{config.bank} is {said[not text]} and {path} is {said[text]}. Give --{name} the form of the bank."
            )
    mine, other = (TextConfig, CurveConfig) if text else (CurveConfig, TextConfig)
    own = {f.name for f in fields(mine)}
    for f in fields(other):
        if f.name not in own and getattr(config, f.name) != _default(f):
            kinds = ("curves (CSV)", "text tasks (JSON lines)")
            raise ConfigError(f"--{f.name} is for {kinds[not text]}, and {config.bank} holds {kinds[text]}.")
    settings = {name: getattr(config, name) for name in own}
    if not text and not (config.x and config.y):
        raise ConfigError(
            "curves need --x and --y, the columns of their inputs and outputs. Text tasks are no CSV but JSON lines: "
            '{"task": ..., "input": ..., "output": ...} a line.'
        )
    if text:
        settings |= {name: _one(name, settings[name] or default) for name, default in _COLUMNS.items()}
    return mine(**settings)


def holds_text(path: Path) -> bool:
    """Whether a file is JSON lines: by its first character, or by its name if it is missing or empty.

    Raises:
        DataError: for a folder.
    """
    if path.is_dir():
        raise DataError(f"expected a CSV file or JSON lines at {path}, found a folder.")
    head = b""
    if path.exists():
        with path.open("rb") as file:
            head = file.read(_HEAD)
    for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        head = head.removeprefix(mark)
    head = head.strip(b" \t\r\n\x00")
    return head[:1] in (b"{", b"[") if head else path.suffix.lower() in (".jsonl", ".json", ".ndjson")


_COLUMNS = {"x": TextConfig.x, "y": TextConfig.y}


def _one(name: str, value: list[str] | str) -> str:
    if isinstance(value, list) and len(value) != 1:
        raise ConfigError(f"text tasks have one column of --{name}, got {', '.join(value)}.")
    return value if isinstance(value, str) else value[0]


def _default(f: Any) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()
