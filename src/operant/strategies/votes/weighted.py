"""Weighted majority vote: each vote counts by its confidence, exactly, without replacement.

With F_b(j, s) the number of j-subsets of class b whose weights sum to s,

    P(class a wins with weight s) = sum_j F_a(j,s) [x^(N-j)] (1+x)^invalid prod_{b != a} G_b(x) / C(M,N),
    G_b = sum_j x^j ( sum_{s'<s} F_b(j,s') + z F_b(j,s) ),

and z as in ``plurality``. F_b comes from one pass over the distinct weights of the class, together with the sum of
the rewards over the subsets, so rewards may differ within a class and go with the weights. Derived here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operant.core.checks import InputError, check_int
from operant.strategies.base import Strategy, Traits
from operant.strategies.outcomes import Outcomes
from operant.strategies.votes.plurality import answers_of, binomial_table, relabel, tie_nodes
from operant.strategies.votes.tally import Pair, all_together, each_left_out, reader

# Largest table (votes x weight x classes) that the closed form takes on.
_CELLS = 1 << 23

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
        """One budget after the other, without credits."""
        return torch.stack([self._worth(outcomes, n) for n in budgets], dim=-1).to(outcomes.reward)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without i, once for each distinct class and weight; linear in the reward of i."""
        whole = self._worth(outcomes, self.n)[..., None]
        without = torch.zeros_like(outcomes.reward, dtype=torch.float64).reshape(-1, outcomes.m)
        for b, ballot in enumerate(self._ballots(outcomes, self.n)):
            without[b] = ballot.without()
        return (whole - without.reshape(outcomes.reward.shape)).to(outcomes.reward)

    def _worth(self, outcomes: Outcomes, n: int) -> Tensor:
        """U at budget n, (...) float64."""
        value = torch.zeros_like(outcomes.reward[..., 0], dtype=torch.float64).flatten()
        for b, ballot in enumerate(self._ballots(outcomes, n)):
            value[b] = ballot.worth()
        return value.reshape(outcomes.reward.shape[:-1])

    def _ballots(self, outcomes: Outcomes, n: int) -> list[_Ballots]:
        m = outcomes.m
        answer = relabel(answers_of(self, outcomes).reshape(-1, m))
        weight, reward = self._weights(outcomes).reshape(-1, m), outcomes.reward.reshape(-1, m).double()
        return [_Ballots(self, n, *row) for row in zip(answer, weight, reward, strict=True)]

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


