import pytest

from operant.core.checks import InputError
from operant.hf.verify import verify


def test_math_verifies_by_value_and_classes_equal_answers_together():
    pairs = [
        ("72", "The answer is 72."),
        ("72", "so 70 + 2 = 72 apples"),
        ("72", "I think 7"),
        ("72", "no idea"),
        ("1/2", "it is 0.5"),
        ("\\frac{1}{2}", "$\\frac12$"),
        ("1000", "1,000"),
        ("3", "2.50"),
        ("3", "$\\frac{5}{2}$"),
        ("72", ""),
    ]
    verdicts, failures = verify(pairs, "math")
    assert [v.reward for v in verdicts] == [1, 1, 0, 0, 1, 1, 1, 0, 0, 0]
    assert not failures
    answers = [v.answer for v in verdicts]
    assert answers[0] == answers[1] != answers[2]
    assert answers[3] is None and answers[9] is None
    assert answers[7] == answers[8]


def test_a_verifier_out_of_time_is_counted_not_scored_as_wrong():
    """SymPy would build 9^9^9^9: the worker is killed, the others go on."""
    verdicts, failures = verify([("1", "$9^{9^{9^{9}}}$"), ("3", "$3$")], "math", seconds=2)
    assert [(v.reward, v.failure) for v in verdicts] == [(None, "timeout"), (1.0, "")]
    assert failures == {"timeout": 1}


def test_exact_compares_text():
    verdicts, _ = verify([("12", " 12 "), ("12", "12 3"), ("12", "")], "exact")
    assert [(v.reward, v.answer) for v in verdicts] == [(1.0, "12"), (0.0, "12 3"), (0.0, None)]


def test_an_unknown_verifier_is_refused():
    with pytest.raises(InputError, match="'math' or 'exact'"):
        verify([], "llm")  # type: ignore[arg-type]
