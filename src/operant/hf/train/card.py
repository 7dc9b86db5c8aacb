"""The model card of a trained model: the strategy, the settings, the data, and the measured curve."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from operant.core.record import read_records
from operant.hf.config import TrainConfig
from operant.hf.rollouts.prompts import EMBEDDED
from operant.hf.train.choice.steps import kept_value

if TYPE_CHECKING:
    from operant.hf.train.job import Job

CARD = "README.md"
TITLES = {"ce": "cross-entropy", "warm": "cross-entropy (warm start)", "grpo": "TRL's GRPO", "rloo": "TRL's RLOO"}
CITATIONS = """```bibtex
@article{ousherovitch2026compute,
  title  = {Compute Aligned Training: Optimizing for Test Time Inference},
  author = {Ousherovitch, A. and Tewari, A.},
  year   = {2026},
  note   = {arXiv:2604.24957}
}

@software{operant,
  title   = {operant: train language models for their test-time strategy},
  author  = {{The operant developers}},
  version = {%s}
}
```"""


def write_card(folder: Path, job: Job, config: TrainConfig) -> None:
    """Write README.md beside the weights, from the record of the job."""
    kept = kept_value(job)
    until = job.steps if kept is None else kept.step
    curves = [r["curve"] for r in read_records(job.record) if r["kind"] == "evaluation" and r["step"] <= until]
    (folder / CARD).write_text(model_card(job, config, curves), encoding="utf-8")


def model_card(job: Job, config: TrainConfig, curves: list[Mapping[str, Mapping[str, float | None]]]) -> str:
    """The card as Markdown.

    Args:
        job: the job that trained the model.
        config: the settings of the run.
        curves: the evaluations, oldest first: metric -> value and stderr, as fractions.
    """
    base = _named(config.model)
    aimed = job.branch not in TITLES
    facts = {
        "base model": base or _shown(config.model),
        "deployed strategy": f"`{job.strategy}`" if aimed else None,
        "method": _method(job, config),
        "form": f"{config.form}, center {config.center}" if aimed and job.method != "sft" else None,
        "completions per prompt": config.num_generations if job.method != "sft" else None,
        "data": _shown(config.data.train),
        "held-out data": _shown(config.data.test) if config.data.test else "prompts set aside from the data",
        "verifier": config.verifier if job.method != "sft" and config.verifier else None,
        "reward model": _shown(config.reward_model) if job.method != "sft" and config.reward_model else None,
        "steps": f"{job.steps}" + (f", after {config.warm_steps} of cross-entropy" if job.start else ""),
        "step kept": _step(job),
        "learning rate": _rate(job),
        "seed": job.seed,
        "software": f"operant {version('operant')}, TRL {version('trl')}, transformers {version('transformers')}",
    }
    title = f"for `{job.strategy}`" if aimed else f"with {TITLES[job.branch]}"
    return "\n".join(
        [
            *("---", *_front(job, config, base), "---", ""),
            *(f"# A model trained {title}", ""),
            *("| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items() if v is not None), ""),
            *("## Measured", "", *_curves(curves, config), ""),
            *("## Citation", "", CITATIONS % version("operant"), ""),
        ]
    )


def _front(job: Job, config: TrainConfig, base: str | None) -> list[str]:
    tags = ["operant", "trl", job.method, "compute-aligned-training"]
    lines = [f"library_name: {'peft' if config.lora_rank else 'transformers'}", "pipeline_tag: text-generation"]
    lines += [f"base_model: {base}"] if base else []
    return [*lines, "tags:", *(f"- {tag}" for tag in tags)]


def _method(job: Job, config: TrainConfig) -> str:
    lora = f", LoRA of rank {config.lora_rank}" if config.lora_rank else ""
    names = {"sft": "supervised", "grpo": "GRPO", "rloo": "RLOO"}
    if job.branch in TITLES:
        return TITLES[job.branch] + lora
    level = f", level {config.level}" if job.method == "sft" else ""
    return f"{names[job.method]} with the credit of the strategy{level}{lora}".replace(
        "supervised with the credit", "supervised with the loss"
    )


def _step(job: Job) -> str | None:
    """With --keep best: the step whose weights these are, and how it was chosen."""
    kept = kept_value(job)
    return None if kept is None else f"{kept.step}, the best for `{kept.metric}` on the held-out prompts"


def _rate(job: Job) -> str:
    """The learning rate, and how it was chosen. Only the model of the chosen one is kept, with its card."""
    if not job.rates:
        return f"{job.learning_rate:g}"
    others = ", ".join(f"{rate:g}" for rate in job.rates)
    return f"{job.learning_rate:g}, of {others} the best for `{job.strategy}` on the held-out prompts"


def _curves(curves: list[Mapping[str, Mapping[str, float | None]]], config: TrainConfig) -> list[str]:
    """A table of the first and the last evaluation in percent; one column if there was one evaluation."""
    how = f"from {config.eval_rollouts} sampled rollouts a prompt" if config.eval_rollouts else "exactly"
    columns = [curves[0], curves[-1]] if len(curves) > 1 else [curves[-1]]
    heads = ["before, %", "after, %"] if len(columns) > 1 else ["%"]
    rows = [f"| {name} | {' | '.join(_value(c.get(name)) for c in columns)} |" for name in columns[-1]]
    return [
        f"Mean over held-out prompts ± its standard error, measured {how}.",
        "",
        f"| | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
        *rows,
    ]


def _value(point: Mapping[str, float | None] | None) -> str:
    if point is None or point["value"] is None:
        return "-"
    error = point["stderr"]
    return f"{100 * point['value']:z.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _named(model: str) -> str | None:
    """The Hub id of a base model; None for a local folder and the embedded model."""
    return None if model == EMBEDDED or Path(model).exists() else model


def _shown(source: str) -> str:
    """The name of a local file or folder without its path, which may be private; a Hub id as it is."""
    if source == EMBEDDED:
        return "embedded in operant"
    return Path(source).name if Path(source).exists() else source
