"""What a verifier is given and what it returns: prompts with their correct answers, and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from operant.core.checks import DataError

_PLAIN = (Decimal("1e-9"), Decimal("1e16"))
"""Magnitudes that are written without an exponent."""
Turn = tuple[str, str]
"""One message of a conversation: its role and its text."""


@dataclass(frozen=True)
class Prompt:
    """One prompt and the short answer that is correct for it.

    Args:
        id: number of the prompt in its set; from a file of rollouts, whatever stands there.
        text: what the model is asked, in its template; of a conversation, the user's last message.
        target: the correct answer; "" where a verifier judges without one.
        info: what else the verifier needs (JSON values): further columns, unit tests, a generator's entry.
        history: the turns before ``text``, as (role, content): a system prompt, examples. They need a chat template.
    """

    id: Any
    text: str
    target: str
    info: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    history: tuple[Turn, ...] = ()

    @property
    def asked(self) -> tuple[Turn, ...]:
        """The whole conversation as (role, content): equal where the model is asked the same."""
        return (*self.history, ("user", self.text))


@dataclass(frozen=True)
class Verdict:
    """What the verifier says of one completion.

    Args:
        reward: 1.0 correct, 0.0 wrong (a user's function: any number), None if the verifier failed.
        answer: text that stands for the answer, equal for the answers of one prompt that are the same answer; None if
            there is none.
        failure: "" or what went wrong: "timeout", "crash", or the name of the exception.
    """

    reward: float | None
    answer: str | None
    failure: str = ""


def clean_target(value: Any, where: str) -> str:
    """The correct answer as text: one cleaning for prompt files, files of rollouts and rewards.

    It is :func:`as_text` without white space at its ends: 5 and 5.0 are "5", 1e-05 is "0.00001", true is "true".

    Args:
        value: what stands in the row.
        where: file, row and column, for the error.

    Raises:
        DataError: for None, a number that is not finite, a list, a mapping, and any other type.
    """
    return as_text(value, where, "the correct answer").strip()


def as_text(value: Any, where: str, what: str) -> str:
    """A cell as text.

    - A text is left as it is.
    - A number becomes its shortest decimal text: 5 and 5.0 (tables write whole numbers so) are "5", 1e-05 is
      "0.00001". Below 1e-9 and from 1e16 on the exponent stays.
    - true and false are written as JSON writes them.
    - Everything else is refused: its text would be Python's, which no file holds and no model writes.

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
        return "0"  # -0.0 too
    if not _PLAIN[0] <= abs(value) < _PLAIN[1]:
        return str(value).lower()
    whole, _, part = format(value, "f").partition(".")
    part = part.rstrip("0")
    return f"{whole}.{part}" if part else whole
