"""The published weights, against the numbers that its reference lists and against their definitions."""

from __future__ import annotations

from math import comb

import pytest
import torch

from operant import AllOf, BestOf, Majority, Mixture, Outcomes, PassAt, Threshold, rollout_weights
from operant.core.checks import InputError, NotDefinedError
from operant.strategies import Strategy, paper

PASS_AT = [
    (4, 0.1, 0.8479209072, 2.916),
    (4, 0.5, 0.2666666667, 0.5),
    (16, 0.01, 0.9263987605, 13.76093367),
    (16, 0.1, 0.4043532929, 3.294258114),
    (16, 0.5, 2.441443503e-4, 4.8828125e-4),
    (64, 0.01, 0.7162247719, 33.97795475),
    (64, 1e-6, 0.9999685003, 63.99596812),
]
THRESHOLD = [
    (4, 2, 0.3, 1.519379845, 1.764),
    (8, 3, 0.3, 1.700850011, 2.5412184),
    (8, 3, 0.5, 0.7671232877, 1.3125),
    (8, 5, 0.5, 3.010752688, 2.1875),
    (16, 4, 0.1, 3.005703883, 2.056087026),
    (64, 16, 0.3, 1.463639553, 4.116548529),
    (64, 22, 0.3, 6.61198008, 5.768445585),
    (64, 26, 0.5, 0.8941086274, 1.695746861),
    (64, 26, 1e-6, 25.99996341, 1.563990985e-131),
]
GROUP = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


def weight_at(s: Strategy, p: float, form: paper.Form) -> float:
    """The factor on the advantage of a rollout of probability p."""
    log_p = torch.full_like(GROUP, p).log()
    return (paper.weights(s, Outcomes(GROUP), form, log_p=log_p) / paper.advantage(GROUP))[0, 0].item()


@pytest.mark.parametrize(("n", "p", "log", "raw"), PASS_AT)
def test_pass_at_n_against_the_golden_values(n: int, p: float, log: float, raw: float) -> None:
    for s in (PassAt(n), Threshold(n, 1)):
        assert weight_at(s, p, "log") == pytest.approx(log, rel=1e-9)
        assert weight_at(s, p, "raw") == pytest.approx(raw, rel=1e-9)


@pytest.mark.parametrize(("n", "k", "p", "log", "raw"), THRESHOLD)
def test_threshold_against_the_golden_values(n: int, k: int, p: float, log: float, raw: float) -> None:
    assert weight_at(Threshold(n, k), max(p, 1e-10), "log") == pytest.approx(log, rel=1e-9)
    assert weight_at(Threshold(n, k), p, "raw") == pytest.approx(raw, rel=1e-9)


@pytest.mark.parametrize(("n", "k", "peak"), [(8, 3, 2.549957926), (8, 5, 2.350041224), (64, 26, 6.547462525)])
def test_the_raw_weight_peaks_at_k_minus_1_over_n_minus_1(n: int, k: int, peak: float) -> None:
    at = (k - 1) / (n - 1)
    assert weight_at(Threshold(n, k), at, "raw") == pytest.approx(peak, rel=1e-9)
    assert all(weight_at(Threshold(n, k), at + d, "raw") < peak for d in (-0.01, 0.01))


def votes(wrong: int, right: int, invalid: int = 0) -> Outcomes:
    answer = torch.tensor([1] * wrong + [0] * right + [-1] * invalid)
    return Outcomes((answer == 0).float(), answer)


@pytest.mark.parametrize(
    ("n", "wrong", "right", "k"), [(8, 0, 8, 2), (8, 1, 7, 2), (8, 3, 5, 4), (8, 8, 0, 5), (4, 8, 0, 3)]
)
def test_dynamic_threshold(n: int, wrong: int, right: int, k: int) -> None:
    assert paper.vote_threshold(n, votes(wrong, right)).item() == k


