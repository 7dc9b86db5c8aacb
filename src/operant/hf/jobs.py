"""One training job: a warm start or a branch, from its last checkpoint, with its evaluation, record and model.

It runs in a process of its own, or on every process of a launcher at once (``accelerate launch``, ``torchrun``): then
all of them train and evaluate, and the first one writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operant.core.checks import OperantError
from operant.core.record import append_record, lock_folder
from operant.hf import checkpoints
from operant.hf.card import write_card
from operant.hf.config import TrainConfig
from operant.hf.runs import quiet, summary, write_job, write_prompts
from operant.hf.tasks import load_prompts
from operant.hf.workers import barrier, is_main, local_rank
from operant.strategies import parse

if TYPE_CHECKING:  # TRL takes seconds to import: only the processes that train pay for it
    from operant.hf.policy import Policy

BASELINES = ("ce", "grpo", "rloo")
WAIT = 60.0
"""Seconds for a worker of a run that was killed to end."""
FREE = ("bf16", "gradient_checkpointing", "ddp_find_unused_parameters", "use_cpu", "save_total_limit")
"""Settings of a trainer that operant makes and ``trainer`` may change."""


@dataclass(frozen=True)
class Job:
    """One training job; ``start`` is the folder of the weights it begins with, None for the model itself."""

    folder: Path
    seed: int
    branch: str
    strategy: str
    role: str
    method: str
    steps: int
    learning_rate: float
    start: Path | None

    @property
    def record(self) -> Path:
        """Its JSON lines record."""
        return self.folder / "record.jsonl"

    @property
    def done(self) -> bool:
        """Whether it finished: the per-prompt results are written last."""
        return (self.folder / "prompts.jsonl").is_file()

    @property
    def baseline(self) -> bool:
        """Whether the other branches are compared with it."""
        return self.branch in BASELINES


def check_jobs(jobs: list[Job], config: TrainConfig) -> None:
    """Make the settings of every trainer, and train nothing.

    Raises:
        OperantError: with what TRL, or operant, has against them.
    """
    quiet()
    for job in jobs:
        if job.steps:
            _method(job).arguments(job, config)


def run_job(job: Job, config: TrainConfig) -> None:
    """Train, evaluate and save one job, from its last whole checkpoint if it has one."""
    import torch

    quiet()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with lock_folder(job.folder, wait=WAIT) if is_main() else nullcontext():
        _run(job, config)


def _run(job: Job, config: TrainConfig) -> None:
    from operant.hf.examine import Examiner
    from operant.hf.policy import encode

    began = time.time()
    train, test = load_prompts(config.data)
    method = _method(job)
    args = method.arguments(job, config) if job.steps else None  # before the model: DeepSpeed shards it as it is loaded
    policy = _load(job, config)
    rows = encode(policy, train, config.data, config.max_tokens)
    examiner = Examiner(config, policy, test, encode(policy, test, config.data, config.max_tokens))
    if is_main():
        write_job(
            job.folder,
            seed=job.seed,
            branch=job.branch,
            role=job.role,
            strategy=parse(job.strategy),
            baseline=job.baseline,
        )
        checkpoints.go_back(job.folder, job.record, last=job.steps)
    barrier()
    checkpoint = checkpoints.newest(job.folder)

    def evaluate(step: int) -> Any:
        result = examiner()
        if is_main():
            curve = summary(result.columns)
            append_record(job.record, "evaluation", step=step, prompts=len(test), curve=curve)
            for text in result.warnings:
                append_record(job.record, "warning", step=step, text=text)
        return result

    if args is None:
        result = evaluate(0)
    else:
        with _tensorboard(job.folder / "tensorboard"):
            trainer = method.trainer(job, config, args, policy, train, rows)
        examiner.follow(trainer)
        _fit(job, config, trainer, checkpoint, evaluate)
        result = evaluate(job.steps)
        trainer.save_model(str(job.folder / "model"))
        trainer.accelerator.free_memory()
    if is_main():
        if args is not None:
            write_card(job.folder / "model", job, config)
        append_record(job.record, "done", step=job.steps, seconds=time.time() - began)
        write_prompts(job.folder, [p.id for p in test], result.columns, **result.extra)
        checkpoints.clear(job.folder)
    barrier()


@contextmanager
def _tensorboard(folder: Path) -> Generator[None]:
    """Where the trainer that is made here writes for TensorBoard, unless the user has said; a resumed one again."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]


def _method(job: Job) -> Any:
    if job.method == "sft":
        from operant.hf import sft_run

        return sft_run
    from operant.hf import rl_run

    return rl_run


def _load(job: Job, config: TrainConfig) -> Policy:
    import torch

    from operant.hf.policy import add_lora, load_policy

    dtype = None if config.lora_rank > 0 else torch.float32  # trained weights need float32 to take small steps
    where = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    policy = load_policy(str(job.start or config.model), seed=job.seed, device=where, dtype=dtype, trainable=True)
    if config.lora_rank and job.start is None:
        policy = add_lora(policy, rank=config.lora_rank, alpha=config.lora_alpha, seed=job.seed)
    return policy


def _fit(job: Job, config: TrainConfig, trainer: Any, checkpoint: Path | None, evaluate: Callable[[int], Any]) -> None:
    from transformers.trainer_callback import PrinterCallback

    from operant.hf.recorder import Recorder, Trained

    def when_due(step: int) -> None:
        if config.eval_steps and step % config.eval_steps == 0 and step < job.steps:
            evaluate(step)

    names = [job.strategy, *(config.strategy_schedule or {}).values()]
    trainer.add_callback(Recorder(job.record, names, when_due))
    trainer.remove_callback(PrinterCallback)
    if checkpoint is None and job.role == "branch":
        evaluate(0)
    with suppress(Trained):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def build(config_class: Any, job: Job, config: TrainConfig, batch_size: int | None, **settings: Any) -> Any:
    """A trainer's arguments: what every method shares, ``settings``, and the user's ``trainer``.

    Raises:
        OperantError: for a field that TRL does not have, one that stands elsewhere, or values that TRL refuses.
    """
    import torch
    from transformers import TrainingArguments

    cuda = torch.cuda.is_available()
    known = {f.name for f in fields(config_class) if f.init}
    shared: dict[str, Any] = {
        "output_dir": str(job.folder),  # what trackers write there stays beside the record
        "run_name": f"{config.output_dir.name}-seed{job.seed}-{job.branch}",
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
        "save_total_limit": 2,  # one to fall back on
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
        if name in shared and name not in FREE:
            raise OperantError(f"trainer: {name} is a setting of operant itself: give it without 'trainer.', or not.")
    every = {f.name for f in fields(TrainingArguments)}
    extra = {k: v for k, v in config.trainer.items() if k in (known if job.role == "branch" else every)}
    missing = [k for k in config.trainer if k not in known and job.role == "branch" and not job.baseline]
    if missing:
        near = ", ".join(get_close_matches(missing[0], known)) or "its documentation lists them"
        raise OperantError(f"trainer: {config_class.__name__} has no field {missing[0]!r}; did you mean {near}?")
    try:
        return config_class(**shared | extra)
    except OperantError:
        raise
    except (TypeError, ValueError) as error:
        raise OperantError(f"TRL refuses the settings of {job.branch}: {error}") from error
