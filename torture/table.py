"""The result: a row a class of trouble, how often it was tried and how often operant survived."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

import torch

SHOWN = 5
"""Troubles that are kept of each row."""


@dataclass
class Row:
    """One class of trouble.

    Args:
        name: what was done to operant.
        tried: how often.
        survived: how often it ended as it must.
        troubles: the first cases that did not, with what repeats them.
    """

    name: str
    tried: int = 0
    survived: int = 0
    troubles: list[str] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether something did not survive, or nothing was tried."""
        return self.tried == 0 or self.survived < self.tried


class Table:
    """The rows in the order in which they were announced."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.began = time.time()

    def row(self, name: str) -> Row:
        """The row of a class, made where there is none."""
        return self.rows.setdefault(name, Row(name))

    def add(self, name: str, tried: int, survived: int, trouble: str | None = None) -> None:
        """Count trials of a class."""
        row = self.row(name)
        row.tried += tried
        row.survived += survived
        if trouble:
            print(f"\n{name}: {trouble}", file=sys.stderr, flush=True)
            if len(row.troubles) < SHOWN:
                row.troubles.append(trouble)

    @property
    def failed(self) -> bool:
        """Whether a row is open."""
        return any(row.open for row in self.rows.values())

    def markdown(self) -> str:
        """The table, as it stands in the documentation."""
        lines = ["| class | tried | survived |", "|---|---:|---:|"]
        lines += [f"| {r.name} | {r.tried:,} | {r.survived:,} |" for r in self.rows.values()]
        return "\n".join(lines)

    def troubles(self) -> str:
        """What did not survive, row by row."""
        told = [f"{r.name}: {r.survived} of {r.tried}\n" + "\n".join(r.troubles) for r in self.rows.values() if r.open]
        return "\n\n".join(told)

    def facts(self, command: str) -> str:
        """When and where it ran, in one sentence."""
        minutes = (time.time() - self.began) / 60
        cores = len(os.sched_getaffinity(0))
        return (
            f"`{command}` on {datetime.now(UTC):%Y-%m-%d}: {minutes:.0f} minutes on {cores} CPU cores, "
            f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}, torch "
            f"{torch.__version__.split('+')[0]}, transformers {version('transformers')}, trl {version('trl')}."
        )
