"""How good the gradient of one group of rollouts is: bias and noise of every rule, exactly, in two bandits.

    python benchmarks/gradient.py                 # half a minute
    python benchmarks/gradient.py --only binary   # binary, votes or tied

A prompt has a right answer of probability p: in the binary bandit all else is wrong, in the vote bandit three rivals
share the rest 5 : 3 : 2. A rollout's score vector s_i holds its derivatives along the logits of the prompt, and along
100 directions that have nothing to do with the reward, independent standard normal: a language model has many more.
A rule makes g = sum_i w_i s_i from M rollouts. Its mean and its covariance follow from the weights of every possible
group of outcomes, which are gone through; a simulation that draws all scores checks them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from operant import Majority, Outcomes, PassAt, Threshold, credit, estimate
from operant.estimators import expected_value, semivalue
from operant.published import Recipe
from operant.published.rules import cat, grpo, passk_training, pkpo_sloo, plug_in
from operant.strategies import Strategy
from operant.strategies.slowroutes import multisets

RATES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
"""Probabilities of the right answer."""
RIVALS = (0.5, 0.3, 0.2)
NUISANCE = 100
BUDGET = 8
GROUPS = (1, 16, 256, 4096, 65536, float("inf"))

ORDER = "order N-1 (PKPO sloo-1)"
ORACLE = "oracle baseline, knows p"

Rule = Callable[[Outcomes], Tensor]
"""Weights (G, M) of G groups."""


@dataclass(frozen=True)
class Moments:
    """Of g = sum_i w_i s_i, relative to the true gradient."""

    norm: float
    """Norm of the true gradient."""
    slope: float
    """Mean of g along the true gradient, 1 = unbiased."""
    bias: float
    """Norm of the mean's distance to the true gradient."""
    signal: float
    """Variance of g, summed over the logits of the prompt."""
    nuisance: float
    """Variance of g in one unrelated direction, E sum_i w_i^2."""

    def sd(self, directions: int = NUISANCE) -> float:
        """Root of the variance summed over the logits and the unrelated directions."""
        return (self.signal + directions * self.nuisance) ** 0.5


def alignment(row: Sequence[Moments], groups: float) -> float:
    """E[g . t] / (|t| sqrt(E |g|^2)) of the update g from ``groups`` groups of every prompt, prompts on a par.

    t is the true gradient; each prompt has its own logits. Free of the scale of the weights, bias and noise both count.
    """
    size = [x.norm**2 for x in row]
    along = sum(n * x.slope for n, x in zip(size, row, strict=True))
    mean = sum(n * (x.bias**2 + 2 * x.slope - 1) for n, x in zip(size, row, strict=True))  # |E g|^2
    noise = sum(n * x.sd() ** 2 / groups for n, x in zip(size, row, strict=True))
    return along / (sum(size) * (mean + noise)) ** 0.5


class Bandit:
    """All groups of M rollouts over K answers, the first of them right."""

    def __init__(self, m: int, kinds: int) -> None:
        counts = multisets([m] * kinds, m)  # (G, K)
        self.m, self.counts = m, counts.double()
        self.answer = torch.repeat_interleave(torch.arange(kinds).repeat(len(counts)), counts.flatten()).view(-1, m)
        self.outcomes = Outcomes((self.answer == 0).double(), self.answer)

    def table(self, rule: Rule) -> Tensor:
        """The weight of a rollout of each kind in each group, (G, K)."""
        return torch.zeros_like(self.counts).scatter(1, self.answer, rule(self.outcomes).double())

    def with_oracle(self, table: Tensor, q: Tensor) -> Tensor:
        """The weights less their mean given the other rollouts: the least noise that a baseline can leave elsewhere."""
        groups, kinds = self.counts.shape
        base = (self.m + 1) ** torch.arange(kinds)
        code = self.counts.long() @ base
        number = torch.full((int(code.max()) + 1,), -1).scatter(0, code, torch.arange(groups))
        other = number[(code[:, None, None] - base[:, None] + base).clamp(0, int(code.max()))]  # (G, K, K): t becomes k
        mean = (table[other, torch.arange(kinds)] * q).sum(-1)
        return torch.where(self.counts > 0, table - mean, 0.0)

    def moments(self, table: Tensor, q: Tensor, target: Tensor) -> Moments:
        """Exact moments when answer k has probability q_k and the true gradient is ``target``, (K,) or (1,)."""
        c = self.counts
        orders = torch.lgamma(torch.tensor(self.m + 1.0, dtype=torch.float64)) - torch.lgamma(c + 1).sum(-1)
        mass = (orders + c @ q.log()).exp()
        g = (c * table) @ scores(q)  # (G, D)
        mean = mass @ g
        norm = target.norm()
        return Moments(
            norm=norm.item(),
            slope=(mean @ target / norm**2).item(),
            bias=((mean - target).norm() / norm).item(),
            signal=(mass @ (g - mean).square().sum(-1) / norm**2).item(),
            nuisance=(mass @ (c * table.square()).sum(-1) / norm**2).item(),
        )