class _Ballots:
    """One prompt: the votes of each class by distinct weight, and the products over the classes."""

    def __init__(self, s: WeightedVote, n: int, answer: Tensor, weight: Tensor, reward: Tensor) -> None:
        self.n, self.m, self.answer, self.reward = n, len(answer), answer, reward
        # Weights with a common divisor need fewer levels: 10, 20, 30 cost as much as 1, 2, 3.
        unit = math.gcd(*weight[answer >= 0].tolist()) or 1
        self.weight = torch.where(answer >= 0, weight, 0) // unit
        classes = int(answer.max()) + 1
        tops = [self.weight[answer == b].sort(descending=True).values[:n].sum() for b in range(classes)]
        self.total = int(max(tops, default=torch.tensor(0))) + 1  # levels 0 .. the greatest weight of a class
        self.nodes, self.node_weight = (x.to(reward) for x in tie_nodes(max(min(classes, n) - 1, 0), "random"))
        cells = (n + 1) * self.total * max(classes, len(self.nodes))
        if cells > _CELLS:
            raise InputError(
                f"{s}: weights up to {int(self.weight.max())} make a table of {cells:.3g} numbers a prompt (limit "
                f"{_CELLS:.3g}). Use fewer levels (levels=50 is accurate), a smaller N, or route='monte carlo'."
            )
        self.groups = [self._group(answer == b) for b in range(classes)]

    def _group(self, mine: Tensor) -> list[tuple[int, int, float]]:
        """(weight, votes of that weight, sum of their rewards), for each distinct weight."""
        weight, inverse, count = torch.unique(self.weight[mine], return_inverse=True, return_counts=True)
        reward = torch.zeros(len(weight), dtype=torch.float64, device=mine.device)
        reward.index_add_(0, inverse, self.reward[mine])
        return list(zip(weight.tolist(), count.tolist(), reward.tolist(), strict=True))

    def worth(self) -> Tensor:
        """U."""
        self._start(self.m)
        pairs = [self._pair(self._add(self._empty(), group)) for group in self.groups]
        wins = all_together(pairs, self._rest(0), (self.n, 0)).wins
        value = (wins[self.n, 0].sum(-1) @ self.node_weight) if len(wins) > self.n else wins.new_zeros(())
        return value / self.binomial[self.m, self.n]

    def without(self) -> Tensor:
        """U without rollout i, (M,)."""
        self._start(self.m - 1)
        result = torch.zeros_like(self.reward)
        pairs = [self._pair(self._add(self._empty(), group)) for group in self.groups]
        invalid = self.answer < 0
        if bool(invalid.any()):
            wins = all_together(pairs, self._rest(1), (self.n, 0)).wins
            result[invalid] = (wins[self.n, 0].sum(-1) @ self.node_weight) if len(wins) > self.n else 0.0
        one = self.reward.new_ones(1, 1)
        node, share = self.nodes[:, None], self.node_weight[:, None]
        for b, others in enumerate(each_left_out(pairs, self._rest(0), (self.n, 0))):
            below = reader((others.wins * share).sum(2, keepdim=True), self.n, one)
            tied = reader((others.wins * share * node).sum(2, keepdim=True), self.n, one)
            won = reader((others.held * share).sum(2, keepdim=True), self.n, one)
            for (weight, count, reward), table in self._each_left_out(self.groups[b], self._empty()):
                left = self._add(table, [(weight, count - 1, reward)] if count > 1 else [])
                held, at, wins = (x.squeeze(2) for x in self._levels(left))
                fixed = (below[:, :, 0] * held + tied[:, :, 0] * at + won[:, :, 0] * wins).sum()
                slope = torch.zeros_like(fixed)
                if count > 1:  # what one unit of reward less among the votes of this weight takes away
                    unit = self._add((table[0], torch.zeros_like(table[1])), [(weight, count - 1, 1.0)])
                    slope = (won[:, :, 0] * self._levels(unit)[2].squeeze(2)).sum()
                mine = (self.answer == b) & (self.weight == weight)
                result[mine] = fixed - slope * self.reward[mine]
        return result / self.binomial[self.m - 1, self.n]

    def _start(self, m: int) -> None:
        """Binomials as probabilities for draws of N from m."""
        self.binomial = binomial_table(self.m, self.n, (self.n + 0.5) / (m + 1)).to(self.reward)

    def _rest(self, fewer: int) -> Pair:
        """The unparsable answers, on every level."""
        row = self.binomial[int((self.answer < 0).sum()) - fewer]
        held = row[:, None, None, None].expand(-1, 1, len(self.nodes), self.total)
        return Pair(held, torch.zeros_like(held))

    def _empty(self) -> tuple[Tensor, Tensor]:
        """(F, sum of rewards) of no votes, (N+1, S+1) each."""
        table = self.reward.new_zeros(self.n + 1, self.total)
        table[0, 0] = 1
        return table, torch.zeros_like(table)

    def _add(self, table: tuple[Tensor, Tensor], group: list[tuple[int, int, float]]) -> tuple[Tensor, Tensor]:
        """Tables after more votes: u of ``count`` votes of one weight bring u/count of their rewards."""
        for weight, count, reward in group:
            ways, earned = table
            table = ways * self.binomial[count, 0], earned * self.binomial[count, 0]
            for u in range(1, min(count, self.n) + 1):
                if u * weight >= self.total:
                    break
                p = float(self.binomial[count, u])
                part, gain = (x[: self.n + 1 - u, : self.total - u * weight] for x in (ways, earned))
                table[0][u:, u * weight :].add_(part, alpha=p)
                table[1][u:, u * weight :].add_(gain, alpha=p).add_(part, alpha=p * reward * u / count)
        return table

    def _each_left_out(
        self, group: list[tuple[int, int, float]], table: tuple[Tensor, Tensor]
    ) -> list[tuple[tuple[int, int, float], tuple[Tensor, Tensor]]]:
        """Every distinct weight with the table of the others, by halves."""
        # By halves: K log K additions to a table in place of K^2.
        if len(group) == 1:
            return [(group[0], table)]
        left, right = group[: len(group) // 2], group[len(group) // 2 :]
        return [
            *self._each_left_out(left, self._add(table, right)),
            *self._each_left_out(right, self._add(table, left)),
        ]

    def _levels(self, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Below, at, and mean reward at each level of weight, (N+1, 1, 1, S+1); no votes are no tie."""
        ways, earned = table
        below = torch.nn.functional.pad(ways.cumsum(1)[:, :-1], (1, 0))
        at = ways.clone()
        below[0, 0], at[0, 0] = ways[0, 0], 0
        votes = torch.arange(self.n + 1, dtype=ways.dtype, device=ways.device).clamp(min=1)[:, None]
        return below[:, None, None], at[:, None, None], (earned / votes)[:, None, None]

    def _pair(self, table: tuple[Tensor, Tensor]) -> Pair:
        below, at, wins = self._levels(table)
        held = below + at * self.nodes[:, None]
        degree = int((table[0].sum(1) > 0).nonzero().max()) + 1
        return Pair(held[:degree], wins[:degree])
