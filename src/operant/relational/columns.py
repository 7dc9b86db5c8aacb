"""How the columns of files enter an extrapolation: their units, and the logarithms that stand for some of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operant.core.checks import DataError, InputError
from operant.relational.bank.csvtable import CSVTable
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.transforms import Transformation

_DIGITS = 12
"""Digits of a value that went through a logarithm and back."""
_DECADES = 1.5
"""Values over fewer decades are shown, and spaced, as well on a linear scale."""
_FAR = 3.0
"""A value that is mistyped by a factor of ten stands this far out where the others vary by up to a third."""


@dataclass(frozen=True, eq=False)
class Forms:
    """What the operators see in place of the columns.

        x' = log10(x / x0) for the inputs of ``log_x``,        y' = ln(y / y0) if ``positive``.

    A forecast in y' is exp(y') y0 in y, so it and both ends of its interval are positive. The ends hold the same
    probability, since the logarithm is monotone; the middle is a median, not a mean. A sum in y' is a product in y.
    With the references x0 and y0, taken from the bank, nothing depends on the units of the columns.

    Args:
        log_x: (D,) inputs that are taken as logarithms.
        positive: whether the outputs are.
        x0: (D,) the middle of the bank's range, on the logarithmic scale; 1 for the other inputs.
        y0: (C,) the geometric mean of the bank's values; 1 if outputs are taken as they are.
    """

    log_x: NDArray[np.bool_]
    positive: bool
    x0: Array
    y0: Array

    @classmethod
    def of(cls, bank: TaskBank, log_x: Collection[str] = (), *, positive: bool = False) -> Forms:
        """For the columns of a bank, whose values there are positive.

        Raises:
            DataError: for a name in ``log_x`` that is no input.
        """
        for name in log_x:
            if name not in bank.x_names:
                raise DataError(
                    f"--log_x: expected inputs ({', '.join(bank.x_names)}), got {name!r}."
                    + (" For outputs, use --positive." if name in bank.y_names else "")
                )
        which = np.array([name in log_x for name in bank.x_names])
        low, high = (np.where(which, end, 1.0) for end in bank.range)
        y = np.concatenate([t.y for t in bank.tasks])
        y0 = np.exp(np.log(y).mean(0)) if positive else np.ones(bank.c)
        return cls(which, positive, np.sqrt(low * high), y0)

    @property
    def plain(self) -> bool:
        """Whether every column is taken as it is."""
        return not (self.positive or self.log_x.any())

    def x_in(self, x: Array) -> Array:
        """(Q, D) x to x'."""
        out = np.array(x, dtype=np.float64)
        out[:, self.log_x] = np.log10(out[:, self.log_x] / self.x0[self.log_x])
        return out

    def x_out(self, x: Array) -> Array:
        """(Q, D) x' to x."""
        out = np.array(x, dtype=np.float64)
        out[:, self.log_x] = 10 ** out[:, self.log_x] * self.x0[self.log_x]
        return out

    def y_in(self, y: Array) -> Array:
        """(Q, C) y to y'."""
        return np.log(y / self.y0) if self.positive else y

    def y_out(self, y: Array) -> Array:
        """(Q, C) y' to y."""
        # e to this is close to the largest number; a band that wide says nothing either way.
        return np.exp(np.clip(y, -700, 700)) * self.y0 if self.positive else y

    def bank_in(self, bank: TaskBank) -> TaskBank:
        """The bank that the operators see."""
        tasks = tuple(replace(t, x=self.x_in(t.x), y=self.y_in(t.y)) for t in bank.tasks)
        return bank if self.plain else replace(bank, tasks=tasks)

    def record_out(self, record: dict[str, Any], query: Array, truth: Array) -> dict[str, Any]:
        """The record of a target in the units of the files.

        Args:
            record: as :meth:`AdaptedTask.record` makes it.
            query: (Q, D) its query points, as they stood in the files.
            truth: (Q, C) known values there, NaN where there is none.
        """
        known = ~np.isnan(truth).any(1)
        told = {"x": query[known].tolist(), "y": truth[known].tolist()} if known.any() else None
        if self.plain:
            return record | {"truth": told}
        out = {k: v | self._out(v) for k in ("context", "anchor", "baseline") if (v := record[k])}
        asked = record["prediction"] | self._out(record["prediction"]) | {"x": query.tolist()}
        return record | out | {"prediction": asked, "truth": told}

    def _out(self, curve: Mapping[str, Any]) -> dict[str, Any]:
        """Points and values of a curve in a record."""
        x = {"x": _rounded(self.x_out(np.array(curve["x"])))} if "x" in curve else {}
        values = [k for k in ("y", "mean", "low", "high") if k in curve]
        return x | {k: _rounded(self.y_out(np.array(curve[k]))) for k in values}

    def formula(self, t: Transformation) -> str:
        """A transformation with all its values as an equation between x and y themselves.

        With both logarithms of one input and one output, y(x) = k f(c x^a)^s x^v.
        """
        if self.plain or len(self.x0) > 1 or len(self.y0) > 1:
            seen = ["ln y"] * self.positive + ["log10 x"] * bool(self.log_x.any())
            return t.formula() + (f", for {' and '.join(seen)}" if seen else "")
        s, shift, u, b, a = (float((t.get(k) or (0.0,))[0]) for k in ("scale", "shift", "trend", "xshift", "xscale"))
        x0, y0, log = float(self.x0[0]), float(self.y0[0]), bool(self.log_x[0])
        if log:
            inside = _times(10**b * x0 ** (1 - a), f"x^{a:z.4g}" if t.has("xscale") else "x")
        else:
            inside = (f"{a:z.4g} x" if t.has("xscale") else "x") + (_plus(b) if t.has("xshift") else "")
        f = f"f({inside})"
        if not self.positive:
            f = f"{s:z.4g} {f}" if t.has("scale") else f
            trend = f"{_plus(u)} log10 x" if t.has("trend") else ""
            return f"y(x) = {f}{trend}" + (_plus(shift - u * np.log10(x0)) if t.has("shift") or t.has("trend") else "")
        f = f"{f}^{s:z.4g}" if t.has("scale") else f
        factor = np.exp(shift) * y0 ** (1 - s) * (x0 ** (-u / np.log(10)) if log else 1.0)
        trend = (f" x^{u / np.log(10):z.4g}" if log else f" exp({u:z.4g} x)") if t.has("trend") else ""
        return f"y(x) = {_times(factor, f)}{trend}"


