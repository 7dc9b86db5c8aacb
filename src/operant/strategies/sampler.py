"""The sampler as a value: temperature and nucleus, and the log-probabilities that belong to them.

The weights belong to the distribution that is *sampled*. One object holds its temperature and its nucleus, draws the
rollouts and gives their log-probabilities. The gradient of any other log-probability is not that of the deployed
policy: the score of untempered logits has another length and another direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operant.core.checks import InputError, check_finite


@dataclass(frozen=True)
class Sampler:
    """Ancestral sampling: token v has probability softmax(l / temperature)_v, renormalized over the nucleus.

    The nucleus is the least set of most probable tokens, at that temperature, that holds mass ``top_p`` (the rule
    of transformers' ``TopPLogitsWarper``). With top_p < 1 the objective J is differentiable almost everywhere
    only: the gradients here hold the nucleus fixed and ignore the jumps where a token enters or leaves it.
    The set must be the one that was sampled from: recomputed from other logits (after an update, in another
    precision) it can lack a sampled token. Then :meth:`log_prob` raises.

    Args:
        temperature: > 0. Token tempering, not a power of the sequence probability.
        top_p: mass of the nucleus, in (0, 1]; 1 keeps all tokens.

    Raises:
        InputError: for values outside these ranges.

    >>> Sampler(temperature=0.5, top_p=0.9).log_probs(torch.tensor([2.0, 1.0, 0.0])).exp()
    tensor([0.8808, 0.1192, 0.0000])
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (self.temperature > 0 and math.isfinite(self.temperature) and 0 < self.top_p <= 1):
            raise InputError(
                "expected a finite temperature > 0 and 0 < top_p <= 1, got temperature = "
                f"{self.temperature}, top_p = {self.top_p}. For greedy decoding use a small temperature."
            )

    def warp(self, logits: Tensor) -> Tensor:
        """Logits of the sampled distribution, l / temperature and -inf outside the nucleus: (..., V) -> (..., V).

        Half precision is promoted to float32. At temperature 1 and top_p 1 the logits come back as they are.
        """
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if self.temperature != 1:
            logits = logits / self.temperature
        if self.top_p == 1:
            return logits
        # Summed from the least probable token up, as TopPLogitsWarper does, so that rounding leaves the same nucleus.
        ascending, order = logits.detach().sort(dim=-1)
        outside = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p
        # The most probable token stays, however small top_p is.
        outside[..., -1] = False
        return logits.masked_fill(torch.zeros_like(outside).scatter_(-1, order, outside), -math.inf)

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probability of every next token, -inf outside the nucleus: (..., V) -> (..., V).

        Args:
            logits: (..., V) raw logits of the model, finite.

        Raises:
            InputError: for NaN or infinite logits.
        """
        return self.warp(check_finite("logits", logits)).log_softmax(-1)

    def log_prob(self, logits: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """log pi(y) = sum_t log pi(y_t | y_<t), the one whose gradient the rollout weights multiply.

        Args:
            logits: (..., T, V) raw logits at the position that predicts each token.
            tokens: (..., T) the tokens y_t.
            mask: (..., T) true at sampled tokens, the end-of-sequence token included; default all.

        Returns:
            (...), differentiable in ``logits``.

        Raises:
            InputError: for shapes that differ, NaN or infinite logits, or tokens outside the nucleus: their
                probability is 0 and the loss infinite. Rollouts need the logits (or the nucleus) they were sampled
                with; supervised targets need top_p = 1.
        """
        tokens, mask = _checked(logits, tokens, mask)
        log_p = self.log_probs(logits).gather(-1, tokens[..., None])[..., 0]
        lost = mask & log_p.isneginf()
        if bool(lost.any()):
            raise InputError(
                f"{int(lost.sum())} of {int(mask.sum())} tokens lie outside the nucleus of {self}, where their "
                "probability is 0. Rollouts: give the logits they were sampled with, or replay the sampler's own "
                "nucleus. Supervised targets: use top_p=1."
            )
        return torch.where(mask, log_p, 0).sum(-1)

    @torch.no_grad()
    def temperature_score(self, logits: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """d log pi(y) / d temperature = -(1/temperature^2) sum_t (l_{y_t} - E l), E over the nucleus.

        Arguments and errors as for :meth:`log_prob`; without a gradient. Returns (...).
        """
        tokens, mask = _checked(logits, tokens, mask)
        self.log_prob(logits, tokens, mask)  # raises for tokens that this sampler cannot have drawn
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        mean = (self.warp(logits).softmax(-1) * logits).sum(-1)
        chosen = logits.gather(-1, tokens[..., None])[..., 0]
        return -torch.where(mask, chosen - mean, 0).sum(-1) / self.temperature**2

    def temperature_gradient(
        self, weights: Tensor, logits: Tensor, tokens: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Estimate of dJ/d temperature, mean over prompts of sum_i w_i d log pi(y_i) / d temperature.

        Unbiased with the weights that train the policy, for any strategy: a deployed temperature can be
        learned from the same rollouts. Positive = sample hotter.

        Args:
            weights: (..., M) of :func:`~operant.credit`.
            logits: (..., M, T, V).
            tokens: (..., M, T).
            mask: (..., M, T).

        Returns:
            (), dtype of the weights.

        Raises:
            InputError: as for :meth:`log_prob`, and if the weights have another shape.
        """
        score = self.temperature_score(logits, tokens, mask)
        if weights.shape != score.shape:
            raise InputError(
                f"expected one weight a rollout, {tuple(score.shape)}, got weights of shape {tuple(weights.shape)}."
            )
        check_finite("weights", weights)
        return (weights.detach().double() * score.double()).sum(-1).mean().to(weights)


def _checked(logits: Tensor, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens (0 where masked, so that any filler will do) and mask as booleans."""
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    if logits.ndim < 2 or logits.shape[:-1] != tokens.shape or mask.shape != tokens.shape:
        raise InputError(
            "expected logits (..., T, V) with tokens and mask (..., T), got "
            f"{tuple(logits.shape)}, {tuple(tokens.shape)} and {tuple(mask.shape)}."
        )
    tokens = torch.where(mask, tokens, 0).long()
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < logits.shape[-1]:
        raise InputError(
            f"tokens must lie in 0..{logits.shape[-1] - 1} where the mask is true, got "
            f"{int(tokens.min())}..{int(tokens.max())}. Mask padding."
        )
    return tokens, mask
