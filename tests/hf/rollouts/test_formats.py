"""Rollouts of other libraries: what is read of each format, which one a file has, and what bad files get."""

import dataclasses
import gzip
import json
import re
from typing import get_args

import pandas as pd
import pytest

from operant.core.checks import DataError, OperantError
from operant.core.record import read_records
from operant.hf.config import EvaluateConfig
from operant.hf.rollouts.evaluate import evaluate
from operant.hf.rollouts.formats.read import FORMATS, check_answered, read_rollouts, with_answers
from operant.hf.rollouts.formats.settings import FormatName, ReadConfig
from operant.hf.rollouts.plan import plan
from operant.hf.rollouts.prompts import DataConfig, read_prompts
from operant.hf.rollouts.rows import outcomes_of, verify_rows
from tests.hf.rollouts.format_examples import (
    ANSWERS,
    EXAMPLES,
    NAN,
    QUESTIONS,
    REWARDS,
    TARGETS,
    lines,
    lm_eval,
    openai,
    own,
    said,
    trl,
    verl,
)


def read(tmp_path, rows, **settings):
    return read_rollouts(lines(tmp_path / "r.jsonl", rows), ReadConfig(**settings))


def column(found, name):
    """The values of a column, prompt by prompt."""
    groups = {}
    for row in found.rows:
        groups.setdefault(row["prompt"], []).append(row.get(name))
    return list(groups.values())


def test_the_names_of_the_setting_are_those_of_the_formats():
    assert set(get_args(FormatName)) == {"auto", *FORMATS} and set(FORMATS) == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_is_read_as_what_it_is(tmp_path, name):
    rows = EXAMPLES[name]()
    auto, chosen = read(tmp_path, rows), read(tmp_path, rows, format=name)
    assert auto == chosen and auto.said.startswith(f"{FORMATS[name].title}: 3 prompts x 2 samples")
    completions = sorted(row["completion"] for row in auto.rows)
    assert completions == sorted(said(i, j) for i in range(3) for j in range(2))
    for other in set(EXAMPLES) - {name, *(["operant"] if name == "trl" else [])}:
        with pytest.raises(DataError, match="row 1: expected .* found "):
            read(tmp_path, rows, format=other)


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - {"openai", "lm-eval"}))
def test_rewards_are_those_of_the_file(tmp_path, name):
    assert column(read(tmp_path, EXAMPLES[name]()), "reward") == REWARDS


@pytest.mark.parametrize("name", ["verl", "trl", "lm-eval", "openai"])
def test_verified_anew_every_format_gives_the_same_outcomes(tmp_path, name):
    """The rewards are those of the file, by another road: the completion against the target."""
    found = read(tmp_path, EXAMPLES[name](), metric="verify").rows
    if name == "openai":
        source = lines(tmp_path / "q.jsonl", [{"n": f"q{i}", "q": q, "a": TARGETS[i]} for i, q in enumerate(QUESTIONS)])
        prompts = read_prompts(DataConfig(train=str(source), prompt="q", target="a", id="n"))
        found, _ = with_answers(found, source, prompts)
        found.sort(key=lambda row: row["prompt"])
    _, outcomes = outcomes_of(verify_rows(found, "exact" if name == "lm-eval" else "regex:#### (.+)"))
    assert outcomes.reward.tolist() == REWARDS and outcomes.answer.tolist() == [[0, 1], [0, 0], [0, 1]]


def test_formats_in_files_of_other_kinds(tmp_path):
    packed, table = tmp_path / "r.jsonl.gz", tmp_path / "completions_00005.parquet"
    packed.write_bytes(gzip.compress(lines(tmp_path / "r.jsonl", verl()).read_bytes()))
    assert read_rollouts(packed, ReadConfig()) == read(tmp_path, verl())
    pd.DataFrame(trl()).to_parquet(table)  # as TRL writes it
    assert read_rollouts(table, ReadConfig()) == read(tmp_path, trl())


