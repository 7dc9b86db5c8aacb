"""Evaluation and RL credit of any strategy, by the cheapest exact route that it allows.

U(z) is the mean of the value over all N-subsets of the M rollouts: unbiased for J = E V. The credit is the
jackknife w_i = U(z) - U(z without i) = (N/M)(in_i - out_i): unbiased, E sum_i w_i grad log pi(y_i) = grad J,
and it sums to zero exactly. (M-1)/M sum_i w_i^2 is the jackknife variance of U.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import torch
from torch import Tensor

from operant.core.checks import BudgetError, check_int
from operant.core.logmath import log_binom
from operant.core.rng import torch_generator
from operant.strategies.base import Outcomes, Strategy

Route = Literal["closed form", "types", "subsets", "monte carlo"]
LIMIT = 20_000
"""Most value calls per prompt that an exact route may take before Monte Carlo is used instead."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Value of a strategy per prompt, with its standard error.

    Args:
        value: (...) mean over the N-subsets of the M rollouts.
        stderr: (...) jackknife standard error over rollouts; NaN where M = N leaves none to leave out.
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
class Curve:
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
    """The route that :func:`estimate` and :func:`credit` take by default on these outcomes."""
    _check_budget(s.n, outcomes.m, spare=0)
    if type(s).estimate is not Strategy.estimate and s.estimate(outcomes.map(_first)) is not None:
        return "closed form"
    if not s.symmetric:
        return "monte carlo"
    flat = _flat(outcomes)
    calls = [math.prod(min(int(c), s.n) + 1 for c in _types(flat, b)[1]) for b in range(len(flat.reward))]
    if max(calls) <= LIMIT:
        return "types"
    return "subsets" if math.comb(outcomes.m, s.n) <= LIMIT else "monte carlo"


def estimate(
    s: Strategy, outcomes: Outcomes, *, route: Route | None = None, draws: int = 2048, seed: int = 0
) -> Estimate:
    """Unbiased estimate of the deployed value E V from M >= N rollouts a prompt.

    Args:
        s: the strategy, budget N.
        outcomes: (..., M).
        route: default the cheapest exact one, see :func:`route_of`.
        draws: blocks of N rollouts per prompt, for Monte Carlo only.
        seed: for Monte Carlo only.

    Raises:
        BudgetError: if N > M: E V is a polynomial of degree N in p, and no function of M rollouts has an
            expectation of degree above M.

    >>> from operant import PassAt
    >>> e = estimate(PassAt(2), Outcomes(torch.tensor([[1.0, 0.0, 0.0, 0.0]])))
    >>> round(e.value.item(), 6), round(e.stderr.item(), 6), e.route
    (0.5, 0.5, 'closed form')
    """
    route = route or route_of(s, outcomes)
    _check_budget(s.n, outcomes.m, spare=0)
    spare = outcomes.m > s.n
    if route == "closed form":
        value = s.estimate(outcomes)
        weights = _closed_credit(s, outcomes) if spare else None
        if value is None:
            raise BudgetError(f"{s} has no closed form; leave out route= or choose another.")
    else:
        value, weights = _slow(s, outcomes, route, draws, seed)
    m = outcomes.m
    if weights is None or not spare:
        return Estimate(value, torch.full_like(value, math.nan), route)
    return Estimate(value, ((m - 1) / m * weights.square().sum(-1)).sqrt(), route)


def credit(s: Strategy, outcomes: Outcomes, *, route: Route | None = None, draws: int = 2048, seed: int = 0) -> Tensor:
    """RL weights w_i with E sum_i w_i grad log pi(y_i) = grad E V; they sum to 0 over each prompt.

    Positive weight = make this rollout more likely. Exact when the rollouts are i.i.d. from the policy whose
    log-probability is differentiated, tokens are summed, and nothing re-scales by a group's own spread.

    Args:
        s: the strategy, budget N.
        outcomes: (..., M), M >= N + 1.
        route: default the cheapest exact one, see :func:`route_of`.
        draws: blocks of N rollouts per prompt, for Monte Carlo only (still unbiased and centred).
        seed: for Monte Carlo only.

    Returns:
        (..., M), dtype and device of the rewards.

    Raises:
        BudgetError: if M < N + 1.

    >>> from operant import PassAt
    >>> credit(PassAt(2), Outcomes(torch.tensor([[1.0, 0.0, 0.0, 0.0]])))
    tensor([[ 0.5000, -0.1667, -0.1667, -0.1667]])
    """
    _check_budget(s.n, outcomes.m, spare=1)
    route = route or route_of(s, outcomes)
    if route == "closed form":
        return _closed_credit(s, outcomes)
    return _slow(s, outcomes, route, draws, seed)[1]


def curve(s: Strategy, outcomes: Outcomes, budgets: Sequence[int] | None = None) -> Curve:
    """The strategy at several budgets N <= M (default 1, 2, 4, ... M), with standard errors over prompts.

    Raises:
        BudgetError: if a budget exceeds M.
    """
    m = outcomes.m
    chosen = tuple(budgets) if budgets is not None else tuple(2**i for i in range(m.bit_length()))
    if not chosen:
        raise BudgetError("expected at least one budget, got none.")
    for n in chosen:
        _check_budget(check_int("budget", n, least=1), m, spare=0)
    values = s.estimate_budgets(outcomes, chosen)
    if values is None:
        parts = [s.at_budget(n) for n in chosen]
        values = torch.stack([estimate(part, outcomes).value for part in parts], dim=-1)
    values = values.reshape(-1, len(chosen)).double()
    return Curve(chosen, *_mean_and_stderr(values), values)


