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


def label(x: object) -> str:
    """A parameter in the name of a test, the same in every process."""
    return getattr(x, "__name__", str(x))


def any_success(draw: Draw) -> Fraction:
    """pass@N."""
    return Fraction(any(reward > 0 for reward, _, _ in draw))


def all_success(draw: Draw) -> Fraction:
    """pass^N."""
    return Fraction(all(reward > 0 for reward, _, _ in draw))


def at_least(k: int) -> Rule:
    """threshold@N:k."""
    return lambda draw: Fraction(sum(reward > 0 for reward, _, _ in draw) >= k)


def graded(*table: float) -> Rule:
    """table(v0, v1, ...)."""
    return lambda draw: Fraction(table[sum(reward > 0 for reward, _, _ in draw)])


def verified(alpha: float, beta: float, *, fail: bool = False) -> Rule:
    """verified@N: every way in which the verifier can judge the N samples, then one of those it accepted."""

    @cache
    def of(rewards: tuple[float, ...]) -> Fraction:
        total = Fraction(0)
        for verdicts in product((True, False), repeat=len(rewards)):
            accept = [Fraction(1 - beta) if r > 0 else Fraction(alpha) for r in rewards]
            chance = prod((a if v else 1 - a for a, v in zip(accept, verdicts, strict=True)), start=Fraction(1))
            kept = [Fraction(r) for r, v in zip(rewards, verdicts, strict=True) if v]
            kept = kept or ([] if fail else [Fraction(r) for r in rewards])
            total += chance * (mean(kept) if kept else 0)
        return total

    return lambda draw: of(tuple(sorted(reward for reward, _, _ in draw)))


def noisy(alpha: float, beta: float) -> Rule:
    """noisy@N: 1 - prod (1 - (verdict - alpha) / (1 - alpha - beta))."""

    def of(draw: Draw) -> Fraction:
        gap = 1 - Fraction(alpha) - Fraction(beta)
        return 1 - prod((1 - (Fraction(reward) - Fraction(alpha)) / gap for reward, _, _ in draw), start=Fraction(1))

    return of


def ranked(*weights: float) -> Rule:
    """rank(a0, a1, ...): sort by score, ties in every order."""

    def of(draw: Draw) -> Fraction:
        orders = [order for order in permutations(draw) if is_sorted([score for _, _, score in order])]
        pays = [[Fraction(a) * Fraction(o[0]) for a, o in zip(weights, order, strict=True)] for order in orders]
        return mean([sum(x, Fraction(0)) for x in pays])

    return of


def is_sorted(values: Sequence[float]) -> bool:
    """Lowest first."""
    return list(values) == sorted(values)


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


def quorum(k: int, penalty: float = 0.0, *, fail: bool = False) -> Rule:
    """quorum@N:k: the leaders if they have k votes, a right answer worth 1, a wrong one -penalty; else 0."""

    def rule(draw: Draw) -> Fraction:
        leaders = leading(draw)
        if not leaders or sum(a == leaders[0] for _, a, _ in draw) < k or (fail and len(leaders) > 1):
            return Fraction(0)
        return mean([r - Fraction(penalty) * (1 - r) for r in (worth(draw, answer) for answer in leaders)])

    return rule


def weighted_vote(levels: int = 1) -> Rule:
    """wmaj@N: the classes with the greatest total of round(score levels)."""

    def rule(draw: Draw) -> Fraction:
        total: Counter[int] = Counter()
        for _, answer, score in draw:
            total[answer] += round(Fraction(score) * levels)
        heard = [a for a in total if a >= 0]
        return mean([worth(draw, a) for a in heard if total[a] == max(total[b] for b in heard)] or [Fraction(0)])

    return rule


def vote_of_top(k: int) -> Rule:
    """topk@N>maj: the vote of the k best, a tie at the cut broken in every possible way."""

    def rule(draw: Draw) -> Fraction:
        bar = sorted((score for _, _, score in draw), reverse=True)[k - 1]
        sure = [z for z in draw if z[2] > bar]
        tied = [z for z in draw if z[2] == bar]
        return mean([vote([*sure, *more]) for more in combinations(tied, k - len(sure))])

    return rule


def vote_of_top_in_order(k: int) -> Rule:
    """The same over all N! orders of the draw: the first of equals is kept."""
    return lambda draw: mean([vote(sorted(order, key=lambda z: -z[2])[:k]) for order in permutations(draw)])


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


