"""Fitting a transformation without a warp, y = s f(x) + t + u x, in closed form: many candidates at once.

Letters as in ``refine``: ``B`` candidates, ``T`` entries of a vector, ``L`` of them an output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.warp.parameters import Layout
from operant.relational.operators.warp.refine import GRID_NOISE, Candidates


def solve(
    bank: TaskBank,
    layout: Layout,
    x: Array,
    y: Array,
    anchor: NDArray[np.intp],
    *,
    mean: Array,
    sd: Array,
    floor: Array,
    noise: Array | None = None,
    counts: NDArray[np.bool_] | None = None,
    steps: int = 25,
) -> Candidates:
    """What ``refine.refine`` finds, from one singular value decomposition a candidate.

    With A the design of one output in units of the prior, A = U d V^T and q = U^T (y - prediction of the prior's mean),
    at noise sigma: theta = mean + sd V (d q / (d^2 + sigma^2)), covariance sd V sigma^2 / (d^2 + sigma^2) V^T sd,
    tr H = sum d^2 / (d^2 + sigma^2). Only sigma^2 = (sum r^2 + floor^2) / (P - tr H + 1) is iterated. The evidence is
    log N(y; prediction of the prior's mean, A A^T + sigma^2) exactly.

    Args:
        bank: in scaled units.
        layout: of a transformation without nonlinear entries.
        x: (P, D) points.
        y: (B, P, C) or (P, C) values.
        anchor: (B,) positions in the bank.
        mean: (B, T) prior means.
        sd: (B, T) prior standard deviations.
        floor: (C,) what the transformation leaves unexplained.
        noise: (C,) standard deviation of the values, if known.
        counts: (B, P) points that count; default all.
        steps: of sigma, at most.
    """
    b, (p, c) = len(anchor), y.shape[-2:]
    unique, back = np.unique(anchor, return_inverse=True)
    f = bank.subset(tuple(unique.tolist())).values(x)[: len(unique)][back]  # (B, P, C)
    columns, offset = layout.design(f, x)
    weight = np.ones((b, p)) if counts is None else counts.astype(np.float64)
    center, width = layout.linear(mean), layout.linear(sd)  # (B, C, L)
    columns = columns * weight[:, :, None, None]
    rest = (y - offset) * weight[..., None] - (columns * center[:, None]).sum(-1)
    design = (columns * width[:, None]).swapaxes(1, 2)  # (B, C, P, L)
    size = design.shape[-1]
    if p < size:
        design = np.concatenate([design, np.zeros((b, c, size - p, size))], axis=2)
    u, d, vt = np.linalg.svd(design, full_matrices=False)
    u = u[:, :, :p]
    q = (u * rest.swapaxes(1, 2)[..., None]).sum(2)  # (B, C, L)
    across = rest - (u * q[:, :, None]).sum(-1).swapaxes(1, 2)  # what no theta reaches
    free, lost = weight.sum(1)[:, None], (across**2).sum(1)  # (B, 1), (B, C)
    sigma = np.tile(np.maximum(floor, GRID_NOISE / 3) if noise is None else np.hypot(noise, floor), (b, 1))
    for _ in range(steps if noise is None else 0):
        kept = sigma[..., None] ** 2 / (d**2 + sigma[..., None] ** 2)  # 1 - H in these directions
        left = np.maximum(free - (1 - kept).sum(-1), 0.0)
        found = np.sqrt((lost + ((kept * q) ** 2).sum(-1) + floor**2) / (left + 1))
        change, sigma = np.abs(np.log(np.maximum(found, floor) / sigma)), np.maximum(found, floor)
        if (change < 0.05).all():
            break
    variance = d**2 + sigma[..., None] ** 2
    kept = sigma[..., None] ** 2 / variance
    v = vt.swapaxes(2, 3) * width[..., None]  # (B, C, L, L)
    theta = layout.join(np.empty((b, 0)), center + (v * (d * q / variance)[:, :, None]).sum(-1))
    score = _log_likelihood(free, lost, d, q, sigma)
    least = sigma[np.argmax(score)]
    place = layout.linear(np.arange(layout.size, dtype=np.float64)).astype(np.intp)  # (C, L)
    jacobian, covariance = np.zeros((b, p, c, layout.size)), np.zeros((b, layout.size, layout.size))
    for i in range(c):
        jacobian[:, :, i, place[i]] = columns[:, :, i]
        covariance[:, place[i][:, None], place[i]] = (v[:, i] * kept[:, i, None]) @ v[:, i].swapaxes(1, 2)
    residual = across + (u * (kept * q)[:, :, None]).sum(-1).swapaxes(1, 2)
    evidence = _log_likelihood(free, lost, d, q, np.tile(least, (b, 1)))
    return Candidates(anchor, theta, residual, jacobian, covariance, sigma, np.zeros_like(residual), evidence)


def _log_likelihood(free: Array, lost: Array, d: Array, q: Array, sigma: Array) -> Array:
    """(B,) log N(y; prior's mean, A A^T + sigma^2) + P C / 2 log 2 pi; free (B, 1), lost (B, C), d and q (B, C, L)."""
    s2 = sigma[..., None] ** 2
    inside = (q**2 / (d**2 + s2) + np.log1p(d**2 / s2)).sum((1, 2))
    return -0.5 * ((lost / sigma**2).sum(1) + inside) - (free * np.log(sigma)).sum(1)
