"""The rollouts of one generation step on all processes, and the advantages of the published forms for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from operant.objectives.groups import Advantages
from operant.published.paper import Quantiles, Recipe
from operant.strategies import Outcomes, Strategy, estimate


@dataclass
class Batch:
    """B groups of M rollouts, gathered over all processes.

    Args:
        strategy: the strategy of the step.
        step: optimizer steps that were taken when the credit was computed.
        reward: (B, M), NaN for a rollout that could not be scored.
        answer: (B, M) answer classes, -1 without an answer; None if no reward function gives answers.
        score: (B, M) values that rank the rollouts; None if the reward does.
        log_p: (B, M) log-probabilities of the rollouts; only for a published form that needs them.
        log_mu: (B M / processes,) log-probabilities of this process's rollouts under the policy that sampled them;
            set before the first off-policy step.
        groups: advantages and what is logged of them.
    """

    strategy: Strategy
    step: int
    reward: Tensor
    answer: Tensor | None
    score: Tensor | None
    log_p: Tensor | None = None
    log_mu: Tensor | None = None
    groups: Advantages = field(init=False)

    @property
    def outcomes(self) -> Outcomes:
        """The rollouts as the estimators take them."""
        return Outcomes(self.reward, self.answer, self.score)


def published_groups(recipe: Recipe, quantiles: Quantiles | None, batch: Batch) -> Advantages:
    """Advantages of a published recipe for the whole batch; a group with an unscored rollout has advantage 0.

    Args:
        recipe: the published settings.
        quantiles: the history of rewards that best-of-N ranks against; new rewards are added to it.
        batch: the rollouts.
    """
    unscored = ~batch.reward.isfinite() if batch.score is None else ~(batch.reward.isfinite() & batch.score.isfinite())
    whole = ~unscored.any(-1)
    advantage = torch.zeros_like(batch.reward, dtype=torch.float64)
    value = torch.full_like(advantage[:, 0], torch.nan)
    if bool(whole.any()):
        r, a, s, p = (None if x is None else x[whole] for x in (batch.reward, batch.answer, batch.score, batch.log_p))
        assert r is not None
        o = Outcomes(r.double(), a, None if s is None else s.double())
        advantage[whole] = recipe.weights(batch.strategy, o, log_p=p, quantiles=quantiles).double()
        if batch.strategy.n <= o.m:
            value[whole] = estimate(batch.strategy, o).value
    return Advantages(advantage, value, (advantage == 0).all(-1), unscored)
