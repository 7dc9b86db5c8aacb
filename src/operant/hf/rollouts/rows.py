"""Rollouts as they stand in a file, one a line: what must be there, and of which type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from operant.core.checks import DataError

TEXT_OR_NUMBER = (str, int, float)


def check_rollouts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rollouts that cannot be judged or counted: prompt, and either reward or completion and target.

    Raises:
        DataError: naming the first one, what was expected, what came, and what to do.
    """
    for i, row in enumerate(rows):
        where = f"rollout {i + 1}"
        missing = {"prompt"} - row.keys()
        missing |= set() if "reward" in row else {"completion", "target"} - row.keys()
        if missing:
            raise DataError(f"{where}: expected {sorted(missing)} (or a reward), found {sorted(row)}.")
        failed = row.get("failure") or ""
        _expect(where, row, "failure", isinstance(failed, str), "a text")
        if "reward" in row and not (failed and row["reward"] is None):
            _expect(where, row, "reward", _finite(row["reward"]), "a finite number", "leave it out to have it verified")
        else:
            texts = (row.get("completion", ""), row.get("text", ""))
            _expect(where, row, "completion", isinstance(texts[0], str), "a text")
        _expect(where, row, "prompt", _names(row["prompt"]), "a text or a number that names the prompt")
        answer, score, info = row.get("answer"), row.get("score"), row.get("info") or {}
        _expect(where, row, "answer", answer is None or _names(answer), "a text or a number", "leave it out")
        _expect(where, row, "score", score is None or _finite(score), "a finite number", "leave it out of all rollouts")
        _expect(where, row, "info", isinstance(info, Mapping), "a mapping of what the verifier needs")


def _expect(where: str, row: Mapping[str, Any], name: str, fits: bool, what: str, advice: str = "mend it") -> None:
    if not fits:
        raise DataError(f"{where}: {name} must be {what}, got {row.get(name)!r:.60}. Give one, or {advice}.")


def _names(value: Any) -> bool:
    """Whether a value can be told from others: a list cannot, nor NaN, which is not even itself."""
    return isinstance(value, TEXT_OR_NUMBER) and value == value


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
