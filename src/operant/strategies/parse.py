"""Strategies as strings: ``pass@16``, ``maj@8``, ``mix(pass@1:0.25, pass@16:0.75)``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, cast

from operant.core.checks import OperantError, ParseError
from operant.strategies.base import Strategy
from operant.strategies.counts import AllOf, PassAt, Threshold
from operant.strategies.mixture import Mixture
from operant.strategies.ranking import BestOf
from operant.strategies.voting import Majority

FORMS: dict[str, tuple[re.Pattern[str], Callable[..., Strategy]]] = {
    "pass@N": (re.compile(r"pass@(\d+)"), lambda n: PassAt(int(n))),
    "pass^N": (re.compile(r"pass\^(\d+)"), lambda n: AllOf(int(n))),
    "threshold@N:k": (re.compile(r"threshold@(\d+):(\d+)"), lambda n, k: Threshold(int(n), int(k))),
    "best@N": (re.compile(r"best@(\d+)"), lambda n: BestOf(int(n))),
    "maj@N": (re.compile(r"maj@(\d+)"), lambda n: Majority(int(n))),
    "maj@N:fail": (
        re.compile(r"maj@(\d+):(random|fail)"),
        lambda n, ties: Majority(int(n), cast(Literal["random", "fail"], ties)),
    ),
}


def parse(text: str) -> Strategy:
    """The strategy that a string names; ``str(strategy)`` is the inverse.

    ``pass@N``, ``pass^N``, ``threshold@N:k``, ``best@N``, ``maj@N``, ``maj@N:fail``, and
    ``mix(S:weight, S:weight, ...)`` over these.

    Raises:
        ParseError: showing where the string stops making sense, and what is allowed.

    >>> parse("mix(pass@1:0.25, pass@16:0.75)")
    Mixture(parts=((PassAt(n=1), 0.25), (PassAt(n=16), 0.75)))
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ParseError(f"expected a strategy string such as 'pass@16', got {text!r}.")
    return _parse(text, 0, len(text))


def _parse(text: str, start: int, end: int) -> Strategy:
    """Parse ``text[start:end]``; positions refer to the whole string, for the error."""
    start += len(text[start:end]) - len(text[start:end].lstrip())
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    body = text[start:end]
    try:
        if body.startswith("mix(") and body.endswith(")"):
            return Mixture(tuple(_parse_part(text, *span) for span in _split(text, start + 4, end - 1)))
        for pattern, build in FORMS.values():
            if match := pattern.fullmatch(body):
                return build(*match.groups())
    except ParseError:
        raise
    except OperantError as error:
        raise _error(text, start, str(error)) from error
    allowed = ", ".join(FORMS)
    raise _error(text, start, f"expected one of {allowed}, mix(S:weight, ...); N and k are integers.")


def _parse_part(text: str, start: int, end: int) -> tuple[Strategy, float]:
    colon = text.rfind(":", start, end)
    if colon < 0:
        raise _error(text, start, "expected 'strategy:weight' inside mix(...).")
    try:
        weight = float(text[colon + 1 : end])
    except ValueError:
        raise _error(text, colon + 1, "expected a weight such as 0.25.") from None
    return _parse(text, start, colon), weight


def _split(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Spans between the commas that no parenthesis encloses."""
    spans, depth, begin = [], 0, start
    for i in range(start, end):
        depth += (text[i] == "(") - (text[i] == ")")
        if text[i] == "," and depth == 0:
            spans.append((begin, i))
            begin = i + 1
    return [*spans, (begin, end)]


def _error(text: str, position: int, message: str) -> ParseError:
    return ParseError(f"cannot read the strategy:\n  {text}\n  {' ' * position}^\n{message}")
