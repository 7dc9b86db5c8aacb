"""The vote that stops when its leader is d votes ahead, exactly, by a sum over partitions of the votes cast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from operant.core.checks import check_int
from operant.core.logmath import log_binomial
from operant.strategies.votes.ballots import Ballots, Tally
from operant.strategies.votes.race import StoppedVote

# Largest budget that is summed exactly: 43,820 partitions; Monte Carlo beyond.
_MOST = 32
# Rows of class counts that are worked on at once.
_CHUNK = 256


@dataclass(frozen=True)
class StopAtLead(StoppedVote):
    """Draw until the leading class is d votes ahead of the next (0 if there is none), at most N times (lead@N:d).

    P(undecided with votes j_1, j_2, ... after n draws) = prod_b C(c_b,j_b) / C(M,n) * g(j), g the share of the
    orders of those votes in which no class was ever d ahead. g depends on the j as a partition only, and unparsable
    answers do not change it; so the sum runs over partitions of at most N, class by class. N <= 32; beyond, Monte
    Carlo.

    Args:
        n: the budget N.
        d: the lead that wins.

    >>> from operant import Outcomes
    >>> o = Outcomes(torch.tensor([1.0, 1.0, 0.0, 0.0]), answer=torch.tensor([7, 7, 3, 5]))
    >>> round(StopAtLead(3, 2).estimate(o).item(), 6)
    0.666667
    """

    form: ClassVar[str] = "lead@{n}:{d}"
    n: int
    d: int

    def __post_init__(self) -> None:
        """Check the budget and the lead."""
        check_int("n", self.n, least=1)
        check_int("d", self.d, least=1)

    @property
    def closed(self) -> bool:
        """Whether the partitions are few enough."""
        return self.n <= _MOST

    def tally(self, b: Ballots, *, credit: bool) -> Tally:
        """Each distinct row of counts once: a class that earns, its rivals, and the rest."""
        tally = Tally(b)
        prompt, target = b.earns.nonzero().unbind(1)
        won = self._rows(self._wins, b.size[prompt], target)
        tally.value[:, 0].index_add_(0, prompt, won * b.mean[prompt, target])
        if credit:
            prompt, column, size = _less_one(b)
            row, target = b.earns[prompt].nonzero().unbind(1)
            prompt, column = prompt[row], column[row]
            won, mine = self._rows(self._wins, size[row], target), column == target
            earned = torch.where(mine, 0, won * b.mean[prompt, target])
            tally.fixed.index_put_((prompt, column), earned, accumulate=True)
            tally.per_mean.index_put_((prompt, column), torch.where(mine, won, 0), accumulate=True)
        return tally

    def tally_draws(self, b: Ballots, *, credit: bool) -> Tally:
        """Each distinct row of counts once."""
        tally = Tally(b)
        tally.value[:, 0] = self._rows(self._draws, b.size, None)
        if credit:
            prompt, column, size = _less_one(b)
            tally.fixed[prompt, column] = self._rows(self._draws, size, None)
        return tally

    def _rows(self, function: Callable[..., Tensor], size: Tensor, target: Tensor | None) -> Tensor:
        """``function`` of distinct rows of counts (R, K+1), the target class apart, on the CPU: (R,)."""
        votes, head = size[:, :-1], size[:, -1:]
        if target is not None:
            head = torch.cat([head, votes.gather(1, target[:, None])], 1)
            votes = votes.scatter(1, target[:, None], 0)
        votes = votes.sort(dim=1, descending=True).values
        # With a column of zeros: there may be no class at all.
        table = torch.cat([head, votes, torch.zeros_like(head[:, :1])], 1).cpu()
        table, inverse = torch.unique(table, dim=0, return_inverse=True)
        parts = [function(x[:, head.shape[1] :], *x[:, : head.shape[1]].T) for x in table.split(_CHUNK) if len(x)]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *parts])[inverse].to(size.device)

    def _wins(self, rivals: Tensor, invalid: Tensor, own: Tensor) -> Tensor:
        """P(a class wins): the class is d - 1 ahead and the next draw is for it; or it leads at the end."""
        n, m = self.n, own + invalid + rivals.sum(1)
        rivals = rivals[:, : int((rivals > 0).sum(1).max())]
        p = _partitions(n, min(n, rivals.shape[1] + 1), self.d)
        # About N/M, as in plurality: the products that are divided by stay far from underflow.
        rho = (n + 0.5) / (int(m.max()) + 1)
        rest, mine = p.assign(rivals, rho), _binomial(own, n + 1, rho).T  # (P, R), (n+1, R)
        mass, spare = _binomial(m, n + 1, rho), _binomial(invalid, n + 1, rho)
        left = (m[:, None] - torch.arange(n)).double()
        used = _with_invalid(spare, 1 / (mass[:, :n] * left)).T  # (n, R) over the votes cast
        lead, after, votes = p.about_to_win
        win = rest[lead] * p.undecided[after, None] * mine[votes] * (own - votes[:, None]).clamp(min=0)
        win = (win * used[p.size[after]]).sum(0)
        lead, after, votes = p.leads
        end = rest[lead] * (p.undecided[after] * p.share)[:, None] * mine[votes]
        return win + (end * spare.T[n - p.size[after]]).sum(0) / mass[:, n]

    def _draws(self, votes: Tensor, invalid: Tensor) -> Tensor:
        """Mean number of draws: no class is d ahead after t draws."""
        n, m = self.n, invalid + votes.sum(1)
        votes = votes[:, : int((votes > 0).sum(1).max())]
        p = _partitions(n, min(n, votes.shape[1]), self.d)
        rho = (n + 0.5) / (int(m.max()) + 1)
        used = _with_invalid(_binomial(invalid, n + 1, rho), 1 / _binomial(m, n, rho)).T  # (n, R)
        before = p.size < n
        undecided = p.assign(votes, rho)[before] * p.undecided[before, None]
        return (undecided * used[p.size[before]]).sum(0)

    def stops(self, votes: Tensor, draw: Tensor) -> Tensor:
        """The leader's votes less the most of any other class."""
        top, leader = votes.max(-1)
        own = draw[..., None, :] == draw.gather(-1, leader)[..., None]
        return top - torch.where(own, 0, votes).amax(-1) >= self.d


