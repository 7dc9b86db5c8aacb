"""The choice of operators: the backtest against a direct loop, the rule on synthetic errors, the mixture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import norm

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.bank.splits import outer
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, Fitted, RelationalOperator, by_unique_name
from operant.relational.operators.baselines import ContextMean, Interpolation, Nearest, Polynomial
from operant.relational.operators.gp import TaskGP
from operant.relational.operators.pca import BankPCA
from operant.relational.operators.registry import candidates
from operant.relational.selection import backtest as backtesting
from operant.relational.selection import choose
from operant.relational.selection.backtest import (
    OUTER_TASKS,
    Backtest,
    Direction,
    Trial,
    join,
    loo_rmse,
    make_folds,
    run_backtest,
    spread_of,
    toward,
)
from operant.relational.selection.choose import (
    FURTHER,
    MISFIT,
    REFERENCES,
    TRIM,
    Calibration,
    Rule,
    biased,
    calibrate,
    choose_reference,
    flat_rule,
    further_out,
    learn_rule,
    misfit,
    mix,
    noise_level,
)
from operant.relational.selection.placement import bank_is_dense


def bank_of(tasks: int = 24, *, params: bool = True, orders: bool = False) -> TaskBank:
    w = np.linspace(1, 2, tasks)
    x = np.linspace(0, 3, 13)
    bank = TaskBank.from_arrays(
        [(x, np.sin(v * x)) for v in w],
        params=w if params else None,
        labels=[{"order": i // 4} for i in range(tasks)] if orders else None,
    )
    return bank.scaled(bank.scaling)


def target(bank: TaskBank, w: float, points: int = 5, **more) -> Context:
    assert bank.units is not None
    x = np.linspace(0, 3, 13)[:: 12 // (points - 1)][:, None]
    return Context(bank.units.x_in(x), bank.units.y_in(np.sin(w * x)), **more)


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


PLAIN: list[RelationalOperator] = [ContextMean(), Nearest(), Interpolation(), Polynomial(), BankPCA()]


def test_the_backtest_is_a_loop_over_the_outer_split() -> None:
    bank = bank_of(60)
    context = target(bank, 2.3, params=np.array([2.3]))
    query = np.linspace(-1, 1, 13)[:, None]
    direction = toward(bank, context)
    (fold,) = make_folds(bank, by_unique_name(PLAIN), direction, 1 / 3)
    found = run_backtest(fold, context, query, layout=context.x, noise=0.0, seed=0)

    split = outer(bank, share=1 / 3, end="high", along=direction.along)
    chosen = [split.test.tasks[i] for i in np.unique(np.linspace(0, 19, OUTER_TASKS).astype(int))]
    assert [t.key for t in fold.tasks.tasks] == [t.key for t in chosen]
    near = np.array([min(abs(q - c) for c in context.x[:, 0]) < 1e-9 for q in query[:, 0]])
    assert near.sum() == 5
    for op in PLAIN:
        fitted = op.fit(split.train)
        for j, task in enumerate(chosen):
            values = fold.tasks.curve(j)
            inner = Context(context.x, values(context.x), task.params)
            adapted = fitted.adapt(inner)
            wanted = values(query)
            error = np.sqrt(np.mean((adapted.predict(query)[0] - wanted)[~near] ** 2))
            trial = found.trials[op.name]
            if np.isfinite(trial.error[j]):  # the race drops hopeless ones
                assert trial.error[j] == pytest.approx(error), op.name
                assert trial.left_out[j] == pytest.approx(loo_rmse(adapted, inner), nan_ok=True)
            else:
                assert j >= backtesting.RACE[0] and error > 3 * found.trials["bank PCA"].error[j]
    assert found.truth == pytest.approx(fold.tasks.values(query))
    assert found.seen.tolist() == [(~near).tolist()] * OUTER_TASKS
    assert found.points == 5


def test_of_the_context_only_the_points_are_used() -> None:
    """Other values of the target: the same backtest."""
    bank = bank_of()
    context = target(bank, 2.3)
    shuffled = replace(context, y=np.random.default_rng(0).permutation(context.y))
    query = np.linspace(-1, 1, 13)[:, None]
    (fold, *_) = make_folds(bank, by_unique_name(PLAIN), toward(bank, context), 1 / 3)
    a, b = (run_backtest(fold, c, query, layout=c.x, noise=0.1, seed=0) for c in (context, shuffled))
    for name, trial in a.trials.items():
        assert np.array_equal(trial.mean, b.trials[name].mean, equal_nan=True)
    assert not np.array_equal(run_backtest(fold, context, query, layout=context.x, noise=0.1, seed=1).spread, a.spread)


def test_a_small_bank_is_backtested_from_every_cut() -> None:
    """Each outer task's error is the operator's, fitted to the tasks before the cut."""
    bank = bank_of(12)
    context, query = target(bank, 2.1, params=np.array([2.1])), np.linspace(-1, 1, 7)[:, None]
    direction = toward(bank, context)
    assert direction.along is not None
    folds = make_folds(bank, by_unique_name(PLAIN), direction, 1 / 3)
    assert [s.count for s in folds] == [6, 4, 3, 1]  # cuts at 6, 8, 9, 11
    for fold in folds:
        found = run_backtest(fold, context, query, layout=context.x, noise=0.0, seed=0)
        assert len(found.truth) == fold.count and not found.moved.any()
        for j in range(fold.count):
            held = bank.keys.index(fold.tasks.keys[j])
            known = bank.select(i for i in range(12) if i in fold_keys(fold))
            assert held not in fold_keys(fold)
            values = bank.curve(held)
            guess = Nearest().fit(known).adapt(Context(context.x, values(context.x))).predict(query)[0]
            error = np.sqrt(np.mean((guess - values(query))[found.seen[j]] ** 2))
            had = found.trials["nearest task"].error[j]
            assert had == pytest.approx(error) or (np.isnan(had) and j >= backtesting.RACE[0])  # the race drops it


def fold_keys(fold: backtesting.Fold) -> set[int]:
    """Keys of the tasks that its operators know."""
    adapted = fold.fitted["nearest task"].adapt(Context(np.zeros((1, 1)), np.zeros((1, 1))))
    return set(adapted._bank.keys)


def test_small_banks_are_backtested_twice() -> None:
    bank = bank_of(30)
    folds = make_folds(bank, by_unique_name(PLAIN), Direction("inside"), 1 / 3)
    context, query = target(bank, 1.5), np.linspace(-1, 1, 7)[:, None]
    each = [run_backtest(s, context, query, layout=context.x, noise=0.0, seed=0) for s in folds]
    both = join(each)
    assert [len(s.tasks) for s in folds] == [10, min(15, OUTER_TASKS)]
    assert len(both.truth) == sum(len(s.tasks) for s in folds)
    for name, trial in both.trials.items():
        parts = [r.trials[name].error if name in r.trials else np.full(len(r.truth), np.nan) for r in each]
        assert np.array_equal(trial.error, np.concatenate(parts), equal_nan=True)
    with pytest.raises(DataError, match="expected at least two known"):
        make_folds(bank_of(3), by_unique_name(PLAIN), Direction("inside"), 1 / 3)


@dataclass(frozen=True)
class _Broken(RelationalOperator):
    name = "broken"
    expresses = "nothing"

    def fit(self, bank: TaskBank) -> Fitted:
        raise CannotAdaptError("it is broken")


def test_an_operator_that_cannot_be_used_is_noted() -> None:
    bank = bank_of()
    (fold, _) = make_folds(bank, by_unique_name([*PLAIN, _Broken()]), Direction("inside"), 1 / 3)
    assert fold.notes == {"broken": "it is broken"}
    context = target(bank, 2.3, points=3)
    found = run_backtest(fold, context, np.linspace(-1, 1, 5)[:, None], layout=context.x, noise=0.0, seed=0)
    assert found.notes["broken"] == "it is broken"
    names = [op.name for op in candidates(bank, params=True)]
    assert len(set(names)) == len(names)
    without = {op.name for op in candidates(bank, params=False)}
    assert {TaskGP().name, "shift * scale by parameters"} <= set(names) - without


def trial(error: Array, left_out: Array, predictive_sd: Array | None = None) -> Trial:
    blank = np.zeros((len(error), 1, 1))
    return Trial(blank, blank, error, left_out, np.ones(len(error)) if predictive_sd is None else predictive_sd)


def sure(names) -> dict[str, float]:
    """1 for each: operators that are all as sure as the next, or whose errors are not due to noise."""
    return dict.fromkeys(names, 1.0)


def test_the_rule_finds_levels_and_slopes() -> None:
    """log e = t_j + a_k + 0.6 log r + 0.3 log s + noise, with 400 outer tasks that differ widely."""
    rng = np.random.default_rng(0)
    a, trials, hard = {"one": -1.0, "two": 0.5, "three": 2.0}, {}, rng.normal(0, 3, 400)
    for name, level in a.items():
        log_r, log_s = rng.normal(-2, 1.5, 400), rng.normal(-1, 1.5, 400)
        log_e = hard + level + 0.6 * log_r + 0.3 * log_s + 0.1 * rng.normal(size=400)
        trials[name] = trial(np.exp(log_e), np.exp(log_r), np.exp(log_s))
    rule = learn_rule(trials)
    assert rule.beta == pytest.approx(0.6, abs=0.03) and rule.gamma == pytest.approx(0.3, abs=0.02)
    assert max(rule.sd.values()) < 0.31  # how hard a task is does not blur the operators
    for name in a:
        assert rule.left_out[name] == pytest.approx(-2, abs=0.3)
    predicted = rule.predicted(dict.fromkeys(a, float(np.exp(-3))), sure(a), 10**6)
    # large errors weigh more than in the mean of the logarithm, alike for all
    assert predicted["two"] - predicted["one"] == pytest.approx(1.5, abs=0.25)
    assert predicted["three"] - predicted["two"] == pytest.approx(1.5, abs=0.25)
    other = rule.predicted({**dict.fromkeys(a, float(np.exp(-3))), "two": float(np.exp(-4))}, sure(a), 10**6)
    assert predicted["two"] - other["two"] == pytest.approx(rule.beta, abs=1e-3)
    doubtful = rule.predicted(dict.fromkeys(a, float(np.exp(-3))), {**sure(a), "two": float(np.e)}, 10**6)
    assert doubtful["two"] - predicted["two"] == pytest.approx(rule.gamma, abs=1e-3)


def test_the_rule_with_gaps() -> None:
    """A tenth of errors and leave-one-out errors is missing; dropped operators do not count."""
    rng = np.random.default_rng(3)
    a, trials, hard = {"one": -1.0, "two": 0.5, "three": 2.0}, {}, rng.normal(0, 1, 400)
    for name, level in a.items():
        log_r = rng.normal(-2, 1.5, 400)
        error, r = np.exp(hard + level + 0.6 * log_r + 0.1 * rng.normal(size=400)), np.exp(log_r)
        error[rng.uniform(size=400) < 0.1], r[rng.uniform(size=400) < 0.1] = np.nan, np.nan
        error[7] = np.nan
        trials[name] = trial(error, r)
    trials["dropped"] = trial(np.where(np.arange(400) < 4, 1e3, np.nan), np.ones(400))
    rule = learn_rule(trials)
    assert set(rule.level) == set(a)
    assert rule.beta == pytest.approx(0.6, abs=0.1)  # missing r are filled with the operator's mean
    predicted = rule.predicted(dict.fromkeys(a, 0.05), sure(a), 10**6)
    assert predicted["two"] - predicted["one"] == pytest.approx(1.5, abs=0.3)


def test_what_an_operator_cannot_express_is_worse_further_out() -> None:
    """sqrt(e^2 + 3 b^2): 1 without bias, FURTHER where there is nothing but bias, and never more."""
    error, r = np.full(6, 0.1), np.full(6, 0.1)
    noisy = {n: trial(error, r) for n in ("exact", "half", "biased", "worse")}
    clean = {n: trial(error * k, r) for n, k in (("exact", 1e-9), ("half", 0.5), ("biased", 1.0), ("worse", 2.0))}
    grown = {n: float(np.exp(further_out(biased(n, noisy, clean)))) for n in noisy}
    wanted = {"exact": 1, "half": np.sqrt(1 + (FURTHER**2 - 1) / 4), "biased": FURTHER, "worse": FURTHER}
    assert grown == pytest.approx(wanted, abs=1e-3)
    assert biased("half", noisy, None) == 1.0 == biased("half", noisy, {})
    before, after = learn_rule(noisy), learn_rule(noisy, clean)
    at = {
        n: r.predicted({"exact": 0.1, "half": 0.1, "biased": 0.1, "worse": 0.1}, sure(noisy), 9)
        for n, r in (("b", before), ("a", after))
    }
    for n in noisy:
        assert at["a"][n] - at["b"][n] == pytest.approx(np.log(grown[n] / FURTHER), abs=0.01)


def test_leave_one_out_errors_speak_of_what_is_not_noise() -> None:
    """An operator that is exact without noise is not thought better of for a lucky context; one with bias is."""
    rng = np.random.default_rng(4)
    log_r = rng.normal(-2, 1, 200)
    noisy = {n: trial(np.exp(log_r + 0.1 * rng.normal(size=200)), np.exp(log_r)) for n in ("exact", "biased")}
    clean = {"exact": trial(np.full(200, 1e-9), np.exp(log_r)), "biased": noisy["biased"]}
    rule = learn_rule(noisy, clean)
    before, after = (rule.predicted({"exact": r, "biased": r}, sure(noisy), 10**6) for r in (0.1, 0.01))
    assert before["exact"] == pytest.approx(after["exact"], abs=1e-2)
    assert before["biased"] - after["biased"] == pytest.approx(rule.beta * np.log(10), abs=1e-2)


def test_levels_are_drawn_together_where_the_outer_split_tells_little() -> None:
    rng = np.random.default_rng(1)
    spread = {}
    for tasks in (3, 300):
        trials = {str(k): trial(np.exp(rng.normal(0.1 * k, 1.0, tasks)), np.ones(tasks)) for k in range(8)}
        rule = learn_rule(trials)
        raw = [0.5 * np.mean(np.log(t.error)) + 0.25 * np.log(np.mean(t.error**2)) for t in trials.values()]
        spread[tasks] = np.std(list(rule.level.values())) / np.std(raw)
        assert max(rule.sd.values()) < np.sqrt(0.3**2 + 1.0)
    assert spread[3] < 0.7 < spread[300] < 1


def test_few_points_are_not_believed() -> None:
    rule = Rule({"a": 0.0}, {"a": 0.3}, {"a": np.log(0.1)}, sure("ab"), 0.0, 1.0, 0.0)
    near, far = (rule.predicted({"a": 1e-4}, {"a": 1.0}, n)["a"] for n in (1, 10**9))
    assert near == pytest.approx(np.log(0.1 / np.sqrt(2)), abs=1e-3)
    assert far == pytest.approx(np.log(1e-4), abs=0.01)


def test_an_operator_without_leave_one_out_errors_moves_with_the_others() -> None:
    rule = Rule({"a": 0.0, "b": -1.0}, {"a": 0.3, "b": 0.3}, {"a": np.log(0.1), "b": np.nan}, sure("ab"), 0.0, 1.0, 0.0)
    assert rule.predicted({"a": 0.3, "b": np.nan}, sure("ab"), 10**9)["b"] == pytest.approx(-1 + np.log(3), abs=1e-3)
    known = Rule(
        {"a": 0.0, "b": -1.0}, {"a": 0.3, "b": 0.3}, {"a": np.log(0.1), "b": np.log(0.5)}, sure("ab"), 0.0, 1.0, 0.0
    )
    assert known.predicted({"a": 0.3, "b": np.nan}, sure("ab"), 10**9)["b"] == pytest.approx(-1 + np.log(1.5), abs=1e-3)
    assert rule.predicted({"a": 0.3}, {"a": 1.0, "b": np.nan}, 5)["a"] < np.inf
    lost = Rule({"a": 0.0}, {"a": 0.3}, {"a": 0.0}, sure("a"), 0.0, 1.0, 0.5).predicted({"a": 0.3}, {"a": np.nan}, 5)
    assert lost == {"a": np.inf}  # an operator that cannot say how sure it is comes last


def test_weights_are_the_probability_of_the_smallest_error() -> None:
    """By quadrature: P(k smallest) = int phi(e) prod_j P(e_j > e)."""
    level, sd = {"a": 0.0, "b": 0.2, "c": 0.5, "d": 9.0}, {"a": 0.3, "b": 0.6, "c": 0.3, "d": 0.3}
    rule = Rule(level, sd, dict.fromkeys(level, np.nan), sure(level), 0.0, 1.0, 0.0)
    weights = rule.weights(dict.fromkeys(level, np.nan), sure(level), 5)
    e = np.linspace(-5, 5, 4001)
    wanted = {}
    for k in level:
        others = np.prod([norm.sf(e, level[j], sd[j]) for j in level if j != k], axis=0)
        wanted[k] = float(np.sum(norm.pdf(e, level[k], sd[k]) * others) * (e[1] - e[0]))
    assert "d" not in weights and sum(weights.values()) == pytest.approx(1)
    assert list(weights) == sorted(weights, key=lambda k: -weights[k])
    for k in "abc":
        assert weights[k] == pytest.approx(wanted[k], abs=4 * np.sqrt(0.25 / choose.DRAWS))
    assert Rule(level, sd, {}, {}, 0.0, 1.0, 0.0).weights({}, {}, 5) == {}


def test_without_a_backtest_the_context_decides() -> None:
    rule = flat_rule({"good": 0.01, "bad": 1.0, "mute": float("nan")}, 5)
    weights = rule.weights({"good": 0.01, "bad": 1.0}, {"good": 1.0, "bad": 1.0, "mute": 1.0}, 5)
    assert list(weights) == ["good"]


def test_the_mixture_is_the_trimmed_weighted_mean() -> None:
    """By slow sums over the quantile function: 1 / (1 - 2 TRIM) int_TRIM^(1 - TRIM) Q(u) du."""
    rng = np.random.default_rng(2)
    means, sds, w = rng.normal(size=(5, 4, 2)), rng.uniform(0.1, 1, (5, 4, 2)), rng.dirichlet(np.ones(5))
    middle, spread = mix(list(means), list(sds), (3 * w).tolist())
    u = TRIM + (1 - 2 * TRIM) * (np.arange(20000) + 0.5) / 20000
    for q in range(4):
        for c in range(2):
            order = np.argsort(means[:, q, c])
            wanted = means[order[np.searchsorted(np.cumsum(w[order]), u)], q, c].mean()
            assert middle[q, c] == pytest.approx(wanted, abs=1e-3)
            second = sum(w * (sds[:, q, c] ** 2 + (means[:, q, c] - middle[q, c]) ** 2))
            assert spread[q, c] == pytest.approx(np.sqrt(second))
    alone = mix([means[0]], [sds[0]], [0.3])
    assert alone[0] == pytest.approx(means[0]) and alone[1] == pytest.approx(sds[0])
    astray = [np.zeros((1, 1)), np.full((1, 1), 1e9), np.full((1, 1), 1.0)]
    assert mix(astray, [np.ones((1, 1))] * 3, [0.5, 0.2, 0.3])[0] < 1  # less than TRIM of the weight moves nothing


def test_the_factor_is_the_conformal_quantile() -> None:
    ratio = np.sort(np.random.default_rng(3).exponential(size=500))
    c = Calibration(ratio, 20, np.empty(0), np.empty(0))
    for level in (0.5, 0.9):
        share = np.mean(ratio <= c.factor(level))
        assert level * 21 / 20 <= share <= level * 21 / 20 + 1 / 250
    assert c.factor(0.99) == ratio[-1]
    nothing = Calibration(np.empty(0), 0, np.empty(0), np.empty(0))
    for level in (0.5, 0.9, 0.99):  # without a backtest, as if normal
        assert nothing.factor(level) == pytest.approx(norm.ppf(0.5 + level / 2))


def test_the_p_value_is_that_of_a_new_member() -> None:
    """Uniform for members, by simulation; small for one that stands out; unknown with few outer tasks."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(2000):
        s = rng.normal(-3, 0.8, 9)
        found.append(Calibration(np.empty(0), 8, s[:8], np.empty(0)).p_value(float(s[8])))
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) < level) == pytest.approx(level, abs=4 * np.sqrt(0.25 / 2000))
    member = Calibration(np.empty(0), 8, rng.normal(-3, 0.3, 8), np.empty(0))
    assert member.p_value(0.0) < 1e-3 and np.isnan(member.p_value(float("nan")))
    assert np.isnan(Calibration(np.empty(0), 2, np.zeros(2), np.empty(0)).p_value(0.0))


