"""The value of a strategy when the distribution of the answers is known: J(q) = E V over N i.i.d. draws.

With K kinds of outcome, kind k of probability q_k, and V_c the value of a draw with counts c,

    J(q) = sum_{|c| = N} N! / prod_k c_k! * prod_k q_k^{c_k} * V_c,      dJ/dq_b = N E V(N - 1 draws and one b).

Every term is formed in log space, so -log J keeps its gradient where q is e^-1000. Derived here; for pass@N it is
Compute Aligned Training's S(p) (arXiv 2604.24957).
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations, product

import torch
from torch import Tensor

from operant.core.checks import InputError, NotDefinedError
from operant.core.logmath import log_binom
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy
from operant.strategies.mixture import Mixture
from operant.strategies.outcomes import Outcomes
from operant.strategies.slowroutes import LIMIT

TOLERANCE = 1e-4
"""How far the probabilities of the kinds may sum from 1 before it is an error."""


def expected_value(s: Strategy, log_q: Tensor, kinds: Outcomes) -> Tensor:
    """J(q) = E V, the deployed value when one sample is of kind k with probability exp(log_q[..., k]).

    By the strategy's closed form where it has one, else exactly over all multisets of N kinds (all sequences for
    an ordered strategy); kinds with the same reward, answer and score are merged first, and V is computed once
    for each distinct row of ``kinds``.

    Args:
        s: the strategy, budget N.
        log_q: (..., K) natural-log probabilities that sum to 1 within 1e-4. They are divided by their sum in
            float64, and the gradient is that of the quotient: dJ/dlog q_b = N q_b (E[V | one draw is b] - J),
            which sums to 0 over b. Half precision is promoted to float32.
        kinds: (K,) or (..., K) reward, answer class and score of each kind.

    Returns:
        (...), differentiable in ``log_q``, in its dtype.

    Raises:
        InputError: if ``log_q`` is NaN, infinite or positive, does not sum to 1, or does not fit ``kinds``.
        NotDefinedError: if there is no closed form and there are more than 20,000 draws to go through.

    >>> from operant import Majority
    >>> kinds = Outcomes(torch.tensor([1.0, 0.0, 0.0]), answer=torch.tensor([0, 1, 2]))
    >>> q = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
    >>> round(expected_value(Majority(3), q.log(), kinds).item(), 6)  # .4^3 + 3 .4^2 .6 + 6 .4 .35 .25 / 3
    0.422
    """
    log_q, kinds, dtype = _checked(log_q, kinds)
    return _value(s, log_q, kinds).to(dtype)


def log_expected_value(s: Strategy, log_q: Tensor, kinds: Outcomes) -> Tensor:
    """log J(q), with :func:`expected_value`'s arguments, routes and errors.

    In log space for strategies that count successes, for mixtures, and where the draws are enumerated; the
    logarithm of the closed form otherwise.

    Raises:
        InputError: besides, where J <= 0: log J and its gradient do not exist there.
    """
    log_q, kinds, dtype = _checked(log_q, kinds)
    log_j = _log_value(s, log_q, kinds)
    if bool(log_j.isneginf().any()):
        raise InputError(
            f"{s} earns nothing at {int(log_j.isneginf().sum())} of {log_j.numel()} examples: log J and its gradient "
            "do not exist there. Give each a kind with a reward > 0 that the strategy can return, drop it, or minimize "
            "1 - J (answer_loss: power=1)."
        )
    return log_j.to(dtype)


def _checked(log_q: Tensor, kinds: Outcomes) -> tuple[Tensor, Outcomes, torch.dtype]:
    """log q and kinds of one shape, both float64, q summing to 1; and the dtype of the result."""
    check_log_q(log_q)
    if log_q.shape[-1] != kinds.m or kinds.reward.shape not in (log_q.shape, log_q.shape[-1:]):
        raise InputError(
            f"expected log_q (..., K) and kinds (K,) or (..., K), got {tuple(log_q.shape)} and "
            f"{tuple(kinds.reward.shape)}."
        )
    dtype = torch.promote_types(log_q.dtype, torch.float32)
    log_q = log_q.double()
    total = log_q.logsumexp(-1, keepdim=True)
    if bool(((total.exp() - 1).abs() > TOLERANCE).any()):
        worst = total.flatten()[total.abs().argmax()].exp().item()
        raise InputError(
            f"the probabilities of the kinds must sum to 1 within {TOLERANCE}, got a sum of {worst:.6g}. Add a kind "
            "for the rest (answer_loss: remainder='unparsable'), or normalize in float32 with log_softmax."
        )
    kinds = kinds.map(lambda x: x.to(log_q.device).double() if x.is_floating_point() else x.to(log_q.device))
    return log_q - total, kinds.map(lambda x: x.expand(log_q.shape)), dtype


def check_log_q(log_q: Tensor) -> Tensor:
    """Return natural-log probabilities of kinds, (..., K).

    Raises:
        InputError: if the dtype is not floating, or a value is NaN, infinite or above 1e-4.
    """
    if not log_q.is_floating_point() or log_q.ndim == 0 or log_q.shape[-1] == 0:
        raise InputError(
            "log_q must be a floating tensor (..., K) of natural-log probabilities, K >= 1, got "
            f"{log_q.dtype} of shape {tuple(log_q.shape)}."
        )
    bad = ~(torch.isfinite(log_q) & (log_q <= TOLERANCE))
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise InputError(
            f"log_q must be finite and <= 0, got {log_q[where].item()} at index {where} ({int(bad.sum())} of "
            f"{log_q.numel()} values). Leave out kinds of probability 0; give logarithms, not probabilities."
        )
    return log_q


def _value(s: Strategy, log_q: Tensor, kinds: Outcomes) -> Tensor:
    """J (...) float64."""
    log_j = _log_of_counts(s, log_q, kinds)
    if log_j is not None:
        return log_j.exp()
    closed = s.population(log_q, kinds)
    if closed is not None:
        return closed
    if isinstance(s, Mixture):
        return torch.stack([w * _value(part, log_q, kinds) for part, w in s.parts]).sum(0)
    return _over_draws(s, log_q, kinds, log=False)


def _log_value(s: Strategy, log_q: Tensor, kinds: Outcomes) -> Tensor:
    """log J (...) float64, -inf where J = 0."""
    if isinstance(s, Mixture):
        parts = [math.log(w) + _log_value(part, log_q, kinds) for part, w in s.parts]
        return torch.stack(parts, dim=-1).logsumexp(-1)
    log_j = _log_of_counts(s, log_q, kinds)
    if log_j is not None:
        return log_j
    closed = s.population(log_q, kinds)
    # A closed form that underflows has no logarithm; the sum over draws stays in log space.
    if closed is None or (bool((closed <= 0).any()) and _draws(s, kinds.m) <= LIMIT):
        return _over_draws(s, log_q, kinds, log=True)
    if bool((closed < 0).any()):
        raise _negative(s)
    return torch.where(closed > 0, torch.where(closed > 0, closed, 1.0).log(), -math.inf)


def _log_of_counts(s: Strategy, log_q: Tensor, kinds: Outcomes) -> Tensor | None:
    """log S(p) at p = the mass of the successes, for a table v[0..N] of values in [0, 1]."""
    if not (isinstance(s, CountStrategy) and kinds.binary):
        return None
    v = s.table()
    if bool((v < 0).any() | (v > 1).any() | (v[0] > 0)) or not bool((v > 0).any()):
        return None
    log_p = torch.where(kinds.reward > 0, log_q, -math.inf).logsumexp(-1)
    hopeless = log_p.isneginf()
    # A stand-in keeps the branch that is not taken finite, so that its gradient is 0 and not NaN.
    return torch.where(hopeless, -math.inf, s.log_success(torch.where(hopeless, -1.0, log_p)))


def _over_draws(s: Strategy, log_q: Tensor, kinds: Outcomes, *, log: bool) -> Tensor:
    """J or log J as a sum over all multisets (sequences) of kinds, row of kinds by row of kinds."""
    shape = log_q.shape
    log_q, kinds = log_q.reshape(-1, shape[-1]), kinds.map(lambda x: x.reshape(-1, shape[-1]))
    result = log_q.new_zeros(len(log_q))
    for rows in _alike(kinds):
        one = kinds.map(lambda x, r=rows: x[r[0]])
        # Equal kinds are one kind of their summed probability: the number of draws grows fast with the kinds.
        first, member = _merge(one)
        count, log_ways, v = _table(s, one.map(lambda x, f=first: x[f]))
        merged = torch.where(member, log_q[rows][:, None, :], -math.inf).logsumexp(-1)  # (rows, C)
        log_weight = log_ways + merged @ count.T  # (rows, D)
        if not log:
            part = (log_weight.exp() * v).sum(-1)
        elif bool((v < 0).any()):
            raise _negative(s)
        else:
            part = torch.where(v > 0, log_weight + torch.where(v > 0, v, 1).log(), -math.inf).logsumexp(-1)
        result = result.index_put((rows,), part)
    return result.reshape(shape[:-1])


def _table(s: Strategy, one: Outcomes) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (D, C), log of the number of orders (D,) and value (D,) of every draw of N from C kinds."""
    if _draws(s, one.m) > LIMIT:
        raise NotDefinedError(
            f"{s} has no closed form for a known distribution, and {one.m} distinct kinds make "
            f"{_draws(s, one.m)} draws (limit {LIMIT}). Merge kinds that behave alike (rare wrong answers into one "
            "of answer -1), lower the budget, or train on rollouts with credit."
        )
    index = _sequences(s.n, one.m, s.traits.symmetric).to(one.reward.device)
    count = torch.nn.functional.one_hot(index, one.m).sum(-2).double()
    left = s.n - count.cumsum(-1) + count
    log_ways = log_binom(left, count).sum(-1).to(count.device) if s.traits.symmetric else torch.zeros_like(count[:, 0])
    return count, log_ways, s.value(one.map(lambda x: x[index])).double()


