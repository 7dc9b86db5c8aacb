"""The settings of the ablations: a bank, and targets beyond it (appendices K.1 to K.3)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from operant.core.rng import numpy_generator
from operant.relational import TaskBank
from operant.relational.bank.families import FAMILIES
from operant.relational.bank.primitives import (
    KINDS,
    composed,
    polynomial_params,
    polynomial_values,
    polynomials,
    primitive_params,
)

Target = Callable[[], tuple[np.ndarray, np.ndarray]]
SETTINGS = {"quadratic (K.1)": 8, "polynomials (K.2)": 8, "composition (K.3)": 25}
"""Context points, and as many queries."""


def drawn(setting: str, seed: int) -> tuple[TaskBank, Target]:
    """The bank of a setting, and a source of targets beyond it: points (2 P, 1) and values (2 P, 1)."""
    rng, n = numpy_generator(seed, setting), 2 * SETTINGS[setting]
    if setting.startswith("quadratic"):
        f = FAMILIES["quadratic"]
        bank = f.bank(rng=rng)

        def target() -> tuple[np.ndarray, np.ndarray]:
            x = f.points(n, rng)
            return x, f.values(f.targets(1, rng), x)[0]
    elif setting.startswith("polynomials"):
        bank = polynomials([d for d in range(1, 9) for _ in range(50)], rng=rng)

        def target() -> tuple[np.ndarray, np.ndarray]:
            x = rng.uniform(-5, 5, (n, 1))
            return x, polynomial_values(polynomial_params([9], rng), x)[0]
    else:

        def chains(count: int) -> list[np.ndarray]:
            return [primitive_params([KINDS[k] for k in rng.integers(3, size=count)], rng) for _ in range(2)]

        known = np.concatenate(chains(400), axis=1)
        bank = TaskBank.from_callables(
            lambda p, x: composed([p[:, :6], p[:, 6:]], x), np.linspace(-5, 5, 64), hidden=known
        )

        def target() -> tuple[np.ndarray, np.ndarray]:
            x = rng.uniform(-5, 5, (n, 1))
            return x, composed(chains(1), x)[0]

    return bank, target
