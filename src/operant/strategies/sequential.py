"""Strategies that stop early, what they cost, and the objective value - price * cost.

A sequential strategy takes its samples one at a time. Rollouts are exchangeable, so the mean over all ordered
draws of N of the M has closed forms for the value and for the number of samples drawn, without Monte Carlo.
Derived here (adaptive self-consistency, arXiv 2305.11860, stops votes early but does not train for it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from operant.core.checks import InputError, check_int
from operant.core.logmath import some_drawn
from operant.strategies import routes
from operant.strategies.base import Strategy, Traits, check_nesting
from operant.strategies.outcomes import Outcomes


class Sequential(Strategy):
    """A strategy whose samples are drawn in order and which may stop before the budget is spent."""

    @property
    def traits(self) -> Traits:
        """The order of the draw matters."""
        return Traits(symmetric=False)


@dataclass(frozen=True)
class FirstAccepted(Sequential):
    """Draw until the selector accepts a sample, at most N times, and return that sample.

    U = (1 - none) mean reward of the T accepted + none * mean reward of the M - T rejected,
    none = C(M-T,N) / C(M,N); draws = sum_{n<N} C(M-T,n) / C(M,n) = (M+1)/(T+1) [1 - C(M-T,N) / C(M+1,N)].

    Args:
        n: the budget N.
        accept: a sample is accepted where score >= accept; None: scores are verdicts, 0 or 1.
        fallback: what is returned when all N are rejected. "random" returns one of them, which is worth as
            much as the last one: a deployed system has to answer, and N = 1 then earns the mean reward.
            "fail" earns nothing.

    >>> o = Outcomes(torch.tensor([1.0, 0.0, 0.0]), score=torch.tensor([1, 1, 0]))
    >>> round(FirstAccepted(2).estimate(o).item(), 6), round(FirstAccepted(2).estimate_cost(o).item(), 6)
    (0.5, 1.333333)
    """

    form: ClassVar[str] = "first@{n}[:{accept}][:{fallback}]"
    n: int
    accept: float | None = None
    fallback: Literal["random", "fail"] = "random"

    def __post_init__(self) -> None:
        """Check the budget, the threshold and the fallback."""
        check_int("n", self.n, least=1)
        if self.accept is not None and not math.isfinite(self.accept):
            raise InputError(f"accept must be a finite score, got {self.accept!r}.")
        if self.fallback not in ("random", "fail"):
            raise InputError(f"fallback must be 'random' or 'fail', got {self.fallback!r}.")

    @property
    def traits(self) -> Traits:
        """Without a threshold the reward, where there is no score, is the verdict."""
        return replace(super().traits, binary=self.accept is None)

    def value(self, draw: Outcomes) -> Tensor:
        """Reward of the first accepted sample."""
        accepted = self._accepted(draw)
        # int8, because argmax takes no booleans.
        first = draw.reward.gather(-1, accepted.to(torch.int8).argmax(-1, keepdim=True))[..., 0]
        none = draw.reward.mean(-1) if self.fallback == "random" else torch.zeros_like(first)
        return torch.where(accepted.any(-1), first, none)

    def cost(self, draw: Outcomes) -> Tensor:
        """Position of the first accepted sample, or N."""
        accepted = self._accepted(draw)
        first = accepted.to(torch.int8).argmax(-1) + 1
        return torch.where(accepted.any(-1), first, self.n).to(draw.reward)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Read from tables over the number T of accepted rollouts."""
        accepted, reward = self._accepted(outcomes), outcomes.reward.double()
        good, bad = torch.where(accepted, reward, 0).sum(-1), torch.where(accepted, 0, reward).sum(-1)
        return self._mean(outcomes.m, accepted.sum(-1), good, bad).to(outcomes.reward)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without i."""
        accepted, reward = self._accepted(outcomes), outcomes.reward.double()
        good, bad = (torch.where(x, reward, 0).sum(-1, keepdim=True) for x in (accepted, ~accepted))
        t = accepted.sum(-1, keepdim=True)
        without = torch.where(
            accepted,
            self._mean(outcomes.m - 1, t - 1, good - reward, bad),
            self._mean(outcomes.m - 1, t, good, bad - reward),
        )
        return (self._mean(outcomes.m, t, good, bad) - without).to(outcomes.reward)

    def estimate_cost(self, outcomes: Outcomes) -> Tensor:
        """Read from a table over T."""
        draws = _some_and_draws(self.n, outcomes.m)[1].to(outcomes.reward.device)
        return draws[self._accepted(outcomes).sum(-1)].to(outcomes.reward)

    def credit_cost(self, outcomes: Outcomes) -> Tensor:
        """D(M,T) - D(M-1,T-1) for an accepted rollout, D(M,T) - D(M-1,T) for a rejected one."""
        accepted = self._accepted(outcomes)
        t, device = accepted.sum(-1, keepdim=True), outcomes.reward.device
        whole, fewer = (_some_and_draws(self.n, m)[1].to(device) for m in (outcomes.m, outcomes.m - 1))
        without = torch.where(accepted, fewer[(t - 1).clamp(min=0)], fewer[t.clamp(max=outcomes.m - 1)])
        return (whole[t] - without).to(outcomes.reward)

    def _mean(self, m: int, t: Tensor, good: Tensor, bad: Tensor) -> Tensor:
        """U from T and the summed rewards of the accepted and of the rejected; T outside 0..m is never used."""
        t = t.clamp(min=0, max=m)
        some = _some_and_draws(self.n, m)[0].to(good.device)[t]
        found = some * good / t.clamp(min=1)
        return found if self.fallback == "fail" else found + (1 - some) * bad / (m - t).clamp(min=1)

    def _accepted(self, outcomes: Outcomes) -> Tensor:
        score = outcomes.selector
        if self.accept is not None:
            return score >= self.accept
        if not outcomes.verdicts:
            raise InputError(
                f"{self} takes verdicts: scores (or rewards, where there is no score) must be 0 or 1, got other "
                f"values. Say which score is accepted, for example first@{self.n}:0.5 or FirstAccepted({self.n}, 0.5)."
            )
        return score > 0


@lru_cache(maxsize=256)
def _some_and_draws(n: int, m: int) -> tuple[Tensor, Tensor]:
    """P(at least one of N is accepted) and the mean draws, for T = 0..m accepted among m: (m+1,) float64 each.

    The draws stop where the first of T accepted stands, or at N: (m+1)/(T+1) times the chance that one of T + 1 among
    m + 1 is within N.
    """
    t = torch.arange(m + 1, dtype=torch.float64)
    return some_drawn(t, m, n), (m + 1) / (t + 1) * some_drawn(t + 1, m + 1, n)


@dataclass(frozen=True)
class Priced(Strategy):
    """value - price * cost: what a strategy earns, less what its samples cost.

    Args:
        strategy: any strategy.
        price: what one sample costs, in units of reward, >= 0.

    >>> o = Outcomes(torch.tensor([1.0, 0.0, 0.0]), score=torch.tensor([1, 1, 0]))
    >>> round(Priced(FirstAccepted(2), 0.03).estimate(o).item(), 6)
    0.46
    """

    form: ClassVar[str] = "priced({strategy}, {price})"
    strategy: Strategy
    price: float
    n: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the price."""
        object.__setattr__(self, "n", self.strategy.n)
        if not (math.isfinite(self.price) and self.price >= 0):
            raise InputError(f"price must be a finite number >= 0, in units of reward a sample, got {self.price!r}.")
        check_nesting(self)

    @property
    def inner(self) -> tuple[Strategy, ...]:
        """The strategy that is priced."""
        return (self.strategy,)

    @property
    def traits(self) -> Traits:
        """Those of the strategy; the value is no reward."""
        return replace(self.strategy.traits, selects=False)

    def value(self, draw: Outcomes) -> Tensor:
        """Value less price times cost of one draw."""
        return self.strategy.value(draw) - self.price * self.cost(draw)

    def estimate(self, outcomes: Outcomes) -> Tensor | None:
        """From the closed forms of value and cost, where the strategy has both."""
        value, cost = self.strategy.estimate(outcomes), self.estimate_cost(outcomes)
        return None if value is None or cost is None else value - self.price * cost

    def credit(self, outcomes: Outcomes) -> Tensor:
        """Credit of the value less price times credit of the cost."""
        # Value and cost take a route each: one can have a closed form where the other has none.
        cost = routes.exact_credit(_Draws(self.strategy), outcomes)
        return routes.exact_credit(self.strategy, outcomes) - self.price * cost

    def cost(self, draw: Outcomes) -> Tensor:
        """That of the strategy."""
        return self.strategy.cost(draw)

    def estimate_cost(self, outcomes: Outcomes) -> Tensor | None:
        """That of the strategy."""
        return self.strategy.estimate_cost(outcomes)

    def credit_cost(self, outcomes: Outcomes) -> Tensor | None:
        """That of the strategy."""
        return self.strategy.credit_cost(outcomes)

    def at_budget(self, n: int) -> Priced:
        """The strategy at another budget, at the same price."""
        return replace(self, strategy=self.strategy.at_budget(n))


