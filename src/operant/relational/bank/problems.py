"""Families of functions with exact answers: for tests, for examples, and to know what a method can do.

The paper's families and settings are those of Ousherovitch & Wang 2026 (arXiv 2605.30132), section 3.1 and appendix
B.1; those of sections 3.2 and 3.3 are in ``primitives``. Each family has three regions of its
parameters: ``inner`` and ``edge``, from which a bank is drawn, and ``outer``, beyond the bank. Letters: ``F`` tasks,
``K`` parameters, ``Q`` points, ``D`` inputs, ``C`` outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from operant.core.checks import InputError, check_int
from operant.relational.bank.curves import Array
from operant.relational.bank.task import BatchFunction
from operant.relational.bank.tasks import TaskBank

_ParameterSampler = Callable[[int, np.random.Generator], Array]
"""(n, rng) -> (n, K) parameters."""


@dataclass(frozen=True)
class Box:
    """Parameters drawn uniformly and independently.

    Args:
        sides: (low, high) of each of K parameters.
    """

    sides: tuple[tuple[float, float], ...]

    def __call__(self, n: int, rng: np.random.Generator) -> Array:
        """(n, K) parameters."""
        low, high = np.array(self.sides).T
        return rng.uniform(low, high, size=(n, len(self.sides)))


@dataclass(frozen=True)
class CurveFamily:
    """One parametric family of functions R^D -> R^C.

    Args:
        name: its name in :data:`FAMILIES`.
        function: params (F, K), x (Q, D) -> (F, Q, C).
        domain: (low, high) of each of D inputs.
        regions: samplers of parameters by the names inner, edge and outer.
        param_names: K names; the first one is what the outer region extrapolates.
        x_names: D names.
        y_names: C names.
    """

    name: str
    function: BatchFunction
    domain: tuple[tuple[float, float], ...]
    regions: Mapping[str, _ParameterSampler]
    param_names: tuple[str, ...]
    x_names: tuple[str, ...] = ("x",)
    y_names: tuple[str, ...] = ("y",)

    def sample(self, region: str, n: int, rng: np.random.Generator) -> Array:
        """(n, K) parameters of n tasks.

        Raises:
            InputError: for a region that the family does not have.
        """
        if region not in self.regions:
            raise InputError(f"expected a region of {', '.join(self.regions)}, got {region!r}.")
        return np.asarray(self.regions[region](n, rng), dtype=np.float64)

    def targets(self, n: int, rng: np.random.Generator) -> Array:
        """(n, K) parameters of n tasks of the outer region."""
        return self.sample("outer", n, rng)

    def values(self, params: Array, x: Array) -> Array:
        """(F, Q, C) exact values for parameters (F, K) at points (Q, D)."""
        return np.asarray(self.function(np.atleast_2d(params), x), dtype=np.float64)

    def points(self, n: int, rng: np.random.Generator) -> Array:
        """(n, D) points drawn uniformly from the domain."""
        low, high = np.array(self.domain).T
        return rng.uniform(low, high, size=(n, len(self.domain)))

    def grid(self, n: int = 64) -> Array:
        """(n, D) evenly spread points of the domain; for D > 1 the nearest full lattice with at least n points."""
        return lattice(self.domain, n)

    def bank(
        self,
        n_inner: int = 50,
        n_edge: int = 50,
        *,
        rng: np.random.Generator,
        points: int | None = None,
        noise: float = 0.0,
        with_params: bool = False,
    ) -> TaskBank:
        """A bank of tasks of the inner region and then of the edge, each labeled with its region.

        Args:
            n_inner: tasks of the inner region.
            n_edge: tasks of the edge.
            rng: source of the parameters and of the noise.
            points: number of evenly spread points where the tasks are measured; None: they can be evaluated anywhere.
            noise: standard deviation of the measurements, as in :func:`measure`.
            with_params: whether methods may know the parameters, which the paper's protocol denies them.

        Raises:
            InputError: for noise on tasks that are not measured.
        """
        params = np.concatenate([self.sample("inner", n_inner, rng), self.sample("edge", n_edge, rng)])
        labels = [{"region": "inner"}] * n_inner + [{"region": "edge"}] * n_edge
        return bank_of(
            self.function,
            params,
            self.grid(points or 64),
            labels,
            noise=noise,
            rng=rng,
            measured=points is not None,
            known=self.param_names if with_params else None,
            names=(self.x_names, self.y_names),
        )


def lattice(domain: Sequence[tuple[float, float]], n: int) -> Array:
    """(>= n, D) evenly spread points of a box, its corners included."""
    side = int(np.ceil(check_int("n", n, least=2) ** (1 / len(domain)) - 1e-9))
    axes = np.meshgrid(*(np.linspace(low, high, side) for low, high in domain), indexing="ij")
    return np.stack([a.reshape(-1) for a in axes], axis=1)


def measure(y: Array, noise: float, rng: np.random.Generator) -> Array:
    """Values (.., P, C) with normal errors of ``noise`` times the standard deviation of each curve and output."""
    return y + noise * y.std(axis=-2, keepdims=True) * rng.standard_normal(y.shape)


def bank_of(
    function: BatchFunction,
    params: Array,
    x: Array,
    labels: Sequence[Mapping[str, Any]],
    *,
    noise: float,
    rng: np.random.Generator,
    measured: bool,
    known: tuple[str, ...] | None = None,
    names: tuple[tuple[str, ...], tuple[str, ...]] = (("x",), ("y",)),
) -> TaskBank:
    """A bank of F tasks of one function.

    Args:
        function: params (F, K), x (Q, D) -> (F, Q, C).
        params: (F, K) parameters of the tasks.
        x: (P, D) points of the domain.
        labels: further facts for each task.
        noise: standard deviation of the measurements, as in :func:`measure`.
        rng: source of the noise.
        measured: whether the tasks are known at ``x`` only; otherwise they can be evaluated anywhere.
        known: K names of the parameters, if methods may know them.
        names: D names of the inputs, and C names of the outputs.

    Raises:
        InputError: for noise on tasks that are not measured.
    """
    if not measured:
        if noise:
            raise InputError(f"Noise needs measured tasks: give points, or noise=0, got noise={noise}.")
        return TaskBank.from_callables(
            function,
            x,
            params=params if known else None,
            hidden=None if known else params,
            labels=labels,
            x_names=names[0],
            y_names=names[1],
            param_names=known,
        )
    y = measure(np.asarray(function(params, x), dtype=np.float64), noise, rng)
    return TaskBank.from_arrays(
        [(x, v) for v in y],
        params=params if known else None,
        labels=labels,
        x_names=names[0],
        y_names=names[1],
        param_names=known,
    )
