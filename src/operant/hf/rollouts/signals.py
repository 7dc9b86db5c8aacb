"""Which prompts carry the credit of a strategy, and how many groups have none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from operant.core.checks import BudgetError
from operant.core.logmath import log_hypergeometric
from operant.core.rng import torch_generator
from operant.objectives import credit
from operant.strategies import BestOf, CountStrategy, Mixture, Outcomes, Strategy

# Random subsets from which a share of dead groups is estimated where there is no exact value. The standard error of the
# share is then at most 0.016.
_SUBSETS = 1000
# Weights up to this, times the largest reward, are zero: closed forms are exact to about 1e-15.
_DEAD = 1e-12
# Finer at low success rates, where pass@N has most of its weight.
_EDGES = (0.05, 0.1, 0.25, 0.5, 0.75)
BINS = ("0", "(0, .05]", "(.05, .1]", "(.1, .25]", "(.25, .5]", "(.5, .75]", "(.75, 1)", "1")


def success_rate(outcomes: Outcomes) -> Tensor:
    """(B,) mean reward of every prompt. Rewards that are not binary are scaled to [0, 1], lowest to highest."""
    reward = outcomes.reward.double()
    if outcomes.binary:
        return reward.mean(-1)
    low, high = reward.min(), reward.max()
    return ((reward - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)).mean(-1)


def bin_of(rate: Tensor) -> Tensor:
    """(B,) index into BINS: exactly 0, six half-open intervals, exactly 1."""
    inner = 1 + torch.bucketize(rate, torch.tensor(_EDGES, dtype=rate.dtype))
    return torch.where(rate == 0, 0, torch.where(rate == 1, len(BINS) - 1, inner))


def dead_share(s: Strategy, outcomes: Outcomes, m: int, *, seed: int = 0) -> float:
    """Expected share of prompts whose ``m`` <= M rollouts all get weight 0, so that they teach nothing.

    Where the credit depends on the number c of successes, exactly: sum_k Hyp(k; M, c, m) 1[all weights are 0 at k
    of m], unbiased for fresh rollouts. Otherwise from 1000 random subsets of the rollouts, seeded.

    Args:
        s: the strategy, budget N < m.
        outcomes: (B, M).
        m: rollouts a prompt in training.
        seed: of the subsets.

    Raises:
        BudgetError: if m > M: the rollouts at hand do not say.
    """
    if not s.n < m <= outcomes.m:
        raise BudgetError(f"expected N < m <= M rollouts, got N = {s.n}, m = {m}, M = {outcomes.m}.")
    # Exact in this case: the share depends on c alone, whose law in a subset is hypergeometric.
    if counts_successes(s, outcomes):
        k = torch.arange(m + 1, dtype=torch.float64)
        every = Outcomes((torch.arange(m) < k[:, None]).double())  # (m+1, m): row k has k successes
        is_dead = _all_dead(credit(s, every), every).double()
        c = outcomes.reward.sum(-1).double()[:, None]
        return (log_hypergeometric(k, c, outcomes.m, m).exp() @ is_dead).mean().item()
    if m == outcomes.m:
        return _all_dead(credit(s, outcomes), outcomes).double().mean().item()
    generator = torch_generator(seed, "plan", "subsets", str(s), m)
    b = len(outcomes.reward)
    # Every prompt equally often, up to one: less noise than prompts drawn at random.
    prompt = torch.cat([torch.randperm(b, generator=generator) for _ in range(-(-_SUBSETS // b))])[:_SUBSETS]
    kept = torch.rand(len(prompt), outcomes.m, generator=generator).argsort(-1)[:, :m]
    part = outcomes.map(lambda x: x[prompt].gather(1, kept))
    return _all_dead(credit(s, part), part).double().mean().item()


def counts_successes(s: Strategy, outcomes: Outcomes) -> bool:
    """Whether credit depends on the number of successes only."""
    if isinstance(s, Mixture):
        return all(counts_successes(part, outcomes) for part, _ in s.parts)
    return outcomes.binary and (isinstance(s, CountStrategy) or (isinstance(s, BestOf) and outcomes.score is None))


def _all_dead(weights: Tensor, outcomes: Outcomes) -> Tensor:
    """(B,) whether every weight of a prompt is 0, up to rounding."""
    return weights.abs().amax(-1) <= _DEAD * max(1.0, outcomes.reward.abs().max().item())


def compare_signals(one: Tensor, other: Tensor, rate: Tensor) -> tuple[float, bool] | None:
    """How far two credits (B, M) move the same prompts; None if one of them moves none.

    With s_b = sum_i |w_bi| over its sum over prompts: the overlap sum_b min(s_b, s'_b) in [0, 1], and whether the
    second lies on prompts of a lower success rate, sum_b s'_b rate_b < sum_b s_b rate_b.
    """
    first, second = signal_shares(one), signal_shares(other)
    if not (first.sum() > 0 and second.sum() > 0):
        return None
    return torch.minimum(first, second).sum().item(), bool((second * rate).sum() < (first * rate).sum())


def signal_shares(weights: Tensor) -> Tensor:
    """(B,) each prompt's share of the total of |w|, weights (B, M); zeros where there is none."""
    signal = weights.abs().sum(-1)
    return signal / signal.sum().clamp(min=torch.finfo(signal.dtype).tiny)


def spread(share: Tensor, rate: Tensor, ids: Sequence[Any]) -> dict[str, Any]:
    """How the signal is spread: shares by bin of success rate, of the top tenth of the prompts, and the top five."""
    if not share.sum() > 0:
        return {"bins": None, "top_tenth": None, "top": []}
    ordered = share.argsort(descending=True, stable=True)
    top = [{"prompt": ids[i], "share": share[i].item(), "rate": rate[i].item()} for i in ordered[:5].tolist()]
    tenth = share[ordered[: -(-len(share) // 10)]].sum().item()
    by_bin = torch.zeros(len(BINS), dtype=share.dtype).index_add_(0, bin_of(rate), share)
    return {"bins": by_bin.tolist(), "top_tenth": tenth, "top": [t for t in top if t["share"] > 0]}


def dead_shares(s: Strategy, outcomes: Outcomes, weights: Tensor, *, seed: int) -> list[dict[str, float]]:
    """Shares of dead groups at N + 1, 2N, 4N and 8N below M, and at M, from the given weights."""
    m, n = outcomes.m, s.n
    sizes = sorted({size for size in (n + 1, 2 * n, 4 * n, 8 * n) if n < size < m})
    shares = [{"m": size, "share": dead_share(s, outcomes, size, seed=seed)} for size in sizes]
    return [*shares, {"m": m, "share": _all_dead(weights, outcomes).double().mean().item()}]
