"""-log S and its gradient, against sums in 60 digits, golden values, limits and gradcheck."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import mpmath as mp
import pytest
import torch

from operant import AllOf, BestOf, Majority, Mixture, PassAt, Threshold, sft_loss
from operant.core.checks import InputError, NotDefinedError
from operant.objectives import elasticity, elasticity_at
from operant.strategies import Strategy

LN2 = math.log(2)
GRID = [
    *[0.0, -1e-300, -1e-30, -1e-12, -1e-9, -1e-7, -1e-5, -1e-3, -0.01, -0.05, -0.1, -0.3, -0.5, -0.69],
    *[-LN2 * (1 - 1e-9), -LN2, -LN2 * (1 + 1e-9), -0.7, -0.9, -1.2, -2.0, -3.0, -4.6, -6.0, -9.0, -13.8, -17.0],
    *[-20.0, -26.0, -26.2, -30.0, -36.0, -37.2, -39.999, -40.0, -40.001, -42.8, -50.0, -80.0, -236.0, -700.0],
    *[-745.2, -1e3, -3e3, -1e4],
]
PASS_AT = [PassAt(n) for n in (1, 2, 3, 16, 1000, 2**20)]
THRESHOLD = [Threshold(*nk) for nk in ((1, 1), (4, 2), (8, 1), (8, 3), (8, 5), (8, 8), (16, 4), (64, 26), (256, 129))]
OTHERS = [
    AllOf(1),
    AllOf(16),
    BestOf(4),
    Mixture({PassAt(1): 0.25, PassAt(64): 0.75}),
    Mixture({AllOf(3): 0.5, PassAt(8): 0.25, Threshold(8, 3): 0.25}),
]
MEMBERS: list[Strategy] = [*PASS_AT, *THRESHOLD, Threshold(1024, 513), *OTHERS]
GOLDEN = [
    (PassAt(4), 0.1, 0.3439, 0.8479209072),
    (PassAt(4), 0.5, 0.9375, 0.2666666667),
    (PassAt(16), 0.01, 0.1485422289, 0.9263987605),
    (PassAt(16), 0.1, 0.8146979811, 0.4043532929),
    (PassAt(16), 0.5, 0.9999847412, 2.441443503e-4),
    (PassAt(64), 0.01, 0.4744035125, 0.7162247719),
    (PassAt(64), 1e-6, 6.399798404e-5, 0.9999685003),
    (Threshold(4, 2), 0.3, 0.3483, 1.519379845),
    (Threshold(8, 3), 0.3, 0.44822619, 1.700850011),
    (Threshold(8, 3), 0.5, 0.85546875, 0.7671232877),
    (Threshold(8, 5), 0.5, 0.36328125, 3.010752688),
    (Threshold(16, 4), 0.1, 0.06840617392, 3.005703883),
    (Threshold(64, 16), 0.3, 0.8437627667, 1.463639553),
    (Threshold(64, 22), 0.3, 0.2617269947, 6.61198008),
    (Threshold(64, 26), 0.5, 0.9482890608, 0.8941086274),
    (Threshold(64, 26), 1e-6, 6.01535841e-139, 25.99996341),
]


def success_and_slope(s: Strategy, p: Any, q: Any) -> list[Any]:
    """S, 1 - S and p S'(p) as sums of positive terms, in mpmath."""
    if isinstance(s, Mixture):
        parts = [[w * x for x in success_and_slope(part, p, q)] for part, w in s.parts]
        return [sum(column) for column in zip(*parts, strict=True)]
    n, k = s.n, getattr(s, "k", s.n if isinstance(s, AllOf) else 1)
    slope = k * mp.binomial(n, k) * p**k * q ** (n - k)
    if k == 1:
        return [-mp.expm1(n * mp.log1p(-p)) if q else mp.mpf(1), q**n, slope]
    terms, term = [], p**n  # from j = n down, by the ratio of neighbors
    for j in range(n, -1, -1):
        terms.append(term)
        term = term * q * j / (p * (n - j + 1))
    return [sum(terms[: n - k + 1]), sum(terms[n - k + 1 :]), slope]


@cache
def reference(s: Strategy, log_p: float) -> tuple[float, float]:
    """-log S and f = p S'/S."""
    with mp.workdps(60):
        p, q = mp.exp(log_p), -mp.expm1(log_p)
        success, failure, slope = success_and_slope(s, p, q)
        loss = -mp.log(success) if success < 0.5 else -mp.log1p(-failure)
        return float(loss), float(slope / success)