def test_unparsable_answers_are_one_wrong_class() -> None:
    assert paper.vote_threshold(8, votes(0, 2, invalid=2)).item() == 5
    several = Outcomes(torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]), torch.tensor([0, 1, 2, 2, 3, 3, 3, 4]))
    assert paper.vote_threshold(8, several).item() == 4  # the most frequent wrong answer, three votes
    with pytest.raises(InputError, match="give Outcomes"):
        paper.vote_threshold(8, Outcomes(torch.ones(4)))


def test_majority_uses_its_own_threshold_and_the_laplace_rate() -> None:
    o = Outcomes(
        torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0]]),
        torch.tensor([[0, 0, 1, 1, 1, 2, -1, -1], [0, 0, 0, 0, 0, 0, 0, 5]]),
    )
    for row, (c, k) in enumerate([(2, 4), (7, 2)]):
        p, a = (c + 1) / 10, paper.advantage(o.reward.double())[row]
        slope = 8 * comb(7, k - 1) * p ** (k - 1) * (1 - p) ** (8 - k)
        s = sum(comb(8, j) * p**j * (1 - p) ** (8 - j) for j in range(k, 9))
        raw, log = (rollout_weights(Majority(8), o, form=form)[row] for form in ("paper-raw", "paper-log"))
        torch.testing.assert_close(raw, (slope * a).float())
        torch.testing.assert_close(log, (p * slope / s * a).float())


def test_sequence_probabilities_are_floored_at_1e_10() -> None:
    for form in ("log", "raw"):
        low = [paper.weights(PassAt(4), Outcomes(GROUP), form, log_p=torch.full_like(GROUP, x)) for x in (-50, -9e3)]
        assert torch.equal(*low)
        high = paper.weights(PassAt(4), Outcomes(GROUP), form, log_p=torch.zeros_like(GROUP))
        assert bool(high.isfinite().all())
    at_floor = weight_at(PassAt(4), 1e-10, "raw")
    assert weight_at(PassAt(4), 1e-15, "raw") == at_floor == pytest.approx(4 * (1 - 1e-10) ** 3, rel=1e-12)


def test_rank_weights_of_best_of_n() -> None:
    distinct = torch.arange(25.0, dtype=torch.float64)
    w = paper.rank_weight(8, distinct)
    assert w.max().item() == pytest.approx(6.08, abs=0.005) and w.mean().item() == pytest.approx(0.887, abs=5e-4)
    w = paper.rank_weight(4, distinct[:8])
    assert w.max().item() == pytest.approx(2.81, abs=0.005) and w.mean().item() == pytest.approx(0.889, abs=5e-4)
    tied = paper.rank_weight(3, torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64))
    assert tied.tolist() == [pytest.approx([3 / 16, 3 / 16, 3 * (3 / 4) ** 2])]
    o = Outcomes(torch.tensor([[0.5, 0.1, 0.9]], dtype=torch.float64))
    want = paper.rank_weight(2, o.reward) * paper.advantage(o.reward)
    assert torch.equal(rollout_weights(BestOf(2), o, form="paper-log"), want)


def test_the_advantage_is_standardised_with_m_minus_1() -> None:
    sd = (3 / 16 * 4 / 3) ** 0.5
    want = [0.75 / (sd + 1e-4)] + [-0.25 / (sd + 1e-4)] * 3
    assert paper.advantage(GROUP)[0].tolist() == pytest.approx(want, rel=1e-14)
    assert paper.advantage(torch.ones(2, 4)).abs().max() == 0
    assert paper.success_rate(GROUP).tolist() == [[pytest.approx(2 / 6)]]


def test_pass_at_1_is_the_plain_advantage() -> None:
    o = Outcomes(GROUP.float())
    for form in ("paper-raw", "paper-log"):
        torch.testing.assert_close(rollout_weights(PassAt(1), o, form=form), paper.advantage(o.reward))


def test_what_the_paper_does_not_treat_is_refused() -> None:
    for s in (AllOf(2), Mixture({PassAt(2): 1.0})):
        with pytest.raises(NotDefinedError, match="use form='exact'"):
            paper.weights(s, Outcomes(GROUP), "raw")
