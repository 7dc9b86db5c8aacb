"""Imperfect verifiers: the published formulas, the ceiling, simulation, and labels only."""

from __future__ import annotations

import pytest
import torch

from operant import BestOf, Outcomes, PassAt, credit, estimate
from operant.core.checks import InputError
from operant.strategies import FirstAccepted, NoisyPassAt, Verified
from tests import slow


def accept_then_pick(p: float, alpha: float, beta: float, n: int, fail: bool) -> float:
    """S(p) in closed form."""
    a = p * (1 - beta) + (1 - p) * alpha
    last = 0 if fail else (1 - a) ** n * p * beta / (1 - a)
    return (1 - (1 - a) ** n) * p * (1 - beta) / a + last


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("p", [1e-6, 0.03, 0.3, 0.9, 0.999])
@pytest.mark.parametrize(("n", "alpha", "beta"), [(1, 0.2, 0.3), (5, 0.1, 0.25), (64, 0.01, 0.4), (500, 0.05, 0.0)])
def test_success_is_the_published_formula(n: int, alpha: float, beta: float, p: float, fail: bool) -> None:
    s = Verified(n, alpha, beta, "fail" if fail else "random")
    got = s.log_success(torch.tensor(p, dtype=torch.float64).log()).exp().item()
    assert got == pytest.approx(accept_then_pick(p, alpha, beta, n, fail), rel=1e-10)


def test_more_samples_stop_at_the_ceiling() -> None:
    s = Verified(4096, 0.1, 0.25)
    log_p = torch.tensor(0.3, dtype=torch.float64).log()
    assert s.log_success(log_p).exp().item() == pytest.approx(s.ceiling(0.3), rel=1e-9)
    assert s.ceiling(0.3) < PassAt(8).log_success(log_p).exp().item()
    with pytest.raises(InputError, match="p must lie in"):
        s.ceiling(0.0)


def test_a_perfect_verifier_is_pass_at_n_and_a_blind_one_is_one_sample() -> None:
    o = Outcomes(torch.randint(0, 2, (20, 9), generator=torch.Generator().manual_seed(0)).double())
    torch.testing.assert_close(credit(Verified(4, 0.0, 0.0), o), credit(PassAt(4), o))
    blind = Verified(4, 0.5, 0.5 - 1e-9)
    torch.testing.assert_close(estimate(blind, o).value, o.reward.mean(-1), atol=1e-8, rtol=0)


def test_known_rates_agree_with_verdicts_drawn_at_those_rates() -> None:
    """Rates against verdicts: best-of-N by verdict, averaged over what the verifier may say."""
    g, n, trials = torch.Generator().manual_seed(1), 4, 40_000
    reward = torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0], dtype=torch.float64).expand(trials, 8)
    accept = torch.where(reward > 0, 0.6, 0.2)
    verdict = (torch.rand(trials, 8, generator=g) < accept).double()
    o = Outcomes(reward, score=verdict)
    for s, same in (
        (Verified(n, 0.2, 0.4), BestOf(n)),
        (Verified(n, 0.2, 0.4, "fail"), FirstAccepted(n, fallback="fail")),
    ):
        simulated = estimate(same, o).value
        want = estimate(s, Outcomes(reward[0])).value.item()
        assert abs(simulated.mean().item() - want) < 4 * simulated.std().item() / trials**0.5


def test_noisy_labels_are_unbiased_for_the_truth_where_counting_them_is_not() -> None:
    """Exact expectation over truth and verdict: p = .3, alpha = .1, beta = .25, N = 3, M = 5."""
    p, alpha, beta, n, m = 0.3, 0.1, 0.25, 3, 5
    a = p * (1 - beta) + (1 - p) * alpha
    corrected = naive = slope = 0.0
    for c in range(m + 1):
        o = Outcomes((torch.arange(m) < c).double())
        mass = float(slow.Fraction(slow.factorial(m), slow.factorial(c) * slow.factorial(m - c)))
        mass *= a**c * (1 - a) ** (m - c)
        corrected += mass * estimate(NoisyPassAt(n, alpha, beta), o).value.item()
        naive += mass * estimate(PassAt(n), o).value.item()
        # d log P(verdict) / dp = (1 - alpha - beta) (v - a) / (a (1 - a))
        score = (1 - alpha - beta) * (o.reward - a) / (a * (1 - a))
        slope += mass * (credit(NoisyPassAt(n, alpha, beta), o) * score).sum().item()
    assert corrected == pytest.approx(1 - (1 - p) ** n, abs=1e-12)
    assert abs(naive - corrected) > 0.005
    assert slope == pytest.approx(n * (1 - p) ** (n - 1), abs=1e-12)


def test_the_price_of_noisy_labels_is_spread() -> None:
    """The table grows like (1 - alpha - beta)^-N; nothing hides it."""
    spread = [NoisyPassAt(n, 0.1, 0.2).table().abs().max().item() for n in (1, 4, 16)]
    assert spread[0] < spread[1] < spread[2] and spread[2] > 5


@pytest.mark.parametrize(("alpha", "beta"), [(-0.1, 0.2), (0.6, 0.4), (1.0, 0.0), (float("nan"), 0.1)])
def test_rates_that_say_nothing_are_refused(alpha: float, beta: float) -> None:
    for build in (Verified, NoisyPassAt):
        with pytest.raises(InputError, match="false-positive"):
            build(4, alpha, beta)
    with pytest.raises(InputError, match="fallback"):
        Verified(4, 0.1, 0.1, "last")  # pyright: ignore[reportArgumentType]
