"""The off-policy value U_w = C(M,N)^-1 sum_S V(S) prod_{i in S} rho_i in closed form, as a function of rho.

What the forms need are the elementary symmetric polynomials e_j of rho over a class of rollouts. They are kept as
the coefficients of prod_i (1 - q + q rho_i x), q = N/M: at rho = 1 these are binomial probabilities, for rho <= 1
they stay below 1, and all terms are positive, so nothing overflows and nothing cancels. Derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from operant.core.checks import InputError
from operant.core.logmath import log_binomial
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy
from operant.strategies.outcomes import Outcomes
from operant.strategies.ranking import BestOf
from operant.strategies.slowroutes import multisets, types
from operant.strategies.votes.majority import Majority, Quorum
from operant.strategies.votes.product import Factor, State, convolve, forward, tie_nodes

ValueOfRatios = Callable[[Tensor], Tensor]
"""U_w from rho in [0, 1]: (V, B, M) -> (V, B), V settings of rho for each prompt; differentiable."""


def closed_form(s: Strategy, flat: Outcomes) -> ValueOfRatios | None:
    """U_w as a function of rho; None: no closed form. A subclass may value otherwise, but for tables."""
    if isinstance(s, CountStrategy):
        return _by_count(s, flat)
    if type(s) is BestOf:
        return _by_rank(s, flat)
    if type(s) is Majority:
        return _by_vote(s, flat, flat.reward, least=1)
    if type(s) is Quorum:
        return _by_vote(s, flat, flat.reward - s.penalty * (1 - flat.reward), least=s.k)
    return None


class _Groups:
    """The members of each group of rollouts, padded: ``kind`` (B, M) numbers the groups 0 .. K-1."""

    def __init__(self, kind: Tensor, n: int) -> None:
        b, m = kind.shape
        self.n, self.q, self.count = n, n / m, int(kind.max()) + 1
        one_hot = kind[:, None, :] == torch.arange(self.count, device=kind.device)[:, None]  # (B, K, M)
        self.size = one_hot.sum(-1)  # (B, K)
        order = one_hot.int().argsort(dim=-1, descending=True, stable=True)
        self.index = order[..., : int(self.size.max())].reshape(b, -1)  # (B, K C)
        self.there = torch.arange(int(self.size.max()), device=kind.device) < self.size[..., None]  # (B, K, C)

    def members(self, x: Tensor) -> Tensor:
        """(V, B, M) -> (V, B, K, C)."""
        return x.gather(-1, self.index.expand(len(x), -1, -1)).unflatten(-1, self.there.shape[1:])

    def polynomials(self, rho: Tensor, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients 0..N of prod_i (1 - q + q rho_i x), and of the same with one member marked by its reward.

        (V, B, M) and (1, B, M) -> (V, B, K, N+1), twice; the second is sum_i r_i q rho_i x prod_{j != i} (..).
        """
        x, r = self.q * self.members(rho), self.members(reward)
        plain = pad(torch.ones_like(x[..., :1]), (0, self.n))
        marked = torch.zeros_like(plain)
        for c in range(x.shape[-1]):
            here, there = x[..., c, None], self.there[..., c, None]
            both = marked[..., :-1] + r[..., c, None] * plain[..., :-1]
            marked = torch.where(there, (1 - self.q) * marked + pad(here * both, (1, 0)), marked)
            plain = torch.where(there, (1 - self.q) * plain + pad(here * plain[..., :-1], (1, 0)), plain)
        return plain, marked


def _all_draws(m: int, n: int) -> float:
    """C(M,N) q^N (1-q)^(M-N), q = N/M: what the coefficient of x^N over all rollouts is divided by."""
    return math.exp(log_binomial(n, m, n / m, (m - n) / m).item())


def _by_count(s: CountStrategy, flat: Outcomes) -> ValueOfRatios:
    """U_w = sum_k v_k e_k(successes) e_{N-k}(failures) / C(M,N)."""
    s.check_binary(flat)
    groups = _Groups((flat.reward > 0).long(), s.n)
    v = s.table().to(flat.reward.device) / _all_draws(flat.m, s.n)

    def form(rho: Tensor) -> Tensor:
        plain, _ = groups.polynomials(rho, torch.zeros_like(rho[:1]))
        good = plain[:, :, 1] if groups.count > 1 else pad(torch.ones_like(plain[:, :, 0, :1]), (0, s.n))
        return (v * good * plain[:, :, 0].flip(-1)).sum(-1)

    return form


