"""What training for a strategy has been measured to do, and the advice that follows before a run.

The findings are data: each has its source, and new ones are rows. They speak of the settings in which they were
measured, small models on arithmetic and proteins; a finding for another start says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from operant.strategies.base import Strategy
from operant.strategies.counts import PassAt
from operant.strategies.mixture import Mixture
from operant.strategies.ranking import BestOf
from operant.strategies.votes.majority import Majority

Conclusion = Literal["loses", "risky", "level", "wins", "try first"]


@dataclass(frozen=True)
class Finding:
    """The strategy's training against the tuned baseline, at the strategy's own budget.

    Args:
        family: the class of the strategy.
        methods: methods of ``operant train`` for which it holds.
        starts: least and largest success rate of one sample at the start, over what was measured.
        verdict: "loses" and "risky" are warnings, "level" and "wins" are not; "try first" is what costs no training.
        told: what was measured, in a sentence.
        instead: what to do; empty where nothing is to be said.
        source: the experiment.
        least_n: smallest budget for which it holds.
    """

    family: type[Strategy]
    methods: tuple[str, ...]
    starts: tuple[float, float]
    verdict: Conclusion
    told: str
    instead: str
    source: str
    least_n: int = 1


_RL = ("grpo", "rloo")
FINDINGS: tuple[Finding, ...] = (
    Finding(
        Majority,
        _RL,
        (0.05, 0.6),
        "loses",
        "its exact credit ended below GRPO at the vote itself",
        "Train for pass@1 with the transform log:0.02, and deploy the vote.",
        "experiments/rl_arithmetic: -1.6 (-2.8 to -0.6) from 5 %; experiments/rl_majority: -4.6 (-9.5 to 0.3), 20 %",
    ),
    Finding(
        BestOf,
        _RL,
        (0.05, 1.0),
        "risky",
        "on sums and quotients its exact credit ended above tuned GRPO, on proteins level with it, and there one "
        "learning rate of three lost all valid samples with two seeds of five",
        "Use several seeds and learning rates, and compare with the baseline.",
        "experiments/protein_unconditional; experiments/arena, best@8",
    ),
    Finding(
        PassAt,
        _RL,
        (0.04, 0.2),
        "wins",
        "pass@16 with the transform arcsin ended 10.7 points (4.9 to 16.5) above tuned GRPO, both with falling rates; "
        "from 20 % 3.6 (.9 to 6.4), both with constant ones",
        "",
        "experiments/arena, RL on sums, pass@16",
    ),
    Finding(
        PassAt,
        ("sft",),
        (0.02, 0.1),
        "level",
        "pass@64 ended 1.5 points (-2.1 to 5.2) from cross-entropy at its best learning rate, step and temperature",
        "",
        "operant demo, eight seeds, 1,500 held-out prompts",
        least_n=64,
    ),
    Finding(
        PassAt,
        ("proposer",),
        (0.0, 1.0),
        "level",
        "pass@64 was level with tuned cross-entropy (-0.2 points, -0.8 to 0.4)",
        "",
        "experiments/proposer",
        least_n=64,
    ),
    Finding(
        PassAt,
        ("sft", *_RL),
        (0.02, 0.1),
        "try first",
        "On products it gave cross-entropy 1.2 points at pass@64 and 2.8 at pass@256, without more training.",
        "first try a hotter sampler.",
        "operant demo, the rows ce and ce, best T",
        least_n=64,
    ),
    Finding(
        Mixture,
        _RL,
        (0.05, 0.2),
        "try first",
        "From 5 % right answers it ended 7.3 points above tuned GRPO at pass@16 and level with it at pass@1 (eight "
        "seeds); no mixture is known to do this.",
        "by RL, first try pass@1 with the transform log:0.02.",
        "experiments/arena, RL on sums; one mixture in its screening, two in experiments/rl_arithmetic",
    ),
)


def advice(method: str, strategies: Iterable[Strategy], start: float | None = None) -> list[str]:
    """What is known against training for these strategies, one text each; empty if nothing is.

    Args:
        method: sft, grpo or rloo.
        strategies: what is trained for; of a mixture, every part is looked up.
        start: success rate of one sample before training, in [0, 1]; None if it is not known yet.

    >>> from operant import PassAt
    >>> advice("grpo", [PassAt(16)], 0.05)
    []
    """
    found: list[str] = []
    for s in strategies:
        for part in _parts(s):
            found += [_text(s, part, f, start) for f in FINDINGS if _concerns(f, method, part)]
    return list(dict.fromkeys(found))


def _parts(s: Strategy) -> Iterator[Strategy]:
    """Of a mixture its parts, and itself where one of them is pass@N."""
    if isinstance(s, Mixture):
        if any(isinstance(part, PassAt) and part.n > 1 for part, _ in s.parts):
            yield s
        for part, _ in s.parts:
            yield from _parts(part)
    else:
        yield s


def _concerns(f: Finding, method: str, s: Strategy) -> bool:
    """A finding with something to do about it. One sample is no vote and no choice."""
    return method in f.methods and type(s) is f.family and s.n >= max(f.least_n, 2) and bool(f.instead)


def _text(s: Strategy, part: Strategy, f: Finding, start: float | None) -> str:
    if f.verdict == "try first":
        return f"{s}: {f.instead} {f.told}"
    low, high = f.starts
    where = f"from starts of {100 * low:.0f} to {100 * high:.0f} % right answers"
    if start is not None and low <= start <= high:
        where = f"from a start like this one ({100 * start:.1f} % right answers)"
    elif start is not None:
        where += f" ({100 * start:.1f} %, as here, was not measured)"
    name = f"{part}" if part == s else f"{part}, a part of {s},"
    doubt = "is known to lose" if f.verdict == "loses" else "is risky"
    return f"Training for {name} {doubt} {where}: {f.told}. {f.instead}"
