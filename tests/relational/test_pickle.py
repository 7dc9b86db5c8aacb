"""Fitted estimators and adapted targets go through pickle, joblib and copy, and to other threads and processes."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from operant.core.checks import InputError
from operant.relational import NotApplicableError, NotApplicableWarning
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator
from operant.relational.operators.base import Context, RelationalOperator
from operant.relational.operators.compose import Compose
from operant.relational.operators.gp import ContextGP, TaskGP
from operant.relational.operators.learned.bilinear import Bilinear
from operant.relational.operators.learned.psi import Psi
from operant.relational.operators.registry import operator_names

POINTS = np.linspace(-1, 1, 20)[:, None]
PARAMS = np.stack([np.linspace(0.2, 1, 9), np.linspace(1, 0.5, 9)], axis=1)


def wave(p: Array, x: Array) -> Array:
    return p[:, :1] * x[:, 0] + p[:, 1:2] * np.sin(4 * x[:, 0])


def surface(p: Array, x: Array) -> Array:
    return p[0] * x[:, 0] + p[1] * x[:, 1] ** 2


def banks() -> dict[str, TaskBank]:
    """One of each kind of curve: functions, shared points, points of each task's own, several inputs, orders."""
    rng = np.random.default_rng(0)
    own = [np.sort(rng.uniform(-1, 1, (15, 1)), axis=0) for _ in PARAMS]
    plane = rng.uniform(-1, 1, (25, 2))
    orders = [1, 2, 3] * 4
    return {
        "functions": TaskBank.from_callables(wave, POINTS, params=PARAMS),
        "shared": TaskBank.from_arrays([(POINTS, v) for v in wave(PARAMS, POINTS)], params=PARAMS),
        "ragged": TaskBank.from_arrays(
            [(x, wave(p[None], x)[0]) for x, p in zip(own, PARAMS, strict=True)], params=PARAMS
        ),
        "plane": TaskBank.from_arrays([(plane, surface(p, plane)) for p in PARAMS], params=PARAMS),
        "orders": TaskBank.from_arrays(
            [(POINTS, np.polynomial.Polynomial(rng.normal(size=o + 1))(POINTS)) for o in orders],
            labels=[{"order": o} for o in orders],
        ),
    }


