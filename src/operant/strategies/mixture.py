"""A weighted mixture of strategies: its value, credit and S(p) are the weighted sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from operant.core.checks import InputError, NotDefinedError, check_int
from operant.core.logmath import log1mexp
from operant.strategies import routes
from operant.strategies.base import MOST_PARTS, Strategy, Success, Traits, check_nesting, nesting
from operant.strategies.outcomes import Outcomes


@dataclass(frozen=True, init=False)
class Mixture(Strategy):
    """J = sum_j lambda_j J_j, weights lambda_j > 0 that sum to 1.

    Over budgets of pass@N this keeps a share of the training signal on samples that are already solved:
    ``Mixture({PassAt(1): 0.25, PassAt(64): 0.75})`` buys pass@64 for a smaller price at pass@1.

    Args:
        parts: strategy -> weight, or a sequence of such pairs.

    Raises:
        InputError: if a weight is not positive, they do not sum to 1 within 1e-6, or mixtures are nested too deeply or
            have too many parts.

    >>> from operant import PassAt
    >>> str(Mixture({PassAt(1): 0.25, PassAt(64): 0.75}))
    'mix(pass@1:0.25, pass@64:0.75)'
    """

    form: ClassVar[str] = "mix({parts})"
    parts: tuple[tuple[Strategy, float], ...]
    n: int = field(init=False, repr=False, compare=False)
    """The largest budget."""

    def __init__(self, parts: Mapping[Strategy, float] | tuple[tuple[Strategy, float], ...]) -> None:
        pairs = tuple(parts.items()) if isinstance(parts, Mapping) else tuple(parts)
        weights = [weight for _, weight in pairs]
        if not all(math.isfinite(w) and w > 0 for w in weights) or abs(sum(weights) - 1) > 1e-6:
            shown = f"{weights}" if len(weights) <= 16 else f"{len(weights)} weights with the sum {sum(weights):.6g}"
            raise InputError(f"mixture weights must be positive and sum to 1, got {shown}.")
        object.__setattr__(self, "parts", tuple((s, float(w)) for s, w in pairs))
        object.__setattr__(self, "n", max(s.n for s, _ in pairs))
        check_nesting(self)

    @property
    def inner(self) -> tuple[Strategy, ...]:
        """The parts."""
        return tuple(s for s, _ in self.parts)

    @property
    def traits(self) -> Traits:
        """Those of the parts together."""
        return Traits.of_mixture(s.traits for s, _ in self.parts)

    def value(self, draw: Outcomes) -> Tensor:
        """Each part on every subset of the draw of its own size, averaged."""
        # A part of budget n < N could take any n of the N samples: the mean over all has the same expectation and less
        # noise.
        return self._sum([routes.mean_value(s, draw) for s, _ in self.parts])

    def estimate(self, outcomes: Outcomes) -> Tensor | None:
        """Weighted sum of the parts' closed forms, where all have one."""
        return self._sum_of([s.estimate(outcomes) for s, _ in self.parts])

    def credit(self, outcomes: Outcomes) -> Tensor:
        """Weighted sum of the parts' credits, each by its own route."""
        return self._sum([routes.exact_credit(s, outcomes) for s, _ in self.parts])

    def cost(self, draw: Outcomes) -> Tensor:
        """Weighted sum of the parts' costs, each on the first of the N samples."""
        # In order, because a part that stops early stops on the samples that come first.
        return self._sum([s.cost(draw.map(lambda x, s=s: x[..., : s.n])) for s, _ in self.parts])

    def estimate_cost(self, outcomes: Outcomes) -> Tensor | None:
        """Weighted sum of the parts' costs, where all have a closed form."""
        return self._sum_of([s.estimate_cost(outcomes) for s, _ in self.parts])

    def credit_cost(self, outcomes: Outcomes) -> Tensor | None:
        """Weighted sum of the parts' credits of the cost, where all have a closed form."""
        return self._sum_of([s.credit_cost(outcomes) for s, _ in self.parts])

    def success(self, log_p: Tensor) -> Success:
        """S = sum_j lambda_j S_j; 1 - S likewise, so that neither is a difference."""
        each = [
            Success(x.log_s + math.log(w), x.log_f + math.log(w), x.elasticity)
            for x, w in ((s.success(log_p), w) for s, w in self.parts)
        ]
        log_s, log_f, elasticity = (torch.stack(x, dim=-1) for x in zip(*each, strict=True))
        # S and 1 - S are both sums of positive terms; the smaller of the two keeps its digits.
        low, high = torch.logsumexp(log_s, -1), torch.logsumexp(log_f, -1)
        value = torch.where(high < -math.log(2), log1mexp(high), low)
        share = torch.exp(log_s - value[..., None])
        return Success(value, high, (share * elasticity).sum(-1))

    def at_budget(self, n: int) -> Mixture:
        """A mixture has several budgets: there is no single one to change.

        Raises:
            NotDefinedError: always.
        """
        raise NotDefinedError(f"{self} has several budgets, so it has no curve over one. Ask for the curve of a part.")

    def _sum_of(self, values: list[Tensor | None]) -> Tensor | None:
        """Weighted sum; None where a part has none."""
        found = [value for value in values if value is not None]
        return self._sum(found) if len(found) == len(values) else None

    def _sum(self, values: list[Tensor]) -> Tensor:
        weighted = [w * value for (_, w), value in zip(self.parts, values, strict=True)]
        return torch.stack(weighted).sum(0)


