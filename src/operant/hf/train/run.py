"""``operant train``: one warm start per seed, then one branch per strategy from the same weights and batches."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rich.console import Console

from operant.core.checks import DataError, OperantError
from operant.core.record import claim_folder, read_records, write_text
from operant.core.trouble import told
from operant.hf.config import TrainConfig, config_dict, current_names
from operant.hf.progress import Bars, bars
from operant.hf.rollouts.prompts import EMBEDDED
from operant.hf.train.checkpoints import clear
from operant.hf.train.choice.steps import kept_value
from operant.hf.train.choice.tuned import choose_rate
from operant.hf.train.job import Job, baseline_of, rates_of
from operant.hf.train.run_job import check_jobs, run_job
from operant.hf.train.settings import checked
from operant.hf.workers import barrier, is_main, launched, worker_pool, world_size
from operant.objectives.evidence import advice
from operant.objectives.groups import EXACT, EXTRAPOLATED
from operant.strategies import parse

LOOSE = ("resume", "jobs", "threads", "output_dir")
"""Settings that may differ when a run is resumed, because they do not change its results."""
SETTINGS, RECORD = "config.json", "record.jsonl"


class JobError(OperantError):
    """A training job that failed; the message names the job and the cause."""


def run_training(config: TrainConfig) -> Path:
    """Run every job of a run that is not done yet, and return the folder of the run.

    Under a launcher (``accelerate launch``, ``torchrun``) every process calls this function, and the jobs run one after
    another on all processes. Otherwise each job runs in its own process, ``config.jobs`` at once.

    Raises:
        ConfigError: for settings that cannot work, before anything is trained.
        DataError: for unreadable data, or a folder that holds another run.
        JobError: if a job fails. Jobs that are done stay done, and --resume continues the run.
    """
    config = checked(config)
    with _claimed(config):
        barrier()
        _train(config)
    return config.output_dir


def _claimed(config: TrainConfig) -> AbstractContextManager[Any]:
    if not is_main():
        return nullcontext()
    return claim_folder(
        config.output_dir,
        "train",
        config_dict(config),
        resume=config.resume,
        loose=(*LOOSE, "learning_rate") if _adds_rates(config) else LOOSE,
        outputs=(SETTINGS,),
        current=current_names,
    )


def _adds_rates(config: TrainConfig) -> bool:
    """Whether the run in the folder has the first rates of the list: their jobs stay, and the others are trained."""
    record = config.output_dir / RECORD
    runs = [r for r in read_records(record) if r["kind"] == "run"] if record.is_file() else []
    before = runs[-1].get("config", {}).get("learning_rate") if runs else None
    given = config.learning_rate
    return isinstance(before, list) and isinstance(given, list) and given[: len(before)] == before


def _train(config: TrainConfig) -> None:
    folder, console = config.output_dir, Console(quiet=not is_main())
    if is_main():
        write_text(folder / SETTINGS, json.dumps(config_dict(config), indent=2) + "\n")
    jobs = make_jobs(config)
    if not all(job.done for job in jobs):
        _advise(config, _start(jobs[0]), console)
        _tell(config, jobs, console)
    waiting = [job for job in jobs if not job.done]
    for job in jobs:
        if job.done and is_main():
            clear(job.folder, every=config.keep == "all")  # the process may have been killed just before it did
            _choose_after(job, jobs, config, console)
    barrier()
    if not waiting:
        text = f"{folder} is finished: no job is left. Choose another --output_dir to train again."
        console.print(text, soft_wrap=True)
    elif launched():
        check_jobs(jobs, config)
        with _progress(console, jobs) as shown:
            _run_here(waiting, jobs, config, shown)
    else:
        with worker_pool(config.jobs, threads=config.threads) as pool:
            pool.submit(check_jobs, jobs, config).result()
            with _progress(console, jobs) as shown:
                _run(waiting, jobs, config, pool, shown)


def _advise(config: TrainConfig, start: float | None, console: Console, *, again: bool = False) -> None:
    """Print what is known against the strategies of the run; ``again``: only what the start adds to it."""
    if config.form not in (EXACT, EXTRAPOLATED):  # a published rule is trained to compare with
        return
    strategies = [parse(text) for text in (*config.strategies, *(config.strategy_schedule or {}).values())]
    before = advice(config.method, strategies) if again else []
    for text in advice(config.method, strategies, start):
        if text not in before:
            console.print(f"note: {text}", soft_wrap=True, highlight=False, markup=False)


def _tell(config: TrainConfig, jobs: list[Job], console: Console) -> None:
    """Print what the settings leave open: prompts held out, the size of a step, and what a list of rates costs."""
    texts, data = [], config.data
    if config.method != "sft":
        size, passes, m = (
            getattr(config, name) or 1
            for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_generations")
        )
        devices = f" on each of {world_size()} processes" if world_size() > 1 else ""
        texts.append(
            f"a step takes {size * passes * world_size() / m:g} prompts with {m} completions each, in forward passes "
            f"of {size} completions{devices}."
        )
    if not data.test and data.train != EMBEDDED:
        texts.append(f"there is no data.test: {data.holdout} prompts of {data.train} (data.holdout) are held out.")
    if config.num_train_epochs is not None:
        texts.append(f"num_train_epochs {config.num_train_epochs:g} is {config.steps} steps of each branch.")
    if left := [job for job in jobs if job.rates and not job.done]:
        rates = ", ".join(f"{rate:g}" for rate in left[0].rates)
        texts.append(f"every branch trains at the learning rates {rates}: {len(left)} trainings are left.")
    for text in texts:
        console.print(f"note: {text}", soft_wrap=True, highlight=False, markup=False)


def _advise_after(job: Job, config: TrainConfig, console: Console) -> None:
    """The same once the first warm start has measured the success rate, before its branches start."""
    if job.role == "warm" and job.seed == config.seeds[0]:
        _advise(config, _start(job), console, again=True)


def _start(warm: Job) -> float | None:
    """The share of right answers after the warm start; None before its evaluation, or if it was not measured."""
    if not warm.done:
        return None
    curves = [r["curve"] for r in read_records(warm.record) if r["kind"] == "evaluation"]
    point = curves[-1].get("pass@1") if curves else None
    return None if point is None else point["value"]


def make_jobs(config: TrainConfig) -> list[Job]:
    """The jobs of a run. For each seed: a warm start, which also evaluates the initial weights, then the branches.

    A branch with several learning rates has a job for each. All of them start from the one warm start.
    """
    method = config.method
    branches = [(baseline_of(config), "pass@1")] if config.baseline else []
    branches += [(text, text) for text in config.strategies]
    jobs: list[Job] = []
    for seed in config.seeds:
        root, steps, length = config.output_dir / f"seed{seed}", config.warm_steps or 0, config.steps or 0
        warm = config.warm_learning_rate or rates_of(config, branches[0][0])[0]
        jobs.append(Job(root / "warm", seed, "warm", "pass@1", "warm", "sft", steps, warm, None))
        start = root / "warm" / "model" if steps else None
        for branch, strategy in branches:
            home = root / re.sub(r"[^\w.@^-]+", "_", branch).strip("_")
            rates = rates_of(config, branch)
            several = tuple(rates) if len(rates) > 1 else ()
            for rate in rates:
                folder = home / f"rate_{rate:g}" if several else home
                jobs.append(Job(folder, seed, branch, strategy, "branch", method, length, rate, start, several))
    return jobs


def _choose_after(job: Job, jobs: list[Job], config: TrainConfig, console: Console) -> None:
    """Once a branch is trained at all of its learning rates, choose; not again if that was done for the same rates."""
    group = [j for j in jobs if j.home == job.home]
    if not job.rates or not is_main() or not all(j.done for j in group) or _is_chosen(job):
        return
    try:
        best = choose_rate(group, config)
    except DataError as error:
        raise _failed(job, error) from error
    values = ", ".join(f"{100 * value:z.1f} at {rate:g}" for rate, value in best.values.items())
    text = (
        f"chosen: seed {job.seed} · {job.branch} · rate {best.rate:g} ({best.metric} {values}); model in {best.model}"
    )
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _is_chosen(job: Job) -> bool:
    if not (job.home / "prompts.jsonl").is_file():
        return False
    return json.loads((job.home / "job.json").read_text())["rates"] == list(job.rates)


def _progress(console: Console, jobs: Sequence[Job]) -> AbstractContextManager[Bars]:
    """A bar for each running job and one for all; jobs that are done count with their steps."""
    steps = {job.label: job.steps for job in jobs}
    return bars(console, steps, {job.label: max(job.steps, 1) for job in jobs if job.done})


def _run_here(waiting: list[Job], jobs: list[Job], config: TrainConfig, shown: Bars) -> None:
    """Run the jobs one after another on all processes of the launcher; a thread of the first shows the progress."""
    for job in waiting:
        shown.start(job.label)
        stop = Event()
        watch = Thread(target=_watch, args=(job, shown, stop), daemon=True)
        watch.start()
        future: Future[None] = Future()
        try:
            run_job(job, config)
            future.set_result(None)
        except Exception as error:  # _finish reports it, as for a job in a process of its own
            future.set_exception(error)
        finally:
            stop.set()
            watch.join()
        _finish(job, shown, future)
        _advise_after(job, config, shown.console)
        _choose_after(job, jobs, config, shown.console)


def _watch(job: Job, shown: Bars, stop: Event) -> None:
    while is_main() and not stop.wait(0.5):
        _show(job, shown)


def _run(waiting: list[Job], jobs: list[Job], config: TrainConfig, pool: ProcessPoolExecutor, shown: Bars) -> None:
    running: dict[Future[None], Job] = {}
    while waiting or running:
        ready = [j for j in waiting if j.start is None or (j.start.parent / "prompts.jsonl").is_file()]
        for job in ready[: config.jobs - len(running)]:
            waiting.remove(job)
            shown.start(job.label)
            running[pool.submit(run_job, job, config)] = job
        finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        for job in running.values():
            _show(job, shown)
        for future in finished:
            job = running.pop(future)
            _finish(job, shown, future)
            _advise_after(job, config, shown.console)
            _choose_after(job, jobs, config, shown.console)


def _show(job: Job, shown: Bars) -> None:
    """Show the steps, for grpo and rloo the strategy's value on the last batches, and the last held-out curve."""
    if not job.record.is_file():
        return
    records = read_records(job.record)
    steps = [r for r in records if r["kind"] == "step"]
    curves = [r["curve"] for r in records if r["kind"] == "evaluation"]
    said = _signal(steps[-1]) if steps and "reward" in steps[-1] else []
    if curves:
        said += [f"{k} {100 * v['value']:z.1f}" for k, v in curves[-1].items()]
    shown.show(job.label, max((r["step"] for r in steps), default=0), said)


