"""Several learning rates: what chooses, what is kept, what a resumed run repeats, and what the page says."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from operant.core.checks import ConfigError, DataError
from operant.core.record import read_records, write_records
from operant.core.rng import torch_generator
from operant.hf.config import TrainConfig
from operant.hf.rollouts.prompts import DataConfig
from operant.hf.train import run
from operant.hf.train.choice import tuned
from operant.hf.train.choice.tuned import choose_rate
from operant.hf.train.job import DivergedError, Job
from operant.hf.train.run import make_jobs, run_job
from operant.hf.train.settings import checked
from operant.report import summary_table, write_report
from operant.report.pages.train.load import load_run
from operant.report.pages.train.rates import at_rates
from operant.strategies import parse

RATES = [3e-3, 1e-2, 1e30]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return checked(
        TrainConfig(
            output_dir=tmp_path_factory.mktemp("rates") / "run",
            data=DataConfig(train_limit=40, test_limit=11),
            strategies=["mix(pass@1:0.5, pass@4:0.5)"],
            learning_rate=RATES,
            steps=3,
            per_device_train_batch_size=8,
            budgets=[1, 16],
            eval_steps=2,
            eval_temperatures=[0.7, 1.0],
            save_steps=0,
            threads=1,
        )
    )


def work(config: TrainConfig) -> list[str]:
    """Run what is left in this process; what was printed."""
    with run._claimed(config), (config.output_dir / "printed.txt").open("w") as file:  # pyright: ignore
        jobs, console = make_jobs(config), Console(file=file, width=400)
        for job in jobs:
            if not job.done:
                run_job(job, config)
            run._choose_after(job, jobs, config, console)  # pyright: ignore
    return (config.output_dir / "printed.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def done(config):
    return make_jobs(config), work(config)


def prompts(folder: Path) -> list[dict[str, Any]]:
    return read_records(folder / "prompts.jsonl")


def test_each_half_of_the_prompts_has_the_rate_that_the_other_chose(config, done):
    jobs, _ = done
    first = set(torch.randperm(11, generator=torch_generator(0, "halves"))[:5].tolist())
    for branch in ("ce", config.strategies[0]):
        group = [job for job in jobs if job.branch == branch and not job.diverged]
        assert [job.learning_rate for job in group] == RATES[:2]
        tables = [prompts(job.folder) for job in group]
        rows = prompts(group[0].home)
        for metric in ("pass@1", "pass@4", "pass@16"):
            for i, row in enumerate(rows):
                others = [k for k in range(11) if (k in first) != (i in first)]
                means = [sum(t[k]["values"][metric] for k in others) for t in tables]
                assert row["values"][metric] == tables[means.index(max(means))][i]["values"][metric]


def test_the_baseline_is_tuned_over_rates_steps_and_temperatures(config, done):
    folder = config.output_dir / "seed0" / "ce_best_rate_step_and_T"
    (said,) = [r for r in read_records(folder / "record.jsonl") if r.get("metric") == "pass@16"]
    logs = {
        (rate, r["step"], r["temperature"]): torch.tensor(r["log_p"], dtype=torch.float64)
        for rate in RATES[:2]
        for r in read_records(folder.parent / "ce" / f"rate_{rate:g}" / "temperatures.jsonl")
    }
    assert len(logs) == 2 * 3 * 2
    first = torch.zeros(11, dtype=torch.bool)
    first[torch.randperm(11, generator=torch_generator(0, "halves"))[:5]] = True
    for half, chosen in zip((first, ~first), said["settings"], strict=True):
        value = {s: parse("pass@16").success(x[~half]).log_s.exp().mean().item() for s, x in logs.items()}
        assert tuple(chosen.values()) == max(value, key=lambda s: value[s])
    roles = {name: json.loads((folder.parent / name / "job.json").read_text()) for name in os.listdir(folder.parent)}
    assert [name for name, about in roles.items() if about["baseline"]] == ["ce_best_rate_step_and_T"]


def test_one_model_of_a_branch_is_kept_and_its_card_names_the_rate(config, done, tmp_path):
    jobs, printed = done
    for branch, own in (("ce", "pass@1"), (config.strategies[0], config.strategies[0])):
        group = [job for job in jobs if job.branch == branch]
        home = group[0].home
        logs = {j.learning_rate: [r["log_p"] for r in prompts(j.folder)] for j in group if not j.diverged}
        values = {r: parse(own).success(torch.tensor(x)).log_s.exp().mean() for r, x in logs.items()}
        best = max(values, key=lambda r: values[r])
        assert not any((job.folder / "model").exists() for job in group)
        assert f"| learning rate | {best:g}, of 0.003, 0.01, 1e+30 the best for `{own}`" in (
            home / "model" / "README.md"
        ).read_text(encoding="utf-8")
        said = ", ".join(f"{100 * value:.1f} at {rate:g}" for rate, value in values.items())
        assert f"chosen: seed 0 · {branch} · rate {best:g} ({own} {said}); model in {home / 'model'}" in printed
        alone = replace(config, output_dir=tmp_path / branch, learning_rate=best, eval_steps=0)
        (single,) = [job for job in make_jobs(alone) if job.branch == branch]
        run_job(single, alone)
        kept, again = (load_file(folder / "model.safetensors") for folder in (home / "model", single.folder / "model"))
        assert all(torch.equal(kept[name], again[name]) for name in again)


def test_a_training_that_diverges_at_its_only_rate_names_it(config, tmp_path):
    alone = replace(config, output_dir=tmp_path, learning_rate=1e30)
    with pytest.raises(DivergedError, match=r"diverged by step \d at the learning rate 1e\+30"):
        run_job(make_jobs(alone)[1], alone)
    folder = tmp_path / "ce"
    group = [Job(folder / str(r), 0, "ce", "pass@1", "branch", "sft", 3, r, None, (1.0, 2.0)) for r in (1.0, 2.0)]
    for job in group:
        write_records(job.folder / "diverged.json", [{"text": "it did"}])
    with pytest.raises(DataError, match=r"diverged at all learning rates, \[1.0, 2.0\]"):
        choose_rate(group, config)


def test_the_page_shows_every_rate_and_says_what_was_chosen(config, done, tmp_path):
    table = summary_table(config.output_dir)
    assert "cross-entropy at its best learning rate, step and temperature" in table
    assert "Learning rates: the best of 0.003, 0.01, 1e+30 for each branch and budget" in table
    assert "The training diverged at the rate 1e+30: ce (seed 0), mix(pass@1:0.5, pass@4:0.5) (seed 0)." in table
    assert "not tuned" not in table
    saved = load_run(config.output_dir)
    assert saved.labels[:4] == ("warm start", "ce", "ce, best T", "ce, best rate, step and T")
    found = {(x.branch, x.rate): x for x in at_rates(saved)}
    for branch in ("ce", config.strategies[0]):
        for rate in RATES[:2]:
            rows = prompts(next(j for j in saved.at_rates if (j.branch, *j.rates) == (branch, rate)).path)
            assert found[branch, rate].means["pass@16"] == pytest.approx(
                sum(r["values"]["pass@16"] for r in rows) / 11, rel=1e-12
            )
    page = write_report(config.output_dir, tmp_path).read_text(encoding="utf-8")
    assert "Learning rates" in page and (tmp_path / "rates.png").stat().st_size > 1000


@pytest.mark.parametrize("name, call", [("write_job", 1), ("_keep_model", 1), ("write_prompts", 3)])
def test_a_choice_that_was_killed_is_made_again(config, done, tmp_path, monkeypatch, name, call):
    copy = replace(config, output_dir=tmp_path)
    shutil.copytree(config.output_dir / "seed0", tmp_path / "seed0")
    group = [job for job in make_jobs(copy) if job.branch == "ce"]
    home, real, calls = group[0].home, getattr(tuned, name), []
    (home / "prompts.jsonl").unlink()
    shutil.rmtree(home / "model")
    for job in group:
        (job.folder / "model").mkdir()
        (job.folder / "model" / "rate").write_text(str(job.learning_rate))

    def die(*args, **settings):
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuned, name, die)
        choose_rate(group, copy)
    assert not (home / "prompts.jsonl").exists()
    best = choose_rate(group, copy)
    assert (home / "model" / "rate").read_text() == str(best.rate)
    assert (home / "prompts.jsonl").read_bytes() == (config.output_dir / "seed0/ce/prompts.jsonl").read_bytes()


def test_a_longer_list_trains_the_new_rates_only(config, done):
    jobs, _ = done
    before = {job.folder: job.record.read_bytes() for job in jobs}
    assert work(replace(config, resume=True)) == []
    with pytest.raises(DataError, match="other settings"):
        work(replace(config, resume=True, learning_rate=[1e-2, 3e-3, 1e30]))
    longer = replace(config, resume=True, learning_rate=[*RATES, 2e-2], strategies=config.strategies)
    printed = work(longer)
    assert len(printed) == 2 and all(line.startswith("chosen: seed 0") for line in printed)
    assert {folder: (folder / "record.jsonl").read_bytes() for folder in before} == before
    homes = {job.home for job in make_jobs(longer) if job.rates}
    assert all((home / "model" / "model.safetensors").is_file() for home in homes)
    assert all(json.loads((home / "job.json").read_text())["rates"] == longer.learning_rate for home in homes)


@pytest.mark.parametrize(
    "rate, error",
    [
        ([], "must be positive"),
        ([1e-3, 0.0], "must be positive"),
        ([1e-3, float("inf")], "must be positive"),
        ([1e-3, 1e-3], "distinct"),
        ({"ce": 1e-3}, r"name the branches \['ce', 'pass@16'\], got \['ce'\]"),
        ({"ce": 1e-3, "pass@16": -1.0}, "must be positive"),
    ],
)
def test_rates_that_cannot_work_are_errors(rate, error):
    with pytest.raises(ConfigError, match=error):
        checked(TrainConfig(learning_rate=rate))


def test_rates_need_prompts_and_a_value_that_choose():
    with pytest.raises(DataError, match="takes two at least"):
        checked(TrainConfig(learning_rate=[1e-3, 1e-4], data=DataConfig(test_limit=1)))
    with pytest.raises(ConfigError, match="set eval_rollouts"):
        checked(TrainConfig(method="grpo", strategies=["maj@8"], learning_rate=[1e-3, 1e-4]))


def test_a_rate_of_each_branch_and_a_list_of_one():
    own = checked(TrainConfig(strategies=["pass@4"], learning_rate={"pass@4": 1e-3, "ce": 2e-3}, warm_steps=1))
    found = [(job.branch, job.learning_rate, job.rates) for job in make_jobs(own)]
    assert found == [("warm", 2e-3, ()), ("ce", 2e-3, ()), ("pass@4", 1e-3, ())]
    one = make_jobs(checked(TrainConfig(learning_rate=[1e-3])))
    assert [(job.folder.name, job.rates) for job in one] == [("warm", ()), ("ce", ()), ("pass@16", ())]
    several = make_jobs(checked(TrainConfig(learning_rate=[3e-3, 1e-3], warm_steps=1)))
    assert several[0].learning_rate == 3e-3 and [j.folder.name for j in several[1:3]] == ["rate_0.003", "rate_0.001"]
