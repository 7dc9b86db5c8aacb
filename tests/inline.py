"""Commands in this process: a pool that needs no new processes, and the command line with what it prints."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from typing import Any

import operant.hf.train.run
import operant.hf.workers
from operant.cli import main


class Inline(Executor):
    """A pool whose jobs run where they are submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def worker_pool(count: int, *, threads: int | None = None) -> Generator[Inline]:
    """In the place of ``operant.hf.workers.worker_pool``."""
    yield Inline()


def stay_here() -> None:
    """From now on, train and evaluate run in this process."""
    operant.hf.train.run.worker_pool = operant.hf.workers.worker_pool = worker_pool


def run(*args: Any) -> subprocess.CompletedProcess[str]:
    """A command with its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(a) for a in args])
        except SystemExit as stop:  # of the parser
            code = stop.code if isinstance(stop.code, int) else 2
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())
