"""Rollouts of a file in any known format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from operant.core.checks import DataError, check_int
from operant.hf.rollouts.formats.base import Format, Reading
from operant.hf.rollouts.formats.files import read_table
from operant.hf.rollouts.formats.lmeval import LM_EVAL
from operant.hf.rollouts.formats.openai import OPENAI
from operant.hf.rollouts.formats.plain import HUMANEVAL, OWN, VERL
from operant.hf.rollouts.formats.settings import ReadConfig
from operant.hf.rollouts.formats.trl import TRL
from operant.hf.rollouts.rows import Row
from operant.verify import Prompt

AUTO = "auto"
"""The format of the columns that a file has."""
FORMATS = {f.name: f for f in (OWN, LM_EVAL, VERL, TRL, HUMANEVAL, OPENAI)}


@dataclass(frozen=True)
class Rollouts:
    """Rollouts that were read.

    Args:
        rows: as operant writes them.
        said: what was read, in a line: ``verl: 20 prompts x 8 samples, metric acc (also score: --metric)``.
    """

    rows: list[Row]
    said: str


def read_rollouts(path: Path, config: ReadConfig) -> Rollouts:
    """Read a file of rollouts: JSON lines, also compressed with gzip, or parquet.

    Raises:
        DataError: for a file that is missing, damaged, empty or of no known format, naming the row and the columns.
    """
    if config.per_prompt is not None:
        check_int("per_prompt", config.per_prompt, least=1)
    rows = read_table(path)
    if not rows:
        raise DataError(f"{path}: expected one rollout a line, found none.")
    known = _detected(rows[0], path) if config.format == AUTO else FORMATS[config.format]
    for i, row in enumerate(rows, 1):
        if missing := known.missing(row):
            raise DataError(
                f"{path}, row {i}: expected {', '.join(missing).replace('|', ' or ')}, as {known.title} has, found "
                f"{_columns(row)}. {'All rows must have one format.' if i > 1 else 'Choose another --format.'}"
            )
    reading = _read(known, rows, config, path)
    kept, left_out = _first(reading.rows, config.per_prompt)
    if not kept:
        raise DataError(f"{path}: no prompt has {config.per_prompt} rollouts. Lower --per_prompt.")
    gone = (f"prompts with fewer, left out: {left_out}",) if left_out else ()
    return Rollouts(kept, f"{known.title}: {', '.join((_size(kept), *reading.said, *gone))}")


def _read(known: Format, rows: list[Row], config: ReadConfig, path: Path) -> Reading:
    if config.filter and known is not LM_EVAL:
        raise DataError(f"{path}: --filter is for {LM_EVAL.title}, and this is {known.title}. Leave it out.")
    try:
        return known.read(rows, config)
    except DataError as error:
        raise DataError(f"{path}, {error}") from error
    # What values of another type raise anywhere in a reader.
    except (AttributeError, LookupError, TypeError) as error:
        raise DataError(
            f"{path} has the columns of {known.title}, and values that it does not write ({type(error).__name__}: "
            f"{error}). Mend them, or rename the columns to those of another format."
        ) from error


def _detected(row: Mapping[str, Any], path: Path) -> Format:
    """The format that fits with most columns: some formats have the columns of another and more."""
    fitting = [f for f in FORMATS.values() if not f.missing(row)]
    most = [f for f in fitting if len(f.needs) == max(len(g.needs) for g in fitting)]
    if len(most) != 1:
        what = "several formats" if most else "no known format"
        raise DataError(
            f"{path}: the columns {_columns(row)} are those of {what}. Expected one of: "
            f"{'; '.join(map(str, most or FORMATS.values()))}. Choose with --format, or rename the columns."
        )
    return most[0]


def _columns(row: Mapping[str, Any]) -> str:
    return ", ".join(row) or "none"


def _first(rows: list[Row], per_prompt: int | None) -> tuple[list[Row], int]:
    """The first M rollouts of every prompt that has as many, and how many prompts have fewer."""
    if per_prompt is None:
        return rows, 0
    counts = _counts(rows)
    seen, kept = Counter[Any](), list[Row]()
    for row in rows:
        seen[row["prompt"]] += 1
        if counts[row["prompt"]] >= per_prompt >= seen[row["prompt"]]:
            kept.append(row)
    return kept, sum(count < per_prompt for count in counts.values())


def _size(rows: list[Row]) -> str:
    counts = _counts(rows)
    low, high = min(counts.values()), max(counts.values())
    return f"{len(counts)} prompt{'s' * (len(counts) > 1)} x {low if low == high else f'{low} to {high}'} samples"


def _counts(rows: Sequence[Row]) -> Counter[Any]:
    counts = Counter[Any]()
    for i, row in enumerate(rows, 1):
        if not isinstance(row["prompt"], (str, int, float)):
            what = "a text or a number that names the prompt"
            raise DataError(f"rollout {i}: prompt must be {what}, got {row['prompt']!r:.60}. Give one, or mend it.")
        counts[row["prompt"]] += 1
    return counts


def answered(rows: Sequence[Row]) -> bool:
    """Whether every rollout has a reward or a target."""
    return all("reward" in row or "target" in row for row in rows)


def check_answered(rows: Sequence[Row], path: Path) -> None:
    """Refuse rollouts that nothing can verify.

    Raises:
        DataError: naming the first, and the settings that give the answers.
    """
    if not answered(rows):
        i = next(i for i, row in enumerate(rows) if not answered([row]))
        raise DataError(
            f"{path}: rollout {i + 1}, of the prompt {rows[i]['prompt']!r:.60}, has neither a reward nor a target. "
            "operant evaluate takes the answers from --data.test questions.jsonl --data.target answer, with --data.id "
            "the column of the prompts' names."
        )


def with_answers(rows: list[Row], path: Path, prompts: Sequence[Prompt]) -> tuple[list[Row], list[Prompt]]:
    """Rollouts with the answers of their prompts, and the prompts under the names that the file gives them.

    Raises:
        DataError: if rollouts with neither a reward nor a target belong to no prompt.
    """
    known = {str(p.id): p for p in prompts}
    names = list(dict.fromkeys(row["prompt"] for row in rows))
    unknown = [name for name in names if str(name) not in known]
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} of {len(names)} prompts are not in the data, such as {unknown[0]!r:.60}; the data "
            f"has {prompts[0].id!r:.60}. Set --data.id to the column that holds the names, one of: id, "
            f"{', '.join(prompts[0].info) or 'no other'}."
        )
    named = {name: replace(known[str(name)], id=name) for name in names}
    return [{"target": named[row["prompt"]].target, **row} for row in rows], list(named.values())
