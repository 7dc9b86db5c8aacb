"""Predict a task outside a bank of known tasks as one of them, transformed.

>>> import numpy as np
>>> from operant.relational import Extrapolator, TaskBank
>>> known = np.linspace(0.4, 1.0, 30)
>>> bank = TaskBank.from_callables(lambda w, x: np.sin(w * x[:, 0]), np.linspace(0, 20, 64), params=known)
>>> x = np.array([1.0, 4.0, 9.0, 12.0, 19.0])
>>> target = Extrapolator("scale * xscale").fit(bank).adapt(x, np.sin(1.3 * x))  # a frequency beyond the bank's
>>> float(np.abs(target.predict([5.0, 15.0]) - np.sin(1.3 * np.array([5.0, 15.0]))).max()) < 1e-6
True

The names are imported when they are first used: the command line needs only the settings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operant.relational.adapted import AdaptedTask
    from operant.relational.bank.csvtable import RelationalWarning, read_csv
    from operant.relational.bank.task import Task
    from operant.relational.bank.tasks import TaskBank
    from operant.relational.extrapolator import Extrapolator
    from operant.relational.operators.base import (
        Adapted,
        CannotAdaptError,
        Context,
        Decomposition,
        Fitted,
        RelationalOperator,
        leave_one_out,
        register,
    )
    from operant.relational.operators.compose import Compose
    from operant.relational.operators.extend import Extend
    from operant.relational.operators.registry import parse_operator
    from operant.relational.operators.span import Span
    from operant.relational.operators.warp.operator import Warp
    from operant.relational.scoring import AdaptationScorer
    from operant.relational.selection.applicability import Applicability, NotApplicableError, NotApplicableWarning
    from operant.relational.transforms import Copy, Scale, Shift, Transformation, Trend, XScale, XShift, XWarp

_NAMES = {
    "adapted": ("AdaptedTask",),
    "bank.csvtable": ("RelationalWarning", "read_csv"),
    "bank.task": ("Task",),
    "bank.tasks": ("TaskBank",),
    "extrapolator": ("Extrapolator",),
    "operators.base": (
        "Adapted",
        "CannotAdaptError",
        "Context",
        "Decomposition",
        "Fitted",
        "RelationalOperator",
        "leave_one_out",
        "register",
    ),
    "operators.compose": ("Compose",),
    "operators.extend": ("Extend",),
    "operators.registry": ("parse_operator",),
    "operators.span": ("Span",),
    "operators.warp.operator": ("Warp",),
    "scoring": ("AdaptationScorer",),
    "selection.applicability": ("Applicability", "NotApplicableError", "NotApplicableWarning"),
    "transforms": ("Copy", "Scale", "Shift", "Transformation", "Trend", "XScale", "XShift", "XWarp"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Adapted",
    "AdaptationScorer",
    "AdaptedTask",
    "Applicability",
    "CannotAdaptError",
    "Compose",
    "Context",
    "Copy",
    "Decomposition",
    "Extend",
    "Extrapolator",
    "Fitted",
    "NotApplicableError",
    "NotApplicableWarning",
    "RelationalOperator",
    "RelationalWarning",
    "Scale",
    "Shift",
    "Span",
    "Task",
    "TaskBank",
    "Transformation",
    "Trend",
    "Warp",
    "XScale",
    "XShift",
    "XWarp",
    "leave_one_out",
    "parse_operator",
    "read_csv",
    "register",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'operant.relational' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"operant.relational.{_MODULE_OF[name]}"), name)
    return found


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
