"""Operators by name, and those that ``operator="auto"`` tries: read off the classes that are registered."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import operant.relational.operators as package
from operant.core.checks import ParseError
from operant.core.outside import load_outside
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import REGISTERED, RelationalOperator
from operant.relational.operators.warp.operator import Warp

_NEEDS = ("curves", "params", "labels")
"""What operators can need, in the order in which ``operator="auto"`` lists them."""


@cache
def _import_all() -> None:
    """Import every module of operators, and of other packages that add some, so that each class is registered."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    load_outside()


def kinds() -> dict[str, type[RelationalOperator]]:
    """Name -> class of every registered operator.

    Ordered by module: which module was imported first differs between programs, and where two operators predict the
    same error, the order of the candidates decides their weights.
    """
    _import_all()
    return dict(sorted(REGISTERED.items(), key=lambda item: item[1].__module__))


def operator_names() -> list[str]:
    """Names that stand for one operator; products of transformations are named by :meth:`Warp.parse`."""
    return [name for name, kind in kinds().items() if kind is not Warp]


def parse_operator(text: str) -> RelationalOperator:
    """An operator from its name.

    Raises:
        ParseError: with what is allowed.

    >>> parse_operator("shift * xshift").name
    'shift * xshift'
    """
    if text in operator_names():
        return kinds()[text]()
    try:
        return Warp.parse(text)
    except ParseError as error:
        raise ParseError(
            f"expected 'auto', one of {', '.join(operator_names())}, or a transformation such as 'shift * xshift', "
            f"got {text!r}: {error}"
        ) from error


def is_named(operator: RelationalOperator) -> bool:
    """Whether the name gives the same operator back."""
    try:
        return parse_operator(operator.name) == operator
    except ParseError:
        return False


def candidates(bank: TaskBank, *, params: bool) -> list[RelationalOperator]:
    """What ``operator="auto"`` tries on a bank.

    Args:
        bank: in any units.
        params: whether the parameters of the target are known.
    """
    usable = params and bool(bank.parameters.varying.any())
    proposed = [operator for kind in kinds().values() for operator in kind.proposals(bank)]
    kept = [operator for operator in proposed if usable or operator.needs != "params"]
    return sorted(kept, key=lambda operator: _NEEDS.index(operator.needs))