def scores(q: Tensor) -> Tensor:
    """Score of each answer along the logits, (K, K); with two answers along the one logit that there is, (2, 1)."""
    s = torch.eye(len(q), dtype=torch.float64) - q
    return s if len(q) > 2 else s[:, :1]


def probabilities(p: float, kinds: int) -> Tensor:
    """(K,) of the answers."""
    rest = torch.tensor(RIVALS if kinds > 2 else (1.0,), dtype=torch.float64)
    return torch.cat([rest.new_tensor([p]), (1 - p) * rest])


def truth(s: Strategy, q: Tensor) -> Tensor:
    """The gradient of J along the logits: dJ/dlog q of normalized probabilities."""
    kinds = torch.arange(len(q))
    log_q = q.log().requires_grad_()
    value = expected_value(s, log_q, Outcomes((kinds == 0).double(), kinds))
    (slope,) = torch.autograd.grad(value, log_q)
    return slope if len(q) > 2 else slope[:1]


def ours(s: Strategy) -> Rule:
    """The credit."""
    return lambda o: credit(s, o)


def order_below(s: Strategy) -> Rule:
    """(N/M) (in_i - out_i of budget N-1)."""
    return lambda o: semivalue(s, o, {s.n: 1.0})


def raw(s: Strategy) -> Rule:
    """(N/M) in_i, before any baseline."""

    def rule(o: Outcomes) -> Tensor:
        share, u = s.n / o.m, estimate(s, o).value[:, None].expand(o.reward.shape)
        return u if o.m == s.n else share * u + (1 - share) * credit(s, o)

    return rule


def unbiased(s: Strategy) -> dict[str, Rule]:
    """Our credit first."""
    return {"operant": ours(s), ORDER: order_below(s), ORACLE: raw(s)}


