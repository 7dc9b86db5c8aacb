"""Strings that name strategies, and what is said about those that do not."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operant import AllOf, BestOf, Majority, Mixture, Outcomes, PassAt, Threshold, check_strategy, from_function, parse
from operant.core.checks import InputError, OperantError, ParseError
from operant.strategies import Harmonic, Priced, Quorum, Strategy, TopVote, WeightedVote, forms
from operant.strategies.base import nesting

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
        ("maj@4:never", 0, "maj@N[:random|fail]"),
        ("threshold@4:9", 0, "threshold k must be <= N = 4, got 9"),
        ("quorum@4:5", 0, "quorum k must be <= N = 4, got 5"),
        ("quorum@4:2:1e999", 0, "penalty must be finite and >= 0"),
        ("quorum@4:2:-1", 0, "penalty must be finite and >= 0"),
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
        ("priced(pass@1)", 7, "expected priced(S, price), with 2 between the parentheses"),
        ("harmonic(pass@1, maj@2)", 16, "expected harmonic(S), with 1 between the parentheses"),
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


@dataclass(frozen=True)
class Nth(Strategy):
    """The sample of rank k of N, as a user might write it."""

    form: ClassVar[str] = "nth@{n}:{k}[:{worth}][:{last}]"
    n: int
    k: int = field(default=0)
    worth: float = 1.0
    last: Literal["keep", "drop"] = "keep"

    def value(self, draw: Outcomes) -> Tensor:
        return self.worth * draw.reward.sort(dim=-1).values[..., self.k]


def test_a_class_of_the_user_has_a_string_by_its_form() -> None:
    for s, text, family in (
        (Nth(5, 2), "nth@5:2", "nth@N:2"),
        (Nth(5, 0, 0.5, "drop"), "nth@5:0:0.5:drop", "nth@N:0:0.5:drop"),
        (Priced(Nth(3, 1, last="drop"), 0.1), "priced(nth@3:1:drop, 0.1)", "priced(nth@N:1:drop, 0.1)"),
    ):
        assert str(s) == text and s.family == family and parse(text) == s
    with pytest.raises(ParseError, match=r"nth@N:k\[:worth\]\[:keep\|drop\]"):
        parse("nth@5")
    assert "string" in check_strategy(Nth(3, 1, last="drop"))


def test_a_form_belongs_to_one_class() -> None:
    with pytest.raises(InputError, match="the form 'pass@{n}' of .*Other is that of PassAt"):

        class Other(PassAt):
            form: ClassVar[str] = "pass@{n}"

    class Unreadable(PassAt):
        form: ClassVar[str] = "unreadable@{m}"

    try:
        with pytest.raises(ParseError, match="names 'm', which must be a field of type int, float or Literal"):
            parse("unreadable@2")
    finally:
        forms._CLASSES.pop(Unreadable.form)


@pytest.mark.parametrize(
    ("text", "family", "n"),
    [
        ("pass@16", "pass@N", 16),
        ("top4@16>maj", "top4@N>maj", 16),
        ("harmonic(threshold@8:1)", "harmonic(threshold@N:1)", 8),
        ("mix(pass@1:0.25, pass@16:0.75)", "mix(pass@1:0.25, pass@16:0.75)", 16),
        ("table(0.0, 0.5, 1.0)", "table(0.0, 0.5, 1.0)", 2),
    ],
)
def test_a_family_is_the_string_without_the_budget(text: str, family: str, n: int) -> None:
    s = parse(text)
    assert (s.family, s.n, str(s)) == (family, n, text)


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


def nested(name: str, levels: int, inside: str, after: str = "") -> str:
    return f"{name}(" * levels + inside + f"{after})" * levels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (nested("harmonic", 300, "pass@2"), "at most 8 levels of parentheses"),
        (nested("mix", 300, "pass@1", ":1"), "at most 8 levels of parentheses"),
        (nested("priced", 9, "pass@1", ", 0.1"), "at most 8 levels of parentheses"),
        (nested("mix", 8, "pass@1", ":1"), "8 levels deep, got 9"),
        (nested("harmonic", 8, "pass@8"), "parts|from at most 4,096 others"),
        (nested("harmonic", 3, "pass@64"), "more than 4,096 parts"),
        ("harmonic(pass@1000000)", "more than 4,096 parts"),
        ("harmonic(priced(harmonic(maj@5000), 0.1))", "more than 4,096 parts"),
        (f"mix({', '.join(['harmonic(pass@4000):0.0025'] * 400)})", "at most 4,096 strategies"),
        ("table(" + "0, " * 10**6 + "1)", "at most 20,000 characters"),
        ("mix(" + "pass@1:1e-5, " * 10**5 + "pass@1:0)", "at most 20,000 characters"),
        ("mix(" * 8 + "," * 15_000, "expected 'strategy:weight'|expected one of"),
        ("(" * 20_000, "at most 8 levels"),
        ("pass@99999999999999999999", "integers of at most 10,000,000"),
        ("pass@" + "9" * 15_000, "integers of at most 10,000,000"),
        ("threshold@8:99999999999999999999", "integers of at most 10,000,000"),
        ("race@8:99999999999999999999", "integers of at most 10,000,000"),
        ("lead@8:99999999999999999999", "integers of at most 10,000,000"),
        ("wmaj@8:99999999999999999999", "integers of at most 10,000,000"),
        ("top99999999999999999999@8>maj", "integers of at most 10,000,000"),
        ("pass@１６", "ASCII characters only"),
        ("mix(pass@1:٠.5, pass@2:0.5)", "ASCII characters only"),
        ("mix(pass@1:0.2_5, pass@2:0.75)", "expected a weight"),
        ("table(0, 1e999)", "finite"),
        ("rank(nan)", "finite"),
        ("mix(pass@1:1e999)", "sum to 1"),
        ("priced(pass@1, 1e999)", "finite"),
        ("priced(pass@1, -inf)", "finite"),
        ("first@4:1e999", "finite"),
        ("verified@4:1e999:0", "false-positive"),
        ("noisy@4:0:1e999", "false-positive"),
    ],
    ids=lambda x: x[:30],
)
def test_a_string_without_bounds_is_refused_at_once(text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(ParseError, match=message) as caught:
        parse(text)
    assert time.process_time() - start < 1.0  # 0.06 at most on an idle core; garbage of other tests is collected here
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    "text",
    ["harmonic(pass@64)", "harmonic(maj@1024)", "harmonic(harmonic(pass@64))", "harmonic(priced(race@64:5, 0.01))"]
    + [nested("harmonic", 7, "pass@2"), nested("mix", 7, "pass@1", ":1.0"), "pass@10000000", "pass@0016"],
    ids=lambda x: x[:40],
)
def test_within_the_limits_strings_are_read_at_once(text: str) -> None:
    start = time.process_time()
    s = parse(text)
    assert time.process_time() - start < 1.0
    assert parse(str(s)) == s


def test_an_error_in_a_long_string_shows_the_place_and_not_the_string() -> None:
    text = f"mix({'pass@1:0.001, ' * 900}pess@1:0.1)"
    with pytest.raises(ParseError) as caught:
        parse(text)
    _, shown, pointer, *_ = str(caught.value).split("\n")
    assert len(shown) < 220 and shown[pointer.index("^") :].startswith("pess@1")


@pytest.mark.parametrize(
    "wrap", [lambda s: Mixture(((s, 1.0),)), lambda s: Priced(s, 0.1), Harmonic], ids=["mix", "priced", "harmonic"]
)
def test_constructors_have_the_limits_of_strings(wrap: Callable[[Strategy], Strategy]) -> None:
    s: Strategy = PassAt(1)
    with pytest.raises(InputError, match="8 levels deep, got 9"):
        for _ in range(1000):
            s = wrap(s)
    assert parse(str(s)) == s and nesting(s).depth == 8
    with pytest.raises(InputError, match="at most 4,096 others, got 5,000"):
        Mixture(tuple((PassAt(1), 1 / 5000) for _ in range(5000)))
    with pytest.raises(InputError, match="more than 4,096 parts"):
        Harmonic(PassAt(10**12))


def test_the_size_of_a_strategy_survives_a_copy() -> None:
    s = parse("mix(harmonic(pass@3):0.5, priced(pass@1, 0.1):0.5)")
    for twin in (pickle.loads(pickle.dumps(s)), copy.deepcopy(s)):
        assert twin == s and hash(twin) == hash(s) and nesting(twin) == nesting(s) == (3, 7)
