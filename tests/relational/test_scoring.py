"""scikit-learn's cross-validation over tasks against a loop by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import sklearn
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut, cross_val_score

from operant.core.checks import InputError
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator
from operant.relational.scoring import AdaptationScorer

X = np.linspace(0, 3, 9)
W = np.linspace(1, 2, 8)
OPERATORS = ["span", "shift * scale"]
pytestmark = pytest.mark.filterwarnings("ignore::operant.relational.NotApplicableWarning")


def curve(w: float) -> np.ndarray:
    return 2 + w * np.sin(1.3 * X) + 0.3 * w**2 * X


POINTS, VALUES = np.tile(X, 8)[:, None], np.concatenate([curve(w) for w in W])
VALUES = VALUES + 0.05 * np.random.default_rng(0).standard_normal(len(VALUES))
GROUPS, LOADS = np.repeat(np.arange(8), 9), np.repeat(W, 9)


@pytest.fixture
def routing() -> Iterator[None]:
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def by_hand(held: list[int], context: int, *, params: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Values and predictions of the later points of the tasks held out."""
    known = [i for i in range(8) if i not in held]
    tasks = {i: (X, VALUES[i == GROUPS]) for i in known}
    bank = TaskBank.from_arrays(tasks, params=W[known] if params else None)
    model, truth, answer = Extrapolator(OPERATORS).fit(bank), [], []
    for i in held:
        y = VALUES[i == GROUPS]
        target = model.adapt(X[:context], y[:context], params=[W[i]] if params else None, query=X[context:])
        truth.append(y[context:])
        answer.append(target.predict(X[context:]))
    return np.concatenate(truth), np.concatenate(answer)


@pytest.mark.usefixtures("routing")
def test_leave_one_task_out_is_the_loop_by_hand() -> None:
    """Half of the points of the task that is left out, 4 of 9, are its context."""
    found = cross_val_score(
        Extrapolator(OPERATORS), POINTS, VALUES, params={"groups": GROUPS}, cv=LeaveOneGroupOut(), error_score="raise"
    )
    assert found == pytest.approx([r2_score(*by_hand([i], 4)) for i in range(8)])
    assert len(set(found)) == 8 and found.min() > 0


@pytest.mark.usefixtures("routing")
def test_several_tasks_params_and_a_metric_of_ones_own() -> None:
    scorer = AdaptationScorer(context=3, metric=mean_absolute_error, greater_is_better=False)
    mixed = np.arange(72).reshape(8, 9).T.ravel()  # rows of tasks need not stand together
    found = cross_val_score(
        Extrapolator(OPERATORS),
        POINTS[mixed],
        VALUES[mixed],
        params={"groups": GROUPS[mixed], "params": LOADS[mixed]},
        cv=GroupKFold(2),
        scoring=scorer,
        error_score="raise",
    )
    folds = [sorted(set(GROUPS[mixed][test])) for _, test in GroupKFold(2).split(POINTS, VALUES, GROUPS[mixed])]
    want = [-mean_absolute_error(*by_hand([int(i) for i in held], 3, params=True)) for held in folds]
    assert found == pytest.approx(want)


@pytest.mark.usefixtures("routing")
def test_a_search_over_operators_finds_the_one_that_adapts() -> None:
    search = GridSearchCV(Extrapolator(), {"operator": ["span", "context mean"]}, cv=GroupKFold(4))
    search.fit(POINTS, VALUES, groups=GROUPS)
    assert search.best_params_ == {"operator": "span"} and search.best_score_ > 0.9
    assert search.best_estimator_.adapt(X[:4], curve(2.2)[:4]).predict(X) == pytest.approx(curve(2.2), abs=0.5)


def test_without_groups_the_rows_are_one_task_and_weights_are_refused() -> None:
    bank = TaskBank.from_arrays({i: (X, VALUES[i == GROUPS]) for i in range(7)})
    model = Extrapolator(OPERATORS).fit(bank)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(GROUPS == 7))
    assert model.score(POINTS[rows], VALUES[rows]) == pytest.approx(r2_score(*by_hand([7], 4)))
    with pytest.raises(InputError, match="sample_weight is for a single task"):
        model.score(POINTS[rows], VALUES[rows], np.ones(9))
    with pytest.raises(InputError, match="no task has a point beyond a context of 9: the longest has 9"):
        AdaptationScorer(9)(model, POINTS[rows], VALUES[rows])
    for bad in (0, -1, 2.5, 0.0):
        with pytest.raises(InputError, match="a number of points or a share below 1"):
            AdaptationScorer(bad)
    single = Extrapolator("polynomial").fit(POINTS[:9], VALUES[:9])
    assert single.score(POINTS[:9], VALUES[:9]) == pytest.approx(r2_score(VALUES[:9], single.predict(POINTS[:9])))
