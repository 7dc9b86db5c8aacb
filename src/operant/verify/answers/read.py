"""The text of one answer as a value: a number or expression, a list, a tuple or interval, an equation, or words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex

from .clean import COMMAND, clean, has_words, key
from .units import split_unit

# Characters of an answer that is read as mathematics. A longer one is compared as text, which bounds
# the time of the parser.
_LONGEST = 1000
# Units are split off by units.py, which keeps them for comparison.
_SPELLING = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none")
# R and r are different variables.
_CASED = ConversionConfig(lowercase_symbols=False)
# How the imaginary unit comes out of the parser.
_IMAGINARY = sympy.Symbol("i", real=True)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_SCIENTIFIC = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+))"
    r"(?:e([+-]?\d+)|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:(\d)|\{\s*([+-]?\d+)\s*\}))",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"([+-]?)\s*(?:(\d+)\s*)?\\frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d+))")
_SLASHED = re.compile(r"([+-]?)(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_NUMERAL = re.compile(r"([0-9A-Za-z]*\d[0-9A-Za-z]*)\s*_\s*\{?\s*(?:\\text\{)?\s*(\d+|[a-z]+)\s*\}*")
# Ratios and times of day, dates, and digits with a space between: compared as text.
_NO_VALUE = re.compile(r"\d\s*:\s*\d|\d{4}-\d{1,2}-\d{1,2}|\d\s+\d")
# Where digits with a space between them are one number: mixed numbers, indices, powers.
_IN_ORDER = re.compile(rf"{_FRACTION.pattern}|{_SLASHED.pattern}|[_^]\s*\d")
# What an equation may give a value to.
_NAME = re.compile(
    r"\\?[A-Za-z]+'?(?:_(?:\w|\{\w+\}))?(?:\^\{?-1\}?)?(?:\(\s*\\?[a-z]+(?:\s*,\s*[a-z])*\s*\))?"
    r"|\(\s*[A-Za-z](?:_\w)?(?:\s*,\s*[A-Za-z](?:_\w)?)+\s*\)|\\(?:angle|triangle|overline|text)\b.*|\|?[A-Z]{2}\|?"
)
# Words that say what an equation is about: total cost = 18.
_LABEL = re.compile(r"(?:[A-Za-z']{2,}|\\text\{[^{}\d]*\})(?:\s+(?:[A-Za-z']+|\\text\{[^{}\d]*\})){0,4}")
RELATION = re.compile(r"<|>|\\(?:le|ge|ne)(?![a-zA-Z])")
WORD_LIKE = re.compile(rf"[A-Za-z][A-Za-z'-]*|\d+(?::\d+)+(?:[ap]\.?m\.?)?|\d+(?:-\d+){{2}}|{_NUMERAL.pattern}")
"""Texts that are answers by themselves: a word, a time of day, a ratio, a date, a numeral with its base."""
_PAIRS = {"(": ")]", "[": ")]", r"\{": (r"\}",), r"\langle": (r"\rangle",)}
_TOKEN = re.compile(r"\\(?:begin|end)\{\w+\*?\}|\\[a-zA-Z]+|\\.|[<>!]=|[()\[\]{},;=]")
_OPENS = re.compile(r"\\begin\{.*|\\langle|\\?\{|[(\[]")
_CLOSES = re.compile(r"\\end\{.*|\\rangle|\\?\}|[)\]]")


@dataclass(frozen=True)
class Text:
    """Words, or anything else that is not mathematics."""

    text: str


@dataclass(frozen=True)
class Value:
    """An expression with its unit.

    Args:
        text: its text, cleaned.
        exact: the number, if it is written as an integer, a decimal, a fraction or a mixed number.
        digits: decimal places, if it is written as a decimal.
        unit: the unit that it is given in, or "".
        expression: the text without the unit.
    """

    text: str
    exact: Fraction | None
    digits: int
    unit: str
    expression: str


@dataclass(frozen=True)
class Group:
    """Several answers: a list "," or set "{}" in any order, a union "u" likewise; "()", "[)" and so on in order."""

    text: str
    kind: str
    parts: tuple[Answer, ...]


@dataclass(frozen=True)
class Named:
    """A name and its value: x = 5, f(x) = 2x, (x, y) = (1, 2)."""

    text: str
    name: str
    value: Answer


Answer = Text | Value | Group | Named


# The same answers come again and again in the completions of a prompt.
@lru_cache(4096)
def read(source: str) -> Answer:
    """A text as an answer. Every part of the text counts."""
    text = clean(source)
    return Text(key(text)) if len(text) > _LONGEST else _read(text)


def leaves(answer: Answer) -> Iterator[Text | Value]:
    """The texts and values in an answer."""
    if isinstance(answer, Group):
        for part in answer.parts:
            yield from leaves(part)
    elif isinstance(answer, Named):
        yield from leaves(answer.value)
    else:
        yield answer


@lru_cache(4096)
def parse(text: str) -> Any:
    """SymPy's expression for LaTeX, or None if the text is no mathematics."""
    text = re.sub(r"\\text\{\s*(\w|\d+)\s*\}", r"\1", text)
    try:
        found: Any = latex2sympy(
            normalize_latex(text, _SPELLING), is_real=True, normalization_config=None, conversion_config=_CASED
        )
        return found.xreplace({_IMAGINARY: sympy.I}) if _IMAGINARY in found.free_symbols else found
    except Exception:  # the grammar and SymPy raise errors without a common class on other texts
        return None


