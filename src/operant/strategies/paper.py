"""The published RL weights of Compute Aligned Training, kept as printed, to compare with.

Advantage A_i = (r_i - mean) / (sd + 1e-4) over the M rollouts, times a detached weight w >= 0:
"raw" is F'(p), "log" is p F'(p) / F(p). They are plug-in weights and biased (pass@4 from M = 8 at p = .9: 14
times the true slope); for training prefer ``credit``. Source: arXiv 2604.24957, table 1, appendices B, J, K.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, check_log_p
from operant.core.logmath import log1mexp, log_binom, xlog
from operant.strategies.base import Outcomes, Strategy
from operant.strategies.counts import PassAt, Threshold
from operant.strategies.ranking import BestOf
from operant.strategies.voting import Majority

Form = Literal["log", "raw"]
FLOOR = -50.0
"""Appendix J: sequence log-probabilities are clamped here, and p to [1e-10, 1 - 1e-10]."""


def advantage(reward: Tensor) -> Tensor:
    """(r - mean) / (sd + 1e-4) over the last dimension, sd with M - 1; (..., M) -> (..., M)."""
    centred = reward - reward.mean(-1, keepdim=True)
    return centred / (reward.std(-1, keepdim=True) + 1e-4)


def success_rate(reward: Tensor) -> Tensor:
    """Laplace's (c + 1) / (M + 2) of binary rewards, (..., M) -> (..., 1)."""
    return (reward.sum(-1, keepdim=True) + 1) / (reward.shape[-1] + 2)


def vote_threshold(n: int, outcomes: Outcomes) -> Tensor:
    """k = max(2, min(N//2 + 1, floor(N c_max / M) + 1)), c_max = votes of the most frequent wrong answer.

    Unparsable answers form one wrong class. (..., M) -> (...), integer.

    Raises:
        InputError: if ``outcomes`` has no answers.
    """
    if outcomes.answer is None:
        raise InputError("the dynamic threshold counts wrong answers: give Outcomes(answer=...).")
    wrong = outcomes.reward <= 0
    same = (outcomes.answer[..., :, None] == outcomes.answer[..., None, :]) & wrong[..., None, :]
    c_max = torch.where(wrong, same.sum(-1), 0).amax(-1)
    k = (n * c_max // outcomes.m + 1).clamp(max=n // 2 + 1)
    return k.clamp(min=2)


def rank_weight(n: int, reward: Tensor) -> Tensor:
    """N q^(N-1), q = (strictly lower rewards + 1) / (M + 1) within the prompt; (..., M) -> (..., M)."""
    lower = (reward[..., None, :] < reward[..., :, None]).sum(-1)
    return n * ((lower + 1) / (reward.shape[-1] + 1)) ** (n - 1)


def weights(s: Strategy, outcomes: Outcomes, form: Form, *, log_p: Tensor | None = None) -> Tensor:
    """w_i A_i as the paper prints it, (..., M).

    Args:
        s: pass@N, threshold@N:k, maj@N (the paper's dynamic threshold) or best@N.
        outcomes: (..., M).
        form: "raw" = F'(p), "log" = p F'(p)/F(p).
        log_p: (..., M) sequence log-probabilities; p is exp of them (its pass@N runs). Default: p is the
            Laplace success rate of the prompt (its majority runs). Best-of-N uses ranks and neither.

    Raises:
        NotDefinedError: for a strategy that the paper does not treat.
        BudgetError: for a single rollout, whose advantage has no standard deviation.
        InputError: for a form that does not exist.
    """
    if form not in ("log", "raw"):
        raise InputError(f"form must be 'log' or 'raw', got {form!r}.")
    if outcomes.m < 2:
        raise BudgetError(f"the standardised advantage needs at least 2 rollouts a prompt, got {outcomes.m}.")
    reward = outcomes.reward.double()
    if isinstance(s, BestOf):
        w = rank_weight(s.n, reward)
    elif isinstance(s, (PassAt, Threshold, Majority)):
        k = vote_threshold(s.n, outcomes) if isinstance(s, Majority) else torch.tensor(getattr(s, "k", 1))
        if log_p is None:
            log_prob = success_rate(reward).log()
        else:
            floor = check_log_p(log_p).double().clamp(min=FLOOR).exp()
            log_prob = floor.clamp(1e-10, 1 - 1e-10).log()
        w = _threshold_weight(s.n, k.to(reward.device)[..., None], log_prob, form)
    else:
        raise NotDefinedError(f"the paper has no weights for {s}; use form='exact'.")
    return (w * advantage(reward)).to(outcomes.reward.dtype)


def _threshold_weight(n: int, k: Tensor, log_p: Tensor, form: Form) -> Tensor:
    """F'(p) = N C(N-1,k-1) p^(k-1) (1-p)^(N-k) of F = P[Bin(N,p) >= k], or p F'/F; (..., 1 or M)."""
    log_q = log1mexp(log_p)
    binom = log_binom((n * torch.ones_like(k) - 1).cpu(), (k - 1).cpu()).to(log_p.device)
    log_slope = torch.log(log_p.new_tensor(n)) + binom + (k - 1) * log_p + xlog(n - k, log_q)
    if form == "raw":
        return log_slope.exp()
    j = torch.arange(n + 1, device=log_p.device)
    terms = log_binom(n, j.cpu()).to(log_p.device) + xlog(j, log_p[..., None])
    terms = terms + xlog(n - j, log_q[..., None])
    log_s = torch.logsumexp(torch.where(j >= k[..., None], terms, -torch.inf), dim=-1)
    return torch.exp(log_p + log_slope - log_s)
