"""Progress of jobs in the terminal: a bar for each that runs, and above them one for all, within 100 columns."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from operant.core.progress import LoggedProgress

_WIDTH = 100
_NAME = 32
# Columns of a bar, of "1000/1000", of the time that is left, and of the four spaces between them.
_BAR, _REST = 16, 16 + 9 + 7 + 4
# Seconds over which the speed is measured: jobs take half a minute in the demo, and evaluations come between.
_PERIOD = 300.0


class Bars:
    """The bars of jobs with a known number of steps.

    Args:
        progress: where they are drawn.
        steps: job -> its steps, for all jobs of the run.
        done: job -> steps that are done before this session.
    """

    def __init__(self, progress: Progress, steps: Mapping[str, int], done: Mapping[str, int]) -> None:
        self._progress, self._steps = progress, {name: max(count, 1) for name, count in steps.items()}
        self._done = {name: min(done.get(name, 0), count) for name, count in self._steps.items()}
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, Sequence[str]] = {}
        whole, ready = sum(self._steps.values()), sum(self._done.values())
        title = f"all {len(steps)} jobs"
        self._whole = progress.add_task(title, total=whole, completed=ready, told="") if len(steps) > 1 else None

    @property
    def console(self) -> Console:
        """Where lines are printed above the bars."""
        return self._progress.console

    def start(self, name: str) -> None:
        """A bar for a job."""
        self._tasks[name] = self._progress.add_task(cut(name, _NAME), total=self._steps[name], told="")

    def show(self, name: str, step: int, told: Sequence[str]) -> None:
        """The steps of a job, and what was measured: in a terminal as many entries as the line has room for."""
        self._done[name], self._told[name] = min(step, self._steps[name]), told
        room = _WIDTH - _REST - len(cut(name, _NAME))
        text = fitting(told, room) if self.console.is_terminal else "  ".join(told)
        self._progress.update(self._tasks[name], completed=step, told=text)
        if self._whole is not None:
            self._progress.update(self._whole, completed=sum(self._done.values()))

    def end(self, name: str, result: str = "") -> None:
        """A line with the result of a job, by default with all that was measured, in the place of its bar."""
        line = f"done: {name}  {result or '  '.join(self._told.get(name, ()))}"
        self.console.print(line, soft_wrap=True, markup=False)
        self._done[name] = self._steps[name]
        self._progress.remove_task(self._tasks.pop(name))
        if self._whole is not None:
            self._progress.update(self._whole, completed=sum(self._done.values()))


@contextmanager
def bars(console: Console, steps: Mapping[str, int], done: Mapping[str, int]) -> Generator[Bars]:
    """Bars that are drawn until the block ends; see :class:`Bars`."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    )
    with LoggedProgress(*columns, console=console, speed_estimate_period=_PERIOD) as progress:
        yield Bars(progress, steps, done)


def cut(text: str, room: int) -> str:
    """The text, with an ellipsis where it is longer than ``room``."""
    return text if len(text) <= room else text[: room - 1] + "…"


def fitting(entries: Sequence[str], room: int) -> str:
    """As many of the entries as fit, the first and the last ones first.

    >>> fitting(["pass@1 3.1", "pass@4 9.6", "pass@16 25.9", "pass@64 53.7"], 40)
    'pass@1 3.1  pass@4 9.6  …  pass@64 53.7'
    """
    if len("  ".join(entries)) <= room:
        return "  ".join(entries)
    head, last = list(entries[:-1]), entries[-1]
    while head:
        text = "  ".join([*head, "…", last])
        if len(text) <= room:
            return text
        head.pop()
    return cut(last, room)
