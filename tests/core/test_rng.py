"""Named child generators."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from operant.core.rng import child_seed, numpy_generator, torch_generator


def test_seeds_are_the_same_on_every_machine() -> None:
    assert child_seed(0, "rollouts", 3) == 5051294689724317786
    assert child_seed(17) == 4328406573795351247


def test_every_name_matters_and_so_does_its_place() -> None:
    names = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), ("a", 1), ("a", "1"), (("a", 1),), (1,), (None,)]
    seeds = [child_seed(seed, *n) for seed in (0, 1, -1) for n in names]
    assert all(a != b for a, b in combinations(seeds, 2))
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat_and_differ_by_name() -> None:
    draws = [torch.rand(5, generator=torch_generator(0, name)) for name in ("a", "a", "b")]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    arrays = [numpy_generator(0, name).random(5) for name in ("a", "a", "b")]
    assert np.array_equal(arrays[0], arrays[1]) and not np.array_equal(arrays[0], arrays[2])


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.rand(3, generator=torch_generator(5, "x"))
    numpy_generator(5, "x").random(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_child_streams_are_uncorrelated() -> None:
    rows = torch.stack([torch.randn(4000, generator=torch_generator(0, "stream", i)) for i in range(8)])
    off_diagonal = torch.corrcoef(rows) - torch.eye(8)
    assert off_diagonal.abs().max() < 4.5 / 4000**0.5
