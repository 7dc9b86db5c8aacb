"""Argument checks and the exceptions that operant raises.

Shapes are written with the letters of the project's glossary: ``B`` prompts, ``M`` rollouts observed
per prompt, ``N`` budget of the deployed strategy, ``K`` answer classes, ``T`` tokens. Every message says
what was expected, what came, and what to do next.
"""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Tensor


class OperantError(ValueError):
    """Base class of every error that operant raises on purpose."""


class InputError(OperantError):
    """A value is not what the function takes: NaN, infinite, wrong sign, wrong dtype, wrong shape."""


class BudgetError(OperantError):
    """A budget N that the number of rollouts M does not allow."""


class ParseError(OperantError):
    """A strategy string that does not parse."""


class ConfigError(OperantError):
    """Settings that cannot work together, or that would change the objective."""


class DataError(OperantError):
    """A file, a data set or a run directory that lacks what is needed or cannot be read."""


class NotDefinedError(OperantError):
    """A quantity that this strategy does not have (for example log S(p) of a vote over classes)."""


class FewRolloutsWarning(UserWarning):
    """M rollouts give unbiased weights, but leave many groups without any signal."""


def check_int(name: str, value: object, *, least: int) -> int:
    """Return ``value`` as an int if it is an integer (Python's or NumPy's) of at least ``least``.

    Raises:
        BudgetError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or value.__index__() < least:
        raise BudgetError(f"{name} must be an integer >= {least}, got {value!r}.")
    return value.__index__()


def check_finite(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if it is free of NaN and infinities.

    Raises:
        InputError: with the position of the first offender.
    """
    bad = ~torch.isfinite(value)
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise InputError(
            f"{name} must be finite, got {value[where].item()} at index {where} "
            f"({int(bad.sum())} of {value.numel()} values). Drop or repair these rollouts first: "
            "they are never trained on."
        )
    return value


def check_log_p(log_p: Tensor) -> Tensor:
    """Return log-probabilities, natural log, clamped to at most 0.

    Rounding can leave a log-probability at +1e-7; values up to 1e-4 are taken as 0.

    Raises:
        InputError: if a value is NaN, infinite or above 1e-4, or the dtype is not floating.
    """
    if not log_p.is_floating_point():
        raise InputError(f"log_p must be a floating tensor of natural-log probabilities, got {log_p.dtype}.")
    check_finite("log_p", log_p)
    if bool((log_p > 1e-4).any()):
        raise InputError(
            f"log_p must be <= 0 (a natural-log probability), got {log_p.max().item():.6g}. "
            "Pass the *sum* of the target's token log-probabilities, not a loss and not a probability."
        )
    return log_p.clamp(max=0.0)
