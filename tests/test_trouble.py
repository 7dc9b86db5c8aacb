"""Trouble from outside, verb by verb: one line that says what and what to do, exit code 2, and nothing lost."""

import csv
import errno
import os
from concurrent.futures.process import BrokenProcessPool

import pytest

import operant.cli
import operant.hf.train
import operant.hf.workers
from operant.core.record import write_records
from tests import inline

SMALL = ["--data.train_limit=16", "--data.test_limit=4"]
SFT = ["--strategies=[pass@4]", "--steps=2", "--warm_steps=1", "--save_steps=1", "--logging_steps=1", *SMALL]
GRPO = ["--method=grpo", "--strategies=[pass@4]", "--num_generations=8", "--warm_steps=1", "--steps=1"]
GRPO += ["--save_steps=1", "--per_device_train_batch_size=8", "--verifier=exact", *SMALL]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(operant.hf.train, "workers", inline.workers)
    monkeypatch.setattr(operant.hf.workers, "workers", inline.workers)
    monkeypatch.setattr(operant.cli, "_report", lambda *args, **kwargs: None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rows = [{"prompt": i // 4, "reward": float(i % 3 == 0), "answer": str(i % 3)} for i in range(32)]
    write_records(folder / "rollouts.jsonl", rows)
    points = [(t, x, t + x) for t in range(5) for x in range(6)]
    for name, wanted in {"bank": range(4), "target": [4]}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("T", "x", "y"), *(p for p in points if p[0] in wanted)])
    return folder


def command(verb, files, out):
    """A small command of every verb that writes."""
    extrapolate = [files / "bank.csv", f"--target={files / 'target.csv'}", "--task=T", "--x=x", "--y=y"]
    return {
        "sft": ["train", *SFT],
        "grpo": ["train", *GRPO],
        "demo": ["demo", "--seeds=1", "--warm_steps=1", "--steps=1", "--open=false"],
        "evaluate": ["evaluate", "--rollouts=4", "--verifier=exact", *SMALL],
        "plan": ["plan", files / "rollouts.jsonl"],
        "audit": ["audit", "--n=2", "--m=4", "--rules=[grpo]"],
        "extrapolate": ["extrapolate", *extrapolate, "--operator=shift"],
    }[verb] + [f"--output_dir={out}"]


VERBS = ["sft", "grpo", "demo", "evaluate", "plan", "audit", "extrapolate"]


def refused(run, *told):
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("operant "), run.stderr
    for text in told:
        assert text in run.stderr, run.stderr


def full(monkeypatch, after):
    """The disk is full after so many records."""
    left, fsync = [after], os.fsync

    def fail(file):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_one_line_and_loses_nothing(verb, files, tmp_path, monkeypatch):
    args = command(verb, files, tmp_path / "run")
    with monkeypatch.context() as patch:
        full(patch, after=1 if verb in ("plan", "audit", "extrapolate") else 3)
        refused(inline.run(*args), f"{tmp_path / 'run'}", "no space left on device. Free some space")
    if verb != "demo":  # which is a run of train
        again = ["--resume=true"] if verb in ("sft", "grpo", "evaluate") else []
        run = inline.run(*args, *again)
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_cannot_be_written_is_one_line(verb, files, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(inline.run(*command(verb, files, tmp_path / "file" / "run")), f"{tmp_path / 'file'}", "ot a directory")


def test_a_page_that_cannot_be_written_is_one_line(files, tmp_path, monkeypatch):
    monkeypatch.undo()
    assert inline.run(*command("plan", files, tmp_path / "run")).returncode == 0
    (tmp_path / "file").write_text("in the way")
    refused(inline.run("report", tmp_path / "run", f"--out_dir={tmp_path / 'file' / 'page'}"), "ot a directory")


@pytest.mark.parametrize("verb", ["sft", "evaluate"])
def test_a_killed_worker_is_one_line(verb, files, tmp_path, monkeypatch):
    def submit(self, fn, *args):
        future = operant.hf.train.Future()
        future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly."))
        return future

    monkeypatch.setattr(inline.Inline, "submit", submit)
    refused(inline.run(*command(verb, files, tmp_path / "run")), "a worker process was killed", "Lower the batch size")
