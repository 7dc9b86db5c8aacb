"""--keep: the weights of the best evaluated step, or every checkpoint; also after a kill."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from operant.core.checks import ConfigError, DataError
from operant.core.record import read_records
from operant.hf.config import TrainConfig, current_names
from operant.hf.rollouts.logprobs import answer_log_probs
from operant.hf.rollouts.policy import encode, load_policy
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.train.choice.halves import cross_fitted
from operant.hf.train.choice.steps import Keeper, Kept, kept_value, step_values
from operant.hf.train.choice.tuned import choose_rate
from operant.hf.train.evaluator import Evaluator
from operant.hf.train.recorder import Recorder
from operant.hf.train.run import make_jobs
from operant.hf.train.run_job import run_job
from operant.hf.train.settings import checked
from operant.report import summary_table
from operant.strategies import parse

MIX = "mix(pass@1:0.5, pass@4:0.5)"


@pytest.fixture
def config(tmp_path):
    """Few rows at a high rate: the held-out value rises, and falls again."""
    return TrainConfig(
        output_dir=tmp_path / "run",
        data=DataConfig(train_limit=24, test_limit=21),
        strategies=[MIX],
        steps=12,
        learning_rate=2e-2,
        per_device_train_batch_size=8,
        budgets=[1, 4],
        eval_steps=2,
        eval_temperatures=[],
        logging_steps=1,
        save_steps=4,
        keep="best",
        threads=1,
    )


def trained(config):
    """The jobs of a run after its warm start, done."""
    config = checked(config)
    jobs = make_jobs(config)[1:]
    for job in jobs:
        run_job(job, config)
    return config, jobs


def measured(job, config, strategy):
    """The mean value of the model that was kept, from its folder."""
    policy = load_policy(str(job.folder / "model"), device="cpu")
    rows = encode(policy, load_prompts(config.data)[1], config.data, 64)
    return strategy.success(answer_log_probs(policy, rows, batch_size=32)).log_s.exp().mean().item()


def test_the_best_step_is_kept_and_reported_by_the_other_half(config):
    config, jobs = trained(config)
    table = summary_table(config.output_dir)
    for job in jobs:
        curves = {r["step"]: r["curve"] for r in read_records(job.record) if r["kind"] == "evaluation"}
        assert list(curves) == [0, 2, 4, 6, 8, 10, 12]
        # The mixture is none of the columns. The baseline is judged by it as well, as the first strategy of the run.
        means = {step: (curve["pass@1"]["value"] + curve["pass@4"]["value"]) / 2 for step, curve in curves.items()}
        best = max(means, key=lambda step: means[step])
        kept = kept_value(job)
        assert kept == Kept(best, MIX, pytest.approx(means[best]), pytest.approx(means[12]))
        assert measured(job, config, parse(MIX)) == pytest.approx(kept.value, abs=1e-6)
        rows = read_records(job.folder / "prompts.jsonl")
        for name in ("pass@1", "pass@4"):
            found, steps = cross_fitted(step_values(job, name), job.seed, lambda x: x)
            assert [row["values"][name] for row in rows] == pytest.approx(found.tolist())
            (said,) = [r for r in read_records(job.record) if r["kind"] == "chosen" and r["metric"] == name]
            assert [s["step"] for s in said["settings"]] == steps
        assert sorted(p.name for p in job.folder.iterdir() if p.is_dir()) == ["model"]
        assert f"{job.branch}, seed 0: step {best} ({MIX} {100 * means[best]:.1f} %" in table
        card = (job.folder / "model" / "README.md").read_text()
        assert f"| step kept | {best}, the best for `{MIX}` on the held-out prompts |" in card
    assert any(kept_value(job).step not in (0, 12) for job in jobs), "the case is one of early stopping"


@pytest.fixture
def digits(tmp_path):
    """The first digit of the completion is right or wrong: an untrained model is right one time in ten or so."""
    path = tmp_path / "digits.jsonl"
    rows = [{"prompt": f"{i}*{i + 1}=", "target": str(i % 10)} for i in range(10, 60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": DataConfig(train=str(path), holdout=20), "verifier": r"regex:^(\d)"}


def test_reinforcement_learning_keeps_its_best_step_too(config, digits):
    config = replace(config, method="grpo", strategies=["pass@4"], **digits)
    config = replace(config, num_generations=8, per_device_train_batch_size=32, steps=6, warm_steps=0)
    config, jobs = trained(replace(config, max_completion_length=3, save_steps=2, learning_rate=1e-2))
    for job in jobs:
        curves = {r["step"]: r["curve"] for r in read_records(job.record) if r["kind"] == "evaluation"}
        means = {step: curve["pass@4"]["value"] for step, curve in curves.items()}
        kept = kept_value(job)
        assert list(means) == [0, 2, 4, 6] and len(set(means.values())) == 4
        assert kept == Kept(max(means, key=lambda step: means[step]), "pass@4", max(means.values()), means[6])
        assert measured(job, config, parse("pass@4")) == pytest.approx(kept.value, abs=1e-6)
        assert sorted(p.name for p in job.folder.iterdir() if p.is_dir()) == ["model"]
    assert any(kept_value(job).step < 6 for job in jobs)


@pytest.mark.parametrize(("rollouts", "top_p"), [(0, 1.0), (8, 1.0), (0, 0.5)])
def test_a_branch_takes_over_what_its_warm_start_measured(config, digits, monkeypatch, rollouts, top_p):
    """The weights of its step 0 are those that the warm start has evaluated: nothing changes but the time."""
    config = replace(config, warm_steps=0, steps=4, eval_rollouts=rollouts, max_completion_length=3, baseline=False)
    config = replace(config, top_p=top_p, **digits if rollouts else {})
    calls, real = [], Evaluator.__call__
    monkeypatch.setattr(Evaluator, "__call__", lambda self: calls.append(1) or real(self))
    _, (anew,) = trained(config)
    assert len(calls) == 3
    config = checked(replace(config, output_dir=config.output_dir.with_name("whole")))
    warm, job = make_jobs(config)
    run_job(warm, config)
    run_job(job, config)
    assert len(calls) == 3 + 1 + 2

    def evaluations(job):
        curves = [r["curve"] for r in read_records(job.record) if r["kind"] == "evaluation"]
        return [
            {(name, key): point[key] for name, point in c.items() for key in ("value", "stderr", "n")} for c in curves
        ]

    assert evaluations(job) == [pytest.approx(c, rel=1e-12) for c in evaluations(anew)]
    assert evaluations(job)[0] == pytest.approx(evaluations(warm)[-1], rel=1e-12)
    if top_p < 1:  # an answer that the nucleus leaves out
        assert min(row["log_p"] for row in read_records(warm.folder / "prompts.jsonl")) == -1e30
    assert top_p < 1 or evaluations(job)[0] != pytest.approx(evaluations(job)[1], rel=1e-3)
    for name in ("pass@1", MIX) if not rollouts else ("pass@1",):
        assert step_values(job, name)[0].tolist() == step_values(anew, name)[0].tolist()
    assert (job.folder / "prompts.jsonl").read_bytes() == (anew.folder / "prompts.jsonl").read_bytes()


@pytest.mark.parametrize("at", [pytest.param(3, marks=pytest.mark.slow), 7, pytest.param(12, marks=pytest.mark.slow)])
def test_a_killed_branch_keeps_what_the_uninterrupted_one_keeps(config, monkeypatch, at):
    config = replace(config, strategies=["pass@4"], baseline=False)
    _, (whole,) = trained(config)
    config = checked(replace(config, output_dir=config.output_dir.with_name("killed")))
    (job,) = make_jobs(config)[1:]
    real, finish = Recorder.on_step_end, Keeper.finish

    def die(self, args, state, control, **kwargs):
        real(self, args, state, control, **kwargs)
        if state.global_step == at:
            raise KeyboardInterrupt

    def die_at_the_end(self):
        finish(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*(Keeper, "finish", die_at_the_end) if at == 12 else (Recorder, "on_step_end", die))
        run_job(job, config)
    assert not job.done
    run_job(job, config)
    assert kept_value(job) == kept_value(whole)
    assert (job.folder / "prompts.jsonl").read_bytes() == (whole.folder / "prompts.jsonl").read_bytes()
    ours, theirs = (load_file(j.folder / "model" / "model.safetensors") for j in (job, whole))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
def test_rate_and_step_are_chosen_together(config):
    config = checked(replace(config, baseline=False, learning_rate=[2e-2, 4e-3]))
    group = make_jobs(config)[1:]
    for job in group:
        run_job(job, config)
    chosen, home = choose_rate(group, config), group[0].home
    values = {(j.learning_rate, step): v for j in group for step, v in step_values(j, "pass@4").items()}
    found, settings = cross_fitted(values, 0, lambda x: x)
    assert [row["values"]["pass@4"] for row in read_records(home / "prompts.jsonl")] == pytest.approx(found.tolist())
    (said,) = [r for r in read_records(home / "record.jsonl") if r.get("metric") == "pass@4" and "time" not in r]
    assert [(s["rate"], s["step"]) for s in said["settings"]] == settings
    own = {(j.learning_rate, step): v.mean().item() for j in group for step, v in step_values(j, MIX).items()}
    best = max(own, key=lambda setting: own[setting])
    assert chosen.rate == best[0] and chosen.metric == MIX and chosen.values[best[0]] == pytest.approx(own[best])
    assert measured(replace(group[0], folder=home), config, parse(MIX)) == pytest.approx(own[best], abs=1e-6)


def test_all_keeps_every_checkpoint(config):
    config, (job,) = trained(replace(config, keep="all", strategies=["pass@4"], baseline=False))
    assert sorted(p.name for p in job.folder.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-4", "checkpoint-8"]
    assert load_policy(str(job.folder / "checkpoint-4"), device="cpu").tokenizer is not None
    assert kept_value(job) is None and (job.folder / "model" / "model.safetensors").is_file()
    assert not (job.folder / "steps.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"eval_steps": 0}, ConfigError, "keep best chooses among the evaluated steps: set eval_steps"),
        ({"keep": "all", "save_steps": 0}, ConfigError, "keep all keeps the checkpoints: set save_steps"),
        ({"data": DataConfig(test_limit=1)}, DataError, "held-out prompts choose the step, which takes two at least"),
        (
            {"method": "grpo", "strategies": ["maj@4"], "save_steps": 0, "per_device_train_batch_size": None},
            ConfigError,
            "choose the step of maj@4 by its value, which the exact curve lacks: set eval_rollouts",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(config, settings, error, message):
    with pytest.raises(error, match=message):
        checked(replace(config, **settings))


def test_a_run_of_before_keeps_its_last_step():
    assert current_names({"steps": 3})["keep"] == "last"
    assert json.dumps(current_names({"keep": "best"})) == '{"keep": "best"}'
