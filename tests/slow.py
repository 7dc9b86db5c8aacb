"""The second road to every number of room A: obvious, slow, exact, and without a line of operant.

A rollout is ``(reward, answer, score)``; a draw is a sequence of them; a rule maps a draw of N to its worth,
a :class:`Fraction`. Everything else here is a sum over all subsets, all orders or all sequences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations, combinations_with_replacement, permutations, product
from math import factorial, prod

Rollout = tuple[float, int, float]
Draw = Sequence[Rollout]
Rule = Callable[[Draw], Fraction]


def any_success(draw: Draw) -> Fraction:
    """pass@N."""
    return Fraction(any(reward > 0 for reward, _, _ in draw))


def all_success(draw: Draw) -> Fraction:
    """pass^N."""
    return Fraction(all(reward > 0 for reward, _, _ in draw))


def at_least(k: int) -> Rule:
    """threshold@N:k."""
    return lambda draw: Fraction(sum(reward > 0 for reward, _, _ in draw) >= k)


def best(draw: Draw) -> Fraction:
    """best@N: the mean reward of the samples with the top score."""
    top = max(score for _, _, score in draw)
    return mean([Fraction(reward) for reward, _, score in draw if score == top])


def vote(draw: Draw) -> Fraction:
    """maj@N, ties broken at random among the leading classes."""
    leaders = leading(draw)
    return mean([worth(draw, answer) for answer in leaders]) if leaders else Fraction(0)


def vote_or_fail(draw: Draw) -> Fraction:
    """maj@N:fail, a tie earns nothing."""
    leaders = leading(draw)
    return worth(draw, leaders[0]) if len(leaders) == 1 else Fraction(0)


def vote_first_seen(draw: Draw) -> Fraction:
    """maj@N when a tie goes to the class that was drawn first, averaged over all N! orders."""

    def once(order: Draw) -> Fraction:
        leaders = leading(draw)
        first = next((answer for _, answer, _ in order if answer in leaders), None)
        return Fraction(0) if first is None else worth(draw, first)

    return mean([once(order) for order in permutations(draw)])


def leading(draw: Draw) -> list[int]:
    """The classes with the most votes; unparsable answers (-1) are no class."""
    votes = Counter(answer for _, answer, _ in draw if answer >= 0)
    return [answer for answer, count in votes.items() if count == max(votes.values())]


def worth(draw: Draw, answer: int) -> Fraction:
    """Mean reward of the votes for a class."""
    return mean([Fraction(reward) for reward, a, _ in draw if a == answer])


def second_best(draw: Draw) -> Fraction:
    """A user's rule: the second-highest reward."""
    return sorted(Fraction(reward) for reward, _, _ in draw)[-2]


def first_accepted(draw: Draw) -> Fraction:
    """A user's sequential rule: the first sample that scores above 1/2, else the last."""
    return next((Fraction(reward) for reward, _, score in draw if score > 0.5), Fraction(draw[-1][0]))


def mixture(*parts: tuple[float, int, Rule]) -> Rule:
    """Weight, budget, rule: each rule on every subset of its own size."""
    return lambda draw: sum((Fraction(w) * u(rule, draw, n) for w, n, rule in parts), Fraction(0))


def mean(values: Sequence[Fraction]) -> Fraction:
    """Arithmetic mean."""
    return sum(values, Fraction(0)) / len(values)


def u(rule: Rule, rollouts: Draw, n: int) -> Fraction:
    """Mean of the rule over all N-subsets of the rollouts."""
    return mean([rule(draw) for draw in combinations(rollouts, n)])


def u_ordered(rule: Rule, rollouts: Draw, n: int) -> Fraction:
    """Mean of the rule over all ordered draws of N of the rollouts."""
    return mean([rule(draw) for draw in permutations(rollouts, n)])


def credit(rule: Rule, rollouts: Draw, n: int) -> list[Fraction]:
    """U(z) - U(z without i) for every i."""
    whole = u(rule, rollouts, n)
    return [whole - u(rule, [*rollouts[:i], *rollouts[i + 1 :]], n) for i in range(len(rollouts))]


def credit_in_out(rule: Rule, rollouts: Draw, n: int) -> list[Fraction]:
    """(N/M) (mean over the subsets with i - mean over the subsets without i) for every i."""
    m = len(rollouts)
    subsets = [(set(s), rule([rollouts[i] for i in s])) for s in combinations(range(m), n)]
    inside = [mean([v for s, v in subsets if i in s]) for i in range(m)]
    outside = [mean([v for s, v in subsets if i not in s]) for i in range(m)]
    return [Fraction(n, m) * (a - b) for a, b in zip(inside, outside, strict=True)]


def sequences(kinds: Draw, n: int, rule: Rule) -> Iterator[tuple[tuple[int, ...], Fraction]]:
    """Every sequence of n outcomes of a policy over ``kinds``, as indices, with its worth by a symmetric rule."""
    worth_of = cache(lambda draw: rule([kinds[k] for k in draw]))
    for draw in product(range(len(kinds)), repeat=n):
        yield draw, worth_of(tuple(sorted(draw)))


def j_and_slope(pi: Sequence[Fraction], kinds: Draw, rule: Rule, n: int) -> tuple[Fraction, list[Fraction]]:
    """J and dJ/dtheta of pi = softmax(theta), by the score-function sum over all sequences."""
    j, slope = Fraction(0), [Fraction(0)] * len(kinds)
    tally: Counter[tuple[int, ...]] = Counter()
    for draw, v in sequences(kinds, n, rule):
        tally[tuple(draw.count(k) for k in range(len(kinds)))] += v  # pyright: ignore[reportArgumentType]
    for count, total in tally.items():
        mass = prod(p**c for p, c in zip(pi, count, strict=True)) * Fraction(total)
        j += mass
        slope = [s + mass * (c - n * p) for s, c, p in zip(slope, count, pi, strict=True)]
    return j, slope


def groups(pi: Sequence[Fraction], m: int) -> list[tuple[Fraction, tuple[int, ...]]]:
    """Every multiset of m i.i.d. rollouts, as kinds in order, with its probability."""
    out = []
    for kinds in combinations_with_replacement(range(len(pi)), m):
        count = Counter(kinds)
        ways = factorial(m) // prod(factorial(c) for c in count.values())
        out.append((ways * prod((pi[k] ** c for k, c in count.items()), start=Fraction(1)), kinds))
    return out
