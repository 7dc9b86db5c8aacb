"""The votes of a prompt by class, and exact votes that depend on their counts: U, and U without each rollout.

P(class a wins with t votes) = C(c_a,t)/C(M,N) [x^(N-t)] prod_{b != a} ( sum_{s<t} C(c_b,s) x^s + z C(c_b,t) x^t ),

a ``product`` on the level t. Above N/2 votes nobody else can reach the level, and it is hypergeometric. Leaving out
rollout i takes one vote from its class, so that every class is evaluated once with a vote less.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from operant.core.logmath import log_binomial, log_hypergeometric
from operant.strategies.base import Strategy, check_answers
from operant.strategies.outcomes import Outcomes
from operant.strategies.votes import product
from operant.strategies.votes.product import Factor, State, Ties

# Numbers in one state of the product: rows are worked on in chunks that fit the cache.
_CELLS = 1 << 17
# Beyond this many rollouts one common rho for all budgets would underflow; budgets are done singly.
_LARGE = 900
# Draws beyond which products are taken at points. At N = 64 both cost the same; the points lose relative accuracy.
_POINTS = 64
# Its absolute error is below this.
_NOISE = 1e-13
# Largest table of classes at points.
_TABLE = 1 << 22


def answers_of(s: Strategy, outcomes: Outcomes) -> Tensor:
    """The answer classes (..., M), which a vote must have."""
    check_answers(s, outcomes)
    assert outcomes.answer is not None
    return outcomes.answer.long()


def relabel(answer: Tensor) -> Tensor:
    """Number the classes of each row 0, 1, ... in the order of their labels; -1 stays."""
    label, order = answer.sort(dim=-1)
    new = torch.ones_like(label, dtype=torch.bool)
    new[:, 1:] = label[:, 1:] != label[:, :-1]
    number = (new & (label >= 0)).long().cumsum(-1) - 1
    return torch.empty_like(number).scatter_(-1, order, torch.where(label >= 0, number, -1))


class Ballots:
    """Votes by prompt and class, B prompts and K classes, classes in descending order of their votes.

    With ``weight`` (B, M) they are in the order of the weight that ``votes`` of their votes can have.
    """

    def __init__(self, answer: Tensor, reward: Tensor, weight: Tensor | None = None, votes: int = 0) -> None:
        self.m = answer.shape[-1]
        self.reward = reward.reshape(-1, self.m).double()  # (B, M)
        label = relabel(answer.reshape(-1, self.m))
        k = int(label.max()) + 1 if label.numel() else 0
        label = torch.where(label < 0, k, label)
        blank = torch.zeros(len(label), k + 1, dtype=torch.float64, device=answer.device)
        count = blank.scatter_add(1, label, torch.ones_like(self.reward))
        total = blank.scatter_add(1, label, self.reward)
        earns = blank.scatter_add(1, label, self.reward.abs()) > 0  # rewards may cancel
        self.heaviest = count if weight is None else _heaviest(label, weight, votes, count)
        order = self.heaviest[:, :k].argsort(dim=1, descending=True)
        order = torch.cat([order, torch.full_like(order[:, :1], k) if k else order.new_zeros(len(label), 1)], 1)
        self.column = order.argsort(dim=1).gather(1, label)  # (B, M) of each rollout, K = unparsable
        self.size = count.gather(1, order).long()  # (B, K+1)
        self.count, self.total = self.size[:, :k], total.gather(1, order)
        self.earns, self.heaviest = (x.gather(1, order)[:, :k] for x in (earns, self.heaviest))
        self.mean = (self.total / self.size.clamp(min=1))[:, :k]  # (B, K)


def _heaviest(label: Tensor, weight: Tensor, votes: int, count: Tensor) -> Tensor:
    """(B, K+1) greatest weight of ``votes`` votes of each class; -1 without any."""
    order = weight.argsort(dim=1, descending=True)
    order = order.gather(1, label.gather(1, order).argsort(dim=1, stable=True))  # by class, then by weight
    rank = torch.arange(label.shape[1], device=label.device) - (count.cumsum(1) - count).gather(
        1, label.gather(1, order)
    )
    kept = torch.where(rank < votes, weight.gather(1, order), 0).to(count)
    return torch.where(count > 0, torch.zeros_like(count).scatter_add(1, label.gather(1, order), kept), -1)


class Rows(NamedTuple):
    """Rows (R,) of a tally."""

    prompt: Tensor
    level: Tensor
    strong: Tensor
    """how many classes of the prompt can reach the level: the first ones"""
    tied: Tensor
    """how many can tie with a winner"""


class Classes(ABC):
    """What classes are at a level, on rows of prompts and levels (R,); class j is the j-th of a prompt."""

    times: product.Times

    @abstractmethod
    def factor(self, j: int, prompt: Tensor, level: Tensor) -> Factor:
        """Class j as rival and as winner."""

    @abstractmethod
    def rest(self, count: Tensor, degree: int) -> Tensor:
        """``count`` rollouts that cannot win: (degree+1, 1, R)."""

    @abstractmethod
    def leave_out(self, j: int, prompt: Tensor, level: Tensor, before: State, h: State, z: Tensor) -> None:
        """Add what these rows are worth without a vote of class j, from its product and the adjoint."""


class Tally:
    """U (B, budgets), and U without a rollout of each class: what is counted is added to zero.

    Args:
        b: the ballots.
        budgets: how many budgets.
        credit: whether rollouts are left out.
        spare: what it is worth that nobody wins.
    """

    def __init__(self, b: Ballots, budgets: int = 1, *, credit: bool = False, spare: float = 0.0) -> None:
        self.b, self.credit, self.spare = b, credit, spare
        self.value: Tensor = b.reward.new_zeros(len(b.size), budgets)
        self.fixed: Tensor = b.reward.new_zeros(b.size.shape)
        """(B, K+1) U without a vote of the class, less what the other votes of the class earn"""
        self.per_mean = torch.zeros_like(self.fixed)
        """(B, K+1) and what they earn for a mean of 1"""

    def weights(self) -> Tensor:
        """U - U without i, (B, M)."""
        b = self.b
        others = (b.total.gather(1, b.column) - b.reward) / (b.size.gather(1, b.column) - 1).clamp(min=1)
        return self.value - self.fixed.gather(1, b.column) - self.per_mean.gather(1, b.column) * others

    def add(self, classes: Classes, rows: Rows, ties: Ties, whole: Tensor, less: Tensor) -> None:
        """Add rows, those with as many classes together.

        Args:
            classes: the classes.
            rows: the rows.
            ties: the tie rule.
            whole: (budgets, D) what coefficients of W are worth.
            less: (D,) the same with a rollout less.
        """
        order, size = rows.strong.argsort(descending=True), max(1, _CELLS // len(less))
        while len(order):
            nodes = product.tie_nodes(int(rows.tied[order[:size]].max()), ties)
            part = order[: max(1, size // len(nodes[0]))]
            order = order[len(part) :]
            self._chunk(classes, Rows(*(x[part] for x in rows)), nodes, whole, less)

    def _chunk(self, classes: Classes, rows: Rows, nodes: tuple[Tensor, Tensor], whole: Tensor, less: Tensor) -> None:
        count, degree, (prompt, level, strong, _) = self.b.count[rows.prompt], len(less) - 1, rows
        z, share = (x.to(self.value)[:, None] for x in nodes)
        able = strong[:, None] > torch.arange(count.shape[1], device=count.device)
        live = [n for n in able.sum(0).tolist() if n]
        factors = [classes.factor(j, prompt[:n], level[:n]) for j, n in enumerate(live)]
        weak = self.b.m - torch.where(able, count, 0).sum(1)
        rest = classes.rest(weak, degree).expand(-1, len(z), -1)
        states = product.forward(State(rest, self.spare * rest), factors, z, classes.times)
        found = whole @ (product.finished(states) * share).sum(1)
        self.value.index_add_(0, prompt, (found.real if found.is_complex() else found).T)
        if not self.credit:
            return
        seed = (less[:, None, None] * share).expand_as(states[0].w)
        for j, before, h in product.backward(states, factors, seed, z, classes.times):
            if j >= 0:
                classes.leave_out(j, prompt[: live[j]], level[: live[j]], before, h, z)
                continue
            one_less = classes.rest((weak - 1).clamp(min=0), degree)
            others = ((h.p + self.spare * h.w) * one_less).sum((0, 1)).real
            cannot = torch.nn.functional.pad(~able, (0, 1), value=True)
            self.fixed.index_add_(0, prompt, torch.where(cannot, others[:, None], 0))


class Counts(Tally):
    """Votes that depend on counts: sums over levels.

    Args:
        b: the ballots; a win is worth the mean reward of the class.
        budgets: budgets N; one, where rollouts are left out.
        credit: whether rollouts are left out.
        spare: what it is worth that nobody wins; wins are then worth nothing.
    """

    def __init__(self, b: Ballots, budgets: Sequence[int], *, credit: bool = False, spare: float = 0.0) -> None:
        super().__init__(b, len(budgets), credit=credit, spare=spare)
        self.budgets = list(budgets)
        self.worth = b.mean if spare == 0 else torch.zeros_like(b.mean)
        # No win of the prompt with more votes is worth anything.
        self.highest = torch.nn.functional.pad(torch.where(b.earns, b.count, 0), (0, 1)).amax(1)

    def plurality(self, ties: Ties, least: int = 1, most: int | None = None) -> None:
        """Wins with ``least`` to ``most`` votes where no class has more."""
        largest = max(self.budgets)
        most = largest if most is None else min(most, largest)
        self._outright(max(least, largest // 2 + 1), most)
        most = min(most, largest // 2)
        if len(self.budgets) > 1 and self.b.m > _LARGE:
            for column, n in enumerate(self.budgets):
                one = Counts(self.b, [n])
                one._shared(ties, least, min(most, n))
                self.value[:, column] += one.value[:, 0]
        else:
            self._shared(ties, least, most)

    def _outright(self, least: int, most: int) -> None:
        """Wins with so many votes that no other class can have as many: C(c,t) C(M-c,N-t) / C(M,N)."""
        if least > most or not self.b.count.numel():
            return
        m, t = self.b.m, torch.arange(least, most + 1)
        count, place = torch.unique(self.b.count, return_inverse=True)
        wins = [log_hypergeometric(t, count.cpu()[:, None], m, n).exp().sum(1) for n in self.budgets]
        self.value += (torch.stack(wins, 1).to(self.value)[place] * self.worth[..., None]).sum(1)
        if self.credit:
            n = self.budgets[0]
            kept, less = (
                log_hypergeometric(t, c.cpu()[:, None], m - 1, n).exp().sum(1).to(self.value)[place]
                for c in (count, count - 1)
            )
            self.fixed += (kept * self.worth).sum(1, keepdim=True)
            self.fixed[:, :-1] -= kept * self.worth
            self.per_mean[:, :-1] += less

    def _shared(self, ties: Ties, least: int, most: int) -> None:
        """Wins on the levels where others can tie."""
        m, n = self.b.m, max(self.budgets)
        if len(self.budgets) == 1 and n > _POINTS and least <= most:
            self._at_points(ties, least, most)
            return
        rho = product.rate(n, m) if len(self.budgets) == 1 else 0.5
        source = Coefficients(self, n, rho)
        draws = torch.tensor(self.budgets, device=self.value.device)
        for t in range(least, most + 1):
            whole = self.value.new_zeros(len(self.budgets), n - t + 1)
            use = (draws >= t).nonzero()[:, 0]
            whole[use, draws[use] - t] = 1 / source.table[draws[use], m]
            less = torch.zeros_like(whole[0])
            less[-1] = 1 / source.table[n, m - 1] if self.credit else 0
            self.level(source, t, ties, whole, less)

    def level(self, source: Coefficients, t: int, ties: Ties, whole: Tensor, less: Tensor) -> None:
        """One level, all prompts; what coefficients are worth at M, and with a rollout less."""
        every = torch.arange(len(self.b.size), device=self.value.device)
        prompt = every if self.spare else every[self.highest >= t]
        self.add(source, self._rows(prompt, torch.full_like(prompt, t)), ties, whole, less)

    def _rows(self, prompt: Tensor, level: Tensor) -> Rows:
        strong = (self.b.count[prompt] >= level[:, None]).sum(1)
        tied = torch.minimum(strong - 1, (max(self.budgets) - level) // level).clamp(min=0)
        return Rows(prompt, level, strong, tied)

    def _at_points(self, ties: Ties, least: int, most: int) -> None:
        """All levels at once: at points a class takes one number a level, a running sum over the level."""
        n, m = self.budgets[0], self.b.m
        level = torch.arange(least, most + 1, device=self.value.device)
        rho = product.rate(n, m)
        x, weight = product.on_circle([n], m, rho)
        norm = torch.exp(log_binomial(n, torch.tensor([m, m - 1]), rho, 1 - rho)).to(self.value)
        outright, self.value = self.value, torch.zeros_like(self.value)
        few = max(1, _TABLE // (len(level) * len(x) * min(2 * self.b.count.shape[1], m)))
        for part in torch.arange(len(self.b.size), device=level.device).split(few):
            source = _Points(self, x, rho, self.b.count[part], most)
            prompt, t = (self.highest[part, None] >= level).nonzero().unbind(1)
            weight = weight.to(source.x)
            rows = self._rows(part[prompt], level[t])
            self.add(source, rows, ties, weight / norm[0], weight[0] / norm[1])
        # What cannot happen shall be worth 0, and not the rounding error of the points.
        self.value = outright + torch.where(self.value.abs() < _NOISE, 0, self.value)


class _Counted(Classes):
    """Classes that are their counts."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    @abstractmethod
    def at(self, count: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Below the level and at it, of classes of ``count`` votes."""

    def factor(self, j: int, prompt: Tensor, level: Tensor) -> Factor:
        below, at = self.at(self.counts.b.count[prompt, j], level)
        return Factor(below, at, at * self.counts.worth[prompt, j])

    def leave_out(self, j: int, prompt: Tensor, level: Tensor, before: State, h: State, z: Tensor) -> None:
        counts, cell = self.counts, (prompt, torch.full_like(prompt, j))
        below, at = self.at(counts.b.count[prompt, j] - 1, level)
        f = Factor(below, at, at)
        kept = (h.p * self.times(before.p, f, z) + h.w * self.times(before.w, f, z)).sum((0, 1)).real
        counts.fixed.index_put_(cell, kept, accumulate=True)
        if not counts.spare:
            won = (h.w * before.p * at).sum((0, 1)).real
            counts.per_mean.index_put_(cell, won, accumulate=True)


class Coefficients(_Counted):
    """On one level, as coefficients Bin(s; c, rho)."""

    def __init__(self, counts: Counts, n: int, rho: float) -> None:
        super().__init__(counts)
        self.times = product.convolve
        self.table = product.binomials(n + 1, counts.b.m, rho).to(counts.value)  # (N+2, M+1)

    def at(self, count: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the table."""
        t = int(level[0])
        rows = self.table[: t + 1, count]
        return rows[:t], rows[t:]

    def rest(self, count: Tensor, degree: int) -> Tensor:
        """Rows of the table."""
        return self.table[: degree + 1, count][:, None]


class _Points(_Counted):
    """On any levels, at points of the circle: below t is a running sum of terms."""

    def __init__(self, counts: Counts, x: Tensor, rho: float, votes: Tensor, most: int) -> None:
        super().__init__(counts)
        self.times = product.pointwise
        self.x, self.rho = x.to(votes.device), rho
        distinct = torch.unique(torch.cat([votes.flatten(), votes.flatten() - 1]).clamp(min=0))
        s = torch.arange(most + 1, dtype=torch.float64)[:, None]
        mass = torch.exp(log_binomial(s, distinct.cpu(), rho, 1 - rho)).to(self.x)
        power = self.x ** torch.arange(most + 1, device=votes.device)[:, None]
        self.terms = mass[:, :, None] * power[:, None]  # (t, counts, L)
        self.below = torch.nn.functional.pad(self.terms.cumsum(0)[:-1], (0, 0, 0, 0, 1, 0))
        self.place = torch.zeros(int(distinct.max()) + 1, dtype=torch.long, device=votes.device)
        self.place[distinct] = torch.arange(len(distinct), device=votes.device)

    def at(self, count: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        below, at = (x[level, self.place[count]].T[:, None] for x in (self.below, self.terms))
        return below, at

    def rest(self, count: Tensor, degree: int) -> Tensor:
        return ((1 - self.rho + self.rho * self.x)[:, None] ** count)[:, None]
