"""A training job as a value, and the configuration of its trainer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from operant.core.checks import ConfigError, DataError, OperantError
from operant.hf.config import TrainConfig

BASELINES = ("ce", "grpo", "rloo")
FREE = ("bf16", "gradient_checkpointing", "ddp_find_unused_parameters", "use_cpu", "save_total_limit")
"""Fields that operant sets and that ``trainer`` may override."""


DIVERGED = "diverged.json"
"""The file that ends a job whose weights are no longer finite, at one of several rates."""


class DivergedError(DataError):
    """A training whose model no longer gives finite numbers."""


@dataclass(frozen=True)
class Job:
    """One training job.

    Args:
        folder: its own. Where its branch has several rates, it lies in the folder of the branch.
        seed: of the weights of the embedded model, and of the order of the prompts.
        branch: name of the branch.
        strategy: what it is trained for.
        role: "warm" or "branch".
        method: sft, grpo or rloo.
        steps: optimizer steps.
        learning_rate: the largest.
        start: folder of its initial weights; None takes those of the model.
        rates: the learning rates of its branch, if they are several: the branch has a job for each.
    """

    folder: Path
    seed: int
    branch: str
    strategy: str
    role: str
    method: str
    steps: int
    learning_rate: float
    start: Path | None
    rates: tuple[float, ...] = ()

    @property
    def home(self) -> Path:
        """The folder of the branch."""
        return self.folder.parent if self.rates else self.folder

    @property
    def label(self) -> str:
        """What the job is called in the terminal."""
        rate = f" · rate {self.learning_rate:g}" if self.rates else ""
        return f"seed {self.seed} · {self.branch}{rate}"

    @property
    def record(self) -> Path:
        """The JSON lines file with the record of the job."""
        return self.folder / "record.jsonl"

    @property
    def done(self) -> bool:
        """Whether the job has finished: its per-prompt results are written last."""
        return (self.folder / "prompts.jsonl").is_file() or self.diverged

    @property
    def diverged(self) -> bool:
        """Whether the training ended because its weights were no longer finite."""
        return (self.folder / DIVERGED).is_file()

    @property
    def baseline(self) -> bool:
        """Whether the other branches are compared with this one."""
        return self.branch in BASELINES


def baseline_of(config: TrainConfig) -> str:
    """The name of the baseline branch."""
    return "ce" if config.method == "sft" else config.method


def rates_of(config: TrainConfig, branch: str) -> list[float]:
    """The learning rates at which a branch is trained."""
    given = config.learning_rate
    if isinstance(given, dict):
        return [given[branch]]
    return list(given) if isinstance(given, list) else [given or 0.0]


def build(config_class: Any, job: Job, config: TrainConfig, batch_size: int | None, **settings: Any) -> Any:
    """The configuration of a trainer: fields that all methods share, ``settings``, and the user's ``trainer``.

    Raises:
        ConfigError: for a field that TRL does not have or that operant sets, or for values that TRL rejects.
    """
    import torch
    from transformers import TrainingArguments

    cuda = torch.cuda.is_available()
    known = {f.name for f in fields(config_class) if f.init}
    shared: dict[str, Any] = {
        "output_dir": str(job.folder),  # trackers write beside the record
        "run_name": "-".join([config.output_dir.name, f"seed{job.seed}", job.branch, *_rate(job)]),
        "max_steps": job.steps,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": config.lr_scheduler_type if job.role == "branch" else "constant_with_warmup",
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "logging_steps": config.logging_steps,
        "save_strategy": "steps" if config.save_steps else "no",
        "save_steps": config.save_steps or 500,
        # If the newest is damaged, training resumes from the one before.
        "save_total_limit": None if config.keep == "all" else 2,
        "seed": job.seed,
        "data_seed": job.seed,  # the same order on every process of a launcher
        "disable_tqdm": True,
        "report_to": config.report_to,
        "bf16": cuda,
        "gradient_checkpointing": False,
        "ddp_find_unused_parameters": False,
        "use_cpu": not cuda,
        **settings,
    }
    if "logging_dir" in known:  # transformers 4; later ones read the environment
        shared["logging_dir"] = str(job.folder / "tensorboard")
    for name in config.trainer:
        if (name in shared or name == "num_train_epochs") and name not in FREE:
            raise ConfigError(_taken(name))
    every = {f.name for f in fields(TrainingArguments)}
    extra = {k: v for k, v in config.trainer.items() if k in (known if job.role == "branch" else every)}
    missing = [k for k in config.trainer if k not in known and job.role == "branch" and not job.baseline]
    if missing:
        close = ", ".join(get_close_matches(missing[0], known))
        near = f" Did you mean {close}?" if close else " TRL's documentation lists its fields."
        raise ConfigError(f"trainer: {config_class.__name__} has no field {missing[0]!r}.{near}")
    try:
        return config_class(**shared | extra)
    except OperantError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"TRL rejects the settings of {job.branch}: {error}") from error


def _rate(job: Job) -> list[str]:
    return [f"rate{job.learning_rate:g}"] if job.rates else []


def _taken(name: str) -> str:
    if name in {f.name for f in fields(TrainConfig)}:
        return f"Set --{name} directly; it cannot be passed through --trainer."
    return f"operant sets {name} itself; it cannot be passed through --trainer."
