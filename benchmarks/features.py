"""What is built on closed forms: other policies, M = N, mixtures over budgets, known distributions. One thread.

    python benchmarks/features.py   # a minute

Each beside an exact peer that knows the value of a draw and nothing else; ratios are of one run on one case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from routes import TABLE, Case, Sizes, at, outcomes
from scipy.special import roots_jacobi
from strategies import best_of, ratio, seconds
from torch import Tensor

from operant import BestOf, Majority, Outcomes, PassAt, Threshold, credit
from operant.estimators import Extrapolation, estimate_offpolicy, expected_value, semivalue, shapley
from operant.strategies import LStatistic, Quorum, Strategy, TopMean

Run = Callable[[Case], Tensor]
KINDS = Outcomes(torch.tensor([1.0, 0, 0, 0, 0]), torch.tensor([0, 1, 2, 3, -1]), torch.tensor([1, 1, 0.5, 0.25, 0]))
"""Five kinds of rollout: right, three wrong answers, unparsable; reward, answer, score."""


class Bare(Strategy):
    """A strategy's value and nothing else: what its closed forms are compared with."""

    def __init__(self, s: Strategy) -> None:
        self.s, self.n = s, s.n

    def value(self, draw: Outcomes) -> Tensor:
        """The strategy's own."""
        return self.s.value(draw)

    def at_budget(self, n: int) -> Bare:
        """Another budget."""
        return Bare(self.s.at_budget(n))


@dataclass(frozen=True)
class Comparison:
    """One closed form and its peer."""

    name: str
    ours: Run
    peer: Run
    case: Case
    """The case on which both are measured."""
    by: str = "multisets"
    """What the peer goes through."""


@dataclass(frozen=True)
class Feature:
    """What a job took, in seconds, and the largest absolute difference of the two results."""

    name: str
    full: float
    ours: float
    peer: float
    difference: float


def off_policy(template: str, wrap: Callable[[Strategy], Strategy]) -> Run:
    """Value and weights from rollouts of another policy, log-ratios of sd 0.3."""

    def run(case: Case) -> Tensor:
        o = outcomes(case, TABLE[template])
        got = estimate_offpolicy(wrap(at(template, case.n)), o, 0.3 * noise(*o.reward.shape))
        return torch.cat([got.value[:, None], got.weights], dim=-1)

    return run


def resampled(template: str, function: Callable[[Strategy, Outcomes], Tensor]) -> Run:
    """Credit of the first N rollouts of the case."""
    return lambda case: function(at(template, case.n), outcomes(Case(case.prompts, case.n, case.n), TABLE[template]))


def every_copy(s: Strategy, o: Outcomes) -> Tensor:
    """The resampled baseline at M = N by its definition, one value for each pair (i, j)."""
    n = o.m
    index = torch.arange(n).repeat(n, n, 1)  # (i, j, place)
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    index[i, j, i] = j
    v = s.value(o.map(lambda x: x[:, index]))  # (B, i, j); j = i is the draw itself
    return (s.value(o)[:, None, None] - v).sum(-1) / (n - 1)


def share(s: Strategy, sees: str) -> Run:
    """The Shapley value; scores stand for rewards where there are any."""

    def run(case: Case) -> Tensor:
        o = outcomes(case, sees)
        return shapley(s, o if o.score is None else Outcomes(o.score))

    return run


def two_budgets(s: Strategy) -> Run:
    """Credit of half maj@4 and half maj@N."""
    return lambda case: semivalue(s, outcomes(case, "answer"), {4: 0.5, case.n: 0.5})


def population(s: Strategy) -> Run:
    """The expected value under known probabilities of five kinds of rollout."""
    return lambda case: expected_value(s, noise(case.prompts, KINDS.m).log_softmax(-1), KINDS)


def extrapolated(s: Strategy) -> Run:
    """The posterior mean of the value for N > M, in closed form."""
    return lambda case: Extrapolation().estimate(s, outcomes(case, ""))


def quadrature(s: Strategy) -> Run:
    """The same from S(p) alone, prompt by prompt: Gauss-Jacobi under Beta(c + 1/2, M - c + 1/2), exact for degree N."""

    def run(case: Case) -> Tensor:
        means = []
        for c in outcomes(case, "").reward.sum(-1).tolist():
            x, w = roots_jacobi(s.n // 2 + 1, case.m - c - 0.5, c - 0.5)
            p = torch.from_numpy((1 + x) / 2)
            means.append((s.log_success(p.log()).exp() * torch.from_numpy(w / w.sum())).sum())
        return torch.stack(means)

    return run


@lru_cache
def noise(*shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def jobs(sizes: Sizes) -> Iterator[Comparison]:
    """All rows of the table."""
    full, small, n = sizes.full, sizes.types, sizes.full.n
    for t in ("pass@{n}", "threshold@{n}:{k}", "best@{n}", "maj@{n}", "quorum@{n}:{k}:0.5"):
        yield Comparison(f"off-policy {at(t, n)}", off_policy(t, lambda s: s), off_policy(t, Bare), small)
    for t in ("pass@{n}", "best@{n}", "maj@{n}", "wmaj@{n}:4"):
        ours, peer = resampled(t, credit), resampled(t, every_copy)
        yield Comparison(f"resampled, M = N, {at(t, n)}", ours, peer, full, f"{n * n} copies")
    for s, sees in ((PassAt(1), ""), (BestOf(1), "score"), (Majority(1), "answer")):
        yield Comparison(f"shapley {str(s)[:-1]}, n = 1..M", share(s, sees), share(Bare(s), sees), small)
    yield Comparison("semivalue maj@, n = 4, N", two_budgets(Majority(4)), two_budgets(Bare(Majority(4))), small)
    for s in (PassAt(2 * full.m), Threshold(2 * full.m, full.m)):
        by = f"{s.n // 2 + 1} nodes a prompt"
        yield Comparison(f"N > M, posterior mean {s}", extrapolated(s), quadrature(s), full, by)
    steps = LStatistic(tuple(i / n for i in range(n)))
    for s in (PassAt(n), Threshold(n, n // 2), BestOf(n), TopMean(n, 2), steps, Majority(n), Quorum(n, 3)):
        name = str(s) if s is not steps else f"rank(... {n} weights)"
        by = f"{math.comb(n + KINDS.m - 1, n):,} multisets"
        yield Comparison(f"population {name}", population(s), population(Bare(s)), full, by)


def features(sizes: Sizes) -> list[Feature]:
    """Print and return the table over what is built on strategies."""
    print(
        f"features: closed form beside an exact peer that knows only the value; full {sizes.full}, small {sizes.types}"
    )
    print(f"same: the case of the ratio, small; but full for M = N, N > M and population ({KINDS.m} kinds of rollout)")
    layout = "{:<36}{:>11}{:>11}{:>11}{:>10}{:>9}  {}"
    print(layout.format("", "full", "same", "peer", "ratio", "|diff.|", "peer goes through"))
    found = []
    for job in jobs(sizes):
        difference = (job.ours(job.case) - job.peer(job.case)).abs().max().item()  # warms both up
        full, same = (best_of(sizes.runs, lambda j=job, c=case: j.ours(c)) for case in (sizes.full, job.case))
        f = Feature(job.name, full, same, best_of(3, lambda j=job: j.peer(j.case)), difference)
        found.append(f)
        times = (seconds(x) for x in (f.full, f.ours, f.peer))
        print(layout.format(f.name, *times, ratio(f.peer / f.ours), f"{difference:.0e}", job.by), flush=True)
    print()
    return found


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    features(Sizes())


if __name__ == "__main__":
    main()
