"""J(q) and its slope for a known distribution, against sums over all sequences in fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import Tensor

from operant import (
    AllOf,
    BestOf,
    Majority,
    Mixture,
    Outcomes,
    PassAt,
    Threshold,
    credit,
    expected_value,
    from_function,
)
from operant.core.checks import InputError, NotDefinedError
from operant.estimators import log_expected_value
from operant.strategies import (
    Graded,
    LStatistic,
    Median,
    Outcome,
    Quorum,
    Strategy,
    TopMean,
    TopVote,
    Verified,
    WeightedVote,
)
from tests import slow
from tests.strategies.test_conformance import first_accepted, second_best


def quorum(draw: Sequence[Outcome]) -> float:
    """A user's vote: at least two agree, or no answer; a tie goes to the better reward."""
    votes = [o.answer for o in draw if o.answer >= 0]
    return max((o.reward for o in draw if o.answer >= 0 and votes.count(o.answer) >= 2), default=0.0)


def quorum_slow(draw: slow.Draw) -> Fraction:
    answers = [a for _, a, _ in draw]
    return max((Fraction(r) for r, a, _ in draw if a >= 0 and answers.count(a) >= 2), default=Fraction(0))


BINARY: list[slow.Rollout] = [(1.0, 0, 1.0), (0.0, 1, 0.5), (0.0, 2, 1.0), (1.0, 3, 0.0), (0.0, -1, 0.25)]
GRADED: list[slow.Rollout] = [(0.75, 0, 0.5), (0.25, 0, 0.75), (0.0, 1, 0.25), (1.0, 2, 0.75), (0.5, -1, 0.0)]
ROWS: list[tuple[Strategy, slow.Rule, list[slow.Rollout]]] = [
    (PassAt(4), slow.any_success, BINARY),
    (AllOf(3), slow.all_success, BINARY),
    (Threshold(5, 2), slow.at_least(2), BINARY),
    (BestOf(4), slow.best, GRADED),
    (TopMean(4, 2), slow.ranked(0, 0, 0.5, 0.5), GRADED),
    (Median(4), slow.ranked(0, 0.5, 0.5, 0), BINARY),
    (LStatistic((0.5, 0.25, 0.25)), slow.ranked(0.5, 0.25, 0.25), GRADED),
    (Graded((0.5, 0.25, 1.0)), slow.graded(0.5, 0.25, 1), BINARY),
    (Verified(4, 0.125, 0.25), slow.verified(0.125, 0.25), BINARY),
    (Quorum(4, 2), slow.quorum(2), GRADED),
    (WeightedVote(3, 4), slow.weighted_vote(4), GRADED),
    (TopVote(4, 2), slow.vote_of_top(2), GRADED),
    (Majority(1), slow.vote, GRADED),
    (Majority(5), slow.vote, BINARY),
    (Majority(4), slow.vote, GRADED),
    (Majority(5, "fail"), slow.vote_or_fail, BINARY),
    (
        Mixture({PassAt(1): 0.25, Majority(4): 0.75}),
        slow.mixture((0.25, 1, slow.any_success), (0.75, 4, slow.vote)),
        BINARY,
    ),
    (from_function(3, second_best), slow.second_best, GRADED),
    (from_function(4, quorum), quorum_slow, GRADED),
]
Q = [Fraction(x, 32) for x in (9, 3, 11, 2, 7)]
rows = pytest.mark.parametrize(("s", "rule", "kinds"), ROWS, ids=[str(s) for s, _, _ in ROWS])


def outcomes(kinds: Sequence[slow.Rollout]) -> Outcomes:
    reward, answer, score = zip(*kinds, strict=True)
    return Outcomes(torch.tensor(reward, dtype=torch.float64), torch.tensor(answer), torch.tensor(score))


def log_of(q: Sequence[Fraction]) -> Tensor:
    return torch.tensor([float(x) for x in q], dtype=torch.float64).log().requires_grad_()


def value_and_slope(s: Strategy, log_q: Tensor, kinds: Outcomes) -> tuple[Tensor, Tensor]:
    j = expected_value(s, log_q, kinds)
    return j.detach(), torch.autograd.grad(j.sum(), log_q)[0]


