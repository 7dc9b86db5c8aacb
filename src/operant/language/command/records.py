"""Banks and adapted targets as plain data, for JSON and the report."""

from __future__ import annotations

import warnings
from typing import Any

from operant.language.adapted import AdaptedTextTask, FewShotWarning, Hypothesis, Vote
from operant.language.bank import TextBank
from operant.language.command.reading import TextTarget
from operant.language.execute import Execute

SHOWN = 10
"""Hypotheses of a target that are written, the heaviest first; outputs of a query likewise."""


def bank_record(bank: TextBank, given: int, candidates: int, longest: int = 80) -> dict[str, Any]:
    """The known tasks with a demonstration each.

    Args:
        bank: the known tasks, each behavior once.
        given: tasks before those that behave alike were merged.
        candidates: hypotheses that the relation offers.
        longest: tasks that are listed.
    """
    shown = [
        {"task": t.name, "input": t.demonstrations[0][0], "output": t.demonstrations[0][1], "callable": bool(t.run)}
        for t in bank.tasks[:longest]
    ]
    return {
        "kind": "bank",
        "tasks": len(bank),
        "merged": given - len(bank),
        "demonstrations": sum(len(t.demonstrations) for t in bank),
        "callable": sum(t.run is not None for t in bank),
        "candidates": candidates,
        "shown": shown,
    }


def target_record(task: AdaptedTextTask, target: TextTarget, execute: Execute) -> dict[str, Any]:
    """Hypotheses, supports, predictions and applicability of a target."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewShotWarning)  # the record says it: "fallback"
        votes = task.vote(target.queries, execute=execute)
    every, verdict = task.candidates_, task.applicability()
    best = every[0]
    found = task.hypotheses(target.queries, execute=execute)
    return {
        "kind": "target",
        "key": target.key,
        "scored": len(every),
        "refuted": sum(c.refuted for c in every),
        "supports": [
            {"input": x, "output": y, "log_p": p, "explained": known}
            for (x, y), p, known in zip(task.supports, best.log_p, best.explains, strict=True)
        ],
        "hypotheses": [_hypothesis(h) for h in found[:SHOWN]],
        "left": len(found),
        "effective_number": task.effective_number(target.queries, execute=execute),
        "fallback": task.fallback_,
        "failures": list(task.failures.values()),
        "applicability": {
            "applies": verdict.applies,
            "log_p": verdict.log_p,
            "p_value": verdict.p_value,
            "lessons": verdict.lessons,
            "lowest": verdict.lowest,
            "given": verdict.given,
        },
        "predictions": [_prediction(x, v, target.truth.get(x)) for x, v in zip(target.queries, votes, strict=True)],
    }


def _hypothesis(found: Hypothesis) -> dict[str, Any]:
    best = found.candidates[0]
    return {
        "steps": list(best.candidate.steps),
        "equals": [list(c.candidate.steps) for c in found.candidates[1:SHOWN]],
        "candidates": len(found.candidates),
        "weight": found.weight,
        "explained": best.explained,
        "given": found.given,
        "refuted": best.refuted,
        "log_p": list(best.log_p),
    }


def _prediction(x: str, vote: Vote, truth: str | None) -> dict[str, Any]:
    shares = [{"output": y, "share": w} for y, w in list(vote.shares.items())[:SHOWN]]
    few_shot = not vote.shares
    confidence = None if few_shot else vote.confidence
    return {
        "input": x,
        "output": vote.output,
        "confidence": confidence,
        "shares": shares,
        "few_shot": few_shot,
        "truth": truth,
    }
