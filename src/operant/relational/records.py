"""Banks, anchors and decompositions as plain data, for JSON and the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from operant.relational.bank.scaling import Scaling
from operant.relational.bank.task import Task
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Decomposition
from operant.relational.transforms import Transformation


def bank_record(bank: TaskBank, scaling: Scaling, limit: int = 80) -> dict[str, Any]:
    """The bank as plain numbers, for JSON and the report; at most ``limit`` curves.

    Args:
        bank: in scaled units.
        scaling: of the bank.
        limit: evenly spread tasks are shown.
    """
    curves: list[dict[str, Any]] = []
    # A page with thousands of curves would be slow to open and show a solid band.
    for i in np.unique(np.linspace(0, len(bank) - 1, min(limit, len(bank))).astype(int)):
        t = bank.tasks[i]
        params = dict(zip(bank.param_names, t.params.tolist(), strict=True))
        curves.append({"key": str(t.key), "params": params, **_curve(t, scaling)})
    return {
        "kind": "bank",
        "tasks": len(bank),
        "points": sum(len(t.x) for t in bank.tasks),
        "x_names": list(bank.x_names),
        "y_names": list(bank.y_names),
        "param_names": list(bank.param_names),
        "curves": curves,
        "notes": list(bank.notes),
    }


def anchor_record(bank: TaskBank, scaling: Scaling, key: Any) -> dict[str, Any] | None:
    """The curve of an anchor as plain numbers; None if it is not one task of the bank."""
    if key not in bank.keys:
        return None
    return {"key": str(key), **_curve(bank.tasks[bank.keys.index(key)], scaling)}


def decomposition_record(d: Decomposition) -> dict[str, Any]:
    """A decomposition as plain numbers."""
    known = isinstance(d.transformation, Transformation)
    return {
        "anchor": None if d.anchor is None else str(d.anchor),
        "transformation": d.transformation.formula() if known else str(d.transformation),
        "parameters": {k: list(v) for k, v in d.transformation.factors if v is not None} if known else {},
        "intervals": {k: list(v) for k, v in d.intervals.items()},
        "residual": d.residual,
        "weight": d.weight,
        "operator": d.operator,
    }


def _curve(task: Task, scaling: Scaling) -> dict[str, Any]:
    """Points and values in original units, in the order of the first input."""
    order = np.argsort(task.x[:, 0])
    return {"x": scaling.x_out(task.x[order]).tolist(), "y": scaling.y_out(task.y[order]).tolist()}
