"""Up to ten million rollouts: closed forms against exact integers, where differences of log-gammas lose all digits."""

from __future__ import annotations

from fractions import Fraction
from math import comb, prod

import mpmath as mp
import numpy as np
import pytest
import torch

from operant import AllOf, BestOf, Majority, Outcomes, PassAt, Threshold, credit, estimate
from operant.core.logmath import log_binom, log_binomial, log_hypergeometric, log_none_drawn, some_drawn
from operant.hf.rollouts.signals import dead_share as dead_share_of
from operant.objectives import dead_probability
from operant.strategies import FirstAccepted, Graded, Quorum, RaceTo, Strategy, TopMean
from operant.strategies.counts import u_table
from operant.strategies.ranking import rank_table

SIZES = [16, 1000, 10**6, 10**7]
CPU = torch.device("cpu")


def ratio(a: int, b: int, n: int) -> Fraction:
    """C(a, n) / C(b, n)."""
    return prod((Fraction(a - i, b - i) for i in range(n)), start=Fraction(1))


def hypergeometric(k: int, c: int, m: int, n: int) -> Fraction:
    """C(c, k) C(m-c, n-k) / C(m, n)."""
    if not 0 <= k <= c or n - k > m - c or k > n:
        return Fraction(0)
    return comb(n, k) * ratio(c, m, k) * prod((Fraction(m - c - i, m - k - i) for i in range(n - k)), start=Fraction(1))


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_pass_at_n_is_exact_for_few_and_for_many_successes(m: int, n: int) -> None:
    counts = [c for c in (0, 1, 2, 9, m // 3, m - n - 1, m - n, m - 1, m) if 0 <= c <= m]
    got = some_drawn(torch.tensor(counts), m, n)
    want = [1 - ratio(m - c, m, n) if m - c >= n else Fraction(1) for c in counts]
    assert got.tolist() == pytest.approx([float(x) for x in want], rel=1e-12, abs=0)


def test_pass_at_2_of_a_million_rollouts_with_one_success() -> None:
    """U = 2 / M exactly, and the weights are those of the exact credit."""
    reward = torch.zeros(10**6, dtype=torch.float64)
    reward[17] = 1
    assert PassAt(2).estimate(Outcomes(reward)).item() == pytest.approx(2e-6, rel=1e-12)
    m = 10**5
    weights = credit(PassAt(2), Outcomes(reward[:m]))
    assert weights[17].item() == pytest.approx(2 / m, rel=1e-12)
    assert weights[0].item() == pytest.approx(2 / m - 2 / (m - 1), rel=1e-12)


@pytest.mark.parametrize(
    ("s", "least"),
    [(Threshold(8, 2), 2), (AllOf(3), 3), (Graded((0.0, 0.5, 0.5, 1.0)), None)],
    ids=str,
)
def test_tables_of_counts_at_a_hundred_thousand_rollouts(s: Strategy, least: int | None) -> None:
    m, v = 10**5, [0, 0.5, 0.5, 1]
    table = u_table(s, m, CPU)  # pyright: ignore[reportArgumentType]
    for c in (1, 2, 3, 50, m // 2, m - 1):
        worth = [(k >= least if least is not None else v[k]) for k in range(s.n + 1)]
        want = sum(Fraction(w) * hypergeometric(k, c, m, s.n) for k, w in enumerate(worth))
        assert table[c].item() == pytest.approx(float(want), rel=1e-12, abs=0)


@pytest.mark.parametrize("s", [BestOf(2), BestOf(8), TopMean(4, 2)], ids=str)
def test_weights_of_ranks_at_a_hundred_thousand_rollouts(s: Strategy) -> None:
    m = 10**5
    b = rank_table(s, m, CPU)  # pyright: ignore[reportArgumentType]
    kept = s.k if isinstance(s, TopMean) else 1
    for i in (s.n - 1, 7, m // 2, m - 1):
        ranks = range(s.n - kept, s.n)
        want = Fraction(s.n, m) / kept * sum(hypergeometric(j, i, m - 1, s.n - 1) for j in ranks)
        assert b[i].item() == pytest.approx(float(want), rel=1e-12, abs=0)


def test_the_first_accepted_of_half_a_million() -> None:
    m, n = 500_000, 3
    reward = torch.zeros(m, dtype=torch.float64)
    reward[:2] = 1
    some = 1 - ratio(m - 2, m, n)
    s = FirstAccepted(n, 0.5, "fail")
    assert s.estimate(Outcomes(reward)).item() == pytest.approx(float(some), rel=1e-12)
    draws = sum(ratio(m - 2, m, i) for i in range(n))
    assert s.estimate_cost(Outcomes(reward)).item() == pytest.approx(float(draws), rel=1e-13)


def test_votes_of_twenty_thousand_rollouts() -> None:
    """With one rival, 3 of 5 votes win: maj@5, its quorum and its race agree with P[Hyp >= 3]."""
    m, c = 20_000, 37
    answer = (torch.arange(m) >= c).long()
    o = Outcomes((answer == 0).double(), answer)
    want = float(sum(hypergeometric(k, c, m, 5) for k in (3, 4, 5)))
    for s in (Majority(5), Quorum(5, 3), RaceTo(5, 3)):
        assert estimate(s, o).value.item() == pytest.approx(want, rel=1e-11)


def test_the_share_of_dead_groups_beyond_a_thousand_rollouts() -> None:
    """C(2000, 1000) is no float64."""
    want = 0.75**2000 + 0.25**1999 * (2000 * 0.75 + 0.25)
    assert dead_probability(PassAt(2), 2000, 0.25) == pytest.approx(want, rel=1e-9)
    reward = torch.zeros(1, 3000)
    reward[0, 0] = 1
    assert dead_share_of(PassAt(2), Outcomes(reward), 4) == pytest.approx(1 - 4 / 3000, rel=1e-12)


@pytest.mark.parametrize("m", SIZES)
def test_logarithms_of_probabilities_against_sixty_digits(m: int) -> None:
    rng = np.random.default_rng(m)
    with mp.workdps(60):

        def log_ways(a: int, b: int) -> mp.mpf:
            return mp.loggamma(a + 1) - mp.loggamma(b + 1) - mp.loggamma(a - b + 1)

        for _ in range(25):
            n, c = (int(x) for x in (rng.integers(1, min(m, 2000)), rng.integers(1, m)))
            assert log_binom(m, c).item() == pytest.approx(float(log_ways(m, c)), rel=1e-14)
            if c + n <= m:
                want = log_ways(m - c, n) - log_ways(m, n)
                assert log_none_drawn(c, m, n).item() == pytest.approx(float(want), rel=1e-13)
            k = int(np.clip(round(c * n / m) + rng.integers(-2, 3), max(0, n - m + c), min(c, n)))
            want = log_ways(c, k) + log_ways(m - c, n - k) - log_ways(m, n)
            assert log_hypergeometric(k, c, m, n).item() == pytest.approx(float(want), abs=1e-12)
            p = c / m
            want = log_ways(n, k) + k * mp.log(p) + (n - k) * mp.log1p(-mp.mpf(p))
            assert log_binomial(k, n, p, 1 - p).item() == pytest.approx(float(want), rel=1e-13, abs=1e-12)


def test_logarithms_at_the_ends() -> None:
    inf = float("inf")
    assert log_none_drawn(torch.arange(4), 3, 2).tolist() == pytest.approx([0, np.log(1 / 3), -inf, -inf])
    assert log_none_drawn(0, 0, 0).item() == 0
    assert log_hypergeometric(torch.arange(-1, 5), 3, 3, 3).tolist() == [-inf, -inf, -inf, -inf, 0, -inf]
    assert log_binomial(torch.arange(3), 2, 0.0, 1.0).tolist() == [0, -inf, -inf]
    assert log_binomial(torch.arange(3), 2, 1.0, 0.0).tolist() == [-inf, -inf, 0]
    assert log_binomial(0, 0, 0.5, 0.5).item() == 0
