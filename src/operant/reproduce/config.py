"""The settings of ``operant reproduce``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from operant.core.checks import check_int


@dataclass(frozen=True)
class ReproduceConfig:
    """The settings of ``operant reproduce``.

    Args:
        claims: names of the claims to run. Default: all.
        quick: whether to run each claim at its smallest size: all in 20 minutes on 2 cores.
        output_dir: folder of the runs, one folder a claim.
        resume: whether to go on with a run that was stopped: finished claims are not run again.
        jobs: claims that run at the same time. Default: one for each core.
        experiments: folder of the claims. Default: that of the clone.
        write: Markdown file for the table of what the repository holds, such as docs/claims.md; nothing is run.
        open: whether to open the page in a browser.
    """

    claims: list[str] = field(default_factory=list)
    quick: bool = False
    output_dir: Path = Path("runs/reproduce")
    resume: bool = False
    jobs: int | None = None
    experiments: Path | None = None
    write: Path | None = None
    open: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.jobs is not None:
            check_int("jobs", self.jobs, least=1)
