"""The settings of ``operant report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportConfig:
    """The settings of the report.

    Args:
        run_dir: folder of a run of train, evaluate, plan, audit, extrapolate or demo.
        out_dir: folder of the page. Default: report/ inside run_dir.
        open: whether to open the page in a browser.
    """

    run_dir: Path
    out_dir: Path | None = None
    open: bool = False
