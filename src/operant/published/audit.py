"""What an advantage rule optimizes: its exact objective on binary rewards, beside the strategy that is deployed.

A rule on M binary rewards is a table w(r, c): the weight of a rollout of reward r in a group with c successes. The
gradient sum_i w_i grad log pi(y_i) then has the expectation A(p) grad p with

    A(p) = M sum_{j=0}^{M-1} Bin(j; M-1, p) [w(1, j+1) - w(0, j)],

a polynomial of degree <= M-1: no rule on M rollouts realizes the slope N (1-p)^(N-1) of pass@N for N > M. Its
integral is a count strategy of budget M, S~(p) = sum_c b_c Bin(c; M, p), b_c = sum_{j<c} [w(1, j+1) - w(0, j)].
Related, on binary rewards: RL2ML (arXiv 2605.30154); asymptotically, arXiv 2510.23049.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operant.core.checks import BudgetError, InputError, NotDefinedError, check_finite, check_int
from operant.core.logmath import log_binomial
from operant.core.rng import torch_generator
from operant.estimators.extrapolated import Extrapolation
from operant.estimators.semivalue import shapley
from operant.estimators.transform import Transform
from operant.published.rules import RULES, credit_of
from operant.strategies.base import Strategy
from operant.strategies.counts import CountStrategy, PassAt
from operant.strategies.outcomes import Outcomes
from operant.strategies.parse import parse

# Success rates p of a prompt, 0.01 to 0.99.
_GRID = torch.arange(1, 100, dtype=torch.float64) / 100
# Orders in which every group is shown to a rule.
_ARRANGEMENTS = 16
# Weights that differ by less, relative to the largest one, are equal: a rule may compute in float32.
_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Audit:
    """What a rule optimizes at every success rate p; all (P,) float64.

    Args:
        m: rollouts per group, M.
        p: success rates of the prompt, strictly between 0 and 1.
        table: (M+1,) b_c, the worth of c successes among M in the objective, b_0 = 0.
        slope: A(p), the coefficient of grad p in the expected gradient.
        objective: S~(p), the integral of A from 0.
        dead: probability that every weight of the group is 0.
        variance: E sum_i w_i^2: variance of sum_i w_i s_i for scores s_i of variance 1, mean 0 and independent
            of each other and of the rewards. It is the noise in each of the many directions that do not
            change p, the usual case in a language model.
        logit_variance: Var sum_i w_i (r_i - p), along the one direction that does: the logit of p.
        target_slope: S'(p) of the deployed strategy; None without one.
        target_value: S(p) of the deployed strategy; None without one.
    """

    m: int
    p: Tensor
    table: Tensor
    slope: Tensor
    objective: Tensor
    dead: Tensor
    variance: Tensor
    logit_variance: Tensor
    target_slope: Tensor | None
    target_value: Tensor | None

    @property
    def ratio(self) -> Tensor:
        """A(p) / S'(p): constant where the rule optimizes the strategy up to a learning rate.

        NaN where S'(p) is so small (1e-10 of the largest term of A) that rounding in A would show.

        Raises:
            NotDefinedError: without a target.
        """
        if self.target_slope is None:
            raise NotDefinedError("there is no slope to compare with: give audit(..., target=strategy).")
        small = self.target_slope.abs() < 1e-10 * self.m * self.table.diff().abs().max()
        return torch.where(small, torch.nan, self.slope / self.target_slope)

    @property
    def noise(self) -> Tensor:
        """sqrt(variance / p(1-p)) / abs(A(p)): noise per unit of signal, free of the scale of the weights.

        Both in directions whose score has variance 1: (r_i - p) / sqrt(p(1-p)) is the one with the signal. A mean
        of M - 1 independent samples has 1 / sqrt(M - 1), which is what RLOO has at every p.
        """
        return (self.variance / (self.p * (1 - self.p))).sqrt() / self.slope.abs()


def audit(
    rule: Callable[[Tensor], Tensor], m: int, *, target: Strategy | None = None, p: Tensor | None = None
) -> Audit:
    """The exact objective of an advantage rule on groups of M binary rewards.

    Args:
        rule: rewards (B, M) float64 -> weights (B, M) of sum_i w_i grad log pi(y_i). An advantage that the
            trainer averages over the group is divided by M first.
        m: rollouts per group, M.
        target: the deployed strategy, with a success probability S(p).
        p: (P,) success rates, strictly between 0 and 1; default 0.01, 0.02, ... 0.99.

    Raises:
        InputError: if the weights have another shape, are not finite, differ between equal rewards of a group
            (they depend on the position), or depend on the other groups of the batch; or if p is not in (0, 1).
        NotDefinedError: if ``target`` has no S(p).

    >>> from operant import PassAt
    >>> from operant.published.rules import credit_of, rloo
    >>> audit(rloo, 8, target=PassAt(4), p=torch.tensor([0.25, 0.5, 0.75])).ratio  # RLOO optimizes pass@1
    tensor([ 0.5926,  2.0000, 16.0000], dtype=torch.float64)
    >>> audit(credit_of(PassAt(4)), 8, target=PassAt(4), p=torch.tensor([0.25, 0.5, 0.75])).ratio
    tensor([1.0000, 1.0000, 1.0000], dtype=torch.float64)
    """
    check_int("m", m, least=1)
    p = _GRID if p is None else _check_p(p)
    correct, wrong = _weights(rule, m)  # (M+1,) each
    c = torch.arange(m + 1, dtype=torch.float64)
    table = torch.cat([correct.new_zeros(1), (correct[1:] - wrong[:-1]).cumsum(0)])
    slope = m * _bernstein(table.diff(), p)
    size = torch.maximum(correct.abs(), wrong.abs())
    dead = (size <= _TOLERANCE**2 * size.max()).double()
    along = c * correct * (1 - p[:, None]) - (m - c) * wrong * p[:, None]  # (P, M+1) sum_i w_i (r_i - p)
    return Audit(
        m=m,
        p=p,
        table=table,
        slope=slope,
        objective=_bernstein(table, p),
        dead=_bernstein(dead, p),
        variance=_bernstein(c * correct**2 + (m - c) * wrong**2, p),
        logit_variance=_bernstein((along - (p * (1 - p) * slope)[:, None]) ** 2, p),
        target_slope=None if target is None else _success(target, p)[1],
        target_value=None if target is None else _success(target, p)[0],
    )


def audit_records(
    rules: Sequence[str], *, strategy: str = "", transform: str = "", n: int | None = None, m: int | None = None
) -> list[dict[str, Any]]:
    """Audits of published rules and of our credit as plain records: the target, the rules, and those left out.

    Args:
        rules: names in :data:`~operant.published.rules.RULES`.
        strategy: the deployed strategy as a string; default pass@n.
        transform: g of the objective E g(V) as a string: one more rule; default none.
        n: budget of the rules that have one; default that of the strategy, or 4.
        m: rollouts per group; default 2 n.

    Raises:
        InputError: for an unknown rule.
        NotDefinedError: if the strategy has no S(p).
        BudgetError: if n or m is below 1.
    """
    unknown = [name for name in rules if name not in RULES]
    if unknown:
        raise InputError(f"expected rules of {', '.join(RULES)}, got {', '.join(map(str, unknown))}.")
    target = parse(strategy) if strategy else PassAt(4 if n is None else n)
    value, slope = _success(target, _GRID)
    budget = check_int("n", target.n if n is None else n, least=1)
    m = check_int("m", 2 * budget if m is None else m, least=1)
    made = {"operant": (lambda: credit_of(target), "ours", f"credit of {target}")}
    if transform:
        g = Transform.parse(transform)
        made[f"operant {g}"] = (lambda: lambda r: g.credit(target, Outcomes(r)), "ours", f"jackknife of {g}")
    made |= {k: (lambda k=k: RULES[k].make(budget), RULES[k].family, RULES[k].source) for k in rules}
    shares = "Shapley value of pass@: all budgets up to M"
    made["operant-shapley"] = (lambda: lambda r: shapley(PassAt(1), Outcomes(r)), "set estimators", shares)
    if target.n > m and isinstance(target, CountStrategy):
        weigh, posterior = Extrapolation().credit, "Beta posterior for N > M, biased"
        made["operant-extrapolated"] = (lambda: lambda r: weigh(target, Outcomes(r)), "plug-ins", posterior)
    found: list[dict[str, Any]] = []
    for name, (make, family, source) in made.items():
        try:
            a = audit(make(), m, target=target)
        except BudgetError as error:
            found.append({"kind": "left out", "name": name, "reason": str(error)})
            continue
        fields = ("slope", "objective", "ratio", "dead", "variance", "logit_variance", "noise", "table")
        curves = {field: getattr(a, field).tolist() for field in fields}
        found.append({"kind": "rule", "name": name, "family": family, "source": source, **curves})
    curves = {"p": _GRID.tolist(), "value": value.tolist(), "slope": slope.tolist()}
    return [{"kind": "target", "strategy": str(target), "n": budget, "m": m, **curves}, *found]


def _weights(rule: Callable[[Tensor], Tensor], m: int) -> tuple[Tensor, Tensor]:
    """w(1, c) and w(0, c) for c = 0..M, (M+1,) each; 0 where a group has no such rollout."""
    # Sorted both ways and in random orders: a rule that reads positions gives equal rewards different weights.
    groups = torch.ones(m + 1, m, dtype=torch.float64).tril(-1)  # row c: c ones first
    generator = torch_generator(0, "audit")
    shuffles = torch.rand(m + 1, _ARRANGEMENTS - 2, m, generator=generator).argsort(-1)
    shown = groups[:, None].expand(-1, _ARRANGEMENTS - 2, -1).gather(-1, shuffles)
    reward = torch.cat([groups[:, None], groups[:, None].flip(-1), shown], dim=1)  # (M+1, 16, M)
    w = _call(rule, reward.reshape(-1, m)).reshape(reward.shape)
    room = _TOLERANCE * w.abs().max()
    values: list[Tensor] = []
    for r in (1.0, 0.0):
        have = reward == r
        low, high = (torch.where(have, w, x).flatten(1) for x in (torch.inf, -torch.inf))
        low, high = low.amin(1), high.amax(1)
        if bool((high - low > room).any()):
            worst = int((high - low).argmax())
            raise InputError(
                f"equal rewards must have equal weights: with {worst} successes among M = {m}, rollouts of reward "
                f"{r:g} got weights from {low[worst].item():.6g} to {high[worst].item():.6g}. The rule depends on "
                "the position of a rollout, or is random: it is not a table w(r, c) and has no objective in p "
                "alone. Audit the part of it that reads the rewards."
            )
        values.append(torch.where(high < low, 0.0, w[:, 0, 0 if r else -1]))
    # Each group alone as well: a rule that whitens over the batch gives another answer then.
    alone = torch.cat([_call(rule, group[None]) for group in groups])
    if bool(((alone - w[:, 0]).abs() > room).any()):
        raise InputError(
            "the weights of a group must not depend on the other groups of the batch, and they do: a lone group got "
            "others. Such a rule (whitening over a batch) has no objective per prompt; audit it without that step."
        )
    return values[0], values[1]


def _call(rule: Callable[[Tensor], Tensor], reward: Tensor) -> Tensor:
    w = rule(reward.clone())
    if not isinstance(w, Tensor) or w.shape != reward.shape:  # pyright: ignore[reportUnnecessaryIsInstance]
        got = tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"the rule must map rewards {tuple(reward.shape)} to weights of that shape, got {got}.")
    bad = ~torch.isfinite(w)
    if bool(bad.any()):
        row, i = bad.nonzero()[0].tolist()
        raise InputError(
            f"the rule must return finite weights, got {w[row, i].item()} for the rewards {reward[row].tolist()}. "
            "Groups of equal rewards are where a division by the spread or the mean fails: return 0 there."
        )
    return w.detach().double().cpu()


def _bernstein(value: Tensor, p: Tensor) -> Tensor:
    """sum_c value_c Bin(c; n, p), value (..., n+1) -> (P,)."""
    n = value.shape[-1] - 1
    each = p.numpy()[:, None]
    return (log_binomial(torch.arange(n + 1), n, each, 1 - each).exp() * value).sum(-1)


def _success(target: Strategy, p: Tensor) -> tuple[Tensor, Tensor]:
    """S(p) and S'(p) = f S / p."""
    try:
        success = target.success(p.log())
    except NotDefinedError as error:
        raise NotDefinedError(
            f"{target} has no slope S'(p) in the success rate alone to compare with. Leave out target=, or give a "
            "strategy that counts successes: pass@N, pass^N, threshold@N:k or a mixture of them."
        ) from error
    value = success.log_s.exp()
    return value, success.elasticity * value / p


def _check_p(p: Tensor) -> Tensor:
    p = check_finite("p", p.detach().double().cpu())
    if p.ndim != 1 or not len(p) or bool(((p <= 0) | (p >= 1)).any()):
        raise InputError(f"p must be a list of success rates strictly between 0 and 1, got {p.tolist()}.")
    return p
