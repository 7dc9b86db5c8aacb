"""Polynomials and primitives: values against slow nested calls, coefficients and ranges against the paper's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from operant.core.checks import InputError
from operant.relational.bank.primitives import (
    KINDS,
    composed,
    polynomial_params,
    polynomials,
    primitive_params,
    primitives,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_polynomials_have_their_degree_and_the_papers_coefficients() -> None:
    degrees = [1, 3, 8] * 200
    c = polynomial_params(degrees, rng())
    scaled = c * 5.0 ** np.arange(9)
    assert np.abs(scaled).max() <= 2 and scaled[2::3].std() == pytest.approx(2 / math.sqrt(3), rel=0.05)
    assert ((c != 0).sum(1) == np.array(degrees) + 1).all()
    bank = polynomials(degrees[:6], rng=rng())
    assert [t.labels["order"] for t in bank.tasks] == degrees[:6] and bank.range[0] == -5 and bank.range[1] == 5
    x, drawn = np.array([[-5.0], [0.3]]), polynomial_params(degrees[:6], rng())
    wanted = [[sum(a * z**p for p, a in enumerate(row)) for z in x[:, 0]] for row in drawn]
    np.testing.assert_allclose(bank.values(x)[..., 0], wanted, rtol=1e-12)


PRIMITIVE = {
    "poly": lambda x, p, q, r: p * x**2 + q * x + r,
    "sin": lambda x, p, q, r: p * math.sin(q * x + r),
    "tanh": lambda x, p, q, r: p * math.tanh(q * (x - r)),
}


def test_primitives_and_their_chains_equal_nested_calls() -> None:
    kinds = [list(KINDS), ["tanh", "poly", "sin"]]
    inner, outer = (primitive_params(k, rng(i), rescaled=i == 1) for i, k in enumerate(kinds))

    def slow(params: np.ndarray, x: float) -> float:
        kind, p, q, r, factor, offset = params
        return factor * PRIMITIVE[KINDS[int(kind)]](x, p, q, r) + offset

    x = [-4.0, 0.5, 3.0]
    wanted = [[slow(f, slow(g, z)) for z in x] for f, g in zip(outer, inner, strict=True)]
    np.testing.assert_allclose(composed([inner, outer], np.array(x)[:, None])[..., 0], wanted, rtol=1e-12)


def test_rescaled_primitives_span_the_interval_exactly() -> None:
    bank = primitives(list(KINDS) * 50, rng=rng(), rescaled=True)
    y = bank.values(np.linspace(-5, 5, 4001)[:, None])[..., 0]
    np.testing.assert_allclose(y.min(1), -5, atol=2e-5)
    np.testing.assert_allclose(y.max(1), 5, atol=2e-5)
    assert np.abs(y).max() < 5 + 1e-9
    assert [t.labels["kind"] for t in bank.tasks[:3]] == list(KINDS)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: polynomials([1, 2], rng=rng(), noise=0.1), "Noise needs measured tasks"),
        (lambda: primitives(["cosh"], rng=rng()), "expected primitives of poly, sin, tanh, got 'cosh'"),
        (lambda: polynomials([], rng=rng()), "expected at least one degree"),
        (lambda: polynomials([3, -1], rng=rng()), "degree"),
    ],
)
def test_errors(act, message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()