def test_verl_reads_the_answer_and_prefers_acc(tmp_path):
    found = read(tmp_path, verl())
    assert found.said == "verl: 3 prompts x 2 samples, metric acc (also score: --metric)"
    assert column(found, "answer") == ANSWERS and found.rows[0]["text"] == "user\n2+2=\nassistant\n"
    scores = read(tmp_path, [{k: v for k, v in row.items() if k not in ("acc", "gts", "pred")} for row in verl()])
    assert column(scores, "reward") == [[2 * r - 1 for r in row] for row in REWARDS] and "answer" not in scores.rows[0]
    assert column(read(tmp_path, verl(pred=["[INVALID]", "5", "", "2", "3", "2"])), "answer")[:2] == [
        [None, "5"],
        [None, "2"],
    ]
    assert "steps 1 to 6, between which the model changed" in read(tmp_path, verl(step=[1, 2, 3, 4, 5, 6])).said
    # One text with two right answers is two prompts.
    assert len(column(read(tmp_path, verl(gts=["4", "4", "2", "2", "2.5", "25"])), "reward")) == 4


def test_trl_takes_the_first_reward_and_a_missing_one_is_a_failure(tmp_path):
    found = read(tmp_path, trl(accuracy_reward=[1.0, NAN, None, 1.0, 0.0, 0.0]))
    assert "metric accuracy_reward (also format_reward: --metric)" in found.said
    assert [row["failure"] for row in found.rows if row["reward"] is None] == ["no accuracy_reward"] * 2
    assert found.rows[0]["text"] == [{"role": "user", "content": "2+2="}]
    assert column(found, "answer")[0] == ["[4]", "[5]"]
    assert column(read(tmp_path, trl(), metric="format_reward"), "reward") == [[0.5, 0.5]] * 3
    texts = [{**row, "prompt": row["prompt"][0]["content"], "completion": "4"} for row in trl()]
    assert read(tmp_path, texts).rows[0]["completion"] == "4"
    bare = [{k: v for k, v in row.items() if not k.endswith("_reward")} for row in trl()]
    with pytest.raises(DataError, match="expected a column of rewards"):
        read(tmp_path, bare)


def test_lm_eval_with_one_response_takes_its_metric(tmp_path):
    found = read(tmp_path, lm_eval(repeats=False))
    assert found.said == (
        "lm-evaluation-harness: 3 prompts x 2 samples, filter strict-match (also flexible-extract: --filter), "
        "metric exact_match (also other: --metric)"
    )
    assert column(found, "reward") == REWARDS and column(found, "answer") == ANSWERS
    assert found.rows[0]["text"] == QUESTIONS[0]
    other = read(tmp_path, lm_eval(repeats=False), filter="flexible-extract", metric="other")
    assert column(other, "answer")[0] == ["4.0", "5.0"] and column(other, "reward")[0] == [0.25, 0.25]
    old = [{k: v for k, v in row.items() if k not in ("filter", "metrics")} for row in lm_eval(repeats=False)[:6]]
    assert column(read(tmp_path, old), "reward") == REWARDS and "answer" not in read(tmp_path, old).rows[0]


def test_lm_eval_with_repeats_has_one_metric_for_all_so_samples_are_verified(tmp_path):
    found = read(tmp_path, lm_eval())
    assert "exact_match is one number a prompt, so the samples are verified" in found.said
    assert column(found, "extracted") == ANSWERS and column(found, "reward")[0] == [None, None]
    # A filter that keeps one of the responses says nothing of the others: what is verified is the response.
    first = [{**row, "filtered_resps": [row["filtered_resps"][0][0]]} for row in lm_eval()]
    assert "extracted" not in read(tmp_path, first).rows[0]
    _, outcomes = outcomes_of(verify_rows(read(tmp_path, first).rows, "regex:#### (.+)"))
    assert outcomes.reward.tolist() == REWARDS
    listed = [{**row, "exact_match": REWARDS[row["doc_id"]]} for row in lm_eval()]
    assert column(read(tmp_path, listed), "reward") == REWARDS


def test_lm_eval_of_code_knows_how_many_samples_pass_and_not_which(tmp_path):
    rows = [{**row, "metrics": ["pass@1"], "pass@1": sum(REWARDS[row["doc_id"]]) / 2} for row in lm_eval()]
    found = read(tmp_path, rows)
    assert column(found, "reward") == REWARDS and "completion" not in found.rows[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resps": [[["-1.5", "True"]], [["-2.5", "False"]]]}, "row 2: expected resps .*multiple_choice"),
        ({"doc_id": 0}, "row 2: doc_id 0 is another document .* one task a file"),
        ({"resps": [[]]}, "row 2: expected resps"),
        ({"metrics": ["exact_match"], "exact_match": "high"}, "row 2: exact_match must be a finite number"),
        ({"exact_match": None}, "row 2: exact_match must be a finite number, true or false, got None"),
    ],
)
def test_lm_eval_refuses_what_is_no_sample(tmp_path, change, message):
    rows = lm_eval()
    rows[1] |= change
    with pytest.raises(DataError, match=message):
        read(tmp_path, rows)


