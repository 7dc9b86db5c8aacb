"""Whether two answers are the same: by text, by value, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import math_verify
import sympy

from .read import RELATION, Answer, Group, Named, Text, Value, parse
from .units import PERCENT, differ

# Limit of one comparison by SymPy, half of the default limit of a completion.
_SECONDS = 5
# Significant digits that a decimal needs to equal a number that has no finite decimal: 0.333333 is 1/3, and 0.333 is
# not.
_PLACES = 6
# Numerator or denominator up to which a number is written out: 9^9^9 would have 370 million digits.
_LARGEST = 10**1000
# Relative difference of two decimals that programs leave: 0.30000000000000004 is 0.3.
_NOISE = Fraction(1, 10**13)
_UNORDERED = (",", "{}")


def same(a: Answer, b: Answer) -> bool:
    """Whether two answers are equal.

    - Numbers by value: 1/2 is 0.5, and 50 % is 50 and 0.5. A number that no finite decimal is (1/3, pi) equals the
      decimal that it is rounded to, at six significant digits at least.
    - Lists and sets in any order, each element as often; tuples and intervals in order, with the same brackets.
      A list equals the tuple of the same order.
    - A name and its value equal the same value without the name, or of the same name.
    - Expressions, equations, inequalities, matrices by math-verify; units only where both name a different one.
    """
    if a.text == b.text:
        return True
    if isinstance(a, Named) or isinstance(b, Named):
        return _named(a, b)
    if isinstance(a, Text) or isinstance(b, Text):
        return False
    if isinstance(a, Value) and isinstance(b, Value):
        return _values(a, b)
    if isinstance(a, Group) and isinstance(b, Group):
        return _groups(a, b)
    single, group = (a, b) if isinstance(b, Group) else (b, a)
    if isinstance(group, Group) and group.kind == "{}" and len(group.parts) == 1:
        return same(group.parts[0], single)
    found = parse(single.text)
    return (bool(RELATION.search(single.text)) or isinstance(found, sympy.Set)) and _verify(found, parse(group.text))


def _named(a: Answer, b: Answer) -> bool:
    if isinstance(a, Named) and isinstance(b, Named):
        return (a.name == b.name and same(a.value, b.value)) or _verify(parse(a.text), parse(b.text))
    named, other = (a, b) if isinstance(a, Named) else (b, a)
    if isinstance(other, Value) and ("=" in other.text or RELATION.search(other.text)):
        return _verify(parse(named.text), parse(other.text))
    return isinstance(named, Named) and same(named.value, other)


def _groups(a: Group, b: Group) -> bool:
    if len(a.parts) != len(b.parts):
        return False
    if a.kind == b.kind and a.kind not in (*_UNORDERED, "u") or {a.kind, b.kind} == {",", "()"}:
        return all(same(x, y) for x, y in zip(a.parts, b.parts, strict=True))
    if {a.kind, b.kind} <= set(_UNORDERED) or a.kind == b.kind == "u" or {a.kind, b.kind} == {",", "u"}:
        return _matched(a.parts, b.parts)
    return False


def _matched(a: Sequence[Answer], b: Sequence[Answer]) -> bool:
    left = list(b)
    for x in a:
        y = next((y for y in left if same(x, y)), None)
        if y is None:
            return False
        left.remove(y)
    return True


def _values(a: Value, b: Value) -> bool:
    if differ(a.unit, b.unit):
        return False
    if (a.unit == PERCENT) == (b.unit == PERCENT):
        return _equal(a, b, 1)
    percent, other = (a, b) if a.unit == PERCENT else (b, a)
    return _equal(percent, other, 1) or _equal(percent, other, 100)


def _equal(a: Value, b: Value, scale: int) -> bool:
    """Whether a equals scale times b."""
    if a.exact is not None and b.exact is not None:
        return _close(a.exact, b.exact * scale, a.digits, b.digits)
    x, y = _number(a), _number(b)
    if x is None or y is None:
        first, second = parse(a.expression), parse(b.expression)
        return _verify(first, second) if scale == 1 else False
    x, y = sympy.N(x, 40), sympy.N(y * scale, 40)
    # A value with a variable left, or an infinite one, cannot be compared as a number.
    size = abs(x) + abs(y)
    if not size.is_finite or not size.is_comparable:
        return False
    if abs(x - y) <= size * sympy.Float("1e-25"):
        return True
    return any(_rounds(v, w) for v, w in ((a, y), (b, x / scale)))


def _rounds(decimal: Value, exact: Any) -> bool:
    """Whether a number is written as the decimal that another one, which is not finite as a decimal, is rounded to."""
    if decimal.exact is None or not decimal.digits or not _significant(decimal.exact, decimal.digits) >= _PLACES:
        return False
    return bool(2 * abs(exact - sympy.Rational(decimal.exact)) <= sympy.Rational(1, 10**decimal.digits))


def _close(x: Fraction, y: Fraction, x_digits: int, y_digits: int) -> bool:
    if x == y:
        return True
    finite = [_finite(x), _finite(y)]
    if all(finite):
        longest = max(_significant(x, x_digits), _significant(y, y_digits))
        return bool(x_digits or y_digits) and longest >= 15 and abs(x - y) <= _NOISE * max(abs(x), abs(y))
    ((v, digits), w) = ((x, x_digits), y) if finite[0] else ((y, y_digits), x)
    return bool(digits) and _significant(v, digits) >= _PLACES and 2 * abs(v - w) * 10**digits <= 1 and any(finite)


def _finite(x: Fraction) -> bool:
    """Whether a number is a finite decimal."""
    rest = x.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _significant(x: Fraction, digits: int) -> int:
    return len(str(abs(int(x * 10**digits))))


@lru_cache(4096)
def _number(value: Value) -> Any:
    """SymPy's number, with its decimals exact; None if it has variables or is none."""
    if value.exact is not None:
        return sympy.Rational(value.exact.numerator, value.exact.denominator)
    found = parse(value.expression)
    if not isinstance(found, sympy.Expr) or not found.is_number or found.has(sympy.nan, sympy.zoo):
        return None
    return found.replace(lambda e: e.is_Float, lambda e: sympy.Rational(str(e)))


def rational(value: Value) -> Fraction | None:
    """The number of a value, if it is rational, as a fraction of one: 50 % is 1/2."""
    found = _number(value)
    if found is None or found.is_rational is False:
        return None
    found = value.exact if value.exact is not None else found.doit()
    if not isinstance(found, (Fraction, sympy.Rational)) or max(abs(found.numerator), found.denominator) > _LARGEST:
        return None
    return Fraction(int(found.numerator), int(found.denominator)) / (100 if value.unit == PERCENT else 1)


def _verify(gold: Any, found: Any) -> bool:
    """Math-verify's comparison; what is undefined equals nothing."""
    if gold is None or found is None or any(x.has(sympy.nan, sympy.zoo) for x in (gold, found)):
        return False
    return math_verify.verify(gold, found, allow_set_relation_comp=True, timeout_seconds=_SECONDS, raise_on_error=True)
