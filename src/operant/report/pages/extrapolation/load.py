"""An extrapolation: its records, and every target in words.

The folder holds ``record.jsonl``, with one record for the bank and one for each target.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from operant.report.formats import MISSING, brief, interval, number, share
from operant.report.records import FolderRecords, Record, read_finished


@dataclass(frozen=True)
class SavedExtrapolation:
    """What ``operant extrapolate`` wrote.

    Args:
        source: the folder's records.
        bank: the known tasks: how many, their names, and points of up to 80 of them.
        targets: one record for each target.
        notes: limits of the data and of the run.
    """

    source: FolderRecords
    bank: Record
    targets: tuple[Record, ...]
    notes: tuple[str, ...]

    @property
    def level(self) -> str:
        """The level of the intervals in words: "90 %"."""
        return f"{100 * self.targets[0]['level']:g} %"


def load_extrapolation(folder: Path) -> SavedExtrapolation:
    """Read the records of an extrapolation.

    Raises:
        DataError: if the folder holds none.
    """
    found = read_finished(folder, "extrapolate", "bank", "target")
    bank = found.last("bank")
    targets = tuple(map(_current, found.every("target")))
    return SavedExtrapolation(found, bank, targets, (*found.texts("note"), *bank["notes"]))


def _current(target: Record) -> Record:
    """A target's record with today's names: the errors of the backtest were called ``shell_error`` once."""
    names = {f"shell_{k}": f"backtest_{k}" for k in ("error", "low", "high")}
    return {**target, "choice": [{names.get(k, k): v for k, v in c.items()} for c in target["choice"]]}


def name_of(target: Record) -> str:
    """The name of a target."""
    return str(target["key"])


def anchor_of(found: Record) -> str:
    """Name of the anchor of a decomposition."""
    return MISSING if found["anchor"] is None else str(found["anchor"])


def of(target: Record, operator: str) -> Record:
    """The row of an operator in the choice table of a target; None for each value that is not there."""
    unknown = dict.fromkeys(("backtest_error", "backtest_low", "backtest_high", "context_error"))
    return next((c for c in target["choice"] if c["operator"] == operator), unknown | {"weight": 0.0, "plain": False})


def mixed(target: Record) -> list[Record]:
    """The operators that are mixed in a prediction, the heaviest first."""
    return sorted((c for c in target["choice"] if c["weight"]), key=lambda c: -c["weight"])


def leading(target: Record) -> str:
    """The operator with the largest weight."""
    used = mixed(target)
    return used[0]["operator"] if used else str(target["operator"])


def is_plain(target: Record) -> bool:
    """Whether a plain baseline has the largest weight."""
    return bool(of(target, leading(target))["plain"])


def best(target: Record) -> Record | None:
    """The most probable decomposition of the operator with the largest weight, or of any operator.

    The weight of an operator may be split over anchors, so another operator may have a more probable decomposition.
    """
    found = target["decompositions"]
    return next((d for d in found if d.get("operator") == leading(target)), next(iter(found), None))


def mixture(target: Record, most: int = 3) -> str:
    """``shift * xshift (62 %), span (30 %) and 2 more``; one operator alone has no share."""
    used = mixed(target)
    if len(used) < 2:
        return leading(target)
    listed = ", ".join(f"{c['operator']} ({share(c['weight'])})" for c in used[:most])
    return listed + (f" and {len(used) - most} more" if len(used) > most else "")


def expected(choice: Record) -> float | None:
    """The expected error of an operator on the target; its error in the backtest if the record has none."""
    predicted = choice.get("predicted_error")
    return choice["backtest_error"] if predicted is None else predicted


def ranked(targets: Sequence[Record]) -> list[str]:
    """Operators by the median over targets of their expected error, smallest first; those without one last."""
    names = dict.fromkeys(c["operator"] for t in targets for c in t["choice"])
    errors = {n: median([expected(of(t, n)) for t in targets]) for n in names}
    return sorted(names, key=lambda n: (errors[n] is None, errors[n] or 0.0))


def median(values: Sequence[float | None]) -> float | None:
    """The median of the known values."""
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def headline(target: Record) -> str:
    """The result for a target, in one sentence."""
    found, verdict, name = best(target), target["applicability"], name_of(target)
    if not verdict["applicable"]:
        return (
            f"{name}: the bank does not explain it ({verdict['reason']}); the prediction shown is of {mixture(target)}."
        )
    if is_plain(target) or found is None:
        return f"{name}: predicted by {mixture(target)}; no relational operator is expected to do better."
    f = "" if found["anchor"] is None else f" with f = {anchor_of(found)}"
    # Below one half, most of the weight lies on other decompositions: one formula would mislead.
    if found["weight"] < 0.5:
        return f"{name}: a mixture of {mixture(target)}; the most probable of it is {found['transformation']}{f}."
    return f"{name}: {found['transformation']}{f}; residual on the context {number(found['residual'], 2)}."


def explanation(target: Record) -> list[str]:
    """The reasons for a prediction, a sentence each: verdict, transformation, other anchors, coverage, choice."""
    verdict, found = target["applicability"], best(target)
    p = None if verdict["reason"] else verdict["p_value"]  # a reason already names its p-value
    evidence = "" if p is None else f" (p = {number(p, 2)} that a task of the bank has an error this large)"
    told = [f"{verdict['text'].rstrip('.')}{evidence}."]
    if found is not None:
        f = "" if found["anchor"] is None else f", f = {anchor_of(found)}"
        told.append(f"Most probable ({share(found['weight'])}): {found['transformation']}{f}.")
        told += [f"Its parameters, with 90 % intervals: {parameters_text(found)}."] if found["parameters"] else []
        others: dict[str, float] = {}
        for d in target["decompositions"]:
            if d["anchor"] not in (None, found["anchor"]):
                others[anchor_of(d)] = others.get(anchor_of(d), 0.0) + d["weight"]
        if others:
            heaviest = sorted(others.items(), key=lambda o: -o[1])[:4]
            told.append(f"Other anchors: {', '.join(f'{key} ({share(weight)})' for key, weight in heaviest)}.")
    covered = target["share_covered"]
    if covered is not None and covered < 1:
        told.append(f"Known tasks cover {share(covered)} of the query; beyond their range they were continued.")
    return [*told, *_why(target)]


def _why(target: Record) -> list[str]:
    """The operators that are mixed, and the heaviest beside the best plain baseline."""
    told = [f"The prediction mixes {mixture(target, 4)}."] if len(mixed(target)) > 1 else []
    chosen = of(target, leading(target))
    others = [of(target, n) for n in ranked([target]) if n != leading(target)]
    plain = next((c for c in others if c["plain"] and expected(c) is not None), None)
    if expected(chosen) is None or plain is None:
        return told
    return [
        *told,
        f"Expected error, from the backtest and the context: {leading(target)} {brief(expected(chosen))}; "
        f"{plain['operator']}, the best {'other ' if chosen['plain'] else ''}plain baseline, {brief(expected(plain))}.",
    ]


def parameters_of(found: Record) -> dict[str, tuple[float, float | None, float | None]]:
    """Name -> value, low, high of each number of a transformation; ``scale[1]`` is of the second output."""
    numbers: dict[str, float] = {}
    for kind, value in found["parameters"].items():
        several = value if isinstance(value, list) else [value]
        numbers |= {kind if len(several) == 1 else f"{kind}[{i}]": v for i, v in enumerate(several)}
    return {name: (v, *found["intervals"].get(name, (None, None))) for name, v in numbers.items()}


def parameters_text(found: Record) -> str:
    """``xshift 0.41 (0.38 to 0.44), shift -0.1``; empty if a decomposition has none."""
    told: list[str] = []
    for name, (value, low, high) in parameters_of(found).items():
        ends = interval(low, high, brief)
        told.append(f"{name} {brief(value)}" + (f" ({ends})" if ends else ""))
    return ", ".join(told)