@lru_cache(maxsize=16)
def _sequences(n: int, c: int, symmetric: bool) -> Tensor:
    """Every multiset (or sequence) of n of c kinds, as indices (D, n)."""
    if not symmetric:
        return torch.tensor(list(product(range(c), repeat=n)))
    bars = torch.tensor(list(combinations(range(n + c - 1), n)))  # stars and bars
    return bars - torch.arange(n)


def _draws(s: Strategy, c: int) -> int:
    return math.comb(s.n + c - 1, c - 1) if s.traits.symmetric else c**s.n


def _negative(s: Strategy) -> InputError:
    return InputError(
        f"{s} can return a negative reward on these kinds, so log J need not exist. Shift the rewards to >= 0, or "
        "minimize 1 - J (answer_loss: power=1)."
    )


def _columns(kinds: Outcomes) -> Tensor:
    """The fields, stacked: (fields, ..., K)."""
    return torch.stack([x.double() for x in (kinds.reward, kinds.answer, kinds.score) if x is not None])


def _alike(kinds: Outcomes) -> list[Tensor]:
    """Indices of the rows with the same kinds, one tensor for each distinct row."""
    if not len(kinds.reward):
        return []
    _, group = torch.unique(_columns(kinds).transpose(0, 1).flatten(1), dim=0, return_inverse=True)
    return [(group == g).nonzero()[:, 0] for g in range(int(group.max()) + 1)]


def _merge(one: Outcomes) -> tuple[Tensor, Tensor]:
    """The first of each set of equal kinds (C,), and which kinds belong to it (C, K)."""
    _, group = torch.unique(_columns(one), dim=1, return_inverse=True)
    member = group == torch.arange(int(group.max()) + 1, device=group.device)[:, None]
    return member.to(torch.int8).argmax(-1), member
