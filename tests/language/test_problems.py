"""Problems with exact answers: each against a second road."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from operant.core.checks import DataError, InputError
from operant.language import TextBank, gym_ciphers, random_words, sparse_parity, string_chains, string_programs
from operant.language.examples import RAMP, draw_examples
from operant.language.problems import PROGRAMS
from operant.language.relations import Compose

EXPECTED = {
    "identity": ("paperr", "paperr"),
    "stride": ("abcdef", "afedcb"),
    "sort": ("paper", "aeppr"),
    "reverse": ("paper", "repap"),
    "mirror": ("paper", "paperrepap"),
    "no vowels": ("paper", "ppr"),
    "upper": ("paper", "PAPER"),
    "double": ("abc", "aabbcc"),
    "vowel digits": ("aeiouxA", "12345x1"),
    "compress": ("aaabcc", "a3bc2"),
    "make even": ("paper", "pape"),
    "brackets": ("paper", "[paper]"),
    "alternate": ("paper", "PaPeR"),
    "twice": ("abc", "abcabc"),
    "prefix": ("abc", "x_abc"),
    "suffix": ("abc", "abc_y"),
    "rotate 1": ("abcd", "bcda"),
    "rotate 3": ("abcd", "dabc"),
    "caesar 1": ("azAZ-1", "baBA-1"),
    "caesar 13": ("abc", "nop"),
    "dashes": ("abc", "a-b-c"),
    "digit": ("abc", "abc1"),
    "interlace": ("abc", "acbbca"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_string_program_by_an_example(name):
    x, y = EXPECTED[name]
    assert PROGRAMS[name](x) == y


@pytest.mark.parametrize("name", PROGRAMS)
def test_string_programs_take_any_text(name):
    for x in ("", "é", "ß\n", "A", "x" * 10_000):
        assert isinstance(PROGRAMS[name](x), str)


def test_the_23_programs_behave_differently_and_have_360_distinct_products():
    bank = string_programs(64)
    assert len(bank.distinct()) == len(PROGRAMS) == 23
    outputs = {tuple(map(f, bank.probes)) for f in PROGRAMS.values()}
    products = {tuple(g(f(x)) for x in bank.probes) for f in PROGRAMS.values() for g in PROGRAMS.values()}
    assert len(products - outputs) == len(string_chains(bank).targets) == 360


def test_chains_of_three_are_none_of_two():
    functions = {n: PROGRAMS[n] for n in ("reverse", "upper", "twice")}
    bank = TextBank.from_functions(functions, random_words(32, seed=1))
    found = string_chains(bank, depth=3)
    assert all(t.order == 3 for t in found.targets)
    shorter = {t.behavior(bank.probes) for t in (*bank, *string_chains(bank).targets)}
    assert not shorter & {t.behavior(bank.probes) for t in found.targets}
    first = found.targets[0]
    x = "abcdef"
    for name in first.parts:
        x = PROGRAMS[name](x)
    assert first.output("abcdef") == x
    with pytest.raises(InputError, match="depth must be at least 2"):
        string_chains(bank, depth=1)


def test_parity_by_counting_bits():
    split = sparse_parity(5, sizes=(1, 2, 3), target=4)
    assert len(split.bank) == 5 + 10 + 10 and len(split.targets) == math.comb(5, 4)
    for task, mask in zip(split.targets, combinations(range(5), 4), strict=True):
        assert task.parts == tuple(f"bit {i}" for i in mask)
        for x, y in task.demonstrations:
            assert int(y) == sum(int(x.split()[i]) for i in mask) % 2
    with pytest.raises(InputError, match="sizes with 1"):
        sparse_parity(5, sizes=(2,), target=4)


def test_words_are_distinct_and_repeatable():
    words = random_words(200, seed=3)
    assert len(set(words)) == 200 and words == random_words(200, seed=3) != random_words(200, seed=4)
    assert {len(w) for w in words} == set(range(6, 15))


def test_ciphers_are_what_a_rotation_gives():
    split = gym_ciphers((1, 2), (3,), size=4)
    for task in (*split.bank, *split.targets):
        k = int(task.name.split()[1])
        for x, y in task.demonstrations:
            assert "".join(chr((ord(c) - 65 - k) % 26 + 65) if c.isalpha() else c for c in x) == y
    with pytest.raises(DataError, match="known and targets"):
        gym_ciphers((1, 2), (2,))


def test_examples_begin_with_short_inputs():
    bank = string_programs(200, shortest=2)
    assert len(bank.inputs) == 250 and bank.probes == string_programs(200).probes
    lessons = [x for x in Compose().lessons(bank) if not x.candidate.anchor and x.task.name == "identity"]
    found = draw_examples(Compose(), bank, lessons, count=1000, seed=0)
    sizes = [len(y) for _, y in found]
    assert max(sizes[:20]) <= 3 and max(sizes[:200]) < 14
    full = sizes[int(RAMP * 1000) :]
    assert set(full) == set(range(2, 15)) and sum(full) / len(full) == pytest.approx(8.7, abs=0.5)
    equal = TextBank.from_functions({"up": str.upper}, ["abc", "abd", "abe", "abf"])  # all are among the shortest
    lessons = Compose(depth=1).lessons(equal)
    assert len({p for p, _ in draw_examples(Compose(), equal, lessons, count=40, seed=0)[:20]}) == 4
