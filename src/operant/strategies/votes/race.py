"""Votes that stop early, and the race to k votes.

Who wins and when depends on the order of the votes only through their classes, so with rollouts that differ in
reward within a class U = sum over classes of P(class wins) * mean reward of the class. Leaving out rollout i
takes one vote from its class: the credit needs one evaluation per distinct class. Binomials are taken as
probabilities Bin(s; c, rho), as in ``plurality``; every term is positive. All of it is done on the CPU: the class
counts are small. Derived here; the rules are those of adaptive self-consistency (arXiv 2305.11860).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, check_int
from operant.core.logmath import log_binomial
from operant.strategies.base import Traits
from operant.strategies.outcomes import Outcomes
from operant.strategies.sequential import Sequential
from operant.strategies.votes.majority import Majority
from operant.strategies.votes.plurality import answers_of, count_classes, plurality, relabel

# Rows of class counts that are worked on at once.
_CHUNK = 256
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
    def wins(self, own: Tensor, rivals: Tensor, invalid: Tensor) -> Tensor:
        """P(a class wins), from its votes (R,), those of the others (R, J) and the rest (R,), -> (R,) float64."""

    @abstractmethod
    def draws(self, votes: Tensor, invalid: Tensor) -> Tensor:
        """Mean number of draws, from the votes of all classes (R, K) and the rest (R,), -> (R,) float64."""

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
        if not self.closed:
            return None
        b = _Ballots(answers_of(self, outcomes), outcomes.reward)
        return self._worth(b).reshape(outcomes.reward.shape[:-1]).to(outcomes.reward)

    def credit(self, outcomes: Outcomes) -> Tensor | None:
        """U - U without i; it depends on the class of i only (and on its reward, if those differ within)."""
        if not self.closed:
            return None
        b = _Ballots(answers_of(self, outcomes), outcomes.reward)
        prompt, column, votes, invalid = b.less_one()
        row, target = b.earns[prompt].nonzero().unbind(1)
        prompt, column = prompt[row], column[row]
        win = self._wins(votes[row], target, invalid[row])
        mine = column == target + 1
        others, own = (b.size.new_zeros(b.size.shape, dtype=torch.float64) for _ in range(2))
        others.index_put_((prompt, column), torch.where(mine, 0, win * b.mean[prompt, target]), accumulate=True)
        own.index_put_((prompt, column), torch.where(mine, win, 0), accumulate=True)
        rest = (b.total.gather(1, b.column) - b.reward) / (b.size.gather(1, b.column) - 1).clamp(min=1)
        alike = b.alike.gather(1, b.column)
        without = others.gather(1, alike) + own.gather(1, alike) * rest
        return (self._worth(b)[:, None] - without).reshape(outcomes.reward.shape).to(outcomes.reward)

    def estimate_cost(self, outcomes: Outcomes) -> Tensor | None:
        """Sum over n < N of P(no class has won after n draws)."""
        if not self.closed:
            return None
        b = _Ballots(answers_of(self, outcomes), outcomes.reward)
        return self._draws(b.votes, b.size[:, 0]).reshape(outcomes.reward.shape[:-1]).to(outcomes.reward)

    def credit_cost(self, outcomes: Outcomes) -> Tensor | None:
        """D - D without i, once per distinct class."""
        if not self.closed:
            return None
        b = _Ballots(answers_of(self, outcomes), outcomes.reward)
        prompt, column, votes, invalid = b.less_one()
        without = torch.zeros(b.size.shape, dtype=torch.float64)
        without[prompt, column] = self._draws(votes, invalid)
        whole = self._draws(b.votes, b.size[:, 0])[:, None]
        weights = whole - without.gather(1, b.alike.gather(1, b.column))
        return weights.reshape(outcomes.reward.shape).to(outcomes.reward)

    def _at_the_end(self, draw: Outcomes) -> Tensor:
        return Majority(self.n).value(draw)

    def _worth(self, b: _Ballots) -> Tensor:
        prompt, target = b.earns.nonzero().unbind(1)
        win = self._wins(b.votes[prompt], target, b.size[prompt, 0])
        return win.new_zeros(len(b.votes)).index_add_(0, prompt, win * b.mean[prompt, target])

    def _wins(self, votes: Tensor, target: Tensor, invalid: Tensor) -> Tensor:
        """P(the target class wins), each distinct row of counts once: (R, K), (R,), (R,) -> (R,)."""
        own, rivals = votes.gather(1, target[:, None]), votes.scatter(1, target[:, None], 0)
        # Prompts of a batch often have the same counts; each distinct row is computed once.
        table, inverse = _distinct(torch.cat([own, invalid[:, None]], 1), rivals)
        parts = [self.wins(x[:, 0], x[:, 2:], x[:, 1]) for x in table.split(_CHUNK) if len(x)]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *parts])[inverse]

    def _draws(self, votes: Tensor, invalid: Tensor) -> Tensor:
        """Mean number of draws, each distinct row of counts once: (R, K), (R,) -> (R,)."""
        table, inverse = _distinct(invalid[:, None], votes)
        parts = [self.draws(x[:, 1:], x[:, 0]) for x in table.split(_CHUNK) if len(x)]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *parts])[inverse]

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

    P(a wins) = sum_{n<=N} C(c_a,k-1) [x^(n-k)] prod_{b != a} sum_{j<k} C(c_b,j) x^j / C(M,n-1) * (c_a-k+1)/(M-n+1)
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

    def wins(self, own: Tensor, rivals: Tensor, invalid: Tensor) -> Tensor:
        """After t draws the class has k - 1 votes and no class has k, and draw t + 1 is for it."""
        m = own + invalid + rivals.sum(1)
        win = torch.zeros(len(own), dtype=torch.float64)
        # No single rho keeps Bin(t; M, rho) above underflow for all t: each range of t has one of its own.
        for first, last, rho in _scales(int(m.max()), self.n - 1):
            if last >= self.k - 1:
                t = torch.arange(max(first, self.k - 1), last + 1)
                rest = _below(rivals, invalid, self.k, last - self.k + 2, rho)[:, t - self.k + 1]
                before = binomial(own, self.k, rho)[:, -1:] * rest / binomial(m, last + 1, rho)[:, t]
                win += (before * (own - self.k + 1).clamp(min=0)[:, None] / (m[:, None] - t)).sum(1)
        if self.fallback == "vote" and self.k > 1:
            win += plurality(own, rivals, invalid, [self.n], "random", least=1, most=self.k - 1)[:, 0]
        return win

    def draws(self, votes: Tensor, invalid: Tensor) -> Tensor:
        """No class has k votes after t draws."""
        m = invalid + votes.sum(1)
        draws = torch.zeros(len(votes), dtype=torch.float64)
        for first, last, rho in _scales(int(m.max()), self.n - 1):
            undecided = _below(votes, invalid, self.k, last + 1, rho) / binomial(m, last + 1, rho)
            draws += undecided[:, first:].sum(1)
        return draws

    def stops(self, votes: Tensor, draw: Tensor) -> Tensor:
        """The class of the newest sample has k votes."""
        return votes.diagonal(dim1=-2, dim2=-1) >= self.k

    def _at_the_end(self, draw: Outcomes) -> Tensor:
        return super()._at_the_end(draw) if self.fallback == "vote" else torch.zeros_like(draw.reward[..., 0])


def _below(votes: Tensor, invalid: Tensor, k: int, width: int, rho: float) -> Tensor:
    """Coefficients of x^0 .. x^(width-1) of (1+x)^invalid prod_b sum_{j<k} C(c_b,j) x^j, scaled: (R, width)."""
    strong = votes >= k
    product = binomial(invalid + torch.where(strong, 0, votes).sum(1), width, rho)
    for column in votes[:, strong.any(0)].T:
        factor = binomial(torch.where(column >= k, column, 0), min(k, width), rho)
        new = product * factor[:, :1]
        for j in range(1, factor.shape[1]):
            new[:, j:] += product[:, :-j] * factor[:, j, None]
        product = new
    return product


def binomial(c: Tensor, width: int, rho: float) -> Tensor:
    """Bin(s; c, rho) for s = 0 .. width-1: (R,) -> (R, width) float64."""
    s = torch.arange(width, dtype=torch.float64)
    count, inverse = torch.unique(c, return_inverse=True)
    count = count.double()[:, None]
    return log_binomial(s, count, rho, 1 - rho).exp()[inverse]


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


def _distinct(head: Tensor, votes: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows of ``[head, votes in descending order]``, and where each row went."""
    table = torch.cat([head, votes.sort(dim=1, descending=True).values], 1)
    return torch.unique(table, dim=0, return_inverse=True)


