"""The settings of reading rollouts, shared by ``operant evaluate`` and ``operant plan``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FormatName = Literal["auto", "operant", "lm-eval", "verl", "trl", "humaneval", "openai"]


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How a file of rollouts is read.

    Args:
        format: who wrote the rollouts: operant, lm-eval (samples_*.jsonl), verl (validation and rollout dumps), trl
            (completions_*.parquet), humaneval (samples with passed), or openai (batch output). auto: by the columns.
        metric: the column that is the reward, where the file has several; "verify" leaves the rewards of the file and
            verifies the completions. Default: lm-eval's and TRL's first, verl's acc (score if there is none).
        filter: for lm-eval, the filter whose answers and metrics are taken. Default: the file's first.
        per_prompt: use the first M rollouts of every prompt, and leave out prompts with fewer. Default: all rollouts;
            every prompt must then have as many.
    """

    format: FormatName = "auto"
    metric: str = ""
    filter: str = ""
    per_prompt: int | None = None