def _mean_and_stderr(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over dim 0 and sd / sqrt(B); NaN for one row."""
    if len(values) == 1:
        return values[0], torch.full_like(values[0], math.nan)
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def _check_budget(n: int, m: int, *, spare: int) -> None:
    if m >= n + spare:
        return
    if m >= n:
        raise BudgetError(
            f"credit needs at least N + 1 = {n + 1} rollouts a prompt, got M = {m}: with none to leave out "
            "there is no unbiased baseline. Sample more rollouts (2 N is a good choice) or lower N."
        )
    raise BudgetError(
        f"a budget of N = {n} needs at least {n + spare} rollouts a prompt, got M = {m}: any function of M "
        "rollouts has an expectation of degree <= M in p, so no unbiased estimate exists. Sample more "
        "rollouts or lower N."
    )


def _first(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])[:1]


def _flat(outcomes: Outcomes) -> Outcomes:
    return outcomes.map(lambda x: x.reshape(-1, x.shape[-1]))


def _closed_credit(s: Strategy, outcomes: Outcomes) -> Tensor:
    """The strategy's own credit, or the jackknife of its own estimate."""
    weights = s.credit(outcomes)
    if weights is not None:
        return weights
    whole = s.estimate(outcomes)
    parts = [s.estimate(outcomes.without(i)) for i in range(outcomes.m)]
    if whole is None or any(part is None for part in parts):
        raise BudgetError(f"{s} has no closed form; leave out route= or choose another.")
    return whole[..., None] - torch.stack([part for part in parts if part is not None], dim=-1)


def _slow(s: Strategy, outcomes: Outcomes, route: Route, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """(U, w) prompt by prompt."""
    flat = _flat(outcomes)
    values, weights = [], []
    for b in range(len(flat.reward)):
        one = flat.map(lambda x, b=b: x[b])
        if route == "types":
            u, w = _by_types(s, flat, b)
        elif route == "subsets":
            u, w = _by_subsets(s, one)
        else:
            u, w = _by_monte_carlo(s, one, draws, torch_generator(seed, "routes", str(s), b))
        values.append(u)
        weights.append(w)
    shape = outcomes.reward.shape
    like = outcomes.reward
    return (
        torch.stack(values).reshape(shape[:-1]).to(like),
        torch.stack(weights).reshape(shape).to(like),
    )


def _types(flat: Outcomes, b: int) -> tuple[Tensor, Tensor, Tensor]:
    """Representative, count and membership of the distinct outcomes of prompt b: (C,), (C,), (M,)."""
    rows = torch.stack([x[b].double() for x in (flat.reward, flat.answer, flat.score) if x is not None])
    _, kind, count = torch.unique(rows, dim=1, return_inverse=True, return_counts=True)
    members = torch.arange(len(kind), device=kind.device)
    representative = torch.zeros_like(count).scatter_(0, kind, members)
    return representative, count, kind


def _by_types(s: Strategy, flat: Outcomes, b: int) -> tuple[Tensor, Tensor]:
    """Exact over multisets: U(c) = sum_k prod_t C(c_t,k_t)/C(M,N) V_k, and the same with one c_t less."""
    n, m = s.n, flat.m
    representative, count, kind = _types(flat, b)
    counts = count.tolist()
    draws = [k for k in product(*(range(min(c, n) + 1) for c in counts)) if sum(k) == n]
    k = torch.tensor(draws, device=kind.device)  # (draws, C)
    index = torch.stack([representative.repeat_interleave(row) for row in k])  # (draws, N)
    v = s.value(flat.map(lambda x: x[b][index])).double()

    def u(c: Tensor, size: int) -> Tensor:
        log_ways = log_binom(c, k).sum(-1) - log_binom(size, n)
        return (log_ways.exp().to(v.device) * v).sum()

    whole = u(count, m)
    if m == n:
        return whole, torch.zeros(m, dtype=v.dtype, device=v.device)
    one = torch.eye(len(counts), dtype=count.dtype, device=count.device)
    without = torch.stack([u(count - one[t], m - 1) for t in range(len(counts))])
    return whole, whole - without[kind]


def _by_subsets(s: Strategy, one: Outcomes) -> tuple[Tensor, Tensor]:
    """Exact over all C(M,N) subsets: w_i = (N/M)(in_i - out_i)."""
    n, m = s.n, one.m
    subsets = torch.tensor(list(combinations(range(m), n)), device=one.reward.device)
    v = s.value(one.map(lambda x: x[subsets])).double()
    if m == n:
        return v.mean(), torch.zeros(m, dtype=v.dtype, device=v.device)
    member = torch.zeros(len(v), m, dtype=v.dtype, device=v.device).scatter_(1, subsets, 1.0)
    inside = (member * v[:, None]).sum(0) / member.sum(0)
    outside = ((1 - member) * v[:, None]).sum(0) / (1 - member).sum(0)
    return v.mean(), n / m * (inside - outside)


def _by_monte_carlo(s: Strategy, one: Outcomes, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Balanced Monte Carlo: permutations cut into blocks, w_i = M/(M-N) mean_b V(S_b)(1[i in S_b] - N/M)."""
    n, m = s.n, one.m
    blocks = m // n
    rounds = -(-draws // blocks)
    order = torch.rand(rounds, m, generator=generator).argsort(-1)[:, : blocks * n].reshape(-1, n)
    order = order.to(one.reward.device)
    v = s.value(one.map(lambda x: x[order])).double()
    if m == n:
        return v.mean(), torch.zeros(m, dtype=v.dtype, device=v.device)
    member = torch.zeros(len(v), m, dtype=v.dtype, device=v.device).scatter_(1, order, 1.0)
    return v.mean(), m / (m - n) * (v[:, None] * (member - n / m)).mean(0)
