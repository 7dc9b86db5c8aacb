"""Worker processes that grade completions: they serve many calls, and one that hangs is killed and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NamedTuple

from operant.core.checks import InputError, OperantError
from operant.verify.grader import failure_of

_WORKER = Path(__file__).with_name("worker.py")
# Wall-clock limit for a worker to make its grader. SymPy takes 1 to 2 s. A cold disk, or a user's module that loads a
# model, can take a minute.
_START_SECONDS = 120.0


class Reply(NamedTuple):
    """What came back for one task: a value, or the kind of failure."""

    value: Any
    failure: str = ""


class Pool:
    """Long-lived processes of one verifier, with a wall-clock limit per task.

    A worker is a fresh interpreter that runs ``worker.py``. It imports neither torch nor the caller's main module,
    which may have no guard and would start training again. A task out of time costs its worker: it is killed with
    its process group, and started again for the next task. A worker whose parent is gone stops by itself.

    Args:
        spec: the verifier's specification.
        processes: workers, started when there is work for them. The first one starts at once, so that a verifier that
            does not load is an error here.
        seconds: wall-clock limit of a task.

    Raises:
        InputError: if the verifier does not load.
    """

    def __init__(self, spec: str, *, processes: int, seconds: float) -> None:
        self._workers = [_Worker(spec, seconds) for _ in range(processes)]
        self.close = weakref.finalize(self, _stop, self._workers, os.getpid())
        self._workers[0].start()

    def map(self, action: str, tasks: Sequence[tuple[Any, ...]]) -> list[Reply]:
        """Replies in order. The failure of a task is its reply; the other tasks go on."""
        if not self.close.alive:
            raise InputError("this verifier is closed. Make another one.")
        return _spread(self._workers, action, tasks)


class Threads:
    """Threads of this process, for graders that need no worker: a grader that is quick, or one with its own processes.

    Args:
        actions: what can be asked for, by name.
        threads: tasks at once.
    """

    def __init__(self, actions: Mapping[str, Callable[..., Any]], *, threads: int) -> None:
        self._actions, self._threads = actions, threads

    def close(self) -> None:
        """Nothing lives between two calls."""

    def map(self, action: str, tasks: Sequence[tuple[Any, ...]]) -> list[Reply]:
        """Replies in order. The failure of a task is its reply, but an OperantError is raised."""
        return _spread([self._reply] * self._threads, action, tasks)

    def _reply(self, action: str, task: tuple[Any, ...]) -> Reply:
        try:
            return Reply(self._actions[action](*task))
        except OperantError:
            raise
        except Exception as error:
            return Reply(None, failure_of(error))


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, spec: str, seconds: float) -> None:
        self._spec, self._seconds = spec, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None

    def start(self) -> Connection[Any, Any]:
        if self._pipe is not None:
            return self._pipe
        here, there = Pipe()
        with there:
            self._process = subprocess.Popen(
                # -P keeps this folder off sys.path: code.py in it would shadow the standard library's module.
                [sys.executable, "-P", str(_WORKER), str(there.fileno())],
                stdin=subprocess.DEVNULL,
                # What a user's grader prints would mix with the progress bars, or fill a pipe that nobody reads.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                start_new_session=True,
                # One thread a worker: several share the cores. The hash seed is fixed because some generators of
                # reasoning-gym iterate over sets.
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            )
        self._pipe = here
        trouble = "it did not answer"
        try:
            here.send((self._spec, sys.path, self._seconds))
            if here.poll(_START_SECONDS):
                trouble = here.recv()
        except (EOFError, OSError):
            trouble = "its process ended"
        if trouble:
            self.stop()
            raise InputError(f"the verifier {self._spec!r} does not load: {trouble.rstrip('.')}.")
        return here

    def __call__(self, action: str, task: tuple[Any, ...]) -> Reply:
        try:
            pipe = self.start()
        except OperantError as error:
            return Reply(None, f"start: {error}")
        failure = "timeout"
        try:
            pipe.send((action, task))
            if pipe.poll(self._seconds):
                return Reply(*pipe.recv())
        except (EOFError, OSError):
            failure = "crash"
        except BaseException:  # interrupted between task and reply: the next reply would belong to this task
            self.stop()
            raise
        self.stop()
        return Reply(None, failure)

    def stop(self) -> None:
        if self._process is not None:
            kill_group(self._process)
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own session, and what it started there, and wait for it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # the group has ended already
        process.kill()
    process.wait()


def _stop(workers: Iterable[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # a fork of the owner inherits this finalizer, and must not stop the workers
        for worker in workers:
            worker.stop()


def _spread(
    doers: Sequence[Callable[[str, tuple[Any, ...]], Reply]], action: str, tasks: Sequence[tuple[Any, ...]]
) -> list[Reply]:
    """Replies in order; every doer has a thread and takes the next task when it is done with one."""
    replies: list[Reply] = [Reply(None, "not run")] * len(tasks)
    queue, lock = iter(enumerate(tasks)), threading.Lock()

    def work(do: Callable[[str, tuple[Any, ...]], Reply]) -> None:
        for i, task in _shared(queue, lock):
            replies[i] = do(action, task)

    # A worker that has no task is not started.
    busy = doers[: len(tasks)]
    if busy:
        with ThreadPoolExecutor(len(busy)) as threads:
            list(threads.map(work, busy))
    return replies


def _shared(queue: Any, lock: threading.Lock) -> Any:
    """The items of an iterator that several threads empty."""
    while True:
        with lock:
            try:
                item = next(queue)
            except StopIteration:
                return
        yield item
