"""Lines in the place of bars where nothing can be drawn."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from operant.core import progress
from operant.core.progress import LoggedProgress, track


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=40, force_terminal=terminal)


def text(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def test_a_log_file_gets_a_line_for_each_task_that_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    log = console()
    with LoggedProgress("{task.description}", console=log) as bars:
        first = bars.add_task("seed 0 · ce", total=60, told="pass@1 2.3  pass@64 50.6")
        bars.add_task("targets", total=4, visible=False)
        bars.update(first, completed=30)
        assert text(log) == "seed 0 · ce: 30 of 60  pass@1 2.3  pass@64 50.6\n"
        bars.update(first, completed=30)
        assert text(log).count("seed 0") == 1  # nothing has moved
        bars.advance(first, 30)
        assert "60 of 60" not in text(log)  # who is done says so otherwise


def test_a_line_at_most_once_a_minute_and_bars_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    log, drawn = console(), console(terminal=True)
    for out in (log, drawn):
        now[0] = 0.0
        with LoggedProgress("{task.description}", console=out) as bars:
            task = bars.add_task("sampling", total=100)
            for done in range(1, 91):
                now[0] = 2.0 * done
                bars.update(task, completed=done)
    assert [line.split(",")[0] for line in text(log).splitlines()[:3]] == [
        f"sampling: {n} of 100" for n in (30, 60, 90)
    ]
    assert " of 100" not in text(drawn)


def test_track_gives_the_items() -> None:
    assert list(track([1, 2, 3], "x")) == [1, 2, 3] and list(track(iter("ab"), "x", total=2)) == ["a", "b"]
