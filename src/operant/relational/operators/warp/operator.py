"""An anchor and a named transformation: y(x) = s f(a x + b) + t + u x.

For each anchor the warp (a, b) is searched on a grid, with the linear part (s, t, u) in closed form at each node, and
the best nodes are refined by Levenberg-Marquardt. The transformation has a Gaussian prior: what was seen between tasks
of the bank, or what the known parameters of the target let one expect. Anchors are weighed by their evidence
(Laplace's approximation), and the prediction is the mixture, at each point of those above all that know their anchor
there. Beyond its measured range :mod:`operant.relational.operators.warp.reach` continues an anchor, with a standard
deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array
from operant.relational.bank.splits import position
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import (
    Adapted,
    CannotAdaptError,
    Context,
    Decomposition,
    Fitted,
    RelationalOperator,
    register,
)
from operant.relational.operators.warp.parameters import LARGEST, Layout
from operant.relational.operators.warp.prior import WarpPrior, fit, learn_prior, tabled
from operant.relational.operators.warp.reach import Reach
from operant.relational.operators.warp.refine import FLOOR, GRID_NOISE, Candidates, model
from operant.relational.operators.warp.search import search
from operant.relational.transforms import Scale, Shift, Transformation, Trend, XScale, XShift, XWarp

# A form with more factors fits a context at least as well and may extrapolate worse: simpler forms are tried too.
FORMS = (
    Shift(),
    Scale(),
    Shift() * Scale(),
    Shift() * Scale() * Trend(),
    Shift() * XShift(),
    Scale() * XScale(),
    Shift() * Scale() * XScale(),
    Shift() * Scale() * XWarp(),
)
"""Transformations that ``operator="auto"`` tries."""
FOLLOWING = (Shift() * Scale(), Shift() * XShift(), Shift() * Scale() * XWarp())
"""Those that it tries by the known parameters, too."""
_FOLLOWS = " by parameters"
"""The end of the name of a form that follows the parameters."""
# Two widths, since the spread between bank tasks describes a target inside the bank, not one beyond it.
INFLATIONS = (1.5, 8.0)
"""A target outside the bank may be transformed by this much more than bank tasks are; the evidence weighs them."""
_MOST = 16
"""Candidates that are mixed, at most."""
_VAGUE = 1.0
"""The standard deviation of a continued anchor, in those of the bank, that halves a candidate's weight there."""
Z90 = 1.6448536269514722


@register
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
    anchors: int = 32
    anchor: object = None

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The transformation, and whether it follows the parameters."""
        return f"{self.form}{_FOLLOWS if self.follow else ''}"

    expresses = "s f(a x + b) + t + u x of one bank task f, with the factors of its form"

    @property
    def needs(self) -> Literal["curves", "params", "labels"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See :attr:`RelationalOperator.needs`."""
        return "params" if self.follow else "curves"

    @classmethod
    def parse(cls, text: str) -> Warp:
        """From a product of transformations, with " by parameters" behind it where it follows them.

        Raises:
            ParseError: as :meth:`Transformation.parse`.
        """
        return cls(Transformation.parse(text.removesuffix(_FOLLOWS)), follow=text.endswith(_FOLLOWS))

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """The forms in FORMS, and those of FOLLOWING by the known parameters."""
        return (*map(cls, FORMS), *(cls(form, follow=True) for form in FOLLOWING))

    def fit(self, bank: TaskBank) -> FittedWarp:
        """See :meth:`RelationalOperator.fit`."""
        if self.follow and not bank.param_names:
            raise CannotAdaptError("the bank has no known parameters that a transformation could follow.")
        if self.follow and not bank.parameters.varying.any():
            raise CannotAdaptError("the parameters never vary in the bank: no transformation can follow them.")
        if self.anchor is not None and self.anchor not in bank.keys:
            raise CannotAdaptError(f"no task {self.anchor!r} in the bank.")
        layout = Layout.of(self.form, bank)
        return FittedWarp(self, bank, layout, learn_prior(bank, layout, follow=self.follow))


