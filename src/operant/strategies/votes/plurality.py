"""The polynomials of a plurality vote: who wins with how many votes, without replacement.

P(class a wins with t votes) =
    C(c_a,t) / C(M,N) * [x^(N-t)] prod_{b != a} ( sum_{s<t} C(c_b,s) x^s + z C(c_b,t) x^t ),
then z^j -> 1/(j+1) for ties broken at random (integrated over z by Gauss-Legendre, exactly), 0 for ties that
fail. The binomials are taken as probabilities Bin(s; c, rho), which changes nothing and overflows nowhere;
every term is positive, so nothing cancels. Derived here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from operant.core.checks import InputError
from operant.core.logmath import log_binomial
from operant.strategies.base import Strategy
from operant.strategies.outcomes import Outcomes

Ties = Literal["random", "fail"]
# Rows of class counts that are worked on at once: fits the cache.
_CHUNK = 1024
# Beyond this many rollouts one common rho for all budgets would underflow; budgets are done singly.
_LARGE = 900


def plurality(
    own: Tensor,
    rivals: Tensor,
    invalid: Tensor,
    budgets: Sequence[int],
    ties: Ties,
    *,
    least: int = 1,
    most: int | None = None,
) -> Tensor:
    """P(a class wins the vote of N drawn without replacement), at each budget N.

    Args:
        own: (R,) votes of the class among the M rollouts. M may differ between rows.
        rivals: (R, J) votes of the other classes, padded with 0.
        invalid: (R,) rollouts without an answer.
        budgets: budgets N, each at most the least M.
        ties: "random" or "fail".
        least: only wins with at least that many votes count.
        most: only wins with at most that many votes count.

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
        groups = [list(budgets)] if m <= _LARGE else [[n] for n in budgets]
        for part in (total == m).nonzero()[:, 0].split(_CHUNK):
            columns = [_wins(table[part], m, group, ties, least, most) for group in groups]
            win[part] = torch.cat(columns, dim=1)
    return win[inverse]


def _wins(table: Tensor, m: int, budgets: list[int], ties: Ties, least: int, most: int | None) -> Tensor:
    """P(win) for rows ``[own, invalid, rivals in descending order]`` that all sum to m."""
    largest = max(budgets)
    # About N/M: there Bin(N; M, rho), which is divided by, is largest. Several budgets share the table of 0.5.
    rho = (largest + 0.5) / (m + 1) if len(budgets) == 1 else 0.5
    binomial = binomial_table(m, largest, rho).to(table.device)
    draws = torch.tensor(budgets, device=table.device)
    win = torch.zeros(len(table), len(budgets), dtype=torch.float64, device=table.device)
    highest = min(largest if most is None else min(most, largest), int(table[:, 0].max()))
    for t in range(max(least, 1), highest + 1):
        rows = (table[:, 0] >= t).nonzero()[:, 0]
        degree = largest - t
        # Rivals that cannot reach t votes cannot win: they merge with the unparsable into one binomial. The others are
        # multiplied one by one, rows with many of them first, so that each step works on the rows that still have one.
        strong = (table[rows, 2:] >= t).sum(1) if degree >= t else torch.zeros_like(rows)
        strong, order = strong.sort(descending=True)
        rows = rows[order]
        own, rival = table[rows, 0], table[rows, 2:]
        merged = m - own - torch.where(rival >= t, rival, 0).sum(1) if degree >= t else m - own
        rest = binomial[merged, : degree + 1]  # (rows, degree+1)
        use = (draws >= t).nonzero()[:, 0]
        coefficient = _tie_free(rest, rival, strong, t, binomial, ties, [n - t for n in budgets if n >= t])
        win[rows[:, None], use] += binomial[own, t, None] * coefficient
    return win / binomial[m, draws]


