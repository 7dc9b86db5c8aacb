"""The one product behind every vote: over the classes, with the winner marked, and with each class left out.

A level is what the winner has: votes, or weight. At it a class is a polynomial in the number of draws: ``below`` for a
rival under the level, ``at`` for one that ties, ``wins`` for a winner, times the worth of its votes. With z for a tie,

    P = prod_b (below_b + z at_b),        W = sum_a wins_a prod_{b != a} (below_b + z at_b),

and a vote is worth a coefficient of W, with z^j -> 1/(j+1) for ties broken at random (integrated over z by
Gauss-Legendre, exactly), or 0^j for ties that fail. Each class left out costs one pass back (adjoints of P and W), not
a product each. Coefficients are probabilities: nothing overflows, and nothing but worths is subtracted. Derived here.

Tensors are (D, Z, R): degrees (or points, see ``on_circle``), nodes of z, and rows. Rows are prompts and levels, those
with many classes first: class j acts on the first R_j rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from operant.core.logmath import log_binomial

Ties = Literal["random", "fail"]


class Factor(NamedTuple):
    """A class on the rows R_j; what broadcasts over the nodes lacks their dimension."""

    below: Tensor
    """(S, ..., R_j)"""
    at: Tensor
    """(1, ..., R_j), the coefficient of x^S; or (D, ..., R_j) at points"""
    wins: Tensor
    """like ``at``; x^S is left out"""


class State(NamedTuple):
    """P and W, or what they are worth: the adjoints."""

    p: Tensor
    w: Tensor


Times = Callable[[Tensor, Factor, Tensor], Tensor]


def convolve(x: Tensor, f: Factor, z: Tensor) -> Tensor:
    """Product with below + z at x^S, to the degree of ``x``."""
    size = len(f.below)
    new = x * f.below[0]
    for s in range(1, min(size, len(x))):
        new[s:].addcmul_(x[:-s], f.below[s])
    if size < len(x):
        new[size:].addcmul_(x[:-size], z * f.at[0])
    return new


def transposed(x: Tensor, f: Factor, z: Tensor) -> Tensor:
    """The adjoint of :func:`convolve`."""
    return convolve(x.flip(0), f, z).flip(0)


def pointwise(x: Tensor, f: Factor, z: Tensor) -> Tensor:
    """The same at points, where it is its own adjoint."""
    return x * (f.below + z * f.at)


def forward(rest: State, factors: list[Factor], z: Tensor, times: Times) -> list[State]:
    """The products before each class, and after the last on its rows: len(factors) + 1 states."""
    states = [rest]
    for f in factors:
        live = f.below.shape[-1]
        p, w = (x[..., :live] for x in states[-1])
        states.append(State(times(p, f, z), times(w, f, z).add_(p * f.wins)))
    return states


def finished(states: list[State]) -> Tensor:
    """W of every row after its last class."""
    live = [s.w.shape[-1] for s in states[1:]] + [0]
    return torch.cat([s.w[..., n:] for s, n in zip(states, live, strict=True)][::-1], dim=-1)


def backward(
    states: list[State], factors: list[Factor], seed: Tensor, z: Tensor, times: Times
) -> Iterator[tuple[int, State, State]]:
    """(j, product before class j, adjoint after it) from the last class to the first, and (-1, rest, its adjoint).

    ``seed`` (D, Z, R) is the worth of W. The rows are those of the class.
    """
    back = transposed if times is convolve else times
    h = State(seed[..., :0], seed[..., :0])
    for j, f in reversed(list(enumerate(factors))):
        rows = slice(h.w.shape[-1], f.below.shape[-1])
        h = _more(h, seed[..., rows])
        before = State(*(x[..., : rows.stop] for x in states[j]))
        yield j, before, h
        h = State(back(h.p, f, z).add_(h.w * f.wins), back(h.w, f, z))
    yield -1, states[0], _more(h, seed[..., h.w.shape[-1] :])


def _more(h: State, seed: Tensor) -> State:
    if not seed.shape[-1]:
        return h
    return State(torch.cat([h.p, torch.zeros_like(seed)], -1), torch.cat([h.w, seed], -1))


def tie_nodes(degree: int, ties: Ties) -> tuple[Tensor, Tensor]:
    """Nodes z and weights that send z^j to 1/(j+1), j <= degree (random), or to 0^j (fail)."""
    if ties == "fail":
        return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    nodes, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weight / 2)


def rate(n: float, m: int) -> float:
    """rho at which Bin(N; M, rho) is about largest: what is divided by."""
    return (n + 0.5) / (m + 1)


def binomials(most: int, m: int, rho: float) -> Tensor:
    """Bin(s; c, rho) for s = 0..most and c = 0..m: (most+1, m+1) float64."""
    s = torch.arange(most + 1, dtype=torch.float64)[:, None]
    return torch.exp(log_binomial(s, torch.arange(m + 1, dtype=torch.float64), rho, 1 - rho))


def on_circle(budgets: Sequence[int], m: int, rho: float) -> tuple[Tensor, Tensor]:
    """Points x (L,) and weights (budgets, L): [x^N] f = Re sum_l weight_l f(x_l), f a product of classes of M rollouts.

    The absolute error is that of float64. Only half of the points is needed, f being real; other coefficients fold
    onto N where they are below 1e-20 of it.
    """
    degree = np.arange(m + 1, dtype=np.float64)
    log_mass, n = log_binomial(degree, m, rho, 1 - rho).numpy(), np.array(budgets)
    matters = degree[log_mass > log_mass[n].min() - 46]
    count = int(np.abs(matters - n[:, None]).max()) + 1
    count += 1 - count % 2  # odd, so that -1 is no point and no vote's polynomial vanishes
    angle = 2 * np.pi / count * np.arange(count // 2 + 1)
    weight = np.where(angle > 0, 2, 1) * np.exp(-1j * n[:, None] * angle) / count
    return torch.from_numpy(np.exp(1j * angle)), torch.from_numpy(weight)


def near_budgets(budgets: Sequence[int], m: int) -> list[list[int]]:
    """Places of budgets that can share rho at points: their masses, by which errors grow, are within e^9."""
    groups: list[list[int]] = []
    for i in np.argsort(budgets).tolist():
        group = [*groups[-1], i] if groups else [i]
        ends = np.array([budgets[group[0]], budgets[i]], dtype=np.float64)
        rho = rate(ends.mean(), m)
        log_mass = log_binomial(np.append(ends, ends.mean().round()), m, rho, 1 - rho)
        if groups and float(log_mass[2] - log_mass.min()) < 9:
            groups[-1] = group
        else:
            groups.append([i])
    return groups
