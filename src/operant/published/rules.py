"""Published advantage rules as weights w of ``sum_i w_i grad log pi(y_i)``, positive = more likely; for ``audit``.

Every rule maps rewards (..., M) to weights (..., M), in the dtype of the rewards. An advantage that its source
averages over the group is divided by M here, so that every rule stands for the same sum; PKPO and grpo-passk are
sums in their sources already. Where a source is silent the eps and the M - 1 of the sd are those of its code.

in_i and out_i are the means of max@k over the k-subsets that contain, or lack, rollout i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, check_int
from operant.core.logmath import log_binom, log_none_drawn
from operant.published.paper import Recipe, WeightForm
from operant.strategies.base import Strategy
from operant.strategies.counts import PassAt
from operant.strategies.outcomes import Outcomes
from operant.strategies.routes import exact_credit

WeightRule = Callable[[Tensor], Tensor]
RuleFamily = Literal["one sample", "set estimators", "set advantages", "plug-ins"]


def dr_grpo(reward: Tensor) -> Tensor:
    """(r_i - mean) / M. Source: arXiv 2503.20783."""
    return (reward - reward.mean(-1, keepdim=True)) / reward.shape[-1]


def grpo(reward: Tensor) -> Tensor:
    """(r_i - mean) / (sd + 1e-4) / M. Source: arXiv 2402.03300; sd and eps as in TRL."""
    _at_least_two(reward)
    return dr_grpo(reward) / (reward.std(-1, keepdim=True) + 1e-4)


def rloo(reward: Tensor) -> Tensor:
    """(r_i - mean of the others) / M. Source: arXiv 2402.14740."""
    m = _at_least_two(reward)
    return dr_grpo(reward) * (m / (m - 1))


def maxrl(reward: Tensor) -> Tensor:
    """(r_i - mean) / mean / M as shipped, 0 without a success. Source: arXiv 2602.02710."""
    mean = _binary(reward).mean(-1, keepdim=True)
    return torch.where(mean > 0, dr_grpo(reward) / torch.where(mean > 0, mean, 1.0), 0.0)


def pkpo(k: int) -> WeightRule:
    """(k/M) in_i, the reward s_i. Source: arXiv 2505.15201, which has no baseline here."""

    def rule(reward: Tensor) -> Tensor:
        return k / reward.shape[-1] * _inside(reward, k)

    return rule


def pkpo_sloo(k: int) -> WeightRule:
    """(k/M) in_i - k/(M-1) out_i: s_i less the mean s of the others without i. Source: arXiv 2505.15201."""

    def rule(reward: Tensor) -> Tensor:
        m = _at_least_two(reward)
        return k / m * _inside(reward, k) - k / (m - 1) * _outside(reward, k)

    return rule


def pkpo_sloo_minus_one(k: int) -> WeightRule:
    """(k/M) (in_i - out_i of budget k-1), where the max of nothing is 0. Source: arXiv 2505.15201."""

    def rule(reward: Tensor) -> Tensor:
        without = _outside(reward, k - 1) if k > 1 else torch.zeros_like(reward)
        return k / reward.shape[-1] * (_inside(reward, k) - without)

    return rule


def centered(rule: WeightRule) -> WeightRule:
    """The rule as a trainer that subtracts the group mean uses it: w_i - mean of w."""

    def subtracted(reward: Tensor) -> Tensor:
        w = rule(reward)
        return w - w.mean(-1, keepdim=True)

    return subtracted


def passk_training(k: int) -> WeightRule:
    """(in_i - U) / sqrt(U (1-U)) / M with U = mean of in_i, 0 where U is 0 or 1. Source: arXiv 2508.10751."""

    def rule(reward: Tensor) -> Tensor:
        c, m = _binary(reward).double().sum(-1, keepdim=True), reward.shape[-1]
        inside = _inside(reward.double(), k)
        fail = torch.exp(log_none_drawn(c, m, k)).to(inside)  # 1 - U
        sd = (fail * (1 - fail)).sqrt()
        live = (c > 0) & (c <= m - k)
        return torch.where(live, (inside - 1 + fail) / torch.where(live, sd, 1.0) / m, 0.0).to(reward)

    return rule


def grpo_passk(reward: Tensor) -> Tensor:
    """Best minus second best, on the best rollout only. Source: arXiv 2503.19595, verl ``grpo_passk``."""
    _at_least_two(reward)
    top, where = reward.topk(2, dim=-1)
    return torch.zeros_like(reward).scatter(-1, where[..., :1], top[..., :1] - top[..., 1:])


def grpo_passk_std(reward: Tensor) -> Tensor:
    """``grpo_passk`` / (sd + 1e-6), verl's default. Source: verl ``grpo_passk``."""
    return grpo_passk(reward) / (reward.std(-1, keepdim=True) + 1e-6)


def plug_in(n: int) -> WeightRule:
    """n (1 - mean)^(n-1) times RLOO: the slope of pass@n at the group's own success rate."""

    def rule(reward: Tensor) -> Tensor:
        return n * (1 - _binary(reward).mean(-1, keepdim=True)) ** (n - 1) * rloo(reward)

    return rule


