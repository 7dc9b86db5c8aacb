"""Families of functions with exact answers: for tests, for examples, and to know what a method can do.

The paper's families and settings are those of Ousherovitch & Wang 2026 (arXiv 2605.30132), section 3.1 and appendix
B.1; those of sections 3.2 and 3.3 are in ``primitives``. Each family has three regions of its
parameters: ``inner`` and ``edge``, from which a bank is drawn, and ``outer``, beyond the bank. Letters: ``F`` tasks,
``K`` parameters, ``Q`` points, ``D`` inputs, ``C`` outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from operant.core.checks import InputError, check_int
from operant.relational.bank.curves import Array
from operant.relational.bank.task import Batch
from operant.relational.bank.tasks import TaskBank

ParameterSampler = Callable[[int, np.random.Generator], Array]
"""(n, rng) -> (n, K) parameters."""

G = 9.81
"""Gravity, m/s^2."""


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
    function: Batch
    domain: tuple[tuple[float, float], ...]
    regions: Mapping[str, ParameterSampler]
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
    function: Batch,
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


def _family(
    name: str,
    formula: Callable[..., Array],
    domain: tuple[float, float],
    first: tuple[str, Sequence[float]],
    others: Mapping[str, tuple[float, float]],
) -> CurveFamily:
    """A family of one input and one output: y = formula(x, first, *others), ``first`` cut at four edges."""
    label, edges = first

    def function(params: Array, x: Array) -> Array:
        columns = (params[:, i, None] for i in range(params.shape[1]))  # (F, 1) each
        return formula(x[None, :, 0], *columns)[..., None]

    regions = {
        region: Box(((edges[i], edges[i + 1]), *others.values())) for i, region in enumerate(("inner", "edge", "outer"))
    }
    return CurveFamily(name, function, (domain,), regions, (label, *others))


PERIOD = 20 / 7
"""Of the paper's triangle and sine."""


def _exp(x: Array, beta: Array, alpha: Array, c: Array) -> Array:
    return alpha * np.expm1(np.minimum(beta * (x - 10), 500.0)) + c  # x-warps ask far outside the domain


def _triangle(x: Array, s: Array, a: Array) -> Array:
    u = x / PERIOD
    return s * x + a * (2 * np.abs(2 * (u - np.floor(u)) - 1) - 0.5)


def _projectile(x: Array, v: Array, theta: Array) -> Array:
    angle = np.radians(theta)
    return x * np.tan(angle) - G * x**2 / (2 * (v * np.cos(angle)) ** 2)


def _projectile_drag(x: Array, v: Array, theta: Array, k: Array) -> Array:
    """Drag -k v: y = (tan th + g / (k vx)) x + g / k^2 log(1 - k x / vx), which ends at x = vx / k.

    Beyond 0.95 of that distance the tangent parabola goes on, so that the function is finite everywhere.
    """
    angle = np.radians(theta)
    vx = v * np.cos(angle)
    z = k * x / vx
    near = np.minimum(z, 0.95)
    d = (z - near) / (1 - near)
    return np.tan(angle) * x + G / k**2 * (z + np.log1p(-near) - d - d**2 / 2)


def _michaelis_menten(x: Array, k: Array, v: Array) -> Array:
    s = np.maximum(x, 0.0)  # no substrate, no rate
    return v * s / (k + s)


def _logistic(x: Array, r: Array, middle: Array, top: Array) -> Array:
    return top / (1 + np.exp(np.clip(-r * (x - middle), -500.0, 500.0)))


def _damped(x: Array, w: Array, gamma: Array, a: Array) -> Array:
    return a * np.exp(np.minimum(-gamma * x, 500.0)) * np.cos(w * x)


def _plume(params: Array, x: Array) -> Array:
    """Advection and diffusion of a point release: M / sqrt(4 pi D t) exp(-(s - v t)^2 / (4 D t)), zero before t = 0."""
    spread, v, mass = (params[:, i, None] for i in range(3))
    s, t = x[:, 0], np.maximum(x[:, 1], 1e-9)
    density = mass / np.sqrt(4 * np.pi * spread * t) * np.exp(-((s - v * t) ** 2) / (4 * spread * t))
    return np.where(x[:, 1] > 0, density, 0.0)[..., None]


PREDATOR_START = 0.5
SPAN, REACH = 15.0, 4
"""Time of the two-species domain, and how many such spans its solution is carried on to either side."""


