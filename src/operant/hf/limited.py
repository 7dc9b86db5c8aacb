"""The script of a process that runs one Python program under limits; see operant.hf.code for what they are worth."""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS = {
    **dict.fromkeys(["os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.utime", "shutil.rmtree"], 1),
    "os.rename": 2,
}
"""Events that change files -> how many of their arguments are paths."""
NEVER = (
    *("os.fork", "os.exec", "os.spawn", "os.posix_spawn", "os.system", "os.kill", "os.link", "os.symlink", "os.chown"),
    *("subprocess.", "pty.", "socket."),
)
"""Beginnings of the events that are refused whatever their arguments."""


def guard(folder: str) -> None:
    """Refuse other processes, the network, and changes to files outside the folder, from here on."""
    root = os.path.join(os.path.realpath(folder), "")

    def inside(path: Any) -> bool:
        if isinstance(path, int):
            return True  # a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or os.path.join(real, "").startswith(root)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        paths: tuple[Any, ...] = ()
        if event == "open" and arguments[2] is not None and arguments[2] & WRITES:
            paths = arguments[:1]
        elif event in PATHS:
            paths = arguments[: PATHS[event]]
        if event.startswith(NEVER) or not all(inside(path) for path in paths):
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(hook)


def main() -> None:
    """Read the program from standard input, run it, and write the password back if it ran to its end."""
    order = json.loads(sys.stdin.buffer.read())
    out = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    for limit, value in (
        (resource.RLIMIT_CPU, order["seconds"]),
        (resource.RLIMIT_AS, order["bytes"]),
        (resource.RLIMIT_FSIZE, order["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    guard(os.getcwd())
    os.write(out, b"+")
    try:
        exec(compile(order["program"], "<program>", "exec"), {"__name__": "program"})
    except BaseException:
        os._exit(1)
    os.write(out, order["password"].encode())
    os._exit(0)


if __name__ == "__main__":
    main()
