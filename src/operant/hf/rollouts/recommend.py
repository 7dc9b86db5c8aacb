"""Recommend (strategy, N, M) from curves and credits by four rules, and give the reason of each in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from operant.estimators.transform import Transform
from operant.objectives.evidence import advice as known
from operant.strategies import Mixture, Strategy

# Differences of means below this are 0. It is far above the rounding of a float64 mean, and far below the share of one
# rollout in it.
_ROUNDING = 1e-9
# Share of dead groups above which a larger group is worth its rollouts. A convention, not tuned: below it, most
# rollouts have a signal.
_MOST_DEAD = 0.5
# Overlap with the signal of one sample below which one sample gets a share of the objective. A convention, not tuned.
_LEAST_OVERLAP = 0.5
# That share. A convention to start from, not a measurement.
_SHARE_OF_ONE = 0.25


@dataclass(frozen=True, eq=False)
class MeasuredFamily:
    """A strategy over budgets with what was measured of it.

    Args:
        label: name of the family.
        budgets: C budgets, ascending.
        at: the member with a budget.
        values: (C,) means over prompts.
        costs: (C,) mean number of samples drawn.
        draws: (R, C) bootstrap means, paired between families.
        verifier: whether deploying it needs the rewards.
    """

    label: str
    budgets: tuple[int, ...]
    at: Callable[[int], Strategy]
    values: Sequence[float]
    costs: Sequence[float]
    draws: Tensor
    verifier: bool


@dataclass(frozen=True)
class Advice:
    """What to deploy and what to train for.

    Args:
        case: "" or the condition under which this is advised.
        verdict: "train"; "nothing to train for", where every group of rollouts is dead; "nothing to gain" from more
            samples; or "unknown".
        deploy: the strategy to deploy.
        family: its family, with N in the place of its budget.
        train: the objective to train for: the same, or its mixture with one sample.
        n: budget N of the deployed strategy.
        m: rollouts a prompt in RL training; None where nothing is to be trained for.
        reasons: sentences.
    """

    case: str
    verdict: Literal["train", "nothing to train for", "nothing to gain", "unknown"]
    deploy: str | None
    family: str | None
    train: str | None
    n: int | None
    m: int | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What the rules ask about a strategy besides its curve.

    Args:
        prompts: B.
        rollouts: M at hand.
        price: of one sample, in reward.
        confidence: level of the intervals.
        binary: whether rewards are 0 or 1, and so values percentages.
        one: the strategy whose value is the mean reward.
        never: prompts of which no rollout earns anything.
        always: prompts of which every rollout earns the same, and something.
        dead: share of dead groups of a strategy at m <= M rollouts.
        overlap: overlap of its signal with that of one sample, and whether it lies on less solved prompts; None
            where one of them has no signal.
        rate: share of right rollouts; None if rewards are not binary.
        transform: g of the training objective; None is V itself.
    """

    prompts: int
    rollouts: int
    price: float
    confidence: float
    binary: bool
    one: Strategy
    never: int
    always: int
    dead: Callable[[Strategy, int], float]
    overlap: Callable[[Strategy], tuple[float, bool] | None]
    rate: float | None = None
    transform: Transform | None = None


