"""The paper's learned operator with its faults removed. Letters of pairs.py; ``A`` anchors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from operant.relational.bank.curves import Array
from operant.relational.operators.base import Adapted, Context, leave_one_out, register
from operant.relational.operators.learned.base import (
    FittedLearned,
    LearnedOperator,
    explanations,
    mixture,
    posterior_weights,
)
from operant.relational.operators.learned.networks import PsiNet
from operant.relational.operators.learned.pairs import Call, Pairs


@register
@dataclass(frozen=True)
class Psi(LearnedOperator):
    """The paper's learned operator: f(x) = a(x) + s Psi(x, a(x), phi, context residuals).

    Where the paper's code sees a fixed list of 16 points at once, unsigned normalized distances and raw values, this
    one answers for one query point at a time; reads the context residuals r = y - a(x_c) as a set; takes phi as the
    signed difference of the bank's component scores, by ridge from r, not normalized to length one; and works in units
    of the context's scale s = rms(r): twice the residual, twice the answer, but for log s, which is an input too.

    sd^2 = variance over ``members`` networks and the anchors + v^2 (s^2 + s_0^2) / 2 + e^2, v^2 the mean squared error
    on the held-out tasks over their mean squared scale s_0^2, for as many context points, e^2 the mean squared error on
    the context itself.

    Args:
        steps: of training; some 25 ms each on one core.
        members: networks, side by side.
        width: of their layers.
        batch: pairs a step, the same for all members.
        rate: of Adam.
        phi_gain: 0 trains and uses the operator without phi (the ablation).
        seed: of initialization and pairs.
    """

    steps: int = 1200
    members: int = 3
    width: int = 64
    batch: int = 48
    rate: float = 3e-3
    phi_gain: float = 1.0
    seed: int = 0
    name = "psi"
    expresses = "what a network learns to add to a known task, from pairs of known tasks"

    def network(self, d: int, c: int, k: int) -> nn.Module:
        """Untrained."""
        return PsiNet(self.members, d, c, k, self.width)

    def call(self, net: nn.Module) -> Call:
        """The network as a function of pairs."""
        return lambda pairs: net(pairs, self.phi_gain)

    def adapted(self, fitted: FittedLearned, context: Context) -> Adapted:
        """See :meth:`LearnedOperator.adapted`."""
        return _PsiAdapted(fitted, context)


class _PsiAdapted(Adapted):
    def __init__(self, fitted: FittedLearned, context: Context) -> None:
        self._fitted, self._context = fitted, context
        order, self._anchor = fitted.anchors(context)
        self._few = fitted.few(order)
        self._u = fitted.components(context.x)[1]
        mean, _ = self._answers(context.x, self._anchor)
        square = ((mean.mean(0) - context.y) ** 2).mean((1, 2))
        self._weight, self._own = posterior_weights(square, len(context.x)), square
        phi = self._pairs(context.x, self._anchor).phi().numpy()
        self.decompositions = explanations("psi", self._few.keys, list(phi), list(square), self._weight)

    def _pairs(self, x: Array, anchor: Array) -> Pairs:
        dtype = next(self._fitted.net.parameters()).dtype
        c, n = self._context, len(self._anchor)

        def each(v: Array) -> Tensor:
            return torch.tensor(v, dtype=dtype).expand(n, *v.shape)

        xc, yc, u, xq = each(c.x), each(c.y), each(self._u), each(x)
        ac, aq = torch.tensor(self._anchor, dtype=dtype), torch.tensor(anchor, dtype=dtype)
        return Pairs(xc, ac, yc - ac, u, torch.ones(n, len(c.x), dtype=dtype), xq, aq, aq[:, :0])

    def _answers(self, x: Array, anchor: Array) -> tuple[Array, Array]:
        """(E, A, Q, C) curves and (A, C) scales."""
        p = self._pairs(x, anchor)
        out = self._fitted.operator.call(self._fitted.net)(p) * p.scale()[:, None]
        return anchor + out.numpy().astype(np.float64), p.scale().numpy().astype(np.float64)

    def predict(self, x: Array) -> tuple[Array, Array]:
        curves, scale = self._answers(x, self._few.values(x))
        expected = self._fitted.expected(self._context, scale**2) + self._own[:, None]  # (A, C)
        return mixture(curves.mean(0), curves.var(0) + expected[:, None], self._weight)

    def covered(self, x: Array) -> NDArray[np.bool_]:
        return self._few.covers(x)[int(np.argmax(self._weight))]

    def left_out(self) -> tuple[Array, Array]:
        """By adapting without each point."""
        return leave_one_out(self._fitted, self._context)
