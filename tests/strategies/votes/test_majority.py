"""The vote: exact plurality with rivals and ties, against enumeration, closed forms and simulation."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, prod
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operant import Majority, Outcomes, credit, curve, estimate
from operant.core.checks import BudgetError, InputError
from operant.strategies import Quorum
from operant.strategies.votes import ballots
from operant.strategies.votes.ballots import Ballots, Counts
from tests import slow

Ties = Literal["random", "fail"]
RULES = {"random": slow.vote, "fail": slow.vote_or_fail}
both_ties = pytest.mark.parametrize("ties", ["random", "fail"])


def outcomes(rollouts: list[tuple[float, int]]) -> Outcomes:
    reward, answer = zip(*rollouts, strict=True)
    return Outcomes(torch.tensor(reward, dtype=torch.float64), torch.tensor(answer))


def slow_rollouts(rollouts: list[tuple[float, int]]) -> list[slow.Rollout]:
    return [(reward, answer, reward) for reward, answer in rollouts]


def from_counts(right: int, *wrong: int, invalid: int = 0) -> Outcomes:
    sizes = [right, *wrong, invalid]
    label = torch.tensor([*range(len(wrong) + 1), -1]).repeat_interleave(torch.tensor(sizes))
    return Outcomes((label == 0).double(), label)


def plurality(
    own: torch.Tensor,
    rivals: torch.Tensor,
    invalid: torch.Tensor,
    budgets: list[int],
    ties: Ties,
    *,
    least: int = 1,
    most: int | None = None,
) -> torch.Tensor:
    """P(a class wins with ``least`` to ``most`` votes), (R, budgets), from its votes and those of the others."""
    rows = torch.cat([own[:, None], rivals, invalid[:, None]], 1)
    label = torch.tensor([*range(rows.shape[1] - 1), -1])
    answer = torch.stack([label.repeat_interleave(row) for row in rows])
    counts = Counts(Ballots(answer, (answer == 0).double()), budgets)
    counts.plurality(ties, least, most)
    return counts.value


def test_random_ties_are_worth_what_first_seen_is() -> None:
    tables = [[0, 0, 1, 1, 2], [0, 1, -1, -1, -1], [-1] * 4, [0, 1, 2, 3, 4], [3, 3, 3], [0, -1, 0, 1, 1]]
    for answers in tables:
        draw = [(1.0 if a == 0 else 0.25 * (a == 1), a, 0.0) for a in answers]
        assert slow.vote(draw) == slow.vote_first_seen(draw)


@both_ties
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_estimate_and_credit_are_the_enumeration(ties: Ties, data: st.DataObject) -> None:
    rollout = st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.integers(-1, 4))
    group = data.draw(st.lists(rollout, min_size=2, max_size=8))
    n = data.draw(st.integers(1, len(group) - 1))
    s, z = Majority(n, ties), slow_rollouts(group)
    assert estimate(s, outcomes(group)).value.item() == pytest.approx(float(slow.u(RULES[ties], z, n)), abs=1e-12)
    want = [float(w) for w in slow.credit(RULES[ties], z, n)]
    assert credit(s, outcomes(group)).tolist() == pytest.approx(want, abs=1e-12)


@both_ties
@pytest.mark.parametrize(
    "group",
    [
        [(1.0, 0)] * 6,
        [(1.0, -1)] * 6,
        [(0.0, 2)] * 6,
        [(float(a == 0), a) for a in range(6)],
        [(1.0, 0), (1.0, 0), (0.0, 1), (0.0, 1), (0.0, 2), (0.0, 2)],
        [(1.0, 0), (-1.0, 0), (0.0, 1), (0.0, 1), (0.0, -1)],
        [(1.0, 0), (1.0, 3), (0.5, 3), (0.0, 1), (0.25, 0), (0.0, -1)],
    ],
    ids=[
        "one class",
        "all unparsable, though rewarded",
        "one wrong class",
        "all tied at one",
        "all tied at two",
        "rewards of a class that cancel",
        "several rewarded classes",
    ],
)
def test_edges_of_the_vote(ties: Ties, group: list[tuple[float, int]]) -> None:
    for n in range(1, len(group)):
        z = slow_rollouts(group)
        assert estimate(Majority(n, ties), outcomes(group)).value.item() == pytest.approx(
            float(slow.u(RULES[ties], z, n)), abs=1e-13
        )
        want = [float(w) for w in slow.credit(RULES[ties], z, n)]
        assert credit(Majority(n, ties), outcomes(group)).tolist() == pytest.approx(want, abs=1e-13)


@both_ties
def test_a_single_rollout(ties: Ties) -> None:
    for answer, worth in ((0, 1.0), (-1, 0.0)):
        result = estimate(Majority(1, ties), outcomes([(1.0, answer)]))
        assert result.value.item() == worth and bool(result.stderr.isnan())


@both_ties
def test_every_budget_at_once(ties: Ties) -> None:
    o = from_counts(3, 3, 1, 1, invalid=2)
    z = [(r, a, r) for r, a in zip(o.reward.tolist(), o.answer.tolist(), strict=True)]  # pyright: ignore
    want = [float(slow.u(RULES[ties], z, n)) for n in range(1, 11)]
    assert curve(Majority(1, ties), o, range(1, 11)).value.tolist() == pytest.approx(want, abs=1e-13)


@pytest.mark.parametrize("m", [900, 901], ids=["one rho for all budgets", "a rho for each"])
def test_a_curve_over_many_rollouts(m: int) -> None:
    o = from_counts(300, 280, 200, 90, invalid=m - 870)
    budgets = [1, 2, 15, 120]
    one_by_one = [estimate(Majority(n), o).value.item() for n in budgets]
    assert curve(Majority(1), o, budgets).value.tolist() == pytest.approx(one_by_one, rel=1e-9)
    assert one_by_one[0] == pytest.approx(300 / m)  # one sample: right or not


def test_probabilities_of_winning_share_out_one() -> None:
    counts = torch.tensor([7, 5, 5, 2, 1])
    rivals = torch.stack([counts[torch.arange(5) != a] for a in range(5)])
    win = plurality(counts, rivals, torch.zeros(5).long(), [1, 2, 7, 13, 20], "random")
    torch.testing.assert_close(win.sum(0), torch.ones(5, dtype=torch.float64))
    strict = plurality(counts, rivals, torch.zeros(5).long(), [1, 2, 7, 13, 20], "fail")
    assert bool((strict <= win + 1e-15).all()) and bool((strict.sum(0)[1:4] < 1).all())


def test_the_credits_of_the_design_note() -> None:
    """Correct 5, rivals 6, 2, 1, 1, 1, N = 8: the rival is pushed down, the weak ones hardly move."""
    w = credit(Majority(8), from_counts(5, 6, 2, 1, 1, 1))
    assert w[0].item() == pytest.approx(0.1265, abs=5e-5)
    assert w[5].item() == pytest.approx(-0.1063, abs=5e-5)
    assert w[11:].abs().max() < 0.01


@both_ties
def test_the_estimate_is_unbiased_for_the_population_vote(ties: Ties) -> None:
    q = [Fraction(3, 10), Fraction(3, 10), Fraction(2, 10), Fraction(2, 10)]
    kinds = [(1.0, 0, 0.0), (0.0, 1, 0.0), (0.5, 2, 0.0), (1.0, -1, 0.0)]
    want, _ = slow.j_and_slope(q, kinds, RULES[ties], 6)
    probability, members = zip(*slow.groups(q, 9), strict=True)
    group = torch.tensor(members)
    reward, answer, _ = (torch.tensor(x) for x in zip(*kinds, strict=True))
    values = estimate(Majority(6, ties), Outcomes(reward.double()[group], answer[group])).value
    got = sum(float(p) * v for p, v in zip(probability, values.tolist(), strict=True))
    assert got == pytest.approx(float(want), abs=1e-12)


def two_classes(right: int, wrong: int, n: int, tie: Fraction) -> Fraction:
    """P(right wins) by the hypergeometric distribution, in integers."""
    ways = [comb(right, k) * comb(wrong, n - k) for k in range(n + 1)]
    win = sum(w for k, w in enumerate(ways) if 2 * k > n)
    return (win + tie * sum(w for k, w in enumerate(ways) if 2 * k == n)) / Fraction(comb(right + wrong, n))


@both_ties
@pytest.mark.parametrize(
    ("right", "wrong", "n"), [(150, 150, 300), (451, 449, 64), (4, 996, 16), (480, 520, 151), (4900, 5100, 100)]
)
def test_two_classes_and_many_rollouts(ties: Ties, right: int, wrong: int, n: int) -> None:
    tie = Fraction(1, 2) if ties == "random" else Fraction(0)
    want = float(two_classes(right, wrong, n, tie))
    got = estimate(Majority(n, ties), from_counts(right, wrong).map(lambda x: x[None])).value.item()
    assert got == pytest.approx(want, rel=1e-8, abs=1e-300)
    if n < right + wrong:
        w = credit(Majority(n, ties), from_counts(right, wrong))
        assert w[0].item() == pytest.approx(want - float(two_classes(right - 1, wrong, n, tie)), abs=1e-10)
        assert w[-1].item() == pytest.approx(want - float(two_classes(right, wrong - 1, n, tie)), abs=1e-10)


@both_ties
@pytest.mark.parametrize(
    ("counts", "n"),
    [
        ((250, 240, *[30] * 12, 150), 32),
        ((3000, 2900, *[300] * 11, 800), 64),
        ((20, *[1] * 980, 0), 100),
        ((60, *[50] * 190, 440), 24),
    ],
    ids=["1,000 over 14 classes", "10,000 over 13 classes", "1,000 over 981", "10,000 over 191"],
)
def test_many_rollouts_against_simulation(ties: Ties, counts: tuple[int, ...], n: int) -> None:
    *sizes, invalid = counts
    exact = estimate(Majority(n, ties), from_counts(*sizes, invalid=invalid)).value.item()
    rng = np.random.default_rng(0)
    size = 20_000 if len(counts) < 20 else 2_000
    votes = rng.multivariate_hypergeometric(counts, n, size=size, method="marginals")[:, :-1]
    top = votes.max(1)
    leaders = (votes == top[:, None]).sum(1)
    won = (votes[:, 0] == top) * (1 / leaders if ties == "random" else leaders == 1)
    assert abs(exact - won.mean()) < 4 * won.std() / np.sqrt(len(won))


@both_ties
def test_at_points_a_vote_is_what_it_is_in_coefficients(ties: Ties, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    answer = torch.randint(-1, 6, (3, 90), generator=g)
    o = Outcomes(torch.rand(3, 90, generator=g, dtype=torch.float64), answer)
    for s in (Majority(70, ties), Quorum(70, 12, 0.5, ties), Majority(89, ties)):
        monkeypatch.setattr(ballots, "_POINTS", 64)
        points = s.estimate(o), s.credit(o)
        monkeypatch.setattr(ballots, "_POINTS", 90)
        for at_points, exact in zip(points, (s.estimate(o), s.credit(o)), strict=True):
            torch.testing.assert_close(at_points, exact, rtol=0, atol=1e-12)
            assert not torch.equal(at_points, exact)


def test_large_groups_give_finite_centred_credit() -> None:
    g = torch.Generator().manual_seed(0)
    answer = torch.randint(-1, 40, (4, 3000), generator=g)
    o = Outcomes((answer == 0).double(), answer)
    w = credit(Majority(32), o)
    assert bool(w.isfinite().all()) and w.abs().max() > 0
    torch.testing.assert_close(w.sum(-1), torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0)
    by_jackknife = estimate(Majority(32), o).value - estimate(Majority(32), o.without(7)).value
    torch.testing.assert_close(w[:, 7], by_jackknife, atol=1e-12, rtol=1e-8)


def test_a_vote_needs_answers_and_a_known_tie_rule() -> None:
    with pytest.raises(InputError, match=r"maj@3 votes over answer classes: give Outcomes\(reward, answer="):
        estimate(Majority(3), Outcomes(torch.ones(4)))
    with pytest.raises(InputError, match="ties must be 'random' or 'fail', got 'coin'"):
        Majority(3, "coin")  # pyright: ignore[reportArgumentType]


@both_ties
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_quorum_is_the_enumeration(ties: Ties, data: st.DataObject) -> None:
    rollout = st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.integers(-1, 3))
    group = data.draw(st.lists(rollout, min_size=2, max_size=7))
    n = data.draw(st.integers(1, len(group) - 1))
    k, penalty = data.draw(st.integers(1, n)), data.draw(st.sampled_from([0.0, 0.25, 2.0]))
    s, z = Quorum(n, k, penalty, ties), slow_rollouts(group)
    rule = slow.quorum(k, penalty, fail=ties == "fail")
    assert estimate(s, outcomes(group)).value.item() == pytest.approx(float(slow.u(rule, z, n)), abs=1e-12)
    want = [float(w) for w in slow.credit(rule, z, n)]
    assert credit(s, outcomes(group)).tolist() == pytest.approx(want, abs=1e-12)
    every = s.estimate_budgets(outcomes(group), range(1, len(group) + 1)).tolist()
    assert every == pytest.approx([float(slow.u(rule, z, b)) for b in range(1, len(group) + 1)], abs=1e-12)


def test_a_quorum_of_one_is_the_vote_and_what_it_refuses() -> None:
    o = from_counts(3, 3, 1, 1, invalid=2)
    torch.testing.assert_close(credit(Quorum(5, 1), o), credit(Majority(5), o))
    assert str(Quorum(16, 5)) == "quorum@16:5" and str(Quorum(16, 5, 0.5)) == "quorum@16:5:0.5"
    with pytest.raises(BudgetError, match="quorum k must be <= N = 3, got 4"):
        Quorum(3, 4)
    for penalty in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="penalty must be finite and >= 0"):
            Quorum(3, 2, penalty)


@both_ties
def test_wins_by_their_number_of_votes(ties: Ties) -> None:
    own, rivals, invalid = torch.tensor([3]), torch.tensor([[2, 1]]), torch.tensor([1])
    votes = [0, 0, 0, 1, 1, 2, -1]
    for least, most in product(range(1, 5), range(5)):

        def rule(draw: slow.Draw, least: int = least, most: int = most) -> Fraction:
            if not least <= sum(a == 0 for _, a, _ in draw) <= most:
                return Fraction(0)
            return RULES[ties](draw)

        got = plurality(own, rivals, invalid, [1, 4, 6], ties, least=least, most=most)[0]
        want = [float(slow.u(rule, [(float(a == 0), a, 0.0) for a in votes], n)) for n in (1, 4, 6)]
        assert got.tolist() == pytest.approx(want, abs=1e-13)


KINDS = [(1.0, 0, 0.0), (0.0, 1, 0.0), (0.5, 2, 0.0), (0.0, 0, 0.0), (1.0, -1, 0.0)]
Q = [Fraction(3, 10), Fraction(2, 10), Fraction(2, 10), Fraction(1, 10), Fraction(2, 10)]


def kinds() -> Outcomes:
    reward, answer, _ = zip(*KINDS, strict=True)
    return Outcomes(torch.tensor(reward).double(), torch.tensor(answer))


@pytest.mark.parametrize(
    ("s", "rule"),
    [
        (Majority(1), slow.vote),
        (Majority(5), slow.vote),
        (Majority(4, "fail"), slow.vote_or_fail),
        (Quorum(5, 3), slow.quorum(3)),
        (Quorum(5, 2, 0.5), slow.quorum(2, 0.5)),
        (Quorum(4, 2, 0.5, "fail"), slow.quorum(2, 0.5, fail=True)),
    ],
    ids=slow.label,
)
def test_the_population_vote_and_its_slope_are_the_sum_over_sequences(s: Majority | Quorum, rule: slow.Rule) -> None:
    j, given_one = Fraction(0), [Fraction(0)] * len(Q)
    for draw, v in slow.sequences(KINDS, s.n, rule):
        j += prod(Q[k] for k in draw) * v
        given_one[draw[0]] += prod(Q[k] for k in draw[1:]) * v  # E[V | one draw is b]
    log_q = torch.tensor([float(q) for q in Q], dtype=torch.float64).log().requires_grad_()
    value = s.population(log_q, kinds())
    value.backward()
    assert log_q.grad is not None
    assert value.item() == pytest.approx(float(j), abs=1e-14)
    want = [float(s.n * q * v) for q, v in zip(Q, given_one, strict=True)]
    assert log_q.grad.tolist() == pytest.approx(want, abs=1e-13)


def test_the_population_vote_where_a_kind_never_occurs() -> None:
    log_q = torch.tensor([[0.6, 0.4, 1.0, 1.0, 1.0]], dtype=torch.float64).log()
    log_q[:, 2:] = torch.tensor([-1e4, -1e4, -800.0])
    log_q.requires_grad_()
    value = Majority(9).population(log_q, kinds())
    value.sum().backward()
    assert log_q.grad is not None and bool(log_q.grad.isfinite().all())
    right = sum(comb(9, k) * 0.6**k * 0.4 ** (9 - k) for k in range(5, 10))
    assert value.item() == pytest.approx(right, abs=1e-14)
    assert log_q.grad[0, 2:].tolist() == [0.0, 0.0, 0.0]


def test_the_population_vote_of_many_samples_and_classes() -> None:
    g = torch.Generator().manual_seed(0)
    log_q = torch.randn(8, 12, generator=g).double().log_softmax(-1).requires_grad_()
    o = Outcomes((torch.arange(12) == 3).double(), torch.arange(12))
    value = Majority(64).population(log_q, o)
    (slope,) = torch.autograd.grad(value.sum(), log_q)
    torch.testing.assert_close(slope.sum(-1), 64 * value.detach())  # Euler: a homogeneous polynomial of degree N
    rng = np.random.default_rng(0)
    for q, got in zip(log_q.detach().exp().numpy(), value.tolist(), strict=True):
        votes = rng.multinomial(64, q / q.sum(), size=20_000)
        lead = votes == votes.max(1, keepdims=True)
        won = lead[:, 3] / lead.sum(1)
        assert abs(got - won.mean()) < 4 * won.std() / 20_000**0.5 + 1e-3 * (won.std() == 0)
    two = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    even = Majority(4096).population(two, Outcomes(torch.tensor([1.0, 0.0]), torch.tensor([0, 1])))
    assert even.item() == pytest.approx(0.5, abs=1e-11)


def test_a_hopeless_population_vote_keeps_its_relative_accuracy() -> None:
    """A right answer of 1e-9 against a rival of 0.9: sums of integers by enumeration over counts, in Fractions."""
    q = [Fraction(1, 10**9), Fraction(9, 10), Fraction(1, 10) - Fraction(1, 10**9)]
    n, want = 20, Fraction(0)
    for a, b in product(range(n + 1), repeat=2):
        if a + b <= n and a >= 1 and a >= max(b, n - a - b):
            ways = comb(n, a) * comb(n - a, b)
            want += ways * q[0] ** a * q[1] ** b * q[2] ** (n - a - b) / (1 + (b == a) + (n - a - b == a))
    log_q = torch.tensor([float(x) for x in q], dtype=torch.float64).log()
    got = Majority(n).population(log_q, Outcomes(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0, 1, 2])))
    assert 0 < float(want) < 1e-40
    assert got.item() == pytest.approx(float(want), rel=1e-11)
