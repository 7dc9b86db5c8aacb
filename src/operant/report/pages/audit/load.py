"""An audit: what every advantage rule optimizes, beside the deployed strategy, as data and in words.

The folder holds ``audit.jsonl``, with one record for the target and one for each rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from operant.report.formats import aligned, percent, ratio
from operant.report.records import RECORD, FolderRecords, Record, read_finished

OURS = "operant"
SHOWN = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Success rates of the tables; the charts show the whole grid."""
NOISE_AT = (0.1, 0.5, 0.9)
# A ratio that varies by less over p is constant: the rule optimizes the target up to a learning rate. Of the
# published rules at N = 1 to 16, those that do vary by at most 2e-9, the others by at least 0.4.
_SPREAD = 1e-5


@dataclass(frozen=True)
class SavedAudit:
    """What ``operant audit`` wrote: ``target`` and ``rules`` hold one value per success rate in ``p``."""

    source: FolderRecords
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


def load_audit(folder: Path) -> SavedAudit:
    """Read the folder of an audit.

    Raises:
        DataError: if it holds none.
    """
    found = read_finished(folder, "audit", "target", "rule", names=("audit.jsonl", RECORD))
    return SavedAudit(found, found.last("target"), found.every("rule"), found.every("left out"))


def constant(rule: Record) -> float | None:
    """The ratio of the slopes, to four digits, if it is positive and the same at every p; None otherwise."""
    known = [x for x in rule["ratio"] if x is not None]
    if not known or min(known) <= 0 or max(known) / min(known) - 1 > _SPREAD:
        return None
    return float(f"{known[0]:.4g}")


def finding(run: SavedAudit) -> str:
    """The result of the audit in two sentences."""
    name, m = run.target["strategy"], run.target["m"]
    good = [r["name"] for r in run.rules if constant(r)]
    told = f"{len(good)} of {len(run.rules)} rules optimize {name} from {m} rollouts, up to a constant"
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
        f" The others weight prompts differently: between p = {SHOWN[0]} and {SHOWN[-1]} the ratio of their slope to "
        f"the target's changes by a factor of {' to '.join(f'{ratio(factors[name])} ({name})' for name in ends)}."
    )


def audit_table(run: SavedAudit) -> str:
    """The finding, and the tables of slopes, dead groups and noise, for the terminal."""
    slopes = [["slope / target, p =", *(f"{p:g}" for p in SHOWN)]]
    slopes += [[r["name"], *(ratio(run.at(r["ratio"], p)) for p in SHOWN)] for r in run.rules]
    columns = {"dead": percent, "noise": ratio}
    rest = [["at p =", *(f"{what} {p:g}" if i == 0 else f"{p:g}" for what in columns for i, p in enumerate(NOISE_AT))]]
    rest += [[r["name"], *(f(run.at(r[k], p)) for k, f in columns.items() for p in NOISE_AT)] for r in run.rules]
    told = [f"left out: {r['name']}: {r['reason']}" for r in run.left_out]
    last = "dead: % of groups whose weights are all 0; noise: sd of the gradient estimate over its slope"
    return "\n".join([finding(run), *told, "", *aligned(slopes), "", *aligned(rest), last])
