"""The verbs as a user runs them, on the embedded default: in processes of their own where something is killed, else in
this one, which has imported everything already. The slow tests run all of them in processes of their own."""

import csv
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import operant.hf.train.run
import operant.hf.workers
from operant.core.record import read_records
from tests import inline

TRAIN = [
    "train",
    "--strategies=[pass@16]",
    "--warm_steps=4",
    "--steps=24",
    "--eval_steps=12",
    "--save_steps=8",
    "--logging_steps=2",
    "--per_device_train_batch_size=16",
    "--learning_rate=1e-3",
    "--data.train_limit=64",
    "--data.test_limit=50",
]


def processes(*args, check=True):
    """The command in a process of its own, with its workers."""
    run = subprocess.run([sys.executable, "-m", "operant.cli", *map(str, args)], capture_output=True, text=True)
    assert not check or run.returncode == 0, run.stderr
    return run


def inside(*args, check=True):
    """The same in this process, without workers."""
    torch.set_num_threads(1)  # as the workers have for this model: sums of two threads differ in the last bit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operant.hf.train.run, "worker_pool", inline.worker_pool)
        patch.setattr(operant.hf.workers, "worker_pool", inline.worker_pool)
        run = inline.run(*args)
    assert not check or run.returncode == 0, run.stderr
    return run


ROADS = pytest.mark.parametrize("command", [inside, pytest.param(processes, marks=pytest.mark.slow)])
"""The killed runs go through processes by default; the slow tests send every verb there."""


def kill_when(args, condition):
    """Start the command, and kill it with all its processes as soon as the condition holds."""
    command = [sys.executable, "-m", "operant.cli", *args]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run = inside(*TRAIN, f"--output_dir={folder}")
    return folder, run.stdout


def weights(folder: Path, branch: str):
    return load_file(folder / "seed0" / branch / "model" / "model.safetensors")


def curves(folder: Path, branch: str):
    records = read_records(folder / "seed0" / branch / "record.jsonl")
    return [(r["step"], r["curve"]) for r in records if r["kind"] == "evaluation"]


def test_train_writes_a_run_and_its_page(trained):
    folder, printed = trained
    assert "pass@16" in printed and "warm start" in printed
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "pass@16" in page
    for branch in ("warm", "ce", "pass@16"):
        rows = read_records(folder / "seed0" / branch / "prompts.jsonl")
        assert len(rows) == 50
        for row in rows:
            p = 2.718281828459045 ** row["log_p"]
            assert row["values"]["pass@16"] == pytest.approx(1 - (1 - p) ** 16, rel=1e-6, abs=1e-12)
    before, after = weights(folder, "ce"), weights(folder, "pass@16")
    assert any((before[k] != after[k]).any() for k in before)


def test_a_killed_run_resumes_to_the_same_numbers(trained, tmp_path):
    """In processes of its own, with workers; the whole run was in this one."""
    whole, printed = trained
    folder = tmp_path / "killed"
    state = folder / "seed0" / "pass@16" / "checkpoint-8" / "trainer_state.json"
    kill_when([*TRAIN, f"--output_dir={folder}"], state.is_file)
    assert not (folder / "seed0" / "pass@16" / "prompts.jsonl").exists(), "it finished before it was killed"

    again = inside(*TRAIN, f"--output_dir={folder}", check=False)
    assert again.returncode == 2 and "--resume true" in again.stderr
    other = inside(*TRAIN, f"--output_dir={folder}", "--resume=true", "--learning_rate=2e-3", check=False)
    assert other.returncode == 2 and "learning_rate: 0.001 -> 0.002" in other.stderr
    resumed = processes(*TRAIN, f"--output_dir={folder}", "--resume=true").stdout
    table = printed[printed.index("mean, %") : printed.index("page: ")]
    assert table in resumed and f"page: {folder.resolve()}" in resumed
    for branch in ("warm", "ce", "pass@16"):
        after, uninterrupted = weights(folder, branch), weights(whole, branch)
        assert all((after[k] == uninterrupted[k]).all() for k in uninterrupted)
        assert curves(folder, branch) == curves(whole, branch)
    for name in ("ce/temperatures.jsonl", "ce_best_T/prompts.jsonl", "ce_best_step_and_T/record.jsonl"):
        mine, theirs = (read_records(root / "seed0" / name) for root in (folder, whole))
        assert [{**r, "time": 0} for r in mine] == [{**r, "time": 0} for r in theirs]


