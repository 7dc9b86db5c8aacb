"""The completions that TRL's trainers log with ``log_completions=True``: a parquet file a step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from operant.core.checks import DataError
from operant.hf.rollouts.formats.base import (
    VERIFY,
    Format,
    Reading,
    numbered,
    numeric,
    picked,
    reward_of,
    steps,
)
from operant.hf.rollouts.formats.settings import ReadConfig
from operant.hf.rollouts.rows import Row

_NO_METRIC = ("step", "prompt", "completion", "advantage")
# TRL's accuracy_reward logs solution, the target, and answer_parsed; this is what it gives where it finds no answer.
_NO_ANSWER = ("[unparseable]", "[skipped]", "", None)


def _read(rows: Sequence[Row], config: ReadConfig) -> Reading:
    """A column for each reward function stands before those that functions log besides: the first is the default."""
    there = [name for name in rows[0] if name not in _NO_METRIC and any(numeric(row.get(name)) for row in rows)]
    if not there and config.metric != VERIFY:
        raise DataError("expected a column of rewards, named as its function, found none. Set --metric verify.")
    metric, said = picked("metric", config.metric, [*there, VERIFY], (there or [VERIFY])[0])
    ids = numbered([json.dumps(row["prompt"], sort_keys=True, default=str) for row in rows])
    read: list[Row] = []
    for i, (row, prompt) in enumerate(zip(rows, ids, strict=True), 1):
        new: dict[str, Any] = {"prompt": prompt, "text": row["prompt"], "completion": _text(row["completion"], i)}
        if isinstance(row.get("solution"), (str, int, float)):
            new["target"] = row["solution"]
        if metric != VERIFY:
            new |= _reward(row.get(metric), f"row {i}", metric)
            if "answer_parsed" in row:
                new["answer"] = None if row["answer_parsed"] in _NO_ANSWER else row["answer_parsed"]
        read.append(new)
    return Reading(read, (said, *steps(rows)))


def _reward(value: Any, where: str, name: str) -> dict[str, Any]:
    """None, which TRL stores as NaN, is a reward function's way to say that it does not judge this completion."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return {"reward": None, "failure": f"no {name}"}
    return {"reward": reward_of(value, where, name)}


def _text(completion: Any, i: int) -> str:
    """A completion as text: of a conversation, the last message."""
    if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
        completion = completion[-1].get("content") or ""
    if not isinstance(completion, str):
        raise DataError(f"row {i}: expected a completion as a text or as messages, got {completion!r:.60}.")
    return completion


TRL = Format("trl", "TRL completions", ("step", "prompt", "completion", "advantage"), _read)
