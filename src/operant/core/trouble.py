"""Errors with a cause outside operant, as one line: a full disk, a read-only folder, no memory, a killed worker."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Generator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from operant.core.checks import OperantError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
# How safetensors and tokenizers end the text of an input/output error; they have no OSError.
_RUST = re.compile(r"\(os error (\d+)\)")
_TORCH_WRITER = ("PytorchStreamWriter failed", "inline_container", "basic_ios::clear: iostream error")
_NO_MEMORY = ("can't allocate memory", "CUDA out of memory")


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Give an OSError that names no file this one: a failed write or flush says only what happened."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def told(error: BaseException) -> str | None:
    """What caused an error outside operant and what to do, in one line; None for an error that may be a bug."""
    if isinstance(error, (OperantError, ImportError)):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return _of_file(error.errno, None if error.filename is None else os.fsdecode(error.filename))
    if isinstance(error, BrokenProcessPool):
        return (
            "a worker process was killed, usually because memory ran out. Lower the batch size, the number of jobs or "
            "of rollouts"
        )
    text = " ".join(str(error).split())
    if isinstance(error, (MemoryError, *_out_of_memory())) or any(sign in text for sign in _NO_MEMORY):
        return f"out of memory{f' ({text})' if text else ''}. Lower the batch size or the number of rollouts"
    if found := _RUST.search(text):
        return _of_file(int(found[1]), None)
    if isinstance(error, RuntimeError) and any(sign in text for sign in _TORCH_WRITER):
        return f"a file could not be written, most often because the disk is full ({text[:120]}). Free some space"
    return None


def _out_of_memory() -> tuple[type[BaseException], ...]:
    """torch's own class, if something has imported torch: an error in the settings need not wait for it."""
    torch = sys.modules.get("torch")
    return () if torch is None else (torch.OutOfMemoryError,)


def _of_file(number: int, path: str | None) -> str:
    """``runs/a/record.jsonl: no space left on device. Free some space``."""
    reason = os.strerror(number)
    reason = f"{path}: {reason[:1].lower()}{reason[1:]}" if path else reason
    if number in _FULL:
        return f"{reason}. Free some space"
    if number in _CLOSED:
        return f"{reason}. Choose a folder that you can write to, or change its permissions"
    return f"{reason}. Check the path and the disk"
