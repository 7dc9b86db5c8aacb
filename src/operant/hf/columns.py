"""One value of a row as the text that it stands for: the correct answer, whatever JSON or a table wrote it as."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from operant.core.checks import DataError

PLAIN = (Decimal("1e-9"), Decimal("1e16"))
"""Magnitudes that are written without an exponent."""


def clean_target(value: Any, where: str) -> str:
    """The correct answer as text: one cleaning for prompt files, files of rollouts and rewards.

    - A text loses the white space at its ends.
    - A number becomes its shortest decimal text: 5 and 5.0 (tables write whole numbers so) are "5", 1e-05 is
      "0.00001". Below 1e-9 and from 1e16 on the exponent stays.
    - true and false are written as JSON writes them.
    - Everything else is refused: its text would be Python's, and no completion would ever equal it.

    Args:
        value: what stands in the row.
        where: file, row and column, for the error.

    Raises:
        DataError: for None, a number that is not finite, a list, a mapping, and any other type.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal, np.integer, np.floating)):
        return _number(Decimal(str(value)), where)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, Mapping):
        names = ", ".join(repr(name) for name in list(value)[:5])  # pyright: ignore[reportUnknownArgumentType]
        hint = f"got a mapping with {names}. Name one entry, as in --data.target reward_model.ground_truth"
    elif isinstance(value, (list, tuple)):
        hint = "got a list. Name one entry, as in --data.target answers.0"
    else:
        hint = "got None" if value is None else f"got {type(value).__name__}. Write the answer as a text"
    raise DataError(f"{where}: expected the correct answer as a text or a number, {hint}.")


def _number(value: Decimal, where: str) -> str:
    if not value.is_finite():
        raise DataError(f"{where}: expected the correct answer as a text or a finite number, got {value}.")
    if value == 0:
        return "0"  # -0.0 too
    if not PLAIN[0] <= abs(value) < PLAIN[1]:
        return str(value).lower()
    whole, _, part = format(value, "f").partition(".")
    part = part.rstrip("0")
    return f"{whole}.{part}" if part else whole
