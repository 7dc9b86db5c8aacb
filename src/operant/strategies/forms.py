"""How a strategy is written as a string: one ``form`` a class, which both writing and reading follow.

    "threshold@{n}:{k}"             fields of the dataclass stand in braces
    "maj@{n}[:{ties}]"              what stands in brackets is left out where the field has its default
    "priced({strategy}, {price})"   a field that holds a strategy is written as one
    "table({values})"               a field that holds several values is written as a list

The type of a field decides how its text is read: int, float, Literal, Strategy, or a tuple of these.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

from operant.core.checks import InputError

NUMBER = r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
# Largest integer of a string, and the largest budget at which the closed forms are tested.
_LARGEST = 10**7
_FIELD = re.compile(r"\{(\w+)\}")
_OPTIONAL = re.compile(r"\[([^][]*)\]")
# Form -> class, in the order of definition.
_CLASSES: dict[str, type[Any]] = {}


@runtime_checkable
class _Named(Protocol):
    """What has a string with a budget in it: a strategy."""

    def named(self, n: int | str) -> str:
        """The string with ``n`` in place of the budget."""
        ...


def register_form(cls: type[Any], form: str) -> None:
    """Make ``parse`` know a class; a class that is defined again, as in a notebook, replaces the first.

    Raises:
        InputError: if another class has the form.
    """
    known = _CLASSES.get(form)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise InputError(f"the form {form!r} of {cls.__qualname__} is that of {known.__qualname__}. Choose another.")
    _CLASSES[form] = cls


def registered() -> dict[str, type[Any]]:
    """Every form, and the class that is written so."""
    return dict(_CLASSES)


def shown(cls: type[Any], form: str) -> str:
    """The form for a reader: N for the budget, S for a strategy, choices as such: ``maj@N[:random|fail]``."""
    kinds = field_types(cls)

    def label(match: re.Match[str]) -> str:
        name, kind = match[1], kinds.get(match[1])
        if get_origin(kind) is Literal:
            return "|".join(map(str, get_args(kind)))
        if get_origin(kind) is tuple:
            return "S:weight, ..." if get_origin(get_args(kind)[0]) is tuple else f"{name[0]}0, {name[0]}1, ..."
        return "S" if hasattr(kind, "named") else "N" if name == "n" else name

    return _FIELD.sub(label, form)


def write_form(strategy: Any, form: str, n: int | str) -> str:
    """The string of a strategy with ``n`` in place of its budget."""
    kinds = field_types(type(strategy))
    defaults = {f.name: f.default for f in fields(strategy)}

    def text(match: re.Match[str]) -> str:
        name = match[1]
        return str(n) if name == "n" else _text(getattr(strategy, name), kinds[name], n)

    def unless_default(match: re.Match[str]) -> str:
        names = _FIELD.findall(match[1])
        return match[1] if any(getattr(strategy, name) != defaults[name] for name in names) else ""

    return _FIELD.sub(text, _OPTIONAL.sub(unless_default, form))


def _text(value: Any, kind: Any, n: int | str) -> str:
    # By what it can do and not by class: the module of Strategy imports this one.
    if isinstance(value, _Named):
        return value.named(n)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if get_origin(inner) is tuple:  # parts of a mixture, which have budgets of their own
            return ", ".join(f"{part}:{weight!r}" for part, weight in value)
        return ", ".join(_text(x, inner, n) for x in value)
    return repr(float(value)) if kind is float else str(value)


@lru_cache(maxsize=256)
def field_types(cls: type[Any]) -> dict[str, Any]:
    """Type of every field of the class, without None.

    Raises:
        InputError: if an annotation names something that is not there.
    """
    try:
        hints = get_type_hints(cls)
    except NameError as error:
        raise InputError(f"the fields of {cls.__qualname__} have no types to read a string by: {error}.") from error
    return {f.name: _without_none(hints[f.name]) for f in fields(cls)}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    rest = [x for x in get_args(hint) if x is not type(None)]
    return rest[0] if len(rest) == 1 else hint


@lru_cache(maxsize=256)
def pattern(cls: type[Any], form: str) -> re.Pattern[str]:
    """What a string of the class looks like, a group for each field; for forms without parentheses."""
    kinds, out = field_types(cls), ""
    for piece in re.split(r"(\{\w+\}|\[|\])", form):
        field = _FIELD.fullmatch(piece)
        if field is None:
            out += {"[": "(?:", "]": ")?"}.get(piece, re.escape(piece))
        else:
            out += f"(?P<{field[1]}>{_pattern_of(cls, field[1], kinds.get(field[1]))})"
    return re.compile(out, re.ASCII)


def _pattern_of(cls: type[Any], name: str, kind: Any) -> str:
    if kind is int:
        return r"\d+"
    if kind is float:
        return NUMBER
    if get_origin(kind) is Literal:
        return "|".join(re.escape(str(x)) for x in get_args(kind))
    raise InputError(
        f"the form of {cls.__qualname__} names {name!r}, which must be a field of type int, float or Literal, got "
        f"{kind}. Write strategies and lists in parentheses: name({{{name}}})."
    )


def fields_of_form(cls: type[Any], form: str) -> list[tuple[str, Any]]:
    """Name and type of the fields between the parentheses of a form."""
    kinds = field_types(cls)
    return [(name, kinds[name]) for name in _FIELD.findall(form)]


def from_text(kind: Any) -> Callable[[str], Any]:
    """What makes a value of the text of a field."""
    return {int: _count, float: float}.get(kind, str)


def _count(digits: str) -> int:
    """An integer of at most _LARGEST, before one of a million digits is converted."""
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(_LARGEST)) or int(digits) > _LARGEST:
        raise InputError(f"expected integers of at most {_LARGEST:,}, got {digits[:20]}{'...' * (len(digits) > 20)}.")
    return int(digits)
