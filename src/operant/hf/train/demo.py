"""The settings of ``operant demo``: found on seeds 0 to 2 of this very task (LOG.md), kept as plain data."""

from __future__ import annotations

from pathlib import Path

from operant.core.checks import check_int
from operant.hf.config import TrainConfig
from operant.hf.workers import cores

STRATEGIES = ["pass@16", "pass@64", "mix(pass@1:0.25, pass@64:0.75)"]


def demo_config(
    output_dir: Path, *, seeds: int, warm_steps: int, steps: int, jobs: int | None, resume: bool
) -> TrainConfig:
    """Two-digit multiplication with the embedded model: cross-entropy beside three strategies, on every core."""
    branches = check_int("seeds", seeds, least=1) * (len(STRATEGIES) + 1)
    return TrainConfig(
        output_dir=output_dir,
        strategies=STRATEGIES,
        warm_steps=warm_steps,
        steps=steps,
        learning_rate=4e-3,
        warmup_steps=20,
        per_device_train_batch_size=200,
        eval_steps=50,
        eval_batch_size=500,
        save_steps=100,
        seeds=list(range(seeds)),
        max_tokens=16,
        jobs=min(cores(), branches) if jobs is None else jobs,
        resume=resume,
    )
