"""Imperfect verifiers: false positives (rate alpha) and false negatives (rate beta), known rates.

``Verified`` takes the truth of each rollout and gives what deployment with the noisy verifier will earn.
``NoisyPassAt`` takes noisy verdicts and gives what a perfect verifier would have found. If both the verdicts of the
deployed verifier and the truth are known, neither is needed: take ``best@N`` with ``score`` = verdict, or
``first@N:fail`` where nothing is returned when nothing is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from operant.core.checks import InputError, check_int
from operant.strategies.base import Traits
from operant.strategies.counts import CountStrategy


@dataclass(frozen=True)
class Verified(CountStrategy):
    """Accept, then pick: one of the accepted samples is returned, uniformly.

    A correct sample is accepted with probability 1 - beta, a wrong one with probability alpha, independently.
    With a = p (1-beta) + (1-p) alpha,

        S(p) = [1 - (1-a)^N] p (1-beta)/a + (1-a)^N p beta/(1-a),

    the last term only with ``fallback="random"`` (one of the N when nothing is accepted). More samples do not
    help beyond :meth:`ceiling`.

    Args:
        n: the budget N.
        false_positive: alpha in [0, 1).
        false_negative: beta in [0, 1), alpha + beta < 1.
        fallback: "random" or "fail" (nothing is returned, worth 0).

    >>> s = Verified(5, 0.1, 0.25)
    >>> round(s.log_success(torch.tensor(0.3).log()).exp().item(), 3), round(s.ceiling(0.3), 3)
    (0.648, 0.763)
    """

    form: ClassVar[str] = "verified@{n}:{false_positive}:{false_negative}[:{fallback}]"
    n: int
    false_positive: float
    false_negative: float
    fallback: Literal["random", "fail"] = "random"

    def __post_init__(self) -> None:
        """Check the budget and the rates."""
        check_int("n", self.n, least=1)
        _check_rates(self.false_positive, self.false_negative)
        if self.fallback not in ("random", "fail"):
            raise InputError(f"fallback must be 'random' or 'fail', got {self.fallback!r}.")

    def table(self) -> Tensor:
        """v_k = k (1-beta) E[1/(1 + other accepted)] + beta^k (1-alpha)^(N-k) k/N.

        E[1/(1+X)] is the integral over z in [0, 1] of E z^X, a polynomial: exact by Gauss-Legendre.
        """
        n, alpha, beta = self.n, self.false_positive, self.false_negative
        # N // 2 + 1 nodes are exact up to degree N; the polynomial has degree N - 1.
        nodes, weights = np.polynomial.legendre.leggauss(n // 2 + 1)
        z, k = (nodes + 1) / 2, np.arange(1, n + 1)[:, None]
        pick = (beta + (1 - beta) * z) ** (k - 1) * (1 - alpha + alpha * z) ** (n - k) @ (weights / 2)
        k = k[:, 0]
        v = k * (1 - beta) * pick
        if self.fallback == "random":
            v = v + beta**k * (1 - alpha) ** (n - k) * k / n
        return torch.from_numpy(np.concatenate([[0.0], v.clip(0, 1)]))

    def ceiling(self, p: float) -> float:
        """p (1-beta) / a: the precision of an accepted sample, which no number of samples exceeds."""
        if not 0 < p <= 1:
            raise InputError(f"p must lie in (0, 1], the chance that one sample is correct; got {p}.")
        right = p * (1 - self.false_negative)
        return right / (right + (1 - p) * self.false_positive)


@dataclass(frozen=True)
class NoisyPassAt(CountStrategy):
    """Pass@N of the truth, unbiased, from rewards that are noisy verdicts of known rates.

    With r~ = (verdict - alpha) / (1 - alpha - beta), an unbiased estimate of the truth, and
    V = 1 - prod_i (1 - r~_i) over the N samples: E V = 1 - (1-p)^N. As a table over the number k of accepted
    samples, v_k = 1 - (1 - r~(1))^k (1 - r~(0))^(N-k): it alternates in sign around its mean, so more accepted
    samples can be worth less, and its spread grows up to (1 - alpha - beta)^(-N). Raise M with N.

    Args:
        n: the budget N.
        false_positive: alpha in [0, 1).
        false_negative: beta in [0, 1), alpha + beta < 1.

    >>> NoisyPassAt(2, 0.0, 0.0).table().tolist()
    [0.0, 1.0, 1.0]
    """

    form: ClassVar[str] = "noisy@{n}:{false_positive}:{false_negative}"
    n: int
    false_positive: float
    false_negative: float

    def __post_init__(self) -> None:
        """Check the budget and the rates."""
        check_int("n", self.n, least=1)
        _check_rates(self.false_positive, self.false_negative)

    def table(self) -> Tensor:
        """v_k = 1 - (1 - r~(1))^k (1 - r~(0))^(N-k)."""
        k = torch.arange(self.n + 1, dtype=torch.float64)
        gap = 1 - self.false_positive - self.false_negative
        accepted, rejected = -self.false_negative / gap, (1 - self.false_negative) / gap  # 1 - r~
        return 1 - accepted**k * rejected ** (self.n - k)

    @property
    def traits(self) -> Traits:
        """One more accepted sample can be worth less, and the value is no reward of a sample."""
        return Traits(binary=True, monotone=False, selects=False)


def _check_rates(alpha: float, beta: float) -> None:
    if not (0 <= alpha < 1 and 0 <= beta < 1 and alpha + beta < 1):
        raise InputError(
            "expected a false-positive and a false-negative rate in [0, 1) whose sum is below 1, got "
            f"{alpha} and {beta}: at a sum of 1 the verdict carries no information, above 1 it is inverted."
        )
