"""Argument checks and the exceptions that operant raises.

Shapes are written with the letters of the project's glossary: ``B`` prompts, ``M`` rollouts observed
per prompt, ``N`` budget of the deployed strategy, ``K`` answer classes, ``T`` tokens. Every message says
what was expected, what came, and what to do next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex

if TYPE_CHECKING:  # the command line needs the errors, and importing torch takes a second
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


class _Check(NamedTuple):
    """A check whose result is not known yet: how many values are wrong, on their device, and what to say."""

    wrong: Tensor
    message: Callable[[int], str]


_DEFERRED: ContextVar[list[_Check] | None] = ContextVar("deferred checks", default=None)


class DeferredChecks:
    """Checks of values on a GPU whose result is read later: a check that raises at once waits for the device.

    Within :meth:`collect`, a check of this module notes its result on the device and returns. The results are then
    copied to the host behind the work that made them, and :meth:`raise_found` raises the first that failed. Nothing
    that was checked may be used for good before.
    """

    def __init__(self) -> None:
        self._sent: list[tuple[Tensor, list[_Check], torch.cuda.Event | None]] = []

    @contextmanager
    def collect(self) -> Generator[None]:
        """Defer the checks of a block."""
        found: list[_Check] = []
        token = _DEFERRED.set(found)
        try:
            yield
        finally:
            _DEFERRED.reset(token)
        if not found:
            return
        import torch

        wrong, event = torch.stack([check.wrong for check in found]), None
        if wrong.is_cuda:
            wrong, event = wrong.to("cpu", non_blocking=True), torch.cuda.Event()
            event.record()
        self._sent.append((wrong, found, event))

    def raise_found(self) -> None:
        """Raise the first check that failed. Waits until the checked values are computed, not for what follows them.

        Raises:
            InputError: as the check would have done, without the position of the value.
        """
        sent, self._sent = self._sent, []
        for wrong, checks, event in sent:
            if event is not None:
                event.synchronize()
            for count, check in zip(wrong.tolist(), checks, strict=True):
                if count:
                    raise InputError(check.message(count))


def deferred(wrong: Tensor, message: Callable[[int], str]) -> bool:
    """Whether the checks are deferred here (:class:`DeferredChecks`); if so, this one is noted.

    Args:
        wrong: (...) bool, True where a value is not what the function takes.
        message: of the error, from the number of wrong values. It must not hold a tensor.
    """
    checks = _DEFERRED.get()
    if checks is not None:
        checks.append(_Check(wrong.sum(), message))
    return checks is not None


def check_finite(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if it is free of NaN and infinities.

    Raises:
        InputError: with the position of the first offender.
    """
    bad, size = ~value.isfinite(), value.numel()
    if deferred(bad, lambda count: f"{name} must be finite, got {count} of {size} values that are not. {_REPAIR}"):
        return value
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise InputError(
            f"{name} must be finite, got {value[where].item()} at index {where} "
            f"({int(bad.sum())} of {size} values). {_REPAIR}"
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
    high = log_p > 1e-4
    if not deferred(high, lambda count: f"log_p must be <= 0, got {count} values above 1e-4. {_SUM}") and high.any():
        raise InputError(f"log_p must be <= 0 (a natural-log probability), got {log_p.max().item():.6g}. {_SUM}")
    return log_p.clamp(max=0.0)


_REPAIR = "Drop or repair these rollouts first: they are never trained on."
_SUM = "Pass the *sum* of the target's token log-probabilities, not a loss and not a probability."
