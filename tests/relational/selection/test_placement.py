"""Where the points of a target lie on a task that is not known there, against a search over all moves."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operant.relational import Extrapolator, TaskBank
from operant.relational.selection.placement import _bank_is_dense, place
from tests.relational.selection.cases import bank_of

FEW = ["shift * scale * xshift * xscale", "shift * scale", "shift", "span", "polynomial"]

interval = st.tuples(st.integers(-40, 40), st.integers(1, 32)).map(lambda t: np.array([[t[0]], [t[0] + t[1]]]) / 8)


@given(known=interval, context=interval, query=interval)
def test_the_box_lies_on_the_task_and_moves_no_further_than_it_must(known, context, query) -> None:
    move = place(known, context, query)
    low, high = known[0, 0], known[1, 0]
    inside = all(low <= x <= high for x in context[:, 0])
    if not move.moved:
        every = np.concatenate([context, query])[:, 0]
        assert (inside and any(low <= x <= high for x in query[:, 0])) or (low <= every.min() and every.max() <= high)
        return
    every = np.concatenate([context, query])[:, 0]
    there = move(every[:, None])[:, 0]
    assert low - 1e-9 <= there.min() and there.max() <= high + 1e-9
    assert move.scale[0] == pytest.approx(min(1.0, (high - low) / np.ptp(every)))
    if move.scale[0] == 1:  # by trying every shift on a grid
        shifts = np.linspace(-20, 20, 4001)
        fits = (every.min() + shifts >= low - 1e-9) & (every.max() + shifts <= high + 1e-9)
        if fits.any():
            assert abs(move.shift[0]) <= np.abs(shifts[fits]).min() + 1e-9


def test_each_input_moves_on_its_own() -> None:
    known = np.array([[0.0, 0.0], [1.0, 1.0]])
    move = place(known, np.array([[0.2, 1.2], [0.4, 1.4]]), np.array([[0.9, 1.3]]))
    assert move.scale.tolist() == [1, 1]
    assert move.shift == pytest.approx([0, -0.4])
    flat = np.array([[0.0, 0.5], [1.0, 0.5]])
    assert not place(flat, np.array([[0.2, 1.2], [0.4, 1.4]]), np.array([[0.9, 1.3]])).moved


def staggered(rng: np.random.Generator) -> tuple[TaskBank, tuple[np.ndarray, np.ndarray]]:
    """Lines y = 1 - x + p / 4 with noise, known on intervals that do not reach the target's context at -2 to -1."""
    bank = TaskBank.from_arrays(
        [
            (x := np.sort(rng.uniform(0.2 * i, 0.2 * i + 1.5, 9)), 1 - x + i / 4 + 0.1 * rng.standard_normal(9))
            for i in range(9)
        ],
        params=np.arange(9.0),
    )
    x = np.array([-2.0, -1.6, -1.0])
    return bank, (x, 1 - x + 9 / 4 + 0.1 * rng.standard_normal(3))


def test_a_context_that_no_outer_task_covers_is_backtested_where_they_are_known() -> None:
    """Before, nothing was backtested, and what fitted three points by chance took all the weight."""
    query = np.linspace(-0.8, 1.0, 10)
    bank, (x, y) = staggered(np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = Extrapolator(FEW).fit(bank).adapt(x, y, params=[9.0], query=query)
    found = target.choice_.backtest
    assert found is not None and found.moved.all() and found.seen.any(1).all()
    assert "took the nearest points" in target.applicability().text
    assert np.sqrt(np.mean((target.predict(query) - (1 - query + 9 / 4)) ** 2)) < 0.5  # the queries span 1.8


def test_without_a_backtest_the_applicability_says_so_and_factors_do_not_fit_by_chance() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 8)
    bank = TaskBank.from_arrays([(x, np.exp(-k * x)) for k in (1.0, 2.0)], params=[1.0, 2.0])
    at = np.array([0.1, 0.4, 0.6])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = Extrapolator(FEW).fit(bank).adapt(at, np.exp(-3 * at) + 0.05 * rng.standard_normal(3), params=[3.0])
    assert target.choice_.backtest is None
    assert target.applicability().text.startswith("Nothing") and "not calibrated" in target.applicability().text
    assert max(target.choice_.weights.values()) < 0.95


def test_dense_banks() -> None:
    bank = bank_of()
    assert not _bank_is_dense(bank, 4)
    fine = TaskBank.from_arrays([(np.arange(30), np.arange(30.0) * k) for k in range(3)])
    assert _bank_is_dense(fine, 10) and not _bank_is_dense(fine, 11)
    anywhere = TaskBank.from_callables(lambda p, x: p * x.T, [0.0, 1.0], params=[1.0, 2.0])
    assert _bank_is_dense(anywhere, 10**6)
