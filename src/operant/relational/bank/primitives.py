"""Polynomials by degree, and the primitives of compositions: for targets longer than the bank's tasks.

The settings are those of Ousherovitch & Wang 2026 (arXiv 2605.30132), section 3.2 for polynomials, and section 3.3 and
appendix B.1.2 for primitives. Letters: ``F`` tasks, ``K`` parameters, ``Q`` points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.polynomial.polynomial import polyval

from operant.core.checks import InputError
from operant.relational.bank.curves import Array
from operant.relational.bank.problems import Box, bank_of, lattice
from operant.relational.bank.tasks import TaskBank

_SIDE = 5.0
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
    return rng.uniform(-2, 2, size=(len(degree), top + 1)) / _SIDE**power * (power <= degree[:, None])


def polynomial_values(params: Array, x: Array) -> Array:
    """sum_p c_p x^p: coefficients (F, K), points (Q, 1) -> (F, Q, 1)."""
    return np.asarray(polyval(x[:, 0], params.T), dtype=np.float64)[..., None]


def polynomials(
    degrees: Sequence[int], *, rng: np.random.Generator, points: int | None = None, noise: float = 0.0
) -> TaskBank:
    """A bank of polynomials, one for each degree listed, labeled {"order": degree}; coefficients are hidden.

    Raises:
        InputError: for noise on tasks that are not measured.
    """
    labels = [{"order": int(d)} for d in degrees]
    params, x = polynomial_params(degrees, rng), lattice([(-_SIDE, _SIDE)], points or 64)
    return bank_of(polynomial_values, params, x, labels, noise=noise, rng=rng, measured=points is not None)


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
        params[:, 4] = 2 * _SIDE / (high - low)
        params[:, 5] = -_SIDE - params[:, 4] * low
    return params


def _extremes(params: Array) -> tuple[Array, Array]:
    """(F,) lowest and highest value on [-5, 5]: at an end or where the slope is zero."""
    kind, p, q, r = params[:, :4].T
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = np.where(kind == 0, -q / (2 * p), _SIDE)
    crests = (np.pi * (np.arange(-3, 4)[:, None] + 0.5) - r) / q  # q <= 1.5 and r <= pi: no other crest within
    stationary = np.concatenate([vertex[None], np.where(kind == 1, crests, _SIDE)])
    x = np.clip(np.concatenate([stationary, np.full((1, len(p)), -_SIDE), np.full((1, len(p)), _SIDE)]), -_SIDE, _SIDE)
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
    """A bank of primitives, one for each of ``kinds``, labeled {"kind": kind}; parameters are hidden.

    Raises:
        InputError: for noise on tasks that are not measured.
    """
    params, x = primitive_params(kinds, rng, rescaled=rescaled), lattice([(-_SIDE, _SIDE)], points or 64)
    labels = [{"kind": k} for k in kinds]
    return bank_of(primitive_values, params, x, labels, noise=noise, rng=rng, measured=points is not None)
