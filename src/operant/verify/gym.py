"""Prompts from the generators of reasoning-gym, drawn and scored in a worker process."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from operant.core.checks import DataError
from operant.verify.check import need_package
from operant.verify.pool import Pool
from operant.verify.registry import VERIFIERS

GYM = "gym:"
# Entries drawn where no size is given.
_SIZE = 1000
# Wall-clock limit for drawing them. Some generators search for puzzles with exactly one solution.
_SECONDS = 600.0


class Entry(NamedTuple):
    """One entry: its question, its answer ("" if the generator keeps none), and what the verifier needs."""

    question: str
    answer: str
    info: dict[str, Any]


def draw(source: str, *draws: tuple[int, int | None]) -> list[list[Entry]]:
    """Entries of "GENERATOR?key=value&...", with the generator's own settings as JSON values or text.

    They are drawn under a fixed hash seed. A few generators iterate over sets, and would otherwise draw other
    entries in every process.

    Args:
        source: for example "chain_sum?size=500&min_terms=2&max_terms=4".
        draws: for each list, its seed and its number of entries. None takes both from the source, where it has them.

    Raises:
        DataError: without reasoning-gym; for an unknown generator or setting; for a generator that does not score its
            own answers 1.0, or scores nonsense 1.0: its rewards would mean nothing.
    """
    need_package(VERIFIERS["gym"])
    name, _, query = source.partition("?")
    try:
        settings = {k: _value(v) for k, v in parse_qsl(query, strict_parsing=bool(query))}
    except ValueError as error:
        raise DataError(f"gym:{source}: expected GENERATOR?key=value&key=value ({error}).") from error
    orders: list[dict[str, Any]] = []
    for seed, size in draws:
        own = {"size": _SIZE, "seed": seed} | settings
        orders.append((own if size is None else own | {"size": size, "seed": seed}) | {"name": name})
    pool = Pool("gym", processes=1, seconds=_SECONDS)
    try:
        replies = pool.map("draw", [(order,) for order in orders])
    finally:
        pool.close()
    return [_rows(source, order, *reply) for order, reply in zip(orders, replies, strict=True)]


def _rows(source: str, order: dict[str, Any], rows: Any, failure: str) -> list[Entry]:
    if failure or isinstance(rows, str):
        raise DataError(
            f"gym:{source} gives no entries: {failure or rows}. The generators and their settings are those of "
            "reasoning_gym.create_dataset."
        )
    wrong = [row for row in rows if row["answer"] is not None and row["own"] != 1.0]
    if wrong:
        raise DataError(
            f"gym:{source}: {len(wrong)} of {len(rows)} entries do not score their own answer 1.0, for example "
            f"{wrong[0]['answer']!r}. Rewards of this generator would mean nothing: take another."
        )
    # A model would learn to write nonsense.
    if any(row["junk"] == 1.0 for row in rows):
        raise DataError(f"gym:{source} scores the text 'no answer at all' 1.0, as if it were right: take another.")
    return [Entry(row["question"], row["answer"] or "", {"gym": order, "entry": row["entry"]}) for row in rows]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
