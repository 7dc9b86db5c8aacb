"""The loss of every vote where candidates are few, alike, certain or hopeless: against sums over all sequences."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from operant import Majority, Outcomes, answer_loss, expected_value
from operant.core.checks import InputError
from operant.strategies import Quorum, RaceTo, StopAtLead, Strategy, TopVote, WeightedVote
from tests import slow

VOTES: list[tuple[Strategy, slow.Rule]] = [
    (Majority(1), slow.vote),
    (Majority(4), slow.vote),
    (Majority(5), slow.vote),
    (Majority(4, "fail"), slow.vote_or_fail),
    (Quorum(5, 3), slow.quorum(3)),
    (Quorum(4, 2, 0.5), slow.quorum(2, 0.5)),
    (Quorum(4, 4, ties="fail"), slow.quorum(4, fail=True)),
    (WeightedVote(4), slow.weighted_vote()),
    (TopVote(4, 2), slow.vote_of_top(2)),
    (RaceTo(4, 2), slow.race(2)[0]),
    (RaceTo(4, 3, "fail"), slow.race_or_fail(3)[0]),
    (StopAtLead(4, 2), slow.lead(2)[0]),
]
HALF, TINY = Fraction(1, 2), Fraction(1, 2**60)
CASES: dict[str, list[tuple[Fraction, slow.Rollout]]] = {
    "one class": [(Fraction(3, 4), (1.0, 0, 3.0)), (Fraction(1, 4), (1.0, 0, 1.0))],
    "one class, rewards that differ": [(Fraction(3, 4), (1.0, 0, 3.0)), (Fraction(1, 4), (0.25, 0, 1.0))],
    "one class that is wrong": [(Fraction(3, 4), (0.0, 0, 3.0)), (Fraction(1, 4), (0.0, 0, 1.0))],
    "one class and no answer": [(Fraction(3, 4), (1.0, 0, 3.0)), (Fraction(1, 4), (0.0, -1, 1.0))],
    "no answer at all": [(HALF, (1.0, -1, 3.0)), (HALF, (0.0, -1, 1.0))],
    "one candidate": [(Fraction(1), (1.0, 7, 2.0))],
    "a candidate that is certain": [(1 - TINY, (1.0, 0, 1.0)), (TINY, (0.0, 1, 2.0))],
    "a candidate that hardly ever comes": [(TINY, (1.0, 0, 1.0)), (1 - TINY, (0.0, 1, 2.0))],
    "all wrong": [(HALF, (0.0, 0, 1.0)), (Fraction(1, 4), (0.0, 1, 2.0)), (Fraction(1, 4), (0.0, 2, 1.0))],
    "ties of votes and of scores": [(HALF, (1.0, 0, 1.0)), (HALF, (0.0, 1, 1.0))],
    "weights of zero": [(HALF, (1.0, 0, 0.0)), (HALF, (0.0, 1, 0.0))],
}


def enumerated(
    q: list[Fraction], kinds: list[slow.Rollout], rule: slow.Rule, n: int
) -> tuple[Fraction, list[Fraction]]:
    """J and its slope in the logits, in the order of the draws: right for votes that stop early too."""
    return slow.j_and_slope(q, kinds, rule, n, ordered=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("s", "rule"), VOTES, ids=[str(s) for s, _ in VOTES])
def test_value_loss_and_gradient_are_those_of_the_enumeration(s: Strategy, rule: slow.Rule, case: str) -> None:
    q, kinds = (list(x) for x in zip(*CASES[case], strict=True))
    reward, answer, score = zip(*kinds, strict=True)
    o = Outcomes(torch.tensor(reward, dtype=torch.float64), torch.tensor(answer), torch.tensor(score))
    log_q = torch.tensor([float(x) for x in q], dtype=torch.float64).log().requires_grad_()
    j, slope = enumerated(q, kinds, rule, s.n)

    assert expected_value(s, log_q, o).item() == pytest.approx(float(j), abs=1e-14)
    (gradient,) = torch.autograd.grad(answer_loss(s, log_q, o, power=1.0), log_q)
    assert gradient.tolist() == pytest.approx([-float(x) for x in slope], abs=1e-13)
    if j <= 0:
        with pytest.raises(InputError, match=r"earns nothing|negative reward"):
            answer_loss(s, log_q, o)
        return
    loss = answer_loss(s, log_q, o)
    assert loss.item() == pytest.approx(-math.log(j), abs=1e-13)
    if j == 1:
        assert abs(loss.item()) < 1e-14
    (gradient,) = torch.autograd.grad(loss, log_q)
    assert gradient.tolist() == pytest.approx([-float(x / j) for x in slope], rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("s", [Majority(1), Majority(8), Quorum(8, 5), Quorum(8, 8, 1.0)], ids=str)
def test_the_loss_of_one_class_is_zero_and_prints_as_zero(s: Strategy) -> None:
    log_q = torch.tensor([0.75, 0.25]).log()
    loss = answer_loss(s, log_q, Outcomes(torch.ones(2), torch.tensor([3, 3])))
    assert str(loss.item()) == "0.0"


@pytest.mark.parametrize("k", [1, 3, 5])
def test_mass_that_no_candidate_holds_counts_against_the_quorum(k: int) -> None:
    """One class and a remainder: the quorum is met by Bin(5, .6) >= k."""
    log_q = torch.tensor([0.6], dtype=torch.float64).log()
    kinds = Outcomes(torch.ones(1), torch.zeros(1, dtype=torch.long))
    want = sum(math.comb(5, j) * 0.6**j * 0.4 ** (5 - j) for j in range(k, 6))
    got = answer_loss(Quorum(5, k), log_q, kinds, remainder="unparsable")
    assert got.item() == pytest.approx(-math.log(want), rel=1e-12)
    if k == 1:
        vote = answer_loss(Majority(5), log_q, kinds, remainder="unparsable")
        assert vote.item() == pytest.approx(-math.log1p(-(0.4**5)), rel=1e-12)
