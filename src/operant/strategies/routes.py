"""Evaluation and RL credit of any strategy, by the cheapest exact route that it allows.

U(z) is the mean of the value over all N-subsets of the M rollouts: unbiased for J = E V. The credit is the
jackknife w_i = U(z) - U(z without i) = (N/M)(in_i - out_i): unbiased, E sum_i w_i grad log pi(y_i) = grad J,
and it sums to zero exactly. (M-1)/M sum_i w_i^2 is the jackknife variance of U. At M = N no rollout can be
left out, and the baseline is resampled: w_i = V(z) - mean over j != i of V(z with z_i replaced by z_j).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, check_int
from operant.strategies import slowroutes
from operant.strategies.base import Strategy, check_answers
from operant.strategies.outcomes import Outcomes
from operant.strategies.slowroutes import LIMIT

Route = Literal["closed form", "types", "subsets", "monte carlo"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Value of a strategy per prompt, with its standard error.

    Args:
        value: (...) mean over the N-subsets of the M rollouts.
        stderr: (...) jackknife standard error over rollouts; NaN at M = N, where no rollout can be left out.
        route: how it was computed.
    """

    value: Tensor
    stderr: Tensor
    route: Route

    def over_prompts(self) -> tuple[float, float]:
        """Mean over prompts and its standard error, sd / sqrt(B): prompts and rollouts both vary."""
        mean, stderr = _mean_and_stderr(self.value.reshape(-1, 1).double())
        return mean.item(), stderr.item()


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """A strategy over budgets.

    Args:
        budgets: the budgets N.
        value: (len(budgets),) mean over prompts.
        stderr: (len(budgets),) standard error over prompts, sd / sqrt(B); NaN for a single prompt.
        per_prompt: (B, len(budgets)).
    """

    budgets: tuple[int, ...]
    value: Tensor
    stderr: Tensor
    per_prompt: Tensor


def route_of(s: Strategy, outcomes: Outcomes) -> Route:
    """The route that :func:`estimate` and :func:`~operant.credit` take by default on these outcomes."""
    _check_fit(s, outcomes)
    # Whether there is a closed form may depend on the size (lead@N:d has one up to N = 32), so one prompt is tried.
    if type(s).estimate is not Strategy.estimate and s.estimate(outcomes.map(_first)) is not None:
        return "closed form"
    if not s.traits.symmetric:
        return "monte carlo"
    if slowroutes.calls_by_types(s, slowroutes.flatten(outcomes)) <= LIMIT:
        return "types"
    return "subsets" if math.comb(outcomes.m, s.n) <= LIMIT else "monte carlo"


@torch.no_grad()
def estimate(
    s: Strategy, outcomes: Outcomes, *, route: Route | None = None, draws: int = 2048, seed: int = 0
) -> Estimate:
    """Unbiased estimate of the deployed value E V from M >= N rollouts a prompt. No gradient goes through it.

    Args:
        s: the strategy, budget N.
        outcomes: (..., M).
        route: default the cheapest exact one, see :func:`route_of`.
        draws: blocks of N rollouts per prompt, for Monte Carlo only.
        seed: for Monte Carlo only.

    Raises:
        BudgetError: if N > M: E V is a polynomial of degree N in p, and no function of M rollouts has an
            expectation of degree above M.
        InputError: for a route that does not exist, or a vote over outcomes without answer classes.
        NotDefinedError: for a route that the strategy does not have.

    >>> from operant import PassAt
    >>> e = estimate(PassAt(2), Outcomes(torch.tensor([[1.0, 0.0, 0.0, 0.0]])))
    >>> round(e.value.item(), 6), round(e.stderr.item(), 6), e.route
    (0.5, 0.5, 'closed form')
    """
    _check_fit(s, outcomes)
    route = _chosen(s, outcomes, route)
    spare = outcomes.m > s.n
    if route == "closed form":
        value = s.estimate(outcomes)
        weights = _closed_credit(s, outcomes) if spare else None
        if value is None:
            raise NotDefinedError(f"{s} has no closed form; leave out route= or choose another.")
    else:
        value, weights = slowroutes.value_and_credit(s, outcomes, route, draws, seed)
    m = outcomes.m
    if weights is None or not spare:
        return Estimate(value, torch.full_like(value, math.nan), route)
    # The jackknife variance of U is (M-1)/M sum_i w_i^2, and the weights w are known here.
    return Estimate(value, ((m - 1) / m * weights.square().sum(-1)).sqrt(), route)


