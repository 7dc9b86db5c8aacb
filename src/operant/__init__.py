"""operant: train models for the way they will be used.

A test-time strategy (pass@N, majority vote, best-of-N) is a value. From it follow an evaluation with error
bars, an SFT loss and RL weights that maximize what is deployed.

The names are imported when they are first used: importing torch takes seconds, and ``operant --help`` needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operant.core.checks import OperantError
    from operant.estimators import expected_value
    from operant.objectives import advantage, answer_loss, credit, sft_loss
    from operant.published import audit
    from operant.strategies import (
        AllOf,
        BestOf,
        Majority,
        Mixture,
        Outcomes,
        PassAt,
        Sampler,
        Threshold,
        check_strategy,
        curve,
        estimate,
        from_function,
        parse,
    )

__version__ = "0.1.0"

_NAMES = {
    "core.checks": ("OperantError",),
    "estimators": ("expected_value",),
    "objectives": ("advantage", "answer_loss", "credit", "sft_loss"),
    "published": ("audit",),
    "strategies": (
        *("AllOf", "BestOf", "Majority", "Mixture", "Outcomes", "PassAt", "Sampler", "Threshold", "check_strategy"),
        *("curve", "estimate", "from_function", "parse"),
    ),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_PACKAGES = ("core", "estimators", "objectives", "published", "strategies")
"""What ``import operant`` lets one use without another import: ``operant.strategies.Majority``."""

__all__ = [
    "AllOf",
    "BestOf",
    "Majority",
    "Mixture",
    "OperantError",
    "Outcomes",
    "PassAt",
    "Sampler",
    "Threshold",
    "advantage",
    "answer_loss",
    "audit",
    "check_strategy",
    "credit",
    "curve",
    "estimate",
    "expected_value",
    "from_function",
    "parse",
    "sft_loss",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _PACKAGES:
        return import_module(f"operant.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'operant' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"operant.{_MODULE_OF[name]}"), name)
    return found


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__, *_PACKAGES})
