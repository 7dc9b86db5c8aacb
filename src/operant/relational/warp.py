"""An anchor and a named transformation: y(x) = s f(a x + b) + t + u x.

For each anchor the warp (a, b) is searched on a grid, with the linear part (s, t, u) in closed form at each node, and
the best nodes are refined by Levenberg-Marquardt. The transformation has a Gaussian prior: what was seen between tasks
of the bank, or what the known parameters of the target let one expect. Anchors are weighed by their evidence
(Laplace's approximation), and the prediction is the mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from operant.relational.curves import Array
from operant.relational.layout import Layout
from operant.relational.operators import Adapted, CannotAdaptError, Context, Decomposition, Fitted, RelationalOperator
from operant.relational.splits import position
from operant.relational.tasks import TaskBank
from operant.relational.transforms import Transformation

NODES = {1: 97, 2: 33}
"""Grid nodes a dimension, by the number of nonlinear entries; beyond two, quasi-random points."""
WIDEST = (np.log(4.0), 1.5)
"""Largest |log a| and |b| searched, in scaled units."""
FLOOR = 1e-7
"""Smallest standard deviation of the values, in scaled units."""
GRID_NOISE = 0.03
"""The grid's own error acts as noise of this size."""
KEEP = 8
"""Decompositions that are refined and mixed."""
INFLATION = 2.0
"""A target outside the bank may be transformed by this much more than bank tasks are."""
STEP = 1e-5
"""Half width of the difference that gives an anchor's slope, in scaled units."""
Z90 = 1.6448536269514722


@dataclass(frozen=True)
class Warp(RelationalOperator):
    """An anchor and a transformation of it.

    Args:
        form: the transformation, with free and pinned factors.
        follow: whether it is expected to follow the known parameters of the tasks, as learned from the bank.
        anchors: number of bank tasks that are tried.
        anchor: key of the anchor, if it is pinned.
    """

    form: Transformation
    follow: bool = False
    anchors: int = 40
    anchor: object = None

    @property
    def name(self) -> str:
        """The transformation, and whether it follows the parameters."""
        return f"{self.form}{' by parameters' if self.follow else ''}"

    expresses = "s f(a x + b) + t + u x of one bank task f, with the factors of its form"

    def fit(self, bank: TaskBank) -> FittedWarp:
        """See :meth:`RelationalOperator.fit`."""
        if self.follow and not bank.param_names:
            raise CannotAdaptError("the bank has no known parameters that a transformation could follow.")
        if self.anchor is not None and self.anchor not in bank.keys:
            raise CannotAdaptError(f"no task {self.anchor!r} in the bank.")
        layout = Layout.of(self.form, bank)
        return FittedWarp(self, bank, layout, learn_prior(self, bank, layout))


@dataclass(frozen=True, eq=False)
class Prior:
    """What transformations are expected.

    Args:
        mean: (T,) centre, the identity.
        sd: (T,) spread between tasks of the bank, inflated.
        noise: (C,) what the transformation leaves unexplained between tasks of the bank.
        slope: (T, 2 K) how the vector follows the difference of the parameters, or None.
        about: (2, K) centre and scale of the parameters.
        spread: (T, 2) variance around that: at no distance, and by squared distance.
    """

    mean: Array
    sd: Array
    noise: Array
    slope: Array | None = None
    about: Array | None = None
    spread: Array | None = None

    def at(self, anchors: Array, target: Array | None) -> tuple[Array, Array]:
        """(A, T) means and standard deviations for anchors with parameters (A, K)."""
        a = len(anchors)
        if self.slope is None or self.about is None or self.spread is None or target is None:
            return np.tile(self.mean, (a, 1)), np.tile(self.sd, (a, 1))
        phi, far = _features(anchors, target, self.about)
        mean = self.mean + phi @ self.slope.T
        return mean, np.sqrt(self.spread[:, 0] + far[:, None] * self.spread[:, 1])