def cat(n: int, form: WeightForm) -> WeightRule:
    """``Recipe(form).weights`` of pass@n / M, p being the group's Laplace success rate. Source: arXiv 2604.24957.

    The paper's own pass@N runs put the sequence's probability for p: such a weight has no table in (r, c).
    """

    def rule(reward: Tensor) -> Tensor:
        return Recipe(form).weights(PassAt(n), Outcomes(_binary(reward))) / reward.shape[-1]

    return rule


def credit_of(s: Strategy) -> WeightRule:
    """:func:`~operant.credit` of a strategy as a rule."""
    return lambda reward: exact_credit(s, Outcomes(reward))


@dataclass(frozen=True)
class PublishedRule:
    """A published rule.

    Args:
        make: budget -> rule; rules of a single sample ignore the budget.
        family: what it is close to.
        source: where it is defined.
    """

    make: Callable[[int], WeightRule]
    family: RuleFamily
    source: str


RULES: Mapping[str, PublishedRule] = MappingProxyType(
    {
        "grpo": PublishedRule(lambda _: grpo, "one sample", "arXiv 2402.03300"),
        "dr-grpo": PublishedRule(lambda _: dr_grpo, "one sample", "arXiv 2503.20783"),
        "rloo": PublishedRule(lambda _: rloo, "one sample", "arXiv 2402.14740"),
        "maxrl": PublishedRule(lambda _: maxrl, "one sample", "arXiv 2602.02710"),
        "pkpo": PublishedRule(pkpo, "set estimators", "arXiv 2505.15201"),
        "pkpo-sloo": PublishedRule(pkpo_sloo, "set estimators", "arXiv 2505.15201"),
        "pkpo-sloo-1": PublishedRule(pkpo_sloo_minus_one, "set estimators", "arXiv 2505.15201"),
        "pkpo-centered": PublishedRule(lambda k: centered(pkpo(k)), "set estimators", "arXiv 2505.15201"),
        "pkpo-sloo-centered": PublishedRule(lambda k: centered(pkpo_sloo(k)), "set estimators", "arXiv 2505.15201"),
        "pkpo-sloo-1-centered": PublishedRule(
            lambda k: centered(pkpo_sloo_minus_one(k)), "set estimators", "arXiv 2505.15201"
        ),
        "passk-training": PublishedRule(passk_training, "set advantages", "arXiv 2508.10751"),
        "grpo-passk": PublishedRule(lambda _: grpo_passk, "set advantages", "arXiv 2503.19595"),
        "grpo-passk-std": PublishedRule(lambda _: grpo_passk_std, "set advantages", "verl grpo_passk"),
        "plug-in": PublishedRule(plug_in, "plug-ins", "arXiv 2604.24957 with RLOO"),
        "cat-raw": PublishedRule(lambda n: cat(n, "raw"), "plug-ins", "arXiv 2604.24957"),
        "cat-log": PublishedRule(lambda n: cat(n, "log"), "plug-ins", "arXiv 2604.24957"),
    }
)
"""Every published rule by its name."""


def _inside(reward: Tensor, k: int) -> Tensor:
    """in_i: sorted ascending, [C(i,k-1) x_(i) + sum_{j>i} C(j-1,k-2) x_(j)] / C(M-1,k-1)."""
    m = reward.shape[-1]
    _check_k(k, m, spare=0)
    x, order = reward.double().sort(dim=-1)
    i = torch.arange(m, dtype=torch.float64)
    # In logarithms: C(M-1, k-1) exceeds float64 for M in the thousands.
    scale = log_binom(m - 1, k - 1)
    own, above = (torch.exp(log_binom(*ways) - scale).to(x) for ways in ((i, k - 1), (i - 1, k - 2)))
    return _unsorted(own * x + _after(above * x), order).to(reward)


def _outside(reward: Tensor, k: int) -> Tensor:
    """out_i: [sum_{j<i} C(j,k-1) x_(j) + sum_{j>i} C(j-1,k-1) x_(j)] / C(M-1,k)."""
    m = reward.shape[-1]
    _check_k(k, m, spare=1)
    x, order = reward.double().sort(dim=-1)
    i = torch.arange(m, dtype=torch.float64)
    scale = log_binom(m - 1, k)
    below, above = (torch.exp(log_binom(j, k - 1) - scale).to(x) for j in (i, i - 1))
    before = (below * x).cumsum(-1) - below * x
    return _unsorted(before + _after(above * x), order).to(reward)


def _after(terms: Tensor) -> Tensor:
    """Sum of the later terms."""
    return terms.flip(-1).cumsum(-1).flip(-1) - terms


def _unsorted(values: Tensor, order: Tensor) -> Tensor:
    return torch.zeros_like(values).scatter(-1, order, values)


def _check_k(k: int, m: int, *, spare: int) -> None:
    if check_int("k", k, least=1) > m - spare:
        raise BudgetError(
            f"with M = {m} rollouts a prompt this rule takes subsets of 1 to {m - spare} of them, got {k}. "
            "Lower its budget or sample more rollouts."
        )


def _at_least_two(reward: Tensor) -> int:
    m = reward.shape[-1]
    if m < 2:
        raise BudgetError(f"this rule compares a rollout with the others of its group: it needs M >= 2, got {m}.")
    return m


def _binary(reward: Tensor) -> Tensor:
    if bool(((reward != 0) & (reward != 1)).any()):
        raise InputError("this rule is defined for rewards of 0 and 1 only. Binarize them: (reward == 1).")
    return reward
