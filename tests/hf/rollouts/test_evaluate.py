"""Evaluation of rollouts that a user has: the numbers, and what bad files get."""

import dataclasses
import itertools
import json
import re

import pytest
import torch

from operant.core.checks import DataError, OperantError
from operant.core.record import append_record, read_records
from operant.hf.config import EvaluateConfig
from operant.hf.rollouts.evaluate import evaluate


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


@pytest.mark.parametrize("verifier", ["math", "exact", "regex:(.+)"])
def test_targets_that_are_numbers_or_have_spaces_around_them_are_cleaned(tmp_path, verifier):
    rows = [
        {"prompt": "a", "target": 7, "completion": "7"},
        {"prompt": "a", "target": 7.0, "completion": "8"},
        {"prompt": "b", "target": " 7\n", "completion": "7"},
        {"prompt": "b", "target": 0.5, "completion": " 0.5"},
    ]
    source = write(tmp_path / "r.jsonl", rows)
    found = evaluate(EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=source, verifier=verifier))
    assert [row["reward"] for row in read_records(found / "rollouts.jsonl")] == [1, 0, 1, 1]
    rows[2]["target"] = {"ground_truth": "7"}
    source = write(tmp_path / "s.jsonl", rows)
    with pytest.raises(DataError, match="rollout 3, target: expected the correct answer as a text"):
        evaluate(EvaluateConfig(output_dir=tmp_path / "b", rollouts_file=source, verifier=verifier))


def test_rewards_that_are_not_binary_leave_pass_at_k_out(tmp_path, capsys):
    rows = [{"prompt": "a", "reward": r} for r in (0.5, 0.2, 0.9)]
    config = EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=write(tmp_path / "r.jsonl", rows), budgets=[1, 3])
    (found,) = values(evaluate(config))
    assert found == {"best@1": pytest.approx(1.6 / 3), "best@3": pytest.approx(0.9)}
    printed = capsys.readouterr().out
    assert "pass@N is left out" in printed and "maj@N is left out" in printed


def test_any_strategy_names_a_family(tmp_path):
    """Quorum of 2 of 3 and all of 2, over the subsets of three votes; a mixture has its own budgets."""
    answers = ["a", "a", "b"]
    rows = [{"prompt": 1, "reward": float(a == "a"), "answer": a} for a in answers]
    families = ["pass^", "quorum@3:2", "mix(pass@1:0.5, pass@3:0.5)", "threshold@2:2"]
    source = write(tmp_path / "r.jsonl", rows)
    config = EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=source, budgets=[2, 3], families=families)
    (found,) = values(evaluate(config))
    pairs = [set(p) for p in itertools.combinations(answers, 2)]
    both = sum(p == {"a"} for p in pairs) / 3
    assert found == {
        "pass^2": pytest.approx(both),
        "pass^3": 0,
        "quorum@2:2": pytest.approx(both),
        "quorum@3:2": pytest.approx(1),
        "mix(pass@1:0.5, pass@3:0.5)": pytest.approx((2 / 3 + 1) / 2),
        "threshold@2:2": pytest.approx(both),
        "threshold@3:2": 1,
    }
    with pytest.raises(OperantError, match="nonsense"):
        evaluate(EvaluateConfig(output_dir=tmp_path / "b", rollouts_file=source, families=["nonsense"]))
    assert not (tmp_path / "b").exists()


def test_a_verifier_of_ones_own_sees_the_info_of_the_rollouts(tmp_path, monkeypatch):
    (tmp_path / "my_grader.py").write_text(
        "def grade(completion, target, *, unit):\n    return completion == target + unit, completion or None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [
        {"prompt": i, "target": "3", "completion": text, **({"info": {"unit": "m"}} if i else {})}
        for i, text in enumerate(["3m", "3m", "3"])
    ]
    source = write(tmp_path / "r.jsonl", rows)
    folder = evaluate(EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=source, verifier="my_grader.grade"))
    scored = read_records(folder / "rollouts.jsonl")
    assert [(r["reward"], r["answer"], r["failure"]) for r in scored] == [
        (None, None, "TypeError"),
        (1.0, "3m", ""),
        (0.0, "3", ""),
    ]
    (warning,) = [r["text"] for r in read_records(folder / "record.jsonl") if r["kind"] == "warning"]
    assert "1 of 3 completions could not be verified (TypeError)" in warning