def _signal(step: dict[str, Any]) -> list[str]:
    """The strategy's value, the reward, and the share of dead groups."""
    values = [f"{name} {100 * value:z.1f}" for name, value in step.get("strategy", {}).items()]
    dead = step.get("dead_groups")
    told = [] if dead is None else [f"dead {100 * dead:.0f} %"]
    return [*values, f"reward {step['reward']:z.3f}", *told]


def _finish(job: Job, shown: Bars, future: Future[None]) -> None:
    error = future.exception()
    if is_main():
        _show(job, shown)
    if error is not None:
        raise _failed(job, error) from error
    shown.end(job.label, "diverged: this rate is not chosen" if job.diverged else "")
    if (kept := kept_value(job)) is not None:
        last = "" if kept.step == job.steps else f", {100 * kept.last:z.1f} at the last step"
        text = f"kept: {job.label} · step {kept.step} of {job.steps} ({kept.metric} {100 * kept.value:z.1f}{last})"
        shown.console.print(text, soft_wrap=True, highlight=False, markup=False)


def _failed(job: Job, error: BaseException) -> JobError:
    cause = (told(error) or f"{type(error).__name__}: {error}").rstrip(".")
    return JobError(
        f"seed {job.seed}, {job.branch} failed: {cause}. The work so far stays in {job.home.parent.parent}: fix the "
        "cause, then continue with --resume true."
    )
