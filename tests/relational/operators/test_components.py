"""Components of a bank: against the covariance of its curves."""

from __future__ import annotations

import numpy as np
import pytest

from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.components import Components
from tests.relational.operators.test_span import bank_of


@pytest.mark.parametrize("measured", [False, True])
def test_components_are_those_of_the_bank(measured: bool) -> None:
    bank = bank_of(outputs=2, measured=measured)
    found = Components(bank, 50)
    mean, phi = found(bank.grid())
    curves = bank.values(bank.grid()).reshape(len(bank), -1)
    assert mean.ravel() == pytest.approx(curves.mean(0))
    v = phi.reshape(curves.shape[1], -1)
    assert v @ v.T == pytest.approx(np.cov(curves.T, bias=True), abs=1e-7)
    square = v.T @ v
    assert square == pytest.approx(np.diag(np.diag(square)), abs=1e-6)
    assert (np.diff(np.diag(square)) <= 1e-9).all()
    assert Components(bank, 3).count == 3 and not found.flat


def test_a_bank_of_one_function_is_flat() -> None:
    x = np.linspace(0, 1, 5)
    found = Components(TaskBank.from_arrays([(x, x)] * 3), 4)
    assert found.flat and found.count == 1
    mean, phi = found(x[:, None])
    assert mean[:, 0] == pytest.approx(x) and np.abs(phi).max() < 1e-12
