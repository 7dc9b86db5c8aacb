"""Best-of-N: return the sample with the highest score; ties are broken uniformly.

Source: Compute Aligned Training (arXiv 2604.24957), section 2.3, for the objective; the estimator is the
U-statistic of the maximum (PKPO, arXiv 2505.15201), extended here to ties and to a proxy score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operant.core.checks import check_int
from operant.core.logmath import log_binom
from operant.strategies.base import Outcomes, Strategy, Success
from operant.strategies.counts import PassAt


@dataclass(frozen=True)
class BestOf(Strategy):
    """Best-of-N by ``score``, worth ``reward``; without a score the reward itself ranks (max@N).

    U = sum over tie groups of [C(L+t,N) - C(L,N)] / C(M,N) * mean reward of the group, where t rollouts
    share a score and L have a lower one. O(M log M).

    >>> BestOf(2).estimate(Outcomes(torch.tensor([0.0, 1.0, 3.0]))).item()
    2.3333332538604736
    """

    n: int

    def __post_init__(self) -> None:
        """Check the budget."""
        check_int("n", self.n, least=1)

    def value(self, draw: Outcomes) -> Tensor:
        """Mean reward of the samples that share the highest score."""
        top = draw.selector == draw.selector.amax(-1, keepdim=True)
        return torch.where(top, draw.reward, 0).sum(-1) / top.sum(-1)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Sorted by score, position i weighs C(i,N-1)/C(M,N); a tie group weighs by its mean reward."""
        groups = _TieGroups(outcomes)
        weight = _top_weight(outcomes.m, self.n).to(groups.mean.device)
        return (weight * groups.mean).sum(-1).to(outcomes.reward.dtype)

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor:
        """One sort, then one row of weights per budget."""
        groups = _TieGroups(outcomes)
        weight = torch.stack([_top_weight(outcomes.m, n) for n in budgets], dim=-1)
        return (groups.mean @ weight.to(groups.mean.device)).to(outcomes.reward.dtype)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without j: lower groups keep their positions, higher ones move down by one."""
        m, g = outcomes.m, _TieGroups(outcomes)
        top, less = (_top_weight(size, self.n).to(g.mean.device) for size in (m, m - 1))
        pad = less.new_zeros(1)
        below = _exclusive_sum(torch.cat([less, pad]) * g.mean)  # (..., M+1) prefix, positions kept
        above = _exclusive_sum(torch.cat([pad, less]) * g.mean)  # positions moved down by one
        mass = _exclusive_sum(less)  # (M+1) -> weight of the first positions
        own = (g.total - g.reward) / (g.size - 1).clamp(min=1)  # mean of j's group without j
        start, end = g.start, g.start + g.size
        without = (
            below.gather(-1, start) + above[..., -1:] - above.gather(-1, end) + own * (mass[end - 1] - mass[start])
        )
        whole = (top * g.mean).sum(-1, keepdim=True)
        weights = torch.empty_like(g.mean).scatter_(-1, g.order, whole - without)
        return weights.to(outcomes.reward.dtype)

    def success(self, log_p: Tensor) -> Success:
        """With a supplied best target, S(p) is that of pass@N (the paper's appendix A.4)."""
        return PassAt(self.n).success(log_p)

    def __str__(self) -> str:
        """The string that parses back to this strategy."""
        return f"best@{self.n}"


class _TieGroups:
    """Outcomes sorted by score, with the group of equal scores that each position lies in; all (..., M)."""

    def __init__(self, outcomes: Outcomes) -> None:
        score, self.order = outcomes.selector.sort(dim=-1, stable=True)
        self.reward = outcomes.reward.double().gather(-1, self.order)
        self.start = torch.searchsorted(score.contiguous(), score.contiguous(), side="left")
        end = torch.searchsorted(score.contiguous(), score.contiguous(), side="right")
        self.size = end - self.start
        running = _exclusive_sum(self.reward)
        self.total = running.gather(-1, end) - running.gather(-1, self.start)
        self.total = torch.where(self.size == 1, self.reward, self.total)
        self.mean = self.total / self.size


def _exclusive_sum(x: Tensor) -> Tensor:
    """(..., M) -> (..., M+1): sums of the first 0..M entries."""
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))


def _top_weight(m: int, n: int) -> Tensor:
    """P(the best of N without replacement is the i-th lowest of M) = C(i,N-1)/C(M,N), (M,) float64."""
    i = torch.arange(m, dtype=torch.float64)
    return torch.exp(log_binom(i, n - 1) - log_binom(m, n))
