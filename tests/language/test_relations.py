"""Conformance of relations: one row a relation. And what each of them offers and teaches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product

import pytest

from operant.core.checks import DataError
from operant.language import (
    Candidate,
    CannotRunError,
    Compose,
    LeakError,
    Relation,
    TextBank,
    TextTask,
    Toggle,
    sparse_parity,
    string_chains,
    string_programs,
)
from operant.language.relations import RELATIONS, BankRun, Lesson, check_candidates, relation_from

WORDS = ["abc", "hello", "xyzzy", "qrs"]
STRINGS = TextBank.from_functions({"up": str.upper, "rev": lambda x: x[::-1], "id": lambda x: x}, WORDS)
PARITY = sparse_parity(4, sizes=(1, 2), target=3)


@dataclass(frozen=True)
class Concat(Relation):
    """A user's own: both outputs, one after the other."""

    def candidates(self, bank):
        return [Candidate((a.name, b.name)) for a in bank for b in bank if a != b]

    def prompt(self, candidate, x, run):
        return f"{run(candidate.steps[0], x)}|{run(candidate.steps[1], x)}\n"

    def lessons(self, bank, held_out=()):
        return [Lesson(c, bank["both"]) for c in self.candidates(bank) if c.steps == ("up", "rev")]


CONCAT = TextBank.from_functions(
    {"up": str.upper, "rev": lambda x: x[::-1], "both": lambda x: x.upper() + x[::-1]}, WORDS
)
TABLE = {
    "Compose": (Compose(), STRINGS),
    "Compose, shots": (Compose(depth=2, shots=2), STRINGS),
    "Toggle": (Toggle(), PARITY.bank),
    "a user's own": (Concat(), CONCAT),
}
ROWS = pytest.mark.parametrize(("relation", "bank"), TABLE.values(), ids=list(TABLE))


def test_every_relation_has_a_row():
    shipped = {name for name, cls in RELATIONS.items() if cls.__module__.startswith("operant.")}
    assert shipped <= {type(relation).__name__ for relation, _ in TABLE.values()}


@ROWS
def test_candidates_are_distinct_and_of_the_bank(relation, bank):
    candidates = relation.candidates(bank)
    assert candidates and len(set(candidates)) == len(candidates)
    check_candidates(candidates, bank)


@ROWS
def test_a_prompt_is_text_and_never_the_answer(relation, bank):
    """The prompt of a lesson does not change with what the last step gives: the model has to execute it."""
    run = BankRun(bank)
    for lesson in relation.lessons(bank):
        prompts = [relation.prompt(lesson.candidate, x, run) for x, _ in bank.tasks[0].demonstrations]
        assert all(isinstance(p, str) and p for p in prompts) and len(set(prompts)) > 1


@ROWS
def test_a_lesson_is_what_it_says(relation, bank):
    """Where a relation can be executed, each lesson's candidate gives its task's output."""
    lessons = relation.lessons(bank)
    assert lessons
    for lesson in lessons:
        for x in bank.inputs:
            found = relation.value(lesson.candidate, x, BankRun(bank))
            assert found is None or found == lesson.task.output(x)


@ROWS
def test_a_candidate_is_among_those_that_are_the_same_task(relation, bank):
    candidates = relation.candidates(bank)
    assert all(c in group for c, group in zip(candidates, relation.alike(candidates, bank), strict=True))


@ROWS
def test_a_relation_survives_as_json(relation, bank):
    again = relation_from(json.loads(json.dumps(relation.asdict())))
    assert again == relation and again.candidates(bank) == relation.candidates(bank)


def test_an_unknown_relation_is_named():
    with pytest.raises(DataError, match="no relation 'Other' is defined"):
        relation_from({"name": "Other"})


@ROWS
def test_candidates_that_touch_the_test_set_are_refused(relation, bank):
    candidates = relation.candidates(bank)
    target = TextTask("target", (("abc", "cba"),), lambda x: x[::-1] + "!")
    check_candidates(candidates, bank, [target])
    with pytest.raises(LeakError, match="touches 'target', which is a test task"):
        check_candidates([*candidates, Candidate(("target",))], bank, [target])
    with pytest.raises(LeakError, match="not a task of the bank"):
        check_candidates([*candidates, Candidate(("elsewhere",))], bank)
    with pytest.raises(LeakError, match="behaves as"):
        check_candidates(candidates, bank, [TextTask("again", bank.tasks[0].demonstrations)])
    with pytest.raises(DataError, match="no candidate"):
        check_candidates([], bank)


