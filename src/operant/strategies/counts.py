"""Strategies whose value depends on the number of successes: v[k] for k successes among N.

U = sum_k v_k C(c,k) C(M-c,N-k) / C(M,N) for c successes among M rollouts, and
S(p) = sum_k v_k Bin(k; N, p). Source: Compute Aligned Training (arXiv 2604.24957), sections 2.1 and 2.2;
the unbiased pass@k is Chen et al. (arXiv 2107.03374), equation 1.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, check_int
from operant.core.logmath import (
    graph_constant,
    log1mexp,
    log_binom_row,
    log_hypergeometric,
    log_none_drawn,
    some_drawn,
    xlog,
)
from operant.strategies.base import Strategy, Success, Traits
from operant.strategies.outcomes import Outcomes

# Below this log(N p), S(p) = N p to more digits than float64 holds.
_TINY = -40.0
CELLS = 1 << 20
"""Numbers of a table over counts that are worked on at once."""
# Stands for log 0 where a gradient must stay finite: exp of it is 0.
_EMPTY = -1e5


class CountStrategy(Strategy):
    """Base of the strategies with a table v[0..N]; a subclass needs :meth:`table` only."""

    @property
    def traits(self) -> Traits:
        """Successes are counted."""
        return Traits(binary=True)

    @abstractmethod
    def table(self) -> Tensor:
        """v[k] for k = 0..N, (N+1,) float64."""

    def value(self, draw: Outcomes) -> Tensor:
        """v[number of successes]."""
        return self._lookup(draw, u_table(self, self.n, draw.reward.device))

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """U(M, c), read from a table over c."""
        return self._lookup(outcomes, u_table(self, outcomes.m, outcomes.reward.device))

    def credit(self, outcomes: Outcomes) -> Tensor:
        """w_correct = U(M,c) - U(M-1,c-1), w_wrong = U(M,c) - U(M-1,c), read from a table over c."""
        tables = _credit_tables(self, outcomes.m, outcomes.reward.device)
        w_correct, w_wrong = self._lookup(outcomes, tables)[..., None].unbind(-2)
        return torch.where(outcomes.reward > 0, w_correct, w_wrong)

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor:
        """One row of the table U(M, c) per budget."""
        return self._lookup(outcomes, _u_tables(self, tuple(budgets), outcomes.m, outcomes.reward.device))

    def population(self, log_q: Tensor, kinds: Outcomes) -> Tensor:
        """S(p) = sum_k v_k Bin(k; N, p), p the mass of the kinds that succeed."""
        self.check_binary(kinds)
        v = self.table().to(log_q.device)
        k = torch.arange(self.n + 1, dtype=torch.float64, device=log_q.device)
        # log 0 must not reach logsumexp: the gradient of a side without kinds would be NaN.
        right = kinds.reward > 0
        log_p, log_f = (torch.logsumexp(torch.where(side, log_q, _EMPTY), -1)[..., None] for side in (right, ~right))
        binomial = torch.exp(log_binom_row(self.n).to(v) + k * log_p + (self.n - k) * log_f)
        return (binomial * v).sum(-1)

    def success(self, log_p: Tensor) -> Success:
        """S, 1 - S and the elasticity from the table, in log space.

        p^k0 is factored out, k0 the least k with v[k] > 0, so nothing large cancels; log S comes from 1 - S
        where S > 1/2.
        """
        n = self.n
        k0, log_v, log_1mv, binom, step, fewer = _success_tables(self, log_p.device)
        k = torch.arange(n + 1, dtype=torch.float64, device=log_p.device)
        p, q = log_p[..., None], log1mexp(log_p)[..., None]
        tail = torch.logsumexp((log_v + binom + xlog(k - k0, p) + xlog(n - k, q))[..., k0:], dim=-1)  # log(S / p^k0)
        log_f = torch.logsumexp(log_1mv + binom + xlog(k, p) + xlog(n - k, q), dim=-1)
        # A sum near 1 loses the digits of its logarithm, so log S comes from 1 - S where S > 1/2.
        log_s = torch.where(log_f < -math.log(2), log1mexp(log_f), k0 * log_p + tail)
        # S' = N sum_k (v[k+1] - v[k]) Bin(k; N-1, p) has no cancelling terms for a rising table.
        k, low = k[:-1], max(k0 - 1, 0)
        slope = fewer + xlog(k + 1 - k0, p) + xlog(n - 1 - k, q)
        terms = step * n * torch.exp(slope - tail[..., None])
        return Success(log_s, log_f, terms[..., low:].sum(-1))

    def check_binary(self, outcomes: Outcomes) -> None:
        """Refuse rewards that are not 0 or 1.

        Raises:
            InputError: naming the strategy and what to do.
        """
        if not outcomes.binary:
            raise InputError(
                f"{self} counts successes: rewards must be 0 or 1, got other values. Binarize them "
                "(reward == 1), or use best@N, which takes any reward."
            )

    def _lookup(self, outcomes: Outcomes, table: Tensor) -> Tensor:
        """``table[c]``, in the dtype of the rewards."""
        self.check_binary(outcomes)
        c = (outcomes.reward > 0).sum(-1)  # a sum in half precision would lose count beyond 256
        return table.to(outcomes.reward)[c]


@dataclass(frozen=True)
class PassAt(CountStrategy):
    """Pass@N: a verifier picks any success among N samples. S(p) = 1 - (1-p)^N.

    >>> round(PassAt(2).estimate(Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))).item(), 12)
    0.5
    """

    form: ClassVar[str] = "pass@{n}"
    n: int

    def __post_init__(self) -> None:
        """Check the budget."""
        check_int("n", self.n, least=1)

    def table(self) -> Tensor:
        """v = [0, 1, ..., 1]."""
        v = torch.ones(self.n + 1, dtype=torch.float64)
        v[0] = 0
        return v

    def success(self, log_p: Tensor) -> Success:
        """log S = log1mexp(N log1mexp(log p)), and log N + log p where N p is below machine epsilon."""
        if self.n == 1:
            return Success(log_p, log1mexp(log_p), torch.ones_like(log_p))
        log_q, log_n = log1mexp(log_p), math.log(self.n)
        tiny = log_p + log_n < _TINY
        log_s = torch.where(tiny, log_p + log_n, log1mexp(self.n * log_q))
        log_f = log_n + log_p + (self.n - 1) * log_q - log_s
        return Success(log_s, self.n * log_q, torch.where(tiny, 1.0, torch.exp(log_f)))


@dataclass(frozen=True)
class AllOf(CountStrategy):
    """Pass^N: all of N samples must succeed (reliability). S(p) = p^N."""

    form: ClassVar[str] = "pass^{n}"
    n: int

    def __post_init__(self) -> None:
        """Check the budget."""
        check_int("n", self.n, least=1)

    def table(self) -> Tensor:
        """v = [0, ..., 0, 1]."""
        v = torch.zeros(self.n + 1, dtype=torch.float64)
        v[-1] = 1
        return v

    def success(self, log_p: Tensor) -> Success:
        """log S = N log p."""
        log_s = self.n * log_p
        return Success(log_s, log1mexp(log_s), torch.full_like(log_p, self.n))


@dataclass(frozen=True)
class Threshold(CountStrategy):
    """At least k of N samples succeed: the paper's fixed-threshold surrogate of a majority vote.

    S(p) = P[Bin(N, p) >= k]. ``-log S`` tends to k times cross-entropy as p -> 0: divide by k to have
    cross-entropy's scale. For the vote itself, with its rivals, see ``Majority``.
    """

    form: ClassVar[str] = "threshold@{n}:{k}"
    n: int
    k: int

    def __post_init__(self) -> None:
        """Check the budget and the threshold."""
        check_int("n", self.n, least=1)
        check_int("k", self.k, least=1)
        if self.k > self.n:
            raise BudgetError(f"threshold k must be <= N = {self.n}, got {self.k}: it cannot be met.")

    def table(self) -> Tensor:
        """v[j] = 1 for j >= k."""
        return (torch.arange(self.n + 1) >= self.k).double()


@dataclass(frozen=True)
class Graded(CountStrategy):
    """Any worth of the number of successes: ``values[k]`` for k successes among N = len(values) - 1 samples.

    A quota (three of four reviewers agree), partial credit, diminishing returns. It has one budget: another N
    needs another table.

    >>> Graded((0.0, 0.5, 1.0)).estimate(Outcomes(torch.tensor([1.0, 0.0]))).item()
    0.5
    """

    form: ClassVar[str] = "table({values})"
    values: tuple[float, ...]
    n: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the table."""
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))
        object.__setattr__(self, "n", len(self.values) - 1)
        if len(self.values) < 2 or not all(math.isfinite(v) for v in self.values):
            raise InputError(
                f"a table v[0..N] needs at least two finite values, v[0] for no success first, got {self.values}."
            )

    @property
    def traits(self) -> Traits:
        """Monotone if one more success is never worth less."""
        return Traits(binary=True, monotone=list(self.values) == sorted(self.values), selects=False)

    def table(self) -> Tensor:
        """v as given."""
        return torch.tensor(self.values, dtype=torch.float64)

    def at_budget(self, n: int) -> Graded:
        """A table belongs to one budget.

        Raises:
            NotDefinedError: unless ``n`` is that budget.
        """
        if n == self.n:
            return self
        raise NotDefinedError(f"{self} is a table for N = {self.n}; write the table for N = {n} to have its curve.")


