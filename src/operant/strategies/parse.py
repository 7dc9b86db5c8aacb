"""Strategies as strings: ``pass@16``, ``maj@8``, ``mix(pass@1:0.25, pass@16:0.75)``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, cast

from operant.core.checks import ParseError
from operant.strategies.base import Strategy
from operant.strategies.counts import AllOf, Graded, PassAt, Threshold
from operant.strategies.lead import StopAtLead
from operant.strategies.mixture import Harmonic, Mixture
from operant.strategies.ranking import BestOf, LStatistic, Median, TopMean
from operant.strategies.sequential import FirstAccepted, Priced
from operant.strategies.stopping import RaceTo
from operant.strategies.topvote import TopVote
from operant.strategies.verifier import NoisyPassAt, Verified
from operant.strategies.voting import Majority, Quorum
from operant.strategies.weighted import WeightedVote

Span = tuple[int, int]
RATE = r"\d*\.?\d+(?:e[-+]?\d+)?"
FORMS: dict[str, tuple[re.Pattern[str], Callable[..., Strategy]]] = {
    "pass@N": (re.compile(r"pass@(\d+)"), lambda n: PassAt(int(n))),
    "pass^N": (re.compile(r"pass\^(\d+)"), lambda n: AllOf(int(n))),
    "threshold@N:k": (re.compile(r"threshold@(\d+):(\d+)"), lambda n, k: Threshold(int(n), int(k))),
    "verified@N:fpr:fnr": (
        re.compile(rf"verified@(\d+):({RATE}):({RATE})(?::(random|fail))?"),
        lambda n, a, b, fallback: Verified(
            int(n), float(a), float(b), cast(Literal["random", "fail"], fallback or "random")
        ),
    ),
    "noisy@N:fpr:fnr": (
        re.compile(rf"noisy@(\d+):({RATE}):({RATE})"),
        lambda n, a, b: NoisyPassAt(int(n), float(a), float(b)),
    ),
    "topmean@N:k": (re.compile(r"topmean@(\d+):(\d+)"), lambda n, k: TopMean(int(n), int(k))),
    "median@N": (re.compile(r"median@(\d+)"), lambda n: Median(int(n))),
    "best@N": (re.compile(r"best@(\d+)"), lambda n: BestOf(int(n))),
    "maj@N": (re.compile(r"maj@(\d+)"), lambda n: Majority(int(n))),
    "maj@N:fail": (
        re.compile(r"maj@(\d+):(random|fail)"),
        lambda n, ties: Majority(int(n), cast(Literal["random", "fail"], ties)),
    ),
    "quorum@N:k": (re.compile(r"quorum@(\d+):(\d+)"), lambda n, k: Quorum(int(n), int(k))),
    "quorum@N:k:penalty:fail": (
        re.compile(rf"quorum@(\d+):(\d+)(?::({RATE}))?(?::(random|fail))?"),
        lambda n, k, penalty, ties: Quorum(
            int(n), int(k), float(penalty or 0), cast(Literal["random", "fail"], ties or "random")
        ),
    ),
    "wmaj@N": (re.compile(r"wmaj@(\d+)"), lambda n: WeightedVote(int(n))),
    "wmaj@N:levels": (re.compile(r"wmaj@(\d+):(\d+)"), lambda n, levels: WeightedVote(int(n), int(levels))),
    "topk@N>maj": (re.compile(r"top(\d+)@(\d+)>maj"), lambda k, n: TopVote(int(n), int(k))),
    "race@N:k": (re.compile(r"race@(\d+):(\d+)"), lambda n, k: RaceTo(int(n), int(k))),
    "race@N:k:fail": (
        re.compile(r"race@(\d+):(\d+):(vote|fail)"),
        lambda n, k, fallback: RaceTo(int(n), int(k), cast(Literal["vote", "fail"], fallback)),
    ),
    "lead@N:d": (re.compile(r"lead@(\d+):(\d+)"), lambda n, d: StopAtLead(int(n), int(d))),
    "first@N": (re.compile(r"first@(\d+)"), lambda n: FirstAccepted(int(n))),
    "first@N:score:fail": (
        re.compile(rf"first@(\d+)(?::(-?{RATE}))?(?::(random|fail))?"),
        lambda n, accept, fallback: FirstAccepted(
            int(n), None if accept is None else float(accept), cast(Literal["random", "fail"], fallback or "random")
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
        name = body.partition("(")[0]
        if name in OVER and body.endswith(")"):
            return OVER[name](text, _split(text, start + len(name) + 1, end - 1))
        for pattern, build in FORMS.values():
            if match := pattern.fullmatch(body):
                return build(*match.groups())
    except ParseError:
        raise
    except ValueError as error:  # ours, or an integer of thousands of digits
        raise _error(text, start, str(error)) from error
    allowed = ", ".join(FORMS)
    raise _error(
        text,
        start,
        f"expected one of {allowed}, mix(S:weight, ...), harmonic(S), priced(S, price), table(v0, v1, ...), "
        "rank(a0, a1, ...); N and k are integers.",
    )


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
    try:
        return float(text[start:end])
    except ValueError:
        raise _error(text, start, expected) from None


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
    "mix": lambda text, spans: Mixture(tuple(_parse_part(text, *span) for span in spans)),
    "harmonic": _harmonic,
    "priced": _priced,
    "table": lambda text, spans: Graded(_numbers(text, spans)),
    "rank": lambda text, spans: LStatistic(_numbers(text, spans)),
}


def _error(text: str, position: int, message: str) -> ParseError:
    return ParseError(f"cannot read the strategy:\n  {text}\n  {' ' * position}^\n{message}")