def _times(factor: float, what: str) -> str:
    return what if f"{factor:z.4g}" == "1" else f"{factor:z.4g} {what}"


def _plus(value: float) -> str:
    return f" - {-value:.4g}" if value < 0 else f" + {value:z.4g}"


def _rounded(values: Array) -> list[list[float | None]]:
    """Rows of numbers without the noise of the logarithm; what is no number stays one for JSON."""
    return [[float(f"{v:.{_DIGITS}g}") if np.isfinite(v) else float("nan") for v in row] for row in values]


def check_positive(table: CSVTable, name: str, values: Array, flag: str) -> None:
    """Refuse values that have no logarithm.

    Raises:
        InputError: with file and line.
    """
    bad = np.flatnonzero(values <= 0)
    if bad.size:
        more = f" ({bad.size} such rows)" if bad.size > 1 else ""
        raise InputError(
            f"{table.place(int(bad[0]))}, column {name!r}: expected a positive value, because {flag} takes its "
            f"logarithm, got {values[bad[0]]:g}{more}. Drop such rows, or leave {flag} out."
        )


def is_geometric(values: Array) -> bool:
    """Whether positive values are spread evenly rather in their logarithm, over more than _DECADES decades."""
    values = values[np.isfinite(values)]
    if len(values) < 3 or values.min() <= 0 or np.log10(values.max() / values.min()) < _DECADES:
        return False
    logs = np.log(values)
    middle, log_middle = ((np.median(v) - v.min()) / np.ptp(v) for v in (values, logs))
    return abs(log_middle - 0.5) < abs(middle - 0.5)


def suspects(x: Array, y: Array) -> list[int]:
    """The point of a curve that stands out like a misplaced decimal point, if there is one; from five points on.

    Its value differs from the line between its neighbors by several times what all other values span, and its logarithm
    does, too, where all values are positive: the last point of an exponential is no mistake.

    Args:
        x: (P,) points.
        y: (P,) values.
    """
    if len(x) < 5:
        return []
    order = np.argsort(x)
    found = {_odd(x[order], v) for v in ([y[order], np.log(y[order])] if y.min() > 0 else [y[order]])}
    (i,) = found if len(found) == 1 else (None,)
    return [] if i is None else [int(order[i])]


def _odd(x: Array, y: Array) -> int | None:
    """The place of the point without which the others span the least, if it is far from the line beside it."""
    i = int(np.argmin([np.ptp(np.delete(y, k)) for k in range(len(y))]))
    rest = float(np.ptp(np.delete(y, i)))
    # An end is compared with the line through the two points next to it, continued.
    a, b = (1, 2) if i == 0 else (i - 2, i - 1) if i == len(y) - 1 else (i - 1, i + 1)
    line = y[a] + (y[b] - y[a]) / (x[b] - x[a]) * (x[i] - x[a])
    return i if abs(y[i] - line) > _FAR * rest > 0 else None


def parse_units(given: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """``["t=s", "E=MPa"]`` as a mapping.

    Raises:
        InputError: for a text that is not column=unit, or a column that is not used.
    """
    found: dict[str, str] = {}
    for item in given:
        name, equals, unit = (part.strip() for part in item.partition("="))
        if not (name and equals and unit):
            raise InputError(f"--units: expected column=unit, such as t=s,E=MPa; got {item!r}.")
        if name not in columns:
            close = difflib.get_close_matches(name, columns, 1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise InputError(f"--units: no column {name!r} is used; those used are {', '.join(columns)}.{meant}")
        found[name] = unit
    return found


def joined_units(tables: Sequence[CSVTable], given: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    """Column -> unit: what is given, else what the rows of units in the files say.

    Raises:
        DataError: if two files say different units.
    """
    found = dict(given)
    for name in (n for n in columns if n not in given):
        said = {t.units[name]: t.path for t in tables if name in t.units}
        if len(said) > 1:
            (one, here), (other, there) = list(said.items())[:2]
            raise DataError(
                f"{name} is in {one} in {here} and in {other} in {there}. Convert one of them; if both mean the "
                f"same, say --units {name}={one}."
            )
        if said:
            found[name] = next(iter(said))
    return found
