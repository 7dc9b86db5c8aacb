"""Majority vote and quorum over answer classes: exact with rivals and ties, without replacement.

The probabilities are those of ``plurality``. The objective is Compute Aligned Training's vote (arXiv 2604.24957),
which it approximates by ``Threshold``; the quorum reads the same table from k votes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, check_int
from operant.strategies.base import Strategy, Traits
from operant.strategies.outcomes import Outcomes
from operant.strategies.votes.ballots import Ballots, Counts, answers_of
from operant.strategies.votes.poisson import vote_population
from operant.strategies.votes.product import Ties


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

    form: ClassVar[str] = "maj@{n}[:{ties}]"
    n: int
    ties: Ties = "random"

    def __post_init__(self) -> None:
        """Check the budget and the tie rule."""
        check_int("n", self.n, least=1)
        _check_ties(self.ties)

    @property
    def traits(self) -> Traits:
        """It votes."""
        return Traits(answers=True)

    def value(self, draw: Outcomes) -> Tensor:
        """Mean reward of the votes for the classes that lead."""
        return _value(answers_of(self, draw), draw.reward, 1, self.ties)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Sum over classes of P(class wins) times its mean reward."""
        return self.estimate_budgets(outcomes, [self.n])[..., 0]

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor:
        """Every budget from the same products of polynomials."""
        return _estimate(answers_of(self, outcomes), outcomes.reward, budgets, 1, self.ties)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without i; it depends on the class of i only (and on its reward, if those differ within)."""
        return _credit(answers_of(self, outcomes), outcomes.reward, self.n, 1, self.ties)

    def population(self, log_q: Tensor, kinds: Outcomes) -> Tensor:
        """The same products with Poisson weights; dJ/dlog q_b = N q_b E[V | one draw is b]."""
        return vote_population(answers_of(self, kinds), kinds.reward, log_q, self.n, 1, self.ties)


@dataclass(frozen=True)
class Quorum(Strategy):
    """Plurality vote that answers only if the winner has at least k of the N votes, and abstains (0) otherwise.

    An answer of reward r is worth r - penalty (1 - r): 1 if correct, -penalty if wrong.

    Args:
        n: the budget N.
        k: the votes that are needed, k <= N.
        penalty: the price of a wrong answer, >= 0, in units of a correct one.
        ties: "random" breaks ties at the top uniformly; "fail" abstains on a tie.

    >>> o = Outcomes(torch.tensor([1.0, 1.0, 0.0, 0.0]), answer=torch.tensor([7, 7, 3, 3]))
    >>> round(Quorum(3, 2, penalty=0.5).estimate(o).item(), 6)  # 7 and 3 win half of the draws each
    0.25
    >>> Quorum(3, 3).estimate(o).item()
    0.0
    """

    form: ClassVar[str] = "quorum@{n}:{k}[:{penalty}][:{ties}]"
    n: int
    k: int
    penalty: float = 0.0
    ties: Ties = "random"

    def __post_init__(self) -> None:
        """Check the budget, the quorum, the penalty and the tie rule."""
        check_int("n", self.n, least=1)
        check_int("k", self.k, least=1)
        if self.k > self.n:
            raise BudgetError(f"quorum k must be <= N = {self.n}, got {self.k}: it cannot be met.")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise InputError(
                f"penalty must be finite and >= 0, got {self.penalty!r}: it is what a wrong answer costs when a "
                "correct one earns 1."
            )
        _check_ties(self.ties)

    @property
    def traits(self) -> Traits:
        """It votes; with a penalty the value is no reward."""
        return Traits(answers=True, selects=self.penalty == 0)

    def value(self, draw: Outcomes) -> Tensor:
        """Worth of the leading classes if they have k votes."""
        return _value(answers_of(self, draw), self._worth(draw), self.k, self.ties)

    def estimate(self, outcomes: Outcomes) -> Tensor:
        """Sum over classes of P(class wins with k votes or more) times its mean worth."""
        return self.estimate_budgets(outcomes, [self.n])[..., 0]

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor:
        """Every budget from the same products; the quorum k stays, so budgets below k always abstain."""
        return _estimate(answers_of(self, outcomes), self._worth(outcomes), budgets, self.k, self.ties)

    def credit(self, outcomes: Outcomes) -> Tensor:
        """U - U without i, as for ``Majority``."""
        return _credit(answers_of(self, outcomes), self._worth(outcomes), self.n, self.k, self.ties)

    def population(self, log_q: Tensor, kinds: Outcomes) -> Tensor:
        """The same products with Poisson weights; dJ/dlog q_b = N q_b E[V | one draw is b]."""
        return vote_population(answers_of(self, kinds), self._worth(kinds), log_q, self.n, self.k, self.ties)

    def _worth(self, outcomes: Outcomes) -> Tensor:
        reward = outcomes.reward
        return reward if self.penalty == 0 else reward - self.penalty * (1 - reward)


def _check_ties(ties: str) -> None:
    if ties not in ("random", "fail"):
        raise InputError(f"ties must be 'random' or 'fail', got {ties!r}.")


def _value(answer: Tensor, reward: Tensor, least: int, ties: Ties) -> Tensor:
    """Mean reward of the votes for the classes that lead with at least ``least`` votes: (..., N) -> (...)."""
    valid = answer >= 0
    votes = ((answer[..., :, None] == answer[..., None, :]) & valid[..., None]).sum(-1)
    # Below ``least`` votes no class reaches the clamped maximum, so no class leads.
    top = votes.amax(-1, keepdim=True).clamp(min=least)
    lead = valid & (votes == top)
    leaders = lead.sum(-1)
    value = torch.where(lead, reward, 0).sum(-1) / leaders.clamp(min=1)
    return value if ties == "random" else torch.where(leaders == top[..., 0], value, 0)


def _estimate(answer: Tensor, reward: Tensor, budgets: Sequence[int], least: int, ties: Ties) -> Tensor:
    """(..., M) -> (..., len(budgets))."""
    tally = Counts(Ballots(answer, reward), budgets)
    tally.plurality(ties, least)
    return tally.value.reshape(*reward.shape[:-1], len(budgets)).to(reward)


def _credit(answer: Tensor, reward: Tensor, n: int, least: int, ties: Ties) -> Tensor:
    """U - U without i, (..., M)."""
    tally = Counts(Ballots(answer, reward), [n], credit=True)
    tally.plurality(ties, least)
    return tally.weights().reshape(reward.shape).to(reward)
