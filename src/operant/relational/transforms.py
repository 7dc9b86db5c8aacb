"""Transformations between tasks as values.

    y(x) = s f(a x + b) + t + u x,        in the units of the data,

with f the anchor. A transformation is a product of the five kinds of factors below. Each factor is free or has a value;
a kind that is left out is the identity:

    >>> Shift() * Scale(2.0) * XShift()
    Shift() * Scale(2) * XShift()
    >>> (Scale(2.0) * XShift(0.5)).formula()
    'y(x) = 2 f(x + 0.5)'
    >>> (Scale(2.0) * XShift(0.5)).apply(lambda x: x**2, np.array([[1.0]]))
    array([[4.5]])

The order in which factors are written does not matter. They are applied as x-scale, x-shift, scale, trend, shift.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from operant.core.checks import InputError, ParseError
from operant.relational.bank.curves import Array

KINDS = ("shift", "scale", "trend", "xshift", "xscale")
"""Names of the factors, in the order in which they are written."""
_CLASSES = {"shift": "Shift", "scale": "Scale", "trend": "Trend", "xshift": "XShift", "xscale": "XScale"}
_IDENTITY = {"shift": 0.0, "scale": 1.0, "trend": 0.0, "xshift": 0.0, "xscale": 1.0}

FactorValue = tuple[float, ...] | None
"""One number for each output (shift, scale), input (xshift, xscale) or both (trend, outputs first); None if free."""


@dataclass(frozen=True, repr=False)
class Transformation:
    """A product of factors. Make one with Shift, Scale, Trend, XShift, XScale, XWarp and ``*``, or :meth:`parse`.

    Args:
        factors: kind -> its value, or None where it is free.

    Raises:
        InputError: for an unknown kind, a value that is not finite, or an x-scale that is not positive.
    """

    factors: tuple[tuple[str, FactorValue], ...] = ()

    def __post_init__(self) -> None:
        for kind, value in self.factors:
            if kind not in KINDS:
                raise InputError(f"a transformation has the factors {', '.join(KINDS)}; got {kind!r}.")
            if value is not None and not np.isfinite(value).all():
                raise InputError(f"{_CLASSES[kind]} must be finite, got {value}.")
            if value is not None and kind == "xscale" and not min(value) > 0:
                raise InputError(f"XScale must be positive, got {value}.")
        object.__setattr__(self, "factors", tuple(sorted(self.factors, key=lambda f: KINDS.index(f[0]))))

    def __mul__(self, other: Transformation) -> Transformation:
        """Both; a kind may come once.

        Raises:
            InputError: if both have a factor of the same kind.
        """
        if both := {k for k, _ in self.factors} & {k for k, _ in other.factors}:
            raise InputError(f"a product has each kind of factor once, both have {', '.join(sorted(both))}.")
        return Transformation(self.factors + other.factors)

    def __repr__(self) -> str:
        if not self.factors:
            return "Copy()"
        return " * ".join(f"{_CLASSES[k]}({'' if v is None else ', '.join(map(_short, v))})" for k, v in self.factors)

    def __str__(self) -> str:
        """As :meth:`parse` reads it, with all digits."""
        return " * ".join(k if v is None else f"{k}({', '.join(map(_exact, v))})" for k, v in self.factors) or "copy"

    def get(self, kind: str) -> FactorValue:
        """The value of a factor, its identity if it is not there.

        Raises:
            InputError: if it is free.
        """
        value = dict(self.factors).get(kind, (_IDENTITY[kind],))
        if value is None:
            raise InputError(f"{_CLASSES[kind]}() is free: give it a value, or fit it.")
        return value

    @property
    def free(self) -> tuple[str, ...]:
        """Kinds that have no value."""
        return tuple(k for k, v in self.factors if v is None)

    @property
    def pinned(self) -> dict[str, tuple[float, ...]]:
        """Kinds that have one."""
        return {k: v for k, v in self.factors if v is not None}

    def has(self, kind: str) -> bool:
        """Whether it has such a factor."""
        return any(k == kind for k, _ in self.factors)

    def filled(self, values: Mapping[str, Sequence[float]]) -> Transformation:
        """The same with free factors set."""
        return Transformation(tuple((k, tuple(map(float, values[k])) if v is None else v) for k, v in self.factors))

    def apply(self, f: Callable[[Array], Array], x: Array) -> Array:
        """(Q, C) values of the transformed function at (Q, D).

        Raises:
            InputError: if a factor is free.
        """
        s, t, u, b, a = (np.array(self.get(k)) for k in ("scale", "shift", "trend", "xshift", "xscale"))
        y = s * np.asarray(f(a * x + b)) + t
        return y + x @ np.broadcast_to(u, (y.shape[1] * x.shape[1],)).reshape(y.shape[1], x.shape[1]).T

    def formula(self) -> str:
        """As an equation; free factors by their letters."""
        letters = {"shift": "t", "scale": "s", "trend": "u", "xshift": "b", "xscale": "a"}

        def text(kind: str) -> str:
            value = dict(self.factors)[kind]
            return (
                letters[kind]
                if value is None
                else _short(value[0])
                if len(value) == 1
                else f"({', '.join(map(_short, value))})"
            )

        inside = f"{text('xscale')} x" if self.has("xscale") else "x"
        inside += f" + {text('xshift')}" if self.has("xshift") else ""
        out = f"{text('scale')} f({inside})" if self.has("scale") else f"f({inside})"
        out += f" + {text('trend')} x" if self.has("trend") else ""
        out += f" + {text('shift')}" if self.has("shift") else ""
        return "y(x) = " + out.replace("+ -", "- ")

    def to_json(self) -> dict[str, list[float] | None]:
        """Kind -> value or None, for JSON."""
        return {k: None if v is None else list(v) for k, v in self.factors}

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[float] | None]) -> Transformation:
        """Back from :meth:`to_json`."""
        return cls(tuple((k, None if v is None else tuple(map(float, v))) for k, v in data.items()))

    @classmethod
    def parse(cls, text: str) -> Transformation:
        """From a text such as "shift * xshift(0.4)"; "copy" is the identity, "xwarp" is xshift * xscale.

        Raises:
            ParseError: with what is allowed.
        """
        out = cls()
        for part in text.split("*"):
            match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", part)
            name = match.group(1).lower() if match else ""
            numbers = (match.group(2) or "").strip() if match else ""
            if name == "copy" and not numbers:
                continue
            if name == "xwarp" and not numbers:
                out = out * XWarp()
                continue
            if name not in KINDS:
                raise ParseError(
                    f"expected factors {', '.join(KINDS)}, xwarp or copy joined by '*', each with numbers in brackets "
                    f"or none, got {part.strip()!r} in {text!r}."
                )
            try:
                value = tuple(float(n) for n in numbers.split(",")) if numbers else None
            except ValueError as error:
                raise ParseError(f"expected numbers in {part.strip()!r} of {text!r}.") from error
            out = out * cls(((name, value),))
        return out


def Shift(*t: float) -> Transformation:  # noqa: N802
    """y + t."""
    return _one("shift", t)


def Scale(*s: float) -> Transformation:  # noqa: N802
    """s y."""
    return _one("scale", s)


def Trend(*u: float) -> Transformation:  # noqa: N802
    """y + u x."""
    return _one("trend", u)


def XShift(*b: float) -> Transformation:  # noqa: N802
    """f(x + b): the curve moves to the left by b."""
    return _one("xshift", b)


def XScale(*a: float) -> Transformation:  # noqa: N802
    """f(a x): the curve runs a times as fast."""
    return _one("xscale", a)


def XWarp() -> Transformation:  # noqa: N802
    """f(a x + b)."""
    return XShift() * XScale()


def Copy() -> Transformation:  # noqa: N802
    """The identity."""
    return Transformation()


def _one(kind: str, value: tuple[Any, ...]) -> Transformation:
    return Transformation(((kind, tuple(map(float, value)) or None),))


def _short(value: float) -> str:
    return f"{value:z.4g}"


def _exact(value: float) -> str:
    return short if float(short := f"{value:zg}") == value else repr(float(value))
