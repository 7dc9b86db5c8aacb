"""Programs judged by their unit tests, in HumanEval's form, each in a process of its own under limits.

The limits stop accidents: endless loops, memory, files, processes, the network, printing, leaving early. They are no
sandbox. A program that means harm can read the machine's files, can get around the guard from inside its process, and
can make any test pass. Judge completions of a model that you do not trust in a container or a virtual machine.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from operant.core.checks import DataError, InputError, check_int
from operant.hf.pool import kill_group
from operant.hf.tasks import Prompt
from operant.hf.verify import Verdict

RUNNER = Path(__file__).with_name("limited.py")
SECONDS = 3.0
"""CPU time of a program, as in Chen et al. 2021."""
WALL = 5.0
"""Wall-clock limit in units of the CPU time: a program may share its core with others."""
MEMORY = 1 << 30
FILE = 16 << 20
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\nassert", "\n@", "\n```")
"""Where a completion of a function's body ends (Chen et al. 2021, section 2.1, and decorators, asserts and fences)."""
BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE)


class CodeRunner:
    """Run prompt + completion + tests and say whether the tests ran to their end.

    Reward 1.0: they did. 0.0: an exception (SystemExit too), a syntax error, more than ``seconds`` of CPU time or
    ``memory`` bytes, or an end before the tests did. A program that neither ends nor uses its CPU time within ``wall``
    times that is a failure "timeout" without reward: a sleeping program and a busy machine look the same from outside.
    There is no answer for votes: that two programs do the same cannot be seen from their text.

    Args:
        processes: programs run at once.
        seconds: CPU time of a program, rounded up to whole seconds.
        memory: bytes of its address space.
        wall: wall-clock limit in units of ``seconds``.
    """

    def __init__(
        self, *, processes: int = 2, seconds: float = SECONDS, memory: int = MEMORY, wall: float = WALL
    ) -> None:
        if not seconds > 0:
            raise InputError(f"seconds must be > 0, the CPU time of a program, got {seconds!r}.")
        self._processes = check_int("processes", processes, least=1)
        self._seconds, self._memory, self._wall = math.ceil(seconds), memory, wall

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Verdict]:
        """One verdict for each prompt and completion."""
        programs = [program(p, text) for p, text in zip(prompts, completions, strict=True)]
        with ThreadPoolExecutor(self._processes) as threads:
            return list(threads.map(self._run, programs))

    def _run(self, text: str) -> Verdict:
        password = secrets.token_hex(16)
        order = {
            "program": text,
            "password": password,
            "seconds": self._seconds,
            "bytes": self._memory,
            "file_bytes": FILE,
        }
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-X", "utf8", str(RUNNER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"TMPDIR": folder, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
            with process:
                try:
                    said, _ = process.communicate(json.dumps(order).encode(), timeout=self._wall * self._seconds)
                except subprocess.TimeoutExpired:
                    return Verdict(None, None, "timeout")
                finally:
                    kill_group(process)
        if not said.startswith(b"+"):
            return Verdict(None, None, "crash")
        return Verdict(float(said == b"+" + password.encode()), None)


def program(prompt: Prompt, completion: str) -> str:
    """The solution, the tests, and the call that runs them.

    Raises:
        DataError: for a prompt whose ``info`` has no code, test or entry_point.
    """
    missing = {"code", "test", "entry_point"} - prompt.info.keys()
    if missing:
        raise DataError(
            f"prompt {prompt.id!r}: verifier 'code' needs {', '.join(sorted(missing))} beside the prompt. Read "
            "prompts in HumanEval's form: data.train humaneval, or a .jsonl file with prompt, test and entry_point."
        )
    code, test, entry = (str(prompt.info[name]) for name in ("code", "test", "entry_point"))
    return f"{solution(code, completion, entry)}\n\n{test}\n\ncheck({entry})\n"


def solution(code: str, completion: str, entry: str) -> str:
    """The program that a completion means.

    A completion is the rest of the function that ``code`` begins, cut where it ends; or the whole function, which then
    replaces it and keeps what stands above it; either may stand in a ```python block, among prose. Text that begins
    indented is no prose.
    """
    defines = re.compile(rf"^(?:async )?def {re.escape(entry)}\b", re.MULTILINE)
    blocks = [] if _first(completion).startswith(("  ", "\t")) else BLOCK.findall(completion)
    text = next((block for block in blocks if defines.search(block)), blocks[0] if blocks else completion)
    if defines.search(text) and not _first(text)[:1].isspace():
        return defines.split(code)[0] + text
    ends = [text.find(stop) for stop in STOPS]
    return code + text[: min((i for i in ends if i >= 0), default=len(text))]


def _first(text: str) -> str:
    """The first line that is not blank."""
    return next((line for line in text.splitlines() if line.strip()), "")
