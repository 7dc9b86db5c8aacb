"""The files of a run's folder that training and evaluation write alike, and the metrics in them."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from operant.core.record import write_records, write_text
from operant.hf.workers import is_main
from operant.strategies import PassAt, Strategy
from operant.strategies.mixture import budgets_of


@dataclass(frozen=True, eq=False)
class Column:
    """One metric of every prompt: a strategy's family, its budget ``n``, and (B,) values."""

    family: str
    n: int
    values: Tensor

    @classmethod
    def of(cls, s: Strategy, values: Tensor) -> Column:
        """The column of a strategy."""
        return cls(s.family, s.n, values)


def quiet() -> None:
    """Switch off the progress bars and notices of transformers and TRL: operant prints progress and results itself."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="(transformers|trl|peft|accelerate|torch).*")
    if not is_main():
        logging.getLogger("operant").setLevel(logging.ERROR)  # the first process logs it


def write_job(
    folder: Path,
    *,
    seed: int,
    branch: str,
    role: str,
    strategy: Strategy | None,
    baseline: bool = False,
    rates: Sequence[float] = (),
) -> None:
    """Write job.json: what the folder holds, the metric that the branch was trained for, and the parts of a mixture.

    ``rates`` are the learning rates among which its values were chosen, or the one that it was trained with.
    """
    facts: dict[str, Any] = {"seed": seed, "branch": branch, "baseline": baseline, "role": role, "rates": list(rates)}
    if strategy is not None:
        facts |= {"strategy": str(strategy), "objective": _metric(strategy)}
        facts["parts"] = [_metric(s) for s in budgets_of(strategy)]
    write_text(folder / "job.json", json.dumps(facts) + "\n")


def _metric(s: Strategy) -> dict[str, Any]:
    return {"family": s.family, "n": s.n}


def write_prompts(folder: Path, ids: Sequence[Any], columns: Mapping[str, Column], **extra: Tensor) -> None:
    """Write prompts.jsonl, a line per prompt: metric -> value, from columns (B,). It is a job's last file."""
    rows = (
        {
            "prompt": prompt,
            "values": {name: column.values[i].item() for name, column in columns.items()},
            **{name: column[i].item() for name, column in extra.items()},
        }
        for i, prompt in enumerate(ids)
    )
    write_records(folder / "prompts.jsonl", rows)


def exact_columns(log_p: Tensor, strategies: Sequence[Strategy], prefix: str = "") -> dict[str, Column]:
    """S(p) of every prompt, one column (B,) per strategy; pass@k, for example, is 1 - (1-p)^k."""
    return {
        f"{prefix}{s}": Column(f"{prefix}{s.family}", s.n, s.success(log_p).log_s.exp())
        for s in dict.fromkeys(strategies)
    }


def pass_at(log_p: Tensor, budgets: Sequence[int], prefix: str = "") -> dict[str, Column]:
    """Exact pass@k of every prompt, one column (B,) per budget."""
    return exact_columns(log_p, [PassAt(k) for k in budgets], prefix)


def summary(columns: Mapping[str, Column]) -> dict[str, dict[str, Any]]:
    """Family, budget, mean over prompts and its standard error of every column; no error for a single prompt."""
    return {
        name: {
            "value": c.values.mean().item(),
            "stderr": c.values.std().item() / len(c.values) ** 0.5 if len(c.values) > 1 else None,
            "family": c.family,
            "n": c.n,
        }
        for name, c in columns.items()
    }
