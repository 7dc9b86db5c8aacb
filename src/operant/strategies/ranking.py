"""Strategies on order statistics: best-of-N, the mean of the best k, the median, any L-statistic.

V = sum_j a_j x_(j) over the N samples sorted by score, lowest first, worth their reward; ties in the score are
broken uniformly. Over all N-subsets of the M rollouts

    U = sum_i b_i x_(i),   b_i = sum_j a_j C(i,j) C(M-1-i,N-1-j) / C(M,N),

a group of equal scores weighing by its mean reward. Source: Compute Aligned Training (arXiv 2604.24957), section
2.3, for the objective; the U-statistic of the maximum is PKPO's (arXiv 2505.15201), extended here to ties, to a
proxy score and to any a.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, check_int
from operant.core.logmath import graph_constant, log_binom_row, log_hypergeometric
from operant.strategies.base import Strategy, Success, Traits
from operant.strategies.counts import CELLS, Graded, PassAt
from operant.strategies.outcomes import Outcomes

# Stands for a probability of 0 where a logarithm must stay finite.
_TINY = 1e-300


class RankStrategy(Strategy):
    """Base of the strategies with a weight per rank; a subclass needs :meth:`ranks` only."""

    @abstractmethod
    def ranks(self) -> Tensor:
        """a_j for the j-th lowest of the N samples, (N,) float64."""

    def value(self, draw: Outcomes) -> Tensor:
        """sum_j a_j x_(j), ties by the mean of their group."""
        return self.estimate(draw)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Sorted by score, position i weighs b_i; a tie group weighs by its mean reward."""
        groups = _TieGroups(outcomes)
        weight = rank_table(self, outcomes.m, outcomes.reward.device)
        return (weight * groups.mean).sum(-1).to(outcomes.reward.dtype)

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor:
        """One sort, then one row of weights per budget."""
        weight = _rank_tables(self, tuple(budgets), outcomes.m, outcomes.reward.device)
        return (_TieGroups(outcomes).mean @ weight).to(outcomes.reward.dtype)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without j: lower groups keep their positions, higher ones move down by one. O(M log M)."""
        m, g, device = outcomes.m, _TieGroups(outcomes), outcomes.reward.device
        # Without j every higher position moves down by one, so two tables and three running sums give all M credits.
        top, less = rank_table(self, m, device), rank_table(self, m - 1, device)
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

    def population(self, log_q: Tensor, kinds: Outcomes) -> Tensor:
        """sum_k q_k r_k * integral over u in [0, 1] of N sum_j a_j Bin(j; N-1, F_k(u)).

        A sample of kind k has rank j among its tied fellows as if it stood at the share u of their mass: F_k(u) is
        the mass below its score plus u times the mass at its score. The integrand is a polynomial of degree N - 1,
        exact by Gauss-Legendre, and no term is a difference.
        """
        score, order = kinds.selector.sort(dim=-1, stable=True)
        score, order, log_q = (x.contiguous() for x in torch.broadcast_tensors(score, order, log_q))
        q = log_q.exp().gather(-1, order)
        reward = kinds.reward.double().expand(log_q.shape).gather(-1, order)
        start, end = (torch.searchsorted(score, score, side=side) for side in ("left", "right"))
        below = _exclusive_sum(q).gather(-1, start)
        above = _exclusive_sum(q.flip(-1)).flip(-1).gather(-1, end)
        tied = (start[..., :, None] == start[..., None, :]).to(q)
        span = (tied * q[..., None, :]).sum(-1)
        nodes, weights = np.polynomial.legendre.leggauss(self.n // 2 + 1)
        u, weight = (torch.from_numpy(x).to(q) for x in ((nodes + 1) / 2, weights / 2))
        low = below[..., None] + u * span[..., None]  # (..., K, nodes)
        high = above[..., None] + (1 - u) * span[..., None]
        log_low, log_high = (x.clamp(min=_TINY).log() for x in (low, high))
        log_ways = log_binom_row(self.n - 1).tolist()
        density = torch.zeros_like(low)
        for j, a in enumerate(self.ranks().tolist()):
            if a:
                density = density + a * torch.exp(log_ways[j] + j * log_low + (self.n - 1 - j) * log_high)
        return self.n * (q * reward * (density * weight).sum(-1)).sum(-1)

    def success(self, log_p: Tensor) -> Success:
        """S(p) for rewards 0 and 1 that rank themselves: v_k = sum of the k highest a_j."""
        return Graded(tuple(_exclusive_sum(self.ranks().flip(0)).tolist())).success(log_p)


@dataclass(frozen=True)
class BestOf(RankStrategy):
    """Best-of-N by ``score``, worth ``reward``; without a score the reward itself ranks (max@N).

    U = sum over tie groups of [C(L+t,N) - C(L,N)] / C(M,N) * mean reward of the group, where t rollouts
    share a score and L have a lower one. O(M log M).

    >>> BestOf(2).estimate(Outcomes(torch.tensor([0.0, 1.0, 3.0]))).item()
    2.3333332538604736
    """

    form: ClassVar[str] = "best@{n}"
    n: int

    def __post_init__(self) -> None:
        """Check the budget."""
        check_int("n", self.n, least=1)

    def ranks(self) -> Tensor:
        """a = [0, ..., 0, 1]."""
        return torch.nn.functional.one_hot(torch.tensor(self.n - 1), self.n).double()

    def success(self, log_p: Tensor) -> Success:
        """With a supplied best target, S(p) is that of pass@N (the paper's appendix A.4)."""
        return PassAt(self.n).success(log_p)


@dataclass(frozen=True)
class TopMean(RankStrategy):
    """Mean reward of the k samples with the highest score among N: a shortlist that is shown whole.

    ``TopMean(n, n)`` is pass@1 of any reward; ``TopMean(n, 1)`` is best-of-N.

    >>> TopMean(3, 2).value(Outcomes(torch.tensor([0.0, 1.0, 3.0]))).item()
    2.0
    """

    form: ClassVar[str] = "topmean@{n}:{k}"
    n: int
    k: int

    def __post_init__(self) -> None:
        """Check the budget and the length of the list."""
        check_int("n", self.n, least=1)
        check_int("k", self.k, least=1)
        if self.k > self.n:
            raise BudgetError(f"the best k of N = {self.n} needs k <= N, got {self.k}.")

    def ranks(self) -> Tensor:
        """1/k for the k highest."""
        return (torch.arange(self.n) >= self.n - self.k).double() / self.k


@dataclass(frozen=True)
class Median(RankStrategy):
    """The sample of median score among N; the mean of the middle two where N is even.

    >>> Median(3).value(Outcomes(torch.tensor([9.0, 1.0, 3.0]))).item()
    3.0
    """

    form: ClassVar[str] = "median@{n}"
    n: int

    def __post_init__(self) -> None:
        """Check the budget."""
        check_int("n", self.n, least=1)

    def ranks(self) -> Tensor:
        """1 at the middle rank, or 1/2 at each of the two."""
        a = torch.zeros(self.n, dtype=torch.float64)
        a[(self.n - 1) // 2] += 0.5
        a[self.n // 2] += 0.5
        return a


@dataclass(frozen=True)
class LStatistic(RankStrategy):
    """Any weights a_j over the ranks, lowest score first: trimmed means, ranges, expected shortfall.

    It has one budget, N = len(a). Negative weights are allowed; more reward may then be worth less.

    >>> LStatistic((0.5, 0.0, 0.5)).value(Outcomes(torch.tensor([9.0, 1.0, 3.0]))).item()
    5.0
    """

    form: ClassVar[str] = "rank({a})"
    a: tuple[float, ...]
    n: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the weights."""
        object.__setattr__(self, "a", tuple(float(w) for w in self.a))
        object.__setattr__(self, "n", len(self.a))
        if not self.a or not all(math.isfinite(w) for w in self.a):
            raise InputError(f"expected one finite weight per rank, lowest score first, got {self.a}.")

    @property
    def traits(self) -> Traits:
        """Monotone if no weight is negative."""
        return Traits(monotone=min(self.a) >= 0, selects=False)

    def ranks(self) -> Tensor:
        """a as given."""
        return torch.tensor(self.a, dtype=torch.float64)

    def at_budget(self, n: int) -> LStatistic:
        """The weights belong to one budget.

        Raises:
            NotDefinedError: unless ``n`` is that budget.
        """
        if n == self.n:
            return self
        raise NotDefinedError(f"{self} has weights for N = {self.n}; write those for N = {n} to have its curve.")


class _TieGroups:
    """Outcomes sorted by score, with the group of equal scores that each position lies in; all (..., M)."""

    def __init__(self, outcomes: Outcomes) -> None:
        score, self.order = outcomes.selector.sort(dim=-1, stable=True)
        self.reward = outcomes.reward.double().gather(-1, self.order)
        self.start = torch.searchsorted(score.contiguous(), score.contiguous(), side="left")
        end = torch.searchsorted(score.contiguous(), score.contiguous(), side="right")
        self.size = end - self.start
        # Not by differences of running sums: a group must not lose digits to the rewards of another.
        self.total = torch.zeros_like(self.reward).scatter_add(-1, self.start, self.reward).gather(-1, self.start)
        self.mean = self.total / self.size


def _exclusive_sum(x: Tensor) -> Tensor:
    """(..., M) -> (..., M+1): sums of the first 0..M entries."""
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))


@graph_constant
def rank_table(s: RankStrategy, m: int, device: torch.device) -> Tensor:
    """b_i = sum_j a_j C(i,j) C(m-1-i,N-1-j) / C(m,N) for i = 0..m-1, (m,) float64, built once per device."""
    return _rank_table(s, m, device)


@graph_constant
def _rank_tables(s: RankStrategy, budgets: tuple[int, ...], m: int, device: torch.device) -> Tensor:
    """The same for several budgets, (m, len(budgets))."""
    return torch.stack([_rank_table(s.at_budget(n), m, device) for n in budgets], dim=-1)


@lru_cache(maxsize=1024)
def _rank_table(s: RankStrategy, m: int, device: torch.device) -> Tensor:
    i = torch.arange(m, dtype=torch.float64)[:, None]
    a = s.ranks()
    j = a.nonzero()[:, 0].double()
    rows = i.split(max(CELLS // max(len(j), 1), 1))
    ways = torch.cat([torch.exp(log_hypergeometric(j, part, m - 1, s.n - 1)) @ a[a != 0] for part in rows])
    return (s.n / m * ways).to(device)
