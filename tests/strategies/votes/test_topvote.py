"""The vote of the best k of N: cuts through ties, against enumeration over subsets and over orders."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operant import BestOf, Majority, Outcomes, credit, estimate
from operant.core.checks import BudgetError, InputError
from operant.strategies import TopVote
from tests import slow

SCORED = st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.integers(-1, 3), st.sampled_from([-1.0, 0.0, 2.5]))
Group = list[tuple[float, int, float]]


def outcomes(group: Group) -> Outcomes:
    reward, answer, score = zip(*group, strict=True)
    return Outcomes(torch.tensor(reward).double(), torch.tensor(answer), torch.tensor(score).double())


def agrees(s: TopVote, group: Group) -> None:
    rule, o = slow.vote_of_top(s.k), outcomes(group)
    assert s.estimate(o).item() == pytest.approx(float(slow.u(rule, group, s.n)), abs=1e-12)
    if s.n < len(group):
        want = [float(w) for w in slow.credit(rule, group, s.n)]
        assert credit(s, o).tolist() == pytest.approx(want, abs=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(group=st.lists(SCORED, min_size=1, max_size=5), data=st.data())
def test_the_value_is_the_mean_over_all_orders(group: Group, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(group)))
    want = slow.vote_of_top_in_order(k)(group)
    assert slow.vote_of_top(k)(group) == want
    assert TopVote(len(group), k).value(outcomes(group)).item() == pytest.approx(float(want), abs=1e-13)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(group=st.lists(SCORED, min_size=1, max_size=7), data=st.data())
def test_estimate_and_credit_are_the_enumeration(group: Group, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(group)))
    agrees(TopVote(n, data.draw(st.integers(1, n))), group)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(group=st.lists(SCORED, min_size=2, max_size=7), data=st.data())
def test_distinct_scores(group: Group, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(group))))
    n = data.draw(st.integers(1, len(group)))
    agrees(TopVote(n, data.draw(st.integers(1, n))), [(r, a, i) for (r, a, _), i in zip(group, order, strict=True)])


@pytest.mark.parametrize(
    "group",
    [
        [(1.0, 0, 1.0)] * 5,
        [(1.0, -1, 1.0)] * 5,
        [(float(a == 0), a, 0.0) for a in range(5)],
        [(float(a == 0), a, float(a % 2)) for a in (0, 0, 1, 1, 2, -1)],
        [(1.0, -1, 9.0), (1.0, -1, 9.0), (1.0, 0, 1.0), (0.0, 1, 1.0), (0.0, 1, 0.0)],
        [(1.0, 0, 2.0), (0.0, 0, 1.0), (0.5, 0, 1.0), (0.25, 1, 1.0), (1.0, 1, 0.0)],
    ],
    ids=["one class", "all unparsable", "all tied", "a verifier", "the best do not parse", "rewards go with scores"],
)
def test_edges(group: Group) -> None:
    for n in range(1, len(group) + 1):
        for k in range(1, n + 1):
            agrees(TopVote(n, k), group)


def test_its_ends_are_best_of_n_and_the_majority_vote() -> None:
    g = torch.Generator().manual_seed(0)
    answer = torch.randint(0, 4, (6, 14), generator=g)
    o = Outcomes((answer == 0).double(), answer, torch.randint(0, 5, (6, 14), generator=g).double())
    for same, s in ((TopVote(6, 1), BestOf(6)), (TopVote(6, 6), Majority(6))):
        torch.testing.assert_close(estimate(same, o).value, estimate(s, o).value)
        torch.testing.assert_close(credit(same, o), credit(s, o))


@pytest.mark.parametrize("levels", [2, 300], ids=["a verifier", "a reward model with some ties"])
def test_many_rollouts(levels: int) -> None:
    g = torch.Generator().manual_seed(1)
    m, s = 10_000 if levels == 2 else 3_000, TopVote(16, 4)
    answer = torch.randint(-1, 5, (m,), generator=g)
    o = Outcomes((answer == 0).double(), answer, torch.randint(0, levels, (m,), generator=g) + 0.5 * (answer == 0))
    w = credit(s, o)
    assert bool(w.isfinite().all()) and w.abs().max() > 0
    assert w.sum().abs() < 1e-7
    for i in (0, 1, 2):
        assert w[i].item() == pytest.approx((s.estimate(o) - s.estimate(o.without(i))).item(), abs=1e-11)
    draws = torch.randint(0, m, (4_000, 16), generator=g)  # with replacement: 16 << M
    scores = o.selector[draws] + 1e-3 * torch.rand(4_000, 16, generator=g)  # ties at the cut at random
    kept = draws.gather(1, scores.topk(4, dim=1).indices)
    simulated = Majority(4).value(o.map(lambda x: x[kept]))
    assert abs(s.estimate(o) - simulated.mean()) < 4 * simulated.std() / 4_000**0.5


@pytest.mark.parametrize("levels", [2, 4, 100])
def test_every_budget_at_once(levels: int) -> None:
    g = torch.Generator().manual_seed(levels)
    answer, score = torch.randint(-1, 3, (3, 12), generator=g), torch.randint(0, levels, (3, 12), generator=g).float()
    o = Outcomes(torch.rand(3, 12, generator=g).double(), answer, score)
    one_by_one = torch.stack([TopVote(n, 3).estimate(o) for n in range(3, 13)], dim=-1)
    torch.testing.assert_close(TopVote(5, 3).estimate_budgets(o, range(3, 13)), one_by_one)


def test_what_is_refused() -> None:
    with pytest.raises(BudgetError, match="k must be <= N = 3, got 4"):
        TopVote(3, 4)
    with pytest.raises(BudgetError, match="k must be <= N = 2, got 3"):
        TopVote(4, 3).estimate_budgets(Outcomes(torch.ones(4), torch.zeros(4).long()), [4, 2])
    with pytest.raises(BudgetError, match="k must be an integer >= 1"):
        TopVote(3, 0)
    with pytest.raises(InputError, match=r"top2@3>maj votes over answer classes"):
        TopVote(3, 2).value(Outcomes(torch.ones(3)))
