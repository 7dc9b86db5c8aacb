"""Logarithms against many digits and exact integers."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
import torch

from operant.core.logmath import log1mexp, log_binom, log_binom_row, xlog

X = [-1e-300, -1e-12, -1e-7, -0.01, -0.5, -math.log(2) * (1 - 1e-9), -math.log(2), -0.7, -1.0, -5.0, -36.0, -700.0]


@pytest.mark.parametrize(("dtype", "ulps"), [(torch.float64, 4), (torch.float32, 4)], ids=["float64", "float32"])
def test_log1mexp_to_a_few_ulps(dtype: torch.dtype, ulps: int) -> None:
    x = torch.tensor([v for v in X if v > -80 or dtype == torch.float64], dtype=dtype)
    x = x[x != 0]
    with mp.workdps(400):
        want = [float(mp.log(-mp.expm1(v))) for v in x.tolist()]
    assert log1mexp(x).tolist() == pytest.approx(want, rel=ulps * torch.finfo(dtype).eps, abs=0)


def test_log1mexp_at_the_ends() -> None:
    assert log1mexp(torch.tensor([0.0, -math.inf])).tolist() == [-math.inf, 0.0]


def test_log1mexp_has_a_finite_gradient_on_both_sides_of_the_branch() -> None:
    x = torch.tensor([-1e-12, -0.69, -0.7, -1e4], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(log1mexp(x).sum(), x)
    want = [-1 / math.expm1(-v) for v in x.tolist()[:3]] + [-0.0]
    assert gradient.tolist() == pytest.approx(want, rel=1e-12)
    inside = x.detach()[1:3].requires_grad_()
    assert torch.autograd.gradcheck(log1mexp, inside)


def test_log_binom_against_integers() -> None:
    for a in (0, 1, 7, 64, 1000):
        b = range(-2, a + 3)
        want = [math.log(math.comb(a, k)) if 0 <= k <= a else -math.inf for k in b]
        got = log_binom(a, torch.tensor(list(b)))
        assert got.dtype == torch.float64
        assert got.tolist() == pytest.approx(want, abs=1e-15 * max(a, 10) * 4)


def test_log_binom_broadcasts_numbers_and_tensors() -> None:
    grid = log_binom(torch.arange(5)[:, None], torch.arange(4))
    want = np.array([[math.comb(a, b) for b in range(4)] for a in range(5)])
    np.testing.assert_allclose(grid.exp().numpy(), want, rtol=1e-14)
    assert log_binom(5, 2).item() == pytest.approx(math.log(10))


@pytest.mark.parametrize("n", [0, 1, 8, 257, 1024])
def test_log_binom_row_is_right_to_an_ulp(n: int) -> None:
    row = log_binom_row(n)
    assert row.shape == (n + 1,)
    for k in {0, min(1, n), n // 3, n // 2, n}:
        assert row[k].item() == pytest.approx(math.log(math.comb(n, k)), rel=3e-16)


def test_xlog_takes_zero_times_minus_infinity_as_zero() -> None:
    log_value = torch.tensor([-math.inf, -2.0], requires_grad=True)
    result = xlog(torch.tensor([[0.0], [3.0]]), log_value)
    assert result.tolist() == [[0.0, 0.0], [-math.inf, -6.0]]
    (gradient,) = torch.autograd.grad(result[0].sum() + result[1, 1], log_value)
    assert gradient.tolist() == [0.0, 3.0]
