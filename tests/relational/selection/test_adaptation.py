"""What a context says of operators, against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from operant.relational.operators.base import Context, by_unique_name
from operant.relational.operators.baselines import ContextMean, Nearest
from operant.relational.operators.gp import TaskGP
from operant.relational.selection.adaptation import ContextEvidence, FittedOperators, loo_rmse, rms
from tests.relational.selection.cases import bank_of, target


def test_evidence_is_that_of_each_operator_and_can_be_restricted() -> None:
    bank = bank_of()
    operators = FittedOperators.of(by_unique_name([ContextMean(), Nearest(), TaskGP()]), bank)
    assert operators.plain == {"context mean", "nearest task", TaskGP().name} and operators.alone == {"context mean"}
    context = target(bank, 2.3)
    adapted, notes = operators.adapt(context)
    assert set(adapted) == {"context mean", "nearest task"} and set(notes) == {TaskGP().name}  # no parameters
    query = np.linspace(-1, 1, 7)[:, None]
    found = ContextEvidence.of(adapted, context, query)
    for name, a in adapted.items():
        assert found.loo_rmse[name] == loo_rmse(a, context)
        assert found.predictive_sd[name] == rms(a.predict(query)[1])
    assert found.points == 5 and set(found.of_operators(["context mean"]).loo_rmse) == {"context mean"}
    mute = ContextEvidence({"a": 0.1, "b": float("nan")}, {"a": 1.0, "b": 1.0}, 5).known()
    assert set(mute.loo_rmse) == {"a"} and set(mute.predictive_sd) == {"a", "b"}


def test_loo_rmse_is_the_root_mean_square_leave_one_out_error() -> None:
    bank = bank_of()
    context = target(bank, 2.3)
    adapted = ContextMean().fit(bank).adapt(context)
    assert loo_rmse(adapted, context) == pytest.approx(np.sqrt(np.mean((adapted.left_out()[0] - context.y) ** 2)))
    single = Context(context.x[:1], context.y[:1])
    assert np.isnan(loo_rmse(ContextMean().fit(bank).adapt(single), single))
