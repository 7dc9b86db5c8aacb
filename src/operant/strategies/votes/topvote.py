"""Vote among the best: of N samples the k with the highest score are kept, and the plurality of these is returned.

The kept are k - i of the L rollouts above some score and i >= 1 of the t rollouts at it, each such choice equally
likely however ties at the cut are broken (uniformly), with

    P(i) = sum_{j >= i} C(L,k-i) C(t,j) C(M-L-t, N-k+i-j) / C(M,N).

Given that, the vote is a plurality over two strata: in x^l y^h a class has l votes from above and h from the group,
C(c,l) C(d,h) ways, and the winner's l + h votes are the level. Rewards may differ within a class. Derived here; for
distinct scores it is the prefix formula of best-of-N selection followed by a vote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from operant.core.checks import BudgetError, check_int
from operant.core.logmath import log_binom
from operant.strategies.base import Strategy, Traits
from operant.strategies.outcomes import Outcomes
from operant.strategies.votes.ballots import Ballots, answers_of
from operant.strategies.votes.product import (
    Factor,
    State,
    backward,
    binomials,
    convolve,
    finished,
    forward,
    rate,
    tie_nodes,
)

# Numbers in one state of the product: tie groups are worked on in chunks of that size.
_CELLS = 1 << 16


_ROUNDING = 1e-12
"""Share of the largest reward up to which the value of a draw is rounding, 1e-16 times the number of roots."""


@dataclass(frozen=True)
class TopVote(Strategy):
    """Plurality vote among the k of N samples with the highest ``score``; all ties uniformly at random.

    Unparsable answers (class -1) can be kept but cannot win. A class is worth the mean reward of its kept votes.
    One tie group costs about k times as much as distinct scores do.

    Args:
        n: the budget N.
        k: how many are kept, k <= N.

    >>> o = Outcomes(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([5, 5, 2, 2]), score=torch.tensor([1, 1, 8, 9.0]))
    >>> TopVote(4, 2).value(o).item()
    1.0
    """

    form: ClassVar[str] = "top{k}@{n}>maj"
    n: int
    k: int

    def __post_init__(self) -> None:
        """Check the budget and the number that is kept."""
        check_int("n", self.n, least=1)
        check_int("k", self.k, least=1)
        if self.k > self.n:
            raise BudgetError(f"k must be <= N = {self.n}, got {self.k}: no more can be kept than are drawn.")

    @property
    def traits(self) -> Traits:
        """It votes."""
        return Traits(answers=True)

    def value(self, draw: Outcomes) -> Tensor:
        """The estimate from M = N: the expectation over how ties at the cut are broken."""
        value = self.estimate(draw)
        # Rounding at the roots of unity is no value: -log J of a population multiplies it by the number of draws.
        return value.masked_fill(value.abs() <= _ROUNDING * draw.reward.abs().amax(-1), 0.0)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Sum over tie groups of the vote of those above the first that is not kept."""
        return self.estimate_budgets(outcomes, [self.n])[..., 0]

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor:
        """Every budget from the same votes: it changes only which rollout is the first that is not kept."""
        shape = outcomes.reward.shape[:-1]
        value = outcomes.reward.new_zeros(shape.numel(), len(budgets), dtype=torch.float64)
        draws = [self.at_budget(n).n for n in budgets]
        for all_kept in (True, False):
            places = [i for i, n in enumerate(draws) if (n == self.k) == all_kept]
            if places:
                value[:, places] = _Cuts(
                    self.k, [draws[i] for i in places], answers_of(self, outcomes), outcomes
                ).value()
        return value.reshape(*shape, len(budgets)).to(outcomes.reward)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without i: per tie group it depends on the class and on whether i is above, in or below the group."""
        cuts = _Cuts(self.k, [self.n], answers_of(self, outcomes), outcomes, credit=True)
        return cuts.weights().reshape(outcomes.reward.shape).to(outcomes.reward)


class _Cuts:
    """One row per tie group that can hold the first that is not kept: G rows, highest scores first within a prompt.

    Above it are L rollouts, in it t. If that first one comes after j of the group, each k of L + j rollouts is kept
    equally often, and i of the group in C(j,i) / C(t,i) of all choices. So a vote with y^i for i of the group is
    taken at roots of unity y, and the weights of the y add up these shares over j.
    """

    def __init__(self, k: int, budgets: list[int], answer: Tensor, outcomes: Outcomes, *, credit: bool = False) -> None:
        self.k, self.m, self.budgets, self.credit = k, outcomes.m, budgets, credit
        m, all_kept, spare = self.m, budgets[0] == k, min(budgets) - k
        b = Ballots(answer.reshape(-1, m), outcomes.reward.reshape(-1, m))
        self.column, self.reward, self.prompts = b.column, b.reward, len(b.size)
        self.rank, ordered, order = _ranks(outcomes.selector.reshape(-1, m))
        columns = torch.nn.functional.one_hot(b.column.gather(1, order), b.size.shape[1]).double()
        earned = columns * b.reward.gather(1, order)[..., None]
        count, earned = (pad(x.cumsum(1), (0, 0, 1, 0)) for x in (columns, earned))  # (B, M+1, K+1)
        if all_kept:  # as if one came after them
            self.prompt = torch.arange(self.prompts, device=ordered.device)
            self.above, self.size = torch.full_like(self.prompt, m), torch.ones_like(self.prompt)
        else:
            new = pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)
            prompt, above = new.nonzero().unbind(1)
            size = torch.bincount(new.flatten().long().cumsum(0) - 1)
            use = (above + size > k) & (m - above.clamp(min=k) >= spare)
            self.prompt, self.above, self.size = prompt[use], above[use], size[use]
        start, end = (self.prompt, self.above), (self.prompt, (self.above + self.size).clamp(max=m))
        alone = (self.size == 1)[:, None]  # nothing of such a group is kept
        self.c, self.earned_c = count[start], earned[start]  # (G, K+1)
        self.d, self.earned_d = (torch.where(alone, 0, x[end] - x[start]) for x in (count, earned))
        log_lower = log_binom(torch.arange(m), torch.tensor(budgets)[:, None] - k - 1)  # (budgets, M)
        log_lower = pad(log_lower, (1, 0), value=0.0 if all_kept else -math.inf)
        log_pick = log_binom(torch.arange(m + 1)[:, None], torch.arange(k + 1))
        self.log_lower, self.log_pick = log_lower.to(b.reward), log_pick.to(b.reward)
        rows = len(self.prompt)
        self.whole, self.below = b.reward.new_zeros(rows, len(budgets)), b.reward.new_zeros(rows)
        self.left = b.reward.new_zeros(4, rows, b.size.shape[1])
        """above the group: U without a vote of the class that earned nothing, and what its reward takes; in it"""
        total = self.above + torch.where(self.size > 1, self.size, 0)
        degree = torch.where(self.size > 1, self.size.clamp(max=k), 0)
        # One rho serves totals whose masses at k are all far from underflow.
        key = degree * 64 + (total.double().log2() / max(1, 500 // k)).long()
        for group in torch.unique(key).tolist():
            some = (key == group).nonzero()[:, 0]
            _Votes(self, some, int(degree[some[0]]), total[some]).add()

    def value(self) -> Tensor:
        """U, (B, budgets)."""
        return self.whole.new_zeros(self.prompts, len(self.budgets)).index_add_(0, self.prompt, self.whole)

    def weights(self) -> Tensor:
        """U - U without i, (B, M): sums over the groups before i's, its own, and those after."""
        key = self.prompt * (self.m + 2) + self.above
        base = torch.arange(self.prompts, device=key.device)[:, None] * (self.m + 2)
        first, last = (torch.searchsorted(key, base + self.rank, right=r) for r in (False, True))
        begin, end = torch.searchsorted(key, base), torch.searchsorted(key, base + self.m + 2)
        before = pad(self.below.cumsum(0), (1, 0))
        after = pad(self.left[:2].cumsum(1), (0, 0, 1, 0))
        fixed, slope = after[:, end, self.column] - after[:, last, self.column]
        own = pad(self.left[2:], (0, 0, 0, 1))[:, first, self.column] * (last > first)
        without = before[first] - before[begin] + fixed + own[0] - (slope + own[1]) * self.reward
        return self.value() - without

    def shares(self, budget: int, rows: Tensor, fewer: tuple[int, int, int], log_scale: Tensor, degree: int) -> Tensor:
        """Weight of the votes with i of the group, (degree+1, R), with rollouts fewer in all, above and in it."""
        m, above, size = self.m - fewer[0], self.above[rows] - fewer[1], self.size[rows] - fewer[2]
        j = torch.arange(int(size.max()), device=above.device)[:, None]
        place = m - above - j  # one more than the rollouts that come after the first that is not kept
        log_rest = torch.where((j < size) & (place >= 0), self.log_lower[budget, place.clamp(min=0)], -math.inf)
        i = torch.arange(degree + 1, device=above.device)[:, None]
        log_ways = (self.log_pick[j, i.T].T[..., None] + log_rest).logsumexp(1)
        log_all = log_scale + self.log_pick[size.clamp(min=0), i] + float(log_binom(m, self.budgets[budget]))
        return torch.where(i < size, (log_ways - log_all).exp(), 0)