@rows
def test_value_and_slope_by_the_score_function_over_all_sequences(
    s: Strategy, rule: slow.Rule, kinds: list[slow.Rollout]
) -> None:
    """The gradient in log q of the normalized J is dJ/dtheta of q = softmax(theta)."""
    want, slope = slow.j_and_slope(Q, kinds, rule, s.n)
    j, got = value_and_slope(s, log_of(Q), outcomes(kinds))
    assert j.item() == pytest.approx(float(want), abs=1e-13)
    assert got.tolist() == pytest.approx([float(x) for x in slope], abs=1e-12)
    log_j = log_expected_value(s, log_of(Q), outcomes(kinds))
    assert log_j.item() == pytest.approx(math.log(want), abs=1e-12)


@rows
def test_the_slope_is_n_times_the_value_with_one_draw_fixed(
    s: Strategy, rule: slow.Rule, kinds: list[slow.Rollout]
) -> None:
    """dJ/dq_b = N E V(N - 1 draws and one b); along log q that is N q_b (E[V | one is b] - J)."""
    j, got = value_and_slope(s, log_of(Q), outcomes(kinds))
    for b, q in enumerate(Q):
        given = sum(
            math.prod(Q[k] for k in draw) * rule([kinds[b], *(kinds[k] for k in draw)])
            for draw in product(range(len(Q)), repeat=s.n - 1)
        )
        assert got[b].item() == pytest.approx(s.n * float(q) * (float(given) - j.item()), abs=1e-12)


