"""An extrapolation: its records, and every target in words.

The folder holds ``record.jsonl``, with one record for the bank and one for each target.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from operant.report.formats import MISSING, brief, interval, share
from operant.report.records import FolderRecords, Record, read_finished


@dataclass(frozen=True)
class SavedExtrapolation:
    """What ``operant extrapolate`` wrote.

    Args:
        source: the folder's records.
        bank: the known tasks: how many, their names, and points of up to 80 of them.
        targets: one record for each target.
        factors: warps along x from one reference; empty where no target is led by one.
        notes: limits of the data and of the run.
    """

    source: FolderRecords
    bank: Record
    targets: tuple[Record, ...]
    factors: Record
    notes: tuple[str, ...]

    @property
    def level(self) -> str:
        """The level of the intervals in words: "90 %"."""
        return f"{100 * self.targets[0]['level']:g} %"

    @property
    def units(self) -> dict[str, str]:
        """Column -> unit, where one is known."""
        return self.bank.get("units") or {}


def load_extrapolation(folder: Path) -> SavedExtrapolation:
    """Read the records of an extrapolation.

    Raises:
        DataError: if the folder holds none.
    """
    found = read_finished(folder, "extrapolate", "bank", "target")
    bank = found.last("bank")
    targets = tuple(map(_current, found.every("target")))
    notes = (*found.texts("note"), *bank["notes"])
    return SavedExtrapolation(found, bank, targets, found.last("shift_factors"), notes)


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
