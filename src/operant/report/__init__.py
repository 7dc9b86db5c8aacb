"""L3: a run directory as one HTML page, charts and a table for the terminal. Imports core only."""

from __future__ import annotations

from pathlib import Path

from operant.report.runs import load_run
from operant.report.text import summary_table

__all__ = ["summary_table", "write_report"]


def write_report(run_dir: Path, out_dir: Path | None = None) -> Path:
    """Write the report of a run: ``index.html``, and each chart as PNG and SVG beside it.

    Args:
        run_dir: the output directory of ``operant train`` or ``operant evaluate``.
        out_dir: where the report goes; ``run_dir/report`` if None.

    Returns:
        The path of the page.

    Raises:
        DataError: if the directory holds no finished job, or its files contradict each other.
        ImportError: if the extra ``operant[report]`` is not installed.
    """
    run = load_run(Path(run_dir))
    # Altair is an optional extra that only the page needs; the terminal table works without it.
    from operant.report import page

    return page.write(page.build(run), Path(out_dir) if out_dir else Path(run_dir) / "report")