def expected_draws(strategy: Strategy, outcomes: Outcomes) -> Tensor:
    """Mean number of samples that the strategy draws on each prompt, unbiased: (..., M) -> (...).

    Args:
        strategy: budget N; one that never stops early draws N.
        outcomes: (..., M), M >= N.

    Raises:
        BudgetError: if N > M.

    >>> from operant import parse
    >>> o = Outcomes(torch.tensor([1.0, 1.0, 0.0, 0.0]), answer=torch.tensor([7, 7, 3, 5]))
    >>> round(expected_draws(parse("race@4:2"), o).item(), 6)
    3.333333
    """
    draws = _Draws(strategy)
    cost = strategy.estimate_cost(outcomes) if routes.route_of(draws, outcomes) == "closed form" else None
    return routes.estimate(draws, outcomes).value if cost is None else cost


@dataclass(frozen=True)
class _Draws(Strategy):
    """The cost of a strategy in place of its value: every route then applies to it."""

    strategy: Strategy
    n: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", self.strategy.n)

    @property
    def traits(self) -> Traits:
        return self.strategy.traits

    def value(self, draw: Outcomes) -> Tensor:
        return self.strategy.cost(draw)

    def estimate(self, outcomes: Outcomes) -> Tensor | None:
        return self.strategy.estimate_cost(outcomes)

    def credit(self, outcomes: Outcomes) -> Tensor | None:
        return self.strategy.credit_cost(outcomes)

    def named(self, n: int | str) -> str:
        return f"draws({self.strategy.named(n)})"
