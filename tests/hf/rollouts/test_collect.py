"""The one road from prompts to verified and scored rows."""

import pytest
import torch

from operant.core.checks import BudgetError, DataError
from operant.hf.rollouts import collect
from operant.hf.rollouts.collect import Collector, sampled
from operant.hf.rollouts.policy import encode, load_policy
from operant.hf.rollouts.prompts import DataConfig
from operant.hf.rollouts.rows import failed, outcomes_of, warnings_of
from operant.hf.rollouts.sampling import RolloutSettings
from operant.verify import Prompt, Verdict

SETTINGS = RolloutSettings(rollouts=3, max_new_tokens=3, batch_size=2, seed=5)


@pytest.fixture(scope="module")
def asked():
    policy = load_policy("embedded", seed=1, device="cpu")
    prompts = [Prompt(f"q{i}", f"{i}*{i}=", str(i * i)) for i in range(7)]
    return policy, prompts, encode(policy, prompts, DataConfig(), 64)


def graded(prompts, texts):
    """Even lengths are right; a text that begins with 1 cannot be graded."""
    return [
        Verdict(None, None, "crash") if t[:1] == "1" else Verdict(float(len(t) % 2 == 0), f"{p.id} {t}")
        for p, t in zip(prompts, texts, strict=True)
    ]


def length(questions, completions):
    return [float(len(c)) for c in completions]


def test_rows_are_what_was_sampled_verified_and_scored(asked):
    policy, prompts, encoded = asked
    policy.model.train()
    rows = Collector(SETTINGS, graded, length)(policy, prompts, encoded)
    assert policy.model.training
    plain = [row for chunk in sampled(policy, prompts, encoded, SETTINGS) for row in chunk]
    assert [row["prompt"] for row in rows] == [p.id for p in prompts for _ in range(3)]
    for row, before in zip(rows, plain, strict=True):
        (verdict,) = graded([Prompt(row["prompt"], "", "")], [row["completion"]])
        assert row == {**before, **vars(verdict), "score": float(len(row["completion"]))}
    scores = Collector(SETTINGS, None, length)(policy, prompts, encoded)
    assert [row["reward"] for row in scores] == [row["score"] for row in rows]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_that_share_the_prompts_get_the_rows_of_one(asked, monkeypatch, world):
    """Seven prompts in four chunks: the last chunk is short, and of five processes one has none."""
    whole, shares = Collector(SETTINGS, graded, length)(*asked), []
    for rank in range(world):
        monkeypatch.setattr(collect, "_rank_and_world", lambda rank=rank: (rank, world))
        monkeypatch.setattr(collect.dist, "all_gather_object", lambda out, mine: shares.append(mine))
        Collector(SETTINGS, graded, length)(*asked)
    monkeypatch.setattr(collect.dist, "all_gather_object", lambda out, mine: out.__setitem__(slice(None), shares))
    assert sum(map(len, shares)) == len(whole) and min(map(len, shares)) == {2: 9, 3: 6, 5: 0}[world]
    assert Collector(SETTINGS, graded, length)(*asked) == whole


def test_outcomes_number_the_answers_of_each_prompt():
    answers = [["a", None, "b", "a"], [1, 1.0, "1", None]]
    rows = [{"prompt": i, "reward": 1.0, "answer": a} for i, row in enumerate(answers) for a in row]
    ids, outcomes = outcomes_of(rows)
    assert ids == [0, 1] and outcomes.score is None
    assert outcomes.answer.tolist() == [[0, -1, 1, 0], [0, 0, 1, -1]]
    assert torch.equal(outcomes.reward, torch.ones(2, 4, dtype=torch.float64))
    with pytest.raises(DataError, match="as many rollouts for every prompt"):
        outcomes_of(rows[1:])


def test_warnings_name_what_was_cut_and_what_failed():
    rows = [{"finished": False, "failure": "crash"}, {"finished": False}, {"finished": True}, {"finished": None}]
    cut, lost = warnings_of(rows, "6 tokens")
    assert cut.startswith("2 of 3 completions (67 %) were cut at 6 tokens") and failed(rows) == {"crash": 1}
    assert lost == "1 of 4 completions could not be verified (crash); they count as wrong."
    assert warnings_of(rows[2:], "6 tokens") == []


@pytest.mark.parametrize("name", ["rollouts", "max_new_tokens", "batch_size"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(BudgetError, match=name):
        RolloutSettings(**({"rollouts": 1, "max_new_tokens": 1, "batch_size": 1} | {name: 0}))