def _features(anchors: Array, target: Array, about: Array) -> tuple[Array, Array]:
    """(A, 2 K) difference and difference times middle; (A,) squared distance."""
    p, q = (anchors - about[0]) / about[1], (target - about[0]) / about[1]
    delta = q - p
    return np.concatenate([delta, delta * (p + q) / 2], axis=1), (delta**2).sum(1)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One anchor and one vector: its cost (minus twice the log posterior, up to a constant) and residuals."""

    anchor: int
    theta: Array
    sse: Array  # (C,)
    penalty: float


@dataclass(frozen=True, eq=False)
class FittedWarp(Fitted):
    """See :class:`Warp`."""

    operator: Warp
    bank: TaskBank
    layout: Layout
    prior: Prior

    def adapt(self, context: Context) -> Adapted:
        """See :meth:`Fitted.adapt`."""
        if self.operator.follow and context.params is None:
            raise CannotAdaptError("a transformation that follows parameters needs those of the target.")
        which = self._anchors(context)
        mean, sd = self.prior.at(self.bank.params[which], context.params if self.operator.follow else None)
        noise = np.maximum(self.prior.noise, FLOOR)
        starts = search(self.bank, self.layout, context, which, mean, sd, np.maximum(noise, GRID_NOISE))
        found = []
        for anchor, theta in starts:
            row = int(np.flatnonzero(which == anchor)[0])
            found.append(
                (refine(self.bank, self.layout, context, anchor, theta, mean[row], sd[row], noise), mean[row], sd[row])
            )
        return AdaptedWarp(self, context, found)

    def _anchors(self, context: Context) -> NDArray[np.intp]:
        """Positions of the anchors to try: the nearest on the context up to scale and shift, and some evenly spread."""
        f, limit = len(self.bank), self.operator.anchors
        if self.operator.anchor is not None:
            return np.array([self.bank.keys.index(self.operator.anchor)])
        if f <= limit:
            return np.arange(f)
        values = self.bank.values(context.x)
        distance = ((values - context.y) ** 2).sum((1, 2))
        near = np.argsort(distance)[: limit // 2]
        order = np.argsort(position(self.bank))
        spread = order[np.linspace(0, f - 1, limit - len(near)).astype(int)]
        return np.unique(np.concatenate([near, spread]))


class AdaptedWarp(Adapted):
    """The mixture over the refined candidates."""

    def __init__(self, fitted: FittedWarp, context: Context, found: Sequence[tuple[Refined, Array, Array]]) -> None:
        self.fitted, self.context = fitted, context
        best = min(found, key=lambda r: r[0].cost)[0]
        scored = [(r, r.log_evidence(best.noise, context, m, s)) for r, m, s in found]
        top = max(e for _, e in scored)
        kept = _distinct([(r, float(np.exp(e - top))) for r, e in scored])
        total = sum(w for _, w in kept)
        self.kept = [(r, w / total) for r, w in sorted(kept, key=lambda k: -k[1]) if w > 1e-4 * total]
        self.noise = best.noise
        self.decompositions = tuple(self._decomposition(r, w) for r, w in self.kept)

    def _decomposition(self, r: Refined, weight: float) -> Decomposition:
        bank, layout = self.fitted.bank, self.fitted.layout
        at, sd = layout.slices, np.sqrt(np.diag(r.covariance))
        ends = [layout.transformation(r.theta + z * Z90 * sd) for z in (-1, 1)]
        intervals = {}
        for kind, place in at.items():
            for i in range(place.stop - place.start):
                pair = sorted(float(e.get(kind)[i]) for e in ends)
                intervals[kind if place.stop - place.start == 1 else f"{kind}[{i}]"] = (pair[0], pair[1])
        residual = float(np.sqrt(np.mean(r.residual**2)))
        return Decomposition(bank.keys[r.anchor], layout.transformation(r.theta), residual, weight, intervals)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """See :meth:`Adapted.predict`."""
        means, variances, weights = [], [], []
        for r, w in self.kept:
            mean, jacobian = model(self.fitted.bank, self.fitted.layout, r.anchor, r.theta, x)
            beyond = self._beyond(r, x)
            means.append(mean)
            variances.append(np.einsum("qct,tu,qcu->qc", jacobian, r.covariance, jacobian) + beyond**2)
            weights.append(w)
        m, v, w = np.array(means), np.array(variances), np.array(weights)[:, None, None]
        mean = (w * m).sum(0)
        floor = np.maximum(self.fitted.prior.noise, 0.0)
        return mean, np.sqrt((w * (v + (m - mean) ** 2)).sum(0) + floor**2)

    def _beyond(self, r: Refined, x: Array) -> Array:
        """(Q, C) doubt about an anchor that goes straight on beyond its range: half of what it adds there."""
        bank, task = self.fitted.bank, self.fitted.bank.tasks[r.anchor]
        if bank.callable:
            return np.zeros((len(x), bank.c))
        a, b = self.fitted.layout.warp(r.theta)
        at = a * x + b
        near = np.clip(at, task.x.min(0), task.x.max(0))
        curve = bank.curve(r.anchor)
        return 0.5 * np.abs(curve(at) - curve(near))

    def covered(self, x: Array) -> NDArray[np.bool_]:
        """See :meth:`Adapted.covered`: for the most probable anchor."""
        r = self.kept[0][0]
        a, b = self.fitted.layout.warp(r.theta)
        return self.fitted.bank.select([r.anchor, (r.anchor + 1) % len(self.fitted.bank)]).covers(a * x + b)[0]

    def left_out(self) -> tuple[Array, Array]:
        """See :meth:`Adapted.left_out`, linearised: r_i / (1 - h_ii) for each candidate, weights as they are."""
        means, variances = [], []
        for r, _ in self.kept:
            lever = np.clip(np.einsum("pct,tu,pcu->pc", r.jacobian, r.covariance, r.jacobian) / r.noise**2, 0, 1 - 1e-6)
            means.append(self.context.y - r.residual / (1 - lever))
            variances.append(r.noise**2 / (1 - lever))
        m, v = np.array(means), np.array(variances)
        w = np.array([w for _, w in self.kept])[:, None, None]
        mean = (w * m).sum(0)
        return mean, np.sqrt((w * (v + (m - mean) ** 2)).sum(0))


@dataclass(frozen=True, eq=False)
class Refined:
    """A candidate after Levenberg-Marquardt, with the curvature there."""

    anchor: int
    theta: Array
    residual: Array  # (P, C), value minus prediction
    jacobian: Array  # (P, C, T)
    covariance: Array  # (T, T)
    noise: Array  # (C,)
    cost: float

    def log_evidence(self, noise: Array, context: Context, mean: Array, sd: Array) -> float:
        """Laplace: log N(y; prediction, noise) + log N(theta; prior) + log |2 pi covariance| / 2."""
        fit = -0.5 * float(np.sum((self.residual / noise) ** 2)) - len(context.y) * float(np.log(noise).sum())
        penalty = -0.5 * float(np.sum(((self.theta - mean) / sd) ** 2))
        j = (self.jacobian * sd / noise[:, None]).reshape(-1, len(self.theta))
        return fit + penalty - 0.5 * float(np.linalg.slogdet(np.eye(len(self.theta)) + j.T @ j)[1])


def _distinct(scored: list[tuple[Refined, float]]) -> list[tuple[Refined, float]]:
    """Without candidates that fell into the same optimum of the same anchor."""
    kept: list[tuple[Refined, float]] = []
    for r, w in scored:
        twin = any(k.anchor == r.anchor and np.allclose(k.theta, r.theta, atol=1e-3) for k, _ in kept)
        if not twin:
            kept.append((r, w))
    return kept


def model(bank: TaskBank, layout: Layout, anchor: int, theta: Array, x: Array) -> tuple[Array, Array]:
    """(Q, C) transformed anchor at (Q, D), and its Jacobian (Q, C, T)."""
    curve, d = bank.curve(anchor), layout.d
    a, b = layout.warp(theta)
    at = a * x + b
    if layout.nonlinear:
        steps = STEP * np.concatenate([np.zeros((1, d)), np.eye(d), -np.eye(d)])  # (2 D + 1, D)
        f, *ends = curve((at + steps[:, None]).reshape(-1, d)).reshape(2 * d + 1, len(x), layout.c)
        slope = np.stack([(up - down) / (2 * STEP) for up, down in zip(ends[:d], ends[d:], strict=True)], axis=-1)
    else:
        f, slope = curve(at), np.empty((len(x), layout.c, 0))
    columns, offset = layout.design(f, x)
    linear = layout.linear(theta)
    mean = offset + (columns * linear).sum(-1)
    inner = layout.warp_slope(a, x)  # (Q, D, N)
    parts = [layout.gain(theta)[:, None] * np.einsum("qcd,qdn->qcn", slope, inner)] if layout.nonlinear else []
    done = 0
    for kind in ("scale", "trend", "shift"):
        if kind in layout.slices:
            width = d if kind == "trend" else 1
            block = np.zeros((len(x), layout.c, layout.c, width))
            for c in range(layout.c):
                block[:, c, c] = columns[:, c, done : done + width]
            parts.append(block.reshape(len(x), layout.c, -1))
            done += width
    return mean, np.concatenate(parts, axis=-1) if parts else np.empty((*mean.shape, 0))


def refine(
    bank: TaskBank,
    layout: Layout,
    context: Context,
    anchor: int,
    theta: Array,
    mean: Array,
    sd: Array,
    noise: Array,
    *,
    steps: int = 25,
) -> Refined:
    """Levenberg-Marquardt on residuals / noise and (theta - mean) / sd; the noise follows the residuals.

    With unknown noise, sigma^2 = (sum r^2 + sigma_0^2) / (P - tr H + 1), sigma_0 what the bank leaves unexplained.
    """
    y, damp, t = context.y, 1e-3, layout.size
    known = context.noise is not None
    sigma = np.maximum(noise, GRID_NOISE / 3) if context.noise is None else np.hypot(context.noise, noise)
    value, jacobian = model(bank, layout, anchor, theta, context.x)
    for _ in range(steps if t else 2):
        j = np.concatenate([(jacobian / sigma[:, None]).reshape(-1, t), np.diag(1 / sd)])
        r = np.concatenate([((y - value) / sigma).ravel(), (mean - theta) / sd])
        moved = 0.0
        if t:
            trial = _step(bank, layout, context, anchor, theta, mean, sd, sigma, j, r, damp)
            if trial is None:
                damp *= 100
                if damp > 1e8:
                    break
                continue
            move, value, jacobian = trial
            theta, damp, moved = theta + move, max(damp / 30, 1e-14), float(np.abs(move).max())
        if known:
            if moved < 1e-10:
                break
            continue
        updated = _noise(y - value, jacobian, sigma, sd, noise)
        settled = bool((np.abs(np.log(updated / sigma)) < 0.05).all())
        sigma = updated
        if settled and moved < 1e-7:
            break
    _, upper = _triangle(jacobian, sigma, sd)
    root = np.linalg.solve(upper, np.eye(t))
    cost = float((((y - value) / sigma) ** 2).sum() + 2 * len(y) * np.log(sigma).sum())
    cost += float((((theta - mean) / sd) ** 2).sum())
    return Refined(anchor, theta, y - value, jacobian, root @ root.T, sigma, cost)


def _step(
    bank: TaskBank,
    layout: Layout,
    context: Context,
    anchor: int,
    theta: Array,
    mean: Array,
    sd: Array,
    sigma: Array,
    j: Array,
    r: Array,
    damp: float,
) -> tuple[Array, Array, Array] | None:
    """One damped step: the move, and the value and Jacobian there; None if it does not go down."""
    t = layout.size
    ridge = np.diag(np.sqrt(damp * (j**2).sum(0)) if layout.nonlinear else np.zeros(t))
    move = np.linalg.lstsq(np.concatenate([j, ridge]), np.concatenate([r, np.zeros(t)]), rcond=None)[0]
    move[: layout.nonlinear] = np.clip(move[: layout.nonlinear], -0.3, 0.3)
    value, jacobian = model(bank, layout, anchor, theta + move, context.x)
    cost = (((context.y - value) / sigma) ** 2).sum() + (((theta + move - mean) / sd) ** 2).sum()
    return (move, value, jacobian) if cost <= (r**2).sum() * (1 + 1e-12) + 1e-20 else None


def _triangle(jacobian: Array, sigma: Array, sd: Array) -> tuple[Array, Array]:
    """QR factors of the whitened Jacobian over the prior's: J^T J + Lambda = R^T R."""
    j = (jacobian / sigma[:, None]).reshape(-1, jacobian.shape[-1])
    return np.linalg.qr(np.concatenate([j, np.diag(1 / sd)]))


