"""Where the refinement of a transformation starts: a grid over the warp, with the linear part in closed form.

Letters as in ``refine``, ``W`` grid nodes.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context
from operant.relational.operators.warp.parameters import Layout
from operant.relational.operators.warp.refine import IGNORANT, Continuation

# The best nodes only have to lie in the right basin; the refinement does the rest.
_NODES = {1: 97, 2: 25}
"""Grid nodes a dimension, by the number of nonlinear entries; beyond two, quasi-random points."""
_WIDEST = (np.log(4.0), 1.5)
"""Largest |log a| and |b| searched, in scaled units."""
_KEEP = 8
"""Candidates that are refined."""


def search(
    bank: TaskBank,
    layout: Layout,
    context: Context,
    which: NDArray[np.intp],
    mean: Array,
    sd: Array,
    noise: Array,
    *,
    keep: int = _KEEP,
    reach: Continuation | None = None,
) -> tuple[NDArray[np.intp], Array]:
    """Grid over the warp, linear part in closed form: (B,) rows of ``which`` and (B, T) vectors of the best.

    At most two candidates an anchor.

    Args:
        bank: in scaled units.
        layout: of the transformation.
        context: of the target.
        which: (A,) anchors.
        mean: (A, T) prior means.
        sd: (A, T) prior standard deviations.
        noise: (C,) of the values.
        keep: how many.
        reach: how anchors go on beyond their range.
    """
    take = np.unique(np.linspace(0, len(context.x) - 1, min(len(context.x), 24)).astype(int))
    x, y = context.x[take], context.y[take]
    nodes = warp_nodes(layout, mean, sd)  # (W, N)
    n, (w, p) = layout.nonlinear, (len(nodes), len(x))
    theta = np.zeros((w, layout.size))
    theta[:, :n] = nodes
    a, b = layout.warp(theta)
    at = (a[:, None, :] * x + b[:, None, :]).reshape(w * p, layout.d)
    if reach is None:
        f = bank.subset(tuple(int(i) for i in which)).values(at)[: len(which)].reshape(-1, w, p, layout.c)
        precise: Array = 1 / noise**2  # (C,), or (A, W, P, C) with the standard deviation of each value
        vague = 0.0
    else:
        f, anchor_sd = (v.reshape(-1, w, p, layout.c) for v in reach.values(which, at))  # (A, W, P, C)
        precise = 1 / (noise**2 + np.maximum(anchor_sd - IGNORANT, 0.0) ** 2)
        vague = -np.log(precise * noise**2).sum((2, 3))
    columns, offset = layout.design(f, x)
    linear_mean, linear_sd = layout.linear(mean)[:, None], layout.linear(sd)[:, None]  # (A, 1, C, L)
    target = y - offset
    k = columns.shape[-1]
    gram = np.empty((*f.shape[:2], layout.c, k, k))
    for i in range(k):
        for j in range(i + 1):
            gram[..., i, j] = gram[..., j, i] = (columns[..., i] * columns[..., j] * precise).sum(2)
    moment = (columns * (target * precise)[..., None]).sum(2)
    if k:
        gram = gram + np.eye(k) / linear_sd[..., None] ** 2
        best = np.linalg.solve(gram, (moment + linear_mean / linear_sd**2)[..., None])[..., 0]
    else:
        best = moment
    left = target - (columns * best[:, :, None]).sum(-1)
    cost = vague + (left**2 * precise).sum((2, 3)) + (((best - linear_mean) / linear_sd) ** 2).sum((2, 3))
    cost = cost + ((((nodes - mean[:, None, :n]) / sd[:, None, :n]) ** 2).sum(-1) if n else 0.0)  # (A, W)
    first = np.argsort(cost, axis=1)[:, : min(2, w)]
    pairs = sorted((cost[i, j], i, j) for i in range(len(which)) for j in first[i])[:keep]
    rows, columns_ = np.array([i for _, i, _ in pairs]), np.array([j for _, _, j in pairs])
    return rows, layout.join(nodes[columns_], best[rows, columns_])


def warp_nodes(layout: Layout, mean: Array, sd: Array) -> Array:
    """(W, N) nodes of the grid: where the prior puts the warp, at most as far as _WIDEST."""
    n = layout.nonlinear
    if n == 0:
        return np.zeros((1, 0))
    widest = np.concatenate(
        [np.full(layout.d, w) for w, k in zip(_WIDEST, ("xscale", "xshift"), strict=True) if k in layout.form.free]
    )
    low = np.maximum((mean - 3 * sd)[:, :n].min(0), -widest)
    high = np.minimum((mean + 3 * sd)[:, :n].max(0), widest)
    high = np.maximum(high, low + 1e-9)
    if n in _NODES:
        axes = [np.linspace(lo, hi, _NODES[n]) for lo, hi in zip(low, high, strict=True)]
        return np.array(list(product(*axes)))
    return low + (high - low) * qmc.Sobol(n, rng=0).random(1024)
