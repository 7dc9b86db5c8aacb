"""Kill -9 at every file event of a command, once, twice and three times in a row; then let it end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers.modeling_utils

from torture.commands import COMMANDS, Command, difference, here, prepare, state
from torture.work import Tell, Unit, forked

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "torture.write")
OUTSIDE = "torture.write"
"""Files that Rust and C++ write raise no event of Python's: this one is raised for them."""
CHUNK = 12


class Events:
    """Counts the file events below a folder, and kills this process at one of them.

    Args:
        folder: where events count.
        at: the event at which the process dies, before it happens; 0 for none.
        note: file that keeps the count of events, or the file that was being written and its size before.
    """

    def __init__(self, folder: Path, at: int, note: Path) -> None:
        self.root, self.at = os.path.join(os.path.realpath(folder), ""), at
        self.count, self.inside, self.last = 0, False, ("", 0)
        self.note = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        _announce_foreign_writers()
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """The hook."""
        if self.inside or not (event in EVENTS or (event == "open" and (args[2] or 0) & WRITES)):
            return
        self.inside = True
        try:
            path = self._path(args, event)
            if path is not None and (path + "/").startswith(self.root):
                self.count += 1
                if self.count == self.at:
                    os.write(self.note, f"{self.last[1]} {self.last[0]}".encode())
                    os.kill(os.getpid(), signal.SIGKILL)
                if event in ("open", OUTSIDE):
                    self.last = (path, os.path.getsize(path) if os.path.isfile(path) else 0)
        finally:
            self.inside = False

    @staticmethod
    def _path(args: tuple[Any, ...], event: str) -> str | None:
        if not isinstance(args[0], (str, bytes, os.PathLike)):
            return None
        path = os.fsdecode(args[0])
        if event in ("os.remove", "os.rmdir", "os.mkdir") and args[-1] != -1 and not os.path.isabs(path):
            with suppress(OSError):
                path = os.path.join(os.readlink(f"/proc/self/fd/{args[-1]}"), path)
        return os.path.abspath(path)

    def done(self) -> None:
        """Keep the count."""
        os.write(self.note, str(self.count).encode())


def _announce_foreign_writers() -> None:
    def announcing(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            path = args[place] if len(args) > place else kwargs.get("filename", kwargs.get("f"))
            if isinstance(path, (str, os.PathLike)):
                sys.audit(OUTSIDE, os.fspath(path))
            return function(*args, **kwargs)

        return write

    torch.save = announcing(torch.save, 1)
    saving = announcing(safetensors.torch.save_file, 1)
    safetensors.torch.save_file = transformers.modeling_utils.safe_save_file = saving


def watched(command: Command, args: tuple[str, ...], at: int) -> Callable[[], int]:
    """The command in this process, killed at an event."""

    def run() -> int:
        events = Events(Path(command.folder), at, Path("events"))
        code = here(args, page=command.folder != "run")()
        events.done()
        return code

    return run


def reference(name: str, root: Path) -> tuple[dict[str, Any], int]:
    """The state that an uninterrupted run leaves, and how many events it has."""
    command, folder = COMMANDS[name], _room(root, name, "whole")
    code = _in(folder, watched(command, command.args, 0))
    if code != 0:
        raise RuntimeError(f"{name} fails without any kill: {(folder / 'log').read_text()[-3000:]}")
    return state(folder / command.folder), int((folder / "events").read_text())


def units(
    wanted: Mapping[str, tuple[dict[str, Any], int]], root: Path, *, stride: int, several: float, seed: int
) -> list[Unit]:
    """Trials of every command.

    Args:
        wanted: command -> the state that it leaves, and how many events it has.
        root: where they run.
        stride: kill at every event (1), or at each so many.
        several: trials with two and with three kills, as shares of those with one.
        seed: of the random places of second and third kills.
    """
    found: list[Unit] = []
    for name, (whole, events) in wanted.items():
        rng = random.Random(f"{seed} {name}")
        single = [[k] for k in range(1 + rng.randrange(stride), events + 1, stride)]
        more = max(2, round(several * len(single)))
        plans = single + [[rng.randint(1, events) for _ in range(n)] for n in (2, 3) for _ in range(more)]
        for i in range(0, len(plans), CHUNK):
            part = plans[i : i + CHUNK]
            cost = sum(1 + 0.7 * len(p) for p in part) * COMMANDS[name].seconds
            run = _trials(name, part, whole, root, f"{name} {i}")
            found.append(Unit(f"kill -9 at file events: {name}", f"{name}, kills {part}", cost, run, 1800 + 20 * cost))
    return found


def _trials(
    name: str, plans: list[list[int]], wanted: dict[str, Any], root: Path, label: str
) -> Callable[[Tell], None]:
    def run(tell: Tell) -> None:
        for number, kills in enumerate(plans):
            folder = _room(root, name, label.replace(" ", "-") + f"-{number}")
            trouble = _trial(COMMANDS[name], folder, kills, wanted, torn=bool((sum(kills) + number) % 2))
            tell(1, int(not trouble), trouble and f"{name} killed at events {kills}: {trouble}")
            if not trouble:
                shutil.rmtree(folder)

    return run


def _trial(command: Command, folder: Path, kills: list[int], wanted: dict[str, Any], *, torn: bool) -> str:
    """Kill, again and again, then go on to the end; what went wrong, or ""."""
    args = command.args
    for at in kills:
        code = _in(folder, watched(command, args, at))
        if code not in (-signal.SIGKILL, *command.done):
            return f"exit code {code} where it should have been killed at {at}: {_tail(folder)}"
        if code == -signal.SIGKILL and torn:
            _tear(folder / "events", at)
        args = command.again
    code = _in(folder, here(args, page=command.folder != "run"))
    if code not in command.done:
        return f"exit code {code} of the continuation: {_tail(folder)}"
    return difference(wanted, state(folder / command.folder))


def _tear(note: Path, seed: int) -> None:
    """A write that the kill met in its middle: the file that was written last loses some of its end."""
    size, _, path = note.read_text().partition(" ")
    if path and os.path.isfile(path):
        now = os.path.getsize(path)
        if now > int(size):
            os.truncate(path, random.Random(seed).randint(int(size), now))


def _room(root: Path, name: str, label: str) -> Path:
    folder = root / name.replace(" ", "-") / label
    shutil.rmtree(folder, ignore_errors=True)
    prepare(folder)
    if name == "report":
        shutil.copytree(root / "train-sft" / "whole" / "run", folder / "finished")
    return folder


def _in(folder: Path, run: Callable[[], int]) -> int:
    def inside() -> int:
        os.chdir(folder)
        return run()

    return forked(inside, folder / "log")


def _tail(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")[-1500:]
