"""Principal components of a bank's curves as functions of x.

Letters: ``F`` tasks, ``G`` grid points, ``Q`` query points, ``D`` inputs, ``C`` outputs, ``K`` components.
"""

from __future__ import annotations

import numpy as np

from operant.relational.bank.curves import Array, interpolator
from operant.relational.bank.tasks import TaskBank

_SMALLEST = 1e-9
"""Singular values below this part of the largest are rounding errors of values that carry 9 digits or so."""


class Components:
    """Mean and components, f(x) = mean(x) + sum_k z_k phi_k(x), scaled so that z_k has variance 1 in the bank.

    Args:
        bank: the tasks.
        most: components at most; at least one is kept, even if all tasks are the same.
        grid: (G, D) points at which tasks are compared; default the bank's own.
    """

    def __init__(self, bank: TaskBank, most: int, grid: Array | None = None) -> None:
        grid = bank.grid() if grid is None else grid
        values = bank.values(grid)  # (F, G, C)
        flat = values.reshape(len(bank), -1)
        u, s, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
        real = int((s > _SMALLEST * max(s[0], 1e-300)).sum())
        self.flat = real == 0
        """Whether all tasks are the same function."""
        self.count = max(1, min(most, real, len(bank) - 1))
        """K."""
        # phi_k(x) = sqrt(1/F) u_k' (values(x) - mean(x)): no inverse of small singular values. Those leave u_k with a
        # part along the mean, which may be larger than phi_k itself and is taken out.
        u = u[:, : self.count] - u[:, : self.count].mean(0)
        self._mix = np.vstack([np.full(len(bank), 1 / len(bank)), u.T / np.sqrt(len(bank))])
        self._bank = bank
        if not bank.callable:
            mixed = np.tensordot(self._mix, values, axes=1)  # (1 + K, G, C)
            self._curve = interpolator(grid, mixed.transpose(1, 0, 2).reshape(len(grid), -1), bank.method)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """(Q, C) mean and (Q, C, K) components at (Q, D)."""
        if self._bank.callable:  # exact at any point, since components are combinations of the tasks
            mixed = np.tensordot(self._mix, self._bank.values(x), axes=1)
        else:
            mixed = self._curve(x).reshape(len(x), len(self._mix), self._bank.c).swapaxes(0, 1)
        return mixed[0], np.moveaxis(mixed[1:], 0, 2)
