"""``operant plan``: the value of strategies and budgets on saved rollouts, and what to train for.

Nothing is trained or sampled. Curves, credits and shares of dead groups are unbiased for the model that made the
rollouts. ``recommend`` turns them into a choice by the rules in its docstring.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from operant.core.bootstrap import resampled_means
from operant.core.checks import BudgetError, InputError
from operant.core.progress import track
from operant.core.record import claim_folder, extend_records, write_records
from operant.core.rng import numpy_generator
from operant.estimators.transform import Transform
from operant.hf.config import PlanConfig, config_dict
from operant.hf.rollouts.families import StrategyFamily, families_of, needs_verifier
from operant.hf.rollouts.formats.read import check_answered, read_rollouts
from operant.hf.rollouts.recommend import Evidence, MeasuredFamily, quantiles, recommend
from operant.hf.rollouts.rows import examples, failure_warnings, outcomes_of, verify_rows
from operant.hf.rollouts.signals import (
    BINS,
    bin_of,
    compare_signals,
    counts_successes,
    dead_share,
    dead_shares,
    signal_shares,
    spread,
    success_rate,
)
from operant.hf.rollouts.sweep.compare import matched, sentences
from operant.objectives import credit
from operant.strategies import BestOf, Outcomes, PassAt, Strategy, parse

# Rollouts a prompt that a plan needs: N = 2, trained with M = 2 N.
_LEAST = 4


def plan(config: PlanConfig) -> Path:
    """Compute the plan, write record.jsonl and prompts.jsonl, and return the folder.

    Raises:
        DataError: for a folder in use, unreadable rollouts, or unequal numbers of rollouts.
        InputError, BudgetError, ParseError: for settings that cannot work.
    """
    if not (0 < config.confidence < 1 and 0 <= config.price < math.inf):
        raise InputError(
            f"expected 0 < confidence < 1 and a finite price >= 0, got {config.confidence}, {config.price}."
        )
    with Console().status("reading rollouts"):
        read = read_rollouts(config.rollouts, config)
    Console().print(read.said, soft_wrap=True, markup=False, highlight=False)
    check_answered(read.rows, config.rollouts)
    with claim_folder(config.output_dir, "plan", config_dict(config), outputs=("prompts.jsonl",)):
        _write(config, read.rows)
    return config.output_dir


def _write(config: PlanConfig, rows: list[dict[str, Any]]) -> None:
    """The record comes last: a folder without one holds no plan."""
    folder = config.output_dir
    rows = verify_rows(rows, config.verifier)
    ids, outcomes = outcomes_of(rows)
    records, prompts = make_plan(
        ids,
        outcomes,
        strategies=None if config.strategies is None else [parse(text) for text in config.strategies],
        budgets=config.budgets,
        price=config.price,
        transform=Transform.parse(config.transform) if config.transform else None,
        confidence=config.confidence,
        seed=config.seed,
    )
    told = [
        {"kind": "note", "text": text} for text in [*failure_warnings(rows), *_compared(config, ids, outcomes, records)]
    ]
    told += [{"kind": "example", **entry} for entry in examples(rows)]
    write_records(folder / "prompts.jsonl", prompts)
    extend_records(folder / "record.jsonl", [*told, *records])


def _compared(
    config: PlanConfig, ids: Sequence[Any], outcomes: Outcomes, records: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """What the rollouts of other files are worth at what is recommended."""
    strategies = None if config.strategies is None else [parse(text) for text in config.strategies]
    families = families_of(outcomes, strategies, config.budgets)
    advised = [r for r in records if r["kind"] == "recommendation"]
    for path in config.compare:
        other_ids, other = outcomes_of(verify_rows(read_rollouts(path, config).rows, config.verifier))
        there = matched(path, ids, other_ids, other)
        yield from sentences(path, outcomes, there, families, advised, confidence=config.confidence, seed=config.seed)


def make_plan(
    ids: Sequence[Any],
    outcomes: Outcomes,
    *,
    strategies: Sequence[Strategy] | None = None,
    budgets: Sequence[int] | None = None,
    price: float = 0.0,
    transform: Transform | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of a plan, and one line for every prompt: its success rate and its share of each signal.

    Args:
        ids: the B prompts.
        outcomes: (B, M).
        strategies: one member of each family to compare. Default: pass, maj, best and pass^, where the rollouts allow.
        budgets: of the curves, at most M. Default: powers of two.
        price: of one sample, in reward.
        transform: g of the training objective E g(V). It weighs prompts anew, so it changes the signals and the
            overlap. A group is dead for g exactly if it is for V, because g increases.
        confidence: level of the intervals.
        seed: of the bootstrap and of the random subsets.

    Raises:
        BudgetError: for fewer than 4 rollouts a prompt, or larger budgets than M.
        InputError: for two members of one family, or values outside the domain of the transform.
    """
    if outcomes.m < _LEAST:
        raise BudgetError(
            f"a plan needs at least {_LEAST} rollouts a prompt, got M = {outcomes.m}: credit of N = 2 takes "
            "M = 2 N. Sample more rollouts."
        )
    families = families_of(outcomes, strategies, budgets)
    rate = success_rate(outcomes)
    measured = _measured(families, outcomes, seed)
    records = [_about(outcomes, rate, confidence), *(_curve_record(c, confidence, len(ids)) for c in measured)]
    shares: dict[str, Tensor] = {}
    # Credit of N needs more than N rollouts, and training takes M = 2N at least.
    jobs = [(f, n) for f in families for n in f.budgets if 2 * n <= outcomes.m]
    for family, n in track(jobs, "credits"):
        s = family.at(n)
        weights = credit(s, outcomes, transform=transform)
        shares[str(s)] = share = signal_shares(weights)
        dead = dead_shares(s, outcomes, weights, seed=seed)
        about = {"kind": "signal", "strategy": family.label, "n": n, "name": str(s)}
        about |= {"dead": dead, "exact": counts_successes(s, outcomes)}
        records.append(about | spread(share, rate, ids))
    evidence = _evidence(outcomes, rate, price=price, transform=transform, confidence=confidence, seed=seed)
    with_g = {"transform": None if transform is None else str(transform)}
    records += [{"kind": "recommendation", **vars(advice), **with_g} for advice in recommend(measured, evidence)]
    prompts = [
        {"prompt": p, "rate": rate[i].item(), "signal": {k: s[i].item() for k, s in shares.items()}}
        for i, p in enumerate(ids)
    ]
    return records, prompts


