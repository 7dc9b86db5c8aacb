"""A user's functions and relation, named by dotted paths on the command line."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from operant.core.checks import ConfigError, DataError
from operant.hf.text_config import TextConfig
from operant.language.relations import Compose, Relation, Toggle


def functions_of(path: str) -> dict[str, Callable[[str], str]]:
    """The mapping from task names to functions that a dotted path names; {} for "".

    Raises:
        DataError: if it does not load, or is no such mapping.
    """
    if not path:
        return {}
    found = _named(path, "functions")
    if not isinstance(found, Mapping):
        raise DataError(f"functions: expected {path} to be a mapping from names to functions, got {_kind(found)}.")
    for name, function in found.items():
        if not isinstance(name, str) or not callable(function):
            raise DataError(f"functions: {path} must map names to functions, got {name!r}: {_kind(function)}.")
    return dict(found)


def relation_of(config: TextConfig) -> Relation:
    """The relation of the settings.

    Raises:
        ConfigError: for a setting that the relation does not have, or an unknown name.
        DataError: if a user's relation does not load.
    """
    if config.relation == "compose":
        return Compose(depth=config.depth, shots=config.shots)
    if config.depth != TextConfig.depth or config.shots != TextConfig.shots:
        raise ConfigError(f"--depth and --shots are for the relation compose, not for {config.relation}.")
    if config.relation == "toggle":
        return Toggle()
    if "." not in config.relation and ":" not in config.relation:
        raise ConfigError(f"relation must be compose, toggle or a dotted path, got {config.relation!r}.")
    found = _named(config.relation, "relation")
    made: Any = found() if isinstance(found, type) and issubclass(found, Relation) else found
    if not isinstance(made, Relation):
        raise DataError(f"relation: expected {config.relation} to be a Relation, got {_kind(found)}.")
    return made


def _named(path: str, setting: str) -> Any:
    """What "package.module.name" or "package.module:name" is."""
    module, mark, name = path.rpartition(":" if ":" in path else ".")
    if not mark or not module or not name:
        raise ConfigError(f"{setting} must be a dotted path such as mine.NAME, got {path!r}.")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a user's module may raise anything
        raise DataError(
            f"{setting}: {path} does not load ({type(error).__name__}: {error}). A module in this folder is found with "
            "PYTHONPATH=. before the command."
        ) from error


def _kind(value: object) -> str:
    return type(value).__name__
