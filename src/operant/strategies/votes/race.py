"""Votes that stop early, and the race to k votes.

Who wins and when depends on the order of the votes only through their classes, so with rollouts that differ in
reward within a class U = sum over classes of P(class wins) * mean reward of the class. Derived here; the rules are
those of adaptive self-consistency (arXiv 2305.11860).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, check_int
from operant.core.logmath import log_binomial
from operant.strategies.base import Traits
from operant.strategies.outcomes import Outcomes
from operant.strategies.sequential import Sequential
from operant.strategies.votes.ballots import Ballots, Coefficients, Counts, Tally, answers_of
from operant.strategies.votes.majority import Majority

# Probabilities below exp of this are kept out of denominators; float64 ends at exp(-708).
_LOG_TINY = -600.0


class StoppedVote(Sequential):
    """Base of the votes that stop early; a subclass says when, and who wins.

    Unparsable answers (class -1) use up draws without limit but are no votes. If no class has won after N
    draws the plurality of the N decides, ties at random, unless the subclass says otherwise.
    """

    @property
    def traits(self) -> Traits:
        """It votes, and the order of the draw matters."""
        return Traits(symmetric=False, answers=True)

    @abstractmethod
    def tally(self, b: Ballots, *, credit: bool) -> Tally:
        """What the winner earns, and if asked for what it earns without each rollout."""

    @abstractmethod
    def tally_draws(self, b: Ballots, *, credit: bool) -> Tally:
        """The same of the number of draws."""

    @abstractmethod
    def stops(self, votes: Tensor, draw: Tensor) -> Tensor:
        """Whether to stop after each sample, (..., N).

        ``votes[..., t, j]`` counts the votes among the first t+1 samples for the answer of sample j <= t, else 0;
        ``draw`` (..., N) are the answers.
        """

    @property
    def closed(self) -> bool:
        """Whether the exact sums are affordable."""
        return True

    def value(self, draw: Outcomes) -> Tensor:
        """Mean reward of the winner's votes among the samples drawn until it has won."""
        stopped, last, same = self._run(draw)
        t = last[..., None, None].expand_as(same[..., :1, :])
        before = torch.arange(self.n, device=last.device) <= last[..., None]
        mine = same.gather(-2, t)[..., 0, :] & before  # stopping is on a vote for the winner
        won = torch.where(mine, draw.reward, 0).sum(-1) / mine.sum(-1).clamp(min=1)
        return torch.where(stopped, won, self._at_the_end(draw))

    def cost(self, draw: Outcomes) -> Tensor:
        """Samples drawn until a class has won, or N."""
        _, last, _ = self._run(draw)
        return (last + 1).to(draw.reward)

    def estimate(self, outcomes: Outcomes) -> Tensor | None:
        """Sum over classes of P(class wins) times its mean reward."""
        return self._counted(self.tally, outcomes, credit=False)

    def credit(self, outcomes: Outcomes) -> Tensor | None:
        """U - U without i; it depends on the class of i only (and on its reward, if those differ within)."""
        return self._counted(self.tally, outcomes, credit=True)

    def estimate_cost(self, outcomes: Outcomes) -> Tensor | None:
        """Sum over n < N of P(no class has won after n draws)."""
        return self._counted(self.tally_draws, outcomes, credit=False)

    def credit_cost(self, outcomes: Outcomes) -> Tensor | None:
        """D - D without i, which depends on the class of i."""
        return self._counted(self.tally_draws, outcomes, credit=True)

    def _counted(self, count: Callable[..., Tally], outcomes: Outcomes, *, credit: bool) -> Tensor | None:
        if not self.closed:
            return None
        tally = count(Ballots(answers_of(self, outcomes), outcomes.reward), credit=credit)
        shape = outcomes.reward.shape
        return (tally.weights().reshape(shape) if credit else tally.value.reshape(shape[:-1])).to(outcomes.reward)

    def _at_the_end(self, draw: Outcomes) -> Tensor:
        return Majority(self.n).value(draw)

    def _run(self, draw: Outcomes) -> tuple[Tensor, Tensor, Tensor]:
        """Whether a class has won (...), the last sample drawn (...), who votes alike (..., N, N)."""
        answer = answers_of(self, draw)
        same = (answer[..., :, None] == answer[..., None, :]) & (answer >= 0)[..., None]
        seen = torch.ones(self.n, self.n, dtype=torch.bool, device=answer.device).tril()
        stops = self.stops(same.long().cumsum(-2) * seen, answer)
        stopped = stops.any(-1)
        return stopped, torch.where(stopped, stops.to(torch.int8).argmax(-1), self.n - 1), same


