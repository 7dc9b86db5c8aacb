import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operant.core.checks import DataError
from operant.hf.columns import clean_target


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
            "a mapping with 'ground_truth'. Name one entry, as in --data.target reward_model.ground_truth",
        ),
        (["48"], "got a list. Name one entry, as in --data.target answers.0"),
        (b"48", "got bytes"),
        (object(), "got object"),
    ],
)
def test_what_is_no_answer_is_refused(value, message):
    with pytest.raises(DataError, match=f"a.jsonl, row 3: expected the correct answer .*{message}"):
        clean_target(value, "a.jsonl, row 3")
