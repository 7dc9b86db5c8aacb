"""Training on ordered pairs of known tasks: what the learned operators of psi.py have in common.

``G`` is the number of tabulated points, ``B`` of pairs in a batch, ``E`` of networks, ``M`` of context points (padded,
masked), ``Q`` of query points, ``D`` of inputs, ``C`` of outputs, ``K`` of bank components.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.bank.splits import outer
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.components import Components

log = logging.getLogger(__name__)
POINTS = 256
"""Points at which the bank is tabulated for training."""
LARGEST = 12
"""Context points in training: 1 to LARGEST."""
_QUERIES = 16
COMPONENTS = 4
"""Bank components whose scores are phi, at most."""
# A network of x alone learns frequencies slowly; the highest of these passes 8 periods over the range of the bank.
OCTAVES = 5
"""Sines and cosines of x, of frequencies pi / 2 to 8 pi in scaled units."""
_SIMILAR = 10
"""Tasks most like the target; half of the anchors in training are of these."""
# Residuals are divided by their scale, which is zero where the target is an anchor.
FLOOR = 1e-4
"""Least scale of a residual, in scaled units."""
_CHECKS = 12
"""Looks at the held-out outer split in a training run."""


@dataclass(frozen=True)
class Plan:
    """How a network is trained: see :class:`Psi`."""

    steps: int
    batch: int
    rate: float
    seed: int


def features(x: Tensor) -> Tensor:
    """(.., D) -> (.., D (1 + 2 OCTAVES)) points with their sines and cosines."""
    angle = x[..., None] * (math.pi / 2 * 2.0 ** torch.arange(OCTAVES, dtype=x.dtype))
    return torch.cat([x, angle.sin().flatten(-2), angle.cos().flatten(-2)], -1)


@dataclass(frozen=True)
class Pairs:
    """A batch of ordered pairs: what is known of the target, and where it is asked.

    Args:
        xc: (B, M, D) context points.
        ac: (B, M, C) the anchor there.
        rc: (B, M, C) target less anchor there.
        uc: (B, M, C, K) bank components there.
        mask: (B, M) one for real points.
        xq: (B, Q, D) query points.
        aq: (B, Q, C) the anchor there.
        rq: (B, Q, C) target less anchor there; empty at test time.
    """

    xc: Tensor
    ac: Tensor
    rc: Tensor
    uc: Tensor
    mask: Tensor
    xq: Tensor
    aq: Tensor
    rq: Tensor

    def scale(self) -> Tensor:
        """(B, C) root mean square of the context residual."""
        mean = (self.rc**2 * self.mask[..., None]).sum(1) / self.mask.sum(1, keepdim=True)
        return (mean + FLOOR**2).sqrt()

    def phi(self) -> Tensor:
        """(B, K) signed, unnormalized difference of the two tasks' component scores, by ridge from the context."""
        b, m, c, k = self.uc.shape
        design = (self.uc * self.mask[..., None, None]).reshape(b, m * c, k)
        gram = design.mT @ design
        gram = gram + 1e-3 * (1e-6 + gram.diagonal(dim1=1, dim2=2).mean(1))[:, None, None] * torch.eye(k)
        return torch.linalg.solve(gram, (design.mT @ self.rc.reshape(b, m * c, 1)))[..., 0]


@dataclass(frozen=True, eq=False)
class PairSampler:
    """Random ordered pairs of known tasks with random contexts, from a table of the bank."""

    x: Tensor  # (G, D), increasing for D = 1
    y: Tensor  # (F, G, C)
    u: Tensor  # (G, C, K)
    similar: Tensor  # (F, S)

    @classmethod
    def of(cls, bank: TaskBank, components: Components, dtype: torch.dtype) -> PairSampler:
        """Tabulate."""
        grid = bank.grid(POINTS)
        grid = grid[np.argsort(grid[:, 0], kind="stable")]
        y = bank.values(grid)
        flat = y.reshape(len(bank), -1)
        square = (flat**2).sum(1)
        apart = square[:, None] + square - 2 * flat @ flat.T
        np.fill_diagonal(apart, np.inf)
        similar = np.argsort(apart, axis=1, kind="stable")[:, : min(_SIMILAR, len(bank) - 1)]
        x, values, u = (torch.tensor(v, dtype=dtype) for v in (grid, y, components(grid)[1]))
        return cls(x, values, u, torch.tensor(similar))

    def pairs(self, b: int, g: torch.Generator, *, targets: Tensor | None = None) -> Pairs:
        """B pairs; half of the anchors are similar to the target, half any.

        With ``targets`` (F', G, C) the targets are of these, and the anchors the nearest on the context.
        """
        f, n = len(self.y), len(self.x)
        pool = self.y if targets is None else targets
        t = torch.randint(len(pool), (b,), generator=g)
        count = torch.randint(1, min(LARGEST, n) + 1, (b, 1), generator=g)
        mask = (torch.arange(min(LARGEST, n)) < count).to(self.x.dtype)
        low, width = torch.rand(b, 1, generator=g), torch.rand(b, 1, generator=g) * 0.7 + 0.3
        kind = torch.rand(b, 1, generator=g)  # half anywhere, a quarter from the start, a quarter from a window
        low = torch.where(kind < 0.75, 0.0, low * (1 - width))
        width = torch.where(kind < 0.5, 1.0, width)
        c = ((low + width * torch.rand(mask.shape, generator=g)) * n).long().clamp(max=n - 1)  # (B, M)
        q = torch.randint(n, (b, min(_QUERIES, n)), generator=g)
        rows = torch.arange(b)
        if targets is None:
            near = self.similar[t, torch.randint(self.similar.shape[1], (b,), generator=g)]
            other = (t + torch.randint(1, f, (b,), generator=g)) % f
            a = torch.where(torch.rand(b, generator=g) < 0.5, near, other)
        else:
            miss = ((self.y[:, c] - pool[t[:, None], c]) ** 2).sum(-1)  # (F, B, M)
            a = (miss * mask).sum(-1).argmin(0)
        ac, aq, at = self.y[a[:, None], c], self.y[a[:, None], q], pool[t]
        rc, rq = at[rows[:, None], c] - ac, at[rows[:, None], q] - aq
        return Pairs(self.x[c], ac, rc * mask[..., None], self.u[c], mask, self.x[q], aq, rq)


