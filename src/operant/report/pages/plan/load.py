"""A plan read back, in words and as a table for the terminal. The page is in ``plan_page``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operant.core.checks import DataError
from operant.core.record import read_records
from operant.report.pages.train.text import aligned

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """The records of a plan, by kind.

    Args:
        path: its folder.
        run: name and configuration.
        environment: versions and platform.
        rollouts: B, M, whether rewards are binary, the bins of success rate and the prompts in each.
        curves: one a family: points and gains with intervals.
        signals: one a family and budget N <= M/2: dead groups, and who carries the gradient.
        advice: one or two recommendations.
        notes: what a reader must know first.
    """

    path: Path
    run: Record
    environment: Record
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

    def of(self, label: str) -> tuple[Record, ...]:
        """The signals of one family, by budget."""
        return tuple(s for s in self.signals if s["strategy"] == label)


def load_plan(folder: Path) -> Plan:
    """Read the records of a plan.

    Raises:
        DataError: if the folder holds none.
    """
    path = folder / "record.jsonl"
    records = read_records(path) if path.is_file() else []

    def every(kind: str) -> tuple[Record, ...]:
        return tuple({k: v for k, v in r.items() if k != "kind"} for r in records if r.get("kind") == kind)

    if not every("rollouts"):
        raise DataError(f"expected a folder that `operant plan` wrote, found none at {folder}.")
    (run,), (environment,), (rollouts,) = every("run"), every("environment"), every("rollouts")
    told = (*(r["text"] for r in every("note")), *_notes(rollouts))
    return Plan(folder, run, environment, rollouts, every("curve"), every("signal"), every("recommendation"), told)


def _notes(rollouts: Record) -> list[str]:
    found: list[str] = []
    if rollouts["prompts"] == 1:
        found.append("One prompt: intervals are unavailable, because they come from the spread between prompts.")
    elif rollouts["prompts"] < 20:
        found.append(f"{rollouts['prompts']} prompts: intervals are rough and tend to be too narrow.")
    if not rollouts["binary"]:
        found.append(
            "Rewards are not 0 or 1: pass and pass^ are left out, and success rates are mean rewards, scaled from the "
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
        text = f"deploy {advice['deploy']}; there is nothing to train for: every group of rollouts is dead."
    else:
        what = "train for it" if advice["train"] == advice["deploy"] else f"train for {advice['train']}"
        text = f"deploy {advice['deploy']}, {what}, M = {advice['m']} rollouts a prompt."
    text = f"{advice['case']}: {text}" if advice["case"] else text
    return text[:1].upper() + text[1:]


def number(x: float | None, plan: Plan, *, sign: bool = False) -> str:
    """A value or, with its sign, a difference: percent if rewards are binary, else as it is."""
    if x is None:
        return "–"
    text = f"{100 * x:{'+' if sign else ''}.1f}" if plan.binary else f"{x:{'+' if sign else ''}.3g}"
    return text.lstrip("+-") if float(text) == 0 else text


def interval(point: Record, plan: Plan, *, sign: bool = False) -> str:
    """``11.0 to 14.1``; empty where there is none."""
    return "" if point["low"] is None else " to ".join(number(point[k], plan, sign=sign) for k in ("low", "high"))


def at_budget(points: Sequence[Record], n: int) -> Record | None:
    """The point of a curve with this budget."""
    return next((p for p in points if p["n"] == n), None)


def share(x: float | None) -> str:
    """A share in percent.

    >>> share(0.25), share(None)
    ('25 %', '–')
    """
    return "–" if x is None else f"{100 * x:.0f} %"


def dead_at(signal: Record, m: int) -> float | None:
    """Share of dead groups at m rollouts; None if that was not measured."""
    return next((d["share"] for d in signal["dead"] if d["m"] == m), None)


def plan_table(plan: Plan) -> str:
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
    m = plan.rollouts["rollouts"]
    signals = [["credit of", "dead at 2N", "dead at 4N", f"dead at {m}", "top tenth carries"]]
    for s in plan.signals:
        dead = [share(dead_at(s, size)) for size in (2 * s["n"], 4 * s["n"], m)]
        signals.append([s["name"], *dead, share(s["top_tenth"])])
    told = "dead: groups of rollouts whose weights are all 0; –: needs more rollouts"
    return "\n".join([*lines, *aligned(signals), told])


def _value(point: Record | None, plan: Plan) -> str:
    """``12.3 (11.0 to 14.1)``; without an interval where there is none."""
    if point is None:
        return "–"
    found = interval(point, plan)
    return number(point["value"], plan) + (f" ({found})" if found else "")