@graph_constant
def u_table(s: CountStrategy, m: int, device: torch.device) -> Tensor:
    """U(m, c) for c = 0..m successes among m rollouts, (m+1,) float64: sum_k v_k Hyp(k; m, c, N).

    Built once per device, so that a credit on a GPU copies nothing from the host; a constant to torch.compile.
    """
    return _u_table(s, m, device)


@graph_constant
def _u_tables(s: CountStrategy, budgets: tuple[int, ...], m: int, device: torch.device) -> Tensor:
    """The same for several budgets, (m+1, len(budgets))."""
    return torch.stack([_u_table(s.at_budget(n), m, device) for n in budgets], dim=-1)


@graph_constant
def _credit_tables(s: CountStrategy, m: int, device: torch.device) -> Tensor:
    """Credits of a correct and of a wrong rollout for c = 0..m successes, (m+1, 2) float64; m >= N + 1."""
    return _credit_table(s, m, device)


@lru_cache(maxsize=1024)
def _credit_table(s: CountStrategy, m: int, device: torch.device) -> Tensor:
    """From the steps of v, so that no two values of U cancel.

    With h successes among the other m-1 rollouts, w_wrong = -N/m sum_k (v[k+1] - v[k]) Hyp(k; m-1, h, N-1)
    (h-k)/(m-N), and w_correct is the same with 1 - (h-k)/(m-N) in place of -(h-k)/(m-N).
    """
    # Only the steps of v enter: pass@N has one, so its table costs O(M) and not O(M N).
    n, step = s.n, s.table().diff()
    h, k = torch.arange(m, dtype=torch.float64)[:, None], step.nonzero()[:, 0].double()
    step = n / m * step[step != 0] * torch.exp(log_hypergeometric(k, h, m - 1, n - 1))  # (m, steps)
    wrong, correct = -(step * (h - k)).sum(-1) / (m - n), (step * (m - n - h + k)).sum(-1) / (m - n)
    return torch.stack([torch.cat([correct[:1], correct]), torch.cat([wrong, wrong[-1:]])], dim=-1).to(device)


