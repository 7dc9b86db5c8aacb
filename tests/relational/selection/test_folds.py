"""The direction in which a target lies, seen from its bank."""

from __future__ import annotations

import numpy as np

from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Context
from operant.relational.selection.folds import toward
from tests.relational.selection.cases import bank_of, target


def test_the_direction_by_order_parameters_or_values() -> None:
    bank = bank_of(orders=True)
    by_order = toward(bank, target(bank, 2.3, labels={"order": 9}, params=np.array([2.3])))
    assert by_order.name == "order" and by_order.along is not None
    assert by_order.along.tolist() == [i // 4 for i in range(24)]

    up = toward(bank, target(bank, 2.3, params=np.array([2.3])))
    down = toward(bank, target(bank, 0.8, params=np.array([0.8])))
    assert up.along is not None and down.along is not None and up.name != down.name
    assert np.argsort(up.along).tolist() == list(range(24)) == np.argsort(-down.along).tolist()

    x = np.linspace(0, 1, 5)[:, None]
    lines = TaskBank.from_arrays([(x, k * x) for k in (3.0, 1.0, 2.0, 4.0)])
    for slope, order in ((9.0, [1, 2, 0, 3]), (-9.0, [3, 0, 2, 1])):
        values = toward(lines, Context(x[1:3], slope * x[1:3]))
        assert values.along is not None and values.name.startswith("values")
        assert np.argsort(values.along).tolist() == order


def test_a_target_in_the_middle_has_no_direction() -> None:
    bank = bank_of()
    inside = toward(bank, target(bank, 1.5, params=np.array([1.5])))
    assert inside.name == "inside" and inside.along is None
    flat = TaskBank.from_arrays([([0, 1, 2], [1, 1, 1])] * 4)
    assert toward(flat, Context(np.zeros((2, 1)), np.zeros((2, 1)))).name == "nowhere"


def test_neighboring_targets_share_a_direction() -> None:
    bank = bank_of()
    names = {toward(bank, target(bank, w)).name for w in (2.3, 2.301, 2.302)}
    assert len(names) == 1
