"""Best-of-N: ties, proxy scores, and the published special cases."""

from __future__ import annotations

from math import comb

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operant import BestOf, Outcomes, PassAt, credit, estimate
from tests import slow

REWARD = st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0])
SCORE = st.sampled_from([-1.0, 0.0, 0.25, 4.0])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    group=st.lists(st.tuples(REWARD, SCORE), min_size=2, max_size=8),
    data=st.data(),
    proxy=st.booleans(),
)
def test_estimate_and_credit_are_the_enumeration(
    group: list[tuple[float, float]], data: st.DataObject, proxy: bool
) -> None:
    n = data.draw(st.integers(1, len(group) - 1))
    reward, score = (torch.tensor(x, dtype=torch.float64) for x in zip(*group, strict=True))
    o = Outcomes(reward, score=score if proxy else None)
    z = [(r, 0, s if proxy else r) for r, s in group]
    want = [float(w) for w in slow.credit(slow.best, z, n)]
    assert estimate(BestOf(n), o).value.item() == pytest.approx(float(slow.u(slow.best, z, n)), abs=1e-12)
    assert credit(BestOf(n), o).tolist() == pytest.approx(want, abs=1e-12)


def test_without_ties_it_is_the_order_statistic_sum() -> None:
    x = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = sum(v * comb(i, 4) for i, v in enumerate(sorted(x.tolist()))) / comb(40, 5)
    assert estimate(BestOf(5), Outcomes(x)).value.item() == pytest.approx(want, rel=1e-13)


def test_a_verifier_as_score_is_pass_at_n() -> None:
    correct = torch.randint(0, 2, (20, 12), generator=torch.Generator().manual_seed(1)).double()
    for o in (Outcomes(correct), Outcomes(correct, score=correct)):
        torch.testing.assert_close(estimate(BestOf(4), o).value, estimate(PassAt(4), o).value)
        torch.testing.assert_close(credit(BestOf(4), o), credit(PassAt(4), o))
    log_p = torch.linspace(-9, -0.1, 7)
    assert torch.equal(BestOf(4).log_success(log_p), PassAt(4).log_success(log_p))


def test_a_blind_selector_gains_nothing_and_a_perverse_one_loses() -> None:
    reward = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    assert estimate(BestOf(3), Outcomes(reward, score=torch.zeros(4))).value.item() == pytest.approx(2.0)
    assert estimate(BestOf(3), Outcomes(reward, score=-reward)).value.item() == pytest.approx(1 / 4)


def test_a_monotone_score_changes_nothing_and_a_shift_moves_the_value_only() -> None:
    reward = torch.randint(0, 6, (10, 9), generator=torch.Generator().manual_seed(2)).double()
    plain = Outcomes(reward)
    for o in (Outcomes(reward, score=reward.exp()), Outcomes(reward, score=3 * reward - 7)):
        torch.testing.assert_close(credit(BestOf(4), o), credit(BestOf(4), plain))
    moved = Outcomes(reward + 10)
    torch.testing.assert_close(estimate(BestOf(4), moved).value, estimate(BestOf(4), plain).value + 10)
    torch.testing.assert_close(credit(BestOf(4), moved), credit(BestOf(4), plain))


def test_large_groups_agree_with_leaving_one_out() -> None:
    g = torch.Generator().manual_seed(3)
    o = Outcomes(torch.randn(2, 2000, generator=g).double().round(decimals=1))
    w = credit(BestOf(64), o)
    assert w.sum(-1).abs().max() < 1e-8  # 2,000 weights, each within M * 1e-15 of a log-binomial
    for i in (0, 999, 1999):
        want = estimate(BestOf(64), o).value - estimate(BestOf(64), o.without(i)).value
        torch.testing.assert_close(w[:, i], want, atol=1e-11, rtol=0)
