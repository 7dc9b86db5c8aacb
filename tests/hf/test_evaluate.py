"""Evaluation of rollouts that a user has: the numbers, and what bad files get."""

import json
import re

import pytest

from operant.core.checks import DataError, OperantError
from operant.core.record import read_records
from operant.hf.config import EvaluateConfig
from operant.hf.evaluate import evaluate


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def values(folder):
    return [r["values"] for r in read_records(folder / "prompts.jsonl")]


def test_a_proxy_score_picks_and_the_reward_pays(tmp_path):
    """Best of 2 by a score that prefers the wrong answer; answers of one's own are voted on as they are."""
    rows = [
        {"prompt": "a", "reward": 1, "score": 0.1, "answer": "72"},
        {"prompt": "a", "reward": 0, "score": 0.9, "answer": "71"},
        {"prompt": "a", "reward": 1, "score": 0.2, "answer": "72"},
    ]
    config = EvaluateConfig(
        output_dir=tmp_path / "a", rollouts_file=write(tmp_path / "r.jsonl", rows), budgets=[1, 2, 3]
    )
    (found,) = values(evaluate(config))
    assert found["best@2"] == pytest.approx(1 / 3) and found["best@3"] == 0
    assert found["pass@2"] == 1 and found["maj@3"] == pytest.approx(1)
    assert found["maj@2"] == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_rewards_that_are_not_binary_leave_pass_at_k_out(tmp_path, capsys):
    rows = [{"prompt": "a", "reward": r} for r in (0.5, 0.2, 0.9)]
    config = EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=write(tmp_path / "r.jsonl", rows), budgets=[1, 3])
    (found,) = values(evaluate(config))
    assert found == {"best@1": pytest.approx(1.6 / 3), "best@3": pytest.approx(0.9)}
    printed = capsys.readouterr().out
    assert "pass@k is left out" in printed and "maj@k is left out" in printed


def test_an_evaluation_is_not_overwritten(tmp_path):
    config = EvaluateConfig(
        output_dir=tmp_path / "a", rollouts_file=write(tmp_path / "r.jsonl", [{"prompt": 1, "reward": 1}])
    )
    evaluate(config)
    with pytest.raises(DataError, match="holds an evaluation already"):
        evaluate(config)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"prompt": 1, "reward": 1}, {"prompt": 2, "reward": 0}, {"prompt": 2, "reward": 0}], "as many rollouts"),
        ([{"prompt": 1, "reward": None}], "reward is None"),
        ([{"prompt": 1, "reward": "high"}], "reward is 'high'"),
        ([{"prompt": 1, "completion": "x"}], "expected ['target']"),
        ([{"prompt": 1, "reward": 1, "score": 0.5}, {"prompt": 1, "reward": 0}], "some have none"),
        ([{"prompt": 1, "reward": float("nan")}], "must be finite"),
    ],
)
def test_bad_rollouts_are_refused_with_the_reason(tmp_path, rows, message):
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(OperantError, match=re.escape(message)):
        evaluate(EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=source))
