"""Programs under limits: what passes, what does not, and that nothing gets out."""

import json
import os
import subprocess
import time

import pytest

from operant.core.checks import DataError, InputError
from operant.hf.code import CodeRunner, solution
from operant.hf.tasks import DataConfig, Prompt, load_prompts
from operant.hf.verify import make_verifier

CODE = 'import math\n\n\ndef helper(n):\n    return n\n\n\ndef twice(n: int) -> int:\n    """Two times n."""\n'
TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n"
PROMPT = Prompt(0, CODE, "    return 2 * n\n", {"code": CODE, "test": TEST, "entry_point": "twice"})


def rewards(*completions, seconds=5.0, wall=20.0, **settings):
    verdicts = CodeRunner(seconds=seconds, wall=wall, **settings)([PROMPT] * len(completions), completions)
    assert all(v.answer is None for v in verdicts)
    return [v.failure or v.reward for v in verdicts]


def test_what_a_completion_may_look_like():
    right = [
        "    return 2 * n\n",
        "    return 2 * n\n\n\ndef other():\n    broken(\n",
        "    return 2 * n\n\nprint(twice(3)",
        "    return 2 * n\n```\nThis doubles n.",
        "Here it is:\n```python\ndef twice(n):\n    return helper(n) + n\n```\nIt works because",
        "```\ndef nothing(n):\n    pass\n```\nOr:\n```py\nfrom math import floor\n\ndef twice(n):\n    return 2 * n\n",
        "```python\n    return 2 * n\n```",
        "def twice(n):\n    return helper(n) * 2\n",
        "\nTWO = 2\n\ndef twice(n):\n    return TWO * n\n",
        "    print('x' * 10**6)\n    import sys\n    print('y' * 10**6, file=sys.stderr)\n    return 2 * n\n",
        "    if __name__ == '__main__':\n        return 0\n    return 2 * n\n",
    ]
    assert rewards(*right) == [1.0] * len(right)


def test_wrong_programs_are_wrong_and_leaving_early_does_not_pass():
    wrong = [
        "",
        "   ",
        "    return 3 * n\n",
        "    return 2 * n +\n",
        "    return n * 'a\0'\n",
        "    exit()\n",
        "    import sys\n    sys.exit(0)\n",
        "    import os\n    os._exit(0)\n",
        "    raise SystemExit\n",
        "    return twice(n)\n",
        "    return int(input())\n",
        "```python\nimport sys\nsys.exit(0)\ndef twice(n):\n    return 2 * n\n```",
        "    import ctypes\n    return ctypes.string_at(0)\n",
    ]
    assert rewards(*wrong) == [0.0] * len(wrong)


def test_time_and_memory_are_limited():
    start = time.perf_counter()
    got = rewards(
        "    while True:\n        pass\n",
        "    x = [0]\n    while True:\n        x += x\n",
        "    return 2 * n + len(bytearray(3 * 10**9)) * 0\n",
        "    import threading\n    threading.Thread(target=threading.Event().wait).start()\n    return 2 * n\n",
        seconds=1.0,
    )
    assert got == [0.0, 0.0, 0.0, 1.0]
    assert rewards("    import time\n    time.sleep(1000)\n", seconds=1.0, wall=1.5) == ["timeout"]
    assert time.perf_counter() - start < 90
    assert rewards("    return 2 * n + len(bytearray(10**8)) * 0\n") == [1.0]
    assert rewards("    return 2 * n + len(bytearray(10**8)) * 0\n", memory=90 << 20) == [0.0]


