"""Examples of rollouts for a page: the first prompts, with the first of their completions."""

from __future__ import annotations

from operant.hf.rollouts.rows import examples
from operant.verify import Prompt


def rows(**more):
    return [
        {"prompt": p, "target": str(p), "completion": f"{p}.{i}", "reward": float(i == 0), **more}
        for p in (5, 6, 7)
        for i in range(6)
    ]


def test_two_prompts_with_four_answers_each():
    found = examples(rows(), [Prompt(p, f"question {p}", f"right {p}") for p in (5, 6, 7)])
    assert [(e["prompt"], e["text"], e["target"]) for e in found] == [
        (5, "question 5", "right 5"),
        (6, "question 6", "right 6"),
    ]
    assert found[1]["answers"] == [{"text": f"6.{i}", "reward": float(i == 0)} for i in range(4)]


def test_rows_of_a_file_have_their_own_texts():
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2+3?"}]
    assert [e["text"] for e in examples(rows(text=talk))] == ["2+3?"] * 2
    assert [(e["text"], e["target"]) for e in examples(rows(text="why?"))] == [("why?", "5"), ("why?", "6")]
    assert [e["text"] for e in examples(rows())] == ["", ""]


def test_long_texts_are_cut_and_rows_without_a_completion_left_out():
    (found,) = examples([{"prompt": 1, "reward": 1.0}, {"prompt": 2, "completion": "a" * 999, "text": "b" * 999}])
    assert found["prompt"] == 2 and found["answers"][0]["reward"] is None
    assert len(found["text"]) == len(found["answers"][0]["text"]) == 300 and found["text"].endswith("b…")
    assert examples([{"prompt": 1, "reward": 1.0}]) == []
