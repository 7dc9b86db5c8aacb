"""The evidence that parameters' effects add up, against the contrast of cell means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context
from operant.relational.selection.applicability import _combination_p

X = np.linspace(0, 1, 5)
CELLS = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)]


def cells(rng: np.random.Generator, replicates: int, interaction: float) -> tuple[TaskBank, Context]:
    """Levels exp(1 + a + b) with plants that differ by 0.1, and a target with both effects and an interaction."""
    effect = {c: 1 + 0.5 * c[0] - 0.3 * c[1] for c in [*CELLS, (1.0, 1.0)]}
    params = [c for c in CELLS for _ in range(replicates)]
    curves = [(X, np.exp(effect[c] + 0.1 * rng.standard_normal() + X)) for c in params]
    own = np.exp(effect[1.0, 1.0] + interaction + 0.1 * rng.standard_normal() + X)
    bank = TaskBank.from_arrays(curves, params=params)
    s = bank.scaling
    return bank.scaled(s), Context(s.x_in(X[:, None]), s.y_in(own[:, None]), np.array([1.0, 1.0]))


def test_the_p_value_is_that_of_the_contrast_of_cell_means() -> None:
    bank, context = cells(np.random.default_rng(0), 4, -0.2)
    units = bank.units
    assert units is not None
    m = np.log(units.y_out(bank.values(context.x))).mean((1, 2)).reshape(3, 4)
    own = np.log(units.y_out(context.y)).mean()
    sd = np.sqrt(((m - m.mean(1, keepdims=True)) ** 2).sum() / 9)
    z = (own - (m[1].mean() + m[2].mean() - m[0].mean())) / (sd * np.sqrt(1 + 3 / 4))
    assert _combination_p(bank, context) == pytest.approx(2 * student.sf(abs(z), 9))


def test_five_of_a_hundred_are_flagged_where_effects_add_up_and_most_where_they_do_not() -> None:
    rng = np.random.default_rng(1)
    additive = np.array([_combination_p(*cells(rng, 3, 0.0)) for _ in range(400)])
    crossed = np.array([_combination_p(*cells(rng, 3, -0.6)) for _ in range(100)])
    assert abs((additive < 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)
    assert (crossed < 0.05).mean() > 0.8


def test_it_is_asked_of_new_combinations_of_known_values_only() -> None:
    bank, context = cells(np.random.default_rng(2), 3, 0.0)
    known = Context(context.x, context.y, np.array([1.0, 0.0]))
    beyond = Context(context.x, context.y, np.array([1.0, 2.0]))
    unknown = Context(context.x, context.y)
    assert all(np.isnan(_combination_p(bank, c)) for c in (known, beyond, unknown))
    single, _ = cells(np.random.default_rng(2), 1, 0.0)
    assert np.isnan(_combination_p(single, context))