def test_nothing_outside_its_folder_changes_and_no_process_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("OPERANT_SECRET", "7")
    kept = tmp_path / "kept.txt"
    kept.write_text("as it was")
    attempts = [
        f"open({str(tmp_path / 'new.txt')!r}, 'w')",
        f"open({str(kept)!r}, 'a')",
        f"__import__('os').remove({str(kept)!r})",
        f"__import__('os').rename({str(kept)!r}, 'mine')",
        f"__import__('os').open({str(tmp_path / 'new.txt')!r}, 65)",
        f"__import__('shutil').rmtree({str(tmp_path)!r})",
        f"__import__('os').symlink({str(tmp_path)!r}, 'link')",
        "__import__('os').fork()",
        "__import__('os').system('true')",
        "__import__('subprocess').run(['true'])",
        "__import__('os').kill(1, 0)",
        "__import__('socket').socket()",
        "__import__('os').environ['OPERANT_SECRET']",
    ]
    assert rewards(*(f"    {line}\n    return 2 * n\n" for line in attempts)) == [0.0] * len(attempts)
    assert kept.read_text() == "as it was" and list(tmp_path.iterdir()) == [kept]
    inside = (
        "    open('a.txt', 'w').write('x' * 100)\n    import os, tempfile\n    os.mkdir('b')\n    os.remove('a.txt')\n"
    )
    inside += "    tempfile.TemporaryFile().write(b'x')\n    os.rmdir('b')\n    return 2 * n\n"
    assert rewards(inside) == [1.0]
    assert rewards("    open('a', 'w').write('x' * 10**8)\n    return 2 * n\n") == [0.0]


def test_the_process_group_is_gone_afterwards(monkeypatch):
    started = []
    popen = subprocess.Popen

    def spy(*args, **settings):
        started.append(popen(*args, **settings))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", spy)
    rewards("    return 2 * n\n", "    import time\n    time.sleep(1000)\n", seconds=1.0, wall=1.5)
    assert len(started) == 2
    for process in started:
        assert process.returncode is not None
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_whole_functions_replace_the_prompts_and_bodies_follow_it():
    assert solution(CODE, "    return n\n\nx = 1", "twice") == CODE + "    return n\n\nx = 1"
    assert solution(CODE, "    return n\n\nclass A: pass", "twice") == CODE + "    return n\n"
    whole = "def twice(n):\n    return n\n"
    assert solution(CODE, whole, "twice") == CODE[: CODE.index("def twice")] + whole
    assert solution("def f(x): return", " x", "f") == "def f(x): return x"


def test_prompts_without_tests_are_refused():
    with pytest.raises(DataError, match="needs code, entry_point, test beside the prompt"):
        make_verifier("code")([Prompt(3, "a", "b")], ["c"])
    with pytest.raises(InputError, match="seconds must be > 0"):
        make_verifier("code", seconds=0)


def test_a_file_in_humaneval_form_is_read_and_judged(tmp_path):
    rows = [
        {
            "task_id": f"mine/{i}",
            "prompt": CODE,
            "test": TEST,
            "entry_point": "twice",
            "canonical_solution": f"    return {i} * n\n",
        }
        for i in range(4)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({**r, "prompt": f"# {i}\n{CODE}"}) + "\n" for i, r in enumerate(rows)))
    train, test = load_prompts(DataConfig(train=str(path), holdout=1))
    prompts = sorted([*train, *test], key=lambda p: p.id)
    assert [p.info["task_id"] for p in prompts] == ["mine/0", "mine/1", "mine/2", "mine/3"]
    with make_verifier("code") as check:
        assert [v.reward for v in check(prompts, [p.target for p in prompts])] == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.slow
def test_all_canonical_solutions_of_humaneval_pass_and_empty_ones_fail():
    train, test = load_prompts(DataConfig(train="humaneval", holdout=64))
    assert (len(train), len(test)) == (100, 64)
    with make_verifier("code", seconds=10) as check:
        for form in ("{body}", "```python\n{code}{body}\n```", "{code}{body}"):
            texts = [form.replace("{code}", p.text).replace("{body}", p.target) for p in train + test]
            assert [v.reward for v in check(train + test, texts)] == [1.0] * 164
        assert [v.reward for v in check(test, [""] * 64)] == [0.0] * 64
