"""What a format of rollouts is: the columns that tell it from others, and a function that turns its rows into ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operant.core.checks import DataError
from operant.hf.rollouts.formats.settings import ReadConfig
from operant.hf.rollouts.rows import Row

VERIFY = "verify"
"""The metric that stands for none: the rewards of the file are left, and the completions are verified."""


@dataclass(frozen=True)
class Reading:
    """Rollouts of a file.

    Args:
        rows: as operant writes them.
        said: what was chosen and left out, in a few words each.
    """

    rows: list[Row]
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A format of rollouts.

    Args:
        name: its value of ``--format``.
        title: who writes it.
        needs: columns that every row has; "a|b" is either of two.
        read: rows and settings -> rollouts. Its errors name the row.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    read: Callable[[Sequence[Row], ReadConfig], Reading]

    def missing(self, row: Mapping[str, Any]) -> list[str]:
        """The columns that a row lacks."""
        return [need for need in self.needs if not any(name in row for name in need.split("|"))]

    def __str__(self) -> str:
        """``verl (input, output, score)``."""
        return f"{self.name} ({', '.join(need.replace('|', ' or ') for need in self.needs)})"


def picked(flag: str, wanted: str, there: Sequence[str], default: str) -> tuple[str, str]:
    """The one that is taken of several, and what is said of it: ``metric acc (also score: --metric)``.

    Raises:
        DataError: for one that is not there.
    """
    if wanted and wanted not in there:
        raise DataError(f"expected one of {', '.join(there) or 'none'} for --{flag}, got {wanted!r}.")
    chosen = wanted or default
    others = [name for name in there if name != chosen and name != VERIFY]
    return chosen, f"{flag} {chosen}" + (f" (also {', '.join(others)}: --{flag})" if others else "")


def reward_of(value: Any, where: str, name: str) -> float:
    """A metric as a reward: true is 1.

    Raises:
        DataError: for anything but a finite number, true or false.
    """
    if not numeric(value) or not math.isfinite(value):
        raise DataError(f"{where}: {name} must be a finite number, true or false, got {value!r:.60}. Mend the row.")
    return float(value)


def numeric(value: Any) -> bool:
    """Whether a value can be a reward: a number, true or false."""
    return isinstance(value, (bool, int, float))


def numbered(keys: Sequence[Hashable]) -> list[int]:
    """Equal keys get equal numbers, from 0 in the order of appearance: ids of prompts whose file gives none."""
    seen: dict[Hashable, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]


def steps(rows: Sequence[Row]) -> tuple[str, ...]:
    """A word on rollouts of several training steps, between which the model changed."""
    found = sorted({row["step"] for row in rows if isinstance(row.get("step"), int)})
    return (f"steps {found[0]} to {found[-1]}, between which the model changed",) if len(found) > 1 else ()
