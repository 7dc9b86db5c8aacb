"""Prompts and verifier of reasoning-gym: every number by a second road."""

import ast
import json
import operator
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from operant.core.checks import DataError
from operant.hf.rollouts.prompts import DataConfig, gym_prompts, load_prompts
from operant.verify import Prompt, check, gym, make_verifier
from operant.verify.entries import pack, unpack
from operant.verify.pool import Pool


@pytest.fixture(scope="module")
def worker():
    pool = Pool("gym", processes=1, seconds=60)
    yield pool
    pool.close()


@pytest.fixture
def quick(monkeypatch, worker):
    """One worker for several tests: each start imports reasoning-gym."""

    class Shared:
        map = staticmethod(worker.map)
        close = staticmethod(lambda: None)

    for module in (gym, check):
        monkeypatch.setattr(module, "Pool", lambda *_, **__: Shared)


def drawn(source, seed=1):
    return gym_prompts(f"gym:{source}", (seed, None))[0]


SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def value(text):
    """Sums, differences and products, from Python's own syntax tree."""

    def of(node):
        if isinstance(node, ast.BinOp):
            return SIGNS[type(node.op)](of(node.left), of(node.right))
        if isinstance(node, ast.UnaryOp):
            return -of(node.operand)
        return node.value

    return of(ast.parse(text, mode="eval").body)


def test_a_generator_is_drawn_split_and_verified():
    source = "gym:chain_sum?size=30&seed=4&min_terms=2&max_terms=3"
    config = DataConfig(train=source, holdout=12)
    train, test = load_prompts(config)
    assert 25 < len(train) <= 30 and 10 < len(test) <= 12
    assert not {p.text for p in train} & {p.text for p in test}
    for p in train + test:
        terms = re.search(r"[-+*\d ]+(?= =)", p.text).group().strip()
        assert str(value(terms)) == p.target and len(re.findall(r" [-+] ", terms)) in (1, 2)
        assert json.loads(json.dumps(p.info)) == p.info
    said = [
        (1.0, lambda t: t),
        (1.0, lambda t: f"<answer>9</answer> no: <answer>\n{t} </answer> so"),
        (0.0, lambda t: f"the answer is {t}"),
        (0.0, lambda t: f"<answer>{int(t) + 1}</answer>"),
        (0.0, lambda t: "<answer></answer>"),
        (0.0, lambda t: ""),
    ]
    with make_verifier("gym", processes=1) as graded:
        for reward, form in said:
            verdicts = graded(test, [form(p.target) for p in test])
            assert [(v.reward, v.failure) for v in verdicts] == [(reward, "")] * len(test)
    assert [v.answer for v in verdicts] == [None] * len(test)


def test_the_same_prompts_in_every_process(monkeypatch):
    """This generator iterates over a set of texts, whose order depends on the process's hash seed."""
    found = []
    for seed in "12":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found.append([p.text for p in drawn("ransom_note?size=8")])
    assert found[0] == found[1] and len(found[0]) == 8


def test_seeds_and_sizes_of_the_source_and_of_the_call(quick):
    source = "gym:gcd?size=4&seed=9"
    own, asked = gym_prompts(source, (5, None), (5, 3))
    assert len(own) == 4 and len(asked) == 3
    assert [p.text for p in own] == [p.text for p in drawn("gcd?size=4", 9)]
    assert [p.text for p in asked] == [p.text for p in drawn("gcd?size=3", 5)] != [p.text for p in own][:3]
    with pytest.raises(DataError, match="too few different prompts"):
        load_prompts(DataConfig(train="gym:coin_flip?size=4&min_trials=3&max_trials=3", holdout=200))


def test_a_puzzle_that_keeps_no_answer_has_an_empty_target_and_a_scorer_that_raises_is_counted(quick):
    cubes, number = drawn("rubiks_cube?size=2"), drawn("prime_factorization?size=2")
    assert [p.target for p in cubes] == ["", ""]
    with make_verifier("gym", processes=1) as graded:
        verdicts = graded([*cubes, *number, *number], ["U", "F", "nonsense", "?", *(p.target for p in number)])
    assert [v.reward for v in verdicts] == [0.0, 0.0, None, None, 1.0, 1.0]
    assert [v.failure for v in verdicts] == ["", "", "ValueError", "ValueError", "", ""]


def test_tuples_come_back_from_json():
    entry = {"a": [(1, 2), ((3,), [])], "b": {"c": ()}, "d": None}
    assert unpack(json.loads(json.dumps(pack(entry)))) == entry


@pytest.mark.parametrize(
    "source, message",
    [
        ("nonesuch", "'nonesuch' not registered"),
        ("chain_sum?bogus=3", "unexpected keyword argument 'bogus'"),
        ("chain_sum?min_terms=9&max_terms=3", "max_terms must be >= min_terms"),
        ("chain_sum?size", "expected GENERATOR[?]key=value"),
        ("game_of_life_halting?size=5", "as if it were right"),
    ],
)
def test_generators_that_cannot_serve_are_refused(quick, source, message):
    with pytest.raises(DataError, match=message):
        load_prompts(DataConfig(train=f"gym:{source}", holdout=2))


def test_a_generator_that_does_not_score_its_own_answers_is_refused(monkeypatch):
    rows = [{"question": "a", "answer": "1", "entry": {}, "own": own, "junk": 0.0} for own in (1.0, 0.05)]
    monkeypatch.setattr(gym, "Pool", lambda *_, **__: SimpleNamespace(map=lambda *_: [(rows, "")], close=lambda: None))
    with pytest.raises(DataError, match="1 of 2 entries do not score their own answer 1.0, for example '1'"):
        gym.draw("gcd", (0, None))


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    for call in (lambda: gym.draw("gcd", (0, None)), lambda: make_verifier("gym")):
        with pytest.raises(DataError, match=r"pip install 'operant\[gym\]'"):
            call()


@pytest.mark.slow
def test_every_generator_but_two_scores_its_own_answers_through_the_verifier(quick):
    """The two: a composite needs its parts, and one scores nonsense as right."""
    code = "from reasoning_gym.factory import DATASETS; print(*sorted(DATASETS))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    refused, prompts = [], []
    for name in names:
        try:
            prompts += [Prompt(f"{name} {p.id}", p.text, p.target, p.info) for p in drawn(f"{name}?size=2")]
        except DataError:
            refused.append(name)
    assert refused == ["composite", "game_of_life_halting"] and len(prompts) > 190
    asked = [p for p in prompts if p.target]
    with make_verifier("gym") as graded:
        assert {v.reward for v in graded(asked, [p.target for p in asked])} == {1.0}
        wrong = graded(prompts, ["((("] * len(prompts))
    assert 1.0 not in {v.reward for v in wrong}
    assert {p.id.split()[0] for p, v in zip(prompts, wrong, strict=True) if v.failure} <= {
        "prime_factorization",
        "boxnet",
    }


@pytest.mark.slow
def test_a_composite_of_generators(quick):
    parts = [{"name": "gcd", "weight": 1, "config": {}}, {"name": "chain_sum", "weight": 2, "config": {"max_terms": 2}}]
    prompts = drawn(f"composite?size=12&datasets={json.dumps(parts)}")
    with make_verifier("gym", processes=1) as graded:
        assert [v.reward for v in graded(prompts, [p.target for p in prompts])] == [1.0] * len(prompts)
    assert {p.info["entry"]["metadata"]["source_dataset"] for p in prompts} == {"gcd", "chain_sum"}