@dataclass(frozen=True)
class RaceTo(StoppedVote):
    """Draw until an answer class has k votes, at most N times, and return that class (race@N:k).

    P(a wins) = sum_{n<=N} C(c_a,k) [x^(n-k)] prod_{b != a} sum_{j<k} C(c_b,j) x^j / C(M,n) * k/n
    draws = sum_{n<N} [x^n] prod_b sum_{j<k} C(c_b,j) x^j / C(M,n)

    with (1+x)^c for the c unparsable answers. ``race@N:k`` with k = N//2+1 is worth exactly maj@N and costs less.

    Args:
        n: the budget N.
        k: votes that win.
        fallback: when no class has k votes after N draws: "vote" returns the plurality, "fail" earns nothing.

    >>> o = Outcomes(torch.tensor([1.0, 1.0, 0.0, 0.0]), answer=torch.tensor([7, 7, 3, 5]))
    >>> round(RaceTo(3, 2).estimate(o).item(), 6)  # both votes for 7 drawn: 1/2; else a three-way tie
    0.666667
    """

    form: ClassVar[str] = "race@{n}:{k}[:{fallback}]"
    n: int
    k: int
    fallback: Literal["vote", "fail"] = "vote"

    def __post_init__(self) -> None:
        """Check the budget, the votes that win and the fallback."""
        check_int("n", self.n, least=1)
        check_int("k", self.k, least=1)
        if self.fallback not in ("vote", "fail"):
            raise InputError(f"fallback must be 'vote' or 'fail', got {self.fallback!r}.")
        if self.fallback == "fail" and self.k > self.n:
            raise BudgetError(f"k must be <= N = {self.n} where the fallback fails, got {self.k}: it cannot be met.")

    def tally(self, b: Ballots, *, credit: bool) -> Counts:
        """The class has k of n votes and no other has, and the last of the n is one of the k."""
        counts, n, k = Counts(b, [self.n], credit=credit), self.n, self.k
        for first, last, rho in _scales(b.m, n):
            if last >= k:
                source = Coefficients(counts, n, rho)
                drawn = torch.arange(k, last + 1).to(b.reward)
                share = torch.where(drawn >= first, k / drawn, 0)
                whole, less = (torch.where(share > 0, share / source.table[k : last + 1, m], 0) for m in (b.m, b.m - 1))
                counts.level(source, k, "fail", whole[None], less)
        if self.fallback == "vote":
            counts.plurality("random", most=k - 1)
        return counts

    def tally_draws(self, b: Ballots, *, credit: bool) -> Counts:
        """No class has k votes after t draws."""
        counts = Counts(b, [self.n], credit=credit, spare=1.0)
        for first, last, rho in _scales(b.m, self.n - 1):
            source = Coefficients(counts, self.n, rho)
            share = (torch.arange(last + 1) >= first).to(b.reward)
            whole, less = (torch.where(share > 0, share / source.table[: last + 1, m], 0) for m in (b.m, b.m - 1))
            counts.level(source, min(self.k, self.n + 1), "fail", whole[None], less)
        return counts

    def stops(self, votes: Tensor, draw: Tensor) -> Tensor:
        """The class of the newest sample has k votes."""
        return votes.diagonal(dim1=-2, dim2=-1) >= self.k

    def _at_the_end(self, draw: Outcomes) -> Tensor:
        return super()._at_the_end(draw) if self.fallback == "vote" else torch.zeros_like(draw.reward[..., 0])


def _scales(m: int, most: int) -> list[tuple[int, int, float]]:
    """(first, last, rho): ranges that cover 0..most, with Bin(t; m, rho) well above underflow on each."""
    scales, last = [], most
    while last >= 0:
        rho = (last + 0.5) / (m + 1)
        t = torch.arange(last + 1, dtype=torch.float64)
        logs = log_binomial(t, m, rho, 1 - rho)
        first = int((logs > _LOG_TINY).nonzero()[0])
        scales.append((first, last, rho))
        last = first - 1
    return scales
