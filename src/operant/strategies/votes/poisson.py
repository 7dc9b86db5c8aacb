"""The plurality vote of N i.i.d. draws with known probabilities: its value and its gradient, every term positive.

With class probabilities Q_b, and p_b(s) = (N Q_b)^s e^(-N Q_b) / s! (Poisson weights, so nothing overflows),

    P(class a wins with t votes) = p_a(t) [x^(N-t)] prod_{b != a} ( sum_{s<t} p_b(s) x^s + z p_b(t) x^t ) / p(N),

p(N) = N^N e^(-N) / N!, and z as in ``plurality``. Derived here; the gradient is N E[V | one draw is b].
"""

from __future__ import annotations

import torch
from torch import Tensor

from operant.strategies.votes.product import Factor, Ties, convolve, tie_nodes, transposed

# The log-probability of a class that is not there: exp of it is 0, and 0 times it is 0.
_NEVER = -1e30
# Numbers in one table: rows are worked on in chunks that fit the memory.
_CELLS = 1 << 21
# Share of the value below which a term is left out: 1e-8 of float64's precision.
_NEGLIGIBLE = 1e-24


def vote_population(answer: Tensor, reward: Tensor, log_q: Tensor, n: int, least: int, ties: Ties) -> Tensor:
    """E V of the vote over kinds (..., K) drawn with probabilities exp(log_q), differentiable in log_q: (...).

    Kinds of one class merge: the class is worth the q-weighted mean of their rewards. dJ/dlog q_b is that of the
    homogeneous polynomial, N q_b E[V | one draw is b].
    """
    log_q = log_q.double()
    shape = torch.broadcast_shapes(log_q.shape, answer.shape)
    log_q, answer, reward = (x.expand(shape).reshape(-1, shape[-1]) for x in (log_q, answer, reward.double()))
    same = answer[:, :, None] == answer[:, None, :]  # (B, K, K)
    first = same.long().argmax(-1) == torch.arange(shape[-1], device=answer.device)  # one kind stands for its class
    valid = first & (answer >= 0)
    merged = torch.where(same, log_q[:, None, :], _NEVER).logsumexp(-1)  # (B, K) log Q of the kind's class
    share = torch.where(same, (log_q[:, None, :] - merged[:, :, None]).clamp(max=0), -torch.inf).exp()
    mean = (share * reward[:, None, :]).sum(-1)
    earns = valid & (same & (reward != 0)[:, None, :]).any(-1)
    prompt, target = earns.nonzero().unbind(1)

    blank = torch.full_like(merged[prompt], _NEVER)
    own = merged[prompt, target]
    others = torch.where(valid[prompt], merged[prompt], blank).scatter(1, target[:, None], _NEVER)
    invalid = torch.where(first & (answer < 0), merged, _NEVER).amax(-1)[prompt]
    columns = torch.cat([own[:, None], invalid[:, None], others], dim=1)
    win: Tensor = _Win.apply(columns, n, least, ties)  # pyright: ignore[reportAssignmentType]
    value = win.new_zeros(len(log_q)).index_add(0, prompt, win * mean[prompt, target])
    return value.reshape(shape[:-1])