class _Ballots:
    """Votes by prompt and class, classes in descending order of votes; B prompts, K classes, on the CPU.

    Columns of (B, K+1) tensors are: unparsable, then the classes.
    """

    def __init__(self, answer: Tensor, reward: Tensor) -> None:
        m = answer.shape[-1]
        self.reward = reward.reshape(-1, m).double().cpu()  # (B, M)
        column = relabel(answer.reshape(-1, m).cpu()) + 1
        blank = torch.zeros(len(column), max(count_classes(column), 2), dtype=torch.float64)
        size = blank.scatter_add(1, column, torch.ones_like(self.reward)).long()
        total = blank.scatter_add(1, column, self.reward)
        earns = blank.scatter_add(1, column, self.reward.abs()) > 0  # rewards may cancel
        earns[:, 0] = False

        key = 2 * size + earns
        order = key[:, 1:].argsort(dim=1, descending=True, stable=True) + 1
        order = torch.cat([torch.zeros_like(order[:, :1]), order], 1)
        self.column = order.argsort(dim=1).gather(1, column)  # (B, M) of each rollout
        self.size, self.total, earns, key = (x.gather(1, order) for x in (size, total, earns, key))  # (B, K+1)
        self.votes, self.earns = self.size[:, 1:], earns[:, 1:]  # (B, K)
        self.mean = self.total[:, 1:] / self.votes.clamp(min=1)  # (B, K)
        # Leaving out a vote for a class that earns nothing depends on its count alone: one column per count.
        new = earns | (key != key.roll(1, 1))
        new[:, :2] = True
        self.alike = torch.where(new, torch.arange(new.shape[1]), 0).cummax(1).values  # (B, K+1)
        self.new = new & (self.size > 0)

    def less_one(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Prompt, column, votes (R, K) and invalid (R,) without one rollout, once per distinct column."""
        prompt, column = self.new.nonzero().unbind(1)
        size = self.size[prompt]
        size[torch.arange(len(size)), column] -= 1
        return prompt, column, size[:, 1:], size[:, 0]