def test_the_calibration_is_the_mixture_on_each_outer_task() -> None:
    rng = np.random.default_rng(5)
    s, q = 6, 7
    truth, seen = rng.normal(size=(s, q, 1)), rng.uniform(size=(s, q)) < 0.7
    trials = {}
    for name, size in (("a", 0.1), ("b", 0.3)):
        mean = truth + size * rng.normal(size=truth.shape)
        error = np.array([np.sqrt(np.mean((mean - truth)[j][seen[j]] ** 2)) for j in range(s)])
        trials[name] = Trial(mean, np.full_like(truth, size), error, error * rng.uniform(0.8, 1.2, s), np.ones(s))
    backtest = Backtest("", truth, seen, np.ones(s), np.zeros(s, dtype=bool), trials, 5)
    rule = learn_rule(trials)
    found = calibrate(backtest, rule)
    ratios, errors, statistic = [], [], []
    for j in range(s):
        left_out = {n: float(t.left_out[j]) for n, t in trials.items()}
        w = rule.weights(left_out, sure(trials), 5)
        mean, sd = mix([trials[n].mean[j] for n in w], [trials[n].sd[j] for n in w], list(w.values()))
        gap = np.abs(mean - truth[j])[seen[j]]
        ratios += list((gap / sd[seen[j]]).ravel())
        errors.append(np.sqrt(np.mean(gap**2)))
        statistic.append(misfit(found.reference, left_out, 1.0))
    assert found.ratio == pytest.approx(sorted(ratios)) and found.tasks == s
    assert found.reference == choose_reference(trials) == {"a": 1.0}
    assert found.errors == pytest.approx(errors) and found.statistic == pytest.approx(statistic)