class Layers(nn.Module):
    """E multilayer perceptrons side by side: (E, .., I) -> (E, .., O)."""

    def __init__(self, members: int, sizes: list[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(members, i, o) / i**0.5) for i, o in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, o)) for o in sizes[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        out = x.flatten(1, -2)
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(b, nn.functional.silu(out) if i else out, w)
        return out.reshape(*x.shape[:-1], -1)


Call = Callable[[Pairs], Tensor]
"""(E, B, Q, C) answers in units of the context's scale."""


def _relative(out: Tensor, p: Pairs, scale: Tensor) -> Tensor:
    """(E, B) squared error of the residual at the queries over one plus its square, in units of the context's scale."""
    want = p.rq / scale[:, None]
    # Without the division, pairs whose context says little have the largest errors and rule the training.
    return ((out - want) ** 2).mean((2, 3)) / (1 + (want**2).mean((1, 2)))


def train(net: nn.Module, call: Call, bank: TaskBank, plan: Plan) -> Array:
    """Adam on random pairs of inner tasks, the best state on the held-out outer split kept.

    The loss of a pair is the mean squared error over one plus the mean square of what is asked, both in units of the
    context's scale: otherwise pairs with an uninformative context would dominate.

    Args:
        net: its parameters are trained in place.
        call: pairs -> (E, B, Q, C) in units of the context's scale.
        bank: known tasks.
        plan: of the training.

    Returns:
        (2, LARGEST) on the outer split, by number of context points: mean squared error over mean squared scale, and
            the mean squared scale.
    """
    dtype = next(net.parameters()).dtype
    g = torch.Generator().manual_seed(plan.seed)
    try:
        split = outer(bank, share=0.2)
        inner, held = split.train, split.test
    except DataError:  # too few tasks to hold any out
        inner, held = bank, bank
    sampler = PairSampler.of(inner, Components(bank, COMPONENTS), dtype)
    targets = torch.tensor(held.values(sampler.x.numpy().astype(np.float64)), dtype=dtype)
    check = sampler.pairs(256, g, targets=targets)
    optimizer = torch.optim.Adam(net.parameters(), plan.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(plan.steps, 1))
    best, state = math.inf, {k: v.clone() for k, v in net.state_dict().items()}
    for step in range(1, plan.steps + 1):
        p = sampler.pairs(plan.batch, g)
        loss = _relative(call(p), p, p.scale()).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, plan.steps // _CHECKS) == 0 or step == plan.steps:
            with torch.no_grad():
                held_out = float(_relative(call(check), check, check.scale()).mean())
            log.info("step %d of %d: pairs %.3g, held out %.3g", step, plan.steps, float(loss.detach()), held_out)
            if held_out < best:
                best, state = held_out, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    with torch.no_grad():
        p = sampler.pairs(1024, g, targets=targets)
        scale = p.scale()
        error = ((call(p).mean(0) * scale[:, None] - p.rq) ** 2).mean((1, 2))
    return _by_count(*(np.asarray(v, dtype=np.float64) for v in (p.mask.sum(1), error, (scale**2).mean(1))))


def _by_count(count: Array, error: Array, scale: Array) -> Array:
    """(2, LARGEST) mean squared error over mean squared scale, and the latter, of contexts of about m points."""
    out = np.full((2, LARGEST), np.nan)
    for m in range(1, LARGEST + 1):
        some = np.abs(count - m) <= (m > 2)
        if some.any():
            out[:, m - 1] = error[some].mean() / scale[some].mean(), scale[some].mean()
    return np.where(np.isfinite(out), out, np.nanmax(out, axis=1, keepdims=True))
