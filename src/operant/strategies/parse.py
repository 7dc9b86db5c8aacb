"""Strategies as strings: ``pass@16``, ``maj@8``, ``mix(pass@1:0.25, pass@16:0.75)``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, cast

from operant.core.checks import InputError, ParseError
from operant.strategies.base import DEEPEST, MOST_PARTS, Strategy, nesting
from operant.strategies.counts import AllOf, Graded, PassAt, Threshold
from operant.strategies.mixture import Harmonic, Mixture
from operant.strategies.ranking import BestOf, LStatistic, Median, TopMean
from operant.strategies.sequential import FirstAccepted, Priced
from operant.strategies.verifier import NoisyPassAt, Verified
from operant.strategies.votes.lead import StopAtLead
from operant.strategies.votes.majority import Majority, Quorum
from operant.strategies.votes.race import RaceTo
from operant.strategies.votes.topvote import TopVote
from operant.strategies.votes.weighted import WeightedVote

Span = tuple[int, int]
RATE = r"\d*\.?\d+(?:e[-+]?\d+)?"
NUMBER = re.compile(r"\s*[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)\s*", re.ASCII | re.IGNORECASE)
LONGEST = 20_000
"""Most characters of a string; a table or a mixture that is longer is written as a value."""
LARGEST = 10**7
"""Largest integer of a string, and the largest budget at which the closed forms are tested."""
SHOWN = 200
"""Characters of the string that an error shows."""


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def _count(digits: str) -> int:
    """An integer of at most LARGEST, before one of a million digits is converted."""
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(LARGEST)) or int(digits) > LARGEST:
        raise InputError(f"expected integers of at most {LARGEST:,}, got {digits[:20]}{'...' * (len(digits) > 20)}.")
    return int(digits)


FORMS: dict[str, tuple[re.Pattern[str], Callable[..., Strategy]]] = {
    "pass@N": (_form(r"pass@(\d+)"), lambda n: PassAt(_count(n))),
    "pass^N": (_form(r"pass\^(\d+)"), lambda n: AllOf(_count(n))),
    "threshold@N:k": (_form(r"threshold@(\d+):(\d+)"), lambda n, k: Threshold(_count(n), _count(k))),
    "verified@N:fpr:fnr": (
        _form(rf"verified@(\d+):({RATE}):({RATE})(?::(random|fail))?"),
        lambda n, a, b, fallback: Verified(
            _count(n), float(a), float(b), cast(Literal["random", "fail"], fallback or "random")
        ),
    ),
    "noisy@N:fpr:fnr": (
        _form(rf"noisy@(\d+):({RATE}):({RATE})"),
        lambda n, a, b: NoisyPassAt(_count(n), float(a), float(b)),
    ),
    "topmean@N:k": (_form(r"topmean@(\d+):(\d+)"), lambda n, k: TopMean(_count(n), _count(k))),
    "median@N": (_form(r"median@(\d+)"), lambda n: Median(_count(n))),
    "best@N": (_form(r"best@(\d+)"), lambda n: BestOf(_count(n))),
    "maj@N": (_form(r"maj@(\d+)"), lambda n: Majority(_count(n))),
    "maj@N:fail": (
        _form(r"maj@(\d+):(random|fail)"),
        lambda n, ties: Majority(_count(n), cast(Literal["random", "fail"], ties)),
    ),
    "quorum@N:k": (_form(r"quorum@(\d+):(\d+)"), lambda n, k: Quorum(_count(n), _count(k))),
    "quorum@N:k:penalty:fail": (
        _form(rf"quorum@(\d+):(\d+)(?::({RATE}))?(?::(random|fail))?"),
        lambda n, k, penalty, ties: Quorum(
            _count(n), _count(k), float(penalty or 0), cast(Literal["random", "fail"], ties or "random")
        ),
    ),
    "wmaj@N": (_form(r"wmaj@(\d+)"), lambda n: WeightedVote(_count(n))),
    "wmaj@N:levels": (_form(r"wmaj@(\d+):(\d+)"), lambda n, levels: WeightedVote(_count(n), _count(levels))),
    "topk@N>maj": (_form(r"top(\d+)@(\d+)>maj"), lambda k, n: TopVote(_count(n), _count(k))),
    "race@N:k": (_form(r"race@(\d+):(\d+)"), lambda n, k: RaceTo(_count(n), _count(k))),
    "race@N:k:fail": (
        _form(r"race@(\d+):(\d+):(vote|fail)"),
        lambda n, k, fallback: RaceTo(_count(n), _count(k), cast(Literal["vote", "fail"], fallback)),
    ),
    "lead@N:d": (_form(r"lead@(\d+):(\d+)"), lambda n, d: StopAtLead(_count(n), _count(d))),
    "first@N": (_form(r"first@(\d+)"), lambda n: FirstAccepted(_count(n))),
    "first@N:score:fail": (
        _form(rf"first@(\d+)(?::(-?{RATE}))?(?::(random|fail))?"),
        lambda n, accept, fallback: FirstAccepted(
            _count(n), None if accept is None else float(accept), cast(Literal["random", "fail"], fallback or "random")
        ),
    ),
}


def parse(text: str) -> Strategy:
    """The strategy that a string names; ``str(strategy)`` is the inverse.

    Successes: ``pass@N``, ``pass^N``, ``threshold@N:k``, ``table(v0, v1, ...)``, ``verified@N:fpr:fnr``,
    ``noisy@N:fpr:fnr``. Ranks: ``best@N``, ``topmean@N:k``, ``median@N``, ``rank(a0, a1, ...)``. Votes: ``maj@N``,
    ``quorum@N:k:penalty`` (penalty 0 may be left out), ``wmaj@N``, ``wmaj@N:levels``, ``topk@N>maj`` (top4@16>maj).
    Early stops: ``race@N:k``, ``lead@N:d``, ``first@N``, ``first@N:score``. ``:fail`` after ``verified``, ``maj``,
    ``quorum``, ``race`` or ``first`` returns nothing where they would guess. Over these: ``mix(S:weight, S:weight,
    ...)``, ``harmonic(S)``, ``priced(S, price of a sample)``.

    A string has at most 20,000 characters, integers of at most 10^7, and 8 levels of parentheses. What it names has at
    most 4,096 strategies within one another: a ``harmonic(pass@N)`` has N.

    Raises:
        ParseError: showing where the string stops making sense, and what is allowed.

    >>> parse("mix(pass@1:0.25, pass@16:0.75)")
    Mixture(parts=((PassAt(n=1), 0.25), (PassAt(n=16), 0.75)))
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ParseError(f"expected a strategy string such as 'pass@16', got {text!r}.")
    _check_limits(text)
    return _parse(text, 0, len(text))


