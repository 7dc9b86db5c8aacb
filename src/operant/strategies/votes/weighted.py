"""Weighted majority vote: each vote counts by its confidence, exactly, without replacement.

With F_b(j, s) the number of j-subsets of class b whose weights sum to s,

    P(class a wins with weight s) = sum_j F_a(j,s) [x^(N-j)] (1+x)^invalid prod_{b != a} G_b(x) / C(M,N),
    G_b = sum_j x^j ( sum_{s'<s} F_b(j,s') + z F_b(j,s) ),

and z as in ``plurality``. F_b comes from one pass over the distinct weights of the class, together with the sum of
the rewards over the subsets, so rewards may differ within a class and go with the weights. Derived here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from operant.core.checks import InputError, check_int
from operant.core.logmath import log_binomial
from operant.strategies.base import Strategy, Traits
from operant.strategies.outcomes import Outcomes
from operant.strategies.votes.ballots import Ballots, Classes, Rows, Tally, answers_of
from operant.strategies.votes.product import Factor, State, binomials, near_budgets, on_circle, pointwise, rate

# Largest table (votes x weight x classes) that the closed form takes on.
_CELLS = 1 << 23
# Numbers in the tables that are worked on at once.
_TOGETHER = 1 << 20

# Largest integer score: totals stay far from where int64 overflows.
_LARGEST = 1 << 40


@dataclass(frozen=True)
class WeightedVote(Strategy):
    """Vote of N samples weighted by ``score``: the class with the greatest total wins, ties uniformly at random.

    Unparsable answers (class -1) use up draws but cannot win; a class without a vote cannot win either. A class is
    worth the mean reward of its votes. Scores are taken as constants: a policy that sets its own confidence has a
    gradient through them too, which no credit contains.

    Args:
        n: the budget N.
        levels: None takes scores as they are: integers >= 0. Q takes scores in [0, 1] as round(score Q): each weight
            moves by at most 1/(2 Q), so only draws whose two best totals lie within N/(2 Q) can get another winner. The
            cost grows with Q.

    >>> o = Outcomes(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0, 1, 1]), score=torch.tensor([3.0, 1.0, 1.0]))
    >>> WeightedVote(3).value(o).item()  # 3 against 1 + 1
    1.0
    """

    form: ClassVar[str] = "wmaj@{n}[:{levels}]"
    n: int
    levels: int | None = None

    def __post_init__(self) -> None:
        """Check the budget and the levels."""
        check_int("n", self.n, least=1)
        if self.levels is not None:
            check_int("levels", self.levels, least=1)

    @property
    def traits(self) -> Traits:
        """It votes."""
        return Traits(answers=True)

    def value(self, draw: Outcomes) -> Tensor:
        """Mean over the leading classes of the mean reward of their votes."""
        answer, weight = answers_of(self, draw), self._weights(draw)
        valid = answer >= 0
        same = (answer[..., :, None] == answer[..., None, :]) & valid[..., None]
        votes, total = same.sum(-1), torch.where(same, weight[..., None, :], 0).sum(-1)
        lead = valid & (total == torch.where(valid, total, -1).amax(-1, keepdim=True))
        share = lead / votes.clamp(min=1).to(draw.reward)  # sums to 1 over a leading class
        return (share * draw.reward).sum(-1) / share.sum(-1).clamp(min=1)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Sum over winners' weights of one product over the classes."""
        return self.estimate_budgets(outcomes, [self.n])[..., 0]

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor:
        """Budgets that are near share their products."""
        shape = outcomes.reward.shape[:-1]
        value = outcomes.reward.new_zeros(shape.numel(), len(budgets), dtype=torch.float64)
        for near in near_budgets(budgets, outcomes.m):
            places = torch.tensor(near, device=value.device)
            for part, tally, _ in self._tallies(outcomes, [budgets[i] for i in near]):
                value[part[:, None], places] = tally.value
        return value.reshape(*shape, len(budgets)).to(outcomes.reward)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without i, once for each distinct class and weight; linear in the reward of i."""
        weights = torch.zeros_like(outcomes.reward, dtype=torch.float64).reshape(-1, outcomes.m)
        for part, tally, classes in self._tallies(outcomes, [self.n], credit=True):
            weights[part] = tally.weights() if classes is None else classes.weights()
        return weights.reshape(outcomes.reward.shape).to(outcomes.reward)

    def _tallies(
        self, outcomes: Outcomes, budgets: Sequence[int], *, credit: bool = False
    ) -> Iterator[tuple[Tensor, Tally, _Weighed | None]]:
        """Prompts, their tally and their classes; together those whose tables have a similar size."""
        m, n = outcomes.m, max(budgets)
        answer, reward = answers_of(self, outcomes).reshape(-1, m), outcomes.reward.reshape(-1, m)
        weight = torch.where(answer >= 0, self._weights(outcomes).reshape(-1, m), 0)
        # Weights with a common divisor need fewer levels: 10, 20, 30 cost as much as 1, 2, 3.
        unit = torch.from_numpy(np.gcd.reduce(weight.cpu().numpy(), axis=1)).to(weight)
        weight = weight // unit.clamp(min=1)[:, None]
        # A vote is divided out from above where rho > 1/2, and that takes the tables of all votes.
        votes = m if credit and 2 * n >= m else n
        b = Ballots(answer, reward, weight, votes)
        k = b.count.shape[1]
        cells = (votes + 1) * (pad(b.heaviest, (0, 1)).amax(1) + 1) * max(k, 1)
        if len(cells) and int(cells.max()) > _CELLS:
            raise InputError(
                f"{self}: weights up to {int(weight.max())} make a table of {float(cells.max()):.3g} numbers a prompt "
                f"(limit {_CELLS:.3g}). Use fewer levels (levels=50 is accurate), a smaller N, or route='monte carlo'."
            )
        order = cells.argsort(descending=True)
        while len(order):
            part = order[: max(1, int(_TOGETHER // cells[order[0]]))]
            order = order[len(part) :]
            tally = Tally(Ballots(answer[part], reward[part], weight[part], votes), len(budgets), credit=credit)
            some = tally.b.count.numel() > 0
            yield part, tally, _Weighed(tally, weight[part], budgets, votes) if some else None

    def _weights(self, outcomes: Outcomes) -> Tensor:
        """Integer weights (..., M)."""
        score = outcomes.selector
        if bool((score < 0).any()):
            raise InputError(
                f"{self} weighs votes by their score, which must be >= 0, got {score.min().item():.6g}. Shift or "
                "exponentiate the scores, or drop those votes (answer -1)."
            )
        if self.levels is not None:
            if bool((score > 1).any()):
                raise InputError(
                    f"{self} expects scores in [0, 1], got {score.max().item():.6g}. Divide by the largest possible "
                    "score, or leave out levels if the scores are integers."
                )
            return (score * self.levels).round().long()
        if bool((score != score.round()).any()):
            raise InputError(
                f"{self} without levels expects integer scores, got {score[score != score.round()][0].item():.6g}. "
                f"For scores in [0, 1] give levels: WeightedVote({self.n}, levels=50)."
            )
        if bool((score > _LARGEST).any()):
            raise InputError(
                f"{self} adds up integer scores of at most {_LARGEST}, got {score.max().item():.6g}: too large. "
                f"Divide the scores by their largest and give levels: WeightedVote({self.n}, levels=50)."
            )
        return score.long()


class _Weighed(Classes):
    """Classes by votes and weight: tables (B K, J+1, S+1) of F, and of what its subsets earn beyond a reference.

    Tables that are read at a level are (B K, S+1, J+1).
    """

    def __init__(self, tally: Tally, weight: Tensor, budgets: Sequence[int], votes: int) -> None:
        self.times = pointwise
        self.tally, self.weight, b = tally, weight, tally.b
        self.prompts, self.k = b.count.shape
        self.votes, self.most = min(votes, int(b.count.max())), int(b.heaviest.max())
        self.rho = rate((min(budgets) + max(budgets)) / 2, b.m)
        self.row = torch.arange(self.prompts, device=weight.device)[:, None] * self.k + b.column  # (B, M)
        self.valid = b.column < self.k
        # Rewards that are alike within each class, as right and wrong are, need no table of their own.
        top = torch.full_like(b.size, -math.inf, dtype=torch.float64).scatter_reduce(1, b.column, b.reward, "amax")
        self.excess = torch.where(self.valid, b.reward - top.gather(1, b.column), 0)  # (B, M)
        self.reference = torch.where(b.count > 0, top[:, :-1], 0).flatten()
        self.groups = [self._group(w) for w in torch.unique(weight[self.valid]).tolist()]
        self.ways, self.earned = self._tables()
        self.at = self.ways.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        self.below = pad(self.at.cumsum(1)[:, :-1], (0, 0, 1, 0))
        self.below[..., 0], self.at[..., 0] = self.ways[:, 0, :1], 0  # without a vote it is below, and no tie
        self.drawn = torch.arange(self.votes + 1, device=weight.device).clamp(min=1)
        self.wins = None if self.earned is None else self.earned.transpose(1, 2) / self.drawn
        if tally.credit:
            self.read_below, self.read_at = torch.zeros_like(self.at), torch.zeros_like(self.at)
            self.read_wins = None if self.wins is None else torch.zeros_like(self.at)
        x, seed = (a.to(weight.device) for a in on_circle(budgets, b.m, self.rho))
        powers = x[:, None] ** torch.arange(self.votes + 1, device=x.device)  # (L, J+1)
        self.real, self.imag = powers.real.contiguous(), powers.imag.contiguous()
        self.others = (1 - self.rho + self.rho * x)[:, None] ** torch.arange(b.m + 1, device=x.device)  # (L, M+1)
        drawn = torch.tensor(budgets)
        whole, less = (log_binomial(drawn, m, self.rho, 1 - self.rho).exp().to(b.reward) for m in (b.m, b.m - 1))
        level = torch.arange(self.most + 1, device=weight.device)
        prompt, level = (b.heaviest.amax(1, keepdim=True) >= level).nonzero().unbind(1)
        strong = (b.heaviest[prompt] >= level[:, None]).sum(1)
        rows = Rows(prompt, level, strong, (strong - 1).clamp(max=max(budgets) - 1))
        tally.add(self, rows, "random", seed / whole[:, None], seed[0] / less[0])

    def weights(self) -> Tensor:
        """U - U without i, (B, M)."""
        without = torch.zeros_like(self.excess)
        read = self.read_at + pad(self.read_below.flip(1).cumsum(1).flip(1)[:, 1:], (0, 0, 0, 1))
        read[..., 0] = 0
        read[:, 0, 0] = self.read_below[..., 0].sum(1)
        read = read.transpose(1, 2).contiguous()
        for w, rows, _, _ in self.groups:
            left = self._divide(self.ways[rows], w)
            value = (read[rows] * left).sum((1, 2))
            slope = torch.zeros_like(value)
            if self.earned is not None and self.read_wins is not None:
                earned = self.read_wins[rows].transpose(1, 2)
                lost = torch.zeros_like(left)
                lost[:, 1:, w:] = self.rho * left[:, :-1, : self.most + 1 - w]
                value += (earned * self._divide(self.earned[rows], w)).sum((1, 2))
                slope += (earned * self._divide(lost, w)).sum((1, 2))
            mine = self.valid & (self.weight == w)
            spread = self.ways.new_zeros(2, self.prompts * self.k)
            spread[:, rows] = torch.stack([value, slope])
            value, slope = spread[:, self.row[mine]]
            without[mine] = value - slope * self.excess[mine]
        return self.tally.weights() - without

    def factor(self, j: int, prompt: Tensor, level: Tensor) -> Factor:
        """The tables at a level, at points."""
        row, cell = self._cell(j, prompt, level)
        below, at = (self._at_points(x.flatten(0, 1)[cell]) for x in (self.below, self.at))
        wins = at * self.reference[row]
        if self.wins is not None:
            wins += self._at_points(self.wins.flatten(0, 1)[cell])
        return Factor(below, at, wins)

    def rest(self, count: Tensor, degree: int) -> Tensor:
        """Binomials at points."""
        return self.others[:, count][:, None]

    def leave_out(self, j: int, prompt: Tensor, level: Tensor, before: State, h: State, z: Tensor) -> None:
        """Keep what the tables of the class are worth at this level."""
        row, cell = self._cell(j, prompt, level)
        either = h.p * before.p + h.w * before.w
        won = self._read(h.w * before.p)
        self.read_below.flatten(0, 1)[cell] = self._read(either)
        self.read_at.flatten(0, 1)[cell] = self._read(either * z) + won * self.reference[row, None]
        if self.read_wins is not None:
            self.read_wins.flatten(0, 1)[cell] = won / self.drawn

    def _cell(self, j: int, prompt: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        row = prompt * self.k + j
        return row, row * (self.most + 1) + level

    def _at_points(self, coefficients: Tensor) -> Tensor:
        """(R, J+1) -> (L, 1, R)."""
        return torch.complex(self.real @ coefficients.T, self.imag @ coefficients.T)[:, None]

    def _read(self, worth: Tensor) -> Tensor:
        """What coefficients are worth, from what the values at points are: (L, Z, R) -> (R, J+1)."""
        worth = worth.sum(1)
        return worth.real.T @ self.real - worth.imag.T @ self.imag

    def _group(self, w: int) -> tuple[int, Tensor, Tensor, Tensor]:
        """Weight, classes with votes of that weight, how many (most first), and their mean excess of reward."""
        mine = self.valid & (self.weight == w)
        sums = self.excess.new_zeros(2, self.prompts * self.k)
        sums.index_add_(1, self.row[mine], torch.stack([torch.ones_like(self.excess[mine]), self.excess[mine]]))
        rows = sums[0].argsort(descending=True)[: int((sums[0] > 0).sum())]
        count, excess = sums[:, rows]
        return w, rows, count.long(), excess / count

    def _tables(self) -> tuple[Tensor, Tensor | None]:
        ways = self.excess.new_zeros(self.prompts * self.k, self.votes + 1, self.most + 1)
        ways[:, 0, 0] = 1
        earned = torch.zeros_like(ways) if bool((self.excess != 0).any()) else None
        mass = binomials(self.votes, self.tally.b.m, self.rho).to(ways)
        for w, rows, count, excess in self.groups:
            live = (count[:, None] >= torch.arange(self.votes + 1, device=count.device)).sum(0).tolist()
            old, gains = ways[rows], None if earned is None else earned[rows]
            new = old * mass[0, count, None, None]
            gained = None if gains is None else gains * mass[0, count, None, None]
            for u in range(1, self.votes + 1):
                if not live[u] or u * w > self.most:
                    break
                p = mass[u, count[: live[u]], None, None]
                source = (slice(live[u]), slice(self.votes + 1 - u), slice(self.most + 1 - u * w))
                target = (slice(live[u]), slice(u, None), slice(u * w, None))
                new[target].addcmul_(old[source], p)
                if gained is not None and gains is not None:
                    each = excess[: live[u], None, None]
                    gained[target].addcmul_(gains[source] + old[source] * (u * each), p)
            ways[rows] = new
            if earned is not None and gained is not None:
                earned[rows] = gained
        return ways, earned

    def _divide(self, table: Tensor, w: int) -> Tensor:
        """``table`` without a vote of weight w: divided by 1 - rho + rho x y^w, from the end that does not amplify."""
        end, odds = self.most + 1 - w, self.rho / (1 - self.rho)
        if odds <= 1:
            new = table / (1 - self.rho)
            for j in range(1, table.shape[1]):
                new[:, j, w:].sub_(new[:, j - 1, :end], alpha=odds)
            return new
        new = torch.zeros_like(table)
        new[:, :-1, :end] = table[:, 1:, w:] / self.rho
        for j in reversed(range(1, table.shape[1] - 1)):
            new[:, j - 1, :end].sub_(new[:, j, w:], alpha=1 / odds)
        return new