def rules(s: Strategy) -> dict[str, Rule]:
    """All that is compared."""
    n = s.n
    if isinstance(s, PassAt):
        binary = {"PKPO sloo": pkpo_sloo(n), "plug-in, RLOO": plug_in(n), "plug-in, CAT raw": cat(n, "raw")}
        binary |= {"pass@k training, std": passk_training(n), "GRPO": grpo}
        return unbiased(s) | {name: (lambda o, rule=rule: rule(o.reward)) for name, rule in binary.items()}
    fixed = Threshold(n, n // 2 + 1)
    dynamic: Rule = lambda o: Recipe("raw").weights(s, o) / o.m  # noqa: E731
    return unbiased(s) | {str(fixed): ours(fixed), "CAT raw, dynamic threshold": dynamic}


def compare(made: dict[str, Rule], s: Strategy, kinds: int, m: int, rates: Sequence[float]) -> dict[str, list[Moments]]:
    """Exact moments of every rule at every rate."""
    bandit, found = Bandit(m, kinds), {}
    true = [(q, truth(s, q)) for q in (probabilities(p, kinds) for p in rates)]
    for name, rule in made.items():
        table = bandit.table(rule)
        tables = [bandit.with_oracle(table, q) if name == ORACLE else table for q, _ in true]
        found[name] = [bandit.moments(w, q, target) for w, (q, target) in zip(tables, true, strict=True)]
    return found


def block(title: str, rows: dict[str, list[float]], digits: int = 3) -> None:
    """Print one block of numbers, a column for each rate."""
    if title:
        print(f"  {title}")
    for name, row in rows.items():
        print(f"    {name:<34}" + "".join(f"{x:>9.{digits}f}" if abs(x) < 1e4 else f"{x:>9.1e}" for x in row))


def table(s: Strategy, kinds: int, rates: Sequence[float] = RATES, sizes: Sequence[int] = ()) -> None:
    """Print bias and noise for M = N + 1, 2N and 4N."""
    for m in sizes or (s.n + 1, 2 * s.n, 4 * s.n):
        found = compare(rules(s), s, kinds, m, rates)
        first = found["operant"]
        others = {name: row for name, row in found.items() if name != "operant"}
        biased = {name: row for name, row in found.items() if max(x.bias for x in row) > 1e-6}
        print(f"{s}, M = {m}{'':>{25 - len(str(s)) - len(str(m))}}p =" + "".join(f"{p:>9g}" for p in rates))
        worst = max(x.bias for name, row in found.items() if name not in biased for x in row)
        print(f"  unbiased, |mean - true| / |true| <= {worst:.0e}: {', '.join(n for n in found if n not in biased)}")
        block("slope / true slope of the others", {name: [x.slope for x in row] for name, row in biased.items()})
        if kinds > 2:
            block("|mean - true| / |true|", {name: [x.bias for x in row] for name, row in biased.items()})
        block(
            f"sd over all directions / norm of the true gradient, {NUISANCE} unrelated directions",
            {"operant": [x.sd() for x in first]},
        )
        block(
            "the same, / operant's",
            {n: [x.sd() / y.sd() for x, y in zip(r, first, strict=True)] for n, r in others.items()},
        )
        per_slope = {
            name: [x.sd() / y.sd() / abs(x.slope) for x, y in zip(row, first, strict=True)]
            for name, row in biased.items()
        }
        block("sd per unit of slope, / operant's", per_slope)
        alone = [x.sd(0) / y.sd(0) for x, y in zip(found[ORDER], first, strict=True)]
        block("the same without unrelated directions, / operant's", {ORDER: alone})
        print("  alignment with the true gradient over one prompt of each p, 1 = best; groups of each prompt:")
        print(f"{'':>38}" + "".join(f"{g:>9,g}" for g in GROUPS))
        block("", {name: [alignment(row, g) for g in GROUPS] for name, row in found.items()})
        print()


def tied(rates: Sequence[float] = RATES, n: int = BUDGET) -> None:
    """Print the unbiased rules at M = N, where operant resamples, and for votes against a single rival."""
    print(f"sd / operant's{'':>21}p =" + "".join(f"{p:>9g}" for p in rates))
    cases: list[tuple[Strategy, int, int]] = [(PassAt(n), 2, n), (Majority(n), 4, n)]
    cases += [(Majority(k), 2, m) for k in (n, n + 1) for m in (k, k + 1, 2 * k)]
    for s, kinds, m in cases:
        found = compare(unbiased(s), s, kinds, m, rates)
        rows = {
            f"{name}{'' if d else ', alone'}": [x.sd(d) / y.sd(d) for x, y in zip(row, found["operant"], strict=True)]
            for d in (NUISANCE, 0)
            for name, row in found.items()
            if name != "operant" and (d or name == ORDER)
        }
        rivals = "" if isinstance(s, PassAt) else f", {kinds - 1} rival{'s' * (kinds > 2)}"
        block(f"{s}{rivals}, M = {m}{' = N' * (m == s.n)}", rows)
    print(f"  alone: without the {NUISANCE} unrelated directions\n")


def simulate(
    s: Strategy, kinds: int, m: int, p: float, groups: int = 20_000, seed: int = 0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Slope and total variance of our credit, with standard errors, from groups whose scores are all drawn."""
    g = torch.Generator().manual_seed(seed)
    q = probabilities(p, kinds)
    target = truth(s, q)
    slopes, variances = [], []
    for size in torch.full((groups // 500,), 500).tolist():
        answer = torch.multinomial(q.expand(size, -1), m, replacement=True, generator=g)
        w = credit(s, Outcomes((answer == 0).double(), answer)).double()
        other = torch.randn(size, m, NUISANCE, generator=g, dtype=torch.float64)
        vector = (w[..., None] * torch.cat([scores(q)[answer], other], dim=-1)).sum(1)  # (size, D + 100)
        padded = torch.cat([target, torch.zeros(NUISANCE, dtype=torch.float64)])
        slopes.append(vector @ padded / target.norm() ** 2)
        variances.append((vector - padded).square().sum(-1) / target.norm() ** 2)
    return _mean(torch.cat(slopes)), _mean(torch.cat(variances))


def _mean(x: Tensor) -> tuple[float, float]:
    return x.mean().item(), (x.std() / len(x) ** 0.5).item()


def simulation(rates: Sequence[float] = RATES, groups: int = 20_000) -> float:
    """Print the simulation beside the exact moments; return the largest deviation in standard errors."""
    worst = 0.0
    for s, kinds in ((PassAt(BUDGET), 2), (Majority(BUDGET), 4)):
        exact = compare({"operant": ours(s)}, s, kinds, 2 * BUDGET, rates)["operant"]
        for p, x in zip(rates, exact, strict=True):
            slope, variance = simulate(s, kinds, 2 * BUDGET, p, groups)
            worst = max(worst, abs(slope[0] - x.slope) / slope[1], abs(variance[0] - x.sd() ** 2) / variance[1])
    print(
        f"simulation of {groups:,} groups, all {NUISANCE} directions drawn, operant's credit for pass@{BUDGET} and "
        f"maj@{BUDGET} at M = {2 * BUDGET} and every p:\nmean slope and total variance are at most {worst:.1f} "
        f"standard errors from the exact ones ({4 * len(rates)} comparisons)\n"
    )
    return worst


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["binary", "votes", "tied"], help="one table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.only in (None, "binary"):
        table(PassAt(BUDGET), 2)
    if arguments.only in (None, "votes"):
        table(Majority(BUDGET), 4)
    if arguments.only in (None, "tied"):
        tied()
    if arguments.only is None:
        simulation()


if __name__ == "__main__":
    main()
