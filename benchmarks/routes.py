"""What closed forms save: every strategy beside exact enumeration and beside Monte Carlo. One thread.

    python benchmarks/routes.py   # two minutes

Ratios are of one run on one thread. Enumeration is slow, so that both sides of that ratio are measured on a case
small enough for it; Monte Carlo is compared on the case of the first column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import torch
from strategies import best_of, once, ratio, seconds
from torch import Tensor

from operant import Outcomes, credit, estimate, parse
from operant.strategies import Strategy
from operant.strategies.slowroutes import calls_by_types

GOAL = 0.01
"""Error of the Monte Carlo credit, relative to the norm of the credit, at which its time is compared."""
TABLE = {
    "pass@{n}": "",
    "pass^{n}": "",
    "threshold@{n}:{k}": "",
    "table({steps})": "",
    "verified@{n}:0.1:0.2": "",
    "noisy@{n}:0.1:0.2": "",
    "best@{n}": "score",
    "topmean@{n}:{k}": "score",
    "median@{n}": "score",
    "rank({steps})": "score",
    "maj@{n}": "answer",
    "maj@{n}:fail": "answer",
    "quorum@{n}:{k}:0.5": "answer",
    "wmaj@{n}:4": "answer, score",
    "top{k}@{n}>maj": "answer, score",
    "race@{n}:{k}": "answer",
    "lead@{n}:{k}": "answer",
    "first@{n}:0.5": "score",
    "mix(pass@1:0.25, maj@{n}:0.75)": "answer",
    "harmonic(pass@{n})": "",
    "harmonic(maj@{n})": "answer",
    "priced(race@{n}:{k}, 0.01)": "answer",
}
"""One strategy of each form, k = max(2, N/4), and what it sees besides the reward."""


@dataclass(frozen=True)
class Case:
    """Prompts, rollouts M and budget N of one measurement."""

    prompts: int
    m: int
    n: int

    def __str__(self) -> str:
        """The sizes."""
        return f"{self.prompts} x {self.m}, N = {self.n}"


@dataclass(frozen=True)
class Sizes:
    """The cases of a run."""

    full: Case = Case(64, 32, 16)
    types: Case = Case(16, 12, 6)
    orders: Case = Case(16, 7, 5)
    """Where the order matters, enumeration goes through M!/(M-N)! draws."""
    prompts: int = 16
    """Prompts of the full case on which Monte Carlo is measured; its time is scaled."""
    draws: int = 1024
    runs: int = 5


@dataclass(frozen=True)
class Row:
    """One strategy's measurements, times in seconds."""

    name: str
    closed: float
    """Value and credit of the full case."""
    closed_small: float
    exact_small: float
    difference: float
    """Largest absolute difference of value and credit between the two of the small case."""
    multisets: float
    """Draws a prompt that enumeration would go through in the full case."""
    draws: float
    """Draws a prompt after which the Monte Carlo credit has a relative error of GOAL."""
    monte_carlo: float
    """Time of that many draws for the full case."""


