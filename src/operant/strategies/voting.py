"""Majority vote over answer classes: exact plurality with its rivals and its ties, without replacement.

P(class a wins with t votes) =
    C(c_a,t) / C(M,N) * [x^(N-t)] prod_{b != a} ( sum_{s<t} C(c_b,s) x^s + z C(c_b,t) x^t ),
then z^j -> 1/(j+1) for ties broken at random (integrated over z by Gauss-Legendre, exactly), 0 for ties that
fail. The binomials are taken as probabilities Bin(s; c, rho), which changes nothing and overflows nowhere;
every term is positive, so nothing cancels. Derived here; the objective is Compute Aligned Training's vote
(arXiv 2604.24957), which it approximates by ``Threshold``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from operant.core.checks import InputError, check_int
from operant.core.logmath import log_binom
from operant.strategies.base import Outcomes, Strategy

CHUNK = 1024
"""Rows of class counts that are worked on at once: fits the cache."""
LARGE = 900
"""Beyond this many rollouts one common rho for all budgets would underflow; budgets are done singly."""


@dataclass(frozen=True)
class Majority(Strategy):
    """Plurality vote of N samples (self-consistency, maj@N).

    Unparsable answers (class -1) use up draws but cannot win. A class is worth the mean reward of its votes.

    Args:
        n: the budget N.
        ties: "random" breaks ties uniformly ("first seen" has the same value); "fail" earns nothing on a tie.

    >>> o = Outcomes(torch.tensor([1.0, 1.0, 0.0, 0.0]), answer=torch.tensor([7, 7, 3, 5]))
    >>> round(Majority(3).estimate(o).item(), 6)  # both votes for 7 drawn: 1/2; else a three-way tie
    0.666667
    """

    n: int
    ties: Literal["random", "fail"] = "random"

    def __post_init__(self) -> None:
        """Check the budget and the tie rule."""
        check_int("n", self.n, least=1)
        if self.ties not in ("random", "fail"):
            raise InputError(f"ties must be 'random' or 'fail', got {self.ties!r}.")

    def value(self, draw: Outcomes) -> Tensor:
        """Mean reward of the votes for the classes that lead."""
        answer = _answers(self, draw)
        valid = answer >= 0
        votes = ((answer[..., :, None] == answer[..., None, :]) & valid[..., None]).sum(-1)
        top = votes.amax(-1, keepdim=True)
        lead = valid & (votes == top)
        leaders = lead.sum(-1)
        value = torch.where(lead, draw.reward, 0).sum(-1) / leaders.clamp(min=1)
        return value if self.ties == "random" else torch.where(leaders == top[..., 0], value, 0)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Sum over classes of P(class wins) times its mean reward."""
        return self.estimate_budgets(outcomes, [self.n])[..., 0]

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor:
        """Every budget from the same products of polynomials."""
        votes = _Votes(_answers(self, outcomes), outcomes.reward)
        win = plurality(votes.own, votes.rivals, votes.invalid, budgets, self.ties)
        value = win.new_zeros(votes.prompts, len(budgets))
        value.index_add_(0, votes.prompt, win * votes.mean[:, None])
        return value.reshape(*outcomes.reward.shape[:-1], len(budgets)).to(outcomes.reward)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without i; it depends on the class of i only (and on its reward, if those differ within)."""
        v = _Votes(_answers(self, outcomes), outcomes.reward)
        # Leaving out a vote for a rival depends on that rival's count alone: one row per distinct count.
        sizes = torch.unique(v.rivals[v.rivals > 0]).tolist()
        rows = [(v.own, v.rivals, v.invalid), (v.own - 1, v.rivals, v.invalid)]
        rows += [(v.own, v.rivals, (v.invalid - 1).clamp(min=0))]
        rows += [(v.own, _take_one(v.rivals, size), v.invalid) for size in sizes]
        own, rivals, invalid = (torch.cat(parts) for parts in zip(*rows, strict=True))
        win = plurality(own, rivals, invalid, [self.n], self.ties)[:, 0].reshape(len(rows), -1)

        column = torch.zeros(int(v.size.max()) + 1, dtype=torch.long, device=win.device)
        column[sizes] = torch.arange(3, len(rows), device=win.device)
        mine = v.class_of[v.prompt] == v.target[:, None]  # (P, M) does rollout i vote for the target class?
        which = torch.where(v.class_of < 0, 2, column[v.size])[v.prompt]
        which = torch.where(mine, 1, which)
        mean = v.mean[:, None]
        others = (v.mean * v.own)[:, None] - v.reward[v.prompt]
        mean = torch.where(mine, others / (v.own[:, None] - 1).clamp(min=1), mean)
        without = win.T.gather(1, which) * mean  # (P, M)
        loss = (win[0] * v.mean)[:, None] - without
        weights = loss.new_zeros(v.class_of.shape).index_add_(0, v.prompt, loss)
        return weights.reshape(outcomes.reward.shape).to(outcomes.reward)

    def __str__(self) -> str:
        """The string that parses back to this strategy."""
        return f"maj@{self.n}" + ("" if self.ties == "random" else f":{self.ties}")


def plurality(
    own: Tensor, rivals: Tensor, invalid: Tensor, budgets: Sequence[int], ties: Literal["random", "fail"]
) -> Tensor:
    """P(a class wins the vote of N drawn without replacement), at each budget N.

    Args:
        own: (R,) votes of the class among the M rollouts. M may differ between rows.
        rivals: (R, J) votes of the other classes, padded with 0.
        invalid: (R,) rollouts without an answer.
        budgets: budgets N, each at most the least M.
        ties: "random" or "fail".

    Returns:
        (R, len(budgets)) float64.
    """
    rivals = rivals.sort(dim=-1, descending=True).values
    table, inverse = torch.unique(
        torch.cat([own[:, None], invalid[:, None], rivals], dim=1).long(), dim=0, return_inverse=True
    )
    win = torch.zeros(len(table), len(budgets), dtype=torch.float64, device=own.device)
    total = table.sum(1)
    for m in torch.unique(total).tolist():
        groups = [list(budgets)] if m <= LARGE else [[n] for n in budgets]
        for part in (total == m).nonzero()[:, 0].split(CHUNK):
            columns = [_wins(table[part], m, group, ties) for group in groups]
            win[part] = torch.cat(columns, dim=1)
    return win[inverse]


def _wins(table: Tensor, m: int, budgets: list[int], ties: str) -> Tensor:
    """P(win) for rows ``[own, invalid, rivals in descending order]`` that all sum to m."""
    most = max(budgets)
    rho = (most + 0.5) / (m + 1) if len(budgets) == 1 else 0.5
    binomial = _binomial_table(m, most, rho).to(table.device)
    draws = torch.tensor(budgets, device=table.device)
    win = torch.zeros(len(table), len(budgets), dtype=torch.float64, device=table.device)
    for t in range(1, min(most, int(table[:, 0].max())) + 1):
        rows = (table[:, 0] >= t).nonzero()[:, 0]
        degree = most - t
        strong = (table[rows, 2:] >= t).sum(1) if degree >= t else torch.zeros_like(rows)
        strong, order = strong.sort(descending=True)
        rows = rows[order]
        own, rival = table[rows, 0], table[rows, 2:]
        merged = m - own - torch.where(rival >= t, rival, 0).sum(1) if degree >= t else m - own
        rest = binomial[merged, : degree + 1]  # (rows, degree+1)
        if degree >= t:
            rest = _tie_free(rest, rival, strong, t, binomial, ties)
        use = draws >= t
        win[rows[:, None], use.nonzero()[:, 0]] += binomial[own, t, None] * rest[:, draws[use] - t]
    return win / binomial[m, draws]


def _tie_free(rest: Tensor, rival: Tensor, strong: Tensor, t: int, binomial: Tensor, ties: str) -> Tensor:
    """Multiply in the rivals that could reach t votes; rows are sorted by how many those are."""
    width = rest.shape[1]
    most = int(strong[0]) if len(strong) else 0
    if ties == "random":
        nodes, node_weight = np.polynomial.legendre.leggauss(min(most, (width - 1) // t) // 2 + 1)
        z = torch.from_numpy((nodes + 1) / 2).to(rest)
        node_weight = torch.from_numpy(node_weight / 2).to(rest)
    else:
        z, node_weight = rest.new_zeros(1), rest.new_ones(1)
    product = rest[:, None, :].repeat(1, len(z), 1)  # (rows, nodes, width)
    for j in range(most):
        live = int((strong > j).sum())
        factor = binomial[rival[:live, j]]  # (live, degree+1)
        old = product[:live]
        new = old * factor[:, :1, None]
        for s in range(1, t):
            new[..., s:] += old[..., : width - s] * factor[:, s, None, None]
        new[..., t:] += old[..., : width - t] * (factor[:, t, None] * z)[..., None]
        product[:live] = new
    return torch.einsum("rzw,z->rw", product, node_weight)


def _binomial_table(m: int, most: int, rho: float) -> Tensor:
    """Bin(s; c, rho) for c = 0..m, s = 0..most: (m+1, most+1) float64."""
    c = torch.arange(m + 1, dtype=torch.float64)[:, None]
    s = torch.arange(most + 1, dtype=torch.float64)
    failures = (c - s).clamp(min=0)
    return torch.exp(log_binom(c, s) + s * np.log(rho) + failures * np.log1p(-rho))


def _take_one(rivals: Tensor, size: int) -> Tensor:
    """Rivals (R, J) after one vote is taken from a class with ``size`` votes, in rows that have one."""
    first = (rivals == size).to(torch.int8).argmax(-1, keepdim=True)
    has = rivals.gather(-1, first) == size
    return rivals.scatter_add(-1, first, -has.to(rivals))


class _Votes:
    """Class counts per prompt, and one row per (prompt, class with a reward); B prompts, P such rows."""

    def __init__(self, answer: Tensor, reward: Tensor) -> None:
        m = answer.shape[-1]
        self.reward = reward.reshape(-1, m).double()  # (B, M)
        self.class_of = _relabel(answer.reshape(-1, m))  # (B, M), -1 = invalid
        self.prompts = len(self.class_of)
        classes = max(int(self.class_of.max()) + 1, 1)
        valid = self.class_of >= 0
        slot = self.class_of.clamp(min=0)
        blank = torch.zeros(self.prompts, classes, dtype=torch.float64, device=answer.device)
        count = blank.scatter_add(1, slot, valid.double())  # (B, K)
        total = blank.scatter_add(1, slot, torch.where(valid, self.reward, 0))
        earns = blank.scatter_add(1, slot, torch.where(valid, self.reward.abs(), 0))  # rewards may cancel
        self.size = torch.where(valid, count.gather(1, slot), 0).long()  # (B, M) votes of i's class
        self.prompt, self.target = earns.nonzero().unbind(1)  # (P,), (P,)
        self.own = count[self.prompt, self.target].long()
        self.mean = total[self.prompt, self.target] / self.own
        self.rivals = count[self.prompt].scatter(1, self.target[:, None], 0).long()
        self.invalid = (m - count.sum(1).long())[self.prompt]


def _relabel(answer: Tensor) -> Tensor:
    """Number the classes of each row 0, 1, ... in the order of their labels; -1 stays."""
    label, order = answer.sort(dim=-1)
    new = torch.ones_like(label, dtype=torch.bool)
    new[:, 1:] = label[:, 1:] != label[:, :-1]
    number = (new & (label >= 0)).long().cumsum(-1) - 1
    return torch.empty_like(number).scatter_(-1, order, torch.where(label >= 0, number, -1))


def _answers(s: Strategy, outcomes: Outcomes) -> Tensor:
    if outcomes.answer is None:
        raise InputError(
            f"{s} votes over answer classes: give Outcomes(reward, answer=...), integer classes (..., M) "
            "with -1 where no answer could be extracted."
        )
    return outcomes.answer.long()
