"""Families of strategies over budgets, as a plan compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, check_int
from operant.core.rng import torch_generator
from operant.hf.folder import Column
from operant.strategies import AllOf, BestOf, Majority, Outcomes, PassAt, Strategy, curve, estimate


@dataclass(frozen=True)
class StrategyFamily:
    """A strategy over budgets. ``fixed``: its budgets cannot be changed, as in a mixture, so it is a single point."""

    strategy: Strategy
    budgets: tuple[int, ...]
    fixed: bool = False

    @property
    def label(self) -> str:
        """The strategy with N in the place of its budget: ``pass@N``, ``threshold@N:3``."""
        return str(self.strategy) if self.fixed else self.strategy.family

    def at(self, n: int) -> Strategy:
        """The member with budget ``n``."""
        return self.strategy if self.fixed else self.strategy.at_budget(n)

    def values(self, outcomes: Outcomes) -> Tensor:
        """(B, len(budgets)) value of every prompt at every budget."""
        if self.fixed:
            return estimate(self.strategy, outcomes).value.double()[:, None]
        return curve(self.strategy, outcomes, self.budgets).per_prompt

    def columns(self, outcomes: Outcomes) -> dict[str, Column]:
        """Every member with its values, by its string."""
        values = self.values(outcomes)
        members = [self.at(n) for n in self.budgets]
        return {str(s): Column(self.label, s.n, values[:, j]) for j, s in enumerate(members)}

    def costs(self, outcomes: Outcomes) -> list[float]:
        """Mean number of samples drawn at every budget; N, its maximum, where there is no closed form."""
        costs = [self.at(n).estimate_cost(outcomes) for n in self.budgets]
        return [float(n) if c is None else c.mean().item() for n, c in zip(self.budgets, costs, strict=True)]


def families_of(
    outcomes: Outcomes, strategies: Sequence[Strategy] | None, budgets: Sequence[int] | None
) -> list[StrategyFamily]:
    """The families asked for, or every default one that the rollouts allow, with the budgets that each has.

    Args:
        outcomes: (B, M).
        strategies: one member a family; None: pass, maj, best and pass^, where the rollouts allow them.
        budgets: default 1, 2, 4, ... M.
    """
    m = outcomes.m
    budgets = sorted({check_int("budget", n, least=1) for n in budgets or [2**i for i in range(m.bit_length())]})
    if budgets[-1] > m:
        raise BudgetError(f"budgets up to {budgets[-1]} need as many rollouts a prompt, got M = {m}. Lower budgets.")
    chosen = list(strategies or [])
    if strategies is None:
        has_answers = outcomes.answer is not None and bool((outcomes.answer >= 0).any())
        chosen = [PassAt(1)] if outcomes.binary else []
        chosen += [Majority(1)] if has_answers else []
        chosen += [BestOf(1)] if outcomes.score is not None or not outcomes.binary else []
        chosen += [AllOf(1)] if outcomes.binary else []
    families = [_family(s, budgets, m) for s in chosen]
    # Two members of a family would give the same curve twice under one name.
    labels = [f.label for f in families]
    if not labels or len(set(labels)) < len(labels):
        raise InputError(f"expected distinct families of strategies, got {labels}: one member names a whole family.")
    return families


def _family(s: Strategy, budgets: Sequence[int], m: int) -> StrategyFamily:
    """The family of a member, at the budgets where a member exists: "at least 3 of N" has none at N = 2."""
    possible: list[int] = []
    for n in budgets:
        try:
            s.at_budget(n)
        except NotDefinedError:
            if s.n > m:
                raise BudgetError(f"{s} needs at least {s.n} rollouts a prompt, got M = {m}. Sample more.") from None
            return StrategyFamily(s, (s.n,), fixed=True)
        except BudgetError:
            continue
        possible.append(n)
    if not possible:
        raise BudgetError(f"{s} has no member with a budget among {list(budgets)}. Give others.")
    return StrategyFamily(s, tuple(possible))


def needs_verifier(s: Strategy, outcomes: Outcomes) -> bool:
    """Whether the deployed procedure has to know the rewards of its samples to choose among them.

    A procedure that chooses by answers or scores has a value that is affine in the rewards: V(r) + V(1 - r) = V(1) +
    V(0). This is tested on random rewards.
    """
    # One of the 64 draws that breaks the identity is enough.
    rows = torch.arange(64) % len(outcomes.reward)
    draw = outcomes.map(lambda x: x[rows, : s.n])
    reward = (torch.rand(draw.reward.shape, generator=torch_generator(0, "plan", "rewards")) < 0.5).double()

    def value(r: Tensor) -> Tensor:
        return s.value(Outcomes(r, draw.answer, draw.score))

    one, nil = torch.ones_like(reward), torch.zeros_like(reward)
    return not torch.allclose(value(reward) + value(1 - reward), value(one) + value(nil))