class _Partitions(NamedTuple):
    """Partitions of at most n votes over at most K classes, P of them, and how they grow by one more class."""

    size: Tensor
    """(P,) votes"""
    undecided: Tensor
    """(P,) share of the orders of these votes in which no class was ever d ahead"""
    grow: dict[int, tuple[Tensor, Tensor]]
    """part s -> partitions, and the same with a class of s votes more"""
    about_to_win: tuple[Tensor, Tensor, Tensor]
    """partition of the rivals, the same with the class, votes of the class: d - 1 ahead"""
    leads: tuple[Tensor, Tensor, Tensor]
    """the same for a class that leads, or shares the lead, but is not d ahead"""
    share: Tensor
    """1 / number of classes that share the lead"""

    def assign(self, votes: Tensor, rho: float) -> Tensor:
        """sum over the assignments of a partition's parts to the classes of prod_b Bin(j_b; c_b): (R, K) -> (P, R)."""
        mass = torch.zeros(len(self.size), len(votes), dtype=torch.float64)
        mass[0] = 1
        for column in votes.T:
            weight = _binomial(column, max(self.grow, default=0) + 1, rho).T
            new = mass * weight[0]
            for s in range(1, min(int(column.max()), len(self.grow)) + 1):
                old, grown = self.grow[s]
                new[grown] += mass[old] * weight[s]
            mass = new
        return mass


@lru_cache(maxsize=32)
def _partitions(n: int, classes: int, d: int) -> _Partitions:
    """The tables for budget n, at most ``classes`` parts, and a winning lead of d."""
    found: list[tuple[int, ...]] = [()]
    for p in found:  # grows while it is read
        least, room = p[-1] if p else n, n - sum(p)
        found += [(*p, s) for s in range(1, min(least, room) + 1)] if len(p) < classes else []
    # By votes: a partition comes after those with a vote less, from which its share is computed.
    found.sort(key=sum)
    at = {p: i for i, p in enumerate(found)}

    def plus(p: tuple[int, ...], s: int) -> int:
        return at[tuple(sorted((*p, s), reverse=True))]

    undecided = torch.zeros(len(found), dtype=torch.float64)
    undecided[0] = 1
    for i, p in enumerate(found):
        if p and p[0] - (p[1] if len(p) > 1 else 0) < d:
            for s, classes_with_s in Counter(p).items():  # the last vote was for one of the classes with s votes
                fewer = list(p)
                fewer.remove(s)
                before = tuple(sorted((*fewer, s - 1), reverse=True)) if s > 1 else tuple(fewer)
                undecided[i] += s * classes_with_s / sum(p) * undecided[at[before]]

    grow: dict[int, list[tuple[int, int]]] = {s: [] for s in range(1, n + 1)}
    # With d = 1 the first vote wins.
    wins, leads, share = [(0, 0, 0)] if d == 1 else [], [], []
    for i, p in enumerate(found):
        top = p[0] if p else 0
        for s in range(1, n - sum(p) + 1) if len(p) < classes else ():
            grown = plus(p, s)
            grow[s].append((i, grown))
            if s == top + d - 1 and sum(p) + s < n:
                wins.append((i, grown, s))
            if top <= s < top + d:
                leads.append((i, grown, s))
                share.append(1 / (1 + p.count(s)))

    def columns(rows: list[tuple[int, ...]], width: int) -> list[Tensor]:
        return list(torch.tensor(rows, dtype=torch.long).reshape(-1, width).unbind(1))

    edges = {s: (old, new) for s, rows in grow.items() if rows for old, new in [columns(rows, 2)]}
    size = torch.tensor([sum(p) for p in found])
    a, b, c = columns(wins, 3)
    e, f, g = columns(leads, 3)
    return _Partitions(size, undecided, edges, (a, b, c), (e, f, g), torch.tensor(share, dtype=torch.float64))


def _with_invalid(spare: Tensor, weight: Tensor) -> Tensor:
    """out[v] = sum_z spare[z] weight[v + z]: v votes and z unparsable answers in v + z draws, all (R, n)."""
    out = torch.zeros_like(weight)
    for z in range(weight.shape[1]):
        out[:, : weight.shape[1] - z] += spare[:, z, None] * weight[:, z:]
    return out


def _less_one(b: Ballots) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt, column and counts (R, K+1) without one rollout of that column."""
    prompt, column = b.size.nonzero().unbind(1)
    size = b.size[prompt]
    size[torch.arange(len(size), device=size.device), column] -= 1
    return prompt, column, size


def _binomial(c: Tensor, width: int, rho: float) -> Tensor:
    """Bin(s; c, rho) for s = 0 .. width-1: (R,) -> (R, width) float64."""
    s = torch.arange(width, dtype=torch.float64)
    count, inverse = torch.unique(c, return_inverse=True)
    return log_binomial(s, count.double()[:, None], rho, 1 - rho).exp()[inverse]