@ROADS
def test_train_by_reinforcement_writes_the_same_kind_of_run(command, tmp_path):
    settings = ["--warm_steps=3", "--steps=2", "--logging_steps=1", "--per_device_train_batch_size=64", "--seeds=[4]"]
    limits = ["--num_generations=8", "--data.train_limit=64", "--data.test_limit=20", "--eval_rollouts=8"]
    chosen = ["--strategies=[maj@4]", "--budgets=[1, 4, 8]", "--learning_rate=[1e-3, 2e-3]"]
    run = command("train", "--method=rloo", "--verifier=exact", *settings, *limits, *chosen, f"--output_dir={tmp_path}")
    for text in ("rloo · rate 0.001  reward", "rloo · rate 0.002  reward", "maj@4 · rate 0.001  maj@4 "):
        assert f"done: seed 4 · {text}" in run.stdout
    assert "TRL's RLOO at its best learning rate" in run.stdout
    assert "maj@4" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for branch in ("warm", "rloo", "maj@4"):
        rows = read_records(tmp_path / "seed4" / branch / "prompts.jsonl")
        assert len(rows) == 20 and {"pass@8", "maj@8"} <= set(rows[0]["values"])
        facts = json.loads((tmp_path / "seed4" / branch / "job.json").read_text())
        assert facts["baseline"] == (branch == "rloo")
        assert "arXiv:2604.24957" in (tmp_path / "seed4" / branch / "model" / "README.md").read_text()


@ROADS
def test_evaluate_samples_scores_and_reads_back_the_same_numbers(command, trained, tmp_path):
    model = trained[0] / "seed0" / "ce" / "model"
    settings = ["--data.test_limit=20", "--batch_size=10", "--max_new_tokens=6", "--rollouts=8"]
    run = command("evaluate", f"--model={model}", f"--output_dir={tmp_path / 'a'}", *settings)
    assert "maj@N, %" in run.stdout and "exact pass@N, %" in run.stdout
    rows = read_records(tmp_path / "a" / "rollouts.jsonl")
    assert len(rows) == 160 and all(r["reward"] in (0.0, 1.0) for r in rows)
    inside("evaluate", f"--rollouts_file={tmp_path / 'a' / 'rollouts.jsonl'}", f"--output_dir={tmp_path / 'b'}")
    first, second = (read_records(tmp_path / x / "prompts.jsonl") for x in "ab")
    for x, y in zip(first, second, strict=True):
        sampled = {k: v for k, v in x["values"].items() if not k.startswith("exact")}
        assert sampled == y["values"]


def test_a_killed_evaluation_resumes_to_the_same_numbers(trained, tmp_path):
    model = trained[0] / "seed0" / "ce" / "model"
    settings = [f"--model={model}", "--data.test_limit=100", "--batch_size=2", "--max_new_tokens=6", "--rollouts=4"]
    inside("evaluate", *settings, "--verifier=exact", f"--output_dir={tmp_path / 'whole'}")
    folder = tmp_path / "killed"
    command = ["evaluate", *settings, "--verifier=exact", f"--output_dir={folder}"]
    kill_when(command, lambda: (folder / "sampling.jsonl").is_file())
    assert not (folder / "rollouts.jsonl").exists(), "it finished before it was killed"
    inside(*command, "--resume=true")
    for name in ("rollouts.jsonl", "prompts.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_rollouts_with_any_text_survive_a_round_trip(tmp_path):
    texts = ["line\u2028separator \u2029 \x85 72", "", "\U0001f600 no answer", "72\n72", "\x00 71", "the answer is 72"]
    lines = [{"prompt": i, "target": "72", "completion": t} for i in ("a", "b") for t in texts]
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in lines), encoding="utf-8")
    inside("evaluate", f"--rollouts_file={source}", f"--output_dir={tmp_path / 'a'}")
    rows = read_records(tmp_path / "a" / "rollouts.jsonl")
    assert [r["completion"] for r in rows] == texts * 2
    assert [r["reward"] for r in rows[:6]] == [1, 0, 0, 1, 0, 1]
    assert rows[1]["answer"] is None and rows[2]["answer"] is None
    inside("evaluate", f"--rollouts_file={tmp_path / 'a' / 'rollouts.jsonl'}", f"--output_dir={tmp_path / 'b'}")
    assert read_records(tmp_path / "a" / "prompts.jsonl") == read_records(tmp_path / "b" / "prompts.jsonl")
    values = read_records(tmp_path / "a" / "prompts.jsonl")[0]["values"]
    assert values["pass@1"] == pytest.approx(0.5) and values["pass@4"] == 1.0
    assert values["maj@1"] == pytest.approx(0.5)


