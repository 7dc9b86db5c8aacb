"""Verifiers: by value, with time limits, in processes that last; each failure is counted and none is a zero."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from operant.core.checks import InputError
from operant.verify import Prompt, failures, make_verifier, verify


@pytest.fixture(scope="module")
def check_math():
    with make_verifier("math") as check:
        yield check


def test_math_verifies_by_value_and_classes_equal_answers_together(check_math):
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
    verdicts = check_math([Prompt(0, "", target) for target, _ in pairs], [text for _, text in pairs])
    assert [v.reward for v in verdicts] == [1, 1, 0, 0, 1, 1, 1, 0, 0, 0]
    assert not failures(verdicts)
    answers = [v.answer for v in verdicts]
    assert answers[0] == answers[1] != answers[2]
    assert answers[3] is None and answers[9] is None
    assert answers[7] == answers[8]


def test_a_verifier_out_of_time_is_counted_not_scored_as_wrong():
    """SymPy would build 9^9^9^9: the worker is killed, the others go on."""
    verdicts, counted = verify([("1", "$9^{9^{9^{9}}}$"), ("3", "$3$")], "math", seconds=2)
    assert [(v.reward, v.failure) for v in verdicts] == [(None, "timeout"), (1.0, "")]
    assert counted == {"timeout": 1}


VALUES = {
    "$\\frac12$": 1 / 2,
    "it is 0.5": 0.5,
    "1/2": 1 / 2,
    "$0.50$": 0.5,
    "$\\sqrt{8}$": 8**0.5,
    "$2\\sqrt{2}$": 2 * 2**0.5,
    "$\\sqrt{2}$": 2**0.5,
    "$\\frac{\\sqrt{2}}{2}$": 2**0.5 / 2,
    "$\\frac{1}{\\sqrt{2}}$": 1 / 2**0.5,
    "$x^2+2x+1$": 0.37**2 + 2 * 0.37 + 1,
    "$(x+1)^2$": 1.37**2,
    "$(x+1)^3$": 1.37**3,
    "$10^3$": 10**3,
    "1,000": 1000,
}


@pytest.mark.parametrize("target", ["7", "$2\\sqrt{2}$"])
def test_answers_of_a_prompt_are_one_class_if_and_only_if_their_values_are_equal(check_math, target):
    """The values are Python's, at x = 0.37."""
    texts = list(VALUES)
    verdicts = check_math([Prompt(5, "q", target)] * len(texts), texts)
    for a, first in zip(texts, verdicts, strict=True):
        assert first.reward == (target != "7" and abs(VALUES[a] - 8**0.5) < 1e-9)
        for b, second in zip(texts, verdicts, strict=True):
            assert (first.answer == second.answer) == (abs(VALUES[a] - VALUES[b]) < 1e-9), (a, b)


def test_exact_compares_text():
    verdicts, _ = verify([("12", " 12 "), ("12", "12 3"), ("12", "")], "exact")
    assert [(v.reward, v.answer) for v in verdicts] == [(1.0, "12"), (0.0, "12 3"), (0.0, None)]


def test_regex_takes_the_last_match_and_cannot_hang():
    with make_verifier(r"regex:answer: *(\w+)", processes=1) as check:
        texts = ["answer: 3, no, answer: 4", "answer:4", "4", "", "answer: 5"]
        found = [(v.reward, v.answer) for v in check([Prompt(0, "", "4")] * 5, texts)]
    assert found == [(1.0, "4"), (1.0, "4"), (0.0, None), (0.0, None), (0.0, "5")]
    verdicts, counted = verify([("y", "x" * 60), ("y", "xxy")], "regex:(?:x+x+)+(y)", seconds=1, processes=1)
    assert [v.reward for v in verdicts] == [None, 1.0] and counted == {"timeout": 1}


