"""An extrapolation of text tasks: its records, and every target in words.

The folder holds ``record.jsonl``, with a record for the model, one for the bank and one for each target; the demo adds
a comparison of methods.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from operant.report.formats import MISSING, number, share
from operant.report.records import FolderRecords, Record, read_finished

SEVERAL = 1.5
"""Effective number of hypotheses from which a reader is warned: two of equal weight are 2."""
_LONG = 60


@dataclass(frozen=True)
class SavedText:
    """What ``operant extrapolate`` wrote for text tasks.

    Args:
        source: the folder's records.
        model: its name, relation, size and losses.
        bank: the known tasks: how many, and a demonstration of each of the first 80.
        targets: one record for each target.
        comparison: accuracy of several methods on held-out tasks; empty if there is none.
        notes: limits of the data.
    """

    source: FolderRecords
    model: Record
    bank: Record
    targets: tuple[Record, ...]
    comparison: Record
    notes: tuple[str, ...]


def load_text(folder: Path) -> SavedText:
    """Read the records of a run.

    Raises:
        DataError: if no target is finished.
    """
    found = read_finished(folder, "extrapolate", "model", "bank", "target")
    model, bank = found.last("model"), found.last("bank")
    notes = tuple(dict.fromkeys(found.texts("note")))
    return SavedText(found, model, bank, found.every("target"), found.last("comparison"), notes)


def quoted(text: str | None) -> str:
    r"""A text of the user's as it stands, in quotes, so that spaces are seen; cut at 60 characters.

    >>> quoted("a b "), quoted(""), quoted("a\nb"), quoted(None)
    ('"a b "', '""', '"a\\nb"', '–')
    """
    if text is None:
        return MISSING
    return json.dumps(text if len(text) <= _LONG else f"{text[: _LONG - 1]}…", ensure_ascii=False)


def chain(steps: Sequence[str]) -> str:
    """Known tasks in their order: the anchor's first, the transformation last."""
    return " > ".join(steps)


def relation(run: SavedText) -> str:
    """What targets are, in words."""
    found, known = run.model["relation"], run.bank["tasks"]
    if found["name"] == "Compose":
        return f"chains of up to {found['depth']} of {known} known tasks"
    if found["name"] == "Toggle":
        return f"one of {known} known tasks with one more element"
    return f"what {found['name']} makes of {known} known tasks"


def summary(run: SavedText) -> str:
    """What was asked of which model with which data, in one sentence."""
    count, queries = len(run.targets), sum(len(t["predictions"]) for t in run.targets)
    sizes = sorted({len(t["supports"]) for t in run.targets})
    supports = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    tasks = "1 text task" if count == 1 else f"{count} text tasks"
    size = f"{run.model['name']}, {run.model['parameters']:,} parameters"
    asked = f"{queries} input{'s' * (queries != 1)} predicted as {relation(run)} by a model ({size})."
    each, plural = " each" * (count > 1), "s" * (supports != "1")
    return f"{tasks} with {supports} support{plural}{each}, {asked}"


def headline(target: Record) -> str:
    """The result for a target, in one sentence."""
    found, key = target["hypotheses"], target["key"]
    if target["fallback"] or not found:
        return f"{key}: no combination of known tasks is trusted; the model answered from the supports alone."
    best = found[0]
    if not best["explained"] and not best["given"]:
        return (
            f"{key}: no candidate explains a support; the most probable one is {chain(best['steps'])} "
            f"({share(best['weight'])})."
        )
    told = f"{key}: {chain(best['steps'])} ({share(best['weight'])}), explains {_of(best, target)}"
    return f"{told}; predictions {confidences(target)}."


def confidences(target: Record) -> str:
    """The range of the confidences of a target's predictions."""
    known = sorted(p["confidence"] for p in target["predictions"] if p["confidence"] is not None)
    if not known:
        return "without a confidence"
    low, high = share(known[0]), share(known[-1])
    return f"with confidence {low}" if low == high else f"with confidence {low} to {high}"


def explanation(target: Record) -> list[str]:
    """The evidence for a target, a sentence each: applicability, hypotheses, runners-up, known answers."""
    verdict, found = target["applicability"], target["hypotheses"]
    told = [f"Few-shot prompting: {target['fallback']}."] if target["fallback"] else []
    if verdict["p_value"] is not None:
        told.append(
            f"Mean log-probability of a support's token, best candidate: {number(verdict['log_p'], 3)}; p-value "
            f"against {verdict['lessons']} known lessons that were not trained on: {number(verdict['p_value'], 2)}."
        )
    refuted = f", {target['refuted']} contradict a support when they are run" if target["refuted"] else ""
    told.append(
        f"Of {target['scored']} candidates{refuted}; the likely ones vote. Different hypotheses among them: "
        f"{target['left']}; effective number: {number(target['effective_number'], 2)}."
    )
    if found and (equal := found[0]["equals"]):
        told.append(f"The same outputs: {', '.join(chain(steps) for steps in equal[:3])}.")
    if others := [f"{chain(h['steps'])} ({share(h['weight'])})" for h in found[1:4]]:
        told.append(f"Next: {', '.join(others)}.")
    if known := [p for p in target["predictions"] if p["truth"] is not None]:
        right = sum(p["output"] == p["truth"] for p in known)
        told.append(f"Of {len(known)} known answers {right} are predicted.")
    return [*told, *(f"Left out: {text}" for text in target["failures"])]


def cautions(target: Record) -> list[tuple[str, str]]:
    """What a reader must not miss, and what to do about it."""
    key, found = target["key"], target["hypotheses"]
    if target["fallback"] or not found:
        why = target["fallback"] or "no candidate can be run"
        advice = "Do not rely on them: give other supports, add tasks to the bank, or train longer."
        return [(f"{key}: the predictions come from few-shot prompting ({why}).", advice)]
    told: list[tuple[str, str]] = []
    best, size = found[0], len(target["supports"])
    if best["refuted"]:
        told.append(
            (
                f"{key}: no candidate gives every support when it is run; the best one gives {best['explained']} of "
                f"{size}.",
                "The supports are taken as noisy. Check them, or add the missing step to the bank.",
            )
        )
    elif best["given"] < size:
        told.append(
            (
                f"{key}: executed, the best candidate gives {best['given']} of {size} supports.",
                "It is wrong, or the model cannot execute its last step: train longer, run the steps (--execute run), "
                "or add the missing step to the bank.",
            )
        )
    if target["effective_number"] > SEVERAL:
        left = number(target["effective_number"], 2)
        told.append(
            (
                f"{key}: about {left} different hypotheses are left.",
                "Where they disagree the confidence is low. Another support tells them apart.",
            )
        )
    return told


def _of(hypothesis: Record, target: Record) -> str:
    count = len(target["supports"])
    return f"{hypothesis['explained']} of {count} support{'s' * (count != 1)}"
