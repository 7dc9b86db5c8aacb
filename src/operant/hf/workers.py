"""Worker processes for training and sampling, the cores there are for them, and the processes of a launcher."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched() -> bool:
    """Whether a launcher (``accelerate launch``, ``torchrun``) started this process as one of several, or of one."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def world_size() -> int:
    """Processes of the launcher; 1 without one."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def rank() -> int:
    """Number of this process among them."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """Number of this process on its machine, which is that of its GPU."""
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


@contextmanager
def workers(count: int, *, threads: int | None = None) -> Generator[ProcessPoolExecutor]:
    """Processes whose OpenMP threads sleep while they wait: spinning slows small steps 4 to 20 times.

    OpenMP reads its settings when it is loaded, which ``import torch`` has done here already: hence new processes.

    Args:
        count: how many.
        threads: CPU threads of each; default one per core.
    """
    settings = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    if threads is not None:
        settings["OMP_NUM_THREADS"] = str(threads)
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with_parent() -> None:
    """A worker whose parent was killed must not write on into a folder that a resumed run now owns."""
    parent = parent_process()
    assert parent is not None  # this runs in a worker only

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
