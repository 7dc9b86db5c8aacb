"""A transform g of a strategy's value: the objective E g(V) over prompts in the place of E V.

g decides how much a prompt of small value counts beside one of large value: its slope multiplies the gradient of V.
GRPO's division by the standard deviation of a group is a plug-in form of g(V) = arcsin sqrt V.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, ParseError
from operant.core.logmath import log1mexp
from operant.strategies.base import Strategy
from operant.strategies.forms import NUMBER
from operant.strategies.outcomes import Outcomes
from operant.strategies.routes import Route, exact_credit, mean_value, route_of

TransformKind = Literal["log", "arcsin", "logit"]
_FORM = re.compile(rf"(?P<kind>{'|'.join(get_args(TransformKind))})(?::(?P<eps>{NUMBER}))?")
_NEAR_ONE = -1e-12
"""log S that stands for S = 1, where the slope of arcsin sqrt S is infinite."""


@dataclass(frozen=True)
class Transform:
    """g(V) for the value V of a prompt, increasing.

    - "log": log(V + eps), for V >= 0. Prompts with V << eps count as in E V; with V >> eps by their relative gain.
    - "arcsin": arcsin sqrt V, for V in [0, 1]. eps is not used.
    - "logit": log((V + eps) / (1 - V + eps)), for V in [0, 1].

    Derived here; "Advantage shaping as surrogate reward maximization" (arXiv 2510.23049) has such objectives.

    Args:
        kind: the function.
        eps: of "log" and "logit", > 0. On sums, 0.02 suited prompts that were solved in 5 % of the rollouts, and 0.1
            such of 20 %.

    >>> Transform.parse("log:0.02")
    Transform(kind='log', eps=0.02)
    """

    kind: TransformKind
    eps: float = 0.1

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.kind not in get_args(TransformKind):
            raise InputError(f"a transform is one of {', '.join(get_args(TransformKind))}, got {self.kind!r}.")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise InputError(f"eps of a transform must be a finite number > 0, got {self.eps!r}.")

    @classmethod
    def parse(cls, text: str) -> Transform:
        """The transform of a string: ``log``, ``log:0.02``, ``arcsin``, ``logit``, ``logit:0.05``.

        Raises:
            ParseError: for another string.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None or (match["kind"] == "arcsin" and match["eps"]):
            raise ParseError(f"expected a transform such as log:0.02, arcsin or logit:0.05, got {text!r}.")
        kind: TransformKind = match["kind"]  # pyright: ignore[reportAssignmentType]
        return cls(kind, float(match["eps"])) if match["eps"] else cls(kind)

    def __str__(self) -> str:
        """The string, which :meth:`parse` reads."""
        return self.kind if self.kind == "arcsin" else f"{self.kind}:{self.eps!r}"

    def __call__(self, value: Tensor) -> Tensor:
        """g(V), elementwise.

        Raises:
            InputError: for a value outside the domain, by more than rounding.
        """
        low, high = value.min().item(), value.max().item()
        if low < -1e-9 or (self.kind != "log" and high > 1 + 1e-9):
            domain = "at least 0" if self.kind == "log" else "in [0, 1]"
            raise InputError(f"the transform {self} is for values {domain}, got {low:.6g} to {high:.6g}.")
        value = value.clamp(min=0.0)
        if self.kind == "log":
            return (value + self.eps).log()
        value = value.clamp(max=1.0)
        if self.kind == "arcsin":
            return value.sqrt().asin()
        return (value + self.eps).log() - (1 - value + self.eps).log()

    def credit(self, s: Strategy, outcomes: Outcomes, *, route: Route | None = None) -> Tensor:
        """RL weights of E g(V): w_i = mean_j g(U without j) - g(U without i), (..., M); positive = more likely.

        They sum to 0, and are unbiased for the gradient of E g(U of M - 1 rollouts), which differs from g(V) by
        g''(V) Var(U) / 2 + ... = O(1/M): ``operant audit`` shows it. U without i is U - c_i with the exact credit c, so
        they cost no more than c. For g(V) = V they are c.

        Args:
            s: the strategy, budget N.
            outcomes: M >= N + 1.
            route: as for :func:`~operant.credit`.

        Raises:
            BudgetError: if M <= N.
            InputError: for values outside the domain of g.
            NotDefinedError: if the strategy has no exact route.

        >>> from operant import PassAt
        >>> Transform("log", 0.1).credit(PassAt(1), Outcomes(torch.tensor([1.0, 0.0, 0.0])))
        tensor([ 1.1945, -0.5973, -0.5973])
        """
        if outcomes.m <= s.n:
            raise BudgetError(
                f"a transform of {s} needs at least N + 1 = {s.n + 1} rollouts a prompt, got {outcomes.m}: it compares "
                "the values without each of them. Sample more rollouts, or lower N."
            )
        if (route or route_of(s, outcomes)) == "monte carlo":
            raise NotDefinedError(
                f"{s} has no exact route for {outcomes.m} rollouts, and g of a Monte Carlo estimate is biased. Leave "
                "out the transform, or lower N."
            )
        score = None if outcomes.score is None else outcomes.score.double()
        o = Outcomes(outcomes.reward.double(), outcomes.answer, score)
        without = self(mean_value(s, o)[..., None] - exact_credit(s, o, route=route))
        return (without.mean(-1, keepdim=True) - without).to(outcomes.reward)

    def loss(self, log_s: Tensor) -> Tensor:
        """g(1) - g(S) >= 0 from log S <= 0, elementwise, in the dtype of ``log_s``."""
        s = log_s.double().clamp(max=_NEAR_ONE) if self.kind == "arcsin" else log_s.double()
        if self.kind == "arcsin":
            # pi/2 - arcsin sqrt S = arctan sqrt((1 - S) / S)
            found = torch.atan(((log1mexp(s) - s) / 2).exp())
        else:
            log_eps = math.log(self.eps)
            found = math.log1p(self.eps) - torch.logaddexp(s, torch.full_like(s, log_eps))
            if self.kind == "logit":
                found = found - log_eps + (1 - s.exp() + self.eps).log()
        return found.to(log_s)

    def slope(self, log_s: Tensor) -> Tensor:
        """d g(S) / d log S, elementwise, float64: the factor on the elasticity of S."""
        s = log_s.double().exp()
        if self.kind == "log":
            return s / (s + self.eps)
        if self.kind == "arcsin":
            rest = log_s.double().clamp(max=_NEAR_ONE)
            return ((rest - log1mexp(rest)) / 2).exp() / 2
        return s / (s + self.eps) + s / (1 - s + self.eps)
