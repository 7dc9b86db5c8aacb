"""Worker processes for training and sampling, the CPU cores for them, and the processes of a launcher."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched() -> bool:
    """Whether a launcher (``accelerate launch``, ``torchrun``) started this process as one of several, or of one."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def world_size() -> int:
    """Number of processes that the launcher started; 1 without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def rank() -> int:
    """Index of this process among those of the launcher; 0 without a launcher."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """Index of this process on its machine, which is also the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched() else 0


def is_main() -> bool:
    """Whether this process writes records and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait for the other processes of the launcher."""
    if world_size() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


class _Executor(ProcessPoolExecutor):
    """Workers that ignore Ctrl-C: the main process receives it as well, and stops them."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit with SIGINT blocked, because a process that this starts inherits the mask."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker_pool(count: int, *, threads: int | None = None) -> Generator[ProcessPoolExecutor]:
    """A pool of processes whose OpenMP threads sleep while they wait: spinning slows small steps 4 to 20 times.

    OpenMP reads its settings when it is loaded, and ``import torch`` has loaded it in this process: hence new ones.
    If the block ends by an error or Ctrl-C, the workers are stopped at once and waited for. If this process is
    killed, they stop by themselves.

    Args:
        count: number of processes.
        threads: CPU threads of each process; default one per core.
    """
    settings = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    if threads is not None:
        settings["OMP_NUM_THREADS"] = str(threads)
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    context = get_context("spawn")
    alive, owner = context.Pipe(duplex=False)
    pool = _Executor(count, mp_context=context, initializer=_end_with_owner, initargs=(alive,))
    try:
        yield pool
    except BaseException:
        owner.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        owner.close()
        alive.close()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with_owner(alive: Connection[Any, Any]) -> None:
    """End this worker when its owner ends, so that it does not write into a folder that a resumed run has claimed."""

    def watch() -> None:
        alive.poll(None)  # nothing is sent: it returns when the owner's end is closed
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
