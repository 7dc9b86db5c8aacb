"""The laws that every strategy obeys, for authors of their own: :func:`check_strategy`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement, product

import torch
from torch import Tensor

from operant.core.checks import OperantError
from operant.core.rng import torch_generator
from operant.strategies.base import Strategy
from operant.strategies.outcomes import Outcomes
from operant.strategies.parse import parse
from operant.strategies.routes import estimate, exact_credit, route_of

_REWARD = [1.0, 0.0, 0.0]
# A policy over three outcomes: the right answer, a wrong one, and one that does not parse.
_ANSWER = [0, 1, -1]
_PI = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
# Largest budget at which every sequence of an ordered strategy is enumerated: 3^9 of them.
_LONGEST = 9


class LawError(OperantError):
    """A strategy that breaks a law it must obey."""


def check_strategy(s: Strategy, *, seed: int = 0) -> list[str]:
    """Run the laws on ``s`` and return their names.

    The string parses back, where the class has a form. Order and relabeling change nothing. The value is the reward of
    a sample or 0. The estimate is unbiased, by exact expectation over a small policy. The credit sums to 0 and is
    unbiased, against the score function over the exact finite sum. More reward is never worth less. The cost lies
    between 0 and N, and its estimate is unbiased. float32 agrees with float64, and batch dimensions broadcast.

    What the ``traits`` exclude (symmetric, monotone, selects) is left out. An ordered strategy is checked for bias
    where it has a closed form and N <= 9.

    Raises:
        LawError: naming every law that fails, with the numbers.

    >>> from operant import PassAt
    >>> check_strategy(PassAt(3))[0]
    'string'
    """
    failures, passed = [], []
    for name, law in _laws(s, seed):
        try:
            problem = law()
        except OperantError:
            raise
        except Exception as error:  # a user's value function may fail in any way: report it with the law
            problem = f"{type(error).__name__}: {error}"
        (failures if problem else passed).append(f"{name}: {problem}" if problem else name)
    if failures:
        raise LawError(f"{s} breaks {len(failures)} law(s):\n  " + "\n  ".join(failures))
    return passed


def _laws(s: Strategy, seed: int) -> Iterator[tuple[str, Callable[[], str]]]:
    o = _random_outcomes(s, s.n, seed)
    if _has_string(s):
        yield "string", lambda: "" if parse(str(s)) == s else f"{str(s)!r} is read as {parse(str(s))!r}"
    if s.traits.symmetric:
        yield "order", lambda: _order(s, o)
    yield "relabeling", lambda: _same("value", s.value(o), s.value(_relabeled(o)))
    if s.traits.selects:
        yield "value is a reward", lambda: _in_range(s, o)
    if s.traits.monotone:
        yield "reward is worth having", lambda: _monotone(s, o)
    # Two rollouts more than N: a jackknife can leave one out, and enumeration stays small.
    more = _random_outcomes(s, s.n + 2, seed)
    if s.traits.symmetric or (route_of(s, more) == "closed form" and s.n <= _LONGEST):
        yield "estimate is unbiased", lambda: _unbiased_estimate(s)
        yield "credit is unbiased", lambda: _unbiased_credit(s)
    if type(s).cost is not Strategy.cost:
        yield "cost", lambda: _cost(s, o)
    yield "credit sums to 0", lambda: _same("sum", exact_credit(s, more).sum(-1), torch.zeros(8), 1e-9)
    single = more.map(lambda x: x.float() if x.is_floating_point() else x)
    yield "float32", lambda: _same("credit", exact_credit(s, single).double(), exact_credit(s, more), 1e-5)
    worth, batch = (lambda x: estimate(s, x).value), more
    if not s.traits.symmetric:  # its route, Monte Carlo, draws anew for every prompt
        worth, batch = s.value, o
    twice = batch.map(lambda x: torch.stack([x, x]))
    yield "batch", lambda: _same("value", worth(twice)[1], worth(batch))


def _has_string(s: Strategy) -> bool:
    """Whether its class, and that of each strategy in it, has a form of its own."""
    return "form" in type(s).__dict__ and all(map(_has_string, s.inner))


def _random_outcomes(s: Strategy, m: int, seed: int) -> Outcomes:
    """(8, m), float64: right with probability 1/2, else one of two wrong classes or none."""
    answer = torch.randint(-1, 5, (8, m), generator=torch_generator(seed, "check", m))
    answer = torch.where(answer > 2, 0, answer)
    reward = (answer == 0).double()
    return Outcomes(reward, answer, None if s.traits.binary else (answer.abs() <= 1).double())


def _relabeled(o: Outcomes) -> Outcomes:
    assert o.answer is not None
    # Other labels, in another order, with gaps.
    return Outcomes(o.reward, torch.where(o.answer >= 0, 7 - 3 * o.answer, -1), o.score)


def _order(s: Strategy, o: Outcomes) -> str:
    """Random draws rotated, and sorted ones turned around: these have every tie."""
    want = s.value(o)
    problems = [_same("value", s.value(o.map(lambda x, k=k: x.roll(k, -1))), want) for k in range(1, s.n)]
    for _, draw, _ in _expectation(s, s.n):
        problems.append(_same("value", s.value(draw.map(lambda x: x.flip(-1))), s.value(draw)))
    return next(filter(None, problems), "")


def _in_range(s: Strategy, o: Outcomes) -> str:
    """Between the least and the largest reward of the draw, or 0; with N = 1 one of the two exactly."""
    value, nothing = s.value(o), torch.zeros_like(o.reward[..., :1])
    could = torch.cat([o.reward, nothing], dim=-1)
    beyond = torch.maximum(could.amin(-1) - value, value - could.amax(-1))
    if s.n == 1:
        beyond = (could - value[..., None]).abs().amin(-1)
    return _same("distance from what a sample is worth", beyond.clamp(min=0), torch.zeros_like(beyond))


def _cost(s: Strategy, o: Outcomes) -> str:
    cost = s.cost(o)
    if not bool(((cost >= 0) & (cost <= s.n)).all()):
        return f"cost must lie between 0 and N = {s.n}, got {cost.min():.3g} to {cost.max():.3g}"
    parts = [(p, s.estimate_cost(x)) for p, x, _ in _expectation(s, s.n + 2)] if s.n <= _LONGEST else []
    if not parts or any(value is None for _, value in parts):
        return ""
    mean = sum((p * v for p, v in parts if v is not None), torch.zeros((), dtype=torch.float64))
    draws, probability, _ = _sequences(s.n)
    return _same("expectation of the estimated cost", mean, (probability * s.cost(draws)).sum())


def _monotone(s: Strategy, o: Outcomes) -> str:
    assert o.answer is not None
    better = Outcomes(torch.where(o.answer == 1, 1.0, o.reward), o.answer, o.score)
    worse = s.value(o) - s.value(better)
    return "" if bool((worse <= 1e-12).all()) else f"a raised reward lowers the value by {worse.max():.3g}"


def _expectation(s: Strategy, m: int) -> list[tuple[float, Outcomes, Tensor]]:
    """Every multiset of m outcomes of the small policy, with its probability and its counts."""
    terms = []
    for draw in combinations_with_replacement(range(3), m):
        kinds = torch.tensor(draw)
        count = torch.bincount(kinds, minlength=3)
        ways = math.factorial(m) / math.prod(math.factorial(int(c)) for c in count)
        o = Outcomes(torch.tensor(_REWARD, dtype=torch.float64)[kinds], torch.tensor(_ANSWER)[kinds])
        terms.append((ways * float((_PI**count).prod()), o, count.double()))
    return terms


def _sequences(n: int) -> tuple[Outcomes, Tensor, Tensor]:
    """Every sequence of n outcomes (3^n, n), with its probability (3^n,) and its counts (3^n, 3)."""
    kinds = torch.tensor(list(product(range(3), repeat=n)))
    count = torch.nn.functional.one_hot(kinds, 3).sum(-2)
    draws = Outcomes(torch.tensor(_REWARD, dtype=torch.float64)[kinds], torch.tensor(_ANSWER)[kinds])
    return draws, (_PI**count).prod(-1), count.double()


def _slope(s: Strategy) -> tuple[Tensor, Tensor]:
    """J and dJ/dtheta of the softmax policy, from the finite sum over draws of N."""
    if not s.traits.symmetric:
        draws, probability, count = _sequences(s.n)
        mass = probability * s.value(draws)
        return mass.sum(), (mass[:, None] * (count - s.n * _PI)).sum(0)
    parts = [(p * s.value(o), count) for p, o, count in _expectation(s, s.n)]
    j = sum((v for v, _ in parts), torch.zeros((), dtype=torch.float64))
    slope = sum((v * (count - s.n * _PI) for v, count in parts), torch.zeros(3, dtype=torch.float64))
    return j, slope


def _unbiased_estimate(s: Strategy) -> str:
    terms = _expectation(s, s.n + 2)
    mean = sum((p * estimate(s, o).value for p, o, _ in terms), torch.zeros((), dtype=torch.float64))
    return _same("expectation of the estimate", mean, _slope(s)[0])


def _unbiased_credit(s: Strategy) -> str:
    total = torch.zeros(3, dtype=torch.float64)
    for p, o, _ in _expectation(s, s.n + 2):
        w = exact_credit(s, o)
        kind = torch.where(o.answer == -1, 2, o.answer)  # pyright: ignore
        total += p * (torch.zeros(3, dtype=w.dtype).scatter_add_(0, kind, w) - w.sum() * _PI)
    return _same("expected credit", total, _slope(s)[1])


def _same(what: str, got: Tensor, want: Tensor, tolerance: float = 1e-9) -> str:
    error = (got - want).abs().max().item()
    return "" if error <= tolerance else f"{what} is off by {error:.3g} (tolerance {tolerance:g})"
