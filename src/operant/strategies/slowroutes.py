"""The routes that need nothing but ``Strategy.value``: multisets of types, subsets, Monte Carlo, resampling."""

from __future__ import annotations

import math
from itertools import combinations, product

import torch
from torch import Tensor

from operant.core.checks import check_int
from operant.core.logmath import log_binom
from operant.core.rng import torch_generator
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy
from operant.strategies.outcomes import Outcomes

LIMIT = 20_000
"""Most value calls per prompt that an exact route may take before Monte Carlo is used instead."""
# Most rollouts in the draws that are valued at once, where a route builds them all.
_CHUNK = 1 << 22


def flatten(outcomes: Outcomes) -> Outcomes:
    """(..., M) -> (B, M)."""
    return outcomes.map(lambda x: x.reshape(-1, x.shape[-1]))


def value_and_credit(s: Strategy, outcomes: Outcomes, route: str, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """(U, w) prompt by prompt, (...) and (..., M); w is 0 at M = N, where no rollout can be left out."""
    flat = flatten(outcomes)
    values = torch.zeros_like(flat.reward[:, 0], dtype=torch.float64)
    weights = torch.zeros_like(flat.reward, dtype=torch.float64)
    for b in range(len(flat.reward)):
        one = flat.map(lambda x, b=b: x[b])
        if route == "types":
            values[b], weights[b] = _by_types(s, flat, b)
        elif route == "subsets":
            values[b], weights[b] = _by_subsets(s, one)
        else:
            # A generator for each prompt: a prompt draws the same in a batch of any size.
            values[b], weights[b] = _by_monte_carlo(s, one, draws, torch_generator(seed, "routes", str(s), b))
    like = outcomes.reward
    return values.reshape(like.shape[:-1]).to(like), weights.reshape(like.shape).to(like)


def types(flat: Outcomes, b: int) -> tuple[Tensor, Tensor, Tensor]:
    """Representative, count and membership of the distinct outcomes of prompt b: (C,), (C,), (M,)."""
    rows = torch.stack([x[b].double() for x in (flat.reward, flat.answer, flat.score) if x is not None])
    _, kind, count = torch.unique(rows, dim=1, return_inverse=True, return_counts=True)
    members = torch.arange(len(kind), device=kind.device)
    representative = torch.zeros_like(count).scatter_(0, kind, members)
    return representative, count, kind


def multisets(counts: list[int], n: int) -> Tensor:
    """Every way to draw n from types with these counts, (draws, C)."""
    return torch.tensor([k for k in product(*(range(min(c, n) + 1) for c in counts)) if sum(k) == n])


def calls_by_types(s: Strategy, flat: Outcomes) -> int:
    """Bound on the multisets of N, for the prompt with the most: prod_t (min(c_t, N) + 1)."""
    calls = (math.prod(min(int(c), s.n) + 1 for c in types(flat, b)[1]) for b in range(len(flat.reward)))
    return max(calls, default=0)


def _by_types(s: Strategy, flat: Outcomes, b: int) -> tuple[Tensor, Tensor]:
    """Exact over multisets: U(c) = sum_k prod_t C(c_t,k_t)/C(M,N) V_k, and the same with one c_t less."""
    n, m = s.n, flat.m
    representative, count, kind = types(flat, b)
    counts = count.tolist()
    k = multisets(counts, n).to(kind.device)  # (draws, C)
    index = torch.stack([representative.repeat_interleave(row) for row in k])  # (draws, N)
    v = s.value(flat.map(lambda x: x[b][index])).double()

    def u(c: Tensor, size: int) -> Tensor:
        log_ways = log_binom(c, k).sum(-1) - log_binom(size, n)
        return (log_ways.exp().to(v.device) * v).sum()

    whole = u(count, m)
    if m == n:
        return whole, torch.zeros(m, dtype=v.dtype, device=v.device)
    # A rollout that is left out lowers the count of its type: a weight per type, not per rollout.
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
    rounds = -(-check_int("draws", draws, least=1) // blocks)
    # Blocks of permutations spread the draws evenly over the rollouts; independent draws have more noise.
    order = torch.rand(rounds, m, generator=generator).argsort(-1)[:, : blocks * n].reshape(-1, n)
    order = order.to(one.reward.device)
    v = s.value(one.map(lambda x: x[order])).double()
    if m == n:
        return v.mean(), torch.zeros(m, dtype=v.dtype, device=v.device)
    member = torch.zeros(len(v), m, dtype=v.dtype, device=v.device).scatter_(1, order, 1.0)
    return v.mean(), m / (m - n) * (v[:, None] * (member - n / m)).mean(0)


def resampled_credit(s: Strategy, outcomes: Outcomes) -> Tensor:
    """w_i = V(z) - mean over j != i of V(z with z_i replaced by a copy of z_j), at M = N >= 2; (..., N).

    The baseline depends on the other rollouts only, so E sum_i w_i grad log pi(y_i) = grad J. Pairs with equal
    outcomes cost no call, and rollouts with equal outcomes share one where the order does not matter.
    """
    if isinstance(s, CountStrategy):
        return _resampled_by_table(s, outcomes)
    flat, n = flatten(outcomes).map(lambda x: x.double() if x.is_floating_point() else x), s.n
    v = s.value(flat)
    fields = [x for x in (flat.reward, flat.answer, flat.score) if x is not None]
    same = torch.stack([x[:, :, None] == x[:, None, :] for x in fields]).all(0)  # (B, N, N)
    copy = same.int().argmax(-1)  # (B, N) the first rollout with the same outcome
    at = torch.arange(n, device=v.device)
    # An exchange between equal outcomes changes nothing, and often most of the M^2 pairs are equal.
    distinct = copy == at
    places = distinct if s.traits.symmetric else torch.ones_like(distinct)
    b, i, j = (places[:, :, None] & distinct[:, None, :] & ~same).nonzero().unbind(1)
    table = v[:, None, None].repeat(1, n, n)  # (B, N, N) value with place i taken by a copy of j
    for part in torch.arange(len(b), device=v.device).split(max(_CHUNK // n**2, 1)):
        row, place, source = b[part], i[part], j[part]
        index = torch.where(at == place[:, None], source[:, None], at)  # (rows, N)
        table[row, place, source] = s.value(flat.map(lambda x, r=row, k=index: x[r[:, None], k])).to(v)
    table = table.gather(2, copy[:, None, :].expand(-1, n, -1))
    if s.traits.symmetric:
        table = table.gather(1, copy[:, :, None].expand(-1, -1, n))
    weights = (v[:, None, None] - table).sum(-1) / (n - 1)
    return weights.reshape(outcomes.reward.shape).to(outcomes.reward)


def _resampled_by_table(s: CountStrategy, outcomes: Outcomes) -> Tensor:
    """w_correct = (v[c] - v[c-1]) (N-c)/(N-1) and w_wrong = (v[c] - v[c+1]) c/(N-1) for c successes."""
    s.check_binary(outcomes)
    n = s.n
    step = s.table().diff()  # v[k+1] - v[k], (N,)
    c = torch.arange(n + 1, dtype=torch.float64)
    # An exchange of a correct rollout for a wrong one moves v by one step, and N - c of the N - 1 others are wrong.
    correct = torch.cat([step[:1], step]) * (n - c) / (n - 1)
    wrong = -torch.cat([step, step[-1:]]) * c / (n - 1)
    good = outcomes.reward > 0
    successes = good.sum(-1, keepdim=True)
    tables = torch.stack([wrong, correct]).to(outcomes.reward)
    return torch.where(good, tables[1][successes], tables[0][successes])
