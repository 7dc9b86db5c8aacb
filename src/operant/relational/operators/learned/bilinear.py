"""A learned basis that sees the anchor, its coefficients solved on the context. Letters of pairs.py; ``A`` anchors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from operant.relational.bank.curves import Array
from operant.relational.operators.base import Adapted, Context, register
from operant.relational.operators.learned.base import (
    FittedLearned,
    LearnedOperator,
    explanations,
    mixture,
    posterior_weights,
)
from operant.relational.operators.learned.networks import BilinearNet
from operant.relational.operators.learned.pairs import FLOOR, Call
from operant.relational.operators.ridge import Ridge, ridge


@register
@dataclass(frozen=True)
class Bilinear(LearnedOperator):
    """f(x) = a(x) + <phi, h(x, a(x))>: a learned basis h, phi by ridge from the context, closed form at adapt.

    h is trained through the solve, so that phi from a few points predicts the others. Since h sees the anchor's value,
    the span contains scaled and bent anchors, not only sums of basis functions.

    sd^2 = variance over the anchors + n^2 (1 + h' A^-1 h), n^2 = mean_i e_i^2 / (1 - h_i), + v^2 (s^2 + s_0^2) / 2 as
    for :class:`Psi`.

    Args:
        steps: of training; some 15 ms each on one core.
        rank: length of phi.
        width: of the layers of h.
        batch: pairs a step.
        rate: of Adam.
        seed: of initialization and pairs.
    """

    steps: int = 1000
    rank: int = 8
    width: int = 64
    batch: int = 48
    rate: float = 3e-3
    seed: int = 0
    name = "bilinear"
    expresses = "a known task plus the span of a learned basis that sees the known task's values"

    def network(self, d: int, c: int, k: int) -> nn.Module:
        """Untrained; in double precision, for the solve."""
        return BilinearNet(d, c, self.rank, self.width).double()

    def call(self, net: nn.Module) -> Call:
        """The network as a function of pairs."""
        return net

    def adapted(self, fitted: FittedLearned, context: Context) -> Adapted:
        """See :meth:`LearnedOperator.adapted`."""
        return _BilinearAdapted(fitted, context)


class _BilinearAdapted(Adapted):
    def __init__(self, fitted: FittedLearned, context: Context) -> None:
        self._fitted, self._context = fitted, context
        order, self._anchor = fitted.anchors(context)
        self._few = fitted.few(order)
        residual = context.y - self._anchor  # (A, P, C)
        self._scale2 = (residual**2).mean((1, 2)) + FLOOR**2
        net = fitted.net
        assert isinstance(net, BilinearNet)
        self._net, penalty = net, float(net.log_ridge.exp())
        design = self._h(context.x, self._anchor)
        self._fits: list[Ridge] = [ridge(h, r, penalty) for h, r in zip(design, residual, strict=True)]
        self._weight = posterior_weights(np.array([f.noise for f in self._fits]), len(context.x))
        square = [float(np.mean(f.residual() ** 2)) for f in self._fits]
        self.decompositions = explanations(
            "bilinear", self._few.keys, [f.coef for f in self._fits], square, self._weight
        )

    def _h(self, x: Array, anchor: Array) -> Array:
        """(A, Q, C, K) the basis at (Q, D), where the anchors are (A, Q, C)."""
        points = torch.tensor(x).expand(len(anchor), *x.shape)
        return self._net.h(points, torch.tensor(anchor)).numpy()

    def _expected(self) -> Array:
        """(A, 1, 1) squared error by the outer split."""
        return self._fitted.expected(self._context, self._scale2)[:, None, None]

    def predict(self, x: Array) -> tuple[Array, Array]:
        anchor = self._few.values(x)
        h = self._h(x, anchor)
        mean = np.stack([a + f.mean(b) for a, f, b in zip(anchor, self._fits, h, strict=True)])
        spread = np.stack([f.noise * (1 + f.leverage(b)) for f, b in zip(self._fits, h, strict=True)])
        return mixture(mean, spread + self._expected(), self._weight)

    def covered(self, x: Array) -> NDArray[np.bool_]:
        return self._few.covers(x)[int(np.argmax(self._weight))]

    def left_out(self) -> tuple[Array, Array]:
        """From the hat matrices, anchors and their weights held."""
        y = self._context.y
        if len(y) == 1:
            return np.full_like(y, np.nan), np.full_like(y, np.nan)
        mean = np.stack([y - f.left_out_error() for f in self._fits])
        spread = np.stack([f.noise * f.left_out_factor() for f in self._fits])
        return mixture(mean, spread + self._expected(), self._weight)
