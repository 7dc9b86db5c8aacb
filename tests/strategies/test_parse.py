"""Strings that name strategies, and what is said about those that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operant import AllOf, BestOf, Majority, Mixture, PassAt, Threshold, from_function, parse
from operant.core.checks import InputError, OperantError, ParseError
from operant.strategies import Quorum, Strategy, TopVote, WeightedVote

BUDGET = st.integers(1, 10**6)
SINGLE = st.one_of(
    st.builds(PassAt, BUDGET),
    st.builds(AllOf, BUDGET),
    st.builds(BestOf, BUDGET),
    st.builds(Majority, BUDGET, st.sampled_from(["random", "fail"])),
    BUDGET.flatmap(
        lambda n: st.builds(
            Quorum, st.just(n), st.integers(1, n), st.floats(0, 1e9), st.sampled_from(["random", "fail"])
        )
    ),
    st.builds(WeightedVote, BUDGET, st.none() | BUDGET),
    BUDGET.flatmap(lambda n: st.builds(TopVote, st.just(n), st.integers(1, n))),
    BUDGET.flatmap(lambda n: st.builds(Threshold, st.just(n), st.integers(1, n))),
)


def mixtures(parts: st.SearchStrategy[Strategy]) -> st.SearchStrategy[Strategy]:
    def mix(pairs: list[tuple[Strategy, float]]) -> Strategy:
        total = sum(weight for _, weight in pairs)
        return Mixture(tuple((s, weight / total) for s, weight in pairs))

    return st.lists(st.tuples(parts, st.floats(0.01, 1.0)), min_size=1, max_size=4).map(mix)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.recursive(SINGLE, mixtures, max_leaves=6))
def test_str_parses_back_to_the_same_value(s: Strategy) -> None:
    assert parse(str(s)) == s
    assert parse(f"  {s}\n") == s


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=30), st.text("mixpasthrejoldbe@^:(),. 0123456789", max_size=30)))
def test_any_other_text_is_refused_with_one_kind_of_error(text: str) -> None:
    try:
        s = parse(text)
    except ParseError:
        return
    assert parse(str(s)) == s


@pytest.mark.parametrize(
    ("text", "s"),
    [
        ("pass@16", PassAt(16)),
        ("pass^8", AllOf(8)),
        ("threshold@8:3", Threshold(8, 3)),
        ("best@4", BestOf(4)),
        ("maj@8", Majority(8)),
        ("maj@8:random", Majority(8)),
        ("maj@8:fail", Majority(8, "fail")),
        ("quorum@16:5", Quorum(16, 5)),
        ("quorum@16:5:0.5", Quorum(16, 5, 0.5)),
        ("quorum@16:5:fail", Quorum(16, 5, ties="fail")),
        ("wmaj@16", WeightedVote(16)),
        ("wmaj@16:50", WeightedVote(16, 50)),
        ("top4@16>maj", TopVote(16, 4)),
        ("mix(quorum@8:2:0.5:0.5, top2@4>maj:0.5)", Mixture({Quorum(8, 2, 0.5): 0.5, TopVote(4, 2): 0.5})),
        ("mix(pass@1:0.25,pass@16:0.75)", Mixture({PassAt(1): 0.25, PassAt(16): 0.75})),
        ("mix( maj@5:fail : 0.5 , threshold@8:3:0.5 )", Mixture({Majority(5, "fail"): 0.5, Threshold(8, 3): 0.5})),
        (
            "mix(mix(pass@1:0.5, pass@2:0.5):0.5, best@3:5e-1)",
            Mixture({Mixture({PassAt(1): 0.5, PassAt(2): 0.5}): 0.5, BestOf(3): 0.5}),
        ),
    ],
)
def test_what_strings_mean(text: str, s: Strategy) -> None:
    assert parse(text) == s


@pytest.mark.parametrize(
    ("text", "caret", "message"),
    [
        ("", 0, "expected one of pass@N"),
        ("pass@", 0, "expected one of pass@N"),
        ("pass@0", 0, "n must be an integer >= 1, got 0"),
        ("pass@-1", 0, "N and k are integers"),
        ("pass@1.5", 0, "N and k are integers"),
        ("  best@x", 2, "expected one of pass@N"),
        ("maj@4:never", 0, "maj@N:fail"),
        ("threshold@4:9", 0, "threshold k must be <= N = 4, got 9"),
        ("quorum@4:5", 0, "quorum k must be <= N = 4, got 5"),
        ("quorum@4:2:1e999", 0, "penalty must be finite and >= 0"),
        ("quorum@4:2:-1", 0, "quorum@N:k:penalty:fail"),
        ("top5@4>maj", 0, "k must be <= N = 4, got 5"),
        ("wmaj@4:0", 0, "levels must be an integer >= 1, got 0"),
        ("threshold@4:0", 0, "k must be an integer >= 1, got 0"),
        ("threshold@4", 0, "threshold@N:k"),
        ("mix()", 4, "expected 'strategy:weight'"),
        ("mix(pass@1)", 4, "expected 'strategy:weight'"),
        ("mix(pass@1:0.5)", 0, "must be positive and sum to 1"),
        ("mix(pass@1:1.5, pass@2:-0.5)", 0, "must be positive and sum to 1"),
        ("mix(pass@1:nan)", 0, "must be positive and sum to 1"),
        ("mix(pass@1:0.5, pass@2:half)", 23, "expected a weight such as 0.25"),
        ("mix(pass@1:0.5, pess@2:0.5)", 16, "expected one of pass@N"),
        ("mix(pass@1:0.5, threshold@4:9:0.5)", 16, "threshold k must be <= N"),
        ("mix(pass@1:0.5, mix(pass@2:0.5, poss@3:0.5):0.5)", 32, "expected one of pass@N"),
        ("mix(pass@1:0.5,, pass@2:0.5)", 15, "expected 'strategy:weight'"),
        ("mix(pass@1:1.0", 0, "expected one of pass@N"),
    ],
)
def test_an_error_shows_where_and_what(text: str, caret: int, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    _, shown, pointer, *advice = str(caught.value).split("\n")
    assert shown == f"  {text}"
    assert pointer == "  " + " " * caret + "^"
    assert message in "\n".join(advice)


@pytest.mark.parametrize("thing", [None, 16, b"pass@1", PassAt(1)], ids=repr)
def test_only_text_is_parsed(thing: Any) -> None:
    with pytest.raises(ParseError, match="expected a strategy string such as 'pass@16', got"):
        parse(thing)


def test_a_function_has_a_name_and_no_string_form() -> None:
    def rarest(draw: object) -> float:
        return 0.0

    assert str(from_function(5, rarest)) == "rarest@5"
    with pytest.raises(ParseError):
        parse("rarest@5")


@pytest.mark.parametrize("weights", [(), (0.5,), (0.5, 0.6), (1.0, 0.0), (1.5, -0.5), (float("nan"), 1.0)], ids=str)
def test_mixture_weights_are_a_distribution(weights: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="positive and sum to 1"):
        Mixture(tuple((PassAt(n + 1), w) for n, w in enumerate(weights)))


@pytest.mark.parametrize("build", [PassAt, AllOf, BestOf, Majority, lambda n: Threshold(n, 1)])
@pytest.mark.parametrize("n", [0, -3, 2.0, True, "4"], ids=repr)
def test_a_budget_is_a_positive_integer(build: Callable[[Any], Strategy], n: Any) -> None:
    with pytest.raises(OperantError, match="n must be an integer >= 1, got"):
        build(n)