def test_reference_operators_use_the_bank_and_are_among_the_best() -> None:
    error, r = np.array([0.1, 0.1, 0.1]), np.ones(3)
    names = ("interpolation", "polynomial", "span", "bank PCA", "shift", "scale", "trend")
    trials = {n: trial(error * (1 + 0.1 * i), r) for i, n in enumerate(names)} | {"mute": trial(error, r * np.nan)}
    alone = frozenset(names[:2])
    three = {"span": 1 / REFERENCES, "bank PCA": 1 / REFERENCES, "shift": 1 / REFERENCES}
    assert choose_reference(trials, alone=alone) == three and set(choose_reference(trials)) == {*names[:3]}
    trials["span"] = trial(error / 9, r)
    assert choose_reference(trials, alone=alone) == {"span": 1.0}
    assert choose_reference({n: trials[n] for n in names[:2]}, alone=alone) == {}


def test_misfit_is_relative_to_the_spread() -> None:
    assert misfit({"a": 0.5, "b": 0.5}, {"a": 0.3, "b": 0.4}, 0.9) == pytest.approx(np.log(np.sqrt(0.125)))
    assert misfit({"a": 0.9, "b": 0.1}, {"a": 0.3, "b": float("nan")}, 0.9) == pytest.approx(np.log(0.3))
    assert misfit({"a": 1.0}, {"a": 1e-12}, 0.9) == pytest.approx(np.log(choose.EXPLAINED))
    assert np.isnan(misfit({"a": 1.0}, {"a": float("nan")}, 1.0))
    y = np.random.default_rng(6).normal(size=(7, 2))
    assert spread_of(y) == pytest.approx(np.sqrt(y.var(0).mean()))


