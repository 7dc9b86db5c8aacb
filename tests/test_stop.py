"""Every verb that writes keeps others out of its folder, and stops at a signal without a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from operant import cli, report
from operant.cli import ReportConfig, main
from operant.cli.settings import AuditConfig
from operant.core.checks import DataError
from operant.core.record import LOCK, lock_folder, read_records
from operant.hf.config import DemoConfig, EvaluateConfig, PlanConfig, TrainConfig
from operant.hf.rollouts.evaluate import evaluate
from operant.hf.rollouts.plan import plan
from operant.hf.text_config import TextConfig
from operant.hf.train.run import run_training
from operant.language.command.run import extrapolate as extrapolate_text
from operant.relational.run import ExtrapolateConfig, extrapolate


def rollouts(folder):
    path = folder / "rollouts.jsonl"
    path.write_text('{"prompt": 1, "reward": 1}\n' * 4)
    return path


def bank(folder):
    path = folder / "bank.csv"
    path.write_text("T,x,y\n" + "".join(f"{t},{x},{t + x}\n" for t in range(3) for x in range(3)))
    return path


def known(folder):
    """A bank that is its own target."""
    path = folder / "bank.jsonl"
    path.write_text('{"task": "a", "input": "x", "output": "y"}\n' * 2 + '{"task": "a", "input": "z", "output": "w"}\n')
    return path


def audited(folder):
    """A folder that can be reported on."""
    cli.audit(AuditConfig(n=2, m=4, rules=["grpo"], output_dir=folder / "audit"))
    return folder / "audit"


VERBS = {
    "train": lambda out, d: run_training(TrainConfig(out)),
    "evaluate": lambda out, d: evaluate(EvaluateConfig(out, rollouts_file=rollouts(d))),
    "plan": lambda out, d: plan(PlanConfig(rollouts(d), out)),
    "audit": lambda out, d: cli.audit(AuditConfig(output_dir=out)),
    "extrapolate": lambda out, d: extrapolate(ExtrapolateConfig(bank(d), bank(d), "T", "x", "y", output_dir=out)),
    "extrapolate text": lambda out, d: extrapolate_text(TextConfig(known(d), known(d), known(d), output_dir=out)),
    "demo language": lambda out, d: cli.demo(DemoConfig(out, what="language")),
    "report": lambda out, d: cli.report(ReportConfig(audited(d), out)),
    "demo": lambda out, d: cli.demo(DemoConfig(out)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_another_run_writes_into_is_refused(tmp_path, monkeypatch, verb):
    monkeypatch.setattr(report, "_WAIT", 0)
    out = tmp_path / "out"
    with lock_folder(out), pytest.raises(DataError, match="out is in use: another process is writing there"):
        VERBS[verb](out, tmp_path)
    assert os.listdir(out) == [LOCK]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_verb(monkeypatch, capsys, interruptible, number, code):
    before = signal.getsignal(signal.SIGTERM)

    def wait(config):
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setitem(cli.FUNCTIONS, "demo", wait)
    assert main(["demo"]) == code
    assert capsys.readouterr().err == "operant demo: stopped. Continue with --resume true.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_that_another_error_wraps_is_an_interrupt(monkeypatch, capsys):
    def build(config):
        raise RuntimeError("Error calling __set_name__ on 'Field'") from KeyboardInterrupt()

    monkeypatch.setitem(cli.FUNCTIONS, "demo", build)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "operant demo: stopped. Continue with --resume true.\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_trains_no_further_and_is_resumed(tmp_path, interruptible, number):
    """The signal reaches the first process alone. A second run is refused before it, and goes on after it."""
    command = [sys.executable, "-m", "operant.cli", "train", "--steps=1500", "--eval_steps=0", "--save_steps=200"]
    command += [
        "--logging_steps=10",
        "--data.train_limit=64",
        "--data.test_limit=20",
        f"--output_dir={tmp_path / 'run'}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    record = tmp_path / "run" / "seed0" / "ce" / "record.jsonl"
    deadline = time.monotonic() + 300
    while not (record.is_file() and any(r["kind"] == "step" for r in read_records(record))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    again = subprocess.run([*command, "--resume=true"], capture_output=True, text=True)
    assert again.returncode == 2 and "run is in use: another process is writing there" in again.stderr
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "operant train: stopped. Continue with --resume true.\n" in err
    assert "Traceback" not in err
    size = record.stat().st_size
    time.sleep(1)
    assert record.stat().st_size == size, "a worker trains on"
    assert not (record.parent / "prompts.jsonl").exists(), "it finished before it was stopped"
    subprocess.run([*command, "--resume=true"], check=True, capture_output=True)
    steps = [r["step"] for r in read_records(record) if r["kind"] == "step"]
    assert steps == list(range(10, 1501, 10))