def _by_rank(s: BestOf, flat: Outcomes) -> ValueOfRatios:
    """U_w = sum over tie groups of sum_t e_{N-t}(lower) f_t(group) / t / C(M,N), f the sum marked by reward.

    1/t = int_0^1 z^(t-1) dz, by Gauss-Legendre with enough nodes to be exact; positions in order of score.
    """
    n, m = s.n, flat.m
    q = n / m
    score, order = flat.selector.sort(dim=-1, stable=True)
    reward = flat.reward.double().gather(-1, order)
    fresh = pad(score[:, 1:] != score[:, :-1], (1, 0), value=True)  # (B, M) a tie group begins here
    ends = fresh.roll(-1, -1)
    width = (score[:, :, None] == score[:, None, :]).sum(-1).max()
    z, node_weight = (x.to(reward) for x in tie_nodes(min(int(width), n) - 1, "random"))
    left_over = (1 - q) ** torch.arange(m - 1, -1, -1, dtype=reward.dtype) / _all_draws(m, n)  # higher positions

    def form(rho: Tensor) -> Tensor:
        x = (q * rho.gather(-1, order.expand(len(rho), -1, -1)))[..., None, None]  # (V, B, M, 1, 1)
        lower = pad(torch.ones_like(x[:, :, 0]), (0, n))  # (V, B, 1, N+1)
        group, marked = lower, torch.zeros_like(lower)
        total = torch.zeros_like(x[:, :, 0, 0, 0])
        for t in range(m):
            begin, r, here = fresh[:, t, None, None], reward[:, t, None, None], x[:, :, t]
            group, marked = torch.where(begin, lower, group), torch.where(begin, 0, marked)
            both = z[:, None] * marked[..., :-1] + r * group[..., :-1]
            marked = (1 - q) * marked + pad(here * both, (1, 0))
            group = (1 - q) * group + pad(here * z[:, None] * group[..., :-1], (1, 0))
            lower = (1 - q) * lower + pad(here * lower[..., :-1], (1, 0))
            won = (marked[..., n] * node_weight).sum(-1) * left_over[t]
            total = total + torch.where(ends[:, t], won, 0)
        return total

    return form


def _by_vote(s: Majority | Quorum, flat: Outcomes, worth: Tensor, least: int) -> ValueOfRatios:
    """U_w = sum_a sum_{t >= least} f_t(a)/t [x^(N-t)] prod_{b != a} (sum_{j<t} e_j(b) x^j + z e_t(b) x^t) / C(M,N).

    f_t(a) is the sum over t votes for a marked by worth; z is integrated over [0, 1] for ties broken at random
    and 0 for ties that fail.
    """
    if flat.answer is None:
        raise InputError(f"{s} votes over answer classes: give Outcomes(reward, answer=...), -1 for no answer.")
    groups = _Groups(_by_size(flat.answer.long()), s.n)  # group 0 holds the rollouts without an answer
    worth = worth.double()[None]
    most = groups.size.amax(0).tolist()  # votes of the k-th largest class
    levels = range(least, min(max(most[1:], default=0), s.n) + 1)

    def form(rho: Tensor) -> Tensor:
        plain, marked = (x.flatten(0, 1).movedim(0, -1) for x in groups.polynomials(rho, worth))  # (K, N+1, V B)
        won = 0 * plain[0, 0]
        for t in levels:
            able = sum(size >= t for size in most[1:])
            z, share = (x.to(won)[:, None] for x in tie_nodes(min(able - 1, (s.n - t) // t), s.ties))
            # The coefficient after the last vote of a class is 0: it neither ties nor wins.
            tops = [slice(end, end + 1) for end in (min(t, size + 1) for size in most[1:])]
            factors = [
                Factor(x[: top.start], x[top], y[top] / t)
                for x, y, top in zip(plain[1:], marked[1:], tops, strict=True)
            ]
            rest = plain[0, : s.n - t + 1, None].expand(-1, len(z), -1)
            won = won + (forward(State(rest, torch.zeros_like(rest)), factors, z, convolve)[-1].w[-1] * share).sum(0)
        return won.view(rho.shape[:2]) / _all_draws(flat.m, s.n)

    return form


def _by_size(answer: Tensor) -> Tensor:
    """Number the classes of each row 1, 2, ... by falling count; -1 becomes 0."""
    same = answer[:, :, None] == answer[:, None, :]
    valid = answer >= 0
    first = same.int().argmax(-1)
    key = torch.where(valid, same.sum(-1) * (answer.shape[-1] + 1) - first, -1)
    ordered = key.sort(dim=-1, descending=True).values
    new = pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True).long().cumsum(-1)
    place = (ordered[:, None, :] == key[:, :, None]).int().argmax(-1)
    return torch.where(valid, new.gather(1, place), 0)


def by_types(s: Strategy, one: Outcomes) -> ValueOfRatios:
    """U_w = sum over multisets k of types of V_k prod_t e_{k_t}(rho of type t) / C(M,N), one prompt."""
    representative, count, kind = types(one, 0)
    k = multisets(count.tolist(), s.n).to(kind.device)  # (draws, C)
    index = torch.stack([representative.repeat_interleave(row) for row in k])
    v = s.value(one.map(lambda x: x[0][index])).double() / _all_draws(one.m, s.n)
    groups = _Groups(kind[None], s.n)

    def form(rho: Tensor) -> Tensor:
        plain, _ = groups.polynomials(rho, torch.zeros_like(rho[:1]))  # (V, 1, C, N+1)
        ways = torch.ones_like(plain[:, :, 0, :1])
        for t in range(groups.count):
            ways = ways * plain[:, :, t, k[:, t]]
        return (ways * v).sum(-1)

    return form
