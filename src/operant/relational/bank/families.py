"""The parametric families by name, with their formulas: the paper's six and harder ones. Letters of ``problems``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from operant.relational.bank.curves import Array
from operant.relational.bank.problems import Box, CurveFamily

G = 9.81
"""Gravity, m/s^2."""


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


_PREDATOR_START = 0.5
SPAN, REACH = 15.0, 4
"""Time of the two-species domain, and how many such spans its solution is carried on to either side."""


@lru_cache(maxsize=512)
def _orbits(params: bytes, spans: int) -> Any:
    """Dense solution of all tasks' equations as one system, from 0 to ``spans`` (signed) spans of time."""
    growth, death, prey = np.frombuffer(params).reshape(-1, 3).T

    def slope(_: float, state: Array) -> Array:
        u, w = state.reshape(2, -1)
        return np.concatenate([u * (growth - w), w * (u - death)])

    start = np.concatenate([prey, np.full(len(prey), _PREDATOR_START)])
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