def test_the_noise_level_comes_in_two_steps_a_decade() -> None:
    assert noise_level({"a": 1.0}, {"a": 0.1, "b": 0.001}, 10.0) == pytest.approx(0.1)
    assert noise_level({"a": 0.5, "b": 0.5}, {"a": 0.01, "b": 1.0}, 10.0) == pytest.approx(0.1)
    assert noise_level({"a": 1.0}, {"a": 0.9}, 0.5) == pytest.approx(10 ** (round(2 * np.log10(MISFIT * 0.5)) / 2))
    line = frozenset({"line"})
    rough, fine = {"a": 0.9, "line": 0.4}, {"a": 0.9, "line": 1e-3}
    assert noise_level({"a": 1.0}, rough, 0.5, alone=line) == pytest.approx(10**-0.5)  # no better alone
    assert noise_level({"a": 1.0}, rough, 0.5) == noise_level({"a": 1.0}, fine, 0.5, alone=line) == pytest.approx(0.1)
    assert noise_level({"a": 1.0}, {"a": 5e-4}, 1.0) == 0.0 == noise_level({}, {}, 1.0)


def test_what_an_operator_cannot_express_counts_against_a_reference() -> None:
    """Two operators alike on the noisy outer: the one that is exact without noise is the reference."""
    error, r = np.full(6, 0.1), np.full(6, 0.1)
    ties = {n: trial(error, r) for n in ("span", "shift")}
    assert set(choose_reference(ties)) == {"span", "shift"}
    exact = {"span": trial(error * 1e-9, r), "shift": trial(error, r)}
    assert choose_reference(ties, exact) == {"span": 1.0}


def test_the_gap_is_the_root_mean_square_leave_one_out_error() -> None:
    bank = bank_of()
    context = target(bank, 2.3)
    adapted = ContextMean().fit(bank).adapt(context)
    assert loo_rmse(adapted, context) == pytest.approx(np.sqrt(np.mean((adapted.left_out()[0] - context.y) ** 2)))
    single = Context(context.x[:1], context.y[:1])
    assert np.isnan(loo_rmse(ContextMean().fit(bank).adapt(single), single))


def test_dense_banks() -> None:
    bank = bank_of()
    assert not bank_is_dense(bank, 4)
    fine = TaskBank.from_arrays([(np.arange(30), np.arange(30.0) * k) for k in range(3)])
    assert bank_is_dense(fine, 10) and not bank_is_dense(fine, 11)
    anywhere = TaskBank.from_callables(lambda p, x: p * x.T, [0.0, 1.0], params=[1.0, 2.0])
    assert bank_is_dense(anywhere, 10**6)
