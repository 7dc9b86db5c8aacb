"""Extrapolated targets read back, in words and as a table for the terminal. The page is in ``extrapolation_page``.

Reads the folder that ``operant extrapolate`` wrote: ``record.jsonl`` with one record for the bank and one a target.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operant.core.checks import DataError
from operant.core.record import read_records
from operant.report.text import aligned

MOST_ROWS = 8
"""Predictions of a target that are printed; all of them stand in predictions.csv."""
MOST_COLUMNS = 4
"""Targets with a column of their own in the table of operators."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Extrapolation:
    """What ``operant extrapolate`` wrote.

    Args:
        path: its folder.
        run: name and configuration.
        environment: versions and platform.
        bank: the known tasks: how many, their names, and points of up to 80 of them.
        targets: one record a target.
        notes: what a reader must know first.
    """

    path: Path
    run: Record
    environment: Record
    bank: Record
    targets: tuple[Record, ...]
    notes: tuple[str, ...]

    @property
    def level(self) -> str:
        """The level of the intervals in words: "90 %"."""
        return f"{100 * self.targets[0]['level']:g} %"


@dataclass(frozen=True)
class Choice:
    """How the operators did on the outer shell of the bank, and the targets that were told so."""

    rows: tuple[Record, ...]
    targets: tuple[Record, ...]

    def chosen_by(self, operator: str) -> list[str]:
        """Names of the targets that are predicted by this operator."""
        return [name_of(t) for t in self.targets if t["operator"] == operator]

    def context_error(self, operator: str, target: Record) -> float | None:
        """What the operator leaves of the context points of a target, each left out in turn."""
        return next((c["context_error"] for c in target["choice"] if c["operator"] == operator), None)


def load_extrapolation(folder: Path) -> Extrapolation:
    """Read the records of an extrapolation.

    Raises:
        DataError: if the folder holds none.
    """
    path = folder / "record.jsonl"
    kinds: dict[str, list[Record]] = {}
    for record in read_records(path) if path.is_file() else []:
        kinds.setdefault(record.get("kind", ""), []).append(record)
    if not {"run", "environment", "bank", "target"} <= set(kinds):
        raise DataError(f"expected a folder that `operant extrapolate` wrote, found none finished at {folder}.")
    environment = {k: v for k, v in kinds["environment"][-1].items() if k not in ("kind", "time")}
    bank = kinds["bank"][-1]
    told = (*(r["text"] for r in kinds.get("note", ())), *bank["notes"])
    return Extrapolation(folder, kinds["run"][-1], environment, bank, tuple(kinds["target"]), told)


def number(x: float | None, digits: int = 4) -> str:
    """A value with a few significant digits.

    >>> number(1234.5678), number(-1e-9), number(None), number(0.0)
    ('1235', '-1e-09', '–', '0')
    """
    return "–" if x is None else f"{x + 0.0:.{digits}g}"  # + 0.0: no minus before a zero


def interval(low: float | None, high: float | None, digits: int = 4) -> str:
    """``0.38 to 0.44``; empty where there is none."""
    return "" if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def key_text(key: Any) -> str:
    """The key of a task, or of several: ``[60.0, 70.0]`` is "60, 70"."""
    if isinstance(key, (list, tuple)):
        return ", ".join(map(key_text, key))
    return "none" if key is None else number(key, 6) if isinstance(key, float) else str(key)


def name_of(target: Record) -> str:
    """What a target is called."""
    return key_text(target["key"])


def best(target: Record) -> Record | None:
    """The most probable decomposition, if the operator has any."""
    return target["decompositions"][0] if target["decompositions"] else None


def is_plain(target: Record) -> bool:
    """Whether the target is predicted by a plain baseline."""
    return any(c["plain"] for c in target["choice"] if c["operator"] == target["operator"])


def headline(target: Record) -> str:
    """What happened to a target, in one sentence."""
    found, verdict = best(target), target["applicability"]
    if not verdict["applicable"]:
        how = f"what is shown comes from {target['operator']}"
        return f"{name_of(target)}: no known task explains it ({verdict['reason']}); {how}."
    if is_plain(target) or found is None:
        return f"{name_of(target)}: predicted by {target['operator']}."
    return (
        f"{name_of(target)}: {found['transformation']} with f = {key_text(found['anchor'])}; residual on the context "
        f"{number(found['residual'], 2)}."
    )


def explanation(target: Record) -> list[str]:
    """Why this prediction, a sentence each: verdict, transformation, runner-up anchors, coverage, choice."""
    verdict, found = target["applicability"], best(target)
    p = "" if verdict["p_value"] is None else f" (p = {number(verdict['p_value'], 2)} against tasks of the bank)"
    told = [f"{verdict['text'].rstrip('.')}{p}."]
    if found is not None:
        told.append(f"{target['operator']} of {key_text(found['anchor'])}: {found['transformation']}.")
        told += [f"Its parameters: {parameters_text(found)}."] if found["parameters"] else []
    others = [f"{key_text(d['anchor'])} ({share(d['weight'])})" for d in target["decompositions"][1:5]]
    if found is not None and others:
        told.append(f"Weight of this anchor {share(found['weight'])}; runner-up: {', '.join(others)}.")
    covered = target["share_covered"]
    if covered is not None and covered < 1:
        told.append(
            f"The anchor covers {share(covered)} of the query; beyond that it was continued, which no data supports."
        )
    return [*told, *_why(target)]


def parameters_text(found: Record) -> str:
    """``xshift 0.41 (0.38 to 0.44), shift -0.1``; empty if a decomposition has none."""
    ends = {name: interval(low, high, 3) for name, (low, high) in found["intervals"].items()}
    told = ((f"{name} {number(value, 3)}", ends.get(name)) for name, value in found["parameters"].items())
    return ", ".join(text + (f" ({range_})" if range_ else "") for text, range_ in told)


