"""The command line: ``operant train | evaluate | plan | audit | extrapolate | report | reproduce | demo``.

Each verb has one configuration class and one function.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from operant.cli.front import front
from operant.cli.settings import ReportConfig
from operant.core.extras import require

_DEMOS = {
    "training": "two-digit multiplication, cross-entropy and pass@64, a few minutes on two cores",
    "language": "spreadsheet steps in combinations that were never seen, a few minutes on two cores",
}


def train(config: Any) -> None:
    """Train, then report."""
    from operant.hf.train.run import run_training
    from operant.hf.workers import is_main

    folder = run_training(config)
    if is_main():
        _report(folder, open_page=False)


def evaluate(config: Any) -> None:
    """Evaluate, then report."""
    from operant.hf.rollouts.sweep.run import evaluate as run
    from operant.hf.workers import worker_pool

    with worker_pool(1) as pool:
        folder = pool.submit(run, config).result()
    _report(folder, open_page=False)


def plan(config: Any) -> None:
    """Plan, then show it."""
    from operant.hf.rollouts.plan import plan as run

    _report(run(config), open_page=config.open)


def audit(config: Any) -> None:
    """Audit, then show it."""
    from operant.core.record import claim_folder, write_records
    from operant.published import audit_records

    folder = config.output_dir
    records = audit_records(config.rules, strategy=config.strategy, transform=config.transform, n=config.n, m=config.m)
    with claim_folder(folder, "audit", asdict(config) | {"output_dir": str(folder)}):
        write_records(folder / "audit.jsonl", records)
    _report(folder, open_page=config.open)


def extrapolate(config: Any) -> None:
    """Explain and predict the targets, then show the page."""
    from operant.cli.kinds import of_kind
    from operant.hf.text_config import TextConfig

    chosen = of_kind(config)
    if isinstance(chosen, TextConfig):
        require("a bank of text tasks", "hf", "report")
        from operant.language.command.run import extrapolate as run_text

        folder = run_text(chosen)
    else:
        from rich.console import Console

        from operant.relational.run import extrapolate as run

        with Console(stderr=True).status("reading") as status:
            folder = run(chosen, status.update)
    _report(folder, open_page=config.open)


def reproduce(config: Any) -> None:
    """Run the claims of the papers, then show their verdicts."""
    from operant.reproduce.run import reproduce as run

    folder = run(config)
    if folder is not None:
        _report(folder, open_page=config.open)


def report(config: ReportConfig) -> None:
    """Write the page."""
    _report(config.run_dir, open_page=config.open, out_dir=config.out_dir)


def demo(config: Any) -> None:
    """Train the embedded model with cross-entropy and for a strategy, or on text tasks, and show the page."""
    # The libraries take seconds to load: without a line nothing would seem to happen.
    print(f"operant demo: {_DEMOS[config.what]}; loading the libraries ...", flush=True)
    if config.what == "language":
        from operant.language.command.demo import language_demo

        _report(language_demo(config), open_page=config.open)
        return
    from operant.hf.train.run import run_training
    from operant.hf.train.settings import demo_config

    _report(run_training(demo_config(config)), open_page=config.open)


def main(args: list[str] | None = None) -> int:
    """Run the command line. A fault that is no bug of operant is one line on stderr and exit code 2."""
    given = sys.argv[1:] if args is None else args
    shown = front(given)
    if shown is not None:
        print(shown.text, file=sys.stderr if shown.code else sys.stdout)
        return shown.code
    from operant.core.checks import ParseError
    from operant.core.stop import Terminated, interrupt_of, terminable
    from operant.core.trouble import told

    verb, config = f" {given[0]}", None
    try:
        config_class, settings = _parsed(given)
        with terminable():
            config = config_class(**settings)
            FUNCTIONS[given[0]](config)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        stop = interrupt_of(error)
        if stop is None:
            text = told(error)
            if text is None:
                raise  # a bug of operant
            line = text if isinstance(error, ParseError) else " ".join(text.split())
            print(f"operant{verb}: {line}", file=sys.stderr)
            return 2
        again = " Continue with --resume true." if getattr(config, "resumable", hasattr(config, "resume")) else ""
        print(f"operant{verb}: stopped.{again}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    return 0


def _parsed(given: list[str]) -> tuple[Any, dict[str, Any]]:
    """The configuration class of a verb, and its settings; what the verb lacks is said before anything runs."""
    extras = ("report",) if given[0] in ("plan", "audit", "extrapolate", "report") else ("hf", "report")
    try:
        from operant.cli.parser import parsed
    except ImportError:  # of jsonargparse: --help needs nothing else
        require("the command", *extras)
        raise
    found = parsed(given)
    if given[0] not in (
        "plan",
        "audit",
        "report",
    ):  # these print their table in seconds, and only the page needs Altair
        require("the command", *extras)
    return found


FUNCTIONS: dict[str, Callable[[Any], None]] = {
    "train": train,
    "evaluate": evaluate,
    "plan": plan,
    "audit": audit,
    "extrapolate": extrapolate,
    "report": report,
    "reproduce": reproduce,
    "demo": demo,
}


def _report(folder: Path, *, open_page: bool, out_dir: Path | None = None) -> None:
    from operant.report import summary_table, write_report

    print(summary_table(folder))
    page = write_report(folder, out_dir).resolve()
    print(f"page: {page}")
    if open_page and _has_browser():
        webbrowser.open(page.as_uri())


def _has_browser() -> bool:
    """Whether a page can be shown: on Linux without a display, Python would start a text browser in the terminal."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and (not sys.platform.startswith("linux") or bool(display))