def _measured(families: Sequence[StrategyFamily], outcomes: Outcomes, seed: int) -> list[MeasuredFamily]:
    """What was measured of every family, with the same resamples for all."""
    values = [f.values(outcomes) for f in track(families, "curves")]
    # The same resamples for all families, so that their differences have intervals too.
    draws = resampled(torch.cat(values, dim=1), seed).split([len(f.budgets) for f in families], dim=1)
    return [
        MeasuredFamily(
            label=f.label,
            budgets=f.budgets,
            at=f.at,
            values=v.mean(0).tolist(),
            costs=f.costs(outcomes),
            draws=d,
            verifier=needs_verifier(f.at(f.budgets[-1]), outcomes),
        )
        for f, v, d in zip(families, values, draws, strict=True)
    ]


def _evidence(
    outcomes: Outcomes, rate: Tensor, *, price: float, transform: Transform | None, confidence: float, seed: int
) -> Evidence:
    """What the rules of the recommendation need to know of these rollouts."""
    one = PassAt(1) if outcomes.binary else BestOf(1)  # either is worth the mean reward
    same = (outcomes.reward == outcomes.reward[:, :1]).all(-1)
    earns = outcomes.reward[:, 0] != 0
    return Evidence(
        prompts=len(outcomes.reward),
        rollouts=outcomes.m,
        price=price,
        confidence=confidence,
        binary=outcomes.binary,
        one=one,
        never=int((same & ~earns).sum()),
        always=int((same & earns).sum()),
        dead=lambda s, m: dead_share(s, outcomes, m, seed=seed),
        overlap=lambda s: compare_signals(credit(one, outcomes), credit(s, outcomes, transform=transform), rate),
        rate=outcomes.reward.double().mean().item() if outcomes.binary else None,
        transform=transform,
    )


def resampled(values: Tensor, seed: int) -> Tensor:
    """Means of the columns of (B, C) over bootstrap resamples of the prompts, (R, C): paired, all columns alike."""
    means = resampled_means(values.T[:, None].numpy(), numpy_generator(seed, "plan", "bootstrap"))
    return torch.from_numpy(means.T)


def _about(outcomes: Outcomes, rate: Tensor, confidence: float) -> dict[str, Any]:
    return {
        "kind": "rollouts",
        "prompts": len(outcomes.reward),
        "rollouts": outcomes.m,
        "binary": outcomes.binary,
        "confidence": confidence,
        "bins": BINS,
        "prompts_in_bins": torch.bincount(bin_of(rate), minlength=len(BINS)).double().div(len(rate)).tolist(),
    }


def _curve_record(c: MeasuredFamily, confidence: float, prompts: int) -> dict[str, Any]:
    def interval(draws: Tensor) -> dict[str, float | None]:
        low, high = quantiles(draws, confidence) if prompts > 1 else (None, None)
        return {"low": low, "high": high}

    points = [
        {"n": n, "value": c.values[j], "cost": c.costs[j], **interval(c.draws[:, j])} for j, n in enumerate(c.budgets)
    ]
    gains = [
        {"n": c.budgets[j], "from": c.budgets[j - 1], "value": c.values[j] - c.values[j - 1]}
        | interval(c.draws[:, j] - c.draws[:, j - 1])
        for j in range(1, len(c.budgets))
    ]
    return {"kind": "curve", "strategy": c.label, "verifier": c.verifier, "points": points, "gains": gains}
