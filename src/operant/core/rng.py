"""One seed, named child generators; nothing global."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def child_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on ``seed`` and on every name, the same on every machine.

    >>> child_seed(0, "rollouts", 3) == child_seed(0, "rollouts", 3)
    True
    >>> child_seed(0, "rollouts", 3) == child_seed(0, "rollouts", 4)
    False
    """
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator seeded with :func:`child_seed`."""
    import torch

    return torch.Generator(device=device).manual_seed(child_seed(seed, *names))


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    """A NumPy generator seeded with :func:`child_seed`."""
    return np.random.default_rng(child_seed(seed, *names))
