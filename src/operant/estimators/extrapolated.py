"""A budget N above the number of rollouts M: weights and values that are biased, with the bias as a number.

An advantage that M rollouts of a prompt determine has an expectation of degree <= M - 1 in p, the probability of
success, and the slope S'(p) = N sum_k (v[k+1] - v[k]) Bin(k; N-1, p) has degree N - 1: no unbiased weights exist.
What can be had is the right direction for every prompt, with a weight that sees the other rollouts only:

    w_i = (1/M) h(c_-i) (r_i - c_-i/(M-1)),      c_-i successes among the others,

for which E sum_i w_i grad log pi(y_i) = St'(p) grad p with St'(p) = E h(c'), c' ~ Bin(M-1, p): prompts are
weighed against one another by St' in place of S', and :func:`bias_beyond` says by how much. Derived here. For
budgets that the rollouts reach, ``credit`` and ``estimate`` are unbiased; these are refused there.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.special import betaln
from torch import Tensor

from operant.core.checks import BudgetError, InputError, check_int
from operant.core.logmath import log_binom_row, log_binomial
from operant.strategies.counts import CountStrategy
from operant.strategies.outcomes import Outcomes

Form = Literal["plug-in", "beta"]
JEFFREYS = (0.5, 0.5)


class Bias(NamedTuple):
    """Expectation minus truth at each success probability, (...) float64."""

    value: Tensor
    """E of :func:`estimate_beyond` - S(p)"""
    slope: Tensor
    """St'(p) - S'(p): what :func:`credit_beyond` climbs, less the slope that it should climb"""


def credit_beyond(
    s: CountStrategy, outcomes: Outcomes, form: Form = "beta", prior: tuple[float, float] = JEFFREYS
) -> Tensor:
    """RL weights for a budget N > M; biased across prompts, exact in direction for each.

    Args:
        s: a strategy with a table of counts, budget N > M.
        outcomes: (..., M), M >= 2, rewards 0 or 1.
        form: "plug-in" takes h(c') = S'(c'/(M-1)); "beta" the mean of S' over the posterior
            Beta(a + c', b + M - 1 - c'), in closed form.
        prior: (a, b) of "beta"; default Jeffreys.

    Returns:
        (..., M), dtype and device of the rewards. They do not sum to 0.

    Raises:
        BudgetError: if N <= M, where :func:`~operant.strategies.credit` is unbiased, or M < 2.
        InputError: for a form or a prior that does not exist, or rewards that are not 0 or 1.

    >>> from operant import PassAt
    >>> credit_beyond(PassAt(8), Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0])))
    tensor([ 1.1277, -0.0989, -0.0989, -0.0989])
    """
    m = _check(s, outcomes.m, form, prior)
    s.check_binary(outcomes)
    good = (outcomes.reward > 0).long()
    others = good.sum(-1, keepdim=True) - good  # c_-i
    h = _slopes(s, m - 1, form, prior).to(outcomes.reward.device)
    weights = h[others] * (good - others.double() / (m - 1)) / m
    return weights.to(outcomes.reward.dtype)


def estimate_beyond(
    s: CountStrategy, outcomes: Outcomes, form: Form = "beta", prior: tuple[float, float] = JEFFREYS
) -> Tensor:
    """S(c/M), or the mean of S over the posterior Beta(a + c, b + M - c): a biased value for a budget N > M.

    Args:
        s: a strategy with a table of counts, budget N > M.
        outcomes: (..., M), M >= 2, rewards 0 or 1.
        form: "plug-in" or "beta".
        prior: (a, b) of "beta"; default Jeffreys.

    Returns:
        (...), dtype and device of the rewards; its bias is ``bias_beyond(...).value``.

    Raises:
        BudgetError: if N <= M, where :func:`~operant.strategies.estimate` is unbiased, or M < 2.
        InputError: for a form or a prior that does not exist, or rewards that are not 0 or 1.

    >>> from operant import PassAt
    >>> estimate_beyond(PassAt(8), Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0])))
    tensor(0.8206)
    """
    m = _check(s, outcomes.m, form, prior)
    s.check_binary(outcomes)
    return _values(s, m, form, prior).to(outcomes.reward)[(outcomes.reward > 0).sum(-1)]


def bias_beyond(
    s: CountStrategy, m: int, p: Tensor, form: Form = "beta", prior: tuple[float, float] = JEFFREYS
) -> Bias:
    """What N > M costs at success probability ``p``: exact, by the sum over all counts of M rollouts.

    Args:
        s: a strategy with a table of counts, budget N > M.
        m: rollouts a prompt.
        p: (...) success probabilities in [0, 1].
        form: "plug-in" or "beta".
        prior: (a, b) of "beta"; default Jeffreys.

    Raises:
        BudgetError: if N <= M, or M < 2.
        InputError: for a form or a prior that does not exist, or ``p`` outside [0, 1].

    >>> from operant import PassAt
    >>> p = torch.tensor(0.03, dtype=torch.float64)
    >>> [round(bias_beyond(PassAt(64), 16, p, form).slope.item(), 1) for form in ("plug-in", "beta")]  # S' = 9.4
    [31.4, 10.1]
    """
    m = _check(s, check_int("m", m, least=1), form, prior)
    if not p.is_floating_point() or not bool(((p >= 0) & (p <= 1)).all()):
        raise InputError(f"p must be a floating tensor of probabilities in [0, 1], got {p}.")
    p = p.double()
    value, slope = _values(s, m, form, prior).to(p.device), _slopes(s, m - 1, form, prior).to(p.device)
    expected = (_binomial(m, p) @ value, _binomial(m - 1, p) @ slope)
    table = s.table().to(p.device)
    return Bias(expected[0] - _binomial(s.n, p) @ table, expected[1] - s.n * _binomial(s.n - 1, p) @ table.diff())


def _check(s: CountStrategy, m: int, form: str, prior: tuple[float, float]) -> int:
    if form not in ("plug-in", "beta"):
        raise InputError(f"form must be 'plug-in' or 'beta', got {form!r}.")
    if len(prior) != 2 or not all(math.isfinite(x) and x > 0 for x in prior):
        raise InputError(f"prior must be two positive numbers (a, b) of Beta(a, b), got {prior}.")
    if s.n <= m:
        raise BudgetError(
            f"{s} has a budget within the M = {m} rollouts: credit and estimate are unbiased there. The forms of "
            "this module are for N > M only."
        )
    if m < 2:
        raise BudgetError(f"expected at least two rollouts a prompt, got M = {m}: a baseline comes from the others.")
    return m


def _values(s: CountStrategy, m: int, form: Form, prior: tuple[float, float]) -> Tensor:
    """S at every count among m, (m+1,)."""
    return _probabilities(s.n, m, form, prior) @ s.table()


def _slopes(s: CountStrategy, m: int, form: Form, prior: tuple[float, float]) -> Tensor:
    """S' at every count among m, (m+1,)."""
    return s.n * _probabilities(s.n - 1, m, form, prior) @ s.table().diff()


def _probabilities(n: int, m: int, form: Form, prior: tuple[float, float]) -> Tensor:
    """P(k successes among n) given c among m, (m+1, n+1): binomial at c/m, or beta-binomial of the posterior."""
    c = torch.arange(m + 1, dtype=torch.float64)
    if form == "plug-in":
        return _binomial(n, c / m)
    a, b = (prior[0] + c)[:, None].numpy(), (prior[1] + m - c)[:, None].numpy()
    k = np.arange(n + 1)
    return torch.exp(log_binom_row(n) + torch.from_numpy(betaln(a + k, b + n - k) - betaln(a, b)))


def _binomial(n: int, p: Tensor) -> Tensor:
    """Bin(k; n, p), (...) -> (..., n+1)."""
    k, each = np.arange(n + 1, dtype=np.float64), p.cpu().numpy()[..., None]
    return log_binomial(k, n, each, 1 - each).exp().to(p.device)
