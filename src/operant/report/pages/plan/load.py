"""A plan: its records, its headline, and its table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from operant.report.formats import MISSING, aligned, interval, number, percent, share
from operant.report.records import FolderRecords, Record, read_finished


@dataclass(frozen=True)
class SavedPlan:
    """The records of a plan, by kind.

    Args:
        source: the folder's records.
        rollouts: B, M, whether rewards are binary, the bins of success rate and the prompts in each.
        curves: one for each family: points and gains with intervals.
        signals: one for each family and budget N <= M/2: dead groups, and the prompts that carry the gradient.
        advice: one or two recommendations.
        notes: limits of the numbers.
    """

    source: FolderRecords
    rollouts: Record
    curves: tuple[Record, ...]
    signals: tuple[Record, ...]
    advice: tuple[Record, ...]
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The families."""
        return tuple(c["strategy"] for c in self.curves)

    @property
    def binary(self) -> bool:
        """Whether values are percentages."""
        return bool(self.rollouts["binary"])

    @property
    def level(self) -> str:
        """The confidence level in words: "95 %"."""
        return f"{100 * self.rollouts['confidence']:g} %"

    def text(self, x: float | None, *, sign: bool = False) -> str:
        """A value or, with its sign, a difference: percent if rewards are binary, otherwise as it is."""
        return percent(x, sign=sign) if self.binary else number(x, 3, sign=sign)

    def interval(self, point: Record, *, sign: bool = False) -> str:
        """``11.0 to 14.1``; empty where there is none."""
        return interval(point["low"], point["high"], lambda x: self.text(x, sign=sign))

    def of(self, label: str) -> tuple[Record, ...]:
        """The signals of one family, by budget."""
        return tuple(s for s in self.signals if s["strategy"] == label)


def load_plan(folder: Path) -> SavedPlan:
    """Read the records of a plan.

    Raises:
        DataError: if the folder holds none.
    """
    found = read_finished(folder, "plan", "rollouts")
    rollouts = found.last("rollouts")
    return SavedPlan(
        source=found,
        rollouts=rollouts,
        curves=found.every("curve"),
        signals=found.every("signal"),
        advice=found.every("recommendation"),
        notes=(*found.texts("note"), *_notes(rollouts)),
    )


def _notes(rollouts: Record) -> list[str]:
    found: list[str] = []
    if rollouts["prompts"] == 1:
        found.append("One prompt: intervals are unavailable, because they need the spread between prompts.")
    elif rollouts["prompts"] < 20:
        found.append(f"{rollouts['prompts']} prompts: the intervals are rough and tend to be too narrow.")
    if not rollouts["binary"]:
        found.append(
            "Rewards are not 0 or 1: pass@N and pass^N are left out. Success rates are mean rewards, scaled from the "
            "lowest reward to the highest."
        )
    return found


def headline(advice: Record) -> str:
    """A recommendation in one sentence."""
    if advice["verdict"] == "unknown":
        return "No recommendation."
    if advice["verdict"] == "nothing to gain":
        text = f"nothing to gain from more samples: deploy {advice['deploy']}."
    elif advice["verdict"] == "nothing to train for":
        text = f"deploy {advice['deploy']}. Training would have no signal, because every group of rollouts is dead."
    else:
        what = "train for it" if advice["train"] == advice["deploy"] else f"train for {advice['train']}"
        what += f" with --transform {advice['transform']}" if advice.get("transform") else ""
        text = f"deploy {advice['deploy']}, {what}, M = {advice['m']} rollouts a prompt."
    text = f"{advice['case']}: {text}" if advice["case"] else text
    return text[:1].upper() + text[1:]


def at_budget(points: Sequence[Record], n: int) -> Record | None:
    """The point of a curve with this budget."""
    return next((p for p in points if p["n"] == n), None)


def dead_rows(plan: SavedPlan) -> list[list[str]]:
    """Head and rows of the table of dead groups; a size that needs more rollouts than there are is unknown."""
    m = plan.rollouts["rollouts"]
    rows = [["credit of", "dead at 2N", "dead at 4N", f"dead at {m}"]]
    for s in plan.signals:
        shares = {d["m"]: d["share"] for d in reversed(s["dead"])}
        rows.append([s["name"], *(share(shares.get(size)) for size in (2 * s["n"], 4 * s["n"], m))])
    return rows


def plan_table(plan: SavedPlan) -> str:
    """The recommendations with their reasons, and the tables, as plain text for the terminal."""
    lines: list[str] = []
    for advice in plan.advice:
        lines += [headline(advice), *(f"  - {reason}" for reason in advice["reasons"]), ""]
    lines += [*plan.notes, ""] if plan.notes else []
    unit = "%" if plan.binary else "reward"
    values = [["N", *(f"{label}, {unit}" for label in plan.labels)]]
    for n in sorted({p["n"] for c in plan.curves for p in c["points"]}):
        values.append([str(n), *(_value(at_budget(c["points"], n), plan) for c in plan.curves)])
    lines += aligned(values)
    lines += [f"mean over {plan.rollouts['prompts']} prompts ({plan.level} bootstrap interval over prompts)", ""]
    carried = ["top tenth carries", *(share(s["top_tenth"]) for s in plan.signals)]
    signals = [[*cells, last] for cells, last in zip(dead_rows(plan), carried, strict=True)]
    told = "dead: share of groups whose weights are all 0; –: needs more rollouts"
    return "\n".join([*lines, *aligned(signals), told])


def _value(point: Record | None, plan: SavedPlan) -> str:
    """``12.3 (11.0 to 14.1)``; without an interval where there is none."""
    if point is None:
        return MISSING
    found = plan.interval(point)
    return plan.text(point["value"]) + (f" ({found})" if found else "")
