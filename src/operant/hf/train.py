"""``operant train``: a warm start per seed, then one branch per objective from the same weights and batches."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from operant.core.checks import DataError, OperantError, check_int
from operant.core.record import append_record, environment, read_records
from operant.hf.config import TrainConfig, config_dict
from operant.hf.sft_run import Job, run_job
from operant.hf.tasks import EMBEDDED, load_prompts
from operant.hf.workers import cores, workers
from operant.objectives import sft
from operant.strategies import parse

LOOSE = ("resume", "jobs", "threads", "output_dir")
"""Settings that may differ between a run and its continuation: they do not change its numbers."""


def train(config: TrainConfig) -> Path:
    """Run every job of ``config`` that is not done, and return the run's folder.

    Raises:
        OperantError: for settings that cannot work, before anything is trained; for a folder that holds
            another run; or when a job fails, naming it (what is done stays done: --resume continues).
    """
    config = _checked(config)
    folder = config.output_dir
    _claim(folder, config)
    console = Console()
    jobs = plan(config)
    if all(job.done for job in jobs):
        text = f"{folder} is finished: nothing is left to train. Another --output_dir trains anew."
        console.print(text, soft_wrap=True)
        return folder
    with workers(config.jobs, threads=config.threads) as pool, _bars(console) as bars:
        _run(jobs, config, pool, bars)
    return folder


def plan(config: TrainConfig) -> list[Job]:
    """The jobs of a run: per seed a warm start (which also evaluates where training begins), then branches."""
    branches = [("ce", "pass@1")] if config.baseline else []
    branches += [(text, text) for text in config.strategies]
    jobs = []
    for seed in config.seeds:
        root = config.output_dir / f"seed{seed}"
        rate = config.warm_learning_rate or config.learning_rate
        jobs.append(Job(root / "warm", seed, "warm", "pass@1", "warm", config.warm_steps, rate, None))
        for branch, strategy in branches:
            name = re.sub(r"[^\w.@^-]+", "_", branch).strip("_")
            start = root / "warm" / "model" if config.warm_steps else None
            jobs.append(Job(root / name, seed, branch, strategy, "branch", config.steps, config.learning_rate, start))
    return jobs


def _checked(config: TrainConfig) -> TrainConfig:
    import torch

    for text in config.strategies:
        sft.loss(parse(text), torch.zeros(1))  # a strategy without S(p) is refused now
    strategies = [str(parse(text)) for text in config.strategies]
    names = ["pass@1"] * config.baseline + strategies
    lists = (names, config.seeds, config.budgets)
    if not all(lists) or any(len(set(items)) < len(items) for items in lists):
        raise OperantError(
            f"expected distinct strategies, seeds and budgets, got strategies {strategies} (the baseline is "
            f"pass@1), seeds {config.seeds}, budgets {config.budgets}."
        )
    for name in ("steps", "jobs", "logging_steps", "per_device_train_batch_size", "max_tokens"):
        check_int(name, getattr(config, name), least=1)
    for name in ("warm_steps", "eval_steps", "save_steps", "lora_rank"):
        check_int(name, getattr(config, name), least=0)
    for k in config.budgets:
        check_int("budget", k, least=1)
    if not config.learning_rate > 0:
        raise OperantError(f"learning_rate must be positive, got {config.learning_rate}.")
    load_prompts(config.data)  # a file that does not read is refused now
    threads = config.threads
    if threads is None:
        threads = 1 if config.model == EMBEDDED else max(1, cores() // config.jobs)
    return replace(config, strategies=strategies, threads=check_int("threads", threads, least=1))


def _claim(folder: Path, config: TrainConfig) -> None:
    """Make the run's folder, or check that it holds this very run."""
    settings = config_dict(config)
    if (folder / "record.jsonl").is_file():
        runs = [r for r in read_records(folder / "record.jsonl") if r["kind"] == "run"]
        if not config.resume:
            raise DataError(f"{folder} holds a run already. Give --output_dir another name, or --resume true to go on.")
        before = runs[-1]["config"] if runs else {}
        changed = [k for k in settings if k not in LOOSE and settings[k] != before.get(k)]
        if changed:
            pairs = ", ".join(f"{k}: {before.get(k)!r} -> {settings[k]!r}" for k in changed)
            raise DataError(f"{folder} holds a run with other settings ({pairs}); it cannot be continued.")
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no run. Give --output_dir another name.")
    folder.mkdir(parents=True, exist_ok=True)
    append_record(folder / "record.jsonl", "run", command="train", name=folder.name, config=settings)
    append_record(folder / "record.jsonl", "environment", **environment())
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _bars(console: Console) -> Generator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metric]}"),
    )
    with Progress(*columns, console=console) as bars:
        yield bars


def _run(jobs: list[Job], config: TrainConfig, pool: ProcessPoolExecutor, bars: Progress) -> None:
    waiting = [job for job in jobs if not job.done]
    running: dict[Future[None], tuple[Job, TaskID]] = {}
    while waiting or running:
        ready = [j for j in waiting if j.start is None or (j.start.parent / "prompts.jsonl").is_file()]
        for job in ready[: config.jobs - len(running)]:
            waiting.remove(job)
            bar = bars.add_task(f"seed {job.seed} · {job.branch}", total=max(job.steps, 1), metric="")
            running[pool.submit(run_job, job, config)] = (job, bar)
        finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        for job, bar in running.values():
            _show(job, bar, bars)
        for future in finished:
            job, bar = running.pop(future)
            _finish(job, bar, bars, future)


def _show(job: Job, bar: TaskID, bars: Progress) -> None:
    if not job.record.is_file():
        return
    records = read_records(job.record)
    steps = [r["step"] for r in records if r["kind"] == "step"]
    curves = [r["curve"] for r in records if r["kind"] == "evaluation"]
    metric = "  ".join(f"{k} {100 * v['value']:.1f}" for k, v in curves[-1].items()) if curves else ""
    bars.update(bar, completed=max(steps, default=0), metric=metric)


def _finish(job: Job, bar: TaskID, bars: Progress, future: Future[None]) -> None:
    error = future.exception()
    if error is not None:
        raise OperantError(
            f"seed {job.seed}, {job.branch} failed: {error}\nWhat was done stays in {job.folder.parent.parent}; "
            "repair the cause and continue with --resume true."
        ) from error
    task = bars.tasks[bars.task_ids.index(bar)]
    bars.console.print(f"done: {task.description}  {task.fields['metric']}", soft_wrap=True)
    bars.remove_task(bar)
