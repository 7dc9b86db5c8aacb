"""Spreadsheet cells with names, and steps that clean them up: text tasks with exact answers."""

from __future__ import annotations

from collections.abc import Callable

from operant.core.rng import numpy_generator
from operant.language.bank import TextBank
from operant.language.problems import random_words

FORMS = ("{1}, {0}", "{1},  {0} ", "{0} {1}", " {0}  {1}", "{1}, {0} {2}")
"""First name, last name, a number."""
CASES: tuple[Callable[[str], str], ...] = (str.upper, str.lower, str.title)


def _swap_at_comma(x: str) -> str:
    last, comma, first = x.partition(",")
    return f"{first.strip()} {last.strip()}" if comma else x


def _words(x: str) -> list[str]:
    return x.replace(",", " ").split()


STEPS: dict[str, Callable[[str], str]] = {
    "swap at comma": _swap_at_comma,
    "title case": str.title,
    "upper case": str.upper,
    "lower case": str.lower,
    "trim": lambda x: " ".join(x.split()),
    "first word": lambda x: "".join(_words(x)[:1]),
    "last word": lambda x: "".join(_words(x)[-1:]),
    "initials": lambda x: "".join(w[0] + "." for w in _words(x)),
    "dots": lambda x: ".".join(_words(x)),
    "mail": lambda x: x + "@acme.org",
    "brackets": lambda x: f"({x})",
    "no digits": lambda x: "".join(c for c in x if not c.isdigit()).strip(),
}


def cells(count: int, *, seed: int) -> list[str]:
    """Cells with a made-up first and last name in one of five forms and three cases, some with a number."""
    rng = numpy_generator(seed, "cells")
    # Made-up names: with a list of real ones the model learns the names and cannot copy others.
    names = random_words(2 * count, seed=seed, lengths=(3, 8))
    found: list[str] = []
    for first, last in zip(names[::2], names[1::2], strict=True):
        case = [CASES[i] for i in rng.integers(len(CASES), size=2)]
        form = FORMS[int(rng.integers(len(FORMS)))]
        found.append(form.format(case[0](first), case[1](last), rng.integers(1, 100)))
    return found


def spreadsheet_steps(inputs: int = 1000, *, seed: int = 0) -> TextBank:
    """The twelve steps as a bank, with demonstrations on random cells."""
    return TextBank.from_functions(STEPS, cells(inputs, seed=seed), parts={name: (name,) for name in STEPS})
