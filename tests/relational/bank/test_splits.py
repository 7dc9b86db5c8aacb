"""Splits hold out what they say, and a task is what it does, not what it is called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from operant.core.checks import DataError
from operant.relational.bank.families import FAMILIES
from operant.relational.bank.primitives import KINDS, composed, polynomials, primitive_params
from operant.relational.bank.splits import Split, ahead, assert_no_leak, combination, order, outer, position
from operant.relational.bank.tasks import TaskBank

X = np.linspace(0, 1, 12)


def lines(slopes: list[float], labels: list[dict[str, object]] | None = None) -> TaskBank:
    return TaskBank.from_callables([lambda x, a=a: a * x for a in slopes], X, labels=labels)


def renamed(bank: TaskBank, stem: str) -> TaskBank:
    return replace(bank, tasks=tuple(replace(t, key=f"{stem}{i}") for i, t in enumerate(bank.tasks)))


def test_order_holds_out_every_higher_order() -> None:
    bank = polynomials([1, 5, 2, 9, 3, 9, 8], rng=np.random.default_rng(0))
    split = order(bank, above=8)
    assert [t.labels["order"] for t in split.train.tasks] == [1, 5, 2, 3, 8]
    assert [t.labels["order"] for t in split.test.tasks] == [9, 9] and split.test.keys == (3, 5)
    assert "order above 8" in split.why


def test_a_known_task_that_is_a_held_out_one_in_disguise_is_left_out() -> None:
    bank = lines([1, 2, 3, 4, 2.0 + 1e-9], [{"order": n} for n in (1, 1, 1, 9, 9)])
    split = order(bank, above=8)
    assert split.train.keys == (0, 2) and split.test.keys == (3, 4)
    assert "1 known task" in split.why


def test_combinations_are_held_out_by_behavior() -> None:
    parts = {"double": 2.0, "triple": 3.0, "same": 1.0}
    pairs = [(f, g) for f in parts for g in parts]
    bank = lines([parts[f] * parts[g] for f, g in pairs], [{"f": f, "g": g} for f, g in pairs])
    held = [("double", "triple"), ("same", "same")]
    split = combination(bank, of=("f", "g"), held=held)
    assert [(t.labels["f"], t.labels["g"]) for t in split.test.tasks] == held
    known = {(t.labels["f"], t.labels["g"]) for t in split.train.tasks}
    assert known == set(pairs) - {*held, ("triple", "double")}  # commutes: the same task under another name


def test_compositions_of_primitives_split_by_their_kinds() -> None:
    rng = np.random.default_rng(0)
    kinds = [(f, g) for f in KINDS for g in KINDS for _ in range(2)]
    stages = [primitive_params([k[i] for k in kinds], rng) for i in (1, 0)]
    x = np.linspace(-5, 5, 40)[:, None]
    bank = TaskBank.from_arrays(
        [(x, y) for y in composed(stages, x)], labels=[{"outer": f, "inner": g} for f, g in kinds]
    )
    split = combination(bank, of=("outer", "inner"), held=[("tanh", "sin")])
    assert len(split.test) == 2 and len(split.train) == 16


@pytest.mark.parametrize("shift", [0.0, 1e-5])
def test_the_check_names_both_tasks_within_the_tolerance_only(shift: float) -> None:
    known, targets = renamed(lines([1.0, 2.0]), "known "), renamed(lines([5.0, 2.0 + shift]), "target ")
    split = Split(known, targets, "by hand")
    if shift:
        assert_no_leak(split)
        with pytest.raises(DataError, match="agree"):
            assert_no_leak(split, tolerance=1e-3)
    else:
        with pytest.raises(DataError, match="'target 1' behaves as the known task 'known 1'"):
            assert_no_leak(split)


def test_the_check_names_a_key_on_both_sides() -> None:
    known, targets = renamed(lines([1.0, 2.0]), "cell "), renamed(lines([3.0, 4.0]), "cell ")
    with pytest.raises(DataError, match="'cell 0' is known and a target"):
        assert_no_leak(Split(known, targets, "by hand"))
    assert_no_leak(Split(lines([1.0, 2.0]), lines([3.0, 4.0]), "two banks that only number their tasks"))


def test_the_check_compares_where_both_are_known() -> None:
    x = np.linspace(0, 10, 41)
    bent = np.where(x > 7, x + (x - 7) ** 2, x)
    known = TaskBank.from_arrays({"a": (x[:25], x[:25]), "b": (x, -x)})
    same = TaskBank.from_arrays({"c": (x[5:], bent[5:]), "d": (x, 0 * x)})  # c leaves a where a is not known
    with pytest.raises(DataError, match="'c' behaves as the known task 'a'"):
        assert_no_leak(Split(known, same, "by hand"))
    touching = TaskBank.from_arrays({"c": (x[24:], bent[24:]), "d": (x, 0 * x)})
    assert_no_leak(Split(known, touching, "one common point"))


def test_outputs_of_different_size_count_alike() -> None:
    x = X[:, None]
    known = TaskBank.from_arrays({"a": (x, np.c_[1e6 * x, x]), "b": (x, np.c_[-1e6 * x, -x])})
    targets = TaskBank.from_arrays({"c": (x, np.c_[1e6 * x, x + 1e-3]), "d": (x, np.c_[1e6 * x**2, x])})
    assert_no_leak(Split(known, targets, "differs in the small output"))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda b: order(b, above=3), "no label 'order'"),
        (lambda b: combination(b, of=("f",), held=[("x",)]), "no label 'f'; there are: 'region'"),
        (lambda b: combination(b, of=("region",), held=[("nowhere",)]), "got 6 and 0 of 6"),
        (lambda b: combination(b, of=("region",), held=[("inner",), ("edge",)]), "got 0 and 6 of 6"),
        (lambda b: position(b, by="mass"), "no parameter 'mass'"),
    ],
)
def test_errors_say_what_is_missing(act, message: str) -> None:
    bank = FAMILIES["exp"].bank(3, 3, rng=np.random.default_rng(0))
    with pytest.raises(DataError, match=message):
        act(bank)


def test_banks_of_different_shape_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="as many inputs"):
        assert_no_leak(Split(FAMILIES["exp"].bank(rng=rng), FAMILIES["plume"].bank(rng=rng), "by hand"))


@pytest.mark.parametrize("end", ["low", "high", "both"])
def test_outer_holds_out_an_end_of_the_range(end) -> None:
    bank = FAMILIES["frequency"].bank(10, 10, rng=np.random.default_rng(0), with_params=True)
    split = outer(bank, share=0.3, end=end, by="w")
    w, held = split.train.params[:, 0], split.test.params[:, 0]
    assert len(held) == 6 and len(w) == 14
    below, above = held < w.min(), held > w.max()
    assert {"low": below, "high": above, "both": below | above}[end].all()
    assert below.sum() == {"low": 6, "high": 0, "both": 3}[end]


def test_outer_finds_the_direction_of_a_family_whose_parameters_are_unknown() -> None:
    rng = np.random.default_rng(0)
    bank = FAMILIES["quadratic"].bank(20, 20, rng=rng)
    split = outer(bank, share=0.5, end="high")
    if position(bank)[0] > position(bank)[-1]:
        split = outer(bank, share=0.5, end="low")
    assert {t.labels["region"] for t in split.test.tasks} == {"edge"}


def test_outer_needs_two_on_either_side() -> None:
    with pytest.raises(DataError, match="at least two known and two held-out"):
        outer(lines([1.0, 2.0, 3.0]))


def test_outer_tasks_are_predicted_from_the_tasks_before_every_cut() -> None:
    x = np.linspace(0, 1, 5)
    where = np.array([3.0, 0.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0])
    bank = TaskBank.from_arrays([(x, np.sin(w + x)) for w in where])
    found = [
        (sorted(where[list(known.keys)]), sorted(where[list(test.keys[:count])]))
        for known, test, count, _ in ahead(bank, where)
    ]
    assert found == [([*range(cut)], [*range(cut, 8)]) for cut in (4, 5, 6, 7)]
    assert [len(known) for known, *_ in ahead(bank, where, share=0.25)] == [6, 7]


def test_a_known_task_that_behaves_as_one_ahead_is_left_out() -> None:
    x = np.linspace(0, 1, 5)
    bank = TaskBank.from_arrays([(x, v * x) for v in (1.0, 2.0, 3.0, 4.0, 4.0, 5.0)])
    for known, test, count, _ in ahead(bank, np.arange(6.0)):
        assert not {float(t.y[-1, 0]) for t in known.tasks} & {float(t.y[-1, 0]) for t in test.tasks[:count]}
    with pytest.raises(DataError, match="at least two known and two held-out"):
        ahead(bank.select([0, 1, 2]), np.arange(3.0))
    alike = TaskBank.from_arrays([(x, v * x) for v in (1.0, 2.0, 2.0, 2.0)])
    with pytest.raises(DataError, match="differ from"):
        ahead(alike, np.arange(4.0))


def test_a_bank_of_four_is_cut_where_one_and_two_tasks_are_left() -> None:
    """outer() can only hold out two: a bank of four was known by two of its tasks, twice over."""
    x = np.linspace(0, 1, 5)
    bank = TaskBank.from_arrays([(x, v * x) for v in (1.0, 2.0, 3.0, 4.0)])
    found = [(len(known), test.keys[:count]) for known, test, count, _ in ahead(bank, np.arange(4.0))]
    assert found == [(2, (2, 3)), (3, (3,))]
