"""Odd input by the hundred thousand. Every kind has a generator and a check, and only operant's errors may come."""

from __future__ import annotations

import math
import os
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from operant.core.checks import OperantError
from torture.work import Tell, Unit

SECONDS = 1.0
"""CPU time that one input may take."""
MEMORY = 6 << 30
SHARDS = 0.02
TOLD = 250


class TooLong(BaseException):
    """An input took more CPU time than twice what it may: no handler for Exception may swallow this."""


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Args:
        name: what the table calls it.
        values: its generator.
        check: uses the value as a user would; may raise an error of operant, and nothing else.
        count: how many are tried in a full run.
        each: seconds that one should take.
        warm: is called once before any input.
    """

    name: str
    values: SearchStrategy[Any]
    check: Callable[[Any], None]
    count: int
    each: float
    warm: Callable[[], Any] = lambda: None


KINDS: dict[str, Kind] = {}


def kind(
    name: str,
    values: SearchStrategy[Any],
    *,
    count: int,
    each: float,
    warm: Callable[[], Any] = lambda: None,
) -> Callable[..., Any]:
    """Register a check as a kind of input."""

    def register(check: Callable[[Any], None]) -> Callable[[Any], None]:
        KINDS[name] = Kind(name, values, check, count, each, warm)
        return check

    return register


def units(share: float, root: Path, first_seed: int) -> list[Unit]:
    """A share of every kind, cut into shards of about a minute."""
    found: list[Unit] = []
    for k in KINDS.values():
        count = max(100, round(k.count * share))
        shards = max(1, math.ceil(count * k.each / 60))
        for i in range(shards):
            n = count // shards + (i < count % shards)
            number = first_seed + i
            cost = 2 + n * k.each
            name = f"fuzz {k.name}, seed {number}"
            found.append(Unit(f"odd input: {k.name}", name, cost, shard(k, n, number, root), 1800 + 15 * cost))
    return found


def shard(k: Kind, count: int, number: int, root: Path) -> Callable[[Tell], None]:
    """Try ``count`` inputs of a kind, in a folder of its own."""

    def run(tell: Tell) -> None:
        folder = root / "fuzz" / f"{k.name.replace(' ', '-')}-{number}"
        folder.mkdir(parents=True)
        os.chdir(folder)
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGPROF, _too_long)
        warnings.simplefilter("ignore")
        counted = _Counter(k, tell)
        k.warm()

        @seed(number)
        @settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            verbosity=hypothesis.Verbosity.quiet,
        )
        @given(k.values)
        def every(value: Any) -> None:
            counted(value)

        every()
        counted.flush()
        os.chdir(root)
        shutil.rmtree(folder, ignore_errors=True)

    return run


class _Counter:
    """Tries inputs, and tells the results some at a time."""

    def __init__(self, k: Kind, tell: Tell) -> None:
        self.kind, self.tell, self.tried, self.survived = k, tell, 0, 0
        self.seen: set[str] = set()

    def __call__(self, value: Any) -> None:
        trouble = attempt(self.kind, value)
        self.tried += 1
        self.survived += not trouble
        place = trouble.split(": ", 1)[0]
        if trouble and place not in self.seen:
            self.seen.add(place)
            self.tell(0, 0, trouble)
        if self.tried >= TOLD:
            self.flush()

    def flush(self) -> None:
        """Tell what was counted."""
        self.tell(self.tried, self.survived)
        self.tried = self.survived = 0


def attempt(k: Kind, value: Any) -> str:
    """What is wrong with how an input ended, "" if nothing: its first line names the place."""
    began = time.process_time()
    trouble = ""
    try:
        signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
        try:
            k.check(value)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except OperantError as error:
        if not str(error).strip():
            trouble = "an error without a word"
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and not isinstance(error, TooLong):
            trouble = f"{type(error).__name__}"
        where = traceback.extract_tb(error.__traceback__)
        ours = [f for f in where if "/operant/" in f.filename] or where
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"
        trouble = f"{type(error).__name__} at {place}: {str(error)[:200]}".replace("\n", " ")
    spent = time.process_time() - began
    if not trouble and spent > SECONDS:
        trouble = f"{spent:.1f} s of CPU time"
    return f"{trouble}\n  {k.name}: {value!r}"[:3000] if trouble else ""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong("more than twice the CPU time allowed")
