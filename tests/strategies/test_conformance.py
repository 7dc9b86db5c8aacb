"""The conformance table: a new strategy is one row, and every law is read off the row."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import operant.strategies
from operant import (
    AllOf,
    BestOf,
    Majority,
    Mixture,
    Outcomes,
    PassAt,
    Threshold,
    check_strategy,
    credit,
    estimate,
    from_function,
    parse,
)
from operant.core.checks import InputError
from operant.strategies import (
    FirstAccepted,
    FunctionStrategy,
    Graded,
    Harmonic,
    LStatistic,
    Median,
    NoisyPassAt,
    Outcome,
    Priced,
    Quorum,
    RaceTo,
    StopAtLead,
    Strategy,
    TopMean,
    TopVote,
    Verified,
    WeightedVote,
    route_of,
)
from tests import slow


@dataclass(frozen=True)
class Row:
    strategy: Strategy
    rule: slow.Rule
    scored: bool = False
    function: bool = False

    @property
    def id(self) -> str:
        return f"{self.strategy}{' by score' if self.scored else ''}"


def second_best(draw: Sequence[Outcome]) -> float:
    return sorted(o.reward for o in draw)[-2]


def first_accepted(draw: Sequence[Outcome]) -> float:
    return next((o.reward for o in draw if o.score > 0.5), draw[-1].reward)


TABLE = [
    Row(PassAt(1), slow.any_success),
    Row(PassAt(3), slow.any_success),
    Row(PassAt(16), slow.any_success),
    Row(AllOf(3), slow.all_success),
    Row(Threshold(8, 3), slow.at_least(3)),
    Row(Graded((0.0, 0.5, 0.75, 1.0)), slow.graded(0, 0.5, 0.75, 1)),
    Row(Graded((0.25, 1.0, -0.5)), slow.graded(0.25, 1, -0.5)),
    Row(Verified(5, 0.125, 0.25), slow.verified(0.125, 0.25)),
    Row(Verified(4, 0.25, 0.5, "fail"), slow.verified(0.25, 0.5, fail=True)),
    Row(NoisyPassAt(3, 0.125, 0.25), slow.noisy(0.125, 0.25)),
    Row(TopMean(5, 2), slow.ranked(0, 0, 0, 0.5, 0.5), scored=True),
    Row(Median(4), slow.ranked(0, 0.5, 0.5, 0)),
    Row(Median(5), slow.ranked(0, 0, 1, 0, 0), scored=True),
    Row(LStatistic((0.5, 0.25, -0.75)), slow.ranked(0.5, 0.25, -0.75), scored=True),
    Row(BestOf(4), slow.best),
    Row(BestOf(4), slow.best, scored=True),
    *[Row(Majority(n), slow.vote) for n in (1, 4, 5, 8)],
    *[Row(Majority(n, "fail"), slow.vote_or_fail) for n in (1, 4, 5, 8)],
    Row(
        Mixture({PassAt(1): 0.25, PassAt(3): 0.75}),
        slow.mixture((0.25, 1, slow.any_success), (0.75, 3, slow.any_success)),
    ),
    Row(
        Mixture({Majority(4): 0.5, BestOf(3): 0.5}),
        slow.mixture((0.5, 4, slow.vote), (0.5, 3, slow.best)),
        scored=True,
    ),
    Row(Harmonic(PassAt(3)), slow.mixture(*[(float(Fraction(6, 11 * n)), n, slow.any_success) for n in (1, 2, 3)])),
    Row(Quorum(4, 3), slow.quorum(3)),
    Row(Quorum(5, 2, 0.5), slow.quorum(2, 0.5)),
    Row(Quorum(6, 3, 0.25, "fail"), slow.quorum(3, 0.25, fail=True)),
    Row(WeightedVote(4, 2), slow.weighted_vote(2), scored=True),
    Row(WeightedVote(5, 10), slow.weighted_vote(10), scored=True),
    Row(TopVote(5, 3), slow.vote_of_top(3), scored=True),
    Row(TopVote(6, 2), slow.vote_of_top(2), scored=True),
    Row(TopVote(4, 4), slow.vote_of_top(4), scored=True),
    Row(RaceTo(5, 2), slow.race(2)[0]),
    Row(RaceTo(6, 3, "fail"), slow.race_or_fail(3)[0]),
    Row(StopAtLead(6, 2), slow.lead(2)[0]),
    Row(FirstAccepted(4, 0.5), slow.first_above(0.5)[0], scored=True),
    Row(FirstAccepted(4, 0.25, "fail"), slow.first_above(0.25, fail=True)[0]),
    Row(Priced(RaceTo(5, 2), 0.01), slow.priced(slow.race(2), 0.01)),
    Row(Priced(Majority(4), 0.05), slow.priced((slow.vote, lambda draw: Fraction(len(draw))), 0.05)),
    Row(from_function(3, second_best), slow.second_best, function=True),
    Row(
        from_function(3, first_accepted, ordered=True),
        slow.first_accepted,
        scored=True,
        function=True,
    ),
]
SYMMETRIC = [row for row in TABLE if row.strategy.traits.symmetric]
every_row = pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
symmetric_rows = pytest.mark.parametrize("row", SYMMETRIC, ids=[row.id for row in SYMMETRIC])


def concrete(base: type[Strategy]) -> Iterator[type[Strategy]]:
    for cls in base.__subclasses__():
        yield from concrete(cls)
        if not inspect.isabstract(cls) and cls.__module__.startswith("operant.") and not cls.__name__.startswith("_"):
            yield cls


def test_every_strategy_has_a_row_a_form_and_a_name_that_is_exported() -> None:
    for module in pkgutil.walk_packages(operant.strategies.__path__, "operant.strategies."):
        importlib.import_module(module.name)
    known = set(concrete(Strategy))
    assert not [c.__name__ for c in known - {type(row.strategy) for row in TABLE}], "needs a row in TABLE"
    assert not [c.__name__ for c in known if c.__name__ not in operant.strategies.__all__], "not in operant.strategies"
    formless = {c for c in known if not c.__dict__.get("form")} - {FunctionStrategy}
    assert not [c.__name__ for c in formless], "needs a form, by which its string is written and read"


@every_row
def test_only_votes_need_answers(row: Row) -> None:
    s = row.strategy
    blind = Outcomes(torch.zeros(1, s.n), score=torch.zeros(1, s.n) if row.scored else None)
    if s.traits.answers:
        with pytest.raises(InputError, match="votes over answer classes"):
            s.value(blind)
    elif not row.function:
        assert s.value(blind).shape == (1,)


def sample(row: Row, m: int, *, batch: int = 6, seed: int = 0) -> Outcomes:
    """Prompts from hard to easy; rewards that differ within a class, unparsable answers, tied scores."""
    g = torch.Generator().manual_seed(seed)
    answer = torch.randint(-1, 4, (batch, m), generator=g)
    levels = torch.tensor([-0.5, 0.0, 0.25, 1.0], dtype=torch.float64)
    reward = levels[torch.randint(0, len(levels), (batch, m), generator=g)]
    if row.strategy.traits.binary:
        ease = torch.linspace(0.02, 0.7, batch)[:, None]
        reward = (torch.rand(batch, m, generator=g) < ease).double()
    score = torch.randint(0, 3, (batch, m), generator=g).double() / 2 if row.scored else None
    return Outcomes(reward, answer, score)


def rollouts(o: Outcomes) -> list[list[slow.Rollout]]:
    assert o.answer is not None
    columns = (o.reward.tolist(), o.answer.tolist(), o.selector.tolist())
    return [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def close(got: Tensor, want: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@every_row
def test_value_is_what_the_rule_says(row: Row) -> None:
    o = sample(row, row.strategy.n, batch=40)
    got = row.strategy.value(o)
    close(got, torch.tensor([float(row.rule(draw)) for draw in rollouts(o)], dtype=torch.float64))


@every_row
def test_value_depends_on_the_order_exactly_where_declared(row: Row) -> None:
    o = sample(row, row.strategy.n, batch=40)
    turned = row.strategy.value(o.map(lambda x: x.flip(-1)))
    same = torch.allclose(turned, row.strategy.value(o))
    assert same == row.strategy.traits.symmetric


@every_row
def test_classes_may_be_renumbered(row: Row) -> None:
    o = sample(row, row.strategy.n + 1)
    assert o.answer is not None
    names = torch.tensor([700, 3, 10**12, 0, -1])  # old class -> new name; -1 indexes the last entry
    renamed = Outcomes(o.reward, names[o.answer], o.score)
    close(estimate(row.strategy, renamed).value, estimate(row.strategy, o).value)
    close(credit(row.strategy, renamed), credit(row.strategy, o))


@symmetric_rows
def test_estimate_is_the_mean_over_all_subsets(row: Row) -> None:
    o = sample(row, row.strategy.n + 2)
    want = [float(slow.u(row.rule, z, row.strategy.n)) for z in rollouts(o)]
    close(estimate(row.strategy, o).value, torch.tensor(want, dtype=torch.float64))


@symmetric_rows
def test_estimate_at_m_equal_n_is_the_value(row: Row) -> None:
    o = sample(row, row.strategy.n)
    result = estimate(row.strategy, o)
    close(result.value, row.strategy.value(o))
    assert bool(result.stderr.isnan().all())


@symmetric_rows
def test_credit_is_what_leaving_one_out_changes(row: Row) -> None:
    o = sample(row, row.strategy.n + 2, batch=4, seed=1)
    for got, z in zip(credit(row.strategy, o), rollouts(o), strict=True):
        by_definition = slow.credit(row.rule, z, row.strategy.n)
        assert by_definition == slow.credit_in_out(row.rule, z, row.strategy.n)
        close(got, torch.tensor([float(w) for w in by_definition], dtype=torch.float64))


@every_row
def test_credit_sums_to_zero(row: Row) -> None:
    w = credit(row.strategy, sample(row, row.strategy.n + 3, batch=20, seed=2))
    assert w.abs().max() > 1e-3
    close(w.sum(-1), torch.zeros(20, dtype=torch.float64), 1e-12)


@every_row
def test_identical_rollouts_earn_no_credit(row: Row) -> None:
    o = sample(row, 1, batch=10).map(lambda x: x.expand(-1, row.strategy.n + 3).contiguous())
    close(credit(row.strategy, o), torch.zeros_like(o.reward), 1e-12)


@every_row
def test_nothing_right_is_worth_zero_and_not_minus_zero(row: Row) -> None:
    o = sample(row, row.strategy.n + 3, batch=3)
    value = estimate(row.strategy, Outcomes(torch.zeros_like(o.reward), o.answer, o.score)).value
    assert not (value.signbit() & (value == 0)).any(), value


def small_policy(row: Row) -> tuple[list[Fraction], list[slow.Rollout]]:
    """Right, wrong, unparsable and half right, as many kinds as a full enumeration affords."""
    kinds = [(1.0, 0, 1.0), (0.0, 1, 1.0 if row.scored else 0.0), (0.0, -1, 0.0), (1.0, 2, 0.5)]
    pi = [Fraction(2, 10), Fraction(4, 10), Fraction(3, 10), Fraction(1, 10)]
    size = 4 if row.strategy.n <= 5 else 3 if row.strategy.n <= 8 else 2
    return [p / sum(pi[:size]) for p in pi[:size]], kinds[:size]


def autograd_slope(pi: list[Fraction], kinds: list[slow.Rollout], row: Row) -> Tensor:
    """dJ/dtheta by reverse mode through the sum over all sequences, pi = softmax(theta)."""
    theta = torch.tensor([float(p) for p in pi], dtype=torch.float64).log().requires_grad_()
    terms = list(slow.sequences(kinds, row.strategy.n, row.rule))
    draws = torch.tensor([draw for draw, _ in terms])
    v = torch.tensor([float(worth) for _, worth in terms], dtype=torch.float64)
    j = (theta.log_softmax(0)[draws].sum(-1).exp() * v).sum()
    return torch.autograd.grad(j, theta)[0]


@symmetric_rows
def test_estimate_and_credit_are_unbiased(row: Row) -> None:
    pi, kinds = small_policy(row)
    j, slope = slow.j_and_slope(pi, kinds, row.rule, row.strategy.n)
    wanted = torch.tensor([float(x) for x in slope], dtype=torch.float64)
    close(autograd_slope(pi, kinds, row), wanted)

    probability, members = zip(*slow.groups(pi, row.strategy.n + 2), strict=True)
    group = torch.tensor(members)  # (G, M)
    mass = torch.tensor([float(p) for p in probability], dtype=torch.float64)
    reward, answer, score = (torch.tensor(x) for x in zip(*kinds, strict=True))
    o = Outcomes(reward.double()[group], answer[group], score.double()[group] if row.scored else None)
    assert float((mass * estimate(row.strategy, o).value).sum()) == pytest.approx(float(j), abs=1e-12)

    grad_log_pi = torch.eye(len(kinds)).double()[group] - torch.tensor([float(p) for p in pi]).double()
    got = (mass[:, None, None] * credit(row.strategy, o)[..., None] * grad_log_pi).sum((0, 1))
    close(got, wanted, 1e-12 if row.strategy.n < 16 else 1e-10)


@every_row
def test_more_reward_is_never_worth_less(row: Row) -> None:
    o = sample(row, row.strategy.n + 2, batch=8, seed=3)
    before = estimate(row.strategy, o).value
    gain = []
    for i in range(o.m):
        reward = o.reward.clone()
        reward[:, i] = 1.0
        gain.append(estimate(row.strategy, Outcomes(reward, o.answer, o.score)).value - before)
    assert (torch.stack(gain).min() > -1e-12) == row.strategy.traits.monotone
    assert torch.stack(gain).max() > 1e-3


@every_row
def test_float32_agrees_with_float64(row: Row) -> None:
    o = sample(row, row.strategy.n + 3)
    single = o.map(lambda x: x.float() if x.is_floating_point() else x)
    for function in (lambda x: estimate(row.strategy, x).value, lambda x: credit(row.strategy, x)):
        assert function(single).dtype == torch.float32
        close(function(single).double(), function(o), 2e-6)


@every_row
def test_batch_dimensions_are_free(row: Row) -> None:
    flat = sample(row, row.strategy.n + 2)
    deep = flat.map(lambda x: x.reshape(2, 3, -1))
    assert estimate(row.strategy, deep).value.shape == (2, 3)
    one = flat.map(lambda x: x[0])
    close(credit(row.strategy, deep).reshape(6, -1), credit(row.strategy, flat))
    close(estimate(row.strategy, deep).stderr.reshape(6), estimate(row.strategy, flat).stderr)
    close(estimate(row.strategy, one).value, estimate(row.strategy, flat).value[0])
    close(credit(row.strategy, one), credit(row.strategy, flat)[0])


@every_row
def test_a_strategy_is_a_value(row: Row) -> None:
    s = row.strategy
    again = pickle.loads(pickle.dumps(s))
    assert again == s and hash(again) == hash(s) and len({s, again, PassAt(99)}) == 2
    with pytest.raises(AttributeError):
        s.n = 2
    if not row.function:
        assert parse(str(s)) == s


@every_row
def test_the_laws_hold_by_our_own_checker(row: Row) -> None:
    s = row.strategy
    expected = {"relabeling", "credit sums to 0", "float32", "batch"}
    expected |= set() if row.function else {"string"}
    expected |= {"order"} if s.traits.symmetric else set()
    expected |= {"reward is worth having"} if s.traits.monotone else set()
    expected |= {"value is a reward"} if s.traits.selects else set()
    expected |= {"estimate is unbiased", "credit is unbiased"} if s.traits.symmetric or not row.function else set()
    expected |= {"cost"} if type(s).cost is not Strategy.cost else set()
    assert set(check_strategy(s)) == expected


@every_row
def test_declared_routes(row: Row) -> None:
    route = "closed form" if not row.function else "types" if row.strategy.traits.symmetric else "monte carlo"
    assert route_of(row.strategy, sample(row, row.strategy.n + 2)) == route


ONE = [PassAt(1), AllOf(1), Threshold(1, 1), BestOf(1), Majority(1), Majority(1, "fail"), parse("mix(pass@1:1.0)")]


@pytest.mark.parametrize("s", ONE, ids=str)
def test_one_sample_earns_its_reward(s: Strategy) -> None:
    reward = torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]])
    o = Outcomes(reward, torch.tensor([[4, 4, 1, 0, 2]]))
    assert estimate(s, o).value.item() == pytest.approx(0.6)
    close(credit(s, o), (reward - 0.6) / 4, 1e-6)  # U - U without i = (r - mean) / (M - 1)


def test_identities_between_strategies() -> None:
    o = sample(Row(PassAt(5), slow.any_success), 9, batch=30)
    for same in (BestOf(5), Threshold(5, 1), Mixture({PassAt(5): 1.0})):
        close(estimate(same, o).value, estimate(PassAt(5), o).value)
        close(credit(same, o), credit(PassAt(5), o))
    close(estimate(Threshold(5, 5), o).value, estimate(AllOf(5), o).value)
    close(credit(Threshold(5, 5), o), credit(AllOf(5), o))
    majority = Outcomes(o.reward, o.reward.long())  # two classes, an odd budget: majority = threshold
    close(estimate(Majority(5), majority).value, estimate(Threshold(5, 3), majority).value)


def test_best_of_two_after_best_of_three_is_best_of_six() -> None:
    o = sample(Row(BestOf(6), slow.best), 8, batch=3)

    def best_of_two_after_best_of_three(draw: slow.Draw) -> Fraction:
        halves = [(set(a), set(range(6)) - set(a)) for a in slow.combinations(range(6), 3)]
        return slow.mean(
            [max(slow.best([draw[i] for i in half]) for half in pair) for pair in halves]
        )  # the reward is the score, so the value of a half is what the next stage ranks

    want = [float(slow.u(best_of_two_after_best_of_three, z, 6)) for z in rollouts(o)]
    close(estimate(BestOf(6), o).value, torch.tensor(want, dtype=torch.float64))
    nested = from_function(6, lambda draw: max(max(x.reward for x in draw[i : i + 3]) for i in (0, 3)))
    close(estimate(nested, o).value, estimate(BestOf(6), o).value)
    close(credit(nested, o), credit(BestOf(6), o))
