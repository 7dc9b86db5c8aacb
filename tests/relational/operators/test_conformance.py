"""The conformance table of the operators: a new operator is one row, and every law is read off the row."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from operant.core.checks import ParseError
from operant.relational.bank.curves import Array
from operant.relational.bank.primitives import polynomials, primitives
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Adapted, CannotAdaptError, Context, RelationalOperator
from operant.relational.operators.baselines import ContextMean, Interpolation, Nearest, Polynomial
from operant.relational.operators.compose import Compose
from operant.relational.operators.extend import Extend
from operant.relational.operators.gp import ContextGP, TaskGP
from operant.relational.operators.learned.bilinear import Bilinear
from operant.relational.operators.learned.psi import Psi
from operant.relational.operators.pca import BankPCA
from operant.relational.operators.registry import candidates, is_named, kinds, operator_names, parse_operator
from operant.relational.operators.span import Span
from operant.relational.operators.warp.operator import FORMS, Warp
from operant.relational.transforms import Scale, Shift, XShift

GRID = np.linspace(-1, 1, 21)[:, None]
PARAMS = np.random.default_rng(0).uniform([0.5, -1, -1], [1.5, 1, 1], (9, 3))
PLANE = np.random.default_rng(1).uniform(-1, 1, (25, 2))


def wave(p: Array, x: Array) -> Array:
    """(F, Q, 1) a sin 3x + b cos 3x + c."""
    z = 3 * x[:, 0]
    return (p[:, :1] * np.sin(z) + p[:, 1:2] * np.cos(z) + p[:, 2:])[..., None]


def waves() -> TaskBank:
    return TaskBank.from_arrays([(GRID, v) for v in wave(PARAMS, GRID)], params=PARAMS)


def surfaces() -> TaskBank:
    """Two inputs, two outputs."""
    values = [(PLANE, np.column_stack([a * PLANE[:, 0] + b, a - c * PLANE[:, 0] * PLANE[:, 1]])) for a, b, c in PARAMS]
    return TaskBank.from_arrays(values, params=PARAMS)


def orders() -> TaskBank:
    return polynomials([1, 2, 3] * 4, rng=np.random.default_rng(0))


def functions() -> TaskBank:
    return primitives(["poly", "sin", "tanh"] * 2, rng=np.random.default_rng(3))


@dataclass(frozen=True)
class Row:
    """One operator.

    Args:
        operator: quick settings.
        exact: (Q, D) -> (Q, C) a target that it reaches exactly; None where no family is exact.
        bank: in original units.
        least: context points that it needs.
        explains: whether it has decompositions.
        several: whether it takes several inputs and outputs.
        drawn: why another order of the same tasks gives another answer; "" where it does not.
    """

    operator: RelationalOperator
    exact: Callable[[Array], Array] | None
    bank: Callable[[], TaskBank] = waves
    least: int = 1
    explains: bool = True
    several: bool = True
    drawn: str = ""


def unseen(x: Array) -> Array:
    return wave(np.array([[2.0, 1.5, -2.0]]), x)[0]


def relatives(x: Array, s: Array, b: Array, t: Array) -> Array:
    """(F, Q, 1) s g(x + b) + t of one curve g."""
    z = x[:, 0] + b[:, None]
    return (s[:, None] * (np.sin(3 * z) + z**2) + t[:, None])[..., None]


def stretched() -> TaskBank:
    a, _, c = PARAMS.T
    return TaskBank.from_arrays([(GRID, v) for v in relatives(GRID, a, 0 * a, c)], params=PARAMS)


def slide(p: Array, x: Array) -> Array:
    return relatives(x, np.ones(len(p)), p[:, 1], p[:, 2])


def slid() -> TaskBank:
    return TaskBank.from_callables(slide, GRID, params=PARAMS)


def a_relative(*factors: float) -> Callable[[Array], Array]:
    return lambda x: relatives(x, *np.array(factors)[:, None])[0]


def nested(x: Array) -> Array:
    f = functions()
    return f.curve(1)(f.curve(2)(x))


POINTS = "the points that the kernel is learned from are drawn by position"
PAIRS = "the pairs that the network is trained on are drawn by position"
ROWS = [
    Row(ContextMean(), lambda x: np.full((len(x), 1), 3.0), explains=False),
    Row(Nearest(), lambda x: wave(PARAMS[4:5], x)[0]),
    Row(Interpolation(), lambda x: 2 * x - 1, explains=False),
    Row(Polynomial(), lambda x: x**2 - x, explains=False),
    Row(Polynomial(degree=2), lambda x: x**2 - x, explains=False, least=4),
    Row(ContextGP(tasks=4, points=8, periodic=False), None, explains=False, drawn=POINTS),
    Row(TaskGP(learn=40, keep=60, restarts=0), None, explains=False, drawn=POINTS),
    Row(BankPCA(), unseen),
    Row(Span(), unseen),
    Row(Warp(Shift() * Scale()), a_relative(2, 0, -1), bank=stretched),
    Row(Warp(Shift() * XShift()), a_relative(1, 0.3, -1), bank=slid),
    Row(Warp(Shift() * Scale(), follow=True), a_relative(1.8, 0, 0.3), bank=stretched),
    Row(Extend(), lambda x: 1e-2 * x**4 - x, bank=orders),
    Row(
        Compose(library=6, starts=24, rounds=1, folds=2),
        nested,
        bank=functions,
        least=4,
        several=False,
        drawn="the functions of a slot are drawn by position",
    ),
    Row(Psi(steps=3, members=2, width=8, batch=8), None, drawn=PAIRS),
    Row(Bilinear(steps=3, rank=2, width=8, batch=8), None, drawn=PAIRS),
]
ALL = pytest.mark.parametrize("row", ROWS, ids=lambda r: repr(r.operator))


def scaled(bank: TaskBank) -> TaskBank:
    return bank.scaled(bank.scaling)


def context(bank: TaskBank, target: Callable[[Array], Array], points: int = 9) -> tuple[Context, Array, Array]:
    """A context in scaled units, scaled query points, and the scaled truth there."""
    assert bank.units is not None
    grid = bank.units.x_out(bank.grid())
    x = grid[np.linspace(0, len(grid) - 1, points).astype(int)]
    params = np.array([1.6, 0.5, 0.2]) if bank.param_names else None
    labels = {"order": 4} if "order" in bank.tasks[0].labels else {}
    s = bank.units
    return Context(s.x_in(x), s.y_in(target(x)), params, labels), s.x_in(grid), s.y_in(target(grid))


def adapted(row: Row, bank: TaskBank) -> tuple[Adapted, Array, Array]:
    given, query, truth = context(bank, row.exact or unseen)
    return row.operator.fit(bank).adapt(given), query, truth


@ALL
def test_predictions_are_finite_and_exact_where_the_family_is(row: Row) -> None:
    found, query, truth = adapted(row, scaled(row.bank()))
    mean, sd = found.predict(query)
    assert mean.shape == sd.shape == truth.shape
    assert np.isfinite(mean).all() and np.isfinite(sd).all() and (sd >= 0).all()
    assert found.covered(query).shape == (len(query),)
    assert found.sample(query, 2, np.random.default_rng(0)).shape == (2, *truth.shape)
    if row.exact is not None:
        np.testing.assert_allclose(mean, truth, atol=2e-3)
    left, left_sd = found.left_out()
    assert left.shape == left_sd.shape == (9, truth.shape[1])


@ALL
def test_it_explains_what_it_predicts(row: Row) -> None:
    bank = scaled(row.bank())
    found = adapted(row, bank)[0].decompositions
    assert bool(found) == row.explains
    for d in found:
        assert str(d.transformation) and np.isfinite(d.residual) and d.residual >= 0
        anchors = d.anchor if isinstance(d.anchor, tuple) else (d.anchor,)
        assert all(a is None or a in bank.keys for a in anchors)
    assert not found or sum(d.weight for d in found) == pytest.approx(1, abs=0.02)
    assert [d.weight for d in found] == sorted((d.weight for d in found), reverse=True)


@ALL
def test_the_order_of_the_tasks_does_not_matter_or_is_said_to(row: Row) -> None:
    bank = scaled(row.bank())
    turned = bank.select(range(len(bank))[::-1])
    a, b = (adapted(row, tasks)[0].predict(bank.grid())[0] for tasks in (bank, turned))
    if not row.drawn:
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.isfinite(b).all()


@ALL
def test_several_inputs_and_outputs(row: Row) -> None:
    bank = scaled(surfaces())
    if row.operator.needs == "labels":
        bank = replace(bank, tasks=tuple(replace(t, labels={"order": 1 + i % 2}) for i, t in enumerate(bank.tasks)))
    if not row.several:
        pytest.raises(CannotAdaptError, row.operator.fit, bank)
        return
    given = Context(bank.tasks[0].x[:9], bank.tasks[0].y[:9] + 0.1, PARAMS[0] + 0.1)
    mean, sd = row.operator.fit(bank).adapt(given).predict(bank.tasks[0].x)
    assert mean.shape == sd.shape == (25, 2) and np.isfinite(mean).all() and np.isfinite(sd).all()


@ALL
def test_a_value_that_can_be_stored_and_copied(row: Row) -> None:
    bank = scaled(row.bank())
    assert copy.deepcopy(row.operator) == row.operator == pickle.loads(pickle.dumps(row.operator))
    assert hash(replace(row.operator)) == hash(row.operator)
    given, query, _ = context(bank, row.exact or unseen)
    fitted = row.operator.fit(bank)
    want = fitted.adapt(given).predict(query)
    for again in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(again.adapt(given).predict(query), want)


@ALL
def test_too_few_points_are_refused(row: Row) -> None:
    bank = scaled(row.bank())
    fitted, target = row.operator.fit(bank), row.exact or unseen
    assert np.isfinite(fitted.adapt(context(bank, target, row.least)[0]).predict(bank.grid())[0]).all()
    if row.least > 1:
        pytest.raises(CannotAdaptError, fitted.adapt, context(bank, target, row.least - 1)[0])


@ALL
def test_what_it_needs_and_lacks_is_refused(row: Row) -> None:
    bank = waves()
    bare = scaled(TaskBank.from_arrays([(t.x, t.y) for t in bank.tasks]))
    if row.operator.needs != "curves":
        pytest.raises(CannotAdaptError, row.operator.fit, bare)
    elif row.several:
        row.operator.fit(bare)


@pytest.mark.parametrize("name", operator_names())
def test_names_are_read_back(name: str) -> None:
    assert parse_operator(name).name == name and is_named(parse_operator(name))
    assert type(parse_operator(name)) is kinds()[name]


def operators_of_the_source() -> set[type[RelationalOperator]]:
    """Every class of operant that can be made."""
    found, todo = set[type[RelationalOperator]](), [RelationalOperator]
    while todo:
        todo += (new := todo.pop().__subclasses__())
        found |= {c for c in new if not inspect.isabstract(c) and c.__module__.startswith("operant.")}
    return found


def test_every_operator_is_registered_and_has_a_row_and_a_line_in_the_docs() -> None:
    registered = kinds()
    missing = operators_of_the_source() - set(registered.values())
    assert not missing, f"decorate with @register: {missing}"
    without = set(registered.values()) - {type(row.operator) for row in ROWS}
    assert not without, f"a row of tests/relational/operators/test_conformance.py is missing for {without}"
    lines = table()
    assert not (gone := set(operator_names()) - set(lines)), f"docs/extrapolation.md has no line for {gone}"


def table() -> dict[str, str]:
    """Name -> whether it is in auto, from the table of operators in docs/extrapolation.md."""
    text = (Path(__file__).parents[3] / "docs/extrapolation.md").read_text(encoding="utf-8")
    rows = text.split("| name | what it can express | in `auto` |\n|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return {name: auto for names, _, auto in cells for name in re.findall(r"`([^`]+)`", names)}


def test_the_docs_say_which_operators_auto_tries() -> None:
    bank = TaskBank.from_arrays([(t.x, t.y) for t in waves().tasks], params=PARAMS, labels=[{"order": 1}] * 9)
    tried = {op.name for op in candidates(bank, params=True)}
    said = {name: auto for name, auto in table().items() if auto not in ("", "by name")}
    assert set(said) | {f"{n} by parameters" for n, auto in said.items() if "also by parameters" in auto} == tried
    assert [op.name for op in candidates(bank, params=False) if isinstance(op, Warp)] == [str(f) for f in FORMS]
    for name in table():
        parse_operator(name)
    pytest.raises(ParseError, parse_operator, "Warp")