def measured(s: Strategy, log_p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    log_p = log_p.clone().requires_grad_()
    loss = sft_loss(s, log_p)
    (gradient,) = torch.autograd.grad(loss.sum(), log_p)
    return loss.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("s", MEMBERS, ids=str)
def test_loss_and_gradient_to_the_last_digits(s: Strategy, dtype: torch.dtype) -> None:
    log_p = torch.tensor(GRID, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-10 if s == Threshold(1024, 513) else 1e-12
    tiny = torch.finfo(dtype).tiny
    wanted = [reference(s, x) for x in log_p.tolist()]
    for got, want, sign in zip(measured(s, log_p), zip(*wanted, strict=True), (1, -1), strict=True):
        assert got.dtype == dtype and bool(got.isfinite().all())
        for x, a, b in zip(log_p.tolist(), (sign * got.double()).tolist(), want, strict=True):
            assert a == pytest.approx(b, rel=tolerance, abs=tiny), f"at log_p = {x}"


@pytest.mark.parametrize(("s", "p", "success", "f"), GOLDEN, ids=lambda x: str(x))
def test_golden_values(s: Strategy, p: float, success: float, f: float) -> None:
    loss, gradient = measured(s, torch.tensor([p], dtype=torch.float64).log())
    assert math.exp(-loss.item()) == pytest.approx(success, rel=1e-9)
    assert -gradient.item() == pytest.approx(f, rel=1e-9)
    assert reference(s, math.log(p))[1] == pytest.approx(f, rel=1e-9)


@pytest.mark.parametrize("s", [PassAt(1), PassAt(16), Threshold(8, 3), AllOf(3), *OTHERS[-2:]], ids=str)
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_gradcheck(s: Strategy, power: float) -> None:
    log_p = torch.tensor([[-0.01, -0.4, -LN2], [-1.5, -4.0, -9.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sft_loss(s, x, power=power), log_p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_pass_at_1_is_cross_entropy_bit_for_bit(dtype: torch.dtype) -> None:
    log_p = torch.tensor(GRID, dtype=dtype)
    for s in (PassAt(1), AllOf(1), BestOf(1)):
        loss, gradient = measured(s, log_p)
        assert torch.equal(loss, -log_p) and torch.equal(gradient, -torch.ones_like(log_p))


@pytest.mark.parametrize(
    ("s", "f"), [(PassAt(64), 1.0), (BestOf(4), 1.0), (Threshold(64, 26), 26.0), (AllOf(5), 5.0)], ids=str
)
def test_improbable_targets_get_k_times_cross_entropy(s: Strategy, f: float) -> None:
    log_p = torch.tensor([-60.0, -236.0, -9999.0])
    assert elasticity(s, log_p).tolist() == pytest.approx([f] * 3, rel=1e-6)
    k = int(f)
    offset = math.log(math.comb(s.n, k))
    assert sft_loss(s, log_p).tolist() == pytest.approx([-k * x - offset for x in log_p.tolist()], rel=1e-6)


def test_certain_targets_get_nothing() -> None:
    for s in (PassAt(2), PassAt(2**20), Threshold(64, 26), Mixture({PassAt(4): 0.5, PassAt(64): 0.5})):
        loss, gradient = measured(s, torch.zeros(3))
        assert loss.abs().max() == 0 == gradient.abs().max()
    assert measured(AllOf(3), torch.zeros(1))[1].item() == -3


def test_f_falls_with_p_and_with_n() -> None:
    log_p = torch.linspace(-12, -0.01, 200, dtype=torch.float64)
    rows = torch.stack([elasticity(PassAt(n), log_p) for n in (1, 2, 8, 64)])
    assert bool((rows[1:].diff(dim=1) < 0).all() & (rows.diff(dim=0) < 0).all())


@pytest.mark.parametrize("power", [0.25, 1.0, 2.0])
def test_power_form(power: float) -> None:
    p = torch.tensor([0.02, 0.4, 0.97], dtype=torch.float64)
    log_p = p.log().requires_grad_()
    success = 1 - (1 - p) ** 16
    loss = sft_loss(PassAt(16), log_p, power=power)
    torch.testing.assert_close(loss.detach(), (1 - success**power) / power)
    (gradient,) = torch.autograd.grad(loss.sum(), log_p)
    torch.testing.assert_close(gradient, -(success ** (power - 1)) * 16 * p * (1 - p) ** 15)


def test_power_tends_to_the_logarithm() -> None:
    log_p = torch.tensor([-5.0, -1.0, -0.1], dtype=torch.float64)
    torch.testing.assert_close(sft_loss(PassAt(4), log_p, power=1e-9), sft_loss(PassAt(4), log_p), rtol=1e-7, atol=0)


def test_answer_level_weighs_cross_entropy_by_f_of_the_measured_rate() -> None:
    rate = torch.tensor([0.0, 0.01, 0.1, 0.5, 1.0])
    log_p = torch.tensor([-80.0, -3.0, -120.0, -60.0, -2.0], requires_grad=True)
    loss = sft_loss(PassAt(16), log_p, success_rate=rate)
    f = [1.0, 0.9263987605, 0.4043532929, 2.441443503e-4, 0.0]
    assert loss.tolist() == pytest.approx([-a * b for a, b in zip(f, log_p.tolist(), strict=True)], rel=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), log_p)
    assert gradient.tolist() == pytest.approx([-x for x in f], rel=1e-6)
    assert elasticity_at(Threshold(8, 3), rate).tolist()[0] == pytest.approx(3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_promoted(dtype: torch.dtype) -> None:
    log_p = torch.tensor([-80.0, -3.0, -0.01, 0.0], dtype=dtype, requires_grad=True)
    rate = torch.tensor([0.1, 0.3, 0.6, 0.9])
    for loss, wide in (
        (sft_loss(PassAt(16), log_p), sft_loss(PassAt(16), log_p.detach().float())),
        (
            sft_loss(PassAt(16), log_p, success_rate=rate),
            sft_loss(PassAt(16), log_p.detach().float(), success_rate=rate),
        ),
    ):
        assert loss.dtype == torch.float32
        assert torch.equal(loss.detach(), wide)
        (gradient,) = torch.autograd.grad(loss.sum(), log_p)
        assert gradient.dtype == dtype and bool(gradient.isfinite().all())


def test_rounding_above_zero_is_taken_as_certain() -> None:
    loss, gradient = measured(PassAt(4), torch.tensor([1e-7, 9e-5]))
    assert loss.abs().max() == 0 and bool(gradient.isfinite().all())


def test_losses_keep_the_shape_and_are_not_negative() -> None:
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        loss = sft_loss(PassAt(4), -torch.rand(shape, generator=torch.Generator().manual_seed(0)))
        assert loss.shape == shape and bool((loss >= 0).all())


@pytest.mark.parametrize(
    ("log_p", "message"),
    [
        (torch.tensor([0.5]), r"log_p must be <= 0 .* got 0.5\. Pass the \*sum\*"),
        (torch.tensor([-1.0, float("nan")]), r"log_p must be finite, got nan at index \(1,\)"),
        (torch.tensor([-float("inf")]), "log_p must be finite, got -inf"),
        (torch.tensor([-1]), "log_p must be a floating tensor of natural-log probabilities, got torch.int64"),
    ],
    ids=["positive", "nan", "-inf", "integers"],
)
def test_what_is_not_a_log_probability_is_refused(log_p: torch.Tensor, message: str) -> None:
    for call in (
        lambda: sft_loss(PassAt(4), log_p),
        lambda: sft_loss(PassAt(4), log_p, success_rate=torch.full(log_p.shape, 0.5)),
        lambda: elasticity(PassAt(4), log_p),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_bad_rates_and_powers_are_refused() -> None:
    log_p = torch.tensor([-1.0])
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"success_rate must lie in \[0, 1\]"):
            sft_loss(PassAt(4), log_p, success_rate=torch.tensor([rate]))
    for power in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="power must be a finite number >= 0"):
            sft_loss(PassAt(4), log_p, power=power)
    with pytest.raises(InputError, match="power applies at sequence level only"):
        sft_loss(PassAt(4), log_p, success_rate=torch.tensor([0.5]), power=1.0)


def test_a_vote_has_no_success_probability_of_one_p() -> None:
    for s in (Majority(8), Mixture({PassAt(2): 0.5, Majority(4): 0.5})):
        with pytest.raises(NotDefinedError, match=r"maj@\d has no success probability.*use answer_loss with"):
            sft_loss(s, torch.tensor([-1.0]))
