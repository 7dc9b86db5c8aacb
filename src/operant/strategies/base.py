"""A test-time strategy as a value: what is returned from N sampled outcomes, and what that is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from operant.core.checks import InputError, NotDefinedError, check_finite, check_int, check_log_p
from operant.strategies.forms import register_form, write_form
from operant.strategies.outcomes import Outcome, Outcomes


class Success(NamedTuple):
    """S(p), the probability that the strategy succeeds, in log space; all (...), float64."""

    log_s: Tensor
    """log S(p)"""
    log_f: Tensor
    """log(1 - S(p))"""
    elasticity: Tensor
    """f = p S'(p) / S(p): the factor on the cross-entropy gradient."""


@dataclass(frozen=True)
class Traits:
    """What holds of a strategy whatever the outcomes are."""

    symmetric: bool = True
    """Whether the value depends on the multiset of outcomes only, not on their order."""
    binary: bool = False
    """Whether rewards must be 0 or 1."""
    answers: bool = False
    """Whether it votes over answer classes, which the outcomes must have."""
    monotone: bool = True
    """Whether more reward is never worth less."""
    selects: bool = True
    """Whether the value is the reward of a sample, or 0 where none is returned: no penalty, no price."""

    @classmethod
    def of_mixture(cls, parts: Iterable[Traits]) -> Traits:
        """What holds of a weighted sum: a need of one part is a need of all, and a law must hold for each."""
        every = list(parts)
        return cls(
            symmetric=all(t.symmetric for t in every),
            binary=any(t.binary for t in every),
            answers=any(t.answers for t in every),
            monotone=all(t.monotone for t in every),
            selects=all(t.selects for t in every),
        )


def check_answers(s: Strategy, outcomes: Outcomes) -> None:
    """Raise InputError for outcomes without the answer classes that the strategy's traits ask for."""
    if s.traits.answers and outcomes.answer is None:
        raise InputError(
            f"{s} votes over answer classes: give Outcomes(reward, answer=...), integer classes (..., M) "
            "with -1 where no answer could be extracted."
        )


class Nesting(NamedTuple):
    """How a strategy is built from others."""

    depth: int
    """levels, 1 for a strategy of its own"""
    size: int
    """strategies in all"""


_ALONE = Nesting(1, 1)
MOST_LEVELS = 8
"""Most levels of strategies within strategies: at 14, one value of a nested harmonic mixture takes a second."""
MOST_PARTS = 4096
"""Most strategies within a strategy: a harmonic mixture over budgets 1..N has N, one of those N^2 / 2."""


def nesting(s: Strategy) -> Nesting:
    """The depth and size of a strategy; 1 and 1 unless it is made from others."""
    known: Nesting | None = getattr(s, "_nesting", None)
    if known is not None:
        return known
    inner = [nesting(part) for part in s.inner]
    return Nesting(1 + max(x.depth for x in inner), 1 + sum(x.size for x in inner)) if inner else _ALONE


def check_nesting(s: Strategy) -> None:
    """Check the limits on nesting; every strategy that is made from others calls this.

    Raises:
        InputError: which of the two limits it exceeds.
    """
    depth, size = found = nesting(s)
    if depth > MOST_LEVELS:
        raise InputError(f"strategies may be nested at most {MOST_LEVELS} levels deep, got {depth}.")
    if size - 1 > MOST_PARTS:
        raise InputError(
            f"a strategy may be made from at most {MOST_PARTS:,} others, got {size - 1:,}. Mix fewer budgets, for "
            "example the powers of 2."
        )
    object.__setattr__(s, "_nesting", found)  # counted once: a strategy of many levels would be counted at each