@ROADS
def test_plan_reads_what_evaluate_wrote_and_report_shows_it_again(command, tmp_path):
    rng = random.Random(0)
    rows = []
    for i in range(40):
        rate = rng.betavariate(0.5, 1)
        for _ in range(8):
            right = rng.random() < rate
            answer = "72" if right else str(rng.choice([71, 70]))
            rows.append({"prompt": f"q{i}", "reward": float(right), "answer": answer})
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    inside("evaluate", f"--rollouts_file={source}", f"--output_dir={tmp_path / 'eval'}")
    args = ["plan", tmp_path / "eval" / "rollouts.jsonl", f"--output_dir={tmp_path / 'plan'}"]
    run = command(*args, '--strategies=[pass@4, maj@4, "mix(pass@1:0.25, pass@4:0.75)"]', "--price=0.001")
    assert "With a verifier: deploy pass@4" in run.stdout and "dead at 2N" in run.stdout
    page = (tmp_path / "plan" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Which prompts carry the gradient" in page and "deploy pass@4" in page
    evaluated = [r["values"] for r in read_records(tmp_path / "eval" / "prompts.jsonl")]
    curves = {r["strategy"]: r for r in read_records(tmp_path / "plan" / "record.jsonl") if r["kind"] == "curve"}
    for family in ("pass", "maj"):
        for point in curves[f"{family}@N"]["points"]:
            mean = sum(v[f"{family}@{point['n']}"] for v in evaluated) / 40
            assert point["value"] == pytest.approx(mean)
    again = inside("report", tmp_path / "plan")
    assert again.stdout in run.stdout
    refused = inside(*args, check=False)
    assert refused.returncode == 2 and "holds a run of operant plan already" in refused.stderr


@ROADS
def test_demo_runs_small(command, tmp_path):
    run = command("demo", "--seeds=1", "--warm_steps=2", "--steps=2", f"--output_dir={tmp_path / 'd'}", "--open=false")
    for text in ("ce, best step and T", "pass@64", "learning rate, chosen before this run: ce 0.008, pass@64 0.004."):
        assert text in run.stdout
    assert (tmp_path / "d" / "report" / "scaling.png").stat().st_size > 1000
    again = inside("demo", "--seeds=1", "--warm_steps=2", "--steps=2", f"--output_dir={tmp_path / 'd'}", "--open=false")
    table = run.stdout[run.stdout.index("mean, %") :]
    assert "no job is left" in again.stdout and table in again.stdout


@ROADS
def test_audit_prints_and_draws_what_each_rule_optimizes(command, tmp_path):
    folder = tmp_path / "audit"
    run = command("audit", "--n=3", "--m=6", "--rules=[grpo, pkpo-centered]", f"--output_dir={folder}")
    rows = {line.split()[0]: line.split()[1:] for line in run.stdout.splitlines() if line}
    assert "2 of 4 rules optimize pass@3 from 6 rollouts" in run.stdout and {"operant", "grpo"} <= set(rows)
    page = (folder / "report" / "index.html").read_bytes()
    assert (folder / "report" / "one-sample.png").stat().st_size > 1000
    again = inside("audit", f"--output_dir={folder}", check=False)
    assert (
        again.returncode == 2
        and "holds a run of operant audit already. Give --output_dir another name." in again.stderr
    )
    shown = inside("report", folder)
    assert shown.stdout == run.stdout and (folder / "report" / "index.html").read_bytes() == page


@ROADS
def test_extrapolate_explains_predicts_and_draws(command, tmp_path):
    """A bend that moves with T: known for T = 0 to 5, four points for T = -1."""
    x = [i / 5 for i in range(21)]
    rows = {t: [(t, a, math.tanh(a - t / 2)) for a in x] for t in range(-1, 6)}
    asked = [(-1, a, "") for a in x[10::2]]
    for name, points in {"bank": sum((rows[t] for t in range(6)), []), "target": rows[-1][:8:2] + asked}.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("T", "x", "y"), *points])
    folder = tmp_path / "out"
    files = [tmp_path / "bank.csv", f"--target={tmp_path / 'target.csv'}", f"--output_dir={folder}"]
    settings = ["--task=T", "--x=x", "--y=[y]", "--params=T", "--operator=shift * xshift"]
    run = command("extrapolate", *files, *settings)
    assert re.search(r"^shift \* xshift \* .* 100 %$", run.stdout, re.M) and "-1: y = " in run.stdout
    with (folder / "predictions.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["x"]) == 2.0 and float(first["y"]) == pytest.approx(math.tanh(2.5), abs=0.05)
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Target -1" in page and "How the operator was chosen" in page
    assert (folder / "report" / "target-0.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "args, message",
    [
        (["train", "--strategies=[maj@8]"], "depends on the whole answer distribution"),
        (["train", "--strategies=[pass@]"], "expected one of pass@N"),
        (["train", "--strategies=[]"], "one of each at least, got strategies []"),
        (["train", "--strategies=[pass@1]"], "distinct strategies"),
        (["train", "--seeds=[0, 0]"], "distinct strategies"),
        (["train", "--data.train=nowhere.jsonl"], "found none"),
        (["train", "--budgets=[0]"], "budget must be an integer >= 1"),
        (["train", "--num_generations=16"], "num_generations is a setting of grpo and rloo"),
        (["train", "--method=grpo", "--strategies=[pass@64]", "--num_generations=8"], "at least 64 rollouts"),
        (["train", "--method=grpo", "--report_to=[wandb]"], "pip install wandb"),
        (["evaluate", "--temperature=0"], "temperature > 0"),
        (["evaluate", "--rollouts=4", "--budgets=[1, 8]"], "budgets up to 8 need as many rollouts"),
        (["evaluate", "--data.chat=true"], "has no chat template"),
        (["evaluate", "--rollouts_file=nowhere.jsonl"], "found none"),
        (["plan", "nowhere.jsonl"], "found none"),
        (["plan", "nowhere.jsonl", "--price=-1"], "finite price >= 0"),
        (["report", "nowhere"], "nowhere"),
        (["audit", "--rules=[ppo]"], "expected rules of grpo"),
        (["audit", "--strategy=maj@8"], "a strategy that counts successes"),
        (["audit", "--m=0"], "m must be an integer >= 1"),
        (["extrapolate", "no.csv", "--target=no.csv", "--task=T", "--x=x", "--y=y"], "expected a CSV file at no.csv"),
    ],
)
def test_bad_input_gets_one_clear_message(tmp_path, args, message):
    out = [] if args[0] == "report" else [f"--output_dir={tmp_path / 'x'}"]
    run = inside(*args, *out, check=False)
    assert run.returncode == 2
    assert message in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "verb, taught",
    [
        ("train", "operant train --model MODEL_DIR --data.train train.jsonl"),
        ("train", "operant train --method grpo --model MODEL_DIR"),
        ("evaluate", "operant evaluate --rollouts_file rollouts.jsonl"),
        ("plan", "operant plan runs/eval/rollouts.jsonl"),
        ("extrapolate", "operant extrapolate bank.csv --target target.csv --task T --x log_t --y log_E"),
        ("report", "operant report runs/first"),
        ("demo", "two-digit multiplication"),
    ],
)
def test_help_teaches(verb, taught):
    assert taught in inside(verb, "--help").stdout


def test_a_pattern_with_hashes_reaches_the_config():
    """YAML would take it for a comment, and the whole solution for the answer."""
    printed = inside("train", "--data.target_pattern", "#### (.+)", "--print_config").stdout
    assert "target_pattern: '#### (.+)'" in printed


def test_print_config_is_a_config(tmp_path):
    printed = inside(*TRAIN, "--print_config").stdout
    (tmp_path / "run.yaml").write_text(printed)
    again = inside("train", f"--config={tmp_path / 'run.yaml'}", "--print_config").stdout
    assert again == printed and "warm_steps: 4" in printed
