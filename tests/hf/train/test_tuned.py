"""The tuned baseline: settings chosen on the other half of the prompts, against a loop; its rows in the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from operant.core.record import read_records
from operant.hf.rollouts.logprobs import answer_log_probs, log_probs_under
from operant.hf.rollouts.policy import encode, load_policy
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.train.choice.halves import cross_fitted
from operant.hf.train.choice.tuned import REFERENCE, Setting, record_temperatures, write_tuned
from operant.hf.train.job import Job
from operant.strategies import PassAt, Sampler

RATE = 1e-3
SETTINGS = [Setting(RATE, step, t) for step in (0, 10) for t in (0.5, 1.0)]


def log_p(seed: int = 0, size: int = 9) -> dict[Setting, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {s: torch.rand(size, generator=generator, dtype=torch.float64).log() for s in SETTINGS}


def contested() -> dict[Setting, torch.Tensor]:
    """Log-probabilities for which the two halves choose different settings."""
    draws = (log_p(seed) for seed in range(30))
    return next(v for v in draws if len(set(cross_fitted(v, 3, torch.exp)[1])) == 2)


def test_every_prompt_has_its_value_at_the_setting_that_the_others_chose():
    values = contested()
    found, chosen = cross_fitted(values, 3, torch.exp)
    halves = [next(s for s in SETTINGS if values[s][i].exp() == found[i]) for i in range(9)]
    assert set(halves) == set(chosen) and len(set(chosen)) == 2
    for setting, other in (chosen, chosen[::-1]):
        mine = [i for i in range(9) if halves[i] == other]
        means = {s: values[s].exp()[mine].mean().item() for s in SETTINGS}
        assert setting == max(means, key=lambda s: means[s])


def test_a_prompt_has_no_say_in_its_own_setting():
    values = contested()
    found, chosen = cross_fitted(values, 3, torch.exp)
    mine = [i for i in range(9) if found[i] == values[chosen[0]][i].exp()]
    for i in mine:
        poisoned = {s: v.clone() for s, v in values.items()}
        for k, v in enumerate(poisoned.values()):
            v[i] = -50.0 * (k != 1)
        assert cross_fitted(poisoned, 3, torch.exp)[1][0] == chosen[0]


def test_rows_are_written_beside_the_baseline(tmp_path: Path):
    job = Job(tmp_path / "ce", 3, "ce", "pass@1", "branch", "sft", 10, RATE, None)
    job.folder.mkdir()
    values, ids = log_p(), [str(i) for i in range(9)]
    assert not write_tuned([job], ids, [PassAt(1)])
    for step in (0, 10):
        record_temperatures(job.folder, step, {t: values[Setting(RATE, step, t)] for t in (0.5, 1.0)})
    assert write_tuned([job], ids, [PassAt(1), PassAt(16)])
    for name, role, settings in (("best_T", REFERENCE, SETTINGS[2:]), ("best_step_and_T", "branch", SETTINGS)):
        folder = tmp_path / f"ce_{name}"
        about = json.loads((folder / "job.json").read_text())
        assert (about["role"], about["baseline"]) == (role, role == "branch")
        rows = read_records(folder / "prompts.jsonl")
        admitted = {s: values[s] for s in settings}
        for metric, s in (("pass@1", PassAt(1)), ("pass@16", PassAt(16))):
            expected, chosen = cross_fitted(admitted, 3, lambda x, s=s: s.success(x).log_s.exp())
            assert [r["values"][metric] for r in rows] == pytest.approx(expected.tolist())
            (said,) = [r for r in read_records(folder / "record.jsonl") if r.get("metric") == metric]
            assert [Setting(**x) for x in said["settings"]] == chosen
            assert {c.step for c in chosen} <= {s.step for s in settings}


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_several_samplers_share_a_forward_pass(top_p: float):
    policy, data = load_policy("embedded", seed=1, device="cpu"), DataConfig(test_limit=20)
    rows = encode(policy, load_prompts(data)[1], data, 32)
    samplers = [Sampler(t, top_p) for t in (0.5, 1.0, 2.0)]
    found = log_probs_under(policy, rows, samplers, batch_size=8)
    for row, sampler in zip(found, samplers, strict=True):
        assert torch.equal(row, answer_log_probs(policy, rows, batch_size=8, sampler=sampler))
    assert not torch.equal(found[0], found[1])