def stopping_vote(decided: Callable[[list[int]], bool], at_the_end: Rule = vote) -> tuple[Rule, Rule]:
    """Stop after the first sample at which the sorted vote counts are decided: what it earns, and how many it draws."""

    def drawn(draw: Draw) -> int | None:
        counts = [sorted(Counter(a for _, a, _ in draw[:t] if a >= 0).values()) for t in range(1, len(draw) + 1)]
        return next((t for t, count in enumerate(counts, 1) if count and decided(count)), None)

    def earned(draw: Draw) -> Fraction:
        t = drawn(draw)
        return at_the_end(draw) if t is None else vote(draw[:t])

    return earned, lambda draw: Fraction(drawn(draw) or len(draw))


def race(k: int) -> tuple[Rule, Rule]:
    """race@N:k and its draws."""
    return stopping_vote(lambda counts: counts[-1] == k)


def race_or_fail(k: int) -> tuple[Rule, Rule]:
    """race@N:k:fail and its draws."""
    return stopping_vote(lambda counts: counts[-1] == k, lambda draw: Fraction(0))


def lead(d: int) -> tuple[Rule, Rule]:
    """lead@N:d and its draws."""
    return stopping_vote(lambda counts: counts[-1] - ([0, *counts])[-2] == d)


def first_above(accept: float, *, fail: bool = False) -> tuple[Rule, Rule]:
    """first@N:accept and its draws; where none is accepted, the mean of the N, or nothing."""

    def earned(draw: Draw) -> Fraction:
        rewards = [Fraction(reward) for reward, _, _ in draw]
        accepted = [r for r, (_, _, score) in zip(rewards, draw, strict=True) if score >= accept]
        return accepted[0] if accepted else Fraction(0) if fail else mean(rewards)

    def drawn(draw: Draw) -> Fraction:
        return Fraction(next((t for t, (_, _, score) in enumerate(draw, 1) if score >= accept), len(draw)))

    return earned, drawn


def priced(rules: tuple[Rule, Rule], price: float) -> Rule:
    """What a rule earns, less the price of its draws."""
    earned, drawn = rules
    return lambda draw: earned(draw) - Fraction(price) * drawn(draw)


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


def credit(rule: Rule, rollouts: Draw, n: int, average: Callable[[Rule, Draw, int], Fraction] = u) -> list[Fraction]:
    """U(z) - U(z without i) for every i; ``average`` is :func:`u_ordered` for a rule that minds the order."""
    whole = average(rule, rollouts, n)
    return [whole - average(rule, [*rollouts[:i], *rollouts[i + 1 :]], n) for i in range(len(rollouts))]


def credit_in_out(rule: Rule, rollouts: Draw, n: int) -> list[Fraction]:
    """(N/M) (mean over the subsets with i - mean over the subsets without i) for every i."""
    m = len(rollouts)
    subsets = [(set(s), rule([rollouts[i] for i in s])) for s in combinations(range(m), n)]
    inside = [mean([v for s, v in subsets if i in s]) for i in range(m)]
    outside = [mean([v for s, v in subsets if i not in s]) for i in range(m)]
    return [Fraction(n, m) * (a - b) for a, b in zip(inside, outside, strict=True)]


def sequences(kinds: Draw, n: int, rule: Rule, *, ordered: bool = False) -> Iterator[tuple[tuple[int, ...], Fraction]]:
    """Every sequence of n outcomes of a policy over ``kinds``, as indices, with its worth by the rule."""
    worth_of = cache(lambda draw: rule([kinds[k] for k in draw]))
    for draw in product(range(len(kinds)), repeat=n):
        yield draw, worth_of(draw if ordered else tuple(sorted(draw)))


def j_and_slope(
    pi: Sequence[Fraction], kinds: Draw, rule: Rule, n: int, *, ordered: bool = False
) -> tuple[Fraction, list[Fraction]]:
    """J and dJ/dtheta of pi = softmax(theta), by the score-function sum over all sequences."""
    j, slope = Fraction(0), [Fraction(0)] * len(kinds)
    tally: Counter[tuple[int, ...]] = Counter()
    for draw, v in sequences(kinds, n, rule, ordered=ordered):
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