@dataclass(frozen=True, eq=False)
class FittedWarp(Fitted):
    """See :class:`Warp`."""

    operator: Warp
    bank: TaskBank
    layout: Layout
    prior: WarpPrior

    def adapt(self, context: Context) -> Adapted:
        """See :meth:`Fitted.adapt`."""
        if self.operator.follow and context.params is None:
            raise CannotAdaptError("a transformation that follows parameters needs those of the target.")
        if self.operator.follow and context.params is not None:
            self.bank.parameters.check_reach(context.params)
        which = self._anchors(context)
        mean, sd = self.prior.at(self.bank.params[which], context.params if self.operator.follow else None)
        floor = np.maximum(self.prior.noise, FLOOR)
        count = len(INFLATIONS)
        rows, theta = np.arange(len(which)), mean
        if self.layout.nonlinear:
            rows, theta = search(
                self.bank,
                self.layout,
                context,
                which,
                mean,
                INFLATIONS[-1] * sd,
                np.maximum(floor, GRID_NOISE),
                reach=tabled(self.bank),
            )
        found = fit(
            self.bank,
            self.layout,
            context.x,
            context.y,
            np.tile(which[rows], count),
            np.tile(theta, (count, 1)),
            mean=np.tile(mean[rows], (count, 1)),
            sd=np.concatenate([k * sd[rows] for k in INFLATIONS]),
            floor=floor,
            noise=context.noise,
        )
        return AdaptedWarp(self, context, found)

    def _anchors(self, context: Context) -> NDArray[np.intp]:
        """Positions of the anchors to try: the nearest on the context, and some evenly spread."""
        f, limit = len(self.bank), self.operator.anchors
        if self.operator.anchor is not None:
            return np.array([self.bank.keys.index(self.operator.anchor)])
        if f <= limit:
            return np.arange(f)
        # Comparing values beats task embeddings, also on 10,000 tasks: faster, with errors 2.4 to 4.4 times smaller
        # (experiments/task_embeddings).
        distance = ((self.bank.values(context.x) - context.y) ** 2).sum((1, 2))
        near = np.argsort(distance)[: limit // 2]
        return np.unique(np.concatenate([near, self._spread]))

    @property
    def _spread(self) -> NDArray[np.intp]:
        """Evenly spread anchors."""
        count = self.operator.anchors - self.operator.anchors // 2
        order = self.bank.remembered("order", lambda: np.argsort(position(self.bank)))
        return order[np.linspace(0, len(order) - 1, count).astype(int)]


class AdaptedWarp(Adapted):
    """The mixture over the refined candidates."""

    def __init__(self, fitted: FittedWarp, context: Context, found: Candidates) -> None:
        self.fitted, self.context, self.found = fitted, context, found
        evidence = np.where(np.isfinite(found.evidence), found.evidence, -np.inf)
        if not np.isfinite(evidence).any():
            raise CannotAdaptError(f"{fitted.operator.name}: no anchor can be evaluated where the context asks for it.")
        weight = np.exp(evidence - evidence.max())
        self.kept: list[int] = []
        for i in np.argsort(-weight):
            if len(self.kept) < _MOST and weight[i] > 1e-4 and not any(self._twins(i, k) for k in self.kept):
                self.kept.append(int(i))
        self.weights = weight[self.kept] / weight[self.kept].sum()

    @cached_property
    def decompositions(self) -> tuple[Decomposition, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See :attr:`Adapted.decompositions`; made when asked for, since a backtest never asks."""
        return tuple(self._decomposition(i, w) for i, w in zip(self.kept, self.weights, strict=True))

    def _twins(self, i: int, k: int) -> bool:
        """Whether two candidates fell into the same optimum of the same anchor."""
        f = self.found
        return bool(f.anchor[i] == f.anchor[k] and np.abs(f.theta[i] - f.theta[k]).max(initial=0.0) < 1e-3)

    def _decomposition(self, i: int, weight: float) -> Decomposition:
        found, layout = self.found, self.fitted.layout
        transformation = layout.transformation(found.theta[i])
        covariance = layout.covariance(found.theta[i], found.covariance[i])
        sd, intervals = np.sqrt(np.diag(covariance)), {}
        for kind, place in layout.slices.items():
            values = np.array(transformation.get(kind))
            half = Z90 * sd[place]
            ends = values - half, values + half
            if kind == "xscale":
                ends = values * np.exp(-np.minimum(half, LARGEST)), values * np.exp(np.minimum(half, LARGEST))
            for j, (low, high) in enumerate(zip(*ends, strict=True)):
                intervals[kind if len(values) == 1 else f"{kind}[{j}]"] = (float(low), float(high))
        residual = float(np.sqrt(np.mean(found.residual[i] ** 2)))
        anchor = self.fitted.bank.tasks[found.anchor[i]].key
        return Decomposition(
            anchor,
            transformation,
            residual,
            float(weight),
            intervals,
            warp_covariance=layout.warp_covariance(covariance),
        )

    def _each(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """(B, Q, C) means, (B, Q, C, T) Jacobians, (B, Q, C) anchor_sd and (B, Q, 1) weights of the candidates kept."""
        f, fitted = self.found, self.fitted
        reach = Reach.of(fitted.bank)
        m, jacobian, anchor_sd = model(fitted.bank, fitted.layout, f.anchor[self.kept], f.theta[self.kept], x, reach)
        return m, jacobian, anchor_sd, self._weights(anchor_sd)

    def _weights(self, anchor_sd: Array) -> Array:
        """(B, Q, 1) weights at points, moved away from anchors whose standard deviation there (B, Q, C) is large."""
        w = self.weights[:, None] / (1 + (anchor_sd**2).mean(2) / _VAGUE**2)
        return (w / w.sum(0))[..., None]

    def predict(self, x: Array) -> tuple[Array, Array]:
        """See :meth:`Adapted.predict`."""
        m, jacobian, anchor_sd, w = self._each(x)
        v = np.einsum("bqct,btu,bqcu->bqc", jacobian, self.found.covariance[self.kept], jacobian)
        mean = (w * m).sum(0)
        return mean, np.sqrt((w * (v + anchor_sd**2 + (m - mean) ** 2)).sum(0) + self.fitted.prior.noise**2)

    def sample(self, x: Array, n: int, rng: np.random.Generator) -> Array:
        """See :meth:`Adapted.sample`: a candidate by its weight, then its linearized posterior.

        What the transformation leaves unexplained, and an anchor's error beyond its range, move a curve as a whole.
        Where the weights change along x, a curve passes from one candidate to another.
        """
        m, jacobian, anchor_sd, w = self._each(x)
        rest = np.hypot(anchor_sd, self.fitted.prior.noise)
        which = (rng.random((n, 1)) > np.cumsum(w[..., 0], axis=0)[:-1, None]).sum(0)  # (n, Q)
        z, draws = rng.standard_normal((n, 1, m.shape[-1])), np.empty((n, *m.shape[1:]))
        for i in np.unique(which):
            of = which == i
            theta = rng.multivariate_normal(np.zeros(jacobian.shape[-1]), self.found.covariance[self.kept[i]], n)
            draws[of] = (m[i] + np.einsum("qct,nt->nqc", jacobian[i], theta) + z * rest[i])[of]
        return draws

    def covered(self, x: Array) -> NDArray[np.bool_]:
        """See :meth:`Adapted.covered`: where candidates with half of the weight there know their anchor."""
        f, fitted = self.found, self.fitted
        reach, a_b = Reach.of(fitted.bank), zip(*fitted.layout.warp(f.theta[self.kept]), strict=True)
        known = [reach.covers(int(i), a * x + b) for i, (a, b) in zip(f.anchor[self.kept], a_b, strict=True)]
        return (np.array(known) * self._each(x)[3][..., 0]).sum(0) >= 0.5

    def left_out(self) -> tuple[Array, Array]:
        """See :meth:`Adapted.left_out`: r_i / (1 - h_ii), linearized, for each candidate; weights as they are.

        NaN for a point that the fit goes through whatever its value, as where there are as many factors as points.
        """
        f, kept = self.found, self.kept
        total = f.total[kept]  # (B, P, C)
        lever = np.einsum("bpct,btu,bpcu->bpc", f.jacobian[kept], f.covariance[kept], f.jacobian[kept]) / total**2
        left = np.where(lever < 1 - 1e-6, 1 - lever, np.nan)  # the fit passes through such a point whatever its value
        m, v = self.context.y - f.residual[kept] / left, total**2 / left
        w = self._weights(f.anchor_sd[kept])
        mean = (w * m).sum(0)
        return mean, np.sqrt((w * (v + (m - mean) ** 2)).sum(0))
