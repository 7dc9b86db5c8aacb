"""Strings as strategies: ``pass@16``, ``maj@8``, ``mix(pass@1:0.25, pass@16:0.75)``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from operant.core.checks import ParseError
from operant.core.outside import load_outside
from operant.strategies.base import MOST_LEVELS, MOST_PARTS, Strategy, nesting
from operant.strategies.forms import NUMBER, fields_of_form, from_text, pattern, registered, shown

# Most characters of a string; a table or a mixture that is longer is written as a value.
_LONGEST = 20_000
# Characters of the string that an error shows.
_SHOWN = 200
_PADDED = re.compile(rf"\s*{NUMBER}\s*", re.ASCII | re.IGNORECASE)
_Place = tuple[int, int]
"""Start and end of a part of the string."""


def parse(text: str) -> Strategy:
    """The strategy that a string names; ``str(strategy)`` is the inverse.

    Successes: ``pass@N``, ``pass^N``, ``threshold@N:k``, ``table(v0, v1, ...)``, ``verified@N:fpr:fnr``,
    ``noisy@N:fpr:fnr``. Ranks: ``best@N``, ``topmean@N:k``, ``median@N``, ``rank(a0, a1, ...)``. Votes: ``maj@N``,
    ``quorum@N:k:penalty`` (penalty 0 may be left out), ``wmaj@N``, ``wmaj@N:levels``, ``topk@N>maj`` (top4@16>maj).
    Early stops: ``race@N:k``, ``lead@N:d``, ``first@N``, ``first@N:score``. ``:fail`` after ``verified``, ``maj``,
    ``quorum``, ``race`` or ``first`` returns nothing where they would guess. Over these: ``mix(S:weight, S:weight,
    ...)``, ``harmonic(S)``, ``priced(S, price of a sample)``. A class of your own with a ``form`` is known once it is
    imported; a module that an installed package names as an entry point of the group ``operant`` is imported by itself.

    A string has at most 20,000 characters, integers of at most 10^7, and 8 levels of parentheses. What it names has at
    most 4,096 strategies within one another: a ``harmonic(pass@N)`` has N.

    Raises:
        ParseError: showing where the string stops making sense, and what is allowed.

    >>> parse("mix(pass@1:0.25, pass@16:0.75)")
    Mixture(parts=((PassAt(n=1), 0.25), (PassAt(n=16), 0.75)))
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ParseError(
            f"expected a strategy string such as 'pass@16', got {text!r}. A strategy of your own has a string if it is "
            "a class with a `form` (docs/howto/extend.md)."
        )
    _check_limits(text)
    try:
        return _parse(text, 0, len(text))
    except ParseError:
        if not load_outside():
            raise
        return _parse(text, 0, len(text))


def _check_limits(text: str) -> None:
    """Refuse what is too long or too deep before any of it is built."""
    if len(text) > _LONGEST:
        raise _error(text, _LONGEST, f"expected at most {_LONGEST:,} characters, got {len(text):,}.")
    depth = 0
    for position, character in enumerate(text):
        if not character.isascii():
            raise _error(text, position, f"expected ASCII characters only, got {character!r}.")
        depth += (character == "(") - (character == ")")
        if depth > MOST_LEVELS:
            raise _error(text, position, f"expected at most {MOST_LEVELS} levels of parentheses.")


def _parse(text: str, start: int, end: int) -> Strategy:
    """Parse ``text[start:end]``; positions refer to the whole string, for the error."""
    start += len(text[start:end]) - len(text[start:end].lstrip())
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    body = text[start:end]
    head, opened, _ = body.partition("(")
    try:
        for form, cls in registered().items():
            if "(" not in form:
                if match := pattern(cls, form).fullmatch(body):
                    kinds = dict(fields_of_form(cls, form))
                    return cls(**{k: from_text(kinds[k])(v) for k, v in match.groupdict().items() if v is not None})
            elif opened and form.partition("(")[0] == head and body.endswith(")"):
                inside = list(_split(text, start + len(head) + 1, end - 1))
                return cls(**_arguments(text, inside, cls, form))
    except ParseError:
        raise
    except ValueError as error:
        raise _error(text, start, str(error)) from error
    allowed = ", ".join(shown(cls, form) for form, cls in registered().items())
    raise _error(text, start, f"expected one of {allowed}; N and k are integers.")


def _arguments(text: str, inside: list[_Place], cls: type[Any], form: str) -> dict[str, Any]:
    """The fields between parentheses: a list of values, or one place for each."""
    expected = fields_of_form(cls, form)
    (name, kind), *_ = expected
    if get_origin(kind) is tuple:
        is_parts = get_origin(get_args(kind)[0]) is tuple
        return {name: tuple(_parts(text, inside)) if is_parts else tuple(_number(text, *x) for x in inside)}
    if len(inside) != len(expected):
        place = inside[min(len(inside) - 1, len(expected))][0]
        raise _error(text, place, f"expected {shown(cls, form)}, with {len(expected)} between the parentheses.")
    found = zip(expected, inside, strict=True)
    return {name: _number(text, *x) if kind is float else _parse(text, *x) for (name, kind), x in found}


def _parts(text: str, inside: list[_Place]) -> Iterator[tuple[Strategy, float]]:
    """Strategies with their weights."""
    size = 0
    for start, end in inside:
        colon = text.rfind(":", start, end)
        if colon < 0:
            raise _error(text, start, "expected 'strategy:weight', for example mix(pass@1:0.25, pass@16:0.75).")
        weight = _number(text, colon + 1, end, "a weight")
        part = _parse(text, start, colon)
        size += nesting(part).size
        if size > MOST_PARTS:  # before the others are built
            raise _error(text, start, f"expected at most {MOST_PARTS:,} strategies within one another, got more.")
        yield part, weight


def _number(text: str, start: int, end: int, what: str = "a number") -> float:
    if not _PADDED.fullmatch(text, start, end):
        raise _error(text, start, f"expected {what} such as 0.25.")
    return float(text[start:end])


def _split(text: str, start: int, end: int) -> Iterator[_Place]:
    """Places between the commas that no parenthesis encloses."""
    depth, begin = 0, start
    for i in range(start, end):
        depth += (text[i] == "(") - (text[i] == ")")
        if text[i] == "," and depth == 0:
            yield begin, i
            begin = i + 1
    yield begin, end


def _error(text: str, position: int, message: str) -> ParseError:
    start = max(0, min(position - _SHOWN // 2, len(text) - _SHOWN))
    before, after = "..." * (start > 0), "..." * (start + _SHOWN < len(text))
    line = f"{before}{text[start : start + _SHOWN]}{after}"
    return ParseError(f"cannot read the strategy:\n  {line}\n  {' ' * (len(before) + position - start)}^\n{message}")