BANKS = banks()
FORMS = ["shift * scale", "scale * xscale", "shift * scale * xshift * xscale by parameters"]
QUICK: dict[str, RelationalOperator] = {
    "GP on the context": ContextGP(tasks=4, points=8, periodic=False),
    "GP on parameters": TaskGP(learn=40, keep=60, restarts=0),
    "psi": Psi(steps=3, members=2, width=8, batch=8),
    "bilinear": Bilinear(steps=3, rank=2, width=8, batch=8),
    "compose": Compose(library=5, starts=6, rounds=1, folds=2),
}
OPERATORS: dict[str, RelationalOperator | str] = {n: n for n in (*operator_names(), *FORMS)} | QUICK
TARGET = {name: (bank.tasks[3].x[::3], 1.3 * bank.tasks[3].y[::3] + 0.1) for name, bank in BANKS.items()}
ROUND_TRIPS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda o: pickle.loads(pickle.dumps(o)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
IMPOSSIBLE = {("extend", b) for b in BANKS if b != "orders"} | {(n, "orders") for n in ("GP on parameters", FORMS[2])}
ROWS = [
    (name, bank)
    for name in OPERATORS
    for bank in (["ragged", "functions"] if name in QUICK else BANKS)  # the others cover the kinds of curves
    if (name, bank) not in IMPOSSIBLE
]


@pytest.mark.filterwarnings("ignore::operant.relational.NotApplicableWarning")
@pytest.mark.parametrize(("name", "bank"), ROWS)
def test_every_operator_survives_the_round_trip(name: str, bank: str) -> None:
    """The very same numbers from a model and from a target that were stored or copied."""
    x, y = TARGET[bank]
    params = [1.2, 0.4] if BANKS[bank].param_names else None
    model = Extrapolator(OPERATORS[name]).fit(BANKS[bank])
    target = model.adapt(x, y, params=params)
    query = BANKS[bank].tasks[0].x
    want = target.predict(query, True)
    for kind, again in ROUND_TRIPS.items():
        stored = again(target)
        assert np.array_equal(stored.predict(query, True), want), kind
        assert stored.applicable_ == target.applicable_ and repr(stored) == repr(target)
        assert np.array_equal(again(model).adapt(x, y, params=params).predict(query, True), want), kind


@pytest.mark.filterwarnings("ignore::operant.relational.NotApplicableWarning")
def test_joblib_files_and_what_is_explained(tmp_path: Path) -> None:
    model = Extrapolator(["span", "shift * scale"]).fit(BANKS["ragged"])
    target = model.adapt(*TARGET["ragged"], params=[1.2, 0.4], key="new")
    joblib.dump((model, target), tmp_path / "both.joblib")
    again, stored = joblib.load(tmp_path / "both.joblib")
    assert stored.choice_table() == target.choice_table() and stored.key == "new"
    assert np.array_equal(stored.sample(POINTS, 3), target.sample(POINTS, 3))
    assert stored.explain(POINTS)["transformation"] == target.explain(POINTS)["transformation"]
    assert again.get_params() == model.get_params()


CONTEXTS = {f"t{i}": (POINTS[i::4], 1.2 * wave(PARAMS[i : i + 1] + 0.3, POINTS[i::4])[0]) for i in range(4)}


def several(model: Extrapolator, n_jobs: int | None) -> list[Array]:
    targets = model.adapt_many(CONTEXTS, n_jobs=n_jobs)
    assert [t.key for t in targets] == list(CONTEXTS)
    return [np.array(t.predict(POINTS, True)) for t in targets]


@pytest.mark.parametrize(
    ("backend", "n_jobs"),
    [
        ("threading", 3),
        ("multiprocessing", 2),
        pytest.param("loky", 2, marks=pytest.mark.slow),
    ],
)
def test_targets_adapted_at_once_are_the_same(backend: str, n_jobs: int) -> None:
    operators = ["span", "shift * scale", "interpolation"]
    one_by_one = several(Extrapolator(operators).fit(BANKS["shared"]), 1)
    with joblib.parallel_config(backend):
        at_once = several(Extrapolator(operators).fit(BANKS["shared"]), n_jobs)
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        told = several(Extrapolator(operators).fit(BANKS["shared"]), None)
    for a, b, c in zip(one_by_one, at_once, told, strict=True):
        assert b == pytest.approx(a, rel=1e-9, abs=1e-12) and c == pytest.approx(a, rel=1e-9, abs=1e-12)


def test_a_process_warns_and_refuses_as_the_caller_does() -> None:
    """What a worker process finds out arrives: the warning once a target, the error as it is."""
    model = Extrapolator("nearest task").fit(BANKS["shared"])
    far = np.linspace(1, 20, 20)
    with joblib.parallel_config("multiprocessing"):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            targets = model.adapt_many(CONTEXTS, query=far, n_jobs=2)
        assert [t.applicable_ for t in targets] == [False] * 4
        assert sum(w.category is NotApplicableWarning for w in told) == 4
        model.set_params(on_inapplicable="raise")
        with pytest.raises(NotApplicableError, match="Set on_inapplicable"):
            model.adapt_many(CONTEXTS, query=far, n_jobs=2)


def test_networks_trained_at_once_start_from_their_own_seeds() -> None:
    """Torch's global state is shared by threads."""
    context = Context(POINTS[::3], wave(PARAMS[:1] + 0.3, POINTS[::3])[0][:, None])
    seeds = [0, 1] * 3

    def answer(seed: int) -> Array:
        return (
            Psi(steps=1, members=2, width=8, batch=4, seed=seed)
            .fit(BANKS["functions"])
            .adapt(context)
            .predict(POINTS)[0]
        )

    at_once = joblib.Parallel(n_jobs=3, backend="threading")(joblib.delayed(answer)(s) for s in seeds)
    alone = [answer(0), answer(1)]
    assert not np.array_equal(*alone)
    assert all(np.array_equal(found, alone[s]) for found, s in zip(at_once, seeds, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": [[1.0, 2.0]]}, "expected params for each of 4 targets, got 1"),
        ({"labels": [{}] * 5}, "expected labels for each of 4 targets, got 5"),
    ],
)
def test_as_many_params_as_targets(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Extrapolator("span").fit(BANKS["shared"]).adapt_many(CONTEXTS, **change)
