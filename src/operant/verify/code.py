"""Programs graded by their unit tests, in HumanEval's form, each in a process of its own under limits.

The limits stop accidents, not attackers. There are two layers:

- Everywhere: limits on CPU time, memory and file size, an environment without the caller's variables, and the
  interpreter's audit events. Other processes, signals, the network, SQLite, calls of C through ctypes, changes outside
  the program's folder, and reading other processes' /proc are refused.
- Where Linux lets this user make namespaces: no network device, a process table of its own, a read-only view of every
  file system, and a folder of 64 MB in memory. Most systems allow namespaces, many containers do not. ``namespaces``
  tells, and without them a line on stderr warns.

The limits do not stop three things. A program can read the files that this user can read. Native code gets around the
audit events. A program can make any test pass, because it runs in the same interpreter as the tests. Grade completions
of a model that you do not trust in a container or a virtual machine.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from operant.core.checks import DataError
from operant.verify.grader import Failed, Grade
from operant.verify.pool import kill_group

RUNNER = Path(__file__).with_name("sandbox.py")
# Wall-clock limit in units of the CPU time. A program may share its core with others: with 1.0, a busy machine would
# turn right programs into timeouts.
_WALL = 5.0
# Not tuned: all 164 solutions of HumanEval pass within these limits of memory and of one file.
_MEMORY = 1 << 30
_FILE = 16 << 20
# Where a completion of a function's body ends (Chen et al. 2021, section 2.1, and decorators, asserts and fences).
_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\nassert", "\n@", "\n```")
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE)


@cache
def namespaces() -> bool:
    """Whether a program can run in namespaces of its own on this machine; tried once a process."""
    return CodeRunner(seconds=20, isolated=True).run("") == 1.0


class CodeRunner:
    """Run prompt + completion + tests and say whether the tests ran to their end.

    The reward is 1.0 if they did. It is 0.0 for an exception (SystemExit as well), a syntax error, more than
    ``seconds`` of CPU time, more than ``memory`` bytes, or an end before the tests. A program that neither ends nor
    uses up its CPU time within ``wall`` times that is a failure "timeout" without reward: from outside, a sleeping
    program and a busy machine look the same. There is no answer for votes, because equal programs may have different
    texts.

    Args:
        seconds: CPU time of a program, rounded up to whole seconds.
        memory: bytes of its address space.
        wall: wall-clock limit in units of ``seconds``.
        isolated: whether programs run in namespaces of their own. Default: where the kernel offers them.
    """

    def __init__(
        self, *, seconds: float, memory: int = _MEMORY, wall: float = _WALL, isolated: bool | None = None
    ) -> None:
        self._seconds, self._memory, self._wall = math.ceil(seconds), memory, wall
        self._isolated = namespaces() if isolated is None else isolated
        if isolated is None and not self._isolated:
            Console(stderr=True).print(
                "[bold yellow]warning[/] programs run without namespaces, which the kernel does not offer here: only "
                "the interpreter's own guard keeps them from other files and processes."
            )

    def grade(self, target: str, text: str, info: Mapping[str, Any]) -> Grade:
        """The reward of a completion, by the tests in ``info``.

        Raises:
            Failed: with "timeout" or "crash".
            DataError: for ``info`` without code, test or entry_point.
        """
        found = self.run(program(text, info))
        if isinstance(found, str):
            raise Failed(found)
        return found, None, None

    def run(self, text: str) -> float | str:
        """1.0 if a program ran to its end, 0.0 if it did not, or what went wrong: "timeout" or "crash"."""
        # A program that exits early or prints cannot pretend to have passed: it does not know what a pass writes.
        password = secrets.token_hex(16)
        order = {
            "program": text,
            "password": password,
            "seconds": self._seconds,
            "bytes": self._memory,
            "file_bytes": _FILE,
            "isolated": self._isolated,
        }
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            process = subprocess.Popen(
                # -I keeps the user's site packages and PYTHON variables out: tests see the same interpreter everywhere.
                [sys.executable, "-I", "-B", "-X", "utf8", str(RUNNER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                # Of the environment nothing is passed on: it may hold tokens, which a program could print into a
                # rollout.
                env={"TMPDIR": folder, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
            with process:
                try:
                    said, _ = process.communicate(json.dumps(order).encode(), timeout=self._wall * self._seconds)
                except subprocess.TimeoutExpired:
                    return "timeout"
                finally:
                    kill_group(process)
        # The script writes "+" before it starts the program. Without it the limits failed, not the completion.
        if not said.startswith(b"+"):
            return "crash"
        return float(said == b"+" + password.encode())


def program(completion: str, info: Mapping[str, Any]) -> str:
    """The solution, the tests, and the call that runs them.

    Raises:
        DataError: for ``info`` without code, test or entry_point.
    """
    missing = {"code", "test", "entry_point"} - info.keys()
    if missing:
        raise DataError(
            f"verifier 'code' needs {', '.join(sorted(missing))} beside the prompt. Read prompts in HumanEval's form: "
            "data.train humaneval, or a .jsonl file with prompt, test and entry_point."
        )
    code, test, entry = (str(info[name]) for name in ("code", "test", "entry_point"))
    return f"{solution(code, completion, entry)}\n\n{test}\n\ncheck({entry})\n"


def solution(code: str, completion: str, entry: str) -> str:
    """The program that a completion stands for.

    A completion is either the rest of the function that ``code`` begins, cut where the function ends, or the whole
    function, which replaces the beginning and keeps the code above it. Either may stand in a ```python block among
    prose. Text that begins indented is code.
    """
    defines = re.compile(rf"^(?:async )?def {re.escape(entry)}\b", re.MULTILINE)
    blocks = [] if _first(completion).startswith(("  ", "\t")) else _BLOCK.findall(completion)
    text = next((block for block in blocks if defines.search(block)), blocks[0] if blocks else completion)
    # Indented text is the body of the function, even where it defines a helper of the same name.
    if defines.search(text) and not _first(text)[:1].isspace():
        return defines.split(code)[0] + text
    ends = [text.find(stop) for stop in _STOPS]
    return code + text[: min((i for i in ends if i >= 0), default=len(text))]


def _first(text: str) -> str:
    """The first line that is not blank."""
    return next((line for line in text.splitlines() if line.strip()), "")