@lru_cache(maxsize=512)
def _orbits(params: bytes, spans: int) -> Any:
    """Dense solution of all tasks' equations as one system, from 0 to ``spans`` (signed) spans of time."""
    growth, death, prey = np.frombuffer(params).reshape(-1, 3).T

    def slope(_: float, state: Array) -> Array:
        u, w = state.reshape(2, -1)
        return np.concatenate([u * (growth - w), w * (u - death)])

    start = np.concatenate([prey, np.full(len(prey), PREDATOR_START)])
    return solve_ivp(slope, (0.0, spans * SPAN), start, method="DOP853", dense_output=True, rtol=1e-11, atol=1e-12).sol


def _lotka_volterra(params: Array, x: Array) -> Array:
    """Prey u' = u (growth - w), predator w' = w (u - death), from (prey, 0.5) at t = 0: (F, Q, 2).

    Solved to 1e-11 once for each set of tasks; beyond four spans of the domain the state stands still.
    """
    t = np.clip(x[:, 0], -REACH * SPAN, REACH * SPAN)
    key = np.ascontiguousarray(params, dtype=np.float64).tobytes()
    out = np.empty((len(t), 2, len(params)))
    for sign, side in ((1, t >= 0), (-1, t < 0)):
        if side.any():
            spans = 1 if np.abs(t[side]).max() <= SPAN else REACH
            out[side] = _orbits(key, sign * spans)(t[side]).T.reshape(-1, 2, len(params))
    return np.moveaxis(out, 2, 0)


FAMILIES: dict[str, CurveFamily] = {
    f.name: f
    for f in (
        _family(
            "quadratic",
            lambda x, a, b, c: a * x**2 + b * x + c,
            (0, 20),
            ("a", (0.5, 1.5, 2.5, 3.5)),
            {"b": (-2, 2), "c": (-2, 2)},
        ),
        _family("exp", _exp, (0, 20), ("beta", (0.05, 0.1, 0.15, 0.2)), {"alpha": (1, 2), "c": (-1, 1)}),
        _family(
            "cubic",
            lambda x, a, b, c: a / 400 * (x - 10) ** 3 + b / 10 * (x - 10) + c,
            (0, 20),
            ("a", (0.5, 1.5, 2.5, 3.5)),
            {"b": (2, 4), "c": (-2, 2)},
        ),
        _family("tri_trend", _triangle, (0, 20), ("s", (0.1, 0.2, 0.3, 0.4)), {"A": (0.5, 1)}),
        _family(
            "sin_trend",
            lambda x, s, a: s * x + 0.5 * a * np.sin(2 * np.pi * x / PERIOD),
            (0, 20),
            ("s", (0.1, 0.2, 0.3, 0.4)),
            {"A": (0.5, 1)},
        ),
        _family("projectile", _projectile, (0, 200), ("v", (30, 45, 60, 70)), {"theta": (40, 50)}),
        _family(
            "frequency",
            lambda x, w, a: a * np.sin(w * x),
            (0, 20),
            ("w", (0.4, 0.7, 1.0, 1.3)),
            {"A": (0.5, 1.5)},
        ),
        _family(
            "damped_oscillator",
            _damped,
            (0, 20),
            ("w", (0.4, 0.7, 1.0, 1.3)),
            {"gamma": (0.03, 0.1), "A": (0.5, 1.5)},
        ),
        _family("logistic", _logistic, (0, 20), ("r", (0.3, 0.5, 0.7, 0.9)), {"middle": (8, 12), "top": (1, 2)}),
        _family("michaelis_menten", _michaelis_menten, (0, 10), ("K", (0.5, 1.0, 1.5, 2.0)), {"V": (1, 2)}),
        _family(
            "projectile_drag",
            _projectile_drag,
            (0, 100),
            ("v", (30, 45, 60, 75)),
            {"theta": (40, 50), "k": (0.02, 0.1)},
        ),
        CurveFamily(
            "plume",
            _plume,
            ((-2.0, 10.0), (1.0, 5.0)),
            {
                region: Box(((low, low + 0.2), (0.5, 1.5), (1.0, 2.0)))
                for region, low in (("inner", 0.2), ("edge", 0.4), ("outer", 0.6))
            },
            ("D", "v", "M"),
            ("s", "t"),
        ),
        CurveFamily(
            "lotka_volterra",
            _lotka_volterra,
            ((0.0, SPAN),),
            {
                region: Box(((low, low + 0.2), (0.8, 1.2), (0.8, 1.5)))
                for region, low in (("inner", 0.6), ("edge", 0.8), ("outer", 1.0))
            },
            ("growth", "death", "prey"),
            ("t",),
            ("prey", "predator"),
        ),
    )
}
"""Parametric families by name: the first six are the paper's."""
PAPER = ("quadratic", "exp", "cubic", "tri_trend", "sin_trend", "projectile")
