"""Arguments before they are parsed: lists without brackets, switches alone, and what would exhaust the memory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

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


# Commas outside brackets and quotes: those inside belong to a strategy, as in mix(pass@1:0.25, pass@64:0.75).
_ITEM = re.compile(r"""(?:[^,()"']|\((?:[^()]|\([^()]*\))*\)|"[^"]*"|'[^']*')+""")


def with_lists(args: Sequence[str], config_class: Any) -> list[str]:
    """Arguments in which a list may stand without brackets: ``--strategies pass@16,pass@64``, ``--budgets 1,4``.

    One value is a list of one, if the setting is always a list. A setting that is a list or a text stays as it is.
    """
    kinds, new, before = dict(_lists(config_class)), list[str](), ""
    for arg in args:
        name, equals, value = arg.partition("=") if arg.startswith("--") else (before, "", arg)
        before = "" if equals or not arg.startswith("--") else arg
        kind = kinds.get(name) if equals or not arg.startswith("--") else None
        listed = value if kind is None else _listed(value, *kind)
        new.append(f"{name}={listed}" if equals else listed if kind is not None else arg)
    return new


def with_values(args: Sequence[str], config_class: Any) -> list[str]:
    """Arguments in which a switch may stand alone: ``--open`` is ``--open true``."""
    switches, new = set(_switches(config_class)), list[str]()
    for arg, after in zip(args, [*args[1:], "--"], strict=True):
        new += [arg, "true"] if arg in switches and after.startswith("--") else [arg]
    return new


def _switches(config_class: Any, group: str = "") -> Iterator[str]:
    """The flags that are true or false."""
    hints = get_type_hints(config_class)
    for f in fields(config_class):
        if is_dataclass(hints[f.name]):
            yield from _switches(hints[f.name], f"{group}{f.name}.")
        elif {hints[f.name], *get_args(hints[f.name])} - {NoneType, bool | None} == {bool}:
            yield f"--{group}{f.name}"


def _listed(value: str, text: bool, always: bool) -> str:
    """A value in brackets, where it is a list and has none."""
    items = [item.strip() for item in _ITEM.findall(value)]
    if value.lstrip()[:1] in ("", "[", "{", '"', "'") or value == "null" or len(items) < (1 if always else 2):
        return value
    return json.dumps(items) if text else f"[{', '.join(items)}]"


def _lists(config_class: Any, group: str = "") -> Iterator[tuple[str, tuple[bool, bool]]]:
    """Flag -> whether its items are texts, and whether it is always a list. Not those that may be a text as well."""
    hints = get_type_hints(config_class)
    for f in fields(config_class):
        hint = hints[f.name]
        if is_dataclass(hint):
            yield from _lists(hint, f"{group}{f.name}.")
            continue
        parts = [hint] if get_origin(hint) is list else [p for p in get_args(hint) if p is not NoneType]
        kinds = [part for part in parts if get_origin(part) is list]
        if kinds and str not in parts:
            yield f"--{group}{f.name}", (get_args(kinds[0]) == (str,), len(parts) == 1)
