"""Progress of long work: bars in a terminal; elsewhere, as in a log file, a line a minute, where rich draws nothing.

The one module of core that needs rich, which the extras hf and report bring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from time import monotonic
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID

_EVERY = 60.0
"""Seconds between two looks that may print."""
T = TypeVar("T")


class LoggedProgress(Progress):
    """rich's bars; where its console is no terminal, each task that has moved is a line, at most one a minute."""

    def __init__(self, *columns: str | ProgressColumn, console: Console | None = None, **settings: Any) -> None:
        super().__init__(*columns, console=console, **settings)
        self._looked, self._printed = monotonic(), dict[TaskID, str]()

    def update(self, task_id: TaskID, *args: Any, **fields: Any) -> None:
        """As rich's, then the line."""
        super().update(task_id, *args, **fields)
        self._log()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's, then the line."""
        super().advance(task_id, advance)
        self._log()

    def _log(self) -> None:
        if self.console.is_terminal or self.console.is_jupyter or monotonic() - self._looked < _EVERY:
            return
        self._looked = monotonic()
        for task in self.tasks:
            if task.visible and not task.finished and self._printed.get(task.id) != (text := _line(task)):
                self._printed[task.id] = text
                self.console.print(text, soft_wrap=True, highlight=False, markup=False)


def _line(task: Task) -> str:
    left = "" if task.time_remaining is None else f", {timedelta(seconds=int(task.time_remaining))} left"
    told = "".join(f"  {value}" for value in task.fields.values() if value)
    return f"{task.description}: {task.completed:g} of {task.total or 0:g}{left}{told}"


def track(items: Iterable[T], description: str, total: float | None = None) -> Iterator[T]:
    """The items, with a bar or lines for those that are done; ``total`` where they have no length."""
    with LoggedProgress() as progress:
        yield from progress.track(items, total=total, description=description)
