"""The script of a worker process: it makes one grader, then answers tasks, plain values in and plain values out.

It imports nothing of operant but the files beside it, so that a worker starts without torch, and nothing of the
caller's main module.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any


def neighbor(name: str) -> ModuleType:
    """A file beside this one, in a package that has the files of this folder and not operant's ``__init__``."""
    package = sys.modules.setdefault("_operant_verify", ModuleType("_operant_verify"))
    package.__path__ = [str(Path(__file__).parent)]
    return importlib.import_module(f"{package.__name__}.{name}")


def serve(pipe: Connection[Any, Any]) -> None:
    """Make the grader, then answer tasks until the other end of the pipe is gone."""
    spec, path, seconds = pipe.recv()
    # The caller's path: a user's module is found where the caller finds it.
    sys.path[:] = path
    failure_of = neighbor("grader").failure_of
    try:
        actions = neighbor("registry").actions_of(spec, seconds)
    except BaseException as error:  # a user's module may raise anything, which the parent reports
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send("")
    while True:
        try:
            action, task = pipe.recv()
        except EOFError:
            return
        faulthandler.dump_traceback_later(2 * seconds + 5, exit=True)  # for a parent that is not there to kill
        try:
            reply = (actions[action](*task), "")
        except BaseException as error:  # math-verify's timeout and SystemExit are no Exceptions
            reply = (None, failure_of(error))
        faulthandler.cancel_dump_traceback_later()
        pipe.send(reply)


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[1]), False)
    with Connection(int(sys.argv[1])) as end:
        serve(end)