def _why(target: Record) -> list[str]:
    """The chosen operator beside the best plain baseline, by their errors on the outer shell."""
    errors = {c["operator"]: c for c in ranked(target["choice"]) if c["shell_error"] is not None}
    chosen = errors.get(target["operator"])
    plain = next((c for c in errors.values() if c["plain"] and c is not chosen), None)
    if chosen is None or plain is None:
        return []
    return [
        f"On the outer shell of the bank {chosen['operator']} errs by {number(chosen['shell_error'], 3)}, "
        f"{plain['operator']}, the best {'other ' if chosen['plain'] else ''}plain baseline, by "
        f"{number(plain['shell_error'], 3)}."
    ]


def share(x: float | None) -> str:
    """A share in percent.

    >>> share(0.25), share(None)
    ('25 %', '–')
    """
    return "–" if x is None else f"{100 * x:.0f} %"


def ranked(choice: Sequence[Record]) -> list[Record]:
    """Operators, the smallest error on the outer shell first, those without one last."""
    return sorted(choice, key=lambda c: (c["shell_error"] is None, c["shell_error"] or 0.0))


def choices(run: Extrapolation) -> list[Choice]:
    """Targets grouped by the errors on the outer shell that they were chosen with; mostly one group."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for target in run.targets:
        shell = tuple((c["operator"], c["shell_error"]) for c in ranked(target["choice"]))
        if shell:
            groups.setdefault(shell, []).append(target)
    return [Choice(tuple(ranked(ts[0]["choice"])), tuple(ts)) for ts in groups.values()]


def choice_rows(choice: Choice) -> list[list[str]]:
    """Head and rows of the table of operators; chosen ones carry a star."""
    one_each = len(choice.targets) <= MOST_COLUMNS
    contexts = [f"context of {name_of(t)}" for t in choice.targets] if one_each else ["contexts, median", "chosen for"]
    rows = [["operator", "outer shell", "interval", *contexts]]
    for c in choice.rows:
        name, errors = c["operator"], [choice.context_error(c["operator"], t) for t in choice.targets]
        chosen = choice.chosen_by(name)
        known = [e for e in errors if e is not None]
        median = number(statistics.median(known), 3) if known else "–"
        cells = [number(e, 3) for e in errors] if one_each else [median, str(len(chosen))]
        shell = interval(c["shell_low"], c["shell_high"], 3)
        rows.append([name + " *" * bool(chosen), number(c["shell_error"], 3), shell or "–", *cells])
    return rows


def target_rows(run: Extrapolation) -> list[list[str]]:
    """Head and rows of the table of targets."""
    rows = [["target", "operator", "anchor", "transformation", "residual", "p-value", "applies", "covered"]]
    for t in run.targets:
        found, verdict = best(t), t["applicability"]
        what = ["–"] * 3
        if found is not None:
            what = [key_text(found["anchor"]), found["transformation"], number(found["residual"], 3)]
        applies = "yes" if verdict["applicable"] else f"no: {verdict['reason']}"
        p = number(verdict["p_value"], 2)
        rows.append([name_of(t), t["operator"], *what, p, applies, share(t["share_covered"])])
    return rows


def prediction_rows(target: Record, most: int | None = None) -> list[list[str]]:
    """Head and rows of the predictions of a target, ``most`` of them evenly spread; a star where not covered."""
    asked, truth = target["prediction"], known_at(target)
    head = [*target["x_names"]]
    for y in target["y_names"]:
        head += [y, f"{100 * target['level']:g} % interval", *([f"true {y}"] if truth else [])]
    count = len(asked["x"])
    keep = range(count) if most is None or count <= most else [round(i * (count - 1) / (most - 1)) for i in range(most)]
    rows = [head]
    for i in keep:
        cells = [number(v) for v in asked["x"][i]]
        for c in range(len(target["y_names"])):
            cells += [number(asked["mean"][i][c], 5), interval(asked["low"][i][c], asked["high"][i][c]) or "–"]
            cells += [number(None if (known := truth[i]) is None else known[c], 5)] if truth else []
        cells[0] += "" if asked["covered"][i] else " *"
        rows.append(cells)
    return rows


def known_at(target: Record) -> list[list[float] | None]:
    """The true values at the query points, None where there is none; empty if no truth is known."""
    if not target["truth"]:
        return []
    known = {tuple(x): y for x, y in zip(target["truth"]["x"], target["truth"]["y"], strict=True)}
    return [known.get(tuple(x)) for x in target["prediction"]["x"]]


def extrapolation_table(run: Extrapolation) -> str:
    """Every target with its explanation, predictions and the table of operators, as plain text for the terminal."""
    lines = [*run.notes, ""] if run.notes else []
    for target in run.targets:
        lines += [headline(target), *(f"  - {text}" for text in explanation(target)), ""]
    lines += [*aligned(target_rows(run)), ""]
    for target in run.targets[:MOST_ROWS]:
        rows = prediction_rows(target, MOST_ROWS)
        lines += [f"{name_of(target)}: prediction", *aligned(rows)]
        lines += ["* beyond the range of what is known of the anchor"] * any(r[0].endswith(" *") for r in rows) + [""]
    for choice in choices(run)[:MOST_ROWS]:
        lines += [*aligned(choice_rows(choice)), "* chosen", ""]
    shown = sum(min(len(t["prediction"]["x"]), MOST_ROWS) for t in run.targets[:MOST_ROWS])
    total = sum(len(t["prediction"]["x"]) for t in run.targets)
    if shown < total:
        lines.append(f"{shown} of {total} predictions; all of them stand in {run.path / 'predictions.csv'}")
    return "\n".join(lines).rstrip("\n")