class _Votes:
    """The votes of some rows with equal degree in y; counts and totals of similar size share one rho."""

    def __init__(self, cuts: _Cuts, rows: Tensor, degree: int, total: Tensor) -> None:
        self.cuts, self.degree = cuts, degree
        self.k, self.rho = cuts.k, rate(cuts.k, int(total.max()))
        self.classes = cuts.c.shape[1] - 1
        size = (cuts.c + cuts.d)[rows, :-1]
        order = size.argsort(dim=1, descending=True)
        self.rows, self.order = rows, pad(order, (0, 1), value=self.classes)
        self.size = size.gather(1, order)
        at = rows[:, None], self.order
        self.c, self.d, self.earned_c, self.earned_d = (
            x[at] for x in (cuts.c.long(), cuts.d.long(), cuts.earned_c, cuts.earned_d)
        )
        self.binomials = binomials(cuts.k, int(total.max()), self.rho).to(cuts.whole)
        angle = torch.arange((degree + 1) // 2 + 1, device=rows.device).double() * (2 * math.pi / (degree + 1))
        self.y = torch.polar(torch.ones_like(angle), angle)
        both = torch.where((angle > 0) & (angle < math.pi - 1e-9), 2, 1)
        power = torch.arange(degree + 1, device=rows.device)
        fold = both[:, None] * self.y.conj()[:, None] ** power / (degree + 1)
        if degree <= 1:
            self.y, fold = self.y.real, fold.real
        scale = self.k * math.log(self.rho) + (total - self.k).double() * math.log1p(-self.rho)
        less = scale - math.log1p(-self.rho)
        whole = [cuts.shares(b, rows, (0, 0, 0), scale, degree) for b in range(len(cuts.budgets))]
        self.whole = torch.stack([fold @ x.to(fold) for x in whole])  # (budgets, Q, G)
        kinds = [((1, 0, 0), scale), ((1, 1, 0), less), ((1, 0, 1), less)] if cuts.credit else []
        self.v = [fold @ cuts.shares(0, rows, *kind, degree).to(fold) for kind in kinds]
        """(Q, G) each, with a rollout less: below the group, above it, in it"""

    def add(self) -> None:
        """All levels."""
        for t in range(1, self.k + 1):
            strong = (self.size >= t).sum(1)
            order = strong.argsort(descending=True)[: int((strong > 0).sum())]
            while len(order):
                tied = max(min(int(strong[order[0]]) - 1, (self.k - t) // t), 0)
                z, share = (x.to(self.cuts.whole)[:, None, None] for x in tie_nodes(tied, "random"))
                part = order[: max(1, _CELLS // ((self.k - t + 1) * len(z) * len(self.y)))]
                order = order[len(part) :]
                self._level(t, part, strong[part], z, share)

    def _level(self, t: int, part: Tensor, strong: Tensor, z: Tensor, share: Tensor) -> None:
        cuts, rows, v = self.cuts, self.rows[part], [x[:, part] for x in self.v]
        able = strong[:, None] > torch.arange(self.classes, device=part.device)
        live = [n for n in able.sum(0).tolist() if n]
        factors = [self._factor(j, part[:n], t) for j, n in enumerate(live)]
        weak_c, weak_d = (torch.where(pad(able, (0, 1)), 0, x[part]).sum(1) for x in (self.c, self.d))
        rest = self._ways(weak_c, weak_d, self.k - t)[:, None].expand(-1, len(z), -1, -1)
        states = forward(State(rest, torch.zeros_like(rest)), factors, z, convolve)
        found = _total(finished(states)[-1] * share)
        cuts.whole.index_add_(0, rows, (self.whole[..., part] * found).real.sum(1).T)
        if not cuts.credit:
            return
        cuts.below.index_add_(0, rows, _total(v[0] * found).real)
        seed = torch.zeros_like(rest)
        seed[-1] = share
        for j, before, h in backward(states, factors, seed, z, convolve):
            for stratum in (0, 1) if self.degree else (0,):
                if j < 0:
                    fewer = (weak_c - (1 - stratum)).clamp(min=0), (weak_d - stratum).clamp(min=0)
                    left = _total((h.p * self._ways(*fewer, self.k - t)[:, None]).flatten(0, 1))
                    left = torch.where(pad(~able, (0, 1), value=True), _total(v[1 + stratum] * left).real[:, None], 0)
                    cuts.left[2 * stratum].index_put_((rows[:, None], self.order[part]), left, accumulate=True)
                    continue
                f, lost = self._less_one(j, part[: live[j]], t, stratum)
                kept = h.p * convolve(before.p, f, z) + h.w * convolve(before.w, f, z) + h.w * before.p * f.wins
                gone = h.w * before.p * lost
                cell = rows[: live[j]], self.order[part[: live[j]], j]
                for which, x in enumerate((kept, gone)):
                    read = _total(v[1 + stratum][:, : live[j]] * _total(x.flatten(0, 1))).real
                    cuts.left[2 * stratum + which].index_put_(cell, read, accumulate=True)

    def _factor(self, j: int, part: Tensor, t: int) -> Factor:
        c, d = self.c[part, j], self.d[part, j]
        ways = self._ways(c, d, t)
        earned = self._marked(c, d, t, self.earned_c[part, j] / c.clamp(min=1), self.earned_d[part, j] / d.clamp(min=1))
        return Factor(ways[:t], ways[t:], earned)

    def _less_one(self, j: int, part: Tensor, t: int, stratum: int) -> tuple[Factor, Tensor]:
        """The class without a vote that earned nothing, and what a reward of 1 of that vote takes away."""
        c, d = ((x[part, j] - int(s == stratum)).clamp(min=0) for s, x in enumerate((self.c, self.d)))
        mean_c, mean_d = self.earned_c[part, j] / c.clamp(min=1), self.earned_d[part, j] / d.clamp(min=1)
        one, none = 1 / (d if stratum else c).clamp(min=1).double(), torch.zeros_like(mean_c)
        ways, lost = self._ways(c, d, t), self._marked(c, d, t, *((none, one) if stratum else (one, none)))
        return Factor(ways[:t], ways[t:], self._marked(c, d, t, mean_c, mean_d)), lost

    def _ways(self, c: Tensor, d: Tensor, most: int) -> Tensor:
        """Coefficients of x^0 .. x^most with y^h for h of the group: (most+1, Q, R)."""
        high, low = self.binomials[: most + 1, c][:, None], self.binomials[:, d]
        new = high * low[0] + torch.zeros_like(self.y)[:, None]
        for h in range(1, min(most, self.degree) + 1):
            new[h:] += high[: most + 1 - h] * (low[h] * self.y[:, None] ** h)
        return new

    def _marked(self, c: Tensor, d: Tensor, t: int, mean_c: Tensor, mean_d: Tensor) -> Tensor:
        """x^t with y^h for h of the group, times the mean reward of these votes: (1, Q, R)."""
        new = 0
        for h in range(min(t, self.degree) + 1):
            share = ((t - h) * mean_c + h * mean_d) / t * self.binomials[t - h, c] * self.binomials[h, d]
            new = new + share * self.y[:, None] ** h
        return torch.as_tensor(new)[None]


def _ranks(score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many score higher than each, the scores in descending order, and that order; (B, M) each."""
    ordered, order = score.sort(dim=1, descending=True)
    return torch.searchsorted(-ordered.contiguous(), -score.contiguous()), ordered, order


def _total(x: Tensor) -> Tensor:
    """Sum over a short leading dimension, which torch's reduction of complex numbers is slow at."""
    return reduce(add, x.unbind(0))