def _check_limits(text: str) -> None:
    """Refuse what is too long or too deep before any of it is built."""
    if len(text) > LONGEST:
        raise _error(text, LONGEST, f"expected at most {LONGEST:,} characters, got {len(text):,}.")
    depth = 0
    for position, character in enumerate(text):
        if not character.isascii():
            raise _error(text, position, f"expected ASCII characters only, got {character!r}.")
        depth += (character == "(") - (character == ")")
        if depth > DEEPEST:
            raise _error(text, position, f"expected at most {DEEPEST} levels of parentheses.")


def _parse(text: str, start: int, end: int) -> Strategy:
    """Parse ``text[start:end]``; positions refer to the whole string, for the error."""
    start += len(text[start:end]) - len(text[start:end].lstrip())
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    body = text[start:end]
    try:
        name = body.partition("(")[0]
        if name in OVER and body.endswith(")"):
            return OVER[name](text, _split(text, start + len(name) + 1, end - 1))
        for pattern, build in FORMS.values():
            if match := pattern.fullmatch(body):
                return build(*match.groups())
    except ParseError:
        raise
    except ValueError as error:
        raise _error(text, start, str(error)) from error
    allowed = ", ".join(FORMS)
    raise _error(
        text,
        start,
        f"expected one of {allowed}, mix(S:weight, ...), harmonic(S), priced(S, price), table(v0, v1, ...), "
        "rank(a0, a1, ...); N and k are integers.",
    )


def _mixture(text: str, spans: list[Span]) -> Mixture:
    parts: list[tuple[Strategy, float]] = []
    size = 0
    for span in spans:
        parts.append(_parse_part(text, *span))
        size += nesting(parts[-1][0]).size
        if size > MOST_PARTS:  # before the others are built
            raise _error(text, span[0], f"expected at most {MOST_PARTS:,} strategies within one another, got more.")
    return Mixture(tuple(parts))


def _parse_part(text: str, start: int, end: int) -> tuple[Strategy, float]:
    colon = text.rfind(":", start, end)
    if colon < 0:
        raise _error(text, start, "expected 'strategy:weight' inside mix(...).")
    weight = _number(text, colon + 1, end, "expected a weight such as 0.25.")
    return _parse(text, start, colon), weight


def _priced(text: str, spans: list[Span]) -> Priced:
    if len(spans) != 2:
        raise _error(text, spans[0][0], "expected priced(strategy, price), for example priced(race@16:5, 0.01).")
    price = _number(text, *spans[1], "expected the price of a sample such as 0.01.")
    return Priced(_parse(text, *spans[0]), price)


def _harmonic(text: str, spans: list[Span]) -> Harmonic:
    if len(spans) != 1:
        raise _error(text, spans[1][0], "expected one strategy, for example harmonic(pass@64).")
    return Harmonic(_parse(text, *spans[0]))


def _numbers(text: str, spans: list[Span]) -> tuple[float, ...]:
    return tuple(_number(text, *span, "expected numbers, for example table(0, 0.5, 1).") for span in spans)


def _number(text: str, start: int, end: int, expected: str) -> float:
    if not NUMBER.fullmatch(text, start, end):
        raise _error(text, start, expected)
    return float(text[start:end])


def _split(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Spans between the commas that no parenthesis encloses."""
    spans, depth, begin = [], 0, start
    for i in range(start, end):
        depth += (text[i] == "(") - (text[i] == ")")
        if text[i] == "," and depth == 0:
            spans.append((begin, i))
            begin = i + 1
    return [*spans, (begin, end)]


OVER: dict[str, Callable[[str, list[Span]], Strategy]] = {
    "mix": _mixture,
    "harmonic": _harmonic,
    "priced": _priced,
    "table": lambda text, spans: Graded(_numbers(text, spans)),
    "rank": lambda text, spans: LStatistic(_numbers(text, spans)),
}


def _error(text: str, position: int, message: str) -> ParseError:
    start = max(0, min(position - SHOWN // 2, len(text) - SHOWN))
    before, after = "..." * (start > 0), "..." * (start + SHOWN < len(text))
    line = f"{before}{text[start : start + SHOWN]}{after}"
    return ParseError(f"cannot read the strategy:\n  {line}\n  {' ' * (len(before) + position - start)}^\n{message}")
