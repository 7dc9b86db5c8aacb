"""The settings of ``operant extrapolate`` for curves. Importing them loads no library."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ExtrapolateConfig:
    """Settings for curves (CSV).

    Args:
        bank: CSV file of the known tasks with a header, a row a point.
        target: CSV file of the targets, with the same columns. Rows with a value of y are the context, rows with an
            empty one are query points.
        task: the column that tells the tasks apart.
        x: columns of the inputs.
        y: columns of the outputs.
        params: columns with known parameters of the tasks, constant within each.
        labels: columns with further facts, constant within each task, such as the order that the operator extend goes
            on with. The targets' file may lack them.
        query: CSV file of points to predict: of each target, or of all of them if it lacks the column of the task.
            Values of y in it are shown beside the predictions and never used.
        query_points: where nothing is asked, so many points over the range of the bank.
        operator: auto, or the name of one operator, such as "shift * xshift".
        noise: standard deviation of the targets' values; with positive, the relative one (0.05 for 5 %). Default:
            estimated.
        log_x: inputs whose decimal logarithm the operators see. A shift along x is then a factor: with a time or a
            frequency, this is time-temperature superposition.
        positive: whether the operators see the natural logarithm of y. The forecast, then a median, and both ends of
            its interval are positive; errors are relative.
        units: units of columns, for axes and tables: t=s,E=MPa. Default: a row of units below the header.
        log_axes: columns with a logarithmic axis in the charts, or none. Default: those spread over decades.
        reference: task of the bank from which shift factors are measured. Default: the anchor of most targets.
        level: level of the intervals.
        seed: seed of everything random.
        output_dir: folder of the results. It must be new.
        open: whether to open the page in a browser.
    """

    bank: Path
    target: Path
    task: str
    x: list[str] | str
    y: list[str] | str
    params: list[str] | str = field(default_factory=list[str])
    labels: list[str] | str = field(default_factory=list[str])
    query: Path | None = None
    query_points: int = 50
    operator: str = "auto"
    noise: float | None = None
    log_x: list[str] | str = field(default_factory=list[str])
    positive: bool = False
    units: list[str] | str = field(default_factory=list[str])
    log_axes: list[str] | str = "auto"
    reference: str | None = None
    level: float = 0.9
    seed: int = 0
    output_dir: Path = Path("runs/extrapolation")
    open: bool = False


def names_of(given: list[str] | str) -> list[str]:
    """Names of columns; a text may hold several, with commas between them."""
    return [n.strip() for n in given.split(",") if n.strip()] if isinstance(given, str) else list(given)
