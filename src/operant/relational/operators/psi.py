"""Learned operators: the paper's Psi with its faults removed, and its bilinear form that is solved on the context.

Both start from an anchor a (a known task that is near on the context) and learn, from ordered pairs of known tasks,
what may be added to it (letters of pairs.py; ``A`` anchors).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import (
    Adapted,
    Context,
    Decomposition,
    Fitted,
    RelationalOperator,
    leave_one_out,
    register,
)
from operant.relational.operators.components import Components
from operant.relational.operators.pairs import (
    COMPONENTS,
    FLOOR,
    LARGEST,
    OCTAVES,
    Call,
    Layers,
    Pairs,
    Plan,
    features,
    train,
)
from operant.relational.operators.ridge import Ridge, ridge

ANCHORS = 3
"""Known tasks that a target is explained by."""
_SEEDING = Lock()
"""Networks are initialized from torch's global state, which threads share."""


class PsiNet(nn.Module):
    """E operators (anchor, context residuals, phi, x) -> (target - anchor) / scale."""

    def __init__(self, members: int, d: int, c: int, k: int, width: int) -> None:
        super().__init__()
        f = d * (1 + 2 * OCTAVES)
        self.context = Layers(members, [f + 2 * c, width, width])
        self.whole = Layers(members, [width + k + c + 1, width, width])
        self.query = Layers(members, [f + c, width, width])
        self.out = Layers(members, [3 * width, width, c])

    def forward(self, p: Pairs, gain: float) -> Tensor:
        """(E, B, Q, C) in units of the context's scale."""
        e = self.out.weights[0].shape[0]
        s = p.scale()
        signed = torch.asinh(p.phi() / s.mean(-1, keepdim=True)) * gain
        tokens = torch.cat([features(p.xc), p.rc / s[:, None], p.ac], -1).expand(e, -1, -1, -1)
        mask = p.mask[..., None]
        pooled = (self.context(tokens) * mask).sum(2) / mask.sum(1)
        more = torch.cat([signed, s.log() / 3, p.mask.sum(1, keepdim=True).log()], -1).expand(e, -1, -1)
        whole = self.whole(torch.cat([pooled, more], -1))[:, :, None]
        query = self.query(torch.cat([features(p.xq), p.aq], -1).expand(e, -1, -1, -1))
        whole = whole.expand_as(query)
        return self.out(torch.cat([query, whole, query * whole], -1))


class BilinearNet(nn.Module):
    """h(x, a(x)), and the ridge with which phi is solved from the context."""

    def __init__(self, d: int, c: int, k: int, width: int) -> None:
        super().__init__()
        self.c, self.k = c, k
        self.basis = Layers(1, [d * (1 + 2 * OCTAVES) + c, width, width, k * c])
        self.log_ridge = nn.Parameter(torch.tensor(-7.0))

    def h(self, x: Tensor, a: Tensor) -> Tensor:
        """(.., C, K) for points (.., D) and the anchor there (.., C)."""
        out = self.basis(torch.cat([features(x), a], -1)[None])[0]
        return out.reshape(*out.shape[:-1], self.c, self.k)

    def forward(self, p: Pairs) -> Tensor:
        """(1, B, Q, C) in units of the context's scale."""
        s = p.scale().mean(-1)[:, None]
        b = len(s)
        design = (self.h(p.xc, p.ac) * p.mask[..., None, None]).reshape(b, -1, self.k)
        gram = design.mT @ design + self.log_ridge.exp() * torch.eye(self.k)
        phi = torch.linalg.solve(gram, design.mT @ (p.rc.reshape(b, -1) / s)[..., None])  # (B, K, 1)
        return (self.h(p.xq, p.aq) @ phi[:, None])[None, ..., 0]


