"""Arguments that would end the process or exhaust its memory are refused before they are parsed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from operant.core.checks import DataError

LARGEST = 1_000_000
"""Bytes of the largest configuration that is read: a larger file is a data file that was passed by mistake."""
DEEPEST = 20
"""Deepest nesting of a configuration. PyYAML recurses, and deep nesting ends the process."""


def check_arguments(args: Sequence[str]) -> None:
    """Reject YAML that would end the process or exhaust its memory: deep nesting, and aliases of aliases.

    Raises:
        DataError: for a configuration that is not UTF-8, too large, nested too deeply, or has aliases.
    """
    for before, arg in zip(("", *args), args, strict=False):
        name, _, value = arg.partition("=") if arg.startswith("--") else (before, "", arg)
        if name in ("--config", "--data") and os.path.isfile(value):
            if os.path.getsize(value) > LARGEST:
                raise DataError(f"{value}: expected a configuration of at most {LARGEST} bytes. Is it the right file?")
            try:
                _check_yaml(value, Path(value).read_text(encoding="utf-8-sig"))
            except UnicodeDecodeError as error:
                raise DataError(f"{value}: expected YAML in UTF-8 ({error}). Convert the file.") from error
        elif len(value) > DEEPEST:
            _check_yaml(name, value)


def _check_yaml(name: str, text: str) -> None:
    depth = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
                what = "aliases" if depth <= DEEPEST else f"values nested deeper than {DEEPEST}"
                raise DataError(f"{name}: a configuration has no {what}. Write the settings out.")
    except yaml.YAMLError:
        return  # jsonargparse reports the position; other arguments need not be YAML
