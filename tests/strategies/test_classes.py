"""Answer classes from a user's equivalence."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operant.core.checks import InputError
from operant.strategies import equivalence_classes


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.integers(1, 6).flatmap(
        lambda m: st.lists(st.lists(st.none() | st.integers(0, 9), min_size=m, max_size=m), min_size=1)
    )
)
def test_two_rollouts_share_a_class_exactly_where_they_are_equivalent(answers: list[list[int | None]]) -> None:
    got = equivalence_classes(answers, lambda a, b: a % 3 == b % 3, check=True)
    assert got.dtype == torch.int64 and got.shape == (len(answers), len(answers[0]))
    for row, classes in zip(answers, got.tolist(), strict=True):
        for a, c in zip(row, classes, strict=True):
            assert (c == -1) == (a is None)
            for b, d in zip(row, classes, strict=True):
                if a is not None and b is not None:
                    assert (c == d) == (a % 3 == b % 3)
        assert sorted({c for c in classes if c >= 0}) == list(range(len({a % 3 for a in row if a is not None})))


def test_each_distinct_answer_is_compared_with_one_of_each_class() -> None:
    calls: list[tuple[Any, Any]] = []

    def same(a: str, b: str) -> bool:
        calls.append((a, b))
        return Fraction(a) == Fraction(b)

    row = ["1/2", "0.5", "1/2", None, "2", "0.5", "4/2", "1/2"]
    assert equivalence_classes([row], same).tolist() == [[0, 0, 0, -1, 1, 0, 1, 0]]
    assert calls == [("1/2", "0.5"), ("1/2", "2"), ("1/2", "4/2"), ("2", "4/2")]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.none() | st.sampled_from("abc"), min_size=1))
def test_without_an_equivalence_answers_are_compared_by_equality(row: list[str | None]) -> None:
    assert torch.equal(equivalence_classes([row]), equivalence_classes([row], lambda a, b: a == b))


def test_equality_needs_a_hash() -> None:
    with pytest.raises(InputError, match="answers must be hashable: .* Give equivalent="):
        equivalence_classes([[[1], [1]]])


def test_answers_that_do_not_hash_and_answers_of_other_types() -> None:
    shared = [1, 2]
    got = equivalence_classes([[shared, [2, 1], shared, [3], None]], lambda a, b: sorted(a) == sorted(b))
    assert got.tolist() == [[0, 0, 0, 1, -1]]
    assert equivalence_classes([[1, True, 1.0]], lambda a, b: type(a) is type(b)).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("same", "message"),
    [
        (lambda a, b: a < b, "not reflexive: 1 is not equivalent to itself"),
        (lambda a, b: a <= b, r"not symmetric: equivalent\(1, 2\) holds and equivalent\(2, 1\) does not"),
        (lambda a, b: abs(a - b) <= 1, "not transitive: 1 ~ 2 and 2 ~ 3, but not 1 ~ 3"),
    ],
)
def test_what_is_no_equivalence_is_named(same: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        equivalence_classes([[5, 5, None], [1, 2, 3]] if "reflexive" not in message else [[1, 2]], same, check=True)


def test_a_function_that_fails_is_reported_with_the_answers() -> None:
    with pytest.raises(InputError, match=r"equivalent\('1', 'x'\) must return a bool, but raised ValueError: Invalid"):
        equivalence_classes([["1", "x"]], lambda a, b: Fraction(a) == Fraction(b))


@pytest.mark.parametrize("answers", [[], [[]], [["1"], ["1", "2"]]], ids=str)
def test_prompts_need_the_same_number_of_answers(answers: list[list[str]]) -> None:
    with pytest.raises(InputError, match="the same number M >= 1 of answers"):
        equivalence_classes(answers, lambda a, b: a == b)
