"""Outcomes: what is refused at the door, and what the message tells the user to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError

import pytest
import torch

from operant import Majority, Outcomes, PassAt, Threshold, credit, from_function
from operant.core.checks import InputError
from operant.strategies import BestOf, Outcome, Strategy, estimate

ONES = torch.ones(2, 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_rewards_and_scores_must_be_finite(bad: float) -> None:
    values = ONES.clone()
    values[1, 2] = bad
    for name, make in (("reward", lambda: Outcomes(values)), ("score", lambda: Outcomes(ONES, score=values))):
        with pytest.raises(InputError, match=rf"{name} must be finite, got .* at index \(1, 2\) \(1 of 6 values\)"):
            make()
        with pytest.raises(InputError, match="Drop or repair these rollouts first"):
            make()


@pytest.mark.parametrize("reward", [torch.tensor(1.0), torch.ones(3, 0)], ids=["no M", "M = 0"])
def test_rewards_need_a_dimension_of_rollouts(reward: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"reward must have shape \(\.\.\., M\) with M >= 1, got"):
        Outcomes(reward)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 3), (2, 3, 1)], ids=str)
def test_fields_have_one_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"answer must have the shape of reward, \(2, 3\), got"):
        Outcomes(ONES, answer=torch.zeros(shape, dtype=torch.long))
    with pytest.raises(InputError, match=r"score must have the shape of reward, \(2, 3\), got"):
        Outcomes(ONES, score=torch.zeros(shape))


def test_answers_are_classes_or_minus_one() -> None:
    message = r"integer classes >= 0, or -1 where no answer could be extracted"
    with pytest.raises(InputError, match=message + r".*int64 with minimum -2"):
        Outcomes(ONES, answer=torch.full((2, 3), -2))
    with pytest.raises(InputError, match=message + r".*float32"):
        Outcomes(ONES, answer=torch.zeros(2, 3))


def test_integers_and_booleans_become_float32_and_floats_stay() -> None:
    for dtype in (torch.bool, torch.int64, torch.uint8):
        o = Outcomes(torch.tensor([1, 0]).to(dtype), score=torch.tensor([1, 0]).to(dtype))
        assert o.reward.dtype == torch.float32 == o.selector.dtype
    assert Outcomes(ONES.double()).reward.dtype == torch.float64


def test_the_score_defaults_to_the_reward() -> None:
    o = Outcomes(ONES, score=2 * ONES)
    assert torch.equal(o.selector, 2 * ONES) and torch.equal(Outcomes(ONES).selector, ONES)


def test_outcomes_are_frozen_and_know_their_size() -> None:
    o = Outcomes(ONES, torch.arange(6).reshape(2, 3), 3 * ONES)
    with pytest.raises(FrozenInstanceError):
        o.reward = ONES  # pyright: ignore[reportAttributeAccessIssue]
    less = o.without(1)
    assert o.m == 3 and less.m == 2 and less.answer is not None
    assert less.answer.tolist() == [[0, 2], [3, 5]] and less.score is not None and less.score.shape == (2, 2)


def test_what_the_values_are_is_known_from_the_start() -> None:
    mixed, passed = Outcomes(torch.tensor([0.0, 0.5, 1.0])), Outcomes(torch.tensor([0, 1, 1]))
    assert not mixed.binary and passed.binary and passed.without(1).binary
    assert not mixed.without(1).binary  # of the whole: an index operation asks the device nothing
    assert passed.verdicts and not mixed.verdicts
    assert not Outcomes(passed.reward, score=mixed.reward).verdicts
    assert Outcomes(mixed.reward, score=passed.reward).verdicts


@pytest.mark.parametrize("s", [PassAt(2), Threshold(2, 1)], ids=str)
def test_counting_strategies_refuse_graded_rewards(s: Strategy) -> None:
    with pytest.raises(InputError, match=r"rewards must be 0 or 1.*Binarize them.*or use best@N"):
        estimate(s, Outcomes(torch.tensor([0.0, 0.5, 1.0])))


def test_successes_are_counted_exactly_in_half_precision() -> None:
    reward = (torch.arange(600) < 299).to(torch.bfloat16)
    assert estimate(PassAt(1), Outcomes(reward)).value.item() == torch.tensor(299 / 600).bfloat16().item()
    w = credit(Threshold(599, 299), Outcomes(reward))  # met if the one left out is a failure: U = 301/600
    assert w[0].item() == pytest.approx(301 / 600, rel=0.01) and w[-1].item() == pytest.approx(-299 / 600, rel=0.01)


def test_a_function_sees_plain_outcomes() -> None:
    seen: list[list[Outcome]] = []

    def value(draw: Sequence[Outcome]) -> float:
        seen.append(list(draw))
        return 0.25

    s = from_function(2, value)
    reward, answer = torch.tensor([[[1.0, 0.0]], [[0.5, 0.0]]]), torch.tensor([[[3, -1]], [[0, 1]]])
    assert s.value(Outcomes(reward, answer)).tolist() == [[0.25], [0.25]]
    assert seen == [[Outcome(1.0, 3, 1.0), Outcome(0.0, -1, 0.0)], [Outcome(0.5, 0, 0.5), Outcome(0.0, 1, 0.0)]]
    s.value(Outcomes(torch.tensor([1.0, 0.0]), score=torch.tensor([0.0, 8.0])))
    assert seen[-1] == [Outcome(1.0, -1, 0.0), Outcome(0.0, -1, 8.0)]


def test_a_function_that_returns_nan_is_named() -> None:
    with pytest.raises(InputError, match=r"the value of broken@2 must be finite"):

        def broken(draw: Sequence[Outcome]) -> float:
            return float("nan")

        from_function(2, broken).value(Outcomes(torch.ones(2)))


def test_another_budget_keeps_the_other_parameters() -> None:
    assert Majority(3, "fail").at_budget(9) == Majority(9, "fail")
    assert Threshold(8, 3).at_budget(5) == Threshold(5, 3)
    assert BestOf(2).at_budget(7) == BestOf(7)


def test_unsigned_answers_are_classes_too() -> None:
    assert Outcomes(torch.tensor([1.0, 0.0]), torch.tensor([3, 0], dtype=torch.uint8)).answer is not None
    with pytest.raises(InputError, match="answer must hold integer classes"):
        Outcomes(torch.tensor([1.0, 0.0]), torch.tensor([3, -2], dtype=torch.int8))