USER = """
    import os, sys, time

    def grade(completion, target, *, note=""):
        print("noise", completion)
        sys.stdout.flush()
        return {
            "right": True, "half": 0.5, "none": None, "pair": (1, 12), "unparsed": (0.0, None),
            "raise": lambda: 1 / 0, "exit": lambda: sys.exit(0), "crash": lambda: os._exit(0), "nan": float("nan"),
            "hang": lambda: time.sleep(1000), "word": "yes", "pid": (1.0, os.getpid()),
            "note": (1.0, note), "loaded": (1.0, sorted({"torch", "operant", "pytest"} & set(sys.modules))),
        }[completion]

    def run(completion, target, **info):
        found = grade(completion, target)
        return found() if callable(found) else found

    constant = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_verifier.py").write_text(textwrap.dedent(USER))
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_verifier"


def test_a_users_function_of_every_kind(mine):
    texts = ["right", "half", "none", "pair", "unparsed", "raise", "exit", "crash", "nan", "hang", "word", "what"]
    with make_verifier(f"{mine}.run", seconds=2) as check:
        verdicts = check([Prompt(0, "", "")] * len(texts), texts)
        before = check([Prompt(1, "", "")] * 2, ["pid", "loaded"])
    assert [(v.reward, v.answer, v.failure) for v in verdicts] == [
        (1.0, None, ""),
        (0.5, None, ""),
        (None, None, "no reward"),
        (1.0, "12", ""),
        (0.0, None, ""),
        (None, None, "ZeroDivisionError"),
        (None, None, "SystemExit"),
        (None, None, "crash"),
        (None, None, "ValueError"),
        (None, None, "timeout"),
        (None, None, "ValueError"),
        (None, None, "KeyError"),
    ]
    assert failures(verdicts).total() == 8
    assert int(before[0].answer) != os.getpid() and before[1].answer == "[]"


def test_a_function_gets_the_columns_it_takes(mine):
    with make_verifier(f"{mine}:grade", processes=1) as check:
        (found,) = check([Prompt(0, "", "", {"note": "seen", "other": 1})], ["note"])
    assert found.answer == "seen"


def test_workers_last_and_a_hanging_one_is_replaced(mine):
    prompt, other = Prompt(0, "", ""), Prompt(1, "", "")
    with make_verifier(f"{mine}.run", processes=1, seconds=2) as check:
        pids = [check([prompt], ["pid"])[0].answer for _ in range(3)]
        start = time.perf_counter()
        hung, after = check([prompt, other], ["hang", "pid"])
        assert time.perf_counter() - start < 30
    assert len(set(pids)) == 1 and after.answer not in pids and hung.failure == "timeout"
    for pid in (pids[0], after.answer):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    with pytest.raises(InputError, match="is closed"):
        check([prompt], ["pid"])


def test_a_repeated_completion_is_graded_once(mine):
    with make_verifier(f"{mine}.run", processes=1, seconds=1) as check:
        start = time.perf_counter()
        verdicts = check([Prompt(0, "", "")] * 40, ["hang"] * 40)
    assert [v.failure for v in verdicts] == ["timeout"] * 40
    assert time.perf_counter() - start < 20


@pytest.mark.slow
def test_a_main_script_without_a_guard_runs_once_and_its_workers_end_with_it(mine, tmp_path):
    """Killed in the middle of a verdict that never comes: the worker's own clock stops it."""
    script = tmp_path / "train.py"
    script.write_text(
        "import os, signal, threading\n"
        "from operant.verify import Prompt\n"
        "from operant.verify import make_verifier\n"
        f"check = make_verifier('{mine}.run', processes=1, seconds=0.5)\n"
        "pid = check([Prompt(0, '', '')], ['pid'])[0].answer\n"
        "print('started', pid, flush=True)\n"
        "check._run.__self__._workers[0]._pipe.send(('grade', ('', 'hang', {})))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (line,) = done.stdout.splitlines()
    worker = f"/proc/{line.split()[1]}"
    for _ in range(300):
        if not os.path.exists(worker):
            return
        time.sleep(0.1)
    raise AssertionError(f"{worker} is still there")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("llm", "verifier must be one of 'math', 'exact', 'regex:PATTERN'"),
        ("regex:a", "0 groups"),
        ("regex:(a)(b)", "2 groups"),
        ("regex:(a", "missing \\)"),
        ("no_such_module.grade", "does not load: ModuleNotFoundError"),
        ("my_verifier.nothing", "does not load: AttributeError"),
        ("my_verifier.constant", "does not load: TypeError: my_verifier.constant is a int"),
    ],
)
def test_a_verifier_that_cannot_work_is_refused_at_once(mine, spec, message):
    with pytest.raises(InputError, match=message):
        make_verifier(spec)


def test_bad_calls_are_refused():
    with pytest.raises(InputError, match="seconds must be > 0"):
        make_verifier("math", seconds=float("nan"))
    with make_verifier("exact") as check, pytest.raises(InputError, match="got 1 and 0"):
        check([Prompt(0, "", "")], [])
    assert verify([], "math") == ([], {})
