"""The bars of jobs: one for all beside the current one, and no line longer than 100 columns."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from operant.core import progress
from operant.hf.config import DemoConfig
from operant.hf.progress import bars, cut, fitting
from operant.hf.train.run import make_jobs
from operant.hf.train.settings import demo_config

CURVE = ["pass@1 98.2", "pass@4 97.3", "pass@16 97.3", "pass@64 96.1", "pass@256 91.5"]


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "\n", console.file.getvalue()).replace("\r", "\n").split("\n")


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)


@pytest.mark.parametrize("width", [100, 140])
def test_the_demo_fits_100_columns(width: int) -> None:
    jobs, console = make_jobs(demo_config(DemoConfig())), terminal(width)
    steps = {job.label: job.steps for job in jobs}
    with bars(console, steps, {}) as shown:
        for name, count in steps.items():
            shown.start(name)
            shown.show(name, count, CURVE)
            shown._progress.refresh()
            shown.end(name)
    told = [line.rstrip() for line in lines(console)]
    assert max(map(len, told)) <= 100, max(told, key=len)
    current = [line for line in told if line.startswith("seed 10 · pass@64") and "300/300" in line][-1]
    assert current.endswith("pass@1 98.2  pass@4 97.3  …  pass@256 91.5")
    assert f"done: seed 10 · pass@64  {'  '.join(CURVE)}" in told
    whole = [line for line in told if line.startswith("all 24 jobs")]
    assert whole and f"{8 * 500 + 16 * 300}/{8 * 500 + 16 * 300}" in whole[-1]


def test_a_log_file_has_room_for_all_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    console = Console(file=io.StringIO(), width=80)
    with bars(console, {"seed 10 · pass@64": 10}, {}) as shown:
        shown.start("seed 10 · pass@64")
        shown.show("seed 10 · pass@64", 5, CURVE)
    assert any(line.endswith("  ".join(CURVE)) for line in lines(console))


def test_the_bar_of_all_jobs_counts_what_was_done_before() -> None:
    with bars(terminal(100), {"a": 10, "b": 30, "c": 0}, {"a": 10}) as shown:
        (whole,) = shown._progress.tasks
        assert (whole.completed, whole.total) == (10, 41)
        shown.start("b")
        shown.show("b", 15, [])
        assert whole.completed == 25
        shown.end("b")
        assert whole.completed == 40 and [task.description for task in shown._progress.tasks] == ["all 3 jobs"]


def test_one_job_has_one_bar_and_a_name_may_hold_brackets() -> None:
    console = terminal(100)
    with bars(console, {"[red]a": 10}, {}) as shown:
        shown.start("[red]a")
        assert len(shown._progress.tasks) == 1
        shown.end("[red]a", "[bold]diverged")
    assert "done: [red]a  [bold]diverged" in [line.rstrip() for line in lines(console)]


@pytest.mark.parametrize("room", range(1, 90))
def test_as_many_entries_as_fit(room: int) -> None:
    text = fitting(CURVE, room)
    assert len(text) <= room and (text == "  ".join(CURVE)) == (room >= len("  ".join(CURVE)))
    assert room < len(CURVE[-1]) or text.endswith(CURVE[-1])
    assert fitting([], room) == ""


def test_a_name_is_cut() -> None:
    assert cut("abc", 3) == "abc" and cut("abcd", 3) == "ab…"