class Strategy(ABC):
    """A procedure that draws N = ``n`` rollouts and returns one answer.

    A subclass is a frozen dataclass. Only ``n`` and :meth:`value` are required; the closed forms are optional
    and everything else (evaluation, RL credit, SFT loss) follows from them.
    """

    n: int
    form: ClassVar[str] = ""
    """How the class is written, fields in braces: ``"threshold@{n}:{k}"`` (see ``forms``). A class that sets it has a
    string, which :func:`~operant.parse` reads back."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get("form"):
            register_form(cls, cls.form)

    @property
    def traits(self) -> Traits:
        """What holds of it whatever the outcomes are."""
        return Traits()

    @property
    def inner(self) -> tuple[Strategy, ...]:
        """The strategies that this one is made from."""
        return ()

    @abstractmethod
    def value(self, draw: Outcomes) -> Tensor:
        """Expected reward of what is returned from N outcomes, ties in expectation: (..., N) -> (...)."""

    def estimate(self, outcomes: Outcomes) -> Tensor | None:
        """Mean of the value over all N-subsets of the M rollouts, (..., M) -> (...); None: no closed form."""
        return None

    def credit(self, outcomes: Outcomes) -> Tensor | None:
        """w_i = U(z) - U(z without i), (..., M) -> (..., M); None: no closed form."""
        return None

    def estimate_budgets(self, outcomes: Outcomes, budgets: Sequence[int]) -> Tensor | None:
        """``estimate`` at every budget in one pass, (..., M) -> (..., len(budgets)); None: one at a time."""
        return None

    def cost(self, draw: Outcomes) -> Tensor:
        """Expected number of samples drawn before the strategy stops, (..., N) -> (...); N unless it stops early."""
        return torch.full_like(draw.reward[..., 0], self.n)

    def estimate_cost(self, outcomes: Outcomes) -> Tensor | None:
        """Mean of the cost over all draws of N of the M rollouts, (..., M) -> (...); None: no closed form."""
        return torch.full_like(outcomes.reward[..., 0], self.n) if type(self).cost is Strategy.cost else None

    def credit_cost(self, outcomes: Outcomes) -> Tensor | None:
        """w_i = D(z) - D(z without i) of the mean cost D, (..., M) -> (..., M); None: no closed form."""
        return torch.zeros_like(outcomes.reward) if type(self).cost is Strategy.cost else None

    def population(self, log_q: Tensor, kinds: Outcomes) -> Tensor | None:
        """E V when draws are i.i.d. and kind k has probability exp(log_q[..., k]), (..., K) -> (...).

        Differentiable in ``log_q``, float64; the probabilities of the K kinds sum to 1. None: no closed form.
        """
        return None

    def success(self, log_p: Tensor) -> Success:
        """S(p) from ``log_p`` <= 0, float64, when the value depends on the number of successes only.

        Raises:
            NotDefinedError: if the strategy has no S(p).
        """
        raise NotDefinedError(
            f"{self} has no success probability S(p) of a single p: what it returns depends on the whole "
            "answer distribution. For SFT use answer_loss with the probabilities of candidate answers, or a strategy "
            "that counts successes (pass@N, threshold@N:k); for RL and evaluation use it as it is."
        )

    def log_success(self, log_p: Tensor) -> Tensor:
        """log S(p), differentiable: d log S / d log p = p S'(p) / S(p).

        Args:
            log_p: (...) natural-log probability of success of one sample, <= 0. Half precision is promoted to
                float32; the arithmetic is float64 throughout.

        Raises:
            InputError: if ``log_p`` is NaN, infinite or positive.
            NotDefinedError: if the strategy has no S(p).
        """
        log_p = check_log_p(log_p)
        if log_p.dtype in (torch.float16, torch.bfloat16):
            log_p = log_p.float()
        result: Tensor = _LogSuccess.apply(log_p, self)  # pyright: ignore[reportAssignmentType]
        return result

    def at_budget(self, n: int) -> Self:
        """The same strategy with another budget."""
        return replace(self, n=n)  # pyright: ignore[reportArgumentType]

    @property
    def family(self) -> str:
        """The string with N in place of the budget; a mixture or a table of its own budgets has none to replace.

        >>> from operant import parse
        >>> parse("threshold@8:3").family
        'threshold@N:3'
        """
        return self.named("N")

    def named(self, n: int | str) -> str:
        """The string with ``n`` in place of the budget."""
        return write_form(self, self.form, n) if self.form else repr(self)

    def __str__(self) -> str:
        """The string, which parses back to this strategy where its class has a form."""
        return self.named(self.n)


class _LogSuccess(torch.autograd.Function):
    """Value and closed-form slope in one pass; the slope is exact where autograd would cancel."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, log_p: Tensor, s: Strategy) -> Tensor:
        result = s.success(log_p.detach().double())
        ctx.save_for_backward(result.elasticity.to(log_p.dtype))
        return result.log_s.to(log_p.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (elasticity,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return grad * elasticity, None


@dataclass(frozen=True)
class FunctionStrategy(Strategy):
    """A user's value function as a strategy; see :func:`from_function`."""

    n: int
    function: Callable[[Sequence[Outcome]], float]
    ordered: bool = False

    def __post_init__(self) -> None:
        """Check the budget."""
        check_int("n", self.n, least=1)

    @property
    def traits(self) -> Traits:
        """Nothing is known of a function but whether the order matters to it."""
        return Traits(symmetric=not self.ordered, selects=False)

    def value(self, draw: Outcomes) -> Tensor:
        """Call the function once per draw."""
        reward = draw.reward.reshape(-1, draw.m)
        missing = torch.full_like(reward, -1, dtype=torch.long)
        answer = missing if draw.answer is None else draw.answer.reshape(-1, draw.m)
        score = draw.selector.reshape(-1, draw.m)
        rows = zip(reward.tolist(), answer.tolist(), score.tolist(), strict=True)
        values = [float(self.function([Outcome(*o) for o in zip(*row, strict=True)])) for row in rows]
        result = torch.tensor(values, dtype=draw.reward.dtype, device=reward.device)
        return check_finite(f"the value of {self}", result).reshape(draw.reward.shape[:-1])

    def named(self, n: int | str) -> str:
        """The name of the function and the budget; it does not parse."""
        return f"{getattr(self.function, '__name__', 'function')}@{n}"


def from_function(n: int, value: Callable[[Sequence[Outcome]], float], *, ordered: bool = False) -> FunctionStrategy:
    """A strategy from a plain function of N outcomes: evaluation and RL credit follow.

    Args:
        n: the budget N.
        value: takes a sequence of N :class:`Outcome` and returns the expected reward of what is returned. It
            must not depend on the numbering of the answer classes.
        ordered: whether the order of the draw matters (a sequential strategy).

    >>> def second_best(draw):
    ...     return sorted(o.reward for o in draw)[-2]
    >>> s = from_function(3, second_best)
    >>> s.value(Outcomes(torch.tensor([0.2, 0.9, 0.5]))).item()
    0.5
    """
    return FunctionStrategy(n, value, ordered)
