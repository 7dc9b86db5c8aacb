"""The script of a process that runs one Python program under limits. operant.verify.code lists what they stop."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FOLDERS = os.O_DIRECTORY | getattr(os, "O_PATH", 0)  # macOS has no O_PATH
# Audit events that change files -> the positions of their paths, and of the folders that these are relative to.
_PATHS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.chmod": ((0, 2),),
    "os.utime": ((0, 3),),
    "os.truncate": ((0, None),),
    "os.setxattr": ((0, None),),
    "os.removexattr": ((0, None),),
    "shutil.rmtree": ((0, None),),
}
# Prefixes of the audit events that are refused whatever their arguments.
_NEVER = (
    *("os.fork", "os.exec", "os.spawn", "os.posix_spawn", "os.system", "os.kill", "os.link", "os.symlink", "os.chown"),
    *("signal.pthread_kill", "signal.pidfd_send_signal", "subprocess.", "pty.", "socket.", "syslog.", "fcntl.ioctl"),
    *("sqlite3.", "resource.setrlimit", "resource.prlimit", "ctypes.dlsym", "ctypes.call_function", "ctypes.cdata"),
    *("ctypes.string_at", "ctypes.wstring_at"),
)
# Functions of os that change something outside and raise no audit event. They are replaced.
_SILENT = (
    *(
        "mkfifo",
        "mknod",
        "setpriority",
        "sched_setaffinity",
        "sched_setscheduler",
        "sched_setparam",
        "setsid",
        "setpgid",
    ),
    *("pidfd_open", "unshare", "setns", "chroot"),
)
# Extension modules that write files without an audit event.
_MODULES = ("_posixshmem", "_multiprocessing", "_gdbm", "_dbm")
# CLONE_NEWUSER, NEWNS, NEWPID, NEWNET and NEWIPC of unshare(2), which Python 3.11 has no names for.
_NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000
_MS_REC_PRIVATE = 0x4000 | 0x40000
# Threads and processes of a program in namespaces of its own: enough for a thread pool, and a fork bomb ends at
# once. The kernel does not count those of root.
_PROCESSES = 64


def _guard(folder: str) -> None:
    """Refuse other processes, the network, and changes to files outside the folder, from here on."""
    root = os.path.join(os.path.realpath(folder), "")
    mine = os.path.realpath("/proc/self")

    def real(path: Any, beside: Any = None) -> str:
        if isinstance(beside, int) and beside >= 0:
            path = os.path.join(f"/proc/self/fd/{beside}", os.fsdecode(path))
        return os.path.realpath(os.fsdecode(path))

    def inside(path: Any, beside: Any = None) -> bool:
        if isinstance(path, int):
            return True  # a file that is open already
        found = real(path, beside)
        return found == os.devnull or os.path.join(found, "").startswith(root)

    def may_open(path: Any, mode: Any, flags: int) -> bool:
        if isinstance(path, int):
            return True
        if mode is None and not os.path.isabs(path) and ".." in os.fsdecode(path).split("/"):
            return False  # of os.open, which does not say which folder the path is relative to
        if flags & (_WRITES | _FOLDERS) or (mode is None and os.path.isdir(path)):
            return inside(path)
        found = real(path)
        return not found.startswith("/proc/") or found.startswith(mine) or not found.split("/")[2].isdigit()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] is not None:
            allowed = may_open(*arguments)
        elif event in _PATHS:
            allowed = all(inside(arguments[i], j and arguments[j]) for i, j in _PATHS[event])
        elif event == "import":
            allowed = arguments[0] not in _MODULES
        else:
            allowed = not event.startswith(_NEVER) and (event != "ctypes.dlopen" or arguments[0] is None)
        if not allowed:
            raise PermissionError(f"{event} is not allowed here")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("this function is not allowed here")

    for module in (os, sys.modules["posix"]):
        for name in _SILENT:
            if hasattr(module, name):
                setattr(module, name, refused)
    sys.addaudithook(hook)


def _isolate(folder: str, file_bytes: int) -> None:
    """Go on in namespaces of its own, as a new process: no network, no other process, nothing to write but the folder.

    Everything mounted becomes read-only, and the folder a file system in memory of four times ``file_bytes``.

    Raises:
        OSError: if the kernel does not let this user make namespaces.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: Any, *arguments: Any) -> None:
        if function(*arguments) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def mount(source: bytes, where: str, kind: bytes, flags: int, data: bytes | None = None) -> None:
        call(libc.mount, source, os.fsencode(where), kind, ctypes.c_ulong(flags), data)

    user, group = os.getuid(), os.getgid()
    call(libc.unshare, _NEW_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    mount(b"none", "/", b"", _MS_REC_PRIVATE)
    child = os.fork()
    if child:  # the first process of the new process namespace does the rest
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    call(libc.prctl, 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    readonly = (ctypes.c_uint64 * 4)(1, 0, 0, 0)  # MOUNT_ATTR_RDONLY is set
    call(libc.syscall, 442, -100, b"/", 0x8000, readonly, ctypes.c_size_t(32))  # mount_setattr, AT_RECURSIVE
    mount(b"tmpfs", folder, b"tmpfs", 0, f"size={4 * file_bytes},nr_inodes=10000,mode=700".encode())
    os.chdir(folder)
    try:
        mount(b"proc", "/proc", b"proc", 0)
    except OSError:  # a container that hides parts of its own /proc
        mount(b"tmpfs", "/proc", b"tmpfs", 1)
    call(libc.prctl, 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    call(libc.capset, (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # without capabilities


def main() -> None:
    """Read the program from standard input, run it, and write the password back if it ran to its end."""
    order = json.loads(sys.stdin.buffer.read())
    leave, write = os._exit, os.write  # the program may replace those of os
    out = os.dup(1)
    # Input, output and errors go nowhere: a program that prints must not write into the reply.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    limits = [
        (resource.RLIMIT_CPU, order["seconds"]),
        (resource.RLIMIT_FSIZE, order["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ]
    if sys.platform != "darwin":  # macOS refuses any limit of the address space (python/cpython#78783)
        limits.append((resource.RLIMIT_AS, order["bytes"]))
    if order["isolated"]:
        _isolate(os.getcwd(), order["file_bytes"])
        limits.append((resource.RLIMIT_NPROC, _PROCESSES))
    for limit, value in limits:
        resource.setrlimit(limit, (value, value))
    _guard(os.getcwd())
    write(out, b"+")
    try:
        exec(compile(order["program"], "<program>", "exec"), {"__name__": "program"})
    except BaseException:
        leave(1)
    else:
        write(out, order["password"].encode())
        leave(0)


if __name__ == "__main__":
    main()