def test_openai_reads_ends_and_log_probabilities_and_counts_failed_requests(tmp_path):
    rows = openai()
    rows[1] |= {"response": None, "error": {"code": "batch_expired", "message": "too late"}}
    found = read(tmp_path, rows)
    assert found.said == "OpenAI batch: 2 prompts x 2 samples, no rewards, failed requests, left out: 1 (batch_expired)"
    assert [row["prompt"] for row in found.rows] == ["q2", "q2", "q1", "q1"]
    assert column(found, "finished")[0] == [True, False] and column(found, "log_p")[0] == [-1.5, -1.5]
    rows[0]["response"] = {"status_code": 429, "body": {"error": "rate"}}
    rows[2]["response"]["body"] = {"choices": [{"text": "4", "logprobs": {"token_logprobs": [-0.25]}}]}
    completions = read(tmp_path, rows)
    assert "status 429" in completions.said
    assert completions.rows == [{"prompt": "q1", "completion": "4", "tokens": 1, "log_p": -0.25}]
    content = [{"type": "output_text", "text": "4"}, {"type": "output_text", "text": "2"}]
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "content": content}]
    rows[2]["response"]["body"] = {"object": "response", "status": "completed", "output": output}
    assert read(tmp_path, rows).rows == [{"prompt": "q1", "completion": "42", "finished": True}]
    rows[2]["response"]["body"] = {"text": "4"}
    with pytest.raises(DataError, match="row 3: expected choices or output in the body"):
        read(tmp_path, rows)
    with pytest.raises(DataError, match="found 2 failed requests"):
        read(tmp_path, rows[:2])


def test_our_own_rows_stay_as_they_are_and_may_have_other_metrics(tmp_path):
    rows = [{**row, "style": 0.5, "mine": [1, "x"]} for row in own()]
    assert read(tmp_path, rows).rows == rows
    assert column(read(tmp_path, rows, metric="style"), "reward") == [[0.5, 0.5]] * 3
    assert "reward" not in read(tmp_path, rows, metric="verify").rows[0]
    with pytest.raises(DataError, match="expected one of reward, style for --metric, got 'acc'"):
        read(tmp_path, rows, metric="acc")
    with pytest.raises(DataError, match="--filter is for lm-evaluation-harness, and this is operant"):
        read(tmp_path, rows, filter="none")


def test_answers_come_from_the_data_by_the_names_of_the_prompts(tmp_path):
    source = lines(tmp_path / "q.jsonl", [{"n": f"q{i}", "q": q, "a": TARGETS[i]} for i, q in enumerate(QUESTIONS)])
    batch = lines(tmp_path / "batch.jsonl", openai())
    data = DataConfig(test=str(source), prompt="q", target="a", id="n")
    config = EvaluateConfig(output_dir=tmp_path / "a", rollouts_file=batch, data=data, verifier="regex:#### (.+)")
    folder = evaluate(config)
    rewards = {(r["prompt"], r["completion"]): r["reward"] for r in read_records(folder / "rollouts.jsonl")}
    assert rewards == {(f"q{i}", said(i, j)): REWARDS[i][j] for i in range(3) for j in range(2)}
    with pytest.raises(DataError, match="3 of 3 prompts are not in the data, such as 'q2'; the data has 0. .*: id, n"):
        evaluate(dataclasses.replace(config, output_dir=tmp_path / "b", data=dataclasses.replace(data, id="")))
    with pytest.raises(DataError, match="neither a reward nor a target. operant evaluate takes the answers from"):
        evaluate(dataclasses.replace(config, output_dir=tmp_path / "b", data=DataConfig()))
    lines(source, [{"n": "q0", "q": q, "a": "1"} for q in QUESTIONS])
    with pytest.raises(DataError, match="several rows have 'q0' in 'n'"):
        evaluate(dataclasses.replace(config, output_dir=tmp_path / "b"))