@rows
def test_a_function_of_the_users_agrees_with_the_strategy(
    s: Strategy, rule: slow.Rule, kinds: list[slow.Rollout]
) -> None:
    """The same rule through the enumeration of multisets, whatever closed form the strategy has."""
    user = from_function(s.n, lambda draw: float(rule([(o.reward, o.answer, o.score) for o in draw])))
    for got, want in zip(
        value_and_slope(user, log_of(Q), outcomes(kinds)),
        value_and_slope(s, log_of(Q), outcomes(kinds)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_an_ordered_strategy_goes_through_all_sequences() -> None:
    s = from_function(3, first_accepted, ordered=True)
    want = sum(
        math.prod(Q[k] for k in draw) * slow.first_accepted([GRADED[k] for k in draw])
        for draw in product(range(5), repeat=3)
    )
    j, slope = value_and_slope(s, log_of(Q), outcomes(GRADED))
    assert j.item() == pytest.approx(float(want), abs=1e-14)
    with pytest.raises(NotDefinedError, match=r"5 distinct kinds make 78125 draws \(limit 20000\)"):
        expected_value(from_function(7, first_accepted, ordered=True), log_of(Q), outcomes(GRADED))
    assert abs(slope.sum().item()) < 1e-14 < slope.abs().max()


@pytest.mark.parametrize(
    "s",
    [Majority(6), BestOf(3), Mixture({PassAt(2): 0.5, Majority(3): 0.5}), from_function(3, quorum)],
    ids=str,
)
def test_gradcheck(s: Strategy) -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    kinds = outcomes(BINARY)
    for f in (expected_value, log_expected_value):
        assert torch.autograd.gradcheck(lambda x, f=f: f(s, x.log_softmax(-1), kinds), logits)


@pytest.mark.parametrize("s", [PassAt(4), Majority(4), from_function(3, quorum)], ids=str)
def test_the_credit_is_unbiased_for_this_slope(s: Strategy) -> None:
    """E sum_i w_i grad log q(z_i) over all groups of N + 2 rollouts = dJ/dtheta: SFT and RL climb one hill."""
    m, kinds = s.n + 2, outcomes(BINARY)
    got = [Fraction(0)] * len(Q)
    groups = slow.groups(Q, m)
    w = credit(s, kinds.map(lambda x: x[torch.tensor([k for _, k in groups])])).tolist()
    for (mass, group), weights in zip(groups, w, strict=True):
        for i, k in enumerate(group):
            for b, q in enumerate(Q):
                got[b] += mass * Fraction(weights[i]) * ((k == b) - q)
    _, slope = value_and_slope(s, log_of(Q), kinds)
    assert [float(x) for x in got] == pytest.approx(slope.tolist(), abs=1e-10)


def test_a_vote_of_16_against_four_rivals() -> None:
    """p = .3 against 4 x .175: worth .517, slope 3.25 in p as the wrong mass shrinks in proportion."""
    kinds = outcomes([(1.0, 0, 1.0), *[(0.0, a, 0.0) for a in (1, 2, 3, 4)]])
    j, slope = value_and_slope(Majority(16), torch.tensor([0.3, *[0.175] * 4]).double().log().requires_grad_(), kinds)
    in_p = slope[0].item() / (0.3 * 0.7)  # dJ/dlog-odds = p (1 - p) dJ/dp
    assert (round(j.item(), 3), round(in_p, 2)) == (0.517, 3.25)
    h = 1e-4
    ends = [torch.tensor([p, *[(1 - p) / 4] * 4]).double().log() for p in (0.3 - h, 0.3 + h)]
    low, high = (expected_value(Majority(16), x, kinds).item() for x in ends)
    assert (high - low) / (2 * h) == pytest.approx(in_p, rel=1e-4)


def test_batches_share_the_values_of_one_row_of_kinds() -> None:
    calls = []

    def counted(draw: Sequence[Outcome]) -> float:
        calls.append(draw)
        return quorum(draw)

    s, plain = from_function(4, counted), from_function(4, quorum)
    log_q = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).log_softmax(-1)
    one, other = outcomes(BINARY), outcomes(GRADED)
    got = expected_value(s, log_q, one)
    assert got.shape == (2, 3) and len(calls) == math.comb(8, 4)
    each = [expected_value(plain, x, one) for x in log_q.reshape(6, 5)]
    torch.testing.assert_close(got.flatten(), torch.stack(each))

    assert one.answer is not None and other.answer is not None and one.score is not None and other.score is not None
    pick = (torch.arange(6).reshape(2, 3, 1) % 2).bool()
    mixed = Outcomes(
        torch.where(pick, one.reward, other.reward),
        torch.where(pick, one.answer, other.answer),
        torch.where(pick, one.score, other.score),
    )
    calls.clear()
    both = torch.where(pick[..., 0], got, expected_value(plain, log_q, other))
    torch.testing.assert_close(expected_value(s, log_q, mixed), both)
    assert len(calls) == 2 * math.comb(8, 4)


def test_equal_kinds_are_merged() -> None:
    """Sixty wrong answers that are one kind cost what one costs, and each gets its share of the slope."""
    s = from_function(6, lambda draw: float(sum(o.reward for o in draw) >= 2))
    q = torch.rand(61, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    log_q = (q / q.sum()).log().requires_grad_()
    kinds = Outcomes(torch.tensor([1.0, *[0.0] * 60]), torch.tensor([0, *[-1] * 60]))
    got = value_and_slope(s, log_q, kinds)
    for a, b in zip(got, value_and_slope(Threshold(6, 2), log_q, kinds), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    scattered = Outcomes(kinds.reward, torch.arange(61))
    with pytest.raises(NotDefinedError, match="Merge kinds that behave alike"):
        expected_value(s, log_q, scattered)


@pytest.mark.parametrize(
    "s", [PassAt(8), Majority(5), Mixture({PassAt(8): 0.5, Majority(5): 0.5}), from_function(5, quorum)], ids=str
)
@pytest.mark.parametrize("log_p", [-40.0, -700.0, -3000.0])
def test_log_value_of_hopeless_odds(s: Strategy, log_p: float) -> None:
    """log J and a finite gradient where q itself underflows: the slope is the least number of draws that earn."""
    logits = torch.tensor([log_p, 0.0, 0.5, -0.5], dtype=torch.float64, requires_grad=True)
    kinds = outcomes([(1.0, 0, 1.0), (0.0, 1, 0.0), (0.0, 2, 0.0), (0.0, -1, 0.0)])
    log_j = log_expected_value(s, logits.log_softmax(-1), kinds)
    (slope,) = torch.autograd.grad(log_j, logits)
    needed = 2 if str(s).startswith("quorum") else 1  # a vote: alone among unparsable draws, or in a tie
    assert log_j.item() == pytest.approx(needed * log_p, abs=10)
    assert bool(slope.isfinite().all()) and slope[0].item() == pytest.approx(needed, abs=1e-9)


@dataclass(frozen=True)
class Closed(Majority):
    """A vote whose closed form is a plain number: it underflows where the odds are hopeless."""

    def population(self, log_q: Tensor, kinds: Outcomes) -> Tensor:
        assert log_q.shape == kinds.reward.shape and log_q.dtype == kinds.reward.dtype == torch.float64
        return 2 * expected_value(Majority(self.n), log_q, kinds)


def test_the_closed_form_of_a_strategy_is_taken_until_it_underflows() -> None:
    kinds = outcomes(BINARY).map(lambda x: x.float() if x.is_floating_point() else x)
    want = [2 * x for x in value_and_slope(Majority(3), log_of(Q).float().detach().requires_grad_(), kinds)]
    for a, b in zip(value_and_slope(Closed(3), log_of(Q).float().detach().requires_grad_(), kinds), want, strict=True):
        torch.testing.assert_close(a, b)
    ahead = log_expected_value(Closed(3), log_of(Q), kinds) - log_expected_value(Majority(3), log_of(Q), kinds)
    assert ahead.item() == pytest.approx(math.log(2))
    far = torch.tensor([-3000.0, -3000.0, 0.0], dtype=torch.float64).log_softmax(-1)
    rare = outcomes([(1.0, 0, 1.0), (1.0, 0, 0.0), (0.0, 2, 1.0)])
    got = log_expected_value(Closed(3), far, rare)
    assert got.item() == pytest.approx(-6000 + math.log(12))  # 3 (2 q)^2: two votes of three


def test_what_earns_nothing_has_no_logarithm() -> None:
    kinds = outcomes([(0.0, 0, 0.0), (0.0, 1, 0.0)])
    log_q = torch.tensor([0.5, 0.5]).log()
    for s in (PassAt(3), Majority(3), from_function(3, quorum), Mixture({PassAt(2): 0.5, Majority(3): 0.5})):
        assert expected_value(s, log_q, kinds).item() == 0
        with pytest.raises(InputError, match="earns nothing at 1 of 1 examples"):
            log_expected_value(s, log_q, kinds)
    with pytest.raises(InputError, match="negative reward"):
        log_expected_value(from_function(2, second_best), log_q, Outcomes(torch.tensor([1.0, -1.0])))


@pytest.mark.parametrize(
    "s", [PassAt(3), Majority(3), Mixture({PassAt(2): 0.5, Majority(3): 0.5}), from_function(3, quorum)], ids=str
)
def test_a_prompt_that_earns_nothing_leaves_the_others_their_gradient(s: Strategy) -> None:
    q = torch.tensor([[0.2, 0.8], [0.2, 0.8]], dtype=torch.float64)
    kinds = Outcomes(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0, 1], [0, 1]]))
    j, slope = value_and_slope(s, q.log().requires_grad_(), kinds)
    _, alone = value_and_slope(s, q[1:].log().requires_grad_(), kinds.map(lambda x: x[1:]))
    assert j[0] == 0 < j[1] and torch.equal(slope[0], torch.zeros(2).double())
    torch.testing.assert_close(slope[1:], alone)


