"""Families of functions with exact answers: for tests, for examples, and to know what a method can do.

The paper's families and settings are those of Ousherovitch & Wang 2026 (arXiv 2605.30132), sections 3.1 to 3.3 and
appendix B.1. Each family has three regions of its parameters: ``inner`` and ``shell``, from which a bank is drawn,
and ``outer``, beyond the bank. Letters: ``F`` tasks, ``K`` parameters, ``Q`` points, ``D`` inputs, ``C`` outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval
from scipy.integrate import solve_ivp

from operant.core.checks import InputError, check_int
from operant.relational.curves import Array
from operant.relational.tasks import Batch, TaskBank

Sampler = Callable[[int, np.random.Generator], Array]
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
class Family:
    """One parametric family of functions R^D -> R^C.

    Args:
        name: its name in :data:`FAMILIES`.
        function: params (F, K), x (Q, D) -> (F, Q, C).
        domain: (low, high) of each of D inputs.
        regions: samplers of parameters by the names inner, shell and outer.
        param_names: K names; the first one is what the outer region extrapolates.
        x_names: D names.
        y_names: C names.
    """

    name: str
    function: Batch
    domain: tuple[tuple[float, float], ...]
    regions: Mapping[str, Sampler]
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
        n_shell: int = 50,
        *,
        rng: np.random.Generator,
        points: int | None = None,
        noise: float = 0.0,
        with_params: bool = False,
    ) -> TaskBank:
        """A bank of tasks of the inner region and then of the shell, each labelled with its region.

        Args:
            n_inner: tasks of the inner region.
            n_shell: tasks of the shell.
            rng: source of the parameters and of the noise.
            points: number of evenly spread points where the tasks are measured; None: they can be evaluated anywhere.
            noise: standard deviation of the measurements, as in :func:`measure`.
            with_params: whether methods may know the parameters, which the paper's protocol denies them.

        Raises:
            InputError: for noise on tasks that are not measured.
        """
        params = np.concatenate([self.sample("inner", n_inner, rng), self.sample("shell", n_shell, rng)])
        labels = [{"region": "inner"}] * n_inner + [{"region": "shell"}] * n_shell
        return _bank(
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


def _bank(
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
) -> Family:
    """A family of one input and one output: y = formula(x, first, *others), ``first`` cut at four edges."""
    label, edges = first

    def function(params: Array, x: Array) -> Array:
        columns = (params[:, i, None] for i in range(params.shape[1]))  # (F, 1) each
        return formula(x[None, :, 0], *columns)[..., None]

    regions = {
        region: Box(((edges[i], edges[i + 1]), *others.values()))
        for i, region in enumerate(("inner", "shell", "outer"))
    }
    return Family(name, function, (domain,), regions, (label, *others))


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


FAMILIES: dict[str, Family] = {
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
        Family(
            "plume",
            _plume,
            ((-2.0, 10.0), (1.0, 5.0)),
            {
                region: Box(((low, low + 0.2), (0.5, 1.5), (1.0, 2.0)))
                for region, low in (("inner", 0.2), ("shell", 0.4), ("outer", 0.6))
            },
            ("D", "v", "M"),
            ("s", "t"),
        ),
        Family(
            "lotka_volterra",
            _lotka_volterra,
            ((0.0, SPAN),),
            {
                region: Box(((low, low + 0.2), (0.8, 1.2), (0.8, 1.5)))
                for region, low in (("inner", 0.6), ("shell", 0.8), ("outer", 1.0))
            },
            ("growth", "death", "prey"),
            ("t",),
            ("prey", "predator"),
        ),
    )
}
"""Parametric families by name: the first six are the paper's."""
PAPER = ("quadratic", "exp", "cubic", "tri_trend", "sin_trend", "projectile")


# Polynomials by degree (section 3.2), and the primitives of compositions (section 3.3 and appendix B.1.2).

SIDE = 5.0
"""Polynomials and primitives live on [-5, 5]."""
KINDS = ("poly", "sin", "tanh")


def polynomial_params(degrees: Sequence[int], rng: np.random.Generator, *, top: int | None = None) -> Array:
    """(F, top + 1) coefficients c_p ~ U(-2, 2) / 5^p, p = 0..degree, zero above; ``top`` is at least each degree.

    Raises:
        InputError: for no degree, or a negative one.
    """
    degree = np.asarray(degrees)
    if degree.size == 0 or degree.min() < 0:
        raise InputError(f"expected at least one degree, none negative, got {list(degrees)[:8]}.")
    top = int(degree.max()) if top is None else top
    power = np.arange(top + 1)
    return rng.uniform(-2, 2, size=(len(degree), top + 1)) / SIDE**power * (power <= degree[:, None])


