"""SIGTERM stops a command like Ctrl-C does: workers are stopped and locks are released."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """Raised at SIGTERM."""


def interrupt_of(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt behind an error: Python 3.11 wraps one that comes while a class is made, as imports do."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def terminable() -> Generator[None]:
    """Raise :class:`Terminated` at SIGTERM, so that workers are stopped and locks freed; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, before)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