def at(template: str, n: int) -> Strategy:
    """The strategy of a template at budget N."""
    steps = torch.linspace(0, 1, n + (template[:5] == "table")).square().tolist()
    return parse(template.format(n=n, k=max(2, n // 4), steps=", ".join(f"{x:.6g}" for x in steps)))


@lru_cache
def outcomes(case: Case, sees: str, seed: int = 0) -> Outcomes:
    """Right with p uniform in (0.05, 0.95), else one of 4 wrong answers or (5 %) unparsable; 4 levels of score.

    Only what the strategy reads is given: enumeration pays for each type of outcome that it must tell apart.
    """
    g = torch.Generator().manual_seed(seed)
    shape = (case.prompts, case.m)
    right = torch.rand(shape, generator=g) < 0.05 + 0.9 * torch.rand(case.prompts, 1, generator=g)
    wrong = torch.randint(1, 5, shape, generator=g)
    wrong = torch.where(torch.rand(shape, generator=g) < 0.05, -1, wrong)
    answer = torch.where(right, 0, wrong)
    score = torch.clamp(torch.randint(0, 3, shape, generator=g) + right.long(), max=3).double() / 3
    return Outcomes(right.double(), answer if "answer" in sees else None, score if "score" in sees else None)


def every_order(s: Strategy, o: Outcomes) -> tuple[Tensor, Tensor]:
    """Value and credit from all ordered draws: w_i = (N/M)(in_i - out_i)."""
    draws = torch.tensor(list(permutations(range(o.m), s.n)))
    member = torch.zeros(len(draws), o.m, dtype=torch.float64).scatter_(1, draws, 1.0)
    v = s.value(o.map(lambda x: x[:, draws])).double()
    inside, outside = v @ member / member.sum(0), v @ (1 - member) / (1 - member).sum(0)
    return v.mean(-1), s.n / o.m * (inside - outside)


def measure(template: str, sizes: Sizes) -> Row:
    """All numbers of one strategy."""
    s, o = at(template, sizes.full.n), outcomes(sizes.full, TABLE[template])
    closed = best_of(sizes.runs, lambda: estimate(s, o))  # makes the credit too, for its standard error

    case = sizes.types if s.traits.symmetric else sizes.orders
    few, small = at(template, case.n), outcomes(case, TABLE[template], seed=1)
    closed_small = best_of(sizes.runs, lambda: estimate(few, small))
    if s.traits.symmetric:
        multisets = calls_by_types(s, o)
        exact_small = best_of(3, lambda: estimate(few, small, route="types"))
        peer = (estimate(few, small, route="types").value, credit(few, small, route="types"))
    else:
        multisets = math.perm(o.m, s.n)
        exact_small, peer = best_of(3, lambda: every_order(few, small)), every_order(few, small)
    ours = (estimate(few, small).value, credit(few, small))
    difference = max((a - b).abs().max().item() for a, b in zip(ours, peer, strict=True))

    part = o.map(lambda x: x[: sizes.prompts])

    def simulation() -> Tensor:
        return credit(s, part, route="monte carlo", draws=sizes.draws)

    took, simulated = min((once(simulation) for _ in range(2)), key=lambda x: x[0])
    exact = credit(s, part)
    times = ((simulated - exact).norm() / exact.norm()).item() ** 2 / GOAL**2
    scaled = took * times * sizes.full.prompts / len(part.reward)
    return Row(str(s), closed, closed_small, exact_small, difference, multisets, sizes.draws * times, scaled)


def routes(sizes: Sizes) -> list[Row]:
    """Print and return the table over strategies."""
    print(
        f"""routes: value and credit in closed form, beside enumeration and Monte Carlo
full: {sizes.full}; small: {sizes.types}, enumeration over multisets of types (route="types"), or where the order
matters (*) {sizes.orders}, over all ordered draws. Both sides of a ratio are measured on the same case.
Balanced Monte Carlo never reaches the closed form's error (~1e-15), so that "equal error" is a choice: the draws after
which its credit is off by {GOAL:.0%} of the credit's norm, extrapolated by 1/sqrt(draws) from {sizes.draws:,} draws.
"draws of enum.": what enumeration would go through for a prompt of the full case.
"""
    )
    layout = "{:<29}{:>9}{:>10}{:>9}{:>7}{:>9}{:>10}{:>9}{:>10}{:>12}"
    print(layout.format("", "closed", "closed", "enumer-", "", "largest", "draws of", "draws", "Monte", ""))
    print(layout.format("", "full", "small", "ation", "ratio", "|diff.|", "enum.", "at 1 %", "Carlo", "ratio"))
    rows = []
    for template in TABLE:
        r = measure(template, sizes)
        rows.append(r)
        name = r.name if len(r.name) < 28 else r.name[:25] + "..."
        name += "" if at(template, 4).traits.symmetric else " *"
        times = (seconds(x) for x in (r.closed, r.closed_small, r.exact_small))
        enumeration = ratio(r.exact_small / r.closed_small)
        monte_carlo = (
            f"{r.multisets:.0e}",
            f"{r.draws:.1e}",
            seconds(r.monte_carlo),
            ratio(r.monte_carlo / r.closed),
        )
        print(layout.format(name, *times, enumeration, f"{r.difference:.0e}", *monte_carlo), flush=True)
    print()
    return rows


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    routes(Sizes())


if __name__ == "__main__":
    main()
