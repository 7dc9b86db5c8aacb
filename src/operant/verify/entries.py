"""Entries of reasoning-gym's generators in a worker process: drawn, and graded by the generator's own score.

Workers load this file without operant: it imports the standard library only, and reasoning-gym where it is used.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any


def grade(target: str, text: str, info: Mapping[str, Any]) -> tuple[float | None, str | None, bytes | None]:
    """The generator's score of the text in the last <answer> tag, or of the whole text: 1.0 is right, less is wrong."""
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    answer = (tagged[-1] if tagged else text).strip()
    if not answer:
        return 0.0, None, None
    entry = unpack(info["entry"])
    return float(_generator(json.dumps(info["gym"])).score_answer(answer, entry) == 1.0), answer, None


def draw(arguments: Mapping[str, Any]) -> list[dict[str, Any]] | str:
    """The entries of a generator, and how each one scores its own answer; text if there is no such generator."""
    try:
        source = _generator(json.dumps(arguments))
        rows: list[dict[str, Any]] = []
        for entry in source:
            packed = json.loads(json.dumps(pack(entry)))  # as it comes back to be scored
            answer = entry["answer"]
            own = None if answer is None else grade("", answer, {"gym": arguments, "entry": packed})[0]
            row = {"question": entry["question"], "answer": answer, "entry": packed, "own": own}
            # Twenty entries are enough to find a scorer that accepts anything.
            rows.append({**row, "junk": _junk(arguments, packed) if len(rows) < 20 else None})
    except Exception as error:  # wrong names and values of a configuration raise nearly anything there
        return f"{type(error).__name__}: {error}"
    return rows


def pack(value: Any) -> Any:
    """Tuples as {"()": list}, for JSON: some generators score lists and tuples differently."""
    if isinstance(value, tuple):
        return {"()": [pack(x) for x in value]}
    if isinstance(value, list):
        return [pack(x) for x in value]
    return {k: pack(v) for k, v in value.items()} if isinstance(value, dict) else value


def unpack(value: Any) -> Any:
    """What :func:`pack` was given."""
    if isinstance(value, list):
        return [unpack(x) for x in value]
    if not isinstance(value, dict):
        return value
    return tuple(map(unpack, value["()"])) if value.keys() == {"()"} else {k: unpack(v) for k, v in value.items()}


# Making a generator takes time, and a batch has completions of few of them.
@functools.lru_cache(64)
def _generator(arguments: str) -> Any:
    """The generator, which scores by its own configuration."""
    import reasoning_gym  # pyright: ignore[reportMissingImports]

    settings: dict[str, Any] = json.loads(arguments)
    if "datasets" in settings:
        from reasoning_gym.composite import DatasetSpec  # pyright: ignore[reportMissingImports]

        settings["datasets"] = [DatasetSpec(**x) for x in settings["datasets"]]
    return reasoning_gym.create_dataset(**settings)


def _junk(arguments: Mapping[str, Any], packed: Any) -> float | None:
    """The reward of an answer that is right nowhere; a few scorers raise on it."""
    try:
        return grade("", "no answer at all", {"gym": arguments, "entry": packed})[0]
    except Exception:
        return None