class _Win(torch.autograd.Function):
    """P(win with at least ``least`` votes) from log Q (R, 2 + J) = [own, unparsable, rivals]; slope in one pass."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, log_q: Tensor, n: int, least: int, ties: Ties) -> Tensor:
        # Likely rivals first: at each level the unlikely ones, at the end, are merged and not multiplied.
        rival, order = log_q[:, 2:].detach().sort(dim=1, descending=True)
        used = int((rival > _NEVER / 2).sum(1).max()) if rival.numel() else 0
        rows = torch.cat([log_q[:, :2].detach(), rival[:, :used]], dim=1)
        # The tables hold N + 1 numbers for each class and row.
        size = max(1, _CELLS // ((used + 2) * (n + 1)))
        parts = [_wins(part, n, least, ties, slope=ctx.needs_input_grad[0]) for part in rows.split(size) if len(part)]  # pyright: ignore
        win, slope = (torch.cat(x) for x in zip(*parts, strict=True)) if parts else (rows[:, 0], rows)
        if slope.shape == rows.shape:
            grad = torch.zeros_like(log_q)
            grad[:, :2] = slope[:, :2]
            grad[:, 2:].scatter_(1, order[:, :used], slope[:, 2:])
            ctx.save_for_backward(grad)
        return win

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return grad[:, None] * slope, None, None, None


def _wins(log_q: Tensor, n: int, least: int, ties: Ties, *, slope: bool) -> tuple[Tensor, Tensor]:
    """P(win) (R,) and its derivative by log Q (R, 2 + J); the rivals are in descending order.

    A level of t votes adds at most Bin(t; N, Q_a), and a rival that reaches it takes away at most P(Bin(N, Q_b) >= t):
    what lies below _NEGLIGIBLE times the sum so far is left out, the likely levels first.
    """
    votes = torch.arange(n + 1, dtype=torch.float64, device=log_q.device)[:, None, None]
    binomial = torch.exp(
        (torch.lgamma(votes[-1] + 1) - torch.lgamma(votes + 1) - torch.lgamma(n - votes + 1))
        + votes * log_q.T
        + (n - votes) * torch.log1p(-log_q.T.exp().clamp(max=1 - 1e-16))
    )  # (N+1, 2+J, R)
    own, reach = binomial[:, 0], binomial[:, 2:].flip(0).cumsum(0).flip(0)
    rate = n * log_q.T.exp()
    table = torch.exp(votes * torch.log(votes[-1]) + votes * log_q.T - rate - torch.lgamma(votes + 1))
    norm = torch.exp(n * torch.log(votes[-1]) - rate.sum(0) - torch.lgamma(votes[-1] + 1))[0]
    win, grad = torch.zeros_like(norm), torch.zeros_like(rate)
    for t in own[least:].amax(1).argsort(descending=True).add(least).tolist():
        floor = _NEGLIGIBLE * win
        if not bool((own[t] > floor).any()):
            continue
        able = (reach[t] > floor).any(1).nonzero()[:, 0].tolist() if t <= n - t else []
        strong = able[-1] + 1 if able else 0
        value, part = _level(table, rate, t, strong, ties, slope=slope)
        win += value / norm
        grad += part / norm
    return win, grad.T if slope else win[:, None]


def _level(table: Tensor, rate: Tensor, t: int, strong: int, ties: Ties, *, slope: bool) -> tuple[Tensor, Tensor]:
    """Wins with exactly t votes, times p(N), and the derivative by log Q: (R,), (2+J, R).

    The first ``strong`` rivals are held below t votes or tied at t; the others merge with the unparsable.
    """
    width = len(table) - t
    z, share = (x.to(table)[:, None] for x in tie_nodes(min(strong, (width - 1) // t), ties))
    degree = torch.arange(width, dtype=table.dtype, device=table.device)[:, None, None]
    columns = table[: t + 1, 2 : 2 + strong, None].repeat(1, 1, len(z), 1)  # (t+1, J, Z, R)
    rivals = [Factor(x[:t], x[t:], x[:0]) for x in columns.unbind(1)]  # the winner is apart: no rival wins
    merged = rate[1] + rate[2 + strong :].sum(0)
    log_merged = torch.where(merged > 0, merged, 1).log()
    rest = torch.exp(degree * log_merged - merged - torch.lgamma(degree + 1))
    rest = torch.where((merged > 0) | (degree == 0), rest, 0).expand(-1, len(z), -1)  # (W, Z, R)
    prefix = [rest]
    for rival in rivals[:-1] if slope else rivals:
        prefix.append(convolve(prefix[-1], rival, z))
    # The adjoint of a product: only the coefficient of x^(N-t) counts, integrated over the ties.
    adjoint = torch.zeros_like(rest)
    adjoint[-1] = share * table[t, 0]
    if not slope:
        return (adjoint[-1] * prefix[-1][-1]).sum(0), torch.zeros_like(rate)
    grad = torch.zeros_like(rate)
    for j, rival in reversed(list(enumerate(rivals))):
        by_votes = Factor(degree[:t] * rival.below, t * rival.at, rival.wins)
        grad[2 + j] = (adjoint * convolve(prefix[j], by_votes, z)).sum((0, 1))
        adjoint = transposed(adjoint, rival, z)
    value = (adjoint * rest).sum((0, 1))
    once_more = (adjoint[1:] * rest[:-1]).sum((0, 1))  # d/d rate of a Poisson polynomial is a shift by one
    grad[0] = t * value
    grad[1] = rate[1] * once_more
    grad[2 + strong :] = rate[2 + strong :] * once_more
    return value, grad
