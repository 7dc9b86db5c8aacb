"""The known parameters of a bank's tasks: which of them vary, and how far a target lies from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from operant.core.checks import OperantError
from operant.relational.bank.curves import Array

FAR = 20.0
"""A target this many times as far from the middle of the bank as the bank itself reaches is in other units."""


class CannotAdaptError(OperantError):
    """An operator cannot be used on this bank or this target; the message says why."""


@dataclass(frozen=True, eq=False)
class ParameterTable:
    """Parameters of F tasks.

    Args:
        names: K names.
        values: (F, K).
    """

    names: tuple[str, ...]
    values: Array

    @cached_property
    def varying(self) -> NDArray[np.bool_]:
        """(K,) whether a parameter differs between tasks; from one that does not, nothing can be learned."""
        return np.ptp(self.values, axis=0) > 0

    def notes(self) -> list[str]:
        """What a user is told about parameters that never vary."""
        each = zip(self.names, self.values[0], self.varying, strict=True)
        return [f"{n} never varies in the bank (it is {v:g}); it was not used" for n, v, varies in each if not varies]

    def standardized(self, params: Array) -> Array:
        """(.., K) parameters in standard deviations from the bank's mean, 0 where all tasks of the bank have one value.

        At most 1e100, so that their squares are numbers.
        """
        z = (params - self.values.mean(0)) / np.where(self.varying, self.values.std(0), np.inf)
        return np.clip(z, -1e100, 1e100)

    def check_reach(self, params: Array) -> None:
        """Refuse parameters (K,) so far from the bank's that nothing can be continued to them.

        Raises:
            CannotAdaptError: if they lie FAR times as far from the middle of the bank's as these do.
        """
        low, high = self.values.min(0), self.values.max(0)
        half = np.where(self.varying, (high - low) / 2, np.inf)
        far = np.abs(params - (low + high) / 2) / half
        if (far > FAR).any():
            k = int(far.argmax())
            raise CannotAdaptError(
                f"{self.names[k]} = {params[k]:g} lies {far[k]:.0f} times as far from the middle of the bank's "
                f"values as these do ({low[k]:g} to {high[k]:g}): nothing is continued so far."
            )
