"""check_strategy names the law that a broken strategy breaks, and no other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from operant import Outcomes, PassAt, check_strategy, credit, curve, estimate, from_function
from operant.core.checks import InputError
from operant.strategies import FirstAccepted, Outcome, Strategy, Traits
from operant.strategies.check import LawError

Function = Callable[[Sequence[Outcome]], float]


@dataclass(frozen=True)
class BiasedEstimate(PassAt):
    def estimate(self, outcomes: Outcomes) -> Tensor:
        return super().estimate(outcomes) + 0.01


@dataclass(frozen=True)
class NotCentred(PassAt):
    """A constant baseline leaves the credit unbiased, and uncentred."""

    def credit(self, outcomes: Outcomes) -> Tensor:
        return super().credit(outcomes) + 0.1


@dataclass(frozen=True)
class TwiceTheCredit(PassAt):
    def credit(self, outcomes: Outcomes) -> Tensor:
        return 2 * super().credit(outcomes)


@dataclass(frozen=True)
class SeesItsOwnGroup(PassAt):
    """The usual standardized advantage: centered, and biased."""

    def credit(self, outcomes: Outcomes) -> Tensor:
        w = super().credit(outcomes)
        return w / (w.std(-1, keepdim=True) + 1e-4)


@dataclass(frozen=True)
class RoundsInSingle(PassAt):
    def credit(self, outcomes: Outcomes) -> Tensor:
        w = super().credit(outcomes)
        return w if w.dtype == torch.float64 else w * (1 + 1e-3)


@dataclass(frozen=True)
class MixesPrompts(PassAt):
    """Exact on a single prompt, where the law of unbiasedness looks."""

    def estimate(self, outcomes: Outcomes) -> Tensor:
        u = super().estimate(outcomes)
        return u if u.ndim == 0 else u + 0.1 * torch.arange(u.numel()).reshape(u.shape).to(u)


@dataclass(frozen=True)
class Crashes(PassAt):
    def estimate(self, outcomes: Outcomes) -> Tensor:
        if outcomes.reward.ndim == 1:
            raise RuntimeError("no single prompts, please")
        return super().estimate(outcomes)


@dataclass(frozen=True)
class Overpays(PassAt):
    def value(self, draw: Outcomes) -> Tensor:
        return super().value(draw) * 1.5


@dataclass(frozen=True)
class PaysHalf(PassAt):
    """In range, but with one sample neither its reward nor nothing."""

    def value(self, draw: Outcomes) -> Tensor:
        return super().value(draw) / 2


@dataclass(frozen=True)
class CostsTooMuch(FirstAccepted):
    def cost(self, draw: Outcomes) -> Tensor:
        return super().cost(draw) + self.n


@dataclass(frozen=True)
class MiscountsItsDraws(FirstAccepted):
    def estimate_cost(self, outcomes: Outcomes) -> Tensor:
        return super().estimate_cost(outcomes) + 0.01


@dataclass(frozen=True)
class OrderedAndBiased(FirstAccepted):
    def estimate(self, outcomes: Outcomes) -> Tensor:
        return super().estimate(outcomes) + 0.01


BROKEN: list[tuple[Strategy, set[str]]] = [
    (BiasedEstimate(3), {"estimate is unbiased"}),
    (NotCentred(3), {"credit sums to 0"}),
    (TwiceTheCredit(3), {"credit is unbiased"}),
    (SeesItsOwnGroup(3), {"credit is unbiased"}),
    (RoundsInSingle(3), {"float32"}),
    (MixesPrompts(3), {"batch"}),
    (Crashes(3), {"estimate is unbiased"}),
    (Overpays(3), {"value is a reward", "estimate is unbiased", "credit is unbiased"}),
    (PaysHalf(1), {"value is a reward", "estimate is unbiased", "credit is unbiased"}),
    (CostsTooMuch(3), {"cost"}),
    (MiscountsItsDraws(3), {"cost"}),
    (OrderedAndBiased(3), {"estimate is unbiased"}),
]


def laws_broken_by(s: Strategy) -> set[str]:
    with pytest.raises(LawError) as caught:
        check_strategy(s)
    return set(re.findall(r"^  (.+?): ", str(caught.value), flags=re.MULTILINE))


@pytest.mark.parametrize(("s", "laws"), BROKEN, ids=lambda x: type(x).__name__)
def test_a_broken_strategy_is_told_which_law_it_breaks(s: Strategy, laws: set[str]) -> None:
    assert laws_broken_by(s) == laws


FUNCTIONS: list[tuple[int, Function, str]] = [
    (2, lambda draw: draw[0].reward, "order"),
    (2, lambda draw: float(any(o.answer == 1 for o in draw)), "relabeling"),
    (2, lambda draw: 1 - sum(o.reward for o in draw) / 2, "reward is worth having"),
]


@pytest.mark.parametrize(("n", "function", "law"), FUNCTIONS, ids=[law for *_, law in FUNCTIONS])
def test_a_broken_function_is_told_which_law_it_breaks(n: int, function: Function, law: str) -> None:
    assert law in laws_broken_by(from_function(n, function))


@pytest.mark.parametrize(("n", "seed"), [(3, 0), (3, 1), (3, 2), (8, 1)])
def test_a_tie_broken_by_order_is_found_with_any_seed(n: int, seed: int) -> None:
    def first_of_the_leaders(draw: Sequence[Outcome]) -> float:
        votes = Counter(o.answer for o in draw)
        return next(o.reward for o in draw if votes[o.answer] == max(votes.values()))

    with pytest.raises(LawError, match="\n  order: value is off by 1"):
        check_strategy(from_function(n, first_of_the_leaders), seed=seed)


def test_an_ordered_function_need_not_be_symmetric() -> None:
    assert "order" not in check_strategy(from_function(2, lambda draw: draw[0].reward, ordered=True))


def test_the_report_quotes_the_error_of_the_strategy() -> None:
    with pytest.raises(LawError, match="RuntimeError: no single prompts, please"):
        check_strategy(Crashes(3))


def test_a_value_of_nan_is_refused_and_not_compared_away() -> None:
    with pytest.raises(InputError, match="must be finite"):
        check_strategy(from_function(2, lambda draw: float("nan")))


def test_a_vote_of_ones_own_is_told_that_it_needs_answers() -> None:
    @dataclass(frozen=True)
    class FirstAnswered(Strategy):
        n: int

        @property
        def traits(self) -> Traits:
            return Traits(answers=True)

        def value(self, draw: Outcomes) -> Tensor:
            assert draw.answer is not None
            return (draw.answer >= 0).double().amax(-1)

    for use in (estimate, credit, curve):
        with pytest.raises(InputError, match=r"FirstAnswered\(n=2\) votes over answer classes"):
            use(FirstAnswered(2), Outcomes(torch.ones(1, 4)))