def _tie_free(
    rest: Tensor, rival: Tensor, strong: Tensor, t: int, binomial: Tensor, ties: Ties, wanted: list[int]
) -> Tensor:
    """The wanted coefficients after the rivals that could reach t votes; rows are sorted by how many those are."""
    width = rest.shape[1]
    most = int(strong[0]) if len(strong) else 0
    if most == 0:
        return rest[:, wanted]
    z, node_weight = tie_nodes(min(most, (width - 1) // t), ties)
    z, node_weight = z.to(rest), node_weight.to(rest)
    product = rest[:, None, :].repeat(1, len(z), 1)  # (rows, nodes, width)
    for j in range(1, most):
        live = int((strong > j).sum())
        factor = binomial[rival[:live, j]]  # (live, degree+1)
        old = product[:live]
        new = old * factor[:, :1, None]
        for s in range(1, t):
            new[..., s:] += old[..., : width - s] * factor[:, s, None, None]
        new[..., t:] += old[..., : width - t] * (factor[:, t, None] * z)[..., None]
        product[:live] = new
    live = int((strong > 0).sum())  # the largest rival comes last: of its product the wanted terms are enough
    factor = binomial[rival[:live, 0], : t + 1][:, None].repeat(1, len(z), 1)
    factor[..., t] *= z
    result = rest[:, wanted]
    for column, d in enumerate(wanted):
        low = min(d, t) + 1
        terms = product[:live, :, d - low + 1 : d + 1].flip(-1) * factor[..., :low]
        result[:live, column] = terms.sum(-1) @ node_weight
    return result


def tie_nodes(degree: int, ties: Ties) -> tuple[Tensor, Tensor]:
    """Nodes z and weights that send z^j to 1/(j+1), j <= degree (random), or to 0^j (fail)."""
    if ties == "fail":
        return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    nodes, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weight / 2)


def binomial_table(m: int, most: int, rho: float) -> Tensor:
    """Bin(s; c, rho) for c = 0..m, s = 0..most: (m+1, most+1) float64."""
    c = torch.arange(m + 1, dtype=torch.float64)[:, None]
    s = torch.arange(most + 1, dtype=torch.float64)
    return torch.exp(log_binomial(s, c, rho, 1 - rho))


def take_one(rivals: Tensor, size: int) -> Tensor:
    """Rivals (R, J) after one vote is taken from a class with ``size`` votes, in rows that have one."""
    first = (rivals == size).to(torch.int8).argmax(-1, keepdim=True)
    has = rivals.gather(-1, first) == size
    return rivals.scatter_add(-1, first, -has.to(rivals))


class Votes:
    """Class counts per prompt, and one row per (prompt, class with a reward); B prompts, P such rows."""

    def __init__(self, answer: Tensor, reward: Tensor) -> None:
        m = answer.shape[-1]
        self.reward = reward.reshape(-1, m).double()  # (B, M)
        self.class_of = relabel(answer.reshape(-1, m))  # (B, M), -1 = invalid
        self.prompts = len(self.class_of)
        classes = max(count_classes(self.class_of), 1)
        valid = self.class_of >= 0
        slot = self.class_of.clamp(min=0)
        blank = torch.zeros(self.prompts, classes, dtype=torch.float64, device=answer.device)
        count = blank.scatter_add(1, slot, valid.double())  # (B, K)
        total = blank.scatter_add(1, slot, torch.where(valid, self.reward, 0))
        # Classes that earn nothing need no row of their own: their wins are worth 0.
        earns = blank.scatter_add(1, slot, torch.where(valid, self.reward.abs(), 0))  # rewards may cancel
        self.size = torch.where(valid, count.gather(1, slot), 0).long()  # (B, M) votes of i's class
        self.prompt, self.target = earns.nonzero().unbind(1)  # (P,), (P,)
        self.own = count[self.prompt, self.target].long()
        self.mean = total[self.prompt, self.target] / self.own
        self.rivals = count[self.prompt].scatter(1, self.target[:, None], 0).long()
        self.invalid = (m - count.sum(1).long())[self.prompt]


def relabel(answer: Tensor) -> Tensor:
    """Number the classes of each row 0, 1, ... in the order of their labels; -1 stays."""
    label, order = answer.sort(dim=-1)
    new = torch.ones_like(label, dtype=torch.bool)
    new[:, 1:] = label[:, 1:] != label[:, :-1]
    number = (new & (label >= 0)).long().cumsum(-1) - 1
    return torch.empty_like(number).scatter_(-1, order, torch.where(label >= 0, number, -1))


def count_classes(class_of: Tensor) -> int:
    """Most classes of any row of :func:`relabel`; 0 without a prompt."""
    return int(class_of.max()) + 1 if class_of.numel() else 0


def answers_of(s: Strategy, outcomes: Outcomes) -> Tensor:
    """The answer classes (..., M), which a vote must have."""
    if outcomes.answer is None:
        raise InputError(
            f"{s} votes over answer classes: give Outcomes(reward, answer=...), integer classes (..., M) "
            "with -1 where no answer could be extracted."
        )
    return outcomes.answer.long()
