"""The published networks (arXiv 2605.30132) with and without an anchor's values, trained side by side."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import numpy as np
import torch
from torch import nn

from operant.core.rng import numpy_generator
from operant.relational.bank.families import FAMILIES

P, GRID = 8, np.linspace(0, 10, 20)[:, None]
NETWORK, WITHOUT, WALK = "transductive network", "inductive network", "transductive network, step by step"
TUNED = "inductive network, standardized inputs"


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers = [layer for i, o in zip(sizes[:-1], sizes[1:], strict=True) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def published(inputs: int, outputs: int) -> nn.Sequential:
    """The trunk of section 3.1: three stacks, without an activation between them."""
    return nn.Sequential(mlp(inputs, 64, 64, 16), mlp(16, 64, 64, 16), mlp(16, 128, outputs))


Rows = tuple[np.ndarray, np.ndarray]
"""Inputs (B, I) and answers (B, O)."""


def train(
    nets: Mapping[str, nn.Module],
    rows: Callable[[], Mapping[str, Rows]],
    steps: int,
    rate: float = 1e-3,
    *,
    raw: Container[str] = (),
) -> Callable[[str, np.ndarray], np.ndarray]:
    """Adam with a cosine schedule on fresh rows, the same number of steps for every network.

    Inputs and answers are standardized by the first rows, but for the networks in ``raw``; the result answers in the
    rows' units.
    """
    first = {name: [(v.mean(0), v.std(0) + 1e-9) for v in pair] for name, pair in rows().items()}
    first |= {name: [(0.0, 1.0), (0.0, 1.0)] for name in first if name in raw}
    # A shared scale for the answers: some of them hardly vary at the first rows.
    unit = {name: (float(np.mean(y[0])), float(np.sqrt(np.mean(y[1] ** 2)))) for name, (_, y) in first.items()}
    parameters = [p for net in nets.values() for p in net.parameters()]
    adam = torch.optim.Adam(parameters, rate, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)

    def tensor(v: np.ndarray, center: np.ndarray | float, spread: np.ndarray | float) -> torch.Tensor:
        return torch.tensor((v - center) / spread, dtype=torch.float32)

    for _ in range(steps):
        drawn = rows()
        losses = [
            nn.functional.mse_loss(nets[name](tensor(x, *first[name][0])), tensor(y, *unit[name]))
            for name, (x, y) in drawn.items()
        ]
        adam.zero_grad()
        torch.stack(losses).sum().backward()
        adam.step()
        schedule.step()

    def answer(name: str, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out = nets[name](tensor(x, *first[name][0])).numpy().astype(np.float64)
        return out * unit[name][1] + unit[name][0]

    return answer


class Published:
    """The networks of a family: projections p, training rows, and answers."""

    def __init__(self, family: str, seed: int, steps: int, batch: int = 256) -> None:
        f, rng = FAMILIES[family], numpy_generator(seed, "networks", family)
        self.bank, self.rng = f.bank(rng=rng), rng
        y = self.bank.values(GRID)[..., 0]
        far = f.values(f.targets(50, rng), GRID)[..., 0]  # the published axis points to the test region
        self.center, self.axes = y.mean(0), np.linalg.svd(y - y.mean(0), full_matrices=False)[2][:16]
        self.axis = self.embedded(far).mean(0) - self.embedded(y).mean(0)
        self.axis /= np.linalg.norm(self.axis)
        self.p, self.pools = self.embedded(y) @ self.axis, [rng.integers(0, 50, 4), rng.integers(50, 100, 4)]

        x = f.grid(4001)
        values = self.bank.values(x)[..., 0]

        def rows() -> dict[str, tuple[np.ndarray, np.ndarray]]:
            at = rng.integers(len(x), size=(batch, 2 * P))
            target, one, two = rng.integers([[100], [4], [4]], size=(3, batch))
            one, two = self.pools[0][one], self.pools[0][two]
            y, first, second = (values[task[:, None], at] for task in (target, one, two))
            known = np.column_stack([x[at, 0], y[:, :P]])
            d = np.abs(self.p[target] - self.p[[one, two]]).T
            return {
                NETWORK: (np.column_stack([x[at, 0], first, second, y[:, :P], d]), y[:, P:]),
                WITHOUT: (known, y[:, P:]),
                TUNED: (known, y[:, P:]),
            }

        torch.manual_seed(seed)
        nets = {NETWORK: published(58, P), WITHOUT: published(24, P), TUNED: published(24, P)}
        self.answer = train(nets, rows, steps, 3e-3, raw=(NETWORK, WITHOUT))

    def embedded(self, y: np.ndarray) -> np.ndarray:
        """Directions of the principal components (F, 16): the paper's embedding is such a linear map of the curve."""
        z = (y - self.center) @ self.axes.T
        return z / (np.linalg.norm(z, axis=-1, keepdims=True) + 1e-8)

    def __call__(self, x: np.ndarray, head: np.ndarray, curve: np.ndarray, steps: int) -> dict[str, np.ndarray]:
        """Tails (8,) for points (16,), values (8,) at the first half, and the curve (20,) that embeds the target."""
        p, two = self.embedded(curve) @ self.axis, self.rng.choice(self.pools[1], 2)
        anchors = self.bank.values(x[:, None])[two, :, 0]
        one = self.answer(NETWORK, np.concatenate([x, *anchors, head, np.abs(p - self.p[two])])[None])[0]
        now, start, d = anchors[0], anchors[0][:P], np.abs(p - self.p[two[0]]) / steps
        for k in range(1, steps + 1):
            ghost = start + k / steps * (head - start)
            now = np.concatenate([ghost, self.answer(NETWORK, np.concatenate([x, now, now, ghost, [d, d]])[None])[0]])
        without = {name: self.answer(name, np.concatenate([x, head])[None])[0] for name in (WITHOUT, TUNED)}
        return {NETWORK: one, **without} | ({WALK: now[P:]} if steps > 1 else {})
