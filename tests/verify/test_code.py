"""Programs under limits: what passes, what does not, and that nothing gets out."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from operant.core.checks import DataError, InputError
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.verify import Prompt, make_verifier
from operant.verify.code import RUNNER, CodeRunner, namespaces, program, solution
from operant.verify.registry import actions_of
from tests.verify.hostile import endless, programs

CODE = 'import math\n\n\ndef helper(n):\n    return n\n\n\ndef twice(n: int) -> int:\n    """Two times n."""\n'
TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n"
PROMPT = Prompt(0, CODE, "    return 2 * n\n", {"code": CODE, "test": TEST, "entry_point": "twice"})


def rewards(*completions, seconds=5.0, wall=20.0, **settings):
    runner = CodeRunner(seconds=seconds, wall=wall, **settings)
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda text: runner.run(program(text, PROMPT.info)), completions))


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


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder that must stay as it is, and a secret in the environment."""
    monkeypatch.setenv("OPERANT_SECRET", "7")
    (tmp_path / "sub").mkdir()
    (tmp_path / "kept.txt").write_text("as it was")
    before = state(tmp_path), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
    yield tmp_path
    assert before == (state(tmp_path), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0))
    assert not os.path.exists("/dev/shm/operant-hostile")


def state(folder):
    kept = folder / "kept.txt"
    found = kept.stat()
    return sorted(x.name for x in folder.iterdir()), kept.read_text(), found.st_mode, found.st_mtime, found.st_nlink


@pytest.mark.parametrize("isolated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hostile_programs_do_not_pass_and_change_nothing(outside, isolated):
    """With and without namespaces: the guard alone closes all of them too."""
    if isolated and not namespaces():
        pytest.skip("the kernel offers no namespaces here")
    texts = programs(outside)
    got = dict(zip(texts, rewards(*texts.values(), isolated=isolated), strict=True))
    assert got == dict.fromkeys(texts, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("isolated", [False, True])
def test_endless_programs_end(outside, isolated):
    if isolated and not namespaces():
        pytest.skip("the kernel offers no namespaces here")
    texts = endless(outside)
    got = dict(zip(texts, rewards(*texts.values(), isolated=isolated, seconds=1.0, wall=20), strict=True))
    assert all(x in (0.0, "timeout") for x in got.values()), got
    assert sum(x == 0.0 for x in got.values()) >= len(got) - 1


def test_namespaces_alone_keep_files_and_processes(outside):
    """The same programs without the guard: file systems are read-only, and no other process can be seen."""
    if not namespaces():
        pytest.skip("the kernel offers no namespaces here")
    source = RUNNER.read_text()
    runner = outside.parent / "unguarded.py"
    runner.write_text(source.replace("    _guard(os.getcwd())\n", ""))
    alive = subprocess.Popen(["sleep", "600"])
    texts = [
        f"import os, sqlite3\nOUT = {str(outside)!r}\n{attempt}"
        for attempt in (
            "open(OUT + '/new.txt', 'w')",
            "os.remove(OUT + '/kept.txt')",
            "os.mkfifo(OUT + '/pipe')",
            "sqlite3.connect(OUT + '/new.db').execute('create table t(x)')",
            "os.open('kept.txt', os.O_RDWR, dir_fd=os.open(OUT, 0))",
            "import multiprocessing.shared_memory as m; m.SharedMemory('operant-hostile', True, 64)",
            "assert len([p for p in os.listdir('/proc') if p.isdigit()]) > 1",
            f"os.kill({alive.pid}, 9)",
            "import socket; socket.create_connection(('127.0.0.1', 22), timeout=1)",
            "[open(f'a{i}', 'w').write('x' * 10**7) for i in range(7)]",
        )
    ]
    runs = CodeRunner(isolated=True, seconds=5, wall=20)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("operant.verify.code.RUNNER", runner)
            assert [runs.run(text) for text in texts] == [0.0] * len(texts)
            assert runs.run("open('a', 'w').write('x' * 100)") == 1.0
        assert alive.poll() is None
    finally:
        alive.kill()
        alive.wait()


def test_what_a_program_may_do_in_its_folder():
    inside = (
        "    import os, tempfile, shutil\n    open('a.txt', 'w').write('x' * 100)\n    os.mkdir('b')\n"
        "    os.remove('a.txt')\n    tempfile.TemporaryFile().write(b'x')\n    os.rmdir('b')\n"
        "    os.makedirs('c/d')\n    open('c/d/e', 'w').close()\n"
        "    os.rename('c/d/e', 'c/f')\n    shutil.rmtree('c')\n    tempfile.TemporaryDirectory().cleanup()\n"
        "    import ctypes, sqlite3, subprocess, multiprocessing, collections, dataclasses\n"
        "    assert not os.listdir('.') and open('/proc/self/status').read() and os.listdir('/')\n    return 2 * n\n"
    )
    for isolated in (False, *([True] if namespaces() else [])):
        assert rewards(inside, isolated=isolated) == [1.0]
        assert rewards("    open('a', 'w').write('x' * 10**8)\n    return 2 * n\n", isolated=isolated) == [0.0]


def test_without_namespaces_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr("operant.verify.code.namespaces", lambda: False)
    assert rewards("    return 2 * n\n") == [1.0]
    assert "programs run without namespaces" in " ".join(capsys.readouterr().err.split())


MACOS = """import ctypes, json, os, resource, runpy, signal, sys
sys.platform = "darwin"
del os.O_PATH
limit = resource.setrlimit
def refuse(which, values):
    if which == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    limit(which, values)
resource.setrlimit = refuse
"""


def test_what_macos_does_not_have_is_left_out(monkeypatch, tmp_path):
    script = tmp_path / "macos.py"
    script.write_text(f"{MACOS}runpy.run_path({str(RUNNER)!r}, run_name='__main__')\n")
    monkeypatch.setattr("operant.verify.code.RUNNER", script)
    inside = "    open('a', 'w').write('x')\n    return 2 * n\n"
    outside = f"    open({str(tmp_path / 'b')!r}, 'w')\n    return 2 * n\n"
    assert rewards(inside, outside, isolated=False) == [1.0, 0.0]
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("resource.setrlimit", None)
    assert actions_of("math", 5.0)["grade"]("1/2", "0.5", {})[0] == 1.0


def gone(group):
    """Whether no process of the group is left; the kernel takes a moment to end a namespace."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


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
        assert gone(process.pid)


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


def test_a_file_in_humaneval_form_is_read_and_graded(tmp_path):
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
