"""An audit as data and in words: what every advantage rule optimises, beside the deployed strategy.

Reads the folder that ``operant audit`` wrote: ``audit.jsonl``, one record for the target and one a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operant.core.checks import DataError
from operant.core.record import read_records
from operant.report.pages.train.text import aligned

OURS = "operant"
SHOWN = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Success rates of the tables; the charts have the whole grid."""
NOISE_AT = (0.1, 0.5, 0.9)
SPREAD = 1e-5
"""A ratio that varies by less is constant: the rule optimises the target up to a learning rate."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class AuditRun:
    """What ``operant audit`` wrote: ``target`` and ``rules`` hold one value per success rate in ``p``."""

    path: Path
    config: Record
    environment: Record
    target: Record
    rules: tuple[Record, ...]
    left_out: tuple[Record, ...]

    @property
    def p(self) -> list[float]:
        """The success rates."""
        return self.target["p"]

    def at(self, values: Sequence[float | None], p: float) -> float | None:
        """The value at a success rate of the grid."""
        return values[min(range(len(self.p)), key=lambda i: abs(self.p[i] - p))]

    def of(self, family: str) -> tuple[Record, ...]:
        """The rules of a family."""
        return tuple(r for r in self.rules if r["family"] == family)


def load_audit(folder: Path) -> AuditRun:
    """Read the folder of an audit.

    Raises:
        DataError: if it holds none.
    """
    if not (folder / "audit.jsonl").is_file():
        raise DataError(f"expected the folder of an audit (one with audit.jsonl), found none at {folder}.")
    records = [*read_records(folder / "audit.jsonl"), *read_records(folder / "record.jsonl")]
    kinds: dict[str, list[Record]] = {}
    for record in records:
        kinds.setdefault(record["kind"], []).append(record)
    if "target" not in kinds or "rule" not in kinds:
        raise DataError(f"{folder / 'audit.jsonl'}: expected a target and at least one rule, got {sorted(kinds)}.")
    environment = {k: v for k, v in kinds["environment"][-1].items() if k not in ("kind", "time")}
    return AuditRun(
        folder,
        kinds["run"][-1]["config"],
        environment,
        kinds["target"][0],
        tuple(kinds["rule"]),
        tuple(kinds.get("left out", ())),
    )


def constant(rule: Record) -> float | None:
    """The ratio of the slopes, to four digits, if it is positive and the same at every p; None if not."""
    known = [x for x in rule["ratio"] if x is not None]
    if not known or min(known) <= 0 or max(known) / min(known) - 1 > SPREAD:
        return None
    return float(f"{known[0]:.4g}")


def finding(run: AuditRun) -> str:
    """The result of the audit in two sentences."""
    name, m = run.target["strategy"], run.target["m"]
    good = [r["name"] for r in run.rules if constant(r)]
    told = f"{len(good)} of {len(run.rules)} rules optimise {name} from {m} rollouts, up to a constant"
    told += f": {', '.join(good)}." if good else "."
    factors: dict[str, float] = {}
    for rule in run.rules:
        values = [x for p in SHOWN if (x := run.at(rule["ratio"], p)) is not None]
        if constant(rule) is None and values and min(values) > 0:
            factors[rule["name"]] = max(values) / min(values)
    if not factors:
        return told
    ends = dict.fromkeys([min(factors, key=lambda k: factors[k]), max(factors, key=lambda k: factors[k])])
    return told + (
        f" The others weigh prompts by another curve: between p = {SHOWN[0]} and {SHOWN[-1]} their slope over the "
        f"target's changes by a factor of {' to '.join(f'{number(factors[name])} ({name})' for name in ends)}."
    )


def audit_table(run: AuditRun) -> str:
    """The finding, and the tables of slopes, dead groups and noise, for the terminal."""
    slopes = [["slope / target, p =", *(f"{p:g}" for p in SHOWN)]]
    slopes += [[r["name"], *(number(run.at(r["ratio"], p)) for p in SHOWN)] for r in run.rules]
    columns = {"dead": share, "noise": number}
    rest = [["at p =", *(f"{what} {p:g}" if i == 0 else f"{p:g}" for what in columns for i, p in enumerate(NOISE_AT))]]
    rest += [[r["name"], *(f(run.at(r[k], p)) for k, f in columns.items() for p in NOISE_AT)] for r in run.rules]
    told = [f"left out: {r['name']}: {r['reason']}" for r in run.left_out]
    last = "dead: % of groups whose weights are all 0; noise: sd over slope, for scores of variance 1"
    return "\n".join([finding(run), *told, "", *aligned(slopes), "", *aligned(rest), last])


def share(x: float | None) -> str:
    """A probability in percent."""
    return "–" if x is None else f"{100 * x:z.1f}"


def number(x: float | None) -> str:
    """Two or three digits; beyond 10,000 and below 0.001 only that.

    >>> [number(x) for x in (0.0123, 0.5, 12.34, 4321.0, 1.68e8, 3e-9, 0.0, None)]
    ['0.0123', '0.50', '12.3', '4,321', '>10,000', '<0.001', '0.00', '–']
    """
    if x is None:
        return "–"
    size, sign = abs(x), "-" if x < 0 else ""
    if size >= 1e4 or 0 < size < 1e-3:
        much = ">10,000" if size > 1 else "<0.001"
        return f"{much} (negative)" if sign else much
    return f"{x:z.2f}" if size == 0 or 0.095 <= size < 10 else f"{x:.3g}" if size < 1000 else f"{x:,.0f}"
