"""A budget N above the number of rollouts M: weights and values that are biased, with the bias as a number.

An advantage that M rollouts of a prompt determine has an expectation of degree <= M - 1 in p, the probability of
success. The slope S'(p) = N sum_k (v[k+1] - v[k]) Bin(k; N-1, p) has degree N - 1, so no unbiased weights exist.
What can be had is the right direction for every prompt, with a weight that depends on the other rollouts only:

    w_i = (1/M) h(c_-i) (r_i - c_-i/(M-1)),      c_-i successes among the others,

for which E sum_i w_i grad log pi(y_i) = St'(p) grad p with St'(p) = E h(c'), c' ~ Bin(M-1, p). Prompts are weighed
against one another by St' in place of S'; :meth:`Extrapolation.bias` gives the difference. Derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import betaln
from torch import Tensor

from operant.core.checks import BudgetError, InputError, check_int
from operant.core.logmath import log_binom_row, log_binomial
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy
from operant.strategies.outcomes import Outcomes


class Bias(NamedTuple):
    """Expectation minus truth at each success probability, (...) float64."""

    value: Tensor
    """E of :meth:`Extrapolation.estimate` - S(p)"""
    slope: Tensor
    """St'(p) - S'(p), for :meth:`Extrapolation.credit`"""


@dataclass(frozen=True)
class Extrapolation:
    """Weights and values for a budget N > M of a strategy that counts successes.

    Args:
        prior: (a, b) takes the mean of S, and of S', over the posterior Beta(a + c, b + M - c), in closed form; the
            default is Jeffreys' prior. None plugs in the success rate c/M of the prompt itself.

    Raises:
        InputError: for a prior that is no pair of positive numbers.

    >>> from operant import PassAt
    >>> Extrapolation().estimate(PassAt(8), Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0])))
    tensor(0.8206)
    """

    # Jeffreys: for pass@64 from M = 16 at p = 0.03 the slope is off by +10.1, with the plug-in by +31.4 (S' = 9.4).
    # Neither is best everywhere; docs/strategies/extrapolated.md compares them.
    prior: tuple[float, float] | None = (0.5, 0.5)

    def __post_init__(self) -> None:
        """Check the prior."""
        if self.prior is not None and (len(self.prior) != 2 or not all(math.isfinite(x) and x > 0 for x in self.prior)):
            raise InputError(f"prior must be two positive numbers (a, b) of Beta(a, b), or None, got {self.prior}.")

    def credit(self, s: Strategy, outcomes: Outcomes) -> Tensor:
        """RL weights for a budget N > M; biased across prompts, exact in direction for each.

        Args:
            s: a strategy that counts successes, budget N > M.
            outcomes: (..., M), M >= 2, rewards 0 or 1.

        Returns:
            (..., M), dtype and device of the rewards. They do not sum to 0.

        Raises:
            BudgetError: if N <= M, where :func:`~operant.credit` is unbiased, or M < 2.
            InputError: for rewards that are not 0 or 1, or a strategy that does not count successes.

        >>> from operant import PassAt
        >>> Extrapolation().credit(PassAt(8), Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0])))
        tensor([ 1.1277, -0.0989, -0.0989, -0.0989])
        """
        m, counts = outcomes.m, _checked(s, outcomes.m)
        counts.check_binary(outcomes)
        good = (outcomes.reward > 0).long()
        others = good.sum(-1, keepdim=True) - good  # c_-i
        h = self._slopes(counts, m - 1).to(outcomes.reward.device)
        weights = h[others] * (good - others.double() / (m - 1)) / m
        return weights.to(outcomes.reward.dtype)

    def estimate(self, s: Strategy, outcomes: Outcomes) -> Tensor:
        """A biased value for a budget N > M: (..., M) -> (...), arguments and errors as for :meth:`credit`.

        Its bias is the ``value`` of :meth:`bias`.
        """
        counts = _checked(s, outcomes.m)
        counts.check_binary(outcomes)
        return self._values(counts, outcomes.m).to(outcomes.reward)[(outcomes.reward > 0).sum(-1)]

    def bias(self, s: Strategy, m: int, p: Tensor) -> Bias:
        """What N > M costs at success probability ``p``: exact, by the sum over all counts of M rollouts.

        Args:
            s: a strategy that counts successes, budget N > M.
            m: rollouts a prompt.
            p: (...) success probabilities in [0, 1].

        Raises:
            BudgetError: if N <= M, or M < 2.
            InputError: for ``p`` outside [0, 1], or a strategy that does not count successes.

        >>> from operant import PassAt
        >>> p = torch.tensor(0.03, dtype=torch.float64)
        >>> [round(Extrapolation(prior).bias(PassAt(64), 16, p).slope.item(), 1) for prior in (None, (0.5, 0.5))]
        [31.4, 10.1]
        """
        counts = _checked(s, check_int("m", m, least=1))
        if not p.is_floating_point() or not bool(((p >= 0) & (p <= 1)).all()):
            raise InputError(f"p must be a floating tensor of probabilities in [0, 1], got {p}.")
        p, n = p.double(), s.n
        value, slope = self._values(counts, m).to(p.device), self._slopes(counts, m - 1).to(p.device)
        table = counts.table().to(p.device)
        return Bias(
            _binomial(m, p) @ value - _binomial(n, p) @ table,
            _binomial(m - 1, p) @ slope - n * _binomial(n - 1, p) @ table.diff(),
        )

    def _values(self, s: CountStrategy, m: int) -> Tensor:
        """S at every count among m, (m+1,)."""
        return self._probabilities(s.n, m) @ s.table()

    def _slopes(self, s: CountStrategy, m: int) -> Tensor:
        """S' at every count among m, (m+1,)."""
        return s.n * self._probabilities(s.n - 1, m) @ s.table().diff()

    def _probabilities(self, n: int, m: int) -> Tensor:
        """P(k successes among n) given c among m, (m+1, n+1): binomial at c/m, or beta-binomial of the posterior."""
        c = torch.arange(m + 1, dtype=torch.float64)
        if self.prior is None:
            return _binomial(n, c / m)
        a, b = (self.prior[0] + c)[:, None].numpy(), (self.prior[1] + m - c)[:, None].numpy()
        k = np.arange(n + 1)
        return torch.exp(log_binom_row(n) + torch.from_numpy(betaln(a + k, b + n - k) - betaln(a, b)))


def _checked(s: Strategy, m: int) -> CountStrategy:
    if not isinstance(s, CountStrategy):
        raise InputError(f"a budget N > M can be extrapolated for strategies that count successes, got {s}.")
    if s.n <= m:
        raise BudgetError(
            f"{s} has a budget within the M = {m} rollouts: credit and estimate are unbiased there. An extrapolation "
            "is for N > M only."
        )
    if m < 2:
        raise BudgetError(f"expected at least two rollouts a prompt, got M = {m}: a baseline comes from the others.")
    return s


def _binomial(n: int, p: Tensor) -> Tensor:
    """Bin(k; n, p), (...) -> (..., n+1)."""
    k, each = np.arange(n + 1, dtype=np.float64), p.cpu().numpy()[..., None]
    return log_binomial(k, n, each, 1 - each).exp().to(p.device)
