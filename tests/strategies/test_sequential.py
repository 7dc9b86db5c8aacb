"""Strategies that stop early: value, draws and both credits, against every order of every draw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom
from torch import Tensor

from operant import Majority, Mixture, Outcomes, PassAt, check_strategy, credit, curve, estimate, from_function, parse
from operant.core.checks import BudgetError, InputError, ParseError
from operant.strategies import FirstAccepted, Priced, RaceTo, StopAtLead, Strategy, expected_draws, route_of
from operant.strategies.sequential import Sequential
from tests import slow

Rules = tuple[slow.Rule, slow.Rule]
LEVELS = [-0.5, 0.0, 0.25, 1.0]


def strategies(n: int) -> list[tuple[Sequential, Rules]]:
    """Every sequential strategy of budget n, with the rules of what it earns and how many it draws."""
    votes = [(StopAtLead(n, d), slow.lead(d)) for d in (1, 2, 3)] + [(RaceTo(n, k), slow.race(k)) for k in (1, 2, 3, 9)]
    fails = [(RaceTo(n, k, "fail"), slow.race_or_fail(k)) for k in (1, 2, 3) if k <= n]
    firsts = [(FirstAccepted(n, a), slow.first_above(a)) for a in (0.25, 0.5, 9.0)]
    return [*votes, *fails, *firsts, (FirstAccepted(n, 0.5, "fail"), slow.first_above(0.5, fail=True))]


def outcomes(group: Sequence[slow.Rollout]) -> Outcomes:
    reward, answer, score = zip(*group, strict=True)
    exact = {"dtype": torch.float64}
    return Outcomes(torch.tensor(reward, **exact), torch.tensor(answer), torch.tensor(score, **exact))


def from_counts(right: int, *wrong: int, invalid: int = 0) -> Outcomes:
    label = torch.tensor([*range(len(wrong) + 1), -1]).repeat_interleave(torch.tensor([right, *wrong, invalid]))
    return Outcomes((label == 0).double(), label)


def close(got: Tensor, want: Sequence[Fraction] | Fraction, tolerance: float = 1e-12) -> None:
    values = [want] if isinstance(want, Fraction) else want
    assert got.reshape(-1).tolist() == pytest.approx([float(x) for x in values], abs=tolerance, rel=tolerance)


def agrees_with_enumeration(s: Sequential, rules: Rules, group: list[slow.Rollout]) -> None:
    earned, drawn = rules
    o, first = outcomes(group), group[: s.n]
    close(s.value(outcomes(first)), earned(first))
    close(s.cost(outcomes(first)), drawn(first))
    close(estimate(s, o).value, slow.u_ordered(earned, group, s.n))
    close(expected_draws(s, o), slow.u_ordered(drawn, group, s.n))
    if len(group) > s.n:
        cost = s.credit_cost(o)
        assert cost is not None
        close(cost, slow.credit(drawn, group, s.n, slow.u_ordered))
        close(credit(s, o), slow.credit(earned, group, s.n, slow.u_ordered))
        close(credit(s, o).sum() + cost.sum(), Fraction(0))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_everything_is_the_mean_over_all_ordered_draws(data: st.DataObject) -> None:
    rollout = st.tuples(st.sampled_from(LEVELS), st.integers(-1, 2), st.sampled_from([0.0, 0.25, 0.5]))
    group = data.draw(st.lists(rollout, min_size=1, max_size=6))
    n = data.draw(st.integers(1, min(len(group), 4)))
    agrees_with_enumeration(*data.draw(st.sampled_from(strategies(n))), group)


@pytest.mark.parametrize(("s", "rules"), strategies(4), ids=lambda x: str(x) if isinstance(x, Strategy) else "")
@pytest.mark.parametrize(
    "answers",
    [[0] * 6, [-1] * 6, [0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, -1, -1], [0, 1, -1, -1]],
    ids=["one class", "all unparsable", "all differ", "all tied", "mostly unparsable", "M = N"],
)
def test_edges(s: Sequential, rules: Rules, answers: list[int]) -> None:
    group = [(LEVELS[i % 4], a, (i % 3) / 4) for i, a in enumerate(answers)]
    agrees_with_enumeration(s, rules, group)


def test_longer_draws_than_the_rules_need() -> None:
    """Six draws of seven: every path of a lead that goes up and down, 5040 orders."""
    group: list[slow.Rollout] = [(float(a == 0), a, 0.0) for a in (0, 0, 0, 1, 1, 2, -1)]
    for s, (earned, drawn) in ((StopAtLead(6, 2), slow.lead(2)), (RaceTo(6, 3), slow.race(3))):
        close(estimate(s, outcomes(group)).value, slow.u_ordered(earned, group, 6))
        close(expected_draws(s, outcomes(group)), slow.u_ordered(drawn, group, 6))


@pytest.mark.parametrize("price", [0.0, 0.07])
@pytest.mark.parametrize(("s", "rules"), strategies(4), ids=lambda x: str(x) if isinstance(x, Strategy) else "")
def test_value_less_cost_is_climbed_without_bias(s: Sequential, rules: Rules, price: float) -> None:
    """E sum_i w_i grad log pi(y_i) is the slope of E V - price * E cost, over all sequences and all groups."""
    kinds = [(1.0, 0, 0.5), (0.0, 1, 0.25), (0.25, -1, 0.0), (0.5, 2, 0.0)]
    pi = [Fraction(2, 10), Fraction(4, 10), Fraction(3, 10), Fraction(1, 10)]
    rule, priced = slow.priced(rules, price), Priced(s, price)
    j, slope = slow.j_and_slope(pi, kinds, rule, s.n, ordered=True)

    theta = torch.tensor([float(p) for p in pi], dtype=torch.float64).log().requires_grad_()
    terms = list(slow.sequences(kinds, s.n, rule, ordered=True))
    worth = torch.tensor([float(v) for _, v in terms], dtype=torch.float64)
    exact = (theta.log_softmax(0)[torch.tensor([d for d, _ in terms])].sum(-1).exp() * worth).sum()
    close(torch.autograd.grad(exact, theta)[0], slope)

    def climbed(o: Outcomes, kind: Tensor, mass: Tensor) -> Tensor:
        grad_log_pi = torch.eye(4, dtype=torch.float64)[kind] - theta.detach().exp()
        return (mass[:, None, None] * credit(priced, o)[..., None] * grad_log_pi).sum((0, 1))

    probability, members = zip(*slow.groups(pi, s.n + 2), strict=True)  # the jackknife, on every group
    group, mass = torch.tensor(members), torch.tensor([float(p) for p in probability], dtype=torch.float64)
    o = outcomes(kinds).map(lambda x: x[group])
    close((mass * estimate(priced, o).value).sum(), j)
    close(climbed(o, group, mass), slope)

    draw = torch.tensor([d for d, _ in terms])  # M = N, the resampled baseline, on every sequence
    o = outcomes(kinds).map(lambda x: x[draw])
    close(climbed(o, draw, theta.detach()[draw].sum(-1).exp()), slope)


def test_a_race_to_a_majority_is_the_vote_and_costs_less() -> None:
    g = torch.Generator().manual_seed(3)
    answer = torch.randint(-1, 3, (40, 12), generator=g)
    o = Outcomes(torch.rand(40, 12, generator=g, dtype=torch.float64), answer)
    for n in (1, 4, 5, 8, 11, 12):
        race, vote = RaceTo(n, n // 2 + 1), Majority(n)
        torch.testing.assert_close(estimate(race, o).value, estimate(vote, o).value, rtol=1e-12, atol=1e-12)
        if n < 12:
            torch.testing.assert_close(credit(race, o), credit(vote, o), rtol=1e-11, atol=1e-12)
        largest = torch.stack([(answer == a).sum(-1) for a in range(3)]).amax(0)
        can_stop_early = (largest >= race.k) & (race.k < n)
        assert torch.equal(expected_draws(race, o) < n - 1e-9, can_stop_early)


def test_identities_between_strategies() -> None:
    g = torch.Generator().manual_seed(4)
    answer = torch.randint(-1, 3, (30, 9), generator=g)
    o = Outcomes((answer == 0).double(), answer)

    def same(a: Strategy, b: Strategy, *, draws: bool = True) -> None:
        torch.testing.assert_close(estimate(a, o).value, estimate(b, o).value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(credit(a, o), credit(b, o), rtol=1e-11, atol=1e-12)
        if draws:
            torch.testing.assert_close(expected_draws(a, o), expected_draws(b, o), rtol=1e-12, atol=1e-12)

    same(RaceTo(6, 1), StopAtLead(6, 1))  # the first answer that can be read
    same(RaceTo(6, 7), Majority(6))  # nobody can win early
    same(StopAtLead(6, 7), Majority(6))
    same(FirstAccepted(6), PassAt(6), draws=False)  # the verdict is the reward
    same(FirstAccepted(6), FirstAccepted(6, 1.0, "fail"))
    same(RaceTo(6, 2, "fail"), Priced(RaceTo(6, 2, "fail"), 0.0))
    same(Majority(1), StopAtLead(1, 1))


def test_draws_by_hand() -> None:
    one_of_four = Outcomes(torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    assert expected_draws(FirstAccepted(4), one_of_four).item() == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert expected_draws(RaceTo(9, 3), from_counts(10)).item() == 3
    assert expected_draws(StopAtLead(9, 3), from_counts(5, invalid=5)).item() > 5
    assert expected_draws(RaceTo(9, 3), from_counts(0, invalid=10)).item() == pytest.approx(9)
    assert expected_draws(Majority(7), from_counts(8)).item() == 7


@pytest.mark.parametrize(("m", "own", "k"), [(60, 35, 8), (3000, 1550, 400)], ids=["one scale", "two scales"])
def test_a_race_of_two_is_a_negative_hypergeometric(m: int, own: int, k: int) -> None:
    """The race goes on to 2k-1 draws in thought: whoever has k of them has won it."""
    s, o = RaceTo(2 * k - 1, k, "fail"), from_counts(own, m - own)
    assert estimate(s, o).value.item() == pytest.approx(hypergeom.sf(k - 1, m, own, 2 * k - 1), rel=1e-9)
    n = np.arange(2 * k - 1)
    undecided = hypergeom.cdf(k - 1, m, own, n) - hypergeom.cdf(n - k, m, own, n)
    assert expected_draws(s, o).item() == pytest.approx(undecided.sum(), rel=1e-9)


@pytest.mark.parametrize("name", ["race@16:5", "race@16:5:fail", "lead@16:3", "first@16", "priced(lead@16:2, 0.01)"])
def test_ten_thousand_rollouts_are_finite_and_quick(name: str) -> None:
    s, o = parse(name), from_counts(2600, 2500, 1500, 1000, 700, 300, *[1] * 400, invalid=1000)
    start = time.process_time()
    value, weights, draws = estimate(s, o).value, credit(s, o), expected_draws(s, o)
    assert time.process_time() - start < 10  # of the processor: a busy machine is no failure
    assert weights.isfinite().all() and weights.abs().max() > 0 and abs(weights.sum()) < 1e-11 * o.m
    assert 0 < value < 1 and 1 < draws <= 16
    sampled = o.map(lambda x: x[torch.rand(4000, o.m, generator=torch.Generator().manual_seed(0)).topk(16).indices])
    for exact, simulated in ((value, s.value(sampled)), (draws, s.cost(sampled))):
        assert abs(exact - simulated.mean()) < 4 * simulated.std() / 4000**0.5


def test_beyond_its_limit_a_lead_is_simulated_and_says_so() -> None:
    o = from_counts(20, 15, invalid=5)
    assert route_of(StopAtLead(32, 3), o) == "closed form"
    assert route_of(StopAtLead(33, 3), o) == route_of(Priced(StopAtLead(33, 3), 0.01), o) == "monte carlo"
    gap = expected_draws(StopAtLead(33, 3), o) - expected_draws(StopAtLead(32, 3), o)
    assert 0 <= gap + 4 * 8 / 2048**0.5 < 1.5  # a longer budget adds at most one draw; the rest is simulation
    assert expected_draws(StopAtLead(33, 40), o).item() == 33
    assert credit(Priced(StopAtLead(33, 3), 0.01), o).sum().abs() < 1e-12
    vote = estimate(Majority(33), o).value
    assert estimate(StopAtLead(33, 40), o).value.item() == pytest.approx(vote.item(), abs=4 * 0.5 / 2048**0.5)


@dataclass(frozen=True)
class HalfWhenEasy(Strategy):
    """Symmetric, no closed form: stops at half the budget if every reward is positive."""

    n: int

    def value(self, draw: Outcomes) -> Tensor:
        return draw.reward.amin(-1)

    def cost(self, draw: Outcomes) -> Tensor:
        return torch.where((draw.reward > 0).all(-1), self.n // 2, self.n).to(draw.reward)


def test_price_and_draws_of_a_strategy_of_ones_own() -> None:
    s = HalfWhenEasy(4)
    group: list[slow.Rollout] = [(r, 0, r) for r in (1.0, 0.25, 1.0, 1.0, 0.0, 1.0)]
    rules: Rules = (
        lambda draw: Fraction(min(r for r, _, _ in draw)),
        lambda draw: Fraction(2 if all(r > 0 for r, _, _ in draw) else 4),
    )
    priced, rule, o = Priced(s, 0.1), slow.priced(rules, 0.1), outcomes(group)
    close(expected_draws(s, o), slow.u(rules[1], group, 4))
    close(estimate(priced, o).value, slow.u(rule, group, 4))
    close(credit(priced, o), slow.credit(rule, group, 4))
    assert expected_draws(from_function(3, lambda draw: draw[0].reward, ordered=True), o).item() == 3
    check_strategy(Priced(RaceTo(4, 2), 0.1))


@dataclass(frozen=True)
class MeanOfAny(HalfWhenEasy):
    """A closed form of both, and no credit: the routes take the jackknife."""

    def estimate(self, outcomes: Outcomes) -> Tensor:
        return outcomes.reward.mean(-1)

    def estimate_cost(self, outcomes: Outcomes) -> Tensor:
        return outcomes.reward.square().mean(-1)


def test_price_of_a_strategy_with_closed_forms_and_no_credit() -> None:
    r = torch.tensor([1.0, 0.25, 0.0, 0.5], dtype=torch.float64)
    want = [(r - 0.1 * r**2).mean() - (r - 0.1 * r**2)[[j for j in range(4) if j != i]].mean() for i in range(4)]
    torch.testing.assert_close(credit(Priced(MeanOfAny(2), 0.1), Outcomes(r)), torch.stack(want))


def test_a_constant_cost_shifts_the_value_and_leaves_the_credit() -> None:
    o = from_counts(4, 3, 2, invalid=1)
    for s, cost in ((Majority(5), 5), (PassAt(4), 4), (Mixture({PassAt(1): 0.5, Majority(3): 0.5}), 2)):
        priced = Priced(s, 0.25)
        assert torch.equal(credit(priced, o), credit(s, o))
        assert torch.equal(estimate(priced, o).value, estimate(s, o).value - 0.25 * cost)


def test_a_curve_over_budgets_has_an_optimum_under_a_price() -> None:
    o = from_counts(8, 5, 3)
    s = Priced(RaceTo(1, 3), 0.02)
    by_hand = [estimate(Priced(RaceTo(n, 3), 0.02), o).value.item() for n in (1, 2, 4, 8, 16)]
    assert curve(s, o).value.tolist() == pytest.approx(by_hand, abs=1e-14)
    assert s.at_budget(8) == Priced(RaceTo(8, 3), 0.02)
    assert s.n == 1 and Priced(s, 0.01).at_budget(4).n == 4
    free = curve(RaceTo(1, 3), o).value - curve(s, o).value
    draws = [expected_draws(RaceTo(n, 3), o).item() for n in (1, 2, 4, 8, 16)]
    assert free.tolist() == pytest.approx([0.02 * d for d in draws], abs=1e-14)


def test_a_price_on_a_price_adds_up() -> None:
    o = from_counts(4, 3, 2)
    twice, once = Priced(Priced(RaceTo(5, 2), 0.125), 0.25), Priced(RaceTo(5, 2), 0.375)
    torch.testing.assert_close(estimate(twice, o).value, estimate(once, o).value)
    torch.testing.assert_close(credit(twice, o), credit(once, o))


def test_scores_that_are_no_verdicts_are_refused() -> None:
    o = outcomes([(1.0, 0, 0.9), (0.0, 1, 0.0), (0.0, 1, 1.0)])
    with pytest.raises(InputError, match=r"must be 0 or 1, got other values. Say which .* first@2:0.5"):
        estimate(FirstAccepted(2), o)
    with pytest.raises(InputError, match="must be 0 or 1"):
        estimate(FirstAccepted(2), Outcomes(torch.tensor([0.5, 1.0, 0.0])))
    verdicts = Outcomes(torch.tensor([0.5, 0.25, 0.0]), score=torch.tensor([True, False, False]))
    assert estimate(FirstAccepted(3), verdicts).value.item() == 0.5
    assert estimate(FirstAccepted(2, 0.9), o).value.item() == pytest.approx(1 / 2)


def test_votes_need_answers_and_budgets_rollouts() -> None:
    reward = torch.tensor([1.0, 0.0, 1.0])
    for s in (RaceTo(2, 1), StopAtLead(2, 1)):
        with pytest.raises(InputError, match="votes over answer classes"):
            estimate(s, Outcomes(reward))
    for s in (RaceTo(4, 1), StopAtLead(4, 1), FirstAccepted(4), Majority(4)):
        with pytest.raises(BudgetError, match="N = 4 needs at least 4 rollouts"):
            expected_draws(s, Outcomes(reward, torch.tensor([0, 1, 0])))


@pytest.mark.parametrize(
    "text", ["race@4:5:fail", "race@4:0", "lead@4:0", "first@0", "first@4:1e999", "priced(pass@1)"]
)
def test_strings_that_are_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


@pytest.mark.parametrize("price", [-0.1, float("nan"), float("inf")])
def test_a_price_is_finite_and_not_negative(price: float) -> None:
    with pytest.raises(InputError, match="price must be a finite number >= 0"):
        Priced(PassAt(1), price)


def test_fallbacks_are_named() -> None:
    with pytest.raises(InputError, match="fallback must be 'vote' or 'fail', got 'last'"):
        RaceTo(4, 2, "last")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="fallback must be 'random' or 'fail', got 'last'"):
        FirstAccepted(4, fallback="last")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "s"),
    [
        ("race@16:5", RaceTo(16, 5)),
        ("race@16:5:fail", RaceTo(16, 5, "fail")),
        ("lead@16:3", StopAtLead(16, 3)),
        ("first@16", FirstAccepted(16)),
        ("first@16:fail", FirstAccepted(16, None, "fail")),
        ("first@16:0.7", FirstAccepted(16, 0.7)),
        ("first@16:-1e-05:fail", FirstAccepted(16, -1e-5, "fail")),
        ("priced(race@16:5, 0.01)", Priced(RaceTo(16, 5), 0.01)),
        ("priced(mix(pass@1:0.5, lead@8:2:0.5), 1.0)", Priced(Mixture({PassAt(1): 0.5, StopAtLead(8, 2): 0.5}), 1.0)),
        ("mix(priced(pass@1, 0.5):1.0)", Mixture({Priced(PassAt(1), 0.5): 1.0})),
    ],
)
def test_strings(text: str, s: Strategy) -> None:
    assert parse(text) == s and str(s) == text


def test_the_cost_of_a_mixture_is_that_of_its_parts() -> None:
    """Credit from the parts' own forms equals leaving one out of the mixture's cost."""
    o = from_counts(4, 3, 2, invalid=1)
    mixed = Mixture({RaceTo(5, 2): 0.5, Majority(3): 0.25, StopAtLead(4, 2): 0.25})
    parts = ((0.5, RaceTo(5, 2)), (0.25, Majority(3)), (0.25, StopAtLead(4, 2)))
    torch.testing.assert_close(expected_draws(mixed, o), sum(w * expected_draws(s, o) for w, s in parts))
    without = torch.stack([expected_draws(mixed, o.without(i)) for i in range(o.m)])
    got = mixed.credit_cost(o)
    assert got is not None
    torch.testing.assert_close(got, expected_draws(mixed, o) - without, atol=1e-13, rtol=0)
    twice = Priced(Priced(mixed, 0.125), 0.25)
    torch.testing.assert_close(credit(twice, o), credit(mixed, o) - 0.375 * got)
