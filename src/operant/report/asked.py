"""The first sentence of a page, in parts: the model, the data and the counts that the settings of a run name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

EMBEDDED = "embedded"
_HOW = {
    "sft": "Supervised fine-tuning",
    "grpo": "Reinforcement learning (grpo)",
    "rloo": "Reinforcement learning (rloo)",
}


def method_of(config: Mapping[str, Any]) -> str:
    """How a run trains; folders of earlier versions do not say."""
    return _HOW.get(str(config.get("method")), "Training")


def model_of(config: Mapping[str, Any]) -> str:
    """The model that a run started from."""
    name = config.get("model")
    if name == EMBEDDED:
        return "the embedded model, a transformer with 100k parameters,"
    return name if isinstance(name, str) and name else "a model"


def data_of(config: Mapping[str, Any]) -> str:
    """Where the prompts come from; of a file, its name."""
    data = config.get("data")
    given = data if isinstance(data, Mapping) else {}
    sources = [s for key in ("train", "test") if isinstance(s := given.get(key), str) and s]
    return " and ".join(dict.fromkeys(map(_source, sources))) or "prompts"


def _source(text: str) -> str:
    if text == EMBEDDED:
        return "two-digit multiplication"
    return PurePath(text).name if PurePath(text).suffix else text


def counted(count: int, noun: str) -> str:
    """``1 seed``, ``1,500 prompts``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def spanned(budgets: Sequence[int], noun: str) -> str:
    """``1 to 64 samples``."""
    low, high = min(budgets), max(budgets)
    return counted(low, noun) if low == high else f"{low} to {counted(high, noun)}"
