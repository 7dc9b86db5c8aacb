"""The parser of a verb: its settings as flags, from its configuration class."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

from jsonargparse import (
    ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]
    ArgumentParser,
    DefaultHelpFormatter,
)

from operant.cli.arguments import check_arguments, with_lists, with_values
from operant.cli.front import VERBS, summary
from operant.cli.mistakes import help_of, mistake
from operant.cli.settings import AuditConfig, ReportConfig
from operant.cli.texts import WHAT
from operant.core.checks import DataError

_POSITIONAL = {
    "plan": ("rollouts", "file of rollouts, as operant evaluate and others write them (docs/formats.md)."),
    "extrapolate": ("bank", "CSV (curves) or JSON lines (text tasks) of the known tasks."),
    "demo": ("what", ""),
    "report": ("run_dir", "folder of a run of train, evaluate, plan, audit, extrapolate or demo."),
}


class _Formatter(DefaultHelpFormatter):
    """Keeps the line breaks of a description, so that its examples can be read and copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


class _Parser(ArgumentParser):
    """Prints an error as one line and the help of the flag, without the usage text, which lists a hundred settings."""

    lone: _Parser | None = None
    """The parser of the only verb: an error in what it takes is told as its own."""

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """Parse; an integer that no float holds is an error of the settings."""
        try:
            return super().parse_args(*args, **options)
        except OverflowError as error:
            self.error(f"a number in the settings is too large ({error})")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave."""
        parser = getattr(ex, "subcommand_parser", None) or self.lone or self
        name = parser.prog.replace(" [options]", "")
        print(f"{name}: {mistake(message, parser)} The settings: {name} --help", file=sys.stderr)
        if told := help_of(message, parser):
            print(told, file=sys.stderr)
        self.exit(2)


def parsed(given: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The configuration class of the verb that is given first, and its settings.

    Raises:
        DataError: for settings that cannot be read; a mistake in the flags is printed, and ends the process.
    """
    parser, configs = parser_of_verbs(given[0])
    given = with_values(with_lists(given, configs[given[0]]), configs[given[0]])
    check_arguments(given)
    chosen = parser.parse_args(given)
    return configs[chosen.verb], settings_of(parser, chosen, configs[chosen.verb])


def parser_of_verbs(only: str | None = None) -> tuple[ArgumentParser, dict[str, Any]]:
    """The parser of all verbs or of one, and verb -> its configuration class."""
    parser = _Parser(prog="operant", formatter_class=_Formatter, allow_abbrev=False)
    verbs = parser.add_subcommands(required=True, dest="verb")
    configs = {verb: _config(verb) for verb in VERBS if only in (None, verb)}
    for verb, config in configs.items():
        sub = _Parser(description=VERBS[verb], formatter_class=_Formatter, allow_abbrev=False)
        sub.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the settings below.")
        parts: list[tuple[Any, set[str]]] = [(config, set())]
        if verb == "demo":
            kinds = get_args(get_type_hints(config)["what"])
            sub.add_argument("what", nargs="?", choices=kinds, default=config.what, help=WHAT)
        elif verb == "reproduce":
            sub.add_argument("claims", nargs="*", default=[], help="names of the claims to run. Default: all.")
        elif verb in _POSITIONAL:
            sub.add_argument(_POSITIONAL[verb][0], type=Path, help=_POSITIONAL[verb][1])
        if verb == "extrapolate":
            from operant.cli.kinds import groups

            parts = groups()
        for part, elsewhere in parts:
            sub.add_class_arguments(part, skip={*elsewhere, *_POSITIONAL.get(verb, ())[:1], "claims"})
        verbs.add_subcommand(verb, sub, help=summary(VERBS[verb]))
        parser.lone = sub if only else None
    return parser, configs


def _config(verb: str) -> Any:
    """The configuration class of a verb; only its own libraries are loaded."""
    if verb == "extrapolate":
        from operant.cli.kinds import ExtrapolateSettings

        return ExtrapolateSettings
    if verb == "report":
        return ReportConfig
    if verb == "reproduce":
        from operant.reproduce.config import ReproduceConfig

        return ReproduceConfig
    if verb == "audit":
        return AuditConfig
    from operant.hf.config import DemoConfig, EvaluateConfig, PlanConfig, TrainConfig

    return {"train": TrainConfig, "evaluate": EvaluateConfig, "plan": PlanConfig, "demo": DemoConfig}[verb]


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
