"""The laws that every strategy obeys, for authors of their own: :func:`check_strategy`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from operant.core.checks import OperantError
from operant.core.rng import torch_generator
from operant.strategies.base import Outcomes, Strategy
from operant.strategies.routes import credit, estimate

REWARD = [1.0, 0.0, 0.0]
ANSWER = [0, 1, -1]
"""A policy over three outcomes: the right answer, a wrong one, and one that does not parse."""


class LawError(OperantError):
    """A strategy that breaks a law it must obey."""


def check_strategy(s: Strategy, *, seed: int = 0) -> list[str]:
    """Run the laws on ``s`` and return their names.

    Order and relabelling invariance; N = 1 earns the reward; the estimate is unbiased, by exact expectation
    over a small policy; the credit sums to 0 and is unbiased, against autograd through the exact finite sum;
    more reward is never worth less; float32 agrees with float64; batch dimensions broadcast.

    Raises:
        LawError: naming every law that fails, with the numbers.

    >>> from operant import PassAt
    >>> check_strategy(PassAt(3))[0]
    'order'
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
    if s.symmetric:
        yield "order", lambda: _same("value", s.value(o), s.value(o.map(lambda x: x.flip(-1))))
    yield "relabelling", lambda: _same("value", s.value(o), s.value(_relabelled(o)))
    if s.n == 1:
        yield "one sample", lambda: _one_sample(s, o)
    yield "reward is worth having", lambda: _monotone(s, o)
    if s.symmetric:
        yield "estimate is unbiased", lambda: _unbiased_estimate(s)
        yield "credit is unbiased", lambda: _unbiased_credit(s)
    more = _random_outcomes(s, s.n + 2, seed)
    yield "credit sums to 0", lambda: _same("sum", credit(s, more).sum(-1), torch.zeros(8), 1e-9)
    single = more.map(lambda x: x.float() if x.is_floating_point() else x)
    yield "float32", lambda: _same("credit", credit(s, single).double(), credit(s, more), 1e-5)
    worth, batch = (lambda x: estimate(s, x).value), more
    if not s.symmetric:  # its route, Monte Carlo, draws anew for every prompt
        worth, batch = s.value, o
    twice = batch.map(lambda x: torch.stack([x, x]))
    yield "batch", lambda: _same("value", worth(twice)[1], worth(batch))


def _random_outcomes(s: Strategy, m: int, seed: int) -> Outcomes:
    """(8, m), float64: right with probability 1/2, else one of two wrong classes or none."""
    answer = torch.randint(-1, 5, (8, m), generator=torch_generator(seed, "check", m))
    answer = torch.where(answer > 2, 0, answer)
    reward = (answer == 0).double()
    return Outcomes(reward, answer, None if s.binary else reward + 0.1 * (answer == 1))


def _relabelled(o: Outcomes) -> Outcomes:
    assert o.answer is not None
    return Outcomes(o.reward, torch.where(o.answer >= 0, 7 - 3 * o.answer, -1), o.score)


def _one_sample(s: Strategy, o: Outcomes) -> str:
    """One sample is what is returned, unless the strategy leaves out answers that do not parse."""
    assert o.answer is not None
    value = s.value(o)
    return _same("value", value, torch.where(o.answer[..., 0] >= 0, o.reward[..., 0], value))


def _monotone(s: Strategy, o: Outcomes) -> str:
    assert o.answer is not None
    better = Outcomes(torch.where(o.answer == 1, 1.0, o.reward), o.answer, o.score)
    worse = s.value(o) - s.value(better)
    return "" if bool((worse <= 1e-12).all()) else f"a raised reward lowers the value by {worse.max():.3g}"


def _expectation(s: Strategy, m: int) -> tuple[list[tuple[float, Outcomes, Tensor]], Tensor]:
    """Every multiset of m outcomes of the small policy, with its probability; and the policy."""
    pi = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    terms = []
    for draw in combinations_with_replacement(range(3), m):
        kinds = torch.tensor(draw)
        count = torch.bincount(kinds, minlength=3)
        ways = math.factorial(m) / math.prod(math.factorial(int(c)) for c in count)
        o = Outcomes(torch.tensor(REWARD, dtype=torch.float64)[kinds], torch.tensor(ANSWER)[kinds])
        terms.append((ways * float((pi**count).prod()), o, count.double()))
    return terms, pi


def _slope(s: Strategy) -> tuple[Tensor, Tensor]:
    """J and dJ/dtheta of the softmax policy, from the finite sum over draws of N."""
    terms, pi = _expectation(s, s.n)
    parts = [(p * s.value(o), count) for p, o, count in terms]
    j = sum((v for v, _ in parts), torch.zeros((), dtype=torch.float64))
    slope = sum((v * (count - s.n * pi) for v, count in parts), torch.zeros(3, dtype=torch.float64))
    return j, slope


def _unbiased_estimate(s: Strategy) -> str:
    terms, _ = _expectation(s, s.n + 2)
    mean = sum((p * estimate(s, o).value for p, o, _ in terms), torch.zeros((), dtype=torch.float64))
    return _same("expectation of the estimate", mean, _slope(s)[0])


def _unbiased_credit(s: Strategy) -> str:
    terms, pi = _expectation(s, s.n + 2)
    total = torch.zeros(3, dtype=torch.float64)
    for p, o, _ in terms:
        w = credit(s, o)
        kind = torch.where(o.answer == -1, 2, o.answer)  # pyright: ignore
        total += p * (torch.zeros(3, dtype=w.dtype).scatter_add_(0, kind, w) - w.sum() * pi)
    return _same("expected credit", total, _slope(s)[1])


def _same(what: str, got: Tensor, want: Tensor, tolerance: float = 1e-9) -> str:
    error = (got - want).abs().max().item()
    return "" if error <= tolerance else f"{what} is off by {error:.3g} (tolerance {tolerance:g})"
