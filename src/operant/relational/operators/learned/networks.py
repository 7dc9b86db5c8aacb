"""The networks of the learned operators: the paper's Psi with its faults removed, and a bilinear form.

Letters of pairs.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operant.relational.operators.learned.pairs import OCTAVES, Layers, Pairs, features


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