def test_a_reward_model_scores_and_best_of_n_chooses_by_it(tmp_path):
    """The scores are those of the model on one text at a time."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig
    from transformers import LlamaForSequenceClassification as Model

    from operant.hf.rollouts.policy import load_policy

    tokenizer = load_policy("embedded", seed=0, device="cpu").tokenizer
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    made = Model(LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes))
    made.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"prompt": 7, "text": "2*3=", "target": "6", "completion": text} for text in ("6", "5", "66", "7")]
    source = write(tmp_path / "r.jsonl", rows)
    config = EvaluateConfig(
        output_dir=tmp_path / "a",
        rollouts_file=source,
        verifier="exact",
        reward_model=str(tmp_path / "model"),
        budgets=[4],
    )
    folder = evaluate(config)
    scores = [r["score"] for r in read_records(folder / "rollouts.jsonl")]
    model: Model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")
    alone = [model(**tokens("2*3=" + r["completion"], return_tensors="pt")).logits.item() for r in rows]
    assert scores == pytest.approx(alone, abs=1e-5) and len(set(scores)) == 4
    assert values(folder)[0]["best@4"] == float(scores.index(max(scores)) == 0)
    write(source, [{k: v for k, v in r.items() if k != "text"} for r in rows])
    with pytest.raises(DataError, match="reward_model scores a text"):
        evaluate(dataclasses.replace(config, output_dir=tmp_path / "b"))


@pytest.mark.parametrize(("finished", "said"), [([0, 0, 1], True), ([0, 1], False), ([None, 0], True), ([None], False)])
def test_completions_that_are_mostly_cut_are_warned_of(tmp_path, capsys, finished, said):
    rows = [{"prompt": 0, "reward": 1, **({} if f is None else {"finished": bool(f)})} for f in finished]
    folder = evaluate(EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=write(tmp_path / "r.jsonl", rows)))
    texts = [r["text"] for r in read_records(folder / "record.jsonl") if r["kind"] == "warning"]
    known = [f for f in finished if f is not None]
    text = f"{known.count(0)} of {len(known)} completions"
    assert [t.startswith(text) and "were cut at their limit" in t for t in texts] == [True] * said
    assert (text in capsys.readouterr().out) == said


def test_an_evaluation_is_not_overwritten(tmp_path):
    config = EvaluateConfig(
        output_dir=tmp_path / "a", rollouts_file=write(tmp_path / "r.jsonl", [{"prompt": 1, "reward": 1}])
    )
    evaluate(config)
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.name != ".lock"}
    with pytest.raises(DataError, match="holds a run of operant evaluate already. .* or --resume true to continue"):
        evaluate(config)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.name != ".lock"}


def test_a_finished_evaluation_that_is_resumed_is_told_so(tmp_path, capsys):
    source = write(tmp_path / "r.jsonl", [{"prompt": 1, "reward": 1}])
    config = EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=source)
    evaluate(config)
    (tmp_path / "a" / "sampling.jsonl").touch()  # killed before it was removed
    evaluate(dataclasses.replace(config, resume=True))
    assert "is finished: nothing is left to do" in capsys.readouterr().out
    assert [r["kind"] for r in read_records(tmp_path / "a" / "record.jsonl")].count("evaluation") == 1
    assert not (tmp_path / "a" / "sampling.jsonl").exists()


@pytest.mark.parametrize("last", ["warning", "evaluation", "done"])
def test_an_evaluation_killed_before_its_last_file_has_every_record_once(tmp_path, monkeypatch, last):
    source = write(
        tmp_path / "r.jsonl", [{"prompt": 1, "reward": 1}, {"prompt": 1, "reward": None, "failure": "timeout"}]
    )
    config = EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=source)

    def dying(path, kind, **fields):
        append_record(path, kind, **fields)
        if kind == last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("operant.hf.rollouts.evaluate.append_record", dying)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config)
    evaluate(dataclasses.replace(config, resume=True))
    kinds = [r["kind"] for r in read_records(tmp_path / "a" / "record.jsonl")]
    assert kinds == ["run", "environment"] * 2 + ["warning", "evaluation", "done"]
    assert values(tmp_path / "a")[0]["pass@1"] == 0.5


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"prompt": 1, "reward": 1}, {"prompt": 2, "reward": 0}, {"prompt": 2, "reward": 0}], "as many rollouts"),
        ([{"prompt": 1, "reward": None}], "reward must be a finite number, got None"),
        ([{"prompt": 1, "reward": "high"}], "reward must be a finite number, got 'high'"),
        ([{"prompt": 1, "completion": "x"}], "neither a reward nor a target"),
        ([{"prompt": 1, "reward": 1, "score": 0.5}, {"prompt": 1, "reward": 0}], "some have none"),
        ([{"prompt": 1, "reward": float("nan")}], "must be a finite number, got nan"),
    ],
)
def test_bad_rollouts_are_refused_with_the_reason(tmp_path, rows, message):
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(OperantError, match=re.escape(message)):
        evaluate(EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=source))
