"""What the folder of a run holds, and how it is kept quiet: shared by training and evaluation."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from operant.core.record import write_records, write_text
from operant.hf.workers import is_main
from operant.strategies import PassAt


def quiet() -> None:
    """Progress and results are ours to show: keep the libraries' own bars and notices off the screen."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="(transformers|trl|peft|accelerate|torch).*")
    if not is_main():
        logging.getLogger("operant").setLevel(logging.ERROR)  # the first process says it


def write_job(folder: Path, *, seed: int, branch: str, role: str, strategy: str, baseline: bool = False) -> None:
    """Say what lies in a job's folder."""
    facts = {"seed": seed, "branch": branch, "baseline": baseline, "role": role, "strategy": strategy}
    write_text(folder / "job.json", json.dumps(facts) + "\n")


def write_prompts(folder: Path, ids: Sequence[Any], columns: Mapping[str, Tensor], **extra: Tensor) -> None:
    """The result of every prompt, one line each: metric -> value, from columns of shape (B,). Written last."""
    rows = (
        {
            "prompt": prompt,
            "values": {name: column[i].item() for name, column in columns.items()},
            **{name: column[i].item() for name, column in extra.items()},
        }
        for i, prompt in enumerate(ids)
    )
    write_records(folder / "prompts.jsonl", rows)


def pass_at(log_p: Tensor, budgets: Sequence[int], name: str = "pass") -> dict[str, Tensor]:
    """Exact pass@k = 1 - (1-p)^k of every prompt, one column (B,) a budget."""
    return {f"{name}@{k}": PassAt(k).success(log_p).log_s.exp() for k in budgets}


def summary(columns: Mapping[str, Tensor]) -> dict[str, dict[str, float | None]]:
    """Mean over prompts and its standard error for every column (B,); no error for a single prompt."""
    return {
        name: {"value": v.mean().item(), "stderr": v.std().item() / len(v) ** 0.5 if len(v) > 1 else None}
        for name, v in columns.items()
    }
