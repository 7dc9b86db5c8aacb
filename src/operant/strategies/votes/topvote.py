"""Vote among the best: of N samples the k with the highest score are kept, and the plurality of these is returned.

The kept are k - i of the L rollouts above some score and i >= 1 of the t rollouts at it, each such choice equally
likely however ties at the cut are broken (uniformly), with

    P(i) = sum_{j >= i} C(L,k-i) C(t,j) C(M-L-t, N-k+i-j) / C(M,N).

Given that, the vote is a plurality over two strata: in x^l y^h a class has l votes from above and h from the group,
C(c,l) C(d,h) ways, and the winner's l + h votes are the level. Rewards may differ within a class. Derived here; for
distinct scores it is the prefix formula of best-of-N selection followed by a vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operant.core.checks import BudgetError, check_int
from operant.core.logmath import log_binom, log_binomial
from operant.strategies.base import Strategy, Traits
from operant.strategies.outcomes import Outcomes
from operant.strategies.votes.ballots import answers_of, relabel
from operant.strategies.votes.product import tie_nodes
from operant.strategies.votes.tally import Pair, all_together, each_left_out, reader

# Numbers in one state of the product: tie groups are worked on in chunks of that size.
_CELLS = 1 << 21


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
        return self.estimate(draw)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Sum over tie groups of P(i of it are kept) times the vote of two strata."""
        b = _Strata(self, outcomes)
        value = torch.zeros(b.prompts, dtype=torch.float64, device=b.reward.device)
        for part in b.chunks():
            rows = _Rows(b, part)
            value.index_add_(0, b.prompt[part], rows.read(rows.whole().wins, b.m, 0, 0))
        return value.reshape(outcomes.reward.shape[:-1]).to(outcomes.reward)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without i: per tie group it depends on the class and on whether i is above, in or below the group."""
        b = _Strata(self, outcomes)
        whole, below = torch.zeros_like(b.earned_c[:, 0]), torch.zeros_like(b.earned_c[:, 0])
        left = torch.zeros(4, *b.c.shape, dtype=torch.float64, device=b.reward.device)  # (., G, K+1)
        for part in b.chunks():
            rows = _Rows(b, part)
            wins = rows.whole().wins
            whole[part], below[part] = rows.read(wins, b.m, 0, 0), rows.read(wins, b.m - 1, 0, 0)
            left[:, part] = rows.left_out()
        weights = torch.zeros_like(b.reward)
        for i in range(b.prompts):
            weights[i] = b.weights(i, whole, below, left)
        return weights.reshape(outcomes.reward.shape).to(outcomes.reward)


class _Strata:
    """One row per tie group that can be the last one kept: G rows, highest scores first within a prompt; K classes."""

    def __init__(self, s: TopVote, outcomes: Outcomes) -> None:
        self.n, self.k, self.m = s.n, s.k, outcomes.m
        self.reward = outcomes.reward.reshape(-1, self.m).double()  # (B, M)
        answer = relabel(answers_of(s, outcomes).reshape(-1, self.m))
        self.prompts, self.classes = len(answer), int(answer.max()) + 1 if answer.numel() else 0
        self.column = torch.where(answer < 0, self.classes, answer)  # the unparsable come last
        self.score = outcomes.selector.reshape(-1, self.m)
        ordered, order = self.score.sort(dim=1, descending=True)
        new = torch.ones_like(ordered, dtype=torch.bool)
        new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        prompt, above = new.nonzero().unbind(1)
        size = torch.bincount(new.flatten().long().cumsum(0) - 1)
        # The cut falls into this group only if it reaches rank k, and if enough lower rollouts are left to fill a draw.
        use = (above + size >= self.k) & (self.m - above >= self.n - self.k + 1)
        self.prompt, self.above, self.size = prompt[use], above[use], size[use]  # (G,), L, t
        self.at = ordered[self.prompt, self.above]
        # Running sums over the order of scores: the counts above and within any tie group are differences of two rows.
        one_hot = torch.nn.functional.one_hot(self.column.gather(1, order), self.classes + 1).double()
        start, end = (self.prompt, self.above), (self.prompt, self.above + self.size)
        count = torch.nn.functional.pad(one_hot.cumsum(1), (0, 0, 1, 0))  # (B, M+1, K+1)
        self.c, self.d = count[start], count[end] - count[start]
        earned = torch.nn.functional.pad((one_hot * self.reward.gather(1, order)[..., None]).cumsum(1), (0, 0, 1, 0))
        self.earned_c, self.earned_d = earned[start], earned[end] - earned[start]

    def chunks(self) -> list[Tensor]:
        """Rows of similar group size, by what fits the memory."""
        order = self.size.argsort()
        parts: list[Tensor] = []
        while len(order):
            largest = self.size[order[-1]]
            cells = (self.k + 1) * (min(self.k, int(largest)) + 1) * self.k * (1 + min(self.classes, self.k) // 2)
            last = order[-max(1, _CELLS // cells) :]
            parts.append(last[self.size[last] * 2 > largest])  # a group much smaller would be padded
            order = order[: len(order) - len(parts[-1])]
        return parts

    def weights(self, prompt: int, whole: Tensor, below: Tensor, left: Tensor) -> Tensor:
        """U - U without i of one prompt, (M,), from its rows: sums over the groups above i, of i, and below i."""
        rows = self.prompt == prompt
        score, column, reward = self.score[prompt], self.column[prompt], self.reward[prompt]
        at, left = -self.at[rows], left[:, rows]  # ascending
        first, last = (torch.searchsorted(at, -score, side=side) for side in ("left", "right"))
        above = torch.nn.functional.pad(below[rows].cumsum(0), (1, 0))[first]
        fixed, slope = torch.nn.functional.pad(left[:2].flip(1).cumsum(1).flip(1), (0, 0, 0, 1))[:, last, column]
        own = left[2:, first.clamp(max=len(at) - 1), column] * (last > first)
        return whole[rows].sum() - above - (fixed - slope * reward) - (own[0] - own[1] * reward)


class _Rows:
    """Some tie groups: their class polynomials on the levels 1..k, rows and levels flattened to R."""

    def __init__(self, b: _Strata, part: Tensor) -> None:
        self.b, self.k = b, b.k
        self.above, self.size = b.above[part], b.size[part]
        self.c, self.d, self.earned_c, self.earned_d = (x[part] for x in (b.c, b.d, b.earned_c, b.earned_d))
        self.depth = min(self.k, int(self.size.max()))
        self.most = (self.k, self.depth)
        self.rho = (self.k + 0.5) / (self.above + self.size + 1).double()
        nodes, weight = tie_nodes(max(min(b.classes, self.k) - 1, 0), "random")
        self.nodes, self.weight = nodes.to(self.c)[:, None], weight.to(self.c)[:, None]
        self.pairs = [self._pair(a) for a in range(b.classes)]

    def whole(self) -> Pair:
        """The product over all classes."""
        return all_together(self.pairs, self._rest(), self.most)

    def read(self, wins: Tensor, m: int, above: int, size: int) -> Tensor:
        """The vote over the choices of the kept, with ``above`` and ``size`` fewer rollouts in the strata: (rows,)."""
        share = self._share(m, above, size)
        return self._sum(reader(wins, self.k, share)[:1, :1] * self.weight)

    def left_out(self) -> Tensor:
        """One vote of each class less above the group (value, loss per reward), and in it: (4, rows, K+1)."""
        m, shares = self.b.m - 1, [self._share(self.b.m - 1, 1, 0), self._share(self.b.m - 1, 0, 1)]
        result = self.c.new_zeros(4, *self.c.shape)
        for stratum in (0, 1):
            wins = all_together(self.pairs, self._rest(without=stratum), self.most).wins
            result[2 * stratum, :, -1] = self.read(wins, m, 1 - stratum, stratum)
        for a, others in enumerate(each_left_out(self.pairs, self._rest(), self.most)):
            for stratum, share in enumerate(shares):
                result[2 * stratum, :, a], result[2 * stratum + 1, :, a] = self._left_out(a, stratum, others, share)
        return result

    def _left_out(self, a: int, stratum: int, others: Pair, share: Tensor) -> tuple[Tensor, Tensor]:
        """(value if the vote left out had no reward, what a unit of its reward takes away), (rows,) each."""
        below, at, l_share, h_share = self._class(a, without=stratum)
        wins = at * (l_share * self._wide(self.earned_c[:, a]) + h_share * self._wide(self.earned_d[:, a]))
        lost = at * (h_share if stratum else l_share)
        read = reader((others.wins * self.weight).sum(2, keepdim=True), self.k, share)
        tied = reader((others.wins * self.weight * self.nodes).sum(2, keepdim=True), self.k, share)
        won = reader((others.held * self.weight).sum(2, keepdim=True), self.k, share)
        below, at, wins, lost = (x[:, :, None] for x in (below, at, wins, lost))
        return self._sum(read * below + tied * at + won * wins), self._sum(won * lost)

    def _class(self, a: int, without: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Below and at the level (k+1, D+1, R), and the share of the votes of each stratum that one vote has."""
        c = (self.c[:, a] - int(without == 0)).clamp(min=0)
        d = (self.d[:, a] - int(without == 1)).clamp(min=0)
        high, low = self._binomial(c, self.k), self._binomial(d, self.depth)  # (k+1, rows), (D+1, rows)
        ways = self._wide(high[:, None] * low[None])  # (k+1, D+1, R)
        i = torch.arange(self.k + 1, dtype=torch.float64, device=c.device)
        votes = (i[:, None] + i[: self.depth + 1])[..., None]
        level = i[1:].repeat(len(c))  # R = rows x levels
        l_share = i[:, None, None] / (self._wide(c).clamp(min=1) * level)
        h_share = i[: self.depth + 1, None] / (self._wide(d).clamp(min=1) * level)
        return ways * (votes < level), ways * (votes == level), l_share, h_share

    def _pair(self, a: int) -> Pair:
        """Class a as rival and as winner, cut to the votes that it has."""
        below, at, l_share, h_share = self._class(a)
        wins = at * (l_share * self._wide(self.earned_c[:, a]) + h_share * self._wide(self.earned_d[:, a]))
        high, low = (min(int(x[:, a].max()), most) + 1 for x, most in zip((self.c, self.d), self.most, strict=True))
        return Pair((below[:, :, None] + at[:, :, None] * self.nodes)[:high, :low], wins[:high, :low, None])

    def _rest(self, without: int | None = None) -> Pair:
        """The unparsable answers."""
        c = (self.c[:, -1] - int(without == 0)).clamp(min=0)
        d = (self.d[:, -1] - int(without == 1)).clamp(min=0)
        held = self._wide(self._binomial(c, self.k)[:, None] * self._binomial(d, self.depth)[None])[:, :, None]
        held = held.expand(-1, -1, len(self.nodes), -1)
        return Pair(held, torch.zeros_like(held))

    def _share(self, m: int, above: int, size: int) -> Tensor:
        """P(i) over the probability that the class polynomials give to that choice, (D+1, R)."""
        n, k = self.b.n, self.k
        big, t = (self.above - above)[:, None, None].double(), (self.size - size)[:, None, None].double()
        i = torch.arange(self.depth + 1, dtype=torch.float64, device=t.device)[:, None]
        j = torch.arange(n + 1, dtype=torch.float64, device=t.device)
        log_group = torch.where(j >= i, 0.0, -torch.inf) + (log_binom(t, j) + log_binom(m - big - t, n - k + i - j)).to(
            t
        )
        log_ways = log_group.logsumexp(-1) - float(log_binom(m, n))  # over C(L,k-i), which cancels
        log_rho, log_not = self.rho.log()[:, None], torch.log1p(-self.rho)[:, None]
        kept = (big + t)[..., 0]
        log_taken = log_binom(t[..., 0], i[:, 0]).to(t) + k * log_rho + (kept - k) * log_not
        possible = (i[:, 0] >= 1) & (i[:, 0] <= t[..., 0]) & (k - i[:, 0] <= big[..., 0]) & (k - i[:, 0] >= 0)
        share = torch.where(possible, (log_ways - log_taken).exp(), 0.0)  # (rows, D+1)
        return self._wide(share.T)

    def _binomial(self, count: Tensor, most: int) -> Tensor:
        """Bin(s; count, rho of the row), (most+1, rows)."""
        s = torch.arange(most + 1, dtype=torch.float64, device=count.device)[:, None]
        rho = self.rho.cpu().numpy()
        return torch.exp(log_binomial(s, count, rho, 1 - rho)).to(count)

    def _wide(self, x: Tensor) -> Tensor:
        """Repeat rows over the levels."""
        return x.repeat_interleave(self.k, dim=-1)

    def _sum(self, x: Tensor) -> Tensor:
        """Sum over degrees, nodes and levels: (A, D, Z, R) -> (rows,)."""
        return x.sum((0, 1, 2)).reshape(-1, self.k).sum(1)