def test_compose_drops_chains_that_behave_alike():
    names = [str(c) for c in Compose().candidates(STRINGS)]
    assert names == ["up", "rev", "id", "up > rev"]  # rev > up is the same, rev > rev and up > up are known
    unknown = TextBank((TextTask("a", (("x", "y"),)), TextTask("b", (("x", "z"),))))
    assert [str(c) for c in Compose().candidates(unknown)] == ["a", "b", "a > a", "a > b", "b > a", "b > b"]


def test_compose_knows_the_chains_that_are_one_task():
    both = [Candidate(("up", "rev")), Candidate(("rev",)), Candidate(("id", "up"))]
    found = [[str(c) for c in group] for group in Compose().alike(both, STRINGS)]
    assert found[0] == ["up > rev", "rev > up"] and found[1] == ["rev", "rev > id", "id > rev"]
    assert found[2] == ["up", "up > up", "up > id", "id > up"]
    by_behavior: dict = {}  # the slow way: every chain, by its outputs
    for steps in [s for n in (1, 2) for s in product(("up", "rev", "id"), repeat=n)]:
        outputs = tuple(Compose().value(Candidate(steps), x, BankRun(STRINGS)) for x in STRINGS.probes)
        by_behavior.setdefault(outputs, []).append(Candidate(steps))
    every = Compose().candidates(STRINGS)
    assert Compose().alike(every, STRINGS) == list(by_behavior.values())
    unknown = TextBank((TextTask("a", (("x", "y"),)), TextTask("b", (("x", "z"),))))
    every = Compose().candidates(unknown)
    assert Compose().alike(every, unknown) == [[c] for c in every]


def test_compose_offers_the_published_space():
    bank = string_programs(64)
    assert len(Compose().candidates(bank)) == 23 + len(string_chains(bank).targets)


def test_compose_shows_the_last_step_and_the_anchors_output():
    run = BankRun(STRINGS)
    assert Compose().prompt(Candidate(("up", "rev")), "abc", run) == "ABC <rev>\n"
    shown = Compose(shots=2).prompt(Candidate(("id", "rev")), "abc", run)
    assert shown == "hello <rev>\nolleh\nxyzzy <rev>\nyzzyx\nabc <rev>\n"  # never the answer itself


def test_compose_teaches_no_chain_that_is_held_out():
    target = TextTask("target", (), lambda x: x.upper()[::-1])
    taught = {str(x.candidate) for x in Compose().lessons(STRINGS, [target])}
    assert not taught & {"up > rev", "rev > up"} and {"up", "up > id", "rev > rev"} <= taught
    assert {len(x.candidate.steps) for x in Compose(depth=1).lessons(STRINGS)} == {1}


def test_a_bank_of_one_task():
    bank = TextBank.from_functions({"rev": lambda x: x[::-1]}, WORDS)
    assert [str(c) for c in Compose().candidates(bank)] == ["rev", "rev > rev"]
    with pytest.raises(DataError, match="Toggle needs the elements"):
        Toggle().candidates(bank)


def test_toggle_adds_a_bit_outside_the_anchor():
    found = Toggle().candidates(PARITY.bank)
    assert len(found) == 6 * 2 and Candidate(("parity 0 1", "bit 2")) in found
    assert not any(c.transformation[-1] in c.steps[0].split()[1:] for c in found)
    lessons = Toggle().lessons(PARITY.bank, PARITY.targets)
    assert {str(x.candidate) for x in lessons if x.task.name == "parity 0 1"} == {"bit 0 > bit 1", "bit 1 > bit 0"}
    assert Toggle().prompt(Candidate(("parity 0 1", "bit 2")), "1 1 1 0", BankRun(PARITY.bank)) == "0 + 1 =\n"


def test_the_bank_alone_runs_functions_and_demonstrations():
    run = BankRun(TextBank((TextTask("shown", (("a", "b"),)), TextTask("up", (("a", "A"),), str.upper))))
    assert run("shown", "a") == "b" and run("up", "zz") == "ZZ"
    with pytest.raises(CannotRunError, match="no function, and no demonstration of 'zz'"):
        run("shown", "zz")