def test_unequal_numbers_are_said_and_cut_only_on_demand(tmp_path):
    found = read(tmp_path, verl()[:-1])
    assert "3 prompts x 1 to 2 samples" in found.said
    with pytest.raises(DataError, match=r"expected as many rollouts .* \{2: 2, 1: 1\} .* --per_prompt M"):
        outcomes_of(found.rows)
    cut = read(tmp_path, verl()[:-1], per_prompt=2)
    assert cut.said.endswith("prompts with fewer, left out: 1") and column(cut, "reward") == REWARDS[:2]
    assert column(read(tmp_path, verl(), per_prompt=1), "reward") == [[1.0], [1.0], [0.0]]
    with pytest.raises(DataError, match="no prompt has 3 rollouts. Lower --per_prompt"):
        read(tmp_path, verl(), per_prompt=3)
    with pytest.raises(OperantError, match="per_prompt must be an integer >= 1"):
        read(tmp_path, verl(), per_prompt=0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "expected one rollout a line, found none"),
        (
            [{"question": "x", "gold": "y"}],
            "the columns question, gold are those of no known format. Expected one of",
        ),
        ([{}], "the columns none are those of no known format"),
        (
            [*verl(), own()[0]],
            "row 7: expected input, output, score, as verl has, found prompt, completion, rew",
        ),
        ([*verl()[:2], {"input": "x", "output": "y"}], "row 3: expected score, as verl has, found input, output"),
        (verl(acc=[True, NAN, True, True, False, False]), "row 2: acc must be a finite number, true or false, got nan"),
        (
            verl(acc=[True, "yes", True, True, False, False]),
            "row 2: acc must be a finite number, true or false, got 'y",
        ),
        ([{"prompt": ["x"], "reward": 1}], "prompt must be a text or a number that names the prompt"),
        ([{"task_id": 1, "completion": "x", "passed": None}], "row 1: passed must be a finite number, true or false"),
        ([verl()[0] | openai()[0]], "are those of several formats"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_file_that_is_not_understood_says_what_was_found(tmp_path, rows, message):
    if message.endswith("several formats"):  # as many columns of either
        rows[0].pop("score")
        rows[0] |= {"doc_id": 1, "resps": [], "filtered_resps": [], "score": 1}
    with pytest.raises(DataError, match=re.escape(message)):
        read(tmp_path, rows)


def test_the_error_lists_the_columns_of_every_format(tmp_path):
    with pytest.raises(DataError) as error:
        read(tmp_path, [{"question": 1}])
    for known in FORMATS.values():
        assert all(name in str(error.value) for need in known.needs for name in need.split("|"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", b'{"prompt": 1, "reward": 1}\n{"prompt": 1, "rew', "line 2: expected a JSON object"),
        ("r.jsonl", b"[1]\n", "line 1: expected a JSON object, got list"),
        ("r.jsonl", "{}".encode("utf-16"), "UTF-16"),
        ("r.parquet", b"PAR1 cut", "expected a parquet file"),
        ("r.jsonl.gz", b"\x1f\x8b cut", "compressed with gzip"),
        ("r.jsonl", None, "expected a JSON lines file at"),
        ("r.parquet", None, "expected a JSON lines file at"),
        (".", None, "found a folder. Name one of the files in it."),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read_rollouts(tmp_path / name, ReadConfig())


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("odd", [None, 3, NAN, "x", [], {}, [[1]], {"a": [None]}, True], ids=str)
def test_odd_values_are_errors_of_the_data_and_no_crash(tmp_path, name, odd):
    """Every value of a row, one after the other."""
    for place in EXAMPLES[name]()[1]:
        rows = EXAMPLES[name]()
        rows[1][place] = odd
        try:
            found = read(tmp_path, rows).rows
            check_answered(found, tmp_path)
            outcomes_of(verify_rows(found, "exact"))
        except OperantError as error:
            assert len(str(error)) > 30


def test_plan_and_evaluate_say_what_they_read(tmp_path, capsys):
    from operant.hf.config import PlanConfig

    four = [row for row in verl() for _ in range(2)]
    source = lines(tmp_path / "r.jsonl", four)
    plan(PlanConfig(source, tmp_path / "plan", metric="score"))
    evaluate(EvaluateConfig(tmp_path / "evaluation", rollouts_file=source))
    assert capsys.readouterr().out.count("verl: 3 prompts x 4 samples, metric ") == 2
    values = [r["values"]["pass@1"] for r in read_records(tmp_path / "evaluation" / "prompts.jsonl")]
    assert values == pytest.approx([0.5, 1.0, 0.0])
    saved = read_records(tmp_path / "evaluation" / "rollouts.jsonl")
    assert json.dumps(saved[0]["text"]) == json.dumps("user\n2+2=\nassistant\n") and len(saved) == 12
