"""The command line: ``operant train | evaluate | plan | audit | extrapolate | report | demo``.

Each verb has one configuration class and one function.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

try:
    from jsonargparse import (
        ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]
        ArgumentParser,
        DefaultHelpFormatter,
    )

    from operant.cli.arguments import check_arguments
except ImportError as error:
    sys.exit(f"operant: the command line needs the extras: pip install 'operant[hf,report]' ({error})")

from operant.cli.texts import AUDIT, DEMO, EVALUATE, EXTRAPOLATE, PLAN, REPORT, TRAIN, WHAT
from operant.core.checks import DataError, ParseError
from operant.core.stop import Terminated, interrupt_of, terminable
from operant.core.trouble import told


class _Formatter(DefaultHelpFormatter):
    """Keeps the line breaks of a description, so that its examples can be read and copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


@dataclass(frozen=True)
class ReportConfig:
    """The settings of the report.

    Args:
        run_dir: folder of a run of train, evaluate, plan, audit, extrapolate or demo.
        out_dir: folder of the page. Default: report/ inside run_dir.
        open: whether to open the page in a browser.
    """

    run_dir: Path
    out_dir: Path | None = None
    open: bool = False


def train(config: Any) -> None:
    """Train, then report."""
    from operant.hf.train.run import run_training
    from operant.hf.workers import is_main

    folder = run_training(config)
    if is_main():
        _report(folder, open_page=False)


def evaluate(config: Any) -> None:
    """Evaluate, then report."""
    from operant.hf.rollouts.evaluate import evaluate as run
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
        from operant.language.command.run import extrapolate as run_text

        folder = run_text(chosen)
    else:
        from rich.console import Console

        from operant.relational.run import extrapolate as run

        with Console(stderr=True).status("reading") as status:
            folder = run(chosen, status.update)
    _report(folder, open_page=config.open)


def report(config: ReportConfig) -> None:
    """Write the page."""
    _report(config.run_dir, open_page=config.open, out_dir=config.out_dir)


def demo(config: Any) -> None:
    """Train the embedded model with cross-entropy and for a strategy, or on text tasks, and show the page."""
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
    parser, verbs = parser_of_verbs()
    verb, config = "", None
    try:
        check_arguments(given)
        chosen = parser.parse_args(given)
        verb = f" {chosen.verb}"
        config_class, function = verbs[chosen.verb]
        settings = settings_of(parser, chosen, config_class)
        with terminable():
            config = config_class(**settings)
            function(config)
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


class _Parser(ArgumentParser):
    """Prints an error as one line, without the usage text, which lists a hundred settings."""

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """Parse; an integer that no float holds is an error of the settings."""
        try:
            return super().parse_args(*args, **options)
        except OverflowError as error:
            self.error(f"a number in the settings is too large ({error})")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave."""
        parser = getattr(ex, "subcommand_parser", None) or self
        name = parser.prog.replace(" [options]", "")
        line = " ".join(message.replace('Parser key "', '"').split()).rstrip(".")
        print(f"{name}: {line}. The settings: {name} --help", file=sys.stderr)
        self.exit(2)


def parser_of_verbs() -> tuple[ArgumentParser, dict[str, tuple[Any, Any]]]:
    """The parser, and verb -> (its config, its function)."""
    from operant.cli.kinds import ExtrapolateSettings, groups
    from operant.hf.config import DemoConfig, EvaluateConfig, PlanConfig, TrainConfig
    from operant.published.audit import AuditConfig

    parser = _Parser(
        prog="operant",
        description="Train models for the way they will be used.",
        version=version("operant"),
        formatter_class=_Formatter,
    )
    verbs = parser.add_subcommands(required=True, dest="verb")
    actions: dict[str, tuple[Any, Any, str]] = {
        "train": (TrainConfig, train, TRAIN),
        "evaluate": (EvaluateConfig, evaluate, EVALUATE),
        "plan": (PlanConfig, plan, PLAN),
        "audit": (AuditConfig, audit, AUDIT),
        "extrapolate": (ExtrapolateSettings, extrapolate, EXTRAPOLATE),
        "report": (ReportConfig, report, REPORT),
        "demo": (DemoConfig, demo, DEMO),
    }
    positional = {
        "plan": ("rollouts", "file of rollouts, as operant evaluate and others write them (docs/formats.md)."),
        "extrapolate": ("bank", "CSV (curves) or JSON lines (text tasks) of the known tasks."),
        "demo": ("what", ""),
        "report": ("run_dir", "folder of a run of train, evaluate, plan, audit, extrapolate or demo."),
    }
    for verb, (config, _, text) in actions.items():
        sub = _Parser(description=text, formatter_class=_Formatter)
        sub.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the settings below.")
        if verb == "demo":
            kinds = get_args(get_type_hints(DemoConfig)["what"])
            sub.add_argument("what", nargs="?", choices=kinds, default=DemoConfig.what, help=WHAT)
        elif verb in positional:
            sub.add_argument(positional[verb][0], type=Path, help=positional[verb][1])
        parts = groups() if config is ExtrapolateSettings else [(config, set[str]())]
        for part, elsewhere in parts:
            sub.add_class_arguments(part, skip={*elsewhere, *positional.get(verb, ())[:1]})
        verbs.add_subcommand(verb, sub, help=text.split(". ")[0].split(".\n")[0] + ".")
    return parser, {verb: (config, function) for verb, (config, function, _) in actions.items()}


def settings_of(parser: ArgumentParser, chosen: Any, config_class: Any) -> dict[str, Any]:
    """The settings of the chosen verb.

    Raises:
        DataError: for a group of settings that is a list or a value, and for null where a setting must have a value.
    """
    try:
        settings = parser.instantiate(chosen)[chosen.verb]
    except TypeError as error:
        raise DataError(
            f"a group of settings must be a mapping, such as data: {{train: a.jsonl}} ({error})."
        ) from error
    settings.pop("config", None)
    _check_nulls(config_class, vars(settings))
    return vars(settings)


def _check_nulls(config_class: Any, settings: Mapping[str, Any], group: str = "") -> None:
    """Refuse null where the setting has no such value: the parser lets it pass everywhere."""
    hints = get_type_hints(config_class)
    for name, value in settings.items():
        if is_dataclass(value):
            _check_nulls(type(value), vars(value), f"{name}.")
        elif value is None and NoneType not in get_args(hints[name]):
            raise DataError(f"{group}{name} cannot be null. Leave the setting out for its default.")


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
