"""The weighted vote: totals, ties and rewards that go with the weights, against enumeration."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operant import Majority, Outcomes, credit, curve, estimate
from operant.core.checks import InputError
from operant.strategies import WeightedVote
from tests import slow

VOTE = st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.integers(-1, 3), st.integers(0, 4))


def outcomes(group: list[tuple[float, int, float]]) -> Outcomes:
    reward, answer, score = zip(*group, strict=True)
    return Outcomes(torch.tensor(reward).double(), torch.tensor(answer), torch.tensor(score).double())


def agrees(s: WeightedVote, group: list[tuple[float, int, float]]) -> None:
    rule, o = slow.weighted_vote(s.levels or 1), outcomes(group)
    assert s.estimate(o).item() == pytest.approx(float(slow.u(rule, group, s.n)), abs=1e-12)
    if s.n < len(group):
        want = [float(w) for w in slow.credit(rule, group, s.n)]
        assert credit(s, o).tolist() == pytest.approx(want, abs=1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(group=st.lists(VOTE, min_size=1, max_size=7), data=st.data())
def test_estimate_and_credit_are_the_enumeration(group: list[tuple[float, int, float]], data: st.DataObject) -> None:
    agrees(WeightedVote(data.draw(st.integers(1, len(group)))), group)


@pytest.mark.parametrize(
    "group",
    [
        [(1.0, 0, 3)],
        [(1.0, -1, 3)],
        [(1.0, 0, 2)] * 5,
        [(1.0, -1, 2)] * 5,
        [(float(a == 0), a, 0) for a in (0, 0, 1, 2, -1)],
        [(float(a == 0), a, 1) for a in range(5)],
        [(1.0, 0, 6), (0.0, 1, 2), (0.0, 1, 2), (0.0, 1, 2), (0.0, 2, 4), (0.0, 2, 2)],
        [(1.0, 0, 5), (0.0, 0, 1), (0.25, 0, 1), (0.0, 1, 5), (1.0, 1, 0), (0.0, -1, 9)],
    ],
    ids=[
        "one rollout",
        "one unparsable",
        "one class",
        "all unparsable, though rewarded",
        "all weights zero",
        "all tied at one",
        "one against several, tied",
        "rewards go with weights",
    ],
)
def test_edges(group: list[tuple[float, int, float]]) -> None:
    for n in range(1, len(group) + 1):
        agrees(WeightedVote(n), group)


def test_equal_weights_are_a_majority_vote() -> None:
    g = torch.Generator().manual_seed(0)
    answer = torch.randint(-1, 4, (3, 12), generator=g)
    o = Outcomes((answer == 0).double(), answer, torch.full((3, 12), 7.0))
    for weight in (1.0, 7.0):
        same = Outcomes(o.reward, answer, torch.full((3, 12), weight))
        torch.testing.assert_close(estimate(WeightedVote(5), same).value, estimate(Majority(5), o).value)
        torch.testing.assert_close(credit(WeightedVote(5), same), credit(Majority(5), o))
    torch.testing.assert_close(curve(WeightedVote(1), o, range(1, 13)).value, curve(Majority(1), o, range(1, 13)).value)


@pytest.mark.parametrize(("m", "n"), [(41, 20), (24, 20), (21, 20)], ids=["divided from below", "from above", "N + 1"])
@pytest.mark.parametrize("graded", [False, True])
def test_credit_is_the_difference_of_estimates(m: int, n: int, graded: bool) -> None:
    g = torch.Generator().manual_seed(m)
    answer, score = torch.randint(-1, 4, (3, m), generator=g), torch.randint(0, 4, (3, m), generator=g).double()
    reward = torch.rand(3, m, generator=g, dtype=torch.float64) if graded else (answer == 0).double()
    s, o = WeightedVote(n), Outcomes(reward, answer, score)
    weights = credit(s, o)
    for i in (0, 5, m - 1):
        torch.testing.assert_close(weights[:, i], s.estimate(o) - s.estimate(o.without(i)), rtol=0, atol=1e-10)


def test_curves_share_products_among_near_budgets() -> None:
    g = torch.Generator().manual_seed(3)
    answer, score = torch.randint(-1, 4, (2, 40), generator=g), torch.randint(0, 4, (2, 40), generator=g).double()
    o = Outcomes((answer == 0).double(), answer, score)
    one_by_one = torch.stack([WeightedVote(n).estimate(o) for n in (1, 2, 7, 20, 39, 40)], dim=-1)
    every = WeightedVote(1).estimate_budgets(o, [40, 1, 2, 20, 7, 39])
    torch.testing.assert_close(every[:, [1, 2, 4, 3, 5, 0]], one_by_one, rtol=0, atol=1e-10)


def test_levels_round_scores_and_finer_ones_converge() -> None:
    g = torch.Generator().manual_seed(1)
    answer = torch.randint(0, 3, (5, 8), generator=g)
    o = Outcomes((answer == 0).double(), answer, torch.rand(5, 8, generator=g).double())
    assert o.score is not None
    whole = Outcomes(o.reward, answer, (o.score * 10).round())
    torch.testing.assert_close(WeightedVote(5, 10).estimate(o), WeightedVote(5).estimate(whole))
    rows = zip(o.reward.tolist(), answer.tolist(), o.score.tolist(), strict=True)
    want = [float(slow.u(slow.weighted_vote(2**40), list(zip(*row, strict=True)), 5)) for row in rows]
    exact = torch.tensor(want, dtype=torch.float64)
    error = [(WeightedVote(5, q).estimate(o) - exact).abs().max().item() for q in (2, 5000)]
    assert error[1] < 1e-9 < error[0]


def test_more_rollouts_than_any_table_has_rows() -> None:
    g = torch.Generator().manual_seed(2)
    answer = torch.randint(-1, 6, (10_000,), generator=g)
    o = Outcomes((answer == 0).double(), answer, torch.rand(10_000, generator=g))
    s = WeightedVote(16, 10)
    w = credit(s, o)
    assert bool(w.isfinite().all()) and w.abs().max() > 0
    assert w.sum().abs() < 1e-7
    again = s.estimate(o) - s.estimate(o.without(3))
    assert w[3].item() == pytest.approx(again.item(), abs=1e-11)
    order = torch.rand(20_000, 10_000 // 16, generator=g)[:, :16].mul(10_000).long()  # with replacement: 16 << 10,000
    simulated = s.value(o.map(lambda x: x[order]))
    assert abs(s.estimate(o) - simulated.mean()) < 4 * simulated.std() / 20_000**0.5


@pytest.mark.parametrize(
    ("s", "score", "message"),
    [
        (WeightedVote(2), -1.0, "must be >= 0, got -1"),
        (WeightedVote(2, 10), -0.5, "must be >= 0, got -0.5"),
        (WeightedVote(2), 0.3, "expects integer scores, got 0.3.*levels=50"),
        (WeightedVote(2, 10), 1.5, r"expects scores in \[0, 1\], got 1.5"),
    ],
    ids=str,
)
def test_scores_that_are_no_weights_are_refused(s: WeightedVote, score: float, message: str) -> None:
    o = Outcomes(torch.ones(3), torch.zeros(3).long(), torch.tensor([0.0, score, 1.0]).double())
    for function in (s.value, s.estimate, s.credit):
        with pytest.raises(InputError, match=message):
            function(o)


def test_a_table_that_is_too_large_is_refused_with_advice() -> None:
    o = Outcomes(torch.ones(40), torch.arange(40) % 2, torch.arange(40).double() * 100_000 + 1)
    with pytest.raises(InputError, match="Use fewer levels"):
        WeightedVote(20).estimate(o)
    assert estimate(WeightedVote(20), o, route="monte carlo").value.item() == pytest.approx(1.0)
    with pytest.raises(InputError, match="votes over answer classes"):
        WeightedVote(2).estimate(Outcomes(torch.ones(3)))
