"""A disk that fills up in the middle of a command, and folders that cannot be written: in a mount namespace."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture.commands import COMMANDS, difference, here, prepare, state
from torture.work import Tell, Unit, forked

NEWNS, NEWUSER = 0x20000, 0x10000000
RDONLY, REMOUNT = 1, 32
FULL = ("train sft", "train grpo", "evaluate", "plan", "audit", "extrapolate", "report")
LIBC = ctypes.CDLL(None, use_errno=True)


def namespace() -> None:
    """Mounts of this process are its own from here on.

    Raises:
        OSError: where the kernel does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    _call(LIBC.unshare(NEWNS | (NEWUSER if user else 0)))
    if user:
        for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path(f"/proc/self/{name}").write_text(line)
    _call(LIBC.mount(b"none", b"/", None, 1 << 14 | 1 << 18, None))  # private, all below it


def mount(folder: Path, options: str, flags: int = 0) -> None:
    """A file system in memory with a size."""
    _call(LIBC.mount(b"tmpfs", bytes(folder), b"tmpfs", flags, options.encode()))


def _call(code: int) -> None:
    if code:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def units(root: Path, wanted: dict[str, dict[str, Any]], *, each: int, seed: int) -> list[Unit]:
    """Every command on disks of ``each`` sizes, and in a folder that cannot be written."""
    found: list[Unit] = []
    for name in FULL:
        rng = random.Random(f"{seed} {name}")
        most = _size(root / name.replace(" ", "-") / "whole" / COMMANDS[name].folder)
        room = [4096 * max(1, round(most / 4096 * rng.uniform(0.01, 0.98))) for _ in range(each)]
        cost = 2.0 * each * COMMANDS[name].seconds
        full, closed = _full_trials(name, room, root, wanted[name]), _read_only(name, root)
        found.append(Unit("disk full, then space again", f"{name}, {room} bytes", cost, full, 1800 + 20 * cost))
        found.append(Unit("folder that cannot be written", name, COMMANDS[name].seconds, closed))
    return found


def _full_trials(name: str, rooms: list[int], root: Path, wanted: dict[str, Any]) -> Callable[[Tell], None]:
    def run(tell: Tell) -> None:
        namespace()
        for room in rooms:
            trouble = _full(name, room, root, wanted)
            tell(1, int(not trouble), trouble and f"{name} with room for {room} bytes: {trouble}")

    return run


def _full(name: str, room: int, root: Path, wanted: dict[str, Any]) -> str:
    """Run on a disk with so much room, then again with more; what went wrong, or ""."""
    command, disk, log = COMMANDS[name], root / "disk" / name.replace(" ", "-"), root / "disk" / f"{name}.log"
    used = _disk(name, root, disk, log)
    try:
        mount(disk, f"size={used + room}", REMOUNT)
        code = _in(disk, log, here(command.args, page=name == "report"))
        if code != 0 and (code != 2 or not _one_line(log)):
            return f"exit code {code}: {_tail(log)}"
        mount(disk, f"size={1 << 30}", REMOUNT)
        code = _in(disk, log, here(command.again, page=name == "report"))
        if code not in command.done:
            return f"exit code {code} of the continuation: {_tail(log)}"
        return difference(wanted, state(disk / command.folder))
    finally:
        LIBC.umount2(bytes(disk), 2)


def _read_only(name: str, root: Path) -> Callable[[Tell], None]:
    def run(tell: Tell) -> None:
        namespace()
        disk, log = root / "closed" / name.replace(" ", "-"), root / "closed" / f"{name}.log"
        _disk(name, root, disk, log)
        mount(disk, "", REMOUNT | RDONLY)
        code = _in(disk, log, here(COMMANDS[name].args, page=name == "report"))
        good = code == 2 and _one_line(log) and "read-only file system" in _tail(log)
        tell(1, int(good), None if good else f"{name}, read-only: exit code {code}: {_tail(log)}")

    return run


def _disk(name: str, root: Path, disk: Path, log: Path) -> int:
    """A file system in memory with what the command reads; how much of it is used."""
    disk.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    mount(disk, "size=1g")
    prepare(disk)
    if name == "report":
        shutil.copytree(root / "train-sft" / "whole" / "run", disk / "finished")
    space = os.statvfs(disk)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def _size(folder: Path) -> int:
    """Bytes in blocks of 4096, as a file system in memory counts them."""
    return sum(4096 * -(-p.stat().st_size // 4096) for p in folder.rglob("*") if p.is_file())


def _one_line(log: Path) -> bool:
    """Whether operant said one line, and Python no traceback. The libraries may have said something before."""
    said = [line for line in _tail(log).splitlines() if line.startswith(("operant ", "Traceback"))]
    return len(said) == 1 and said[0].startswith("operant ")


def _in(folder: Path, log: Path, run: Callable[[], int]) -> int:
    log.unlink(missing_ok=True)

    def inside() -> int:
        os.chdir(folder)
        return run()

    return forked(inside, log)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2500:]