@lru_cache(maxsize=1024)
def _success_tables(s: CountStrategy, device: torch.device) -> tuple[int, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """k0 (the least k with v[k] > 0), log v, log(1 - v), log C(N, k), the steps of v, and log C(N-1, k).

    Built once per device, so that a loss on a GPU copies nothing from the host.
    """
    n, v = s.n, s.table()
    if bool((v < 0).any() | (v > 1).any()) or not bool((v > 0).any()):
        raise NotDefinedError(f"log S(p) needs a table with values in [0, 1], got {v.tolist()}.")
    tables = (v.log(), torch.log1p(-v), log_binom_row(n), v.diff(), log_binom_row(n - 1))
    log_v, log_1mv, binom, step, fewer = (x.to(device) for x in tables)
    return int((v > 0).nonzero()[0]), log_v, log_1mv, binom, step, fewer


@lru_cache(maxsize=1024)
def _u_table(s: CountStrategy, m: int, device: torch.device) -> Tensor:
    n = s.n
    c = torch.arange(m + 1, dtype=torch.float64)
    # One term in place of N for these two.
    if isinstance(s, PassAt):
        table = some_drawn(c, m, n)
    elif isinstance(s, AllOf):
        table = torch.exp(log_none_drawn(m - c, m, n))
    else:
        v = s.table()
        k = v.nonzero()[:, 0].double()
        rows = c[:, None].split(max(CELLS // max(len(k), 1), 1))
        table = torch.cat([torch.exp(log_hypergeometric(k, part, m, n)) @ v[v != 0] for part in rows])
    return table.to(device)
