"""The settings of ``operant report`` and ``operant audit``. Importing them loads no library."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class AuditConfig:
    """The settings of ``operant audit``.

    Args:
        n: budget N of the rules that have one. Default: the strategy's budget, else 4.
        m: rollouts per group, M. Default: 2 N.
        strategy: deployed strategy, any that counts successes. Default: pass@N.
        transform: g of the objective E g(V), such as log:0.1, arcsin or logit:0.1: one more rule, the jackknife of g.
        rules: published rules to audit; all: those and cat-log, dr-grpo, grpo-passk-std, pkpo-sloo,
            pkpo-sloo-centered.
        output_dir: folder of the audit. It must be new.
        open: whether to open the page in a browser.
    """

    n: int | None = None
    m: int | None = None
    strategy: str = ""
    transform: str = ""
    rules: list[str] = field(
        default_factory=lambda: [
            *("grpo", "rloo", "maxrl", "pkpo", "pkpo-sloo-1", "pkpo-centered", "pkpo-sloo-1-centered"),
            *("passk-training", "grpo-passk", "plug-in", "cat-raw"),
        ]
    )
    output_dir: Path = Path("runs/audit")
    open: bool = False