def quantiles(draws: Tensor, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap means (R,). Rounding must not make a gain of 0 measurable."""
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=draws.dtype)
    low, high = draws.quantile(tails).tolist()
    return (0.0 if abs(low) < _ROUNDING else low), (0.0 if abs(high) < _ROUNDING else high)


def recommend(families: Sequence[MeasuredFamily], evidence: Evidence) -> list[Advice]:
    """One advice; a second one without a verifier, where the first needs one and another family does not.

    1. N of a family starts at its smallest budget. It moves to the next larger one whose gain over the present N has an
       interval above zero and exceeds price * extra samples, until there is none. Budgets that do not pay are skipped,
       because maj@2 is worth exactly maj@1. N <= M/2, so that training groups of 2N can be measured.
    2. The family with the highest value at its N, less price * samples, is deployed. If its N has not moved, there is
       nothing to gain from more samples.
    3. The objective is the same strategy, of the transform if there is one. If its signal overlaps with that of one
       sample by less than half and lies on less solved prompts, often solved prompts could drift: it is a mixture.
    4. M is the smaller of 2N and 4N with at most half of the groups dead; else it is 4N, with a reason. If all
       groups are dead at 2N, at 4N and with all rollouts, there is nothing to train for.

    Values and intervals describe the model that made the rollouts: what more samples buy, and which prompts carry the
    gradient. They do not predict what training reaches.
    """
    # A single point, such as a mixture, has no gain over a smaller budget.
    curves = [c for c in families if len(c.budgets) > 1]
    if not curves:
        return [_unknown("No family has two budgets, so nothing can be compared.")]
    if evidence.prompts < 2:
        return [_unknown("One prompt has no intervals, so nothing is recommended. Give rollouts of more prompts.")]
    ranked = _ranked(curves, evidence)
    best = _advise(ranked, evidence)
    without = [(c, j) for c, j in ranked if not c.verifier]
    if best.verdict == "nothing to gain" or not without or not ranked[0][0].verifier:
        return [best]
    other = _advise(without, evidence)
    return [replace(best, case="with a verifier"), replace(other, case="without a verifier")]


def _ranked(families: Sequence[MeasuredFamily], evidence: Evidence) -> list[tuple[MeasuredFamily, int]]:
    """Rule 2: every family with the index of its N, best first. Of equal ones the first stays first."""
    found = [(c, _budget(c, evidence)) for c in families]
    return sorted(found, key=lambda cj: -round(cj[0].values[cj[1]] - evidence.price * cj[0].costs[cj[1]], 9))


def _budget(c: MeasuredFamily, evidence: Evidence) -> int:
    """Rule 1: the index of N."""
    at = 0
    while worth := [j for j in _larger(c, at, evidence) if _pays(c, j, at, evidence)]:
        at = worth[0]
    return at


def _larger(c: MeasuredFamily, at: int, evidence: Evidence) -> list[int]:
    """Indices of the larger budgets that leave M >= 2N."""
    return [j for j in range(at + 1, len(c.budgets)) if 2 * c.budgets[j] <= evidence.rollouts]


def _pays(c: MeasuredFamily, j: int, at: int, evidence: Evidence) -> bool:
    gain = _gain(c, j, at, evidence)
    return gain.low > 0 and gain.mean > evidence.price * (c.costs[j] - c.costs[at])


def _advise(ranked: Sequence[tuple[MeasuredFamily, int]], evidence: Evidence) -> Advice:
    """The first of the ranked families, with its reasons."""
    c, j = ranked[0]
    s, first, last = (c.at(n) for n in (c.budgets[j], c.budgets[0], c.budgets[-1]))
    if j == 0:
        total = _gain(c, -1, 0, evidence)
        flat = f", which is not measurable.{_why_flat(c, evidence)}" if total.low <= 0 <= total.high else "."
        reasons = [f"Over {s}, {last} gains {total}{flat}", *_why_no_more(c, j, evidence)]
        reasons += [_why_dead(evidence.one, evidence)] if _is_dead(evidence.one, evidence) else []
        return Advice("", "nothing to gain", str(s), c.label, None, s.n, None, tuple(reasons))
    most = f", the most of {len(ranked)} families, each at its own N" if len(ranked) > 1 else ""
    value = f"{_percent(c.values[j])} %" if evidence.binary else f"{c.values[j]:z.3g}"
    reasons = [f"{s} is worth {value}{most}: {_gain(c, j, 0, evidence)} over {first}."]
    train, why_train = _objective(s, evidence)
    if _is_dead(train, evidence):
        reasons += [*_rival(ranked, evidence), *_why_no_more(c, j, evidence), _why_dead(train, evidence)]
        return Advice("", "nothing to train for", str(s), c.label, None, s.n, None, tuple(reasons))
    m, why_m = _group(train, s.n, evidence)
    reasons += [
        *_rival(ranked, evidence),
        *_why_no_more(c, j, evidence),
        why_train,
        why_m,
        *known("grpo", [train], evidence.rate),
    ]
    return Advice("", "train", str(s), c.label, str(train), s.n, m, tuple(r for r in reasons if r))


def _rival(ranked: Sequence[tuple[MeasuredFamily, int]], evidence: Evidence) -> list[str]:
    """Whether the runner-up is measurably behind, less what its samples cost."""
    if len(ranked) < 2:
        return []
    (best, j), (second, k) = ranked[:2]
    if abs(second.values[k] - best.values[0]) < _ROUNDING:  # said already: it is the smallest budget of the best
        return []
    price = evidence.price * (best.costs[j] - second.costs[k])
    ahead = _Gain.of(best.values[j] - second.values[k] - price, best.draws[:, j] - second.draws[:, k] - price, evidence)
    less = ", less the price of its samples" if price else ""
    unclear = "" if ahead.low > 0 else ": not measurable, so choose by other reasons"
    return [f"That is {ahead} ahead of {second.at(second.budgets[k])}{less}{unclear}."]


def _why_no_more(c: MeasuredFamily, at: int, evidence: Evidence) -> list[str]:
    """Why N stops where it does."""
    larger, last = _larger(c, at, evidence), len(c.budgets) - 1
    if larger:
        j = larger[0]
        price = evidence.price * (c.costs[j] - c.costs[at])
        cost = f" and its samples cost {_points(price, evidence).lstrip('+')}" if price else ""
        return [
            f"N stays at {c.budgets[at]}: {c.at(c.budgets[j])} adds {_gain(c, j, at, evidence)}{cost}, and no larger N "
            f"up to {evidence.rollouts // 2} pays."
        ]
    if at == last:
        return []
    more = "sample more rollouts to plan for it" if _pays(c, last, at, evidence) else "no reason to sample more"
    return [
        f"N ends at {c.budgets[at]}: groups of 2N rollouts can be measured with N up to {evidence.rollouts // 2}. "
        f"{c.at(c.budgets[last])} adds {_gain(c, last, at, evidence)}: {more}."
    ]


def _objective(s: Strategy, evidence: Evidence) -> tuple[Strategy, str]:
    """Rule 3: the strategy, or its mixture with one sample."""
    compared = evidence.overlap(s)
    if compared is None:
        return s, ""
    overlap, on_less_solved = compared
    under = "" if evidence.transform is None else f" under {evidence.transform}"
    same = f"Over prompts, the gradients of {s}{under} and {evidence.one} overlap by {_percent(overlap)} %"
    if overlap >= _LEAST_OVERLAP:
        return s, f"{same}, half or more: no mixture is needed."
    if not on_less_solved:
        return s, f"{same}, and {s} does not move to less solved prompts: no mixture is needed."
    mixed = Mixture({evidence.one: _SHARE_OF_ONE, s: 1 - _SHARE_OF_ONE})
    return mixed, (
        f"{same}, and {s} leaves the prompts that are solved often: they would drift. The mixture keeps a share of "
        f"{_SHARE_OF_ONE:g} for them (a convention to start from, not a measurement)."
    )


def _group(train: Strategy, n: int, evidence: Evidence) -> tuple[int, str]:
    """Rule 4: M, and the share of dead groups it comes with."""
    at_two = evidence.dead(train, 2 * n)
    if at_two <= _MOST_DEAD:
        return (
            2 * n,
            f"M = 2N = {2 * n}: {_percent(at_two)} % of the groups are dead (all their weights are 0).",
        )
    said = f"M = 4N = {4 * n}: at 2N = {2 * n}, {_percent(at_two)} % of the groups are dead (all their weights are 0)"
    if 4 * n > evidence.rollouts:
        return 4 * n, f"{said}. How many are at 4N, {evidence.rollouts} rollouts do not say."
    at_four = evidence.dead(train, 4 * n)
    if at_four <= _MOST_DEAD:
        return 4 * n, f"{said}; at 4N, {_percent(at_four)} %."
    least = evidence.dead(train, evidence.rollouts)
    advice = (
        f"Leave out prompts that are always or never solved: with all {evidence.rollouts} rollouts {_percent(least)} % "
        "are still dead."
        if least > _MOST_DEAD
        else f"Larger groups would help: with all {evidence.rollouts} rollouts only {_percent(least)} % are dead."
    )
    return 4 * n, f"{said}; at 4N, the largest considered, {_percent(at_four)} %. {advice}"


def _is_dead(train: Strategy, evidence: Evidence) -> bool:
    """Whether no group that can be measured teaches anything."""
    sizes = {m for m in (2 * train.n, 4 * train.n, evidence.rollouts) if m <= evidence.rollouts}
    return all(evidence.dead(train, m) > 1 - _ROUNDING for m in sizes)


def _why_dead(train: Strategy, evidence: Evidence) -> str:
    """Why there is nothing to train for, and what to do."""
    b, m, alike = evidence.prompts, evidence.rollouts, evidence.never + evidence.always
    told = f"There is nothing to train for: with all {m} rollouts every group is dead for {train} (all weights are 0)."
    if evidence.never == b:
        return f"{told} No rollout of any prompt earns anything. Take easier prompts, or train on answers first."
    if evidence.always == b:
        what = "is right" if evidence.binary else "of a prompt earns the same"
        return f"{told} Every rollout of every prompt {what}. Take harder prompts."
    counts = {
        "never solved": evidence.never if evidence.binary else 0,
        "always solved": evidence.always if evidence.binary else 0,
        "solved to the same degree by every rollout": 0 if evidence.binary else alike,
        f"solved by some rollouts, but every draw of N = {train.n} of them earns the same": b - alike,
    }
    told = f"{told} Of {b} prompts, {'; '.join(f'{n} are {what}' for what, n in counts.items() if n)}."
    live = 1 - evidence.dead(evidence.one, m)
    more = f" {evidence.one} has weights on {_percent(live)} % of the prompts." if live > _ROUNDING else ""
    return f"{told}{more} Take prompts that are solved now and then."


@dataclass(frozen=True)
class _Gain:
    """A difference of values with its interval."""

    mean: float
    low: float
    high: float
    evidence: Evidence

    @classmethod
    def of(cls, mean: float, draws: Tensor, evidence: Evidence) -> _Gain:
        return cls(mean, *quantiles(draws, evidence.confidence), evidence)

    def __str__(self) -> str:
        low, high = (_signed(x, self.evidence) for x in (self.low, self.high))
        level = f"{100 * self.evidence.confidence:g} % interval"
        return f"{_points(self.mean, self.evidence)} ({level} {low} to {high})"


def _gain(c: MeasuredFamily, j: int, less: int, evidence: Evidence) -> _Gain:
    return _Gain.of(c.values[j] - c.values[less], c.draws[:, j] - c.draws[:, less], evidence)


def _why_flat(c: MeasuredFamily, evidence: Evidence) -> str:
    if max(map(abs, c.values)) < _ROUNDING:
        return " No rollout earns anything: sample more, take easier prompts, or train on answers first."
    if min(c.values) > 1 - _ROUNDING and evidence.binary:
        return " Every sample is right already: these prompts teach nothing."
    return " More samples do not help this model on these prompts."


def _unknown(reason: str) -> Advice:
    return Advice("", "unknown", None, None, None, None, None, (reason,))


def _signed(x: float, evidence: Evidence) -> str:
    text = f"{100 * x:+.1f}" if evidence.binary else f"{x:+.3g}"
    return text.lstrip("+-") if float(text) == 0 else text


def _points(x: float, evidence: Evidence) -> str:
    return _signed(x, evidence) + (" points" if evidence.binary else "")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:z.1f}"
