"""Several temperatures and several files of rollouts, compared by prompt."""

import dataclasses
import json

import pytest
import torch

from operant.core.checks import ConfigError, DataError, InputError
from operant.core.record import read_records
from operant.hf.config import EvaluateConfig, PlanConfig
from operant.hf.rollouts import policy
from operant.hf.rollouts.evaluate import evaluate as evaluate_once
from operant.hf.rollouts.plan import plan
from operant.hf.rollouts.prompts import DataConfig
from operant.hf.rollouts.sweep.run import evaluate
from operant.report import summary_table

SMALL = EvaluateConfig(
    data=DataConfig(test_limit=6), rollouts=4, max_new_tokens=4, batch_size=6, verifier="exact", families=["pass"]
)


def test_every_temperature_is_an_evaluation_and_the_nearest_to_1_is_the_baseline(tmp_path, monkeypatch):
    """The model is loaded once, and an evaluation at one temperature gives the same files."""
    loaded, load = [], policy.load_policy
    monkeypatch.setattr(policy, "load_policy", lambda *args, **settings: loaded.append(args) or load(*args, **settings))
    config = dataclasses.replace(SMALL, output_dir=tmp_path / "sweep", temperature=[0.5, 1.1, 3.0])
    folder = evaluate(config)
    assert loaded == [("embedded",)]
    alone = evaluate_once(dataclasses.replace(SMALL, output_dir=tmp_path / "alone", temperature=3.0))
    for name in ("rollouts.jsonl", "prompts.jsonl"):
        assert (folder / "temperature-3" / name).read_bytes() == (alone / name).read_bytes()
    values = [read_records(folder / f"temperature-{t}" / "prompts.jsonl")[0]["values"] for t in ("0.5", "1.1", "3")]
    assert len({v["exact pass@4"] for v in values}) == 3
    facts = [json.loads((folder / f"temperature-{t}" / "job.json").read_text()) for t in ("0.5", "1.1", "3")]
    assert [f["branch"] for f in facts] == ["T = 0.5", "T = 1.1", "T = 3"]
    assert [f["baseline"] for f in facts] == [False, True, False]
    table = summary_table(folder)
    assert all(label in table for label in ("T = 0.5", "T = 1.1", "T = 3")) and "training" not in table.split("\n")[0]
    # A sweep that was stopped goes on where it stopped, and changes nothing that is there.
    before = (folder / "temperature-0.5" / "prompts.jsonl").stat().st_mtime_ns
    (folder / "temperature-3" / "prompts.jsonl").unlink()
    evaluate(dataclasses.replace(config, resume=True))
    assert (folder / "temperature-3" / "prompts.jsonl").read_bytes() == (alone / "prompts.jsonl").read_bytes()
    assert (folder / "temperature-0.5" / "prompts.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"temperature": []}, InputError, "temperatures that differ"),
        ({"temperature": [1.0, 1.0]}, InputError, "temperatures that differ"),
        ({"temperature": [1.0, 0.0]}, InputError, "temperature > 0"),
        ({"temperature": [1.0, 2.0], "rollouts_file": "r.jsonl"}, ConfigError, "leave temperature out"),
    ],
)
def test_temperatures_that_cannot_be_compared_are_refused(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        evaluate(dataclasses.replace(SMALL, output_dir=tmp_path / "a", **settings))
    assert not (tmp_path / "a").exists()


def rollouts(path, prompts, m, rate, seed):
    generator = torch.Generator().manual_seed(seed)
    right = (torch.rand(len(prompts), m, generator=generator) < rate).double().tolist()
    rows = [{"prompt": p, "reward": r} for p, line in zip(prompts, right, strict=True) for r in line]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def curve(folder):
    return {
        p["n"]: p["value"] for r in read_records(folder / "record.jsonl") if r["kind"] == "curve" for p in r["points"]
    }


def test_a_plan_says_what_another_sampler_gains_at_what_it_recommends(tmp_path):
    """The gain is the difference of the curves of two plans; the prompts may come in another order."""
    prompts = [f"q{i}" for i in range(30)]
    here = rollouts(tmp_path / "here.jsonl", prompts, 16, 0.2, 0)
    hot = rollouts(tmp_path / "hot.jsonl", prompts[::-1], 8, 0.5, 1)
    config = PlanConfig(here, tmp_path / "plan", strategies=["pass@4"], compare=[hot], budgets=[1, 4])
    records = read_records(plan(config) / "record.jsonl")
    (text,) = [r["text"] for r in records if r["kind"] == "note"]
    (advice,) = [r for r in records if r["kind"] == "recommendation"]
    other = curve(plan(dataclasses.replace(config, rollouts=hot, compare=[], output_dir=tmp_path / "other")))
    mine = curve(tmp_path / "plan")
    assert advice["deploy"] == "pass@4"
    gains = {n: f"{100 * (other[n] - mine[n]):+.1f} points (95 % interval +" for n in (1, 4)}
    assert text.startswith(f"{hot}: pass@4 is worth {100 * other[4]:.1f} % there, {gains[4]}")
    assert f"over these rollouts; pass@1: {gains[1]}" in text
    assert text in summary_table(tmp_path / "plan")
    rollouts(hot, [*prompts[:-1], "new"], 8, 0.5, 1)
    with pytest.raises(DataError, match="the same prompts as the plan, but 'q29' is in one file only"):
        plan(dataclasses.replace(config, output_dir=tmp_path / "again"))
