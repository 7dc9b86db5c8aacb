"""Operators by name."""

from __future__ import annotations

from collections.abc import Callable

from operant.core.checks import ParseError
from operant.relational.operators.base import RelationalOperator
from operant.relational.operators.compose import Compose
from operant.relational.operators.extend import Extend
from operant.relational.operators.psi import Bilinear, Psi
from operant.relational.operators.span import Span
from operant.relational.operators.warp.operator import Warp
from operant.relational.selection.backtest import PLAIN
from operant.relational.transforms import Transformation

_KINDS: tuple[Callable[[], RelationalOperator], ...] = (*PLAIN, Span, Extend, Compose, Psi, Bilinear)
NAMED: dict[str, Callable[[], RelationalOperator]] = {kind().name: kind for kind in _KINDS}
"""Operators by name; any product of transformations is one too, such as "shift * xshift" or "scale by parameters"."""
FOLLOWS = " by parameters"


def parse_operator(text: str) -> RelationalOperator:
    """An operator from its name.

    Raises:
        ParseError: with what is allowed.

    >>> parse_operator("shift * xshift").name
    'shift * xshift'
    """
    if text in NAMED:
        return NAMED[text]()
    try:
        return Warp(Transformation.parse(text.removesuffix(FOLLOWS)), follow=text.endswith(FOLLOWS))
    except ParseError as error:
        raise ParseError(
            f"expected 'auto', one of {', '.join(NAMED)}, or a transformation such as 'shift * xshift', got {text!r}: "
            f"{error}"
        ) from error


def is_named(operator: RelationalOperator) -> bool:
    """Whether the name gives the same operator back."""
    try:
        return parse_operator(operator.name) == operator
    except ParseError:
        return False