def _noise(residual: Array, jacobian: Array, sigma: Array, sd: Array, noise: Array) -> Array:
    """(C,) the noise that goes with the residuals."""
    q, _ = _triangle(jacobian, sigma, sd)
    hat = (q[: residual.size] ** 2).sum(1).reshape(residual.shape)
    left = np.maximum(len(residual) - hat.sum(0), 0.0)
    return np.maximum(np.sqrt(((residual**2).sum(0) + noise**2) / (left + 1)), noise)


def search(
    bank: TaskBank,
    layout: Layout,
    context: Context,
    which: NDArray[np.intp],
    mean: Array,
    sd: Array,
    noise: Array,
    *,
    keep: int = KEEP,
) -> list[tuple[int, Array]]:
    """Grid over the warp, linear part in closed form: the best (anchor, vector) pairs, at most two an anchor.

    Args:
        bank: in scaled units.
        layout: of the transformation.
        context: of the target.
        which: (A,) anchors.
        mean: (A, T) prior means.
        sd: (A, T) prior standard deviations.
        noise: (C,) of the values.
        keep: how many.
    """
    take = np.unique(np.linspace(0, len(context.x) - 1, min(len(context.x), 24)).astype(int))
    x, y = context.x[take], context.y[take]
    nodes = warp_nodes(layout, mean, sd)  # (W, N)
    n, (w, p) = layout.nonlinear, (len(nodes), len(x))
    theta = np.zeros((w, layout.size))
    theta[:, :n] = nodes
    a, b = layout.warp(theta)
    at = (a[:, None, :] * x + b[:, None, :]).reshape(w * p, layout.d)
    anchors = bank.subset(tuple(int(i) for i in which))
    f = anchors.values(at).reshape(-1, w, p, layout.c)[: len(which)]  # (A, W, P, C)
    columns, offset = layout.design(f, x)
    linear_mean, linear_sd = layout.linear(mean)[:, None], layout.linear(sd)[:, None]  # (A, 1, C, L)
    target = y - offset
    gram = np.einsum("awpck,awpcl->awckl", columns, columns) / noise[:, None, None] ** 2
    moment = np.einsum("awpck,awpc->awck", columns, target) / noise[:, None] ** 2
    k = columns.shape[-1]
    if k:
        gram = gram + np.eye(k) / linear_sd[..., None] ** 2
        best = np.linalg.solve(gram, (moment + linear_mean / linear_sd**2)[..., None])[..., 0]
    else:
        best = moment
    left = target - (columns * best[:, :, None]).sum(-1)
    cost = ((left / noise) ** 2).sum((2, 3)) + (((best - linear_mean) / linear_sd) ** 2).sum((2, 3))
    cost = cost + ((((nodes - mean[:, None, :n]) / sd[:, None, :n]) ** 2).sum(-1) if n else 0.0)  # (A, W)
    first = np.argsort(cost, axis=1)[:, : min(2, w)]
    pairs = sorted((cost[i, j], i, j) for i in range(len(which)) for j in first[i])[:keep]
    return [(int(which[i]), layout.join(nodes[j], best[i, j])) for _, i, j in pairs]


