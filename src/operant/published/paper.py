"""The published RL weights of Compute Aligned Training, kept as printed, to compare with.

Advantage A_i = (r_i - mean) / (sd + 1e-4) over the M rollouts, times a detached weight w >= 0:
"raw" is F'(p), "log" is p F'(p) / F(p). They are plug-in weights and biased (pass@4 from M = 8 at p = .9: 14
times the true slope); for training prefer ``credit``. A :class:`Recipe` is a whole published run.
Source: arXiv 2604.24957, table 1, appendices B, J, K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, check_finite, check_int, check_log_p
from operant.core.logmath import log1mexp, log_binom, xlog
from operant.strategies.base import Strategy
from operant.strategies.counts import PassAt, Threshold
from operant.strategies.outcomes import Outcomes
from operant.strategies.ranking import BestOf
from operant.strategies.votes.majority import Majority

WeightForm = Literal["log", "raw"]
_Probability = Literal["sequence", "empirical"]
# Appendix J: sequence log-probabilities are clamped here, and p to [1e-10, 1 - 1e-10].
_FLOOR = -50.0


def standardized(reward: Tensor, *, penalty: float = 0.0, clip: float | None = None) -> Tensor:
    """(r - mean) / (sd + 1e-4) over the last dimension, sd with M - 1; (..., M) -> (..., M).

    Args:
        reward: (..., M).
        penalty: taken off where every reward of the prompt is 0 (appendix K).
        clip: the result is held within +-clip, the penalty included.
    """
    centered = reward - reward.mean(-1, keepdim=True)
    result = centered / (reward.std(-1, keepdim=True) + 1e-4)
    result = result - penalty * (reward == 0).all(-1, keepdim=True)
    return result if clip is None else result.clamp(-clip, clip)


def laplace_rate(reward: Tensor) -> Tensor:
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
    lower = (reward[..., None, :] < reward[..., :, None]).sum(-1).double()
    return n * ((lower + 1) / (reward.shape[-1] + 1)) ** (n - 1)


def normalized(w: Tensor) -> Tensor:
    """w / mean(w) over all prompts and rollouts of the batch, through w / max(w) first; zeros stay zero."""
    # By the largest first: the mean of weights near the largest float would overflow.
    scaled = w / w.amax().clamp(min=torch.finfo(w.dtype).tiny)
    return torch.where(w > 0, scaled / scaled.mean(), w)


class Quantiles:
    """Where a reward stands among the last ``length`` rewards: best-of-N where all prompts are the same one.

    Args:
        length: rewards that are kept, first in first out.

    >>> seen = Quantiles(4)
    >>> seen.push(torch.tensor([[1.0, 3.0]])).tolist(), seen.push(torch.tensor([[2.0]])).tolist()
    ([[0.5, 0.5]], [[0.5]])
    """

    def __init__(self, length: int = 4000) -> None:
        self.length = check_int("length", length, least=1)
        self.values: list[float] = []

    def push(self, reward: Tensor) -> Tensor:
        """q = (kept rewards < r + 1) / (kept + 2) within [.001, .999], then keep these rewards too.

        A batch is never ranked against itself: q is .5 for the first one.

        Args:
            reward: any shape, all prompts and rollouts of the step.

        Returns:
            The same shape, float64.
        """
        check_finite("reward", reward)
        r = reward.detach().double()
        kept = torch.tensor(sorted(self.values), dtype=torch.float64, device=r.device)
        q = (torch.searchsorted(kept, r.contiguous()).double() + 1) / (len(kept) + 2)
        self.values = (self.values + r.flatten().tolist())[-self.length :]
        return q.clamp(0.001, 0.999)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as plain numbers."""
        return {"length": self.length, "values": list(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict``.

        Raises:
            InputError: if it is of a history of another length.
        """
        if state["length"] != self.length:
            raise InputError(
                f"this history keeps {self.length} rewards, the saved one {state['length']}: "
                "resume with the same length."
            )
        self.values = list(state["values"])


@dataclass(frozen=True)
class Recipe:
    """The published weights of a run: advantage, weight, and what is done to both before they are multiplied.

    Args:
        form: "raw" = F'(p), "log" = p F'(p)/F(p). Best-of-N has the raw one only, and takes it for both.
        probability: "sequence": p is the probability of the completion; "empirical": the Laplace success rate of
            the prompt; None for best-of-N, which ranks rewards instead.
        clip: largest weight, before the normalization.
        normalize: divide by the mean weight of the batch. One prompt alone, whose rollouts share a weight, keeps it.
        penalty: taken off the advantages of a prompt whose rewards are all 0.
        advantage_clip: bound of the advantages.
        history: rewards that :class:`Quantiles` keeps for best-of-N; 0: ranks within the prompt.

    Raises:
        InputError: for a form, a probability or a bound that is not allowed.
    """

    form: WeightForm = "raw"
    probability: _Probability | None = "empirical"
    clip: float | None = None
    normalize: bool = False
    penalty: float = 0.0
    advantage_clip: float | None = None
    history: int = 0

    def __post_init__(self) -> None:
        """Check the names and the bounds."""
        if self.form not in ("log", "raw"):
            raise InputError(f"form must be 'log' or 'raw', got {self.form!r}.")
        if self.probability not in ("sequence", "empirical", None):
            raise InputError(f"probability must be 'sequence', 'empirical' or None, got {self.probability!r}.")
        for name, bound in (("clip", self.clip), ("advantage_clip", self.advantage_clip)):
            if bound is not None and not 0 < bound < float("inf"):
                raise InputError(f"{name} must be a positive number, or None for no bound, got {bound!r}.")
        if not 0 <= self.penalty < float("inf"):
            raise InputError(f"penalty must be a number >= 0, got {self.penalty!r}.")
        check_int("history", self.history, least=0)

    def factor(
        self, s: Strategy, outcomes: Outcomes, *, log_p: Tensor | None = None, quantiles: Quantiles | None = None
    ) -> Tensor:
        """The weight w >= 0, clipped, then normalized; arguments as for :meth:`weights`. (..., M), float64."""
        shared = not isinstance(s, BestOf) and self.probability == "empirical"
        w = self._raw(s, outcomes, log_p, quantiles).expand(outcomes.reward.shape)
        w = w if self.clip is None else w.clamp(max=self.clip)
        alone = shared and outcomes.reward.numel() == outcomes.m
        return normalized(w) if self.normalize and not alone else w

    def weights(
        self, s: Strategy, outcomes: Outcomes, *, log_p: Tensor | None = None, quantiles: Quantiles | None = None
    ) -> Tensor:
        """w_i A_i; positive = more likely.

        Args:
            s: pass@N, threshold@N:k, maj@N (with the paper's dynamic threshold, N >= 2) or best@N.
            outcomes: (..., M), all prompts of the step: the normalization is over all of them.
            log_p: (..., M) sequence log-probabilities, for probability = "sequence".
            quantiles: for ``history`` > 0. These rewards are appended to it.

        Returns:
            (..., M), dtype of the rewards.

        Raises:
            NotDefinedError: for a strategy that the paper does not treat.
            BudgetError: for a single rollout, whose advantage has no standard deviation, or for maj@1.
            InputError: if ``log_p`` or ``quantiles`` is needed and missing, or for other rewards than 0 and 1 with
                a strategy that counts or votes, or with a penalty.
        """
        if outcomes.m < 2:
            raise BudgetError(f"the standardized advantage needs at least 2 rollouts a prompt, got {outcomes.m}.")
        if not outcomes.binary and (self.penalty or not isinstance(s, BestOf)):
            raise InputError(
                f"the paper's weights of {s} with penalty = {self.penalty} are for rewards of 0 and 1 only. "
                "Binarize them: (reward == 1)."
            )
        a = standardized(outcomes.reward.double(), penalty=self.penalty, clip=self.advantage_clip)
        return (self.factor(s, outcomes, log_p=log_p, quantiles=quantiles) * a).to(outcomes.reward.dtype)

    def _raw(self, s: Strategy, outcomes: Outcomes, log_p: Tensor | None, quantiles: Quantiles | None) -> Tensor:
        """w before clip and mean; (..., 1) where the rollouts of a prompt share it."""
        reward = outcomes.reward.double()
        if isinstance(s, BestOf):
            if not self.history:
                return rank_weight(s.n, reward)
            if quantiles is None or quantiles.length != self.history:
                raise InputError(
                    f"history = {self.history} needs quantiles=Quantiles({self.history}), kept over the run."
                )
            return s.n * quantiles.push(reward) ** (s.n - 1)
        if not isinstance(s, (PassAt, Threshold, Majority)):
            raise NotDefinedError(f"the paper has no weights for {s}; use form='exact'.")
        if isinstance(s, Majority) and s.n < 2:
            raise BudgetError(f"the dynamic threshold is 2 votes at least, got N = {s.n}: use pass@1.")
        k = vote_threshold(s.n, outcomes) if isinstance(s, Majority) else torch.tensor(getattr(s, "k", 1))
        if self.probability == "empirical":
            log_prob = laplace_rate(reward).log()
        elif self.probability == "sequence" and log_p is not None:
            floor = check_log_p(log_p.detach()).double().clamp(min=_FLOOR).exp()
            log_prob = floor.clamp(1e-10, 1 - 1e-10).log()
        else:
            raise InputError(
                f"the weight of {s} depends on p: give log_p= with probability='sequence', or take "
                f"probability='empirical'; got probability={self.probability!r}."
            )
        return _threshold_weight(s.n, k.to(reward.device)[..., None], log_prob, self.form)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "math-pass": Recipe("log", "sequence", clip=50.0),
        "math-majority": Recipe("raw", "empirical", clip=10.0, normalize=True, penalty=0.5),
        "protein-conditional": Recipe("raw", None, normalize=True, advantage_clip=5.0),
        "protein-unconditional": Recipe("raw", None, normalize=True, advantage_clip=5.0, history=4000),
    }
)
"""The runs of the paper's main tables; the other form of each is its ablation."""


def _threshold_weight(n: int, k: Tensor, log_p: Tensor, form: WeightForm) -> Tensor:
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
