"""Programs that mean harm, graded by the code verifier: none may pass its tests, nothing outside may change."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from operant.verify.code import CodeRunner, namespaces, program
from tests.verify.hostile import endless, programs
from torture.work import Tell, Unit

CODE = "def twice(n):\n"
TESTS = "def check(candidate):\n    assert candidate(3) == 6 and candidate(0) == 0\n"
INFO = {"code": CODE, "test": TESTS, "entry_point": "twice"}


def units(root: Path, *, share: float, seed: int) -> list[Unit]:
    """A share of the programs that end soon and of the endless ones, with namespaces (where there are any) and not."""
    row, found = "programs that mean harm", list[Unit]()
    for isolated in (True, False) if namespaces() else (False,):
        for source, seconds in ((programs, 3.0), (endless, 1.0)):
            names = sorted(source(root / "outside"))
            chosen = random.Random(seed).sample(names, max(1, round(share * len(names))))
            run = _graded(source, chosen, root / f"outside-{source.__name__}-{isolated}", seconds, isolated)
            found.append(Unit(row, f"{source.__name__}, isolated {isolated}", 2.0 * len(chosen), run, 900))
    return found


def _graded(
    source: Callable[[Path], dict[str, str]], names: list[str], outside: Path, seconds: float, isolated: bool
) -> Callable[[Tell], None]:
    def run(tell: Tell) -> None:
        os.environ["OPERANT_SECRET"] = "7"
        (outside / "sub").mkdir(parents=True)
        (outside / "kept.txt").write_text("as it was")
        before = _state(outside)
        runner = CodeRunner(seconds=seconds, wall=20.0, isolated=isolated)
        for name in names:
            found = runner.run(program(source(outside)[name], INFO))
            after = _state(outside)
            good = found != 1.0 and before == after
            tell(1, int(good), None if good else f"{name}, isolated {isolated}: {found}, {before} -> {after}")
            before = after
        shutil.rmtree(outside)

    return run


def _state(folder: Path) -> tuple[object, ...]:
    kept = folder / "kept.txt"
    found = kept.stat() if kept.exists() else None
    facts = found and (found.st_mode, found.st_mtime, found.st_nlink, kept.read_text())
    return (sorted(p.name for p in folder.iterdir()), facts, os.path.exists("/dev/shm/operant-hostile"))