class _Learned(Fitted):
    """A trained network with its bank: anchors for a target, and what is stored."""

    def __init__(self, operator: Psi | Bilinear, bank: TaskBank, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        self.operator, self.bank = operator, bank
        self.components = Components(bank, COMPONENTS)
        k = self.components(bank.grid()[:1])[1].shape[2]
        with _SEEDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(operator.seed)
            self.net = operator.network(bank.d, bank.c, k)
        if arrays is None:
            plan = Plan(operator.steps, operator.batch, operator.rate, operator.seed)
            self.error = train(self.net, operator.call(self.net), bank, plan)
        else:
            self._restore(arrays)
        self.net.requires_grad_(False)

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        want = self.net.state_dict()
        stored = {k.removeprefix("net."): torch.from_numpy(np.array(v)) for k, v in arrays.items() if k != "error"}
        if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in want.items()}:
            raise DataError(
                f"the stored arrays of {self.operator.name!r} do not fit these settings and this bank: expected "
                f"{len(want)} arrays for D = {self.bank.d} and C = {self.bank.c}, got {sorted(arrays)[:4]}..."
            )
        self.net.load_state_dict(stored)
        self.error = np.asarray(arrays["error"], dtype=np.float64)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What ``from_arrays`` of the operator restores this from, given the bank."""
        return {f"net.{k}": v.numpy().copy() for k, v in self.net.state_dict().items()} | {"error": self.error.copy()}

    def anchors(self, context: Context) -> tuple[NDArray[np.intp], Array]:
        """Positions of the (A,) nearest tasks on the context, and their values (A, P, C) there."""
        values = self.bank.values(context.x)
        order = np.argsort(((values - context.y) ** 2).mean((1, 2)), kind="stable")[:ANCHORS]
        return order, values[order]

    def few(self, order: NDArray[np.intp]) -> TaskBank:
        """The anchors as a bank; two at least."""
        return self.bank.select(order, method=self.bank.method)

    def expected(self, context: Context, scale2: Array) -> Array:
        """Squared error to expect where the squared scale of the context residual is ``scale2``, from the outer split.

        v^2 (scale^2 + outer split's scale^2) / 2: a single point may lie on an anchor by chance.
        """
        ratio, usual = self.error[:, min(len(context.x), LARGEST) - 1]
        return ratio * (scale2 + usual) / 2


def _mixture(mean: Array, variance: Array, weight: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (Q, C) of a mixture of (A, Q, C) with weights (A,)."""
    w = weight[:, None, None]
    center = (w * mean).sum(0)
    return center, np.sqrt((w * (variance + (mean - center) ** 2)).sum(0))


def _weights(square: Array, p: int) -> Array:
    """(A,) posterior weights of explanations with mean squared residuals (A,), the noise integrated out."""
    score = -0.5 * p * np.log(np.maximum(square, 1e-16))
    w = np.exp(score - score.max())
    return w / w.sum()


@register
@dataclass(frozen=True)
class Psi(RelationalOperator):
    """The paper's learned operator: f(x) = a(x) + s Psi(x, a(x), phi, context residuals).

    Where the paper's code sees a fixed list of 16 points at once, unsigned normalised distances and raw values, this
    one answers for one query point at a time; reads the context residuals r = y - a(x_c) as a set; takes phi as the
    signed difference of the bank's component scores, by ridge from r, not normalised to length one; and works in units
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
        seed: of initialisation and pairs.
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

    def fit(self, bank: TaskBank) -> Fitted:
        """Train on ordered pairs of tasks."""
        return _PsiFitted(self, bank, None)

    def from_arrays(self, bank: TaskBank, arrays: Mapping[str, NDArray[Any]]) -> Fitted:
        """What :meth:`fit` gave, from its ``to_arrays()`` and the same bank.

        Raises:
            DataError: if the arrays belong to other settings or another kind of bank.
        """
        return _PsiFitted(self, bank, arrays)

    def network(self, d: int, c: int, k: int) -> nn.Module:
        """Untrained."""
        return PsiNet(self.members, d, c, k, self.width)

    def call(self, net: nn.Module) -> Call:
        """The network as a function of pairs."""
        return lambda pairs: net(pairs, self.phi_gain)


class _PsiFitted(_Learned):
    def adapt(self, context: Context) -> Adapted:
        return _PsiAdapted(self, context)


class _PsiAdapted(Adapted):
    def __init__(self, fitted: _PsiFitted, context: Context) -> None:
        self._fitted, self._context = fitted, context
        order, self._anchor = fitted.anchors(context)
        self._few = fitted.few(order)
        self._u = fitted.components(context.x)[1]
        mean, _ = self._answers(context.x, self._anchor)
        square = ((mean.mean(0) - context.y) ** 2).mean((1, 2))
        self._weight, self._own = _weights(square, len(context.x)), square
        phi = self._pairs(context.x, self._anchor).phi().numpy()
        self.decompositions = tuple(
            Decomposition(k, "psi, phi = " + ", ".join(f"{v:z.3g}" for v in z), float(np.sqrt(e)), float(w))
            for k, z, e, w in sorted(
                zip(self._few.keys, phi, square, self._weight, strict=True), key=lambda item: -float(item[3])
            )
        )

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
        return _mixture(curves.mean(0), curves.var(0) + expected[:, None], self._weight)

    def covered(self, x: Array) -> NDArray[np.bool_]:
        return self._few.covers(x)[int(np.argmax(self._weight))]

    def left_out(self) -> tuple[Array, Array]:
        """By adapting without each point."""
        return leave_one_out(self._fitted, self._context)


@register
@dataclass(frozen=True)
class Bilinear(RelationalOperator):
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
        seed: of initialisation and pairs.
    """

    steps: int = 1000
    rank: int = 8
    width: int = 64
    batch: int = 48
    rate: float = 3e-3
    seed: int = 0
    name = "bilinear"
    expresses = "a known task plus the span of a learned basis that sees the known task's values"

    def fit(self, bank: TaskBank) -> Fitted:
        """Train the basis."""
        return _BilinearFitted(self, bank, None)

    def from_arrays(self, bank: TaskBank, arrays: Mapping[str, NDArray[Any]]) -> Fitted:
        """What :meth:`fit` gave, from its ``to_arrays()`` and the same bank.

        Raises:
            DataError: if the arrays belong to other settings or another kind of bank.
        """
        return _BilinearFitted(self, bank, arrays)

    def network(self, d: int, c: int, k: int) -> nn.Module:
        """Untrained; in double precision, for the solve."""
        return BilinearNet(d, c, self.rank, self.width).double()

    def call(self, net: nn.Module) -> Call:
        """The network as a function of pairs."""
        return net


class _BilinearFitted(_Learned):
    net: BilinearNet

    def adapt(self, context: Context) -> Adapted:
        return _BilinearAdapted(self, context)

    def h(self, x: Array, anchor: Array) -> Array:
        """(A, Q, C, K) for points (Q, D) and the anchors (A, Q, C) there."""
        points = torch.tensor(x).expand(len(anchor), *x.shape)
        return self.net.h(points, torch.tensor(anchor)).numpy()


class _BilinearAdapted(Adapted):
    def __init__(self, fitted: _BilinearFitted, context: Context) -> None:
        self._fitted, self._context = fitted, context
        order, self._anchor = fitted.anchors(context)
        self._few = fitted.few(order)
        residual = context.y - self._anchor  # (A, P, C)
        self._scale2 = (residual**2).mean((1, 2)) + FLOOR**2
        penalty = float(fitted.net.log_ridge.exp())
        design = fitted.h(context.x, self._anchor)
        self._fits: list[Ridge] = [ridge(h, r, penalty) for h, r in zip(design, residual, strict=True)]
        self._weight = _weights(np.array([f.noise for f in self._fits]), len(context.x))
        self.decompositions = tuple(
            Decomposition(
                k,
                "bilinear, phi = " + ", ".join(f"{v:z.3g}" for v in f.coef),
                float(np.sqrt(np.mean(f.residual() ** 2))),
                float(w),
            )
            for k, f, w in sorted(
                zip(self._few.keys, self._fits, self._weight, strict=True), key=lambda item: -float(item[2])
            )
        )

    def _expected(self) -> Array:
        """(A, 1, 1) squared error by the outer split."""
        return self._fitted.expected(self._context, self._scale2)[:, None, None]

    def predict(self, x: Array) -> tuple[Array, Array]:
        anchor = self._few.values(x)
        h = self._fitted.h(x, anchor)
        mean = np.stack([a + f.mean(b) for a, f, b in zip(anchor, self._fits, h, strict=True)])
        spread = np.stack([f.noise * (1 + f.leverage(b)) for f, b in zip(self._fits, h, strict=True)])
        return _mixture(mean, spread + self._expected(), self._weight)

    def covered(self, x: Array) -> NDArray[np.bool_]:
        return self._few.covers(x)[int(np.argmax(self._weight))]

    def left_out(self) -> tuple[Array, Array]:
        """From the hat matrices, anchors and their weights held."""
        y = self._context.y
        if len(y) == 1:
            return np.full_like(y, np.nan), np.full_like(y, np.nan)
        mean = np.stack([y - f.left_out_error() for f in self._fits])
        spread = np.stack([f.noise * f.left_out_factor() for f in self._fits])
        return _mixture(mean, spread + self._expected(), self._weight)
