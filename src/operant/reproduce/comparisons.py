"""What a claim's run measured: an effect over the plain baseline, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from operant.core.checks import DataError
from operant.core.record import read_records, write_records

COMPARISONS = "comparisons.jsonl"


@dataclass(frozen=True)
class Comparison:
    """One comparison: an effect in the direction of the claim, with its interval.

    Args:
        what: the quantity, such as "pass@16, RL from 5 %".
        ours: the recipe of the claim.
        value: what it reaches.
        baseline: the strongest plain recipe.
        plain: what that reaches.
        effect: the gain over the baseline; a difference, or a ratio.
        low: lower end of the effect's 95 % interval.
        high: upper end.
        neutral: the effect of no gain: 1 of a ratio; of a difference 0, or what rounding makes of it.
        unit: of value and plain.
        seeds: training seeds, or draws of the task; 0 where nothing is random.
        decides: whether the verdict rests on it.
    """

    what: str
    ours: str
    value: float
    baseline: str
    plain: float
    effect: float
    low: float
    high: float
    neutral: float = 0.0
    unit: str = "%"
    seeds: int = 0
    decides: bool = True

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies on the side of the claim."""
        return self.low > self.neutral


def write_comparisons(folder: Path, comparisons: Iterable[Comparison]) -> None:
    """Write ``comparisons.jsonl``, as the ``run.py`` of a claim does in the folder that it is given."""
    write_records(folder / COMPARISONS, ({"kind": "comparison", **asdict(c)} for c in comparisons))


def read_comparisons(folder: Path) -> list[Comparison]:
    """The comparisons in a folder; none if its run has not ended.

    Raises:
        DataError: for a file that holds something else, or an interval that does not hold its effect.
    """
    path = folder / COMPARISONS
    names = {field.name for field in fields(Comparison)}
    found: list[Comparison] = []
    for number, record in enumerate(read_records(path) if path.is_file() else [], start=1):
        try:
            comparison = Comparison(**{name: record[name] for name in record if name in names})
            finite = all(map(math.isfinite, (comparison.value, comparison.plain, comparison.effect)))
        except TypeError as error:
            raise DataError(f"{path}, line {number}: expected a comparison ({error}).") from error
        if not finite or not comparison.low <= comparison.effect <= comparison.high:
            raise DataError(f"{path}, line {number}: expected an effect inside its interval, got {record}.")
        found.append(comparison)
    return found
