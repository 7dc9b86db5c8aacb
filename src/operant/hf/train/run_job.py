"""One training job, a warm start or a branch: train from the last checkpoint, evaluate, record and save.

It runs in its own process, or on all processes of a launcher (``accelerate launch``, ``torchrun``): all of them train
and evaluate, and the first one writes.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operant.core.checks import InputError
from operant.core.record import append_record, lock_folder, write_text
from operant.hf.config import TrainConfig
from operant.hf.folder import quiet, summary, write_job, write_prompts
from operant.hf.rollouts.prompts import load_prompts
from operant.hf.train import checkpoints
from operant.hf.train.card import write_card
from operant.hf.train.job import DIVERGED, DivergedError, Job
from operant.hf.workers import barrier, is_main, local_rank
from operant.strategies import parse

if TYPE_CHECKING:  # TRL takes seconds to import: only the processes that train pay for it
    from operant.hf.folder import Column
    from operant.hf.rollouts.policy import Policy
    from operant.hf.train.choice.steps import Keeper
    from operant.hf.train.evaluator import Evaluator

WAIT = 60.0
"""Seconds that a resumed job waits for the worker of a killed run to end."""


def check_jobs(jobs: list[Job], config: TrainConfig) -> None:
    """Build the configuration of every trainer, so that settings that cannot work fail before the first job.

    Raises:
        ConfigError: with the reason, from TRL or operant.
    """
    quiet()
    for job in jobs:
        if job.steps:
            _method(job).arguments(job, config)


def run_job(job: Job, config: TrainConfig) -> None:
    """Train, evaluate and save one job, from its last sound checkpoint if it has one.

    Raises:
        DivergedError: if the weights are no longer finite. At one of several rates it is recorded: that rate is not
            chosen.
    """
    import torch

    quiet()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with lock_folder(job.folder, wait=WAIT) if is_main() else nullcontext():
        try:
            _run(job, config)
        except DivergedError as error:
            if not job.rates:
                raise
            if is_main():
                append_record(job.record, "warning", text=str(error))
                checkpoints.clear(job.folder, every=config.keep == "all")
                write_text(job.folder / DIVERGED, json.dumps({"text": str(error)}) + "\n")
            barrier()


def _run(job: Job, config: TrainConfig) -> None:
    from operant.hf.rollouts.policy import encode, unread
    from operant.hf.train.choice import steps, tuned
    from operant.hf.train.evaluator import Evaluator, recorded

    began = time.time()
    train, test = load_prompts(config.data)
    method = _method(job)
    args = (
        method.arguments(job, config) if job.steps else None
    )  # before the model, which DeepSpeed shards while it loads
    policy = _load(job, config)
    rows = encode(policy, train, config.data, config.max_tokens)
    heats = config.eval_temperatures if tuned.is_tuned(job, config) else []
    evaluator = Evaluator(config, policy, test, encode(policy, test, config.data, config.max_tokens), heats)
    if is_main():
        _describe(job, baseline=job.baseline and not job.rates, role=tuned.RATE if job.rates else job.role)
        checkpoints.go_back(job.folder, job.record, last=job.steps)
        for file in (tuned.FILE, steps.FILE):
            checkpoints.trim(job.folder, job.folder / file, last=job.steps)
        steps.go_back(job)
        if text := unread(policy, train, rows):
            logging.getLogger(__name__).warning(text)
            append_record(job.record, "warning", text=text)
    barrier()
    checkpoint, keeper = checkpoints.newest(job.folder), None
    # A branch starts with the weights that its warm start has evaluated, if not at every temperature.
    start = recorded(job.home.parent / "warm") if job.role == "branch" and not heats else None

    def evaluate(step: int) -> Any:
        result = evaluator() if step or start is None else start
        if is_main():
            curve = summary(result.columns)
            append_record(job.record, "evaluation", step=step, prompts=len(test), curve=curve)
            tuned.record_temperatures(job.folder, step, dict(result.by_temperature))
            for text in result.warnings:
                append_record(job.record, "warning", step=step, text=text)
        if keeper is not None:
            keeper.see(step, result.columns, result.extra.get("log_p"))
        return result

    if args is None:
        result = evaluate(0)
        _show_answers(job, config, evaluator)
    else:
        with _tensorboard(job.folder / "tensorboard"):
            trainer = method.trainer(job, config, args, policy, train, rows)
        evaluator.follow(trainer)
        if config.keep == "best" and job.role == "branch":
            keeper = steps.Keeper(job, config, trainer.save_model)
        _fit(job, config, trainer, checkpoint, evaluate)
        result = evaluate(job.steps)
        _show_answers(job, config, evaluator)
        if keeper is None:
            trainer.save_model(str(job.folder / "model"))
        else:
            result = replace(result, columns=_keep(job, keeper, result.columns))
        trainer.accelerator.free_memory()
    if is_main():
        if args is not None:
            write_card(job.folder / "model", job, config)
        if heats and not job.rates and tuned.write_tuned([job], [p.id for p in test], tuned.exact_metrics(config)):
            _describe(job, baseline=False, role=tuned.REFERENCE)
        append_record(job.record, "done", step=job.steps, seconds=time.time() - began)
        write_prompts(job.folder, [p.id for p in test], result.columns, **result.extra)
        checkpoints.clear(job.folder, every=config.keep == "all")
    barrier()


def _show_answers(job: Job, config: TrainConfig, evaluator: Evaluator) -> None:
    """Record what the model answers to two held-out prompts, for the page; of the first seed only."""
    if job.seed == config.seeds[0] and is_main():
        for entry in evaluator.examples():
            append_record(job.record, "example", step=job.steps, **entry)


def _keep(job: Job, keeper: Keeper, columns: Mapping[str, Column]) -> Mapping[str, Column]:
    """Keep the best step, and record which one it is; the columns that are reported."""
    from operant.hf.train.choice import steps

    kept = keeper.finish()
    if not is_main():
        return columns
    found, choices = steps.reported(job, columns)
    for choice in choices:
        append_record(job.record, step=job.steps, **choice)
    append_record(job.record, steps.RECORD, **kept._asdict())
    return found


def _describe(job: Job, *, baseline: bool, role: str) -> None:
    write_job(
        job.folder,
        seed=job.seed,
        branch=job.branch,
        role=role,
        strategy=parse(job.strategy),
        baseline=baseline,
        rates=(job.learning_rate,),
    )


@contextmanager
def _tensorboard(folder: Path) -> Generator[None]:
    """Set the folder that the trainer built here writes to for TensorBoard, unless the user has set one."""
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
        from operant.hf.train import sft_job

        return sft_job
    from operant.hf.train import rl_job

    return rl_job


def _load(job: Job, config: TrainConfig) -> Policy:
    import torch

    from operant.hf.rollouts.policy import add_lora, load_policy

    dtype = None if config.lora_rank > 0 else torch.float32  # trained weights need float32 to take small steps
    where = f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    policy = load_policy(str(job.start or config.model), seed=job.seed, device=where, dtype=dtype, trainable=True)
    if config.lora_rank and job.start is None:
        policy = add_lora(policy, rank=config.lora_rank, alpha=config.lora_alpha, seed=job.seed)
    return policy


def _fit(job: Job, config: TrainConfig, trainer: Any, checkpoint: Path | None, evaluate: Callable[[int], Any]) -> None:
    from transformers.trainer_callback import PrinterCallback

    from operant.hf.train.recorder import Recorder, Trained

    def when_due(step: int) -> None:
        if config.eval_steps and step % config.eval_steps == 0 and step < job.steps:
            evaluate(step)

    names = [job.strategy, *(config.strategy_schedule or {}).values()]
    trainer.add_callback(Recorder(job.record, names, when_due))
    trainer.remove_callback(PrinterCallback)
    if checkpoint is None and job.role == "branch":
        evaluate(0)
    try:
        with suppress(Trained):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (InputError, RuntimeError) as error:  # the loss and the sampler refuse what is not finite
        step = trainer.state.global_step
        if step and (isinstance(error, InputError) or not _is_finite(trainer.model)):
            raise _diverged(job, step) from error
        raise
    if not _is_finite(trainer.model):
        raise _diverged(job, job.steps)


def _is_finite(model: Any) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters())


def _diverged(job: Job, step: int) -> DivergedError:
    return DivergedError(
        f"the training diverged by step {step} at the learning rate {job.learning_rate:g}: the model no longer gives "
        "finite numbers. Train with a smaller one, in a new folder."
    )