@torch.no_grad()
def exact_credit(
    s: Strategy, outcomes: Outcomes, *, route: Route | None = None, draws: int = 2048, seed: int = 0
) -> Tensor:
    """The unbiased on-policy weights (..., M) of :func:`~operant.credit`, where arguments and errors are described."""
    _check_fit(s, outcomes)
    if outcomes.m == s.n:
        if s.n == 1:
            raise BudgetError(
                "credit needs at least two rollouts a prompt, got M = N = 1: a baseline for a rollout comes "
                "from the others, and there are none. Sample more rollouts."
            )
        return slowroutes.resampled_credit(s, outcomes)
    route = _chosen(s, outcomes, route)
    if route == "closed form":
        return _closed_credit(s, outcomes)
    return slowroutes.value_and_credit(s, outcomes, route, draws, seed)[1]


def curve(s: Strategy, outcomes: Outcomes, budgets: Sequence[int] | None = None) -> BudgetCurve:
    """The strategy at several budgets N <= M (default 1, 2, 4, ... M), with standard errors over prompts.

    Raises:
        BudgetError: if a budget exceeds M.
    """
    m = outcomes.m
    chosen = tuple(budgets) if budgets is not None else tuple(2**i for i in range(m.bit_length()))
    if not chosen:
        raise BudgetError("expected at least one budget, got none.")
    for n in chosen:
        _check_budget(check_int("budget", n, least=1), m)
    check_answers(s, outcomes)
    # Counts, ranks and votes value all budgets in one pass.
    values = s.estimate_budgets(outcomes, chosen)
    if values is None:
        values = torch.stack([mean_value(s.at_budget(n), outcomes) for n in chosen], dim=-1)
    values = values.reshape(-1, len(chosen)).double()
    return BudgetCurve(chosen, *_mean_and_stderr(values), values)


def mean_value(s: Strategy, outcomes: Outcomes) -> Tensor:
    """The value of :func:`estimate` without its standard error, which costs a credit: (..., M) -> (...)."""
    value = s.estimate(outcomes)
    return estimate(s, outcomes).value if value is None else value


def _mean_and_stderr(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over dim 0 and sd / sqrt(B); NaN for one row."""
    if len(values) == 1:
        return values[0], torch.full_like(values[0], math.nan)
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def _check_fit(s: Strategy, outcomes: Outcomes) -> None:
    _check_budget(s.n, outcomes.m)
    check_answers(s, outcomes)


def _check_budget(n: int, m: int) -> None:
    if m < n:
        raise BudgetError(
            f"a budget of N = {n} needs at least {n} rollouts a prompt, got M = {m}: any function of M "
            "rollouts has an expectation of degree <= M in p, so no unbiased estimate exists. Sample more "
            "rollouts or lower N. For a strategy that counts successes, operant.estimators.Extrapolation has "
            "weights and values whose bias is stated."
        )


def _chosen(s: Strategy, outcomes: Outcomes, route: Route | None) -> Route:
    if route is None:
        return route_of(s, outcomes)
    if route not in get_args(Route):
        raise InputError(f"route must be one of {', '.join(get_args(Route))}, got {route!r}.")
    if route in ("types", "subsets") and not s.traits.symmetric:
        raise NotDefinedError(f"{s} depends on the order of its draw, which {route!r} ignores: leave out route=.")
    return route


def _first(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])[:1]


def _closed_credit(s: Strategy, outcomes: Outcomes) -> Tensor:
    """The strategy's own credit, or the jackknife of its own estimate."""
    weights = s.credit(outcomes)
    if weights is not None:
        return weights
    # A strategy that has an estimate only: M + 1 of them make its jackknife.
    whole = s.estimate(outcomes)
    parts = [s.estimate(outcomes.without(i)) for i in range(outcomes.m)]
    if whole is None or any(part is None for part in parts):
        raise NotDefinedError(f"{s} has no closed form; leave out route= or choose another.")
    return whole[..., None] - torch.stack([part for part in parts if part is not None], dim=-1)
