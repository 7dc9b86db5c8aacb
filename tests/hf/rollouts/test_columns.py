import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operant.core.checks import DataError
from operant.hf.rollouts.columns import cell, conversation, fields, fill, texts
from operant.verify import clean_target


@pytest.mark.parametrize(
    "value, text",
    [
        (" 42\n", "42"),
        ("5.0", "5.0"),  # a text is left as it was written
        ("", ""),
        (42, "42"),
        (5.0, "5"),
        (-5.0, "-5"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (0.1, "0.1"),
        (1e-05, "0.00001"),
        (-2.5e-05, "-0.000025"),
        (1e-12, "1e-12"),
        (123456.75, "123456.75"),
        (1e15, "1000000000000000"),
        (1e22, "1e+22"),
        (10**30, str(10**30)),
        (Decimal("2.50"), "2.5"),
        (Decimal("300"), "300"),
        (np.float32(0.1), "0.1"),
        (np.float64(5), "5"),
        (np.int64(5), "5"),
        (np.bool_(True), "true"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_a_target_is_the_text_of_its_value(value, text):
    assert clean_target(value, "row 1") == text


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**40), 10**40))
def test_no_number_is_lost(x):
    text = clean_target(x, "row 1")
    assert (int(text) if isinstance(x, int) else float(text)) == x
    if x and 1e-9 <= abs(x) < 1e16:
        assert "e" not in text


@pytest.mark.parametrize(
    "value, message",
    [
        (None, "got None"),
        (math.nan, "a finite number, got NaN"),
        (-math.inf, "got -Infinity"),
        (
            {"ground_truth": "48"},
            "a mapping with 'ground_truth'. Name one entry of the column by a dot: COLUMN.ground_truth",
        ),
        (["48"], "got a list. Name one entry of the column by a dot: COLUMN.0"),
        (b"48", "got bytes"),
        (object(), "got object"),
    ],
)
def test_what_is_no_answer_is_refused(value, message):
    with pytest.raises(DataError, match=f"a.jsonl, row 3: expected the correct answer .*{message}"):
        clean_target(value, "a.jsonl, row 3")


ROW = {"a.b": 1, "a": {"b": 2, "c": [10, {"d": "x"}]}, "text": "t", "none": None}


@pytest.mark.parametrize(
    "path, value", [("a.b", 1), ("a.c.0", 10), ("a.c.-1.d", "x"), ("text", "t"), ("a", ROW["a"]), ("none", None)]
)
def test_dots_lead_into_a_column_and_a_column_of_this_name_comes_first(path, value):
    assert cell(ROW, path, "row 1", "") == value


@pytest.mark.parametrize(
    "path, message",
    [
        ("b", "expected a column 'b', found .'a', 'a.b', 'none', 'text'.. Set it"),
        ("a.e", "expected an entry 'e' in 'a', found .'b', 'c'.. Set it"),
        ("a.c.2", "expected an entry '2' in 'a.c', found list"),
        ("a.c.x", "expected an entry 'x' in 'a.c', found list"),
        ("text.0", "expected an entry '0' in 'text', found str 't'"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(path, message):
    with pytest.raises(DataError, match=f"row 1: {message}"):
        cell(ROW, path, "row 1", "Set it.")


def user(text):
    return {"role": "user", "content": text}


def test_a_conversation_is_its_earlier_turns_and_the_question():
    system = {"role": "system", "content": "Be short.", "name": None, "tool_calls": []}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert conversation([system, user("q")], "") == ((("system", "Be short."),), "q")
    turns = [user("1"), {"role": "assistant", "content": "2"}, {"role": "user", "content": parts}]
    assert conversation(np.array(turns), "") == ((("user", "1"), ("assistant", "2")), "ab")


@pytest.mark.parametrize(
    "value, message",
    [
        ([], "ends with the user's question, got no message"),
        ([user("q"), {"role": "assistant", "content": "a"}], "got the role 'assistant' at its end. .* data.target"),
        (["q"], 'message 1: expected a message {"role": "user", "content": "..."}, found str'),
        ([{"from": "human", "value": "q"}], "message 1: .* found .'from', 'value'."),
        ([user("q"), {"role": "tool", "content": "a"}], "message 2: expected one of the roles system, .* got 'tool'"),
        ([user("q") | {"tool_calls": [1]}], "it has .'tool_calls'. too"),
        ([user([{"type": "image", "image": "x.png"}])], "Images and other parts are not supported"),
        ([user(None)], "expected text as content, got NoneType"),
        ([user(5)], "expected text as content, got int"),
    ],
)
def test_what_is_no_conversation_is_refused(value, message):
    with pytest.raises(DataError, match=f"row 1.*{message}"):
        conversation(value, "row 1")


@pytest.mark.parametrize(
    "template, text",
    [
        ("{prompt}", "{x} of {n}"),
        ("{n}: {prompt}!", "5: {x} of {n}!"),
        (r"{prompt} in \boxed{}.", r"{x} of {n} in \boxed{}."),
        (r"\boxed{{answer}}, {prompt}", r"\boxed{answer}, {x} of {n}"),
        ("{{{n}}}", "{5}"),
        ("{a.b}{n}", "75"),
    ],
)
def test_braces_of_a_template_are_fields_and_those_of_a_value_are_text(template, text):
    row = {"prompt": "{x} of {n}", "n": 5.0, "a": {"b": 7}}
    assert fill(template, texts(row, fields(template), "row 1")) == text


@given(st.text("{}ab"), st.text("{}ab"))
def test_a_template_is_pythons_where_both_take_it(template, value):
    """Two roads: str.format agrees wherever it finds only whole fields."""
    try:
        expected = template.format(a=value, b=value)
        found = fields(template)
    except (ValueError, IndexError, KeyError, AttributeError, DataError):
        return
    if set(found) <= {"a", "b"}:
        assert fill(template, {"a": value, "b": value}) == expected


@pytest.mark.parametrize("template, at", [("a {prompt", "'{' at '{prompt'"), ("a} {prompt}", "'}' at '} {prompt}'")])
def test_a_single_brace_is_refused(template, at):
    with pytest.raises(DataError, match=f"single {at}: write a column as"):
        fields(template)