@dataclass(frozen=True, init=False)
class Harmonic(Mixture):
    """A strategy at all budgets n = 1..N at once, weights proportional to 1/n.

    For pass@N, sum_n (1/n) [1 - (1-p)^n] is -log(1 - (1-p)) cut at order N: log p, the likelihood of success, in
    the limit. No budget has to be chosen, and prompts at every level of difficulty keep a signal. For any other
    strategy it is the same trade-off: the mixture that the Shapley value estimates (``shapley``).

    Args:
        strategy: a strategy with one budget N.

    >>> from operant import PassAt
    >>> str(Harmonic(PassAt(64))), Harmonic(PassAt(2)).parts[0][1]
    ('harmonic(pass@64)', 0.6666666666666666)
    """

    form: ClassVar[str] = "harmonic({strategy})"
    parts: tuple[tuple[Strategy, float], ...] = field(repr=False, compare=False)  # they follow from the strategy
    strategy: Strategy

    def __init__(self, strategy: Strategy) -> None:
        self._build(strategy, ())

    def _build(self, strategy: Strategy, known: tuple[Strategy, ...]) -> None:
        """``known`` holds the strategy at budgets 1, 2, ..., if these exist already."""
        object.__setattr__(self, "strategy", strategy)
        object.__setattr__(self, "n", strategy.n)
        # Counted while it is built: harmonic(harmonic(pass@4000)) has 8 million parts.
        size, parts = strategy.n, list[Strategy]()
        for n in range(1, strategy.n + 1):
            if size > MOST_PARTS:  # before the others are built
                raise InputError(
                    f"{self} has more than {MOST_PARTS:,} parts, one for each budget 1..N. Lower N, or mix a few "
                    "budgets with weights proportional to 1/n."
                )
            # The parts of a harmonic that this one is cut from are shared: they were checked and counted already.
            parts.append(strategy if n == strategy.n else known[n - 1] if known else strategy.at_budget(n))
            size += nesting(parts[-1]).size - 1
        total = sum(1 / n for n in range(1, strategy.n + 1))
        super().__init__(tuple((part, 1 / n / total) for n, part in enumerate(parts, 1)))

    def estimate(self, outcomes: Outcomes) -> Tensor | None:
        """All budgets in one pass where the strategy can."""
        values = self.strategy.estimate_budgets(outcomes, range(1, self.n + 1))
        if values is None:
            return super().estimate(outcomes)
        return (values.double() @ values.new_tensor([w for _, w in self.parts]).double()).to(values)

    def at_budget(self, n: int) -> Harmonic:
        """The same over budgets up to ``n``."""
        if check_int("budget", n, least=1) > self.n:
            return Harmonic(self.strategy.at_budget(n))
        new = object.__new__(Harmonic)
        new._build(self.parts[n - 1][0], tuple(s for s, _ in self.parts[:n]))
        return new


def budgets_of(s: Strategy) -> tuple[Strategy, ...]:
    """The strategies with one budget that ``s`` mixes: itself, unless it is a mixture.

    >>> from operant import parse
    >>> [str(part) for part in budgets_of(parse("mix(pass@1:0.25, harmonic(pass@16):0.75)"))]
    ['pass@1', 'pass@16']
    """
    if isinstance(s, Harmonic):
        return budgets_of(s.strategy)
    if isinstance(s, Mixture):
        return tuple(dict.fromkeys(part for inner, _ in s.parts for part in budgets_of(inner)))
    return (s,)