def _read(text: str) -> Answer:
    if not text or _NO_VALUE.search(_IN_ORDER.sub("", text)):
        return Text(key(text))
    numeral = _NUMERAL.fullmatch(text)
    if numeral and (numeral[2].isdigit() or has_words(numeral[2])):
        return Text(f"{numeral[1].upper()}_{numeral[2]}")
    text = _THOUSANDS.sub(lambda m: m.group().replace(",", ""), text) if text[0] not in "([" else text
    for marks, kind in (((",", ";"), ","), ((r"\cup",), "u")):
        parts = split(text, marks)
        if len(parts) > 1:
            return _group(text, kind, parts)
    return _bracketed(text) or _related(text) or _leaf(text)


def _group(text: str, kind: str, parts: list[str]) -> Answer:
    if not all(part.strip() for part in parts):
        return Text(key(text))
    found: list[Answer] = []
    for part in map(_read, map(str.strip, parts)):
        flat = isinstance(part, Group) and part.kind == "," and kind in (",", "{}")
        found += part.parts if isinstance(part, Group) and flat else (part,)
    return Group(key(text), kind, tuple(found))


def _bracketed(text: str) -> Answer | None:
    left = next((mark for mark in _PAIRS if text.startswith(mark)), None)
    right = next((mark for mark in _PAIRS[left] if text.endswith(mark)), None) if left else None
    if not left or not right or [end for end, depth in _depths(text) if not depth] != [len(text)]:
        return None
    inner = text[len(left) : -len(right)].strip()
    parts = split(inner, (",", ";"))
    if len(parts) > 1 or left == r"\{":
        return _group(text, {r"\{": "{}", r"\langle": "()"}.get(left, left + right), parts)
    return _read(inner) if inner and (left, right) == ("(", ")") else None


def _related(text: str) -> Answer | None:
    """The right side of an equation or membership whose left side is a name, a calculation or words."""
    member = re.fullmatch(rf"(?:{_NAME.pattern})\s*\\in(?![a-zA-Z])\s*(.+)", text)
    if member:
        return _read(member[1])
    parts = [part.strip() for part in split(text, ("=",))]
    if len(parts) == 1 or RELATION.search(text):
        return None
    if not all(parts):
        return Text(key(text))
    if _LABEL.fullmatch(parts[0]) or not re.search(r"[A-Za-z]", COMMAND.sub("", parts[0])):
        return _read(parts[-1])
    return Named(key(text), key(parts[0]), _read(parts[-1])) if _NAME.fullmatch(parts[0]) else None


def _leaf(text: str) -> Answer:
    about = [part for part in re.split(r"\\approx(?![a-zA-Z])", text) if part.strip()]
    text = about[0].strip() if about else text
    if re.search(r"\\(?:pm|mp)(?![a-zA-Z])", text):
        signs = (re.sub(r"\\pm(?![a-zA-Z])", "+", text), re.sub(r"\\pm(?![a-zA-Z])", "-", text))
        first, second = (re.sub(r"\\mp(?![a-zA-Z])", sign, t) for t, sign in zip(signs, "-+", strict=True))
        return Group(key(text), ",", (_leaf(first.strip()), _leaf(second.strip())))
    expression, unit = split_unit(text)
    if unit and not has_words(text) and parse(expression) is None:
        expression, unit = text, ""
    found = _literal(re.sub(r"^([+-])\s+", r"\1", expression))
    if found is None and (has_words(expression) or parse(expression) is None):
        return Text(key(text))
    exact, digits = found or (None, 0)
    return Value(key(text), exact, digits, unit, expression)


def _literal(text: str) -> tuple[Fraction, int] | None:
    r"""The number of an integer, decimal, fraction or mixed number, and its decimal places; None for other texts.

    >>> [_literal(t) for t in ("-1.50", r"1\frac34", "2.5e-05", "3e+2")]
    [(Fraction(-3, 2), 2), (Fraction(7, 4), 0), (Fraction(1, 40000), 6), None]
    """
    if _NUMBER.fullmatch(text):
        return Fraction(text), len(text.partition(".")[2])
    power = _SCIENTIFIC.fullmatch(text)
    if power and not (power[2] and _euler(power[1], power[2])) and len(power[0]) < 100:
        exponent = max(-999, min(999, int(power[2] or power[3] or power[4])))
        return Fraction(power[1]) * Fraction(10) ** exponent, max(0, len(power[1].partition(".")[2]) - exponent)
    parts = _FRACTION.fullmatch(text) or _SLASHED.fullmatch(text)
    if parts is None:
        return None
    sign, whole, *rest = parts.groups()
    top, bottom = (int(part) for part in rest if part)
    if not bottom or (whole and not 0 < top < bottom):
        return None
    return (-1 if sign == "-" else 1) * (int(whole or 0) + Fraction(top, bottom)), 0


def _euler(mantissa: str, exponent: str) -> bool:
    """Whether e is Euler's number: 3e+2 is 3 times e, plus 2. Programs write 1e-7, 3e+02 and 3.0e+2."""
    return mantissa.lstrip("+-") != "1" and "." not in mantissa and exponent[0] in "+-" and len(exponent) == 2


def split(text: str, marks: tuple[str, ...]) -> list[str]:
    """The parts of a text between marks that stand in no bracket."""
    parts, last, depth = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += _turn(token.group())
        if not depth and token.group() in marks:
            parts.append(text[last : token.start()])
            last = token.end()
    return [*parts, text[last:]]


def _depths(text: str) -> Iterator[tuple[int, int]]:
    depth = 0
    for token in _TOKEN.finditer(text):
        turn = _turn(token.group())
        depth += turn
        if turn:
            yield token.end(), depth


def _turn(token: str) -> int:
    return 1 if _OPENS.fullmatch(token) else -1 if _CLOSES.fullmatch(token) else 0