def test_bad_distributions_are_refused() -> None:
    kinds = outcomes([(1.0, 0, 1.0), (0.0, 1, 0.0)])
    for bad in (math.nan, -math.inf, math.inf, 0.1):
        with pytest.raises(InputError, match=r"log_q must be finite and <= 0.*index \(0,\) \(1 of 2 values\)"):
            expected_value(PassAt(2), torch.tensor([bad, -0.1]), kinds)
    for q in ([0.5, 0.4], [0.7, 0.5]):
        with pytest.raises(InputError, match=rf"must sum to 1 within 0.0001, got a sum of {sum(q):.1f}"):
            expected_value(PassAt(2), torch.tensor(q).log(), kinds)
    with pytest.raises(InputError, match=r"expected log_q \(..., K\) and kinds"):
        expected_value(PassAt(2), torch.full((3,), 1 / 3).log(), kinds)
    with pytest.raises(InputError, match="log_q must be a floating tensor"):
        expected_value(PassAt(2), torch.tensor([0, 0]), kinds)


def test_rounding_is_divided_out_and_half_precision_promoted() -> None:
    kinds = outcomes([(1.0, 0, 1.0), (0.0, 1, 0.0)])
    log_q = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    want = expected_value(Majority(3), log_q, kinds)
    torch.testing.assert_close(expected_value(Majority(3), log_q + 9e-5, kinds), want, rtol=1e-14, atol=0)
    assert expected_value(Majority(3), log_q.float(), kinds).dtype == torch.float32
    half = torch.tensor([0.0, -20.0]).half()
    assert expected_value(Majority(3), half, kinds).dtype == torch.float32
