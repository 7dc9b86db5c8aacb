"""How numbers, tables and text from files are printed, on pages and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

MISSING = "–"
"""Stands where a number is unknown."""
ILLEGIBLE = re.compile("[^\\t\\n\\r\\x20-\\x7e\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""Control characters, which a terminal obeys and XML forbids, and lone surrogates, which UTF-8 lacks."""


def number(x: float | None, digits: int = 4, *, sign: bool = False) -> str:
    """A value with a few significant digits; ``sign`` writes the plus of a difference that does not print as zero.

    >>> number(1234.5678), number(-1e-9), number(None), number(-0.0), number(0.25, sign=True)
    ('1235', '-1e-09', '–', '0', '+0.25')
    """
    # The z turns a number that rounds to -0 into 0.
    return MISSING if x is None else _signed(f"{x:+z.{digits}g}", sign)


def brief(x: float | None) -> str:
    """A value with three significant digits, such as an error or the end of an interval."""
    return number(x, 3)


def percent(fraction: float | None, *, sign: bool = False) -> str:
    """A fraction in percent, or a difference of fractions in percentage points, with one decimal.

    >>> percent(0.1234), percent(-0.0001), percent(0.061, sign=True), percent(0.0001, sign=True), percent(None)
    ('12.3', '0.0', '+6.1', '0.0', '–')
    """
    return MISSING if fraction is None else _signed(f"{100 * fraction:+z.1f}", sign)


def _signed(text: str, sign: bool) -> str:
    """Remove the plus of a printed number, unless a sign is wanted and the number does not print as zero."""
    return text if sign and float(text) else text.removeprefix("+")


def share(fraction: float | None) -> str:
    """A share in whole percent; one that is not zero does not print as zero.

    >>> share(0.25), share(0.001), share(None)
    ('25 %', '<1 %', '–')
    """
    if fraction is None:
        return MISSING
    return "<1 %" if 0 < fraction < 0.005 else f"{100 * fraction:.0f} %"


def ratio(x: float | None) -> str:
    """Two or three digits; beyond 10,000 and below 0.001 only the bound, because more says nothing about a rule.

    >>> [ratio(x) for x in (0.0123, 0.5, 12.34, 4321.0, 1.68e8, 3e-9, 0.0, None)]
    ['0.0123', '0.50', '12.3', '4,321', '>10,000', '<0.001', '0.00', '–']
    """
    if x is None:
        return MISSING
    size = abs(x)
    if size >= 1e4 or 0 < size < 1e-3:
        bound = ">10,000" if size > 1 else "<0.001"
        return f"{bound} (negative)" if x < 0 else bound
    # From 0.095 on, two decimals hold two significant digits: 0.095 prints as 0.10.
    return f"{x:z.2f}" if size == 0 or 0.095 <= size < 10 else f"{x:.3g}" if size < 1000 else f"{x:,.0f}"


def interval(low: float | None, high: float | None, form: Callable[[float], str] = number) -> str:
    """``0.38 to 0.44``; empty where there is none."""
    return "" if low is None or high is None else f"{form(low)} to {form(high)}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of text: the first column to the left, the others to the right, a rule below the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = [[row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in rows]
    lines = ["  ".join(row) for row in cells]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def legible(text: str) -> str:
    r"""The text with U+FFFD for each character that a page, a drawing or a terminal must not receive.

    >>> legible("a\x00b")
    'a\ufffdb'
    """
    return ILLEGIBLE.sub("\ufffd", text)
