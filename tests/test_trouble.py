"""Trouble from outside, verb by verb: one line that says what and what to do, exit code 2, and nothing lost."""

import csv
import errno
import gzip
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import operant.cli
import operant.hf.train.run
import operant.hf.workers
from operant.core.record import write_records
from operant.core.trouble import naming, told
from operant.report import summary_table
from tests import inline

SMALL = ["--data.train_limit=16", "--data.test_limit=4"]
SFT = ["--strategies=[pass@4]", "--steps=2", "--warm_steps=1", "--save_steps=1", "--logging_steps=1", *SMALL]
GRPO = ["--method=grpo", "--strategies=[pass@4]", "--num_generations=8", "--warm_steps=1", "--steps=1"]
GRPO += ["--save_steps=1", "--per_device_train_batch_size=8", "--verifier=exact", *SMALL]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(operant.hf.train.run, "worker_pool", inline.worker_pool)
    monkeypatch.setattr(operant.hf.workers, "worker_pool", inline.worker_pool)
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


def refused(run, *said):
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("operant"), run.stderr
    for text in said:
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
        future = operant.hf.train.run.Future()
        future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly."))
        return future

    monkeypatch.setattr(inline.Inline, "submit", submit)
    refused(inline.run(*command(verb, files, tmp_path / "run")), "a worker process was killed", "Lower the batch size")


PROMPTS = "".join(f'{{"prompt": "Größe {i}", "target": "{i}"}}\n' for i in range(6))
ROLLOUTS = "".join(f'{{"prompt": {i // 4}, "reward": {i % 2}, "answer": "Größe"}}\n' for i in range(16))
POINTS = "T,x,y\n" + "".join(f"{t},{x},{x * x}\n" for t in ("ä", "b", "c") for x in range(4))
DAMAGE = {
    "latin-1": lambda text: text.encode("latin-1"),
    "utf-16": lambda text: text.encode("utf-16"),
    "binary": lambda text: bytes(range(256)) * 9,
    "compressed": lambda text: gzip.compress(text.encode()),
    "too deep": lambda text: b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n" + text.encode(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "text, args",
    [
        (PROMPTS, ["train", "--data.holdout=2", "--data.train=FILE.jsonl"]),
        (ROLLOUTS, ["evaluate", "--verifier=exact", "--rollouts_file=FILE.jsonl"]),
        (ROLLOUTS, ["plan", "FILE.jsonl"]),
        ("steps: 3\n# ä\n", ["train", "--config=FILE.yaml"]),
        ('{"kind": "run", "command": "plan", "name": "ä"}\n', ["report", "."]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_file_that_cannot_be_read_is_one_line(text, args, damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(operant.cli, "_report", lambda folder, **kwargs: summary_table(folder))
    for name in ("FILE.jsonl", "FILE.yaml", "record.jsonl"):
        Path(name).write_bytes(DAMAGE[damage](text))
    refused(
        inline.run(*args, *([] if args[0] == "report" else ["--output_dir=out"])), "FILE" if args[1:] != ["."] else ""
    )
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "row, said",
    [
        ({"prompt": ["a", "b"], "reward": 1}, "rollout 1: prompt must be a text or a number"),
        ({"prompt": 1, "reward": 1, "answer": ["x"]}, "answer must be a text or a number"),
        ({"prompt": 1, "reward": [1]}, "reward must be a finite number, got [1]"),
        ({"prompt": 1, "reward": 10**400}, "reward must be a finite number"),
        ({"prompt": 1, "reward": 1, "score": "high"}, "score must be a finite number, got 'high'"),
        ({"prompt": 1, "reward": 1, "score": {}}, "score must be a finite number"),
        ({"prompt": 1, "completion": ["x"], "target": "x"}, "completion must be a text"),
        ({"prompt": 1, "completion": "x", "target": ["x"]}, "rollout 1, target: expected the correct answer"),
        ({"prompt": 1, "completion": "x", "target": "x", "info": [1]}, "info must be a mapping"),
        ({"prompt": 1, "reward": None, "failure": ["x"]}, "failure must be a text"),
    ],
)
def test_values_of_another_type_are_one_line(row, said, tmp_path):
    write_records(tmp_path / "rows.jsonl", [row] * 8)
    refused(inline.run("plan", tmp_path / "rows.jsonl", "--verifier=exact", f"--output_dir={tmp_path / 'out'}"), said)


@pytest.mark.parametrize("pattern", ["(", "[", "*(x)", "(?P<1>x)", "x{99999999999}(y)", "x"])
def test_a_bad_pattern_is_one_line_before_any_file_is_read(pattern, tmp_path):
    args = ["train", "--data.train=nowhere.jsonl", f"--data.target_pattern={pattern}", f"--output_dir={tmp_path / 'x'}"]
    refused(inline.run(*args), "data.target_pattern", "group" if pattern == "x" else "is no regular expression")


@pytest.mark.parametrize(
    "args, said",
    [
        (["train", "--trainer={a: " + "[" * 100_000], "nested deeper than 20"),
        (["train", "--trainer={a: &a [1, 1], b: [*a, *a]}"], "a configuration has no aliases"),
        (["train", "--data.holdout=0"], "data.holdout must be an integer >= 1"),
        (["train", "--data.train_limit=-1"], "data.train_limit must be an integer >= 1"),
        (["train", "--config=data: []"], "a group of settings must be a mapping"),
        (["train", "--config=baseline: null"], "operant train: baseline cannot be null. Leave the setting out"),
        (["train", "--config=data: {template: null}"], "operant train: data.template cannot be null"),
        (["evaluate", "--top_p=1" + "0" * 400], "a number in the settings is too large"),
        (["plan"], "operant plan: expected rollouts."),
        (["fly"], "expected one of train, evaluate, plan, audit, extrapolate, report, reproduce, demo, got 'fly'"),
    ],
)
def test_bad_arguments_are_one_line_without_the_usage(args, said):
    refused(inline.run(*args), said)


@pytest.mark.parametrize(
    "error, line",
    [
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "a/b: read-only file system. Choose a folder"),
        (PermissionError(errno.EACCES, "Permission denied", b"a"), "a: permission denied. Choose a folder"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error. Check the path and the disk"),
        (Exception("I/O error: No space left on device (os error 28)"), "No space left on device. Free some space"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "most often because the disk is full"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
            "out of memory",
        ),
        (MemoryError(), "out of memory. Lower the batch size"),
        (KeyError("a bug of ours"), None),
    ],
)
def test_trouble_in_words(error, line):
    said = told(error)
    assert said is None if line is None else said is not None and line in said and "\n" not in said


def test_a_failed_write_names_its_file(tmp_path):
    with pytest.raises(OSError, match="record.jsonl") as caught, naming(tmp_path / "record.jsonl"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    write_records(tmp_path / "scores.jsonl", [])
    (tmp_path / "scores.jsonl.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="scores.jsonl"):
        write_records(tmp_path / "scores.jsonl", [{"x": "y" * 100_000}])
    assert not (tmp_path / "scores.jsonl.partial").is_symlink() and (tmp_path / "scores.jsonl").exists()
