"""The math verifier: a table by kind of answer, generated values in many spellings, and the search for the answer."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operant.verify import worker
from operant.verify.answers import grade, merge
from operant.verify.answers.mine import mine
from tests.verify.math_pairs import PAIRS

FORMS = ("{}", "${}$", "\\boxed{{{}}}", "So $x$ is $\\boxed{{{}}}$.", "The answer is ${}$.")


def reward(target, completion):
    return grade(target, completion, {})[0]


@pytest.mark.parametrize("target", PAIRS)
def test_targets_by_kind(target):
    right, wrong = PAIRS[target]
    own = [form.format(target) for form in FORMS]
    assert {text: reward(target, text) for text in (*own, *right)} == dict.fromkeys((*own, *right), 1.0)
    assert {text: reward(target, text) for text in wrong} == dict.fromkeys(wrong, 0.0)
    classes = {grade(target, text, {})[1] for text in (*own, *right)}
    assert len(classes) == 1 and not classes & {grade(target, text, {})[1] for text in wrong}


@pytest.mark.parametrize(
    "completion, answers",
    [
        ("First \\boxed{5}, but no: it is \\boxed{6}.", ["6"]),
        ("\\boxed{5}, that is, $\\boxed{5}$.", ["5"]),
        ("$\\boxed{1}$ and $\\boxed{2}$ (see \\boxed{3})", ["3"]),
        ("we get \\boxed{\\frac{1}{2}} m", ["\\frac{1}{2}"]),
        ("\\boxed 7", ["7"]),
        ("x = \\boxed{\\boxed{3}}", ["3"]),
        ("so it is \\boxed{12", []),
        ("<answer> 12 </answer>", ["12"]),
        ("48/2 = <<48/2=24>>24\n#### 72\n", ["72"]),
        ("#### Conclusion: nice\nThe answer is 4.", ["4"]),
        ("The answer is 18 because 20 - 2 = 18 eggs. I checked 3 times.", ["18"]),
        ("The answer is 18 dollars.", ["18 dollars"]),
        ("**Final Answer:**\n\\[\nx = 5\n\\]", ["x = 5"]),
        ("The answer to part 2 is $5$ and $7$.", ["5, 7"]),
        ("The answers are 2, 4 and 9.", ["2, 4 and 9"]),
        ("so 70 + 2 = 72 apples", ["70 + 2 = 72"]),
        ("She has $5 and spends $3, so $2 are left.", ["$2"]),
        ("You save $4 + $2 = $6 today", ["$4 + $2 = $6"]),
        ("The area is $15\\pi$ square meters", ["15\\pi"]),
        ("the area is 15\\pi square meters", ["15\\pi"]),
        ("I think 7", ["7"]),
        ("They sold 1,250 of 3.", ["3"]),
        ("it rose by 12.5%", ["12.5%"]),
        ("no idea", []),
        ("", []),
        ("...", []),
    ],
)
def test_where_the_final_answer_is_looked_for(completion, answers):
    assert mine(completion)[:1] == answers


def test_a_solution_as_target_counts_by_the_answer_that_it_marks():
    solution = "We have 3 bags of 24, so 3 * 24 = 72.\n#### 72"
    assert reward(solution, "72") == 1 == reward(solution, solution)
    assert reward(solution, "24") == 0
    assert reward("First 5. Then the rest follows, and the answer is $x+1$.", "\\boxed{1+x}") == 1
    assert reward("There are 5 of them. Others may say 6.", "6") == 0  # nothing is marked: text


def test_equal_answers_are_one_class():
    texts = [
        "$(1,2)$",
        "(1, 2.0)",
        "\\boxed{\\left(1, \\frac42\\right)}",
        "(2,1)",
        "2\\sqrt2",
        "\\sqrt8",
        "0.5",
        "50\\%",
    ]
    found = [grade("7", text, {}) for text in texts]
    keys = [key for _, _, key in found if key]
    assert merge(keys) == [0, 0, 0, 3, 4, 4]
    assert found[6] == found[7] == (0.0, "1/2", None)


rationals = st.builds(Fraction, st.integers(-60, 60), st.sampled_from([1, 1, 2, 3, 4, 5, 7, 8, 20]))


@st.composite
def spelled(draw, value):
    """A rational number as LaTeX, in one of its spellings."""
    n, d, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    k = draw(st.integers(2, 5))
    forms = [f"{sign}\\frac{{{n * k}}}{{{d * k}}}", f"{value.numerator}/{d}", f"\\dfrac{{{value.numerator}}}{{{d}}}"]
    if d == 1:
        forms += [str(value), f"{value}.0", f"{value}\\,"]
    if d in (2, 4, 5, 8, 20):
        forms += [f"{float(value):.3f}", repr(float(value))]
    if n < 10:
        forms.append(f"{sign}\\frac{n}{{{d}}}")
    if n > d > 1:
        forms.append(f"{sign}{n // d}\\frac{{{n % d}}}{{{d}}}")
    return draw(st.sampled_from(forms))


@st.composite
def numbers(draw):
    """(value, LaTeX) of a + b sqrt(c) with c = 1, 2, 3, 5 or pi."""
    a, b = draw(rationals), draw(rationals)
    c = draw(st.sampled_from(["", "", "\\sqrt{2}", "\\sqrt{3}", "\\sqrt{5}", "\\pi"]))
    if not c or not b:
        return (a, 0, ""), draw(spelled(a))
    root = f"\\left({draw(spelled(b))}\\right){c}"
    terms = [draw(spelled(a)), root] if a else [root]
    return (a, b, c), draw(st.permutations(terms).map(" + ".join))


@st.composite
def answers(draw):
    """(value, LaTeX) of a number, a tuple, an interval, a list or a polynomial."""
    kind = draw(st.sampled_from(["number", "number", "()", "[)", "list", "poly"]))
    if kind == "number":
        return draw(numbers())
    if kind == "poly":
        coefficients = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
        terms = [f"{c}x^{{{i}}}" if i > 1 else f"{c}x" if i else str(c) for i, c in enumerate(coefficients)]
        return ("poly", *coefficients), draw(st.permutations(terms).map("+".join))
    parts = draw(st.lists(numbers(), min_size=2, max_size=2 if kind == "[)" else 4))
    values, texts = [v for v, _ in parts], [t for _, t in parts]
    if kind == "list":
        return ("list", *sorted(values, key=str)), ", ".join(texts)
    return (kind, *values), f"\\left{kind[0]}{','.join(texts)}\\right{kind[1]}"


def equal(a, b):
    """A list equals the tuple in its order; the list keeps no order here, so such pairs are left out."""
    return None if {a[0], b[0]} == {"list", "()"} else a == b


@settings(max_examples=60, deadline=None)
@given(answers(), answers(), st.sampled_from(FORMS))
def test_generated_answers_are_right_if_and_only_if_their_values_are_equal(target, other, form):
    value, text = target
    assert reward(text, form.format(text)) == 1
    if equal(value, other[0]) is not None:
        assert reward(text, form.format(other[1])) == equal(value, other[0])


@settings(max_examples=60, deadline=None)
@given(st.data(), rationals, st.sampled_from(FORMS))
def test_spellings_of_a_number_are_one_and_its_neighbors_are_others(data, value, form):
    target, completion = data.draw(spelled(value)), data.draw(spelled(value))
    assert reward(target, form.format(completion)) == 1
    near = data.draw(st.sampled_from([value + 1, value - 1, value * 10, value + Fraction(1, 8), -value]))
    assert reward(target, form.format(data.draw(spelled(near)))) == (near == value)


@settings(max_examples=60, deadline=None)
@given(st.data(), answers())
def test_no_number_in_a_target_is_the_target(data, target):
    value, text = target
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    fragment = data.draw(st.sampled_from(digits))
    assert reward(text, f"\\boxed{{{fragment}}}") == (value == (Fraction(int(fragment)), 0, ""))


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=80), st.text(max_size=80))
def test_any_text_is_graded_and_equals_itself(target, completion):
    for text in (completion, f"\\boxed{{{completion}", f"the answer is ${completion}"):
        assert reward(target, text) in (0.0, 1.0)
    if target.strip():
        assert reward(target, target) == reward(target, f" {target}\n") == 1


def test_a_worker_loads_it_without_operant_and_torch():
    script = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('worker', {str(Path(worker.__file__))!r})\n"
        "worker = importlib.util.module_from_spec(spec); spec.loader.exec_module(worker)\n"
        "grade = worker.neighbor('registry').actions_of('math', 10.0)['grade']\n"
        "print(grade('1/2', 'It is 0.5.', {})[0], sorted({'torch', 'operant', 'numpy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "1.0 []", done.stderr
