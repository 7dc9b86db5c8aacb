"""Bank PCA: exact in the span, careful with noise. What it shares with all baselines is tested with them."""

from __future__ import annotations

import numpy as np
import pytest

from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context
from operant.relational.operators.pca import BankPCA
from tests.relational.operators.test_baselines import bank_of, cubic


@pytest.mark.parametrize("kind", ["callable", "shared"])
def test_pca_is_exact_in_the_span(kind: str) -> None:
    rng = np.random.default_rng(5)
    bank = bank_of(kind, rng)
    x = np.linspace(-1, 1, 41)[[3, 8, 15, 27, 38], None] if kind == "shared" else rng.uniform(-1, 1, (5, 1))
    p = np.array([[3.0, -2.0, 4.0]])  # far outside the bank
    adapted = BankPCA().fit(bank).adapt(Context(x, cubic(p, x).T))
    q = np.linspace(-1, 1, 41)[:, None]
    mean, sd = adapted.predict(q)
    assert mean[:, 0] == pytest.approx(cubic(p, q)[0], abs=1e-5)
    assert sd.max() < 1e-3
    assert adapted.decompositions[0].residual < 1e-6


@pytest.mark.parametrize(("points", "noise", "factor"), [(8, 0.3, 0.85), (3, 0.3, 0.5)])
def test_pca_chooses_fewer_components_when_the_context_may_be_noisy(points: int, noise: float, factor: float) -> None:
    """Three points determine three components, and tell nothing of the noise."""
    rng = np.random.default_rng(6)
    bank = bank_of("callable", rng)
    x = rng.uniform(-1, 0, (points, 1))
    q = np.linspace(-1, 1, 41)[:, None]
    loss: dict[str, list[float]] = {"chosen": [], "all": []}
    for _ in range(20):
        p = rng.uniform(-1.5, 1.5, (1, 3))
        context = Context(x, cubic(p, x).T + rng.normal(0, noise, (points, 1)))
        for name, operator in (("chosen", BankPCA()), ("all", BankPCA(rank=3, ridge=0.0))):
            mean, sd = operator.fit(bank).adapt(context).predict(q)
            loss[name].append(float(np.mean((mean[:, 0] - cubic(p, q)[0]) ** 2)))
            assert (sd > 0).all()
    assert np.mean(loss["chosen"]) < factor * np.mean(loss["all"])


def test_a_bank_too_small_for_an_outer_split_still_adapts() -> None:
    x = np.linspace(0, 1, 9)
    bank = TaskBank.from_arrays([(x, x), (x, 2 * x)])
    mean, _ = BankPCA().fit(bank).adapt(Context(np.array([[0.5]]), np.array([[2.0]]))).predict(np.array([[1.0]]))
    assert mean[0, 0] == pytest.approx(4.0, rel=0.01)
