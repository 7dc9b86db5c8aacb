"""What every verifier promises: a new one is a row here, and a line in the table of docs/training.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import operant.verify
from operant.core.checks import InputError
from operant.hf import EvaluateConfig, TrainConfig
from operant.verify import VERIFIERS, Check, Prompt, Verdict, failures, make_verifier
from operant.verify.registry import find, register

SOURCE = Path(operant.verify.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "training.md"
MINE = """
def grade(completion, target, *, unit=""):
    return completion == target + unit, completion or None

def fussy(completion, target):
    return 1 / len(completion)
"""


@dataclass(frozen=True)
class Row:
    """A verifier with completions of one prompt; ``odd`` is what a reader would not expect, and its verdict.

    ``fails`` is a specification, a completion and the kind of its failure; None for a verifier that cannot fail.
    """

    spec: str
    target: str
    right: tuple[str, str | None]
    wrong: tuple[str, str | None]
    odd: tuple[str, Verdict]
    fails: tuple[str, str, str] | None
    info: Callable[[], Mapping[str, Any]] = field(default=dict)
    empty: float = 0.0


def humaneval() -> Mapping[str, Any]:
    return {"code": "def f(n):\n", "test": "def check(f):\n    assert f(2) == 4\n", "entry_point": "f"}


def factors() -> Mapping[str, Any]:
    """An entry of a generator that raises on what is no list of numbers."""
    settings = {"name": "prime_factorization", "size": 1, "seed": 0}
    return {"gym": settings, "entry": {"answer": "2 × 2 × 3", "metadata": {"factors": [2, 2, 3]}}}


ROWS = {
    "math": Row(
        "math",
        "1/2",
        right=("so it is $\\frac12$", "1/2"),
        wrong=("the answer is 0.25", "1/4"),
        odd=("\\boxed{0.5} and not \\boxed{2}", Verdict(0.0, "2")),
        fails=("math", "$9^{9^{9^{9}}}$", "timeout"),
    ),
    "exact": Row(
        "exact", "12", right=(" 12\n", "12"), wrong=("13", "13"), odd=("12 3", Verdict(0.0, "12 3")), fails=None
    ),
    "regex:": Row(
        r"regex:answer: *(\w+)",
        "4",
        right=("answer: 3, no, answer: 4", "4"),
        wrong=("answer: 5", "5"),
        odd=("4", Verdict(0.0, None)),
        fails=("regex:(?:x+x+)+(y)", "x" * 60, "timeout"),
    ),
    "code": Row(
        "code",
        "",
        right=("    return 2 * n\n", None),
        wrong=("    return 3 * n\n", None),
        odd=("```python\ndef f(n):\n    return n + n\n```", Verdict(1.0, None)),
        fails=("code", "    return 2 * n\n", "crash"),
        info=humaneval,
    ),
    "gym": Row(
        "gym",
        "2 × 2 × 3",
        right=("2 × 2 × 3", "2 × 2 × 3"),
        wrong=("2 × 7", "2 × 7"),
        odd=("so <answer>2 × 2 × 3</answer> it is", Verdict(1.0, "2 × 2 × 3")),
        fails=("gym", "no factors", "ValueError"),
        info=factors,
    ),
    "package.module.function": Row(
        "my_grader.grade",
        "3",
        right=("3m", "3m"),
        wrong=("3", "3"),
        odd=("3m ", Verdict(0.0, "3m ")),
        fails=("my_grader:fussy", "", "ZeroDivisionError"),
        info=lambda: {"unit": "m", "unused": 1},
    ),
}


@pytest.fixture(scope="module", params=ROWS)
def case(request, tmp_path_factory):
    """A row, its prompt and its verifier, made once: a worker of math or gym takes seconds to start."""
    row, folder = ROWS[request.param], tmp_path_factory.mktemp("mine")
    (folder / "my_grader.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        with make_verifier(row.spec, processes=1) as check:
            yield row, Prompt("a", "the question", row.target, dict(row.info())), check


def test_every_verifier_has_a_row_and_a_line_in_the_documentation():
    table = DOCS.read_text(encoding="utf-8").split("| verifier | right is |")[1].split("\n\n")[0]
    written = re.findall(r"^\| `([^`]+)`", table, re.M)
    lacking = [f"{name}: a row in tests/verify/test_conformance.py" for name in VERIFIERS if name not in ROWS]
    lacking += [f"{v.form}: a line in docs/{DOCS.name}" for v in VERIFIERS.values() if v.form not in written]
    named = [v.form for v in VERIFIERS.values() if "." not in v.form]  # all but the path of a function
    for config in (TrainConfig, EvaluateConfig):  # what --help says
        text = config.__doc__ or ""
        lacking += [f"{form}: the docstring of {config.__name__}" for form in named if f'"{form}"' not in text]
    assert not lacking, "\n".join(lacking)
    assert all(v.right and v.vote for v in VERIFIERS.values())


def test_right_wrong_empty_and_odd_completions(case):
    row, prompt, check = case
    texts = [row.right[0], row.wrong[0], "", row.odd[0]]
    right, wrong, empty, odd = check([prompt] * 4, texts)
    assert (right, wrong) == (Verdict(1.0, row.right[1]), Verdict(0.0, row.wrong[1]))
    assert (empty, odd) == (Verdict(0.0, None), row.odd[1])


def test_verdicts_come_in_order_and_a_repeated_completion_is_graded_once(case):
    row, prompt, check = case
    asked: list[int] = []

    def counted(action, tasks):
        asked.extend([len(tasks)] if action == "grade" else [])
        return check._run(action, tasks)

    again = Check(row.spec, counted, lambda: None)
    texts = [row.wrong[0], row.right[0]] * 3
    assert [v.reward for v in again([prompt] * 6, texts)] == [0.0, 1.0] * 3
    assert again([], []) == [] and asked == [2, 0]


def test_a_failure_is_counted_and_is_no_wrong_answer(case, tmp_path, monkeypatch):
    row, prompt, _ = case
    if row.fails is None:
        return
    spec, text, kind = row.fails
    if spec == "code":  # the process that should run the program ends before it says anything
        monkeypatch.setattr("operant.verify.code.RUNNER", tmp_path / "none.py")
    with make_verifier(spec, processes=1, seconds=1) as check:
        verdicts = check([prompt] * 2, [text] * 2)
    assert verdicts == [Verdict(None, None, kind)] * 2 and failures(verdicts) == {kind: 2}


@pytest.mark.parametrize("spec", ["", ".", ":", ".x", "x.", "a..b", "x", "regex", "regex:", "math:", "gym:", "a b.c"])
def test_what_names_no_verifier_is_refused(spec):
    with pytest.raises(InputError, match="verifier must be one of 'math', "):
        make_verifier(spec)


@pytest.mark.parametrize("name", ROWS)
def test_a_specification_names_one_verifier(name):
    row = ROWS[name]
    found = find(row.spec)
    assert found is not None and found[0] is VERIFIERS[name]
    with pytest.raises(ValueError, match="there is a verifier"):
        register(VERIFIERS[name])


def test_no_file_imports_torch_and_those_of_workers_import_nothing_of_operant():
    files = {p.relative_to(SOURCE).as_posix(): p.read_text(encoding="utf-8") for p in SOURCE.rglob("*.py")}
    imports = {name: set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.M)) for name, text in files.items()}
    assert not [name for name, found in imports.items() if found & {"torch", "transformers"}]
    workers = ["worker.py", "registry.py", "grader.py", "entries.py", *(n for n in files if n.startswith("answers/"))]
    assert len(workers) > 8 and not [name for name in workers if "operant" in imports[name]]