def polynomial_values(params: Array, x: Array) -> Array:
    """sum_p c_p x^p: coefficients (F, K), points (Q, 1) -> (F, Q, 1)."""
    return np.asarray(polyval(x[:, 0], params.T), dtype=np.float64)[..., None]


def polynomials(
    degrees: Sequence[int], *, rng: np.random.Generator, points: int | None = None, noise: float = 0.0
) -> TaskBank:
    """A bank of polynomials, one for each degree listed, labelled {"order": degree}; coefficients are hidden.

    Raises:
        InputError: for noise on tasks that are not measured.
    """
    labels = [{"order": int(d)} for d in degrees]
    params, x = polynomial_params(degrees, rng), lattice([(-SIDE, SIDE)], points or 64)
    return _bank(polynomial_values, params, x, labels, noise=noise, rng=rng, measured=points is not None)


def primitive_params(kinds: Sequence[str], rng: np.random.Generator, *, rescaled: bool = False) -> Array:
    """(F, 6) parameters of primitives: the place of the kind in KINDS, three of its own, then factor and offset.

    poly p x^2 + q x + r, sin p sin(q x + r), tanh p tanh(q (x - r)).

    Args:
        kinds: one of KINDS for each primitive.
        rng: source of the parameters.
        rescaled: factor and offset such that the primitive spans exactly [-5, 5] on [-5, 5] (appendix B.1.2: poly
            U(-1, 1) each); otherwise 1 and 0 (section 3.3: poly U(-.1, .1), U(-.5, .5), U(-2, 2)).

    Raises:
        InputError: for a kind that there is not.
    """
    if strange := [k for k in kinds if k not in KINDS]:
        raise InputError(f"expected primitives of {', '.join(KINDS)}, got {strange[0]!r}.")
    kind = np.array([KINDS.index(k) for k in kinds])
    poly = Box(((-1, 1),) * 3) if rescaled else Box(((-0.1, 0.1), (-0.5, 0.5), (-2, 2)))
    own = (poly, Box(((0.5, 2), (0.5, 1.5), (0, np.pi))), Box(((1, 3), (0.5, 2), (-2, 2))))
    drawn = np.stack([box(len(kind), rng) for box in own])  # (3, F, 3)
    params = np.column_stack([kind, drawn[kind, np.arange(len(kind))], np.ones(len(kind)), np.zeros(len(kind))])
    if rescaled:
        low, high = _extremes(params)
        params[:, 4] = 2 * SIDE / (high - low)
        params[:, 5] = -SIDE - params[:, 4] * low
    return params


def _extremes(params: Array) -> tuple[Array, Array]:
    """(F,) lowest and highest value on [-5, 5]: at an end or where the slope is zero."""
    kind, p, q, r = params[:, :4].T
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(kind == 0, -q / (2 * p), SIDE)
    crests = (np.pi * (np.arange(-3, 4)[:, None] + 0.5) - r) / q  # q <= 1.5 and r <= pi: no other crest within
    stationary = np.concatenate([vertex[None], np.where(kind == 1, crests, SIDE)])
    x = np.clip(np.concatenate([stationary, np.full((1, len(p)), -SIDE), np.full((1, len(p)), SIDE)]), -SIDE, SIDE)
    y = primitive_values(params, x.T[..., None])[..., 0]
    return y.min(1), y.max(1)


def primitive_values(params: Array, x: Array) -> Array:
    """Primitives (F, 6) at common points (Q, 1) or at points of their own (F, Q, 1) -> (F, Q, 1)."""
    z = np.broadcast_to(x[..., 0], (len(params), x.shape[-2]))
    kind, p, q, r, factor, offset = (params[:, i, None] for i in range(6))
    out = np.where(kind == 0, (p * z + q) * z + r, np.where(kind == 1, p * np.sin(q * z + r), p * np.tanh(q * (z - r))))
    return (factor * out + offset)[..., None]


def composed(stages: Sequence[Array], x: Array) -> Array:
    """Chains of primitives, the innermost stage first: F recipes of ``stages`` (F, 6), x (Q, 1) -> (F, Q, 1)."""
    for params in stages:
        x = primitive_values(params, x)
    return x


def primitives(
    kinds: Sequence[str],
    *,
    rng: np.random.Generator,
    points: int | None = None,
    noise: float = 0.0,
    rescaled: bool = False,
) -> TaskBank:
    """A bank of primitives, one for each of ``kinds``, labelled {"kind": kind}; parameters are hidden.

    Raises:
        InputError: for noise on tasks that are not measured.
    """
    params, x = primitive_params(kinds, rng, rescaled=rescaled), lattice([(-SIDE, SIDE)], points or 64)
    labels = [{"kind": k} for k in kinds]
    return _bank(primitive_values, params, x, labels, noise=noise, rng=rng, measured=points is not None)