def warp_nodes(layout: Layout, mean: Array, sd: Array) -> Array:
    """(W, N) nodes of the grid: where the prior puts the warp, at most as far as WIDEST."""
    n = layout.nonlinear
    if n == 0:
        return np.zeros((1, 0))
    widest = np.concatenate(
        [np.full(layout.d, w) for w, k in zip(WIDEST, ("xscale", "xshift"), strict=True) if k in layout.form.free]
    )
    low = np.maximum((mean - 3 * sd)[:, :n].min(0), -widest)
    high = np.minimum((mean + 3 * sd)[:, :n].max(0), widest)
    high = np.maximum(high, low + 1e-9)
    if n in NODES:
        axes = [np.linspace(lo, hi, NODES[n]) for lo, hi in zip(low, high, strict=True)]
        return np.array(list(product(*axes)))
    from scipy.stats import qmc  # only for several inputs

    return low + (high - low) * qmc.Sobol(n, seed=0).random(1024)


def learn_prior(operator: Warp, bank: TaskBank, layout: Layout, *, targets: int = 16, near: int = 4) -> Prior:
    """Fit transformations between tasks of the bank, nearest neighbours in position: their spread is the prior.

    Each of ``targets`` evenly spread tasks is written as a transformation of up to ``near`` neighbours and of both ends.
    """
    t = layout.size
    identity = layout.identity()
    wide = np.tile(np.where(np.arange(t) < layout.nonlinear, 2.0, 3.0), (1, 1))
    x = bank.grid(24)
    curves = bank.values(x)
    order = np.argsort(position(bank), kind="stable")
    vectors, left, pairs = [], [], []
    for spot in np.unique(np.linspace(0, len(bank) - 1, min(targets, len(bank))).astype(int)):
        target = int(order[spot])
        spots = {spot + step for step in range(-(near // 2), near // 2 + 1)} | {0, len(bank) - 1}
        others = [int(order[s]) for s in sorted(spots) if 0 <= s < len(bank) and s != spot]
        inside = bank.covers(x)[target] if not bank.callable else np.ones(len(x), dtype=bool)
        context = Context(x[inside], curves[target][inside])
        if len(context.x) <= 1:
            continue
        mean, sd = np.tile(identity, (len(others), 1)), np.tile(wide, (len(others), 1))
        noise = np.full(bank.c, GRID_NOISE)
        for anchor, theta in search(bank, layout, context, np.array(others), mean, sd, noise, keep=2 * len(others)):
            if any(p == (anchor, target) for p in pairs):
                continue
            r = refine(bank, layout, context, anchor, theta, identity, wide[0], np.full(bank.c, FLOOR), steps=12)
            vectors.append(r.theta)
            left.append((r.residual**2).mean(0))
            pairs.append((anchor, target))
    if not vectors:
        raise CannotAdaptError("no two tasks of the bank overlap: there is no transformation to learn from.")
    v, e = np.array(vectors), np.array(left)
    spread = np.sqrt(np.median((v - identity) ** 2, axis=0) / 0.455)  # the median of chi^2_1 is 0.455
    noise = np.sqrt(np.median(e, axis=0))
    prior = Prior(identity, INFLATION * np.maximum(spread, 0.02), noise)
    return _follow(prior, bank, v, pairs) if operator.follow else prior


def _follow(prior: Prior, bank: TaskBank, vectors: Array, pairs: list[tuple[int, int]]) -> Prior:
    """Regress the vectors on the difference of the parameters; what is left has a part that grows with it."""
    p = bank.params
    about = np.stack([p.mean(0), np.where(p.std(0) > 0, p.std(0), 1.0)])
    rows = [_features(p[i : i + 1], p[j], about) for i, j in pairs]
    phi, far = np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows])
    weight = 1 / (0.05 + far)
    y = vectors - prior.mean
    gram = (phi * weight[:, None]).T @ phi + 1e-3 * np.eye(phi.shape[1])
    slope = np.linalg.solve(gram, (phi * weight[:, None]).T @ y).T  # (T, 2 K)
    rest = (y - phi @ slope.T) ** 2
    near = far <= np.median(far)
    base = np.maximum(np.median(rest[near], axis=0) / 0.455, 1e-6)
    grows = np.maximum(np.median(rest / np.maximum(far, 0.05)[:, None], axis=0) / 0.455, 1e-4)
    return Prior(prior.mean, prior.sd, prior.noise, slope, about, np.stack([base, grows], axis=1))
