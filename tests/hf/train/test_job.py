"""A job that is killed again and again ends as one that was not, and keeps what trackers wrote."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from operant.core.checks import DataError
from operant.core.record import lock_folder, read_records
from operant.hf.config import TrainConfig
from operant.hf.rollouts.prompts import DataConfig
from operant.hf.train import run
from operant.hf.train import run_job as jobs
from operant.hf.train.run import make_jobs, run_training
from operant.hf.train.run_job import run_job
from operant.hf.train.settings import checked
from tests import inline


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        output_dir=tmp_path / "run",
        data=DataConfig(train_limit=40, test_limit=8),
        strategies=["pass@16"],
        baseline=False,
        warm_steps=0,
        steps=4,
        learning_rate=3e-3,
        per_device_train_batch_size=8,
        budgets=[1, 4],
        eval_steps=2,
        logging_steps=1,
        save_steps=2,
        threads=1,
    )


def branch(config):
    config = checked(config)
    return config, make_jobs(config)[1]


def records(job):
    """Without wall-clock times."""
    return [{k: v for k, v in r.items() if k not in ("time", "seconds")} for r in read_records(job.record)]


def weights(job):
    return load_file(job.folder / "model" / "model.safetensors")


class Killed(BaseException):
    pass


def killed_at(monkeypatch, job, config, name):
    """Run the job until it calls this function of its module."""

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(jobs, name, die)
        with pytest.raises(Killed):
            run_job(job, config)


def test_killed_at_its_end_with_a_damaged_checkpoint_it_has_every_record_once(config, monkeypatch):
    whole, job = branch(config)
    run_job(job, whole)
    kinds = [(r["kind"], r["step"]) for r in records(job)]
    assert kinds == [
        *[("evaluation", 0), ("step", 1), ("evaluation", 2), ("step", 2), ("step", 3), ("step", 4)],
        *[("evaluation", 4), ("example", 4), ("example", 4), ("done", 4)],
    ]
    (first, _) = (r for r in records(job) if r["kind"] == "example")
    assert len(first["answers"]) == 4 and {a["reward"] for a in first["answers"]} <= {0.0, 1.0}
    part, killed = branch(replace(config, output_dir=config.output_dir.with_name("killed")))
    killed_at(monkeypatch, killed, part, "write_prompts")
    assert records(killed) == records(job) and not killed.done
    killed_at(monkeypatch, killed, part, "write_card")
    assert all(torch.equal(value, weights(killed)[name]) for name, value in weights(job).items()), "a step too many"
    assert [r["kind"] for r in records(killed)].count("evaluation") == 3
    newest = killed.folder / "checkpoint-4" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    run_job(killed, part)
    warned = [r for r in records(killed) if r["kind"] == "warning"]
    assert len(warned) == 1 and "checkpoint-4 is damaged" in warned[0]["text"] and "checkpoint-2" in warned[0]["text"]
    assert [r for r in records(killed) if r["kind"] != "warning"] == records(job)
    assert all(torch.equal(value, weights(killed)[name]) for name, value in weights(job).items())
    assert (killed.folder / "prompts.jsonl").read_bytes() == (job.folder / "prompts.jsonl").read_bytes()
    assert sorted(os.listdir(killed.folder)) == sorted(os.listdir(job.folder))


def test_a_run_killed_right_after_its_last_file_is_tidied(config, monkeypatch):
    monkeypatch.setattr(run, "worker_pool", inline.worker_pool)
    run_training(config)
    _, job = branch(config)
    left = job.folder / "checkpoint-4"
    left.mkdir()
    run_training(replace(config, resume=True))
    assert not left.exists()


def test_what_tensorboard_shows_outlives_the_checkpoints(config, monkeypatch):
    part, job = branch(replace(config, report_to="tensorboard"))
    killed_at(monkeypatch, job, part, "write_prompts")
    first = list((job.folder / "tensorboard").glob("events*"))
    assert len(first) == 1 and b"train/loss" in first[0].read_bytes()
    first[0].rename(first[0].with_name("events.first"))  # files are named by the second, and this test takes less
    run_job(job, part)
    assert len(list((job.folder / "tensorboard").glob("events*"))) == 2
    assert not list(job.folder.glob("checkpoint*")) and not (job.folder / "runs").exists()
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


def test_tables_of_completions_outlive_the_checkpoints(config, monkeypatch, capsys):
    settings = {"method": "grpo", "strategies": ["pass@4"], "num_generations": 8, "per_device_train_batch_size": 16}
    part, job = branch(
        replace(config, **settings, max_completion_length=3, eval_rollouts=4, trainer={"log_completions": True})
    )
    killed_at(monkeypatch, job, part, "write_prompts")
    before = weights(job)
    run_job(job, part)
    assert all(torch.equal(value, weights(job)[name]) for name, value in before.items())
    found = sorted(path.name for path in (job.folder / "completions").iterdir())
    assert found == [f"completions_{step:05d}.parquet" for step in range(1, 5)]
    assert not list(job.folder.glob("checkpoint*"))


def test_a_job_that_another_process_trains_is_waited_for(config, monkeypatch):
    part, job = branch(config)
    monkeypatch.setattr(jobs, "WAIT", 0)
    with lock_folder(job.folder), pytest.raises(DataError, match="pass@16 is in use"):
        run_job(job, part)
    assert [path.name for path in Path(job.folder).iterdir()] == [".lock"]
