"""What a verifier is given and what it returns: prompts with their correct answers, and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from operant.core.checks import DataError

# Magnitudes that are written without an exponent: the range in which a person would write all digits.
_PLAIN = (Decimal("1e-9"), Decimal("1e16"))
Turn = tuple[str, str]
"""One message of a conversation: its role and its text."""


@dataclass(frozen=True)
class Prompt:
    """One prompt and the short answer that is correct for it.

    Args:
        id: number of the prompt in its set. In a file of rollouts it is any text or number.
        text: what the model is asked, in its template. In a conversation it is the user's last message.
        target: the correct answer, or "" for a verifier that needs none.
        info: what else the verifier needs, as JSON values: further columns, unit tests, an entry of a generator.
        history: the turns before ``text`` as (role, content), for example a system prompt. They need a chat template.
    """

    id: Any
    text: str
    target: str
    info: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    history: tuple[Turn, ...] = ()

    @property
    def asked(self) -> tuple[Turn, ...]:
        """The whole conversation as (role, content). Prompts with equal conversations are one question to the model."""
        return (*self.history, ("user", self.text))


@dataclass(frozen=True)
class Verdict:
    """The result of verifying one completion.

    Args:
        reward: 1.0 for correct and 0.0 for wrong; any number from a user's function; None if the verifier failed.
        answer: text of the answer, or None. Equivalent answers of one prompt have the same text.
        failure: "", or the kind of failure: "timeout", "crash", or the name of the exception.
    """

    reward: float | None
    answer: str | None
    failure: str = ""


def clean_target(value: Any, where: str) -> str:
    """The correct answer as text. Prompt files, files of rollouts and rewards all use this function.

    It is :func:`as_text` without white space at its ends: 5 and 5.0 are "5", 1e-05 is "0.00001", true is "true".

    Args:
        value: the value in the row.
        where: file, row and column, for the error.

    Raises:
        DataError: for None, a number that is not finite, a list, a mapping, and any other type.
    """
    return as_text(value, where, "the correct answer").strip()


def as_text(value: Any, where: str, what: str) -> str:
    """A cell as text.

    - A text stays as it is.
    - A number becomes its shortest decimal text: 5 and 5.0 are "5", 1e-05 is "0.00001". Numbers below 1e-9 and from
      1e16 on keep their exponent.
    - true and false are written as JSON writes them.
    - Everything else is an error: a model would have to write Python's notation to be right.

    Raises:
        DataError: naming ``where`` and ``what`` was expected.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal, np.integer, np.floating)):
        return _number(Decimal(str(value)), where, what)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, Mapping):
        names = ", ".join(repr(name) for name in list(value)[:5])  # pyright: ignore[reportUnknownArgumentType]
        hint = f"a mapping with {names}. Name one entry of the column by a dot: COLUMN.{next(iter(value), 'KEY')}"  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, (list, tuple, np.ndarray)):
        hint = "a list. Name one entry of the column by a dot: COLUMN.0"
    else:
        hint = "None" if value is None else f"{type(value).__name__}. Write it as a text"
    raise DataError(f"{where}: expected {what} as a text or a number, got {hint}.")


def _number(value: Decimal, where: str, what: str) -> str:
    if not value.is_finite():
        raise DataError(f"{where}: expected {what} as a text or a finite number, got {value}.")
    if value == 0:
        return "0"  # -0.0 as well, which would be written "-0"
    if not _PLAIN[0] <= abs(value) < _PLAIN[1]:
        return str(value).lower()
    whole, _, part = format(value, "f").partition(".")
    part = part.rstrip("0")
    return f"{whole}.{part}" if part else whole
