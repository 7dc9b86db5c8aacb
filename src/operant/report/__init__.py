"""A folder that operant wrote, as a table for the terminal and as one HTML page with its charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from operant.core.record import lock_folder
from operant.report.kinds import PageKind, naming_damage, page_of, register, table_of
from operant.report.pages import register_pages

__all__ = ["PageKind", "register", "summary_table", "target_chart", "write_report"]

register_pages()
# Seconds to wait for another report on the same folder; the slowest page, with its pictures, takes a few.
_WAIT = 60.0


def summary_table(folder: Path) -> str:
    """The result of a run, its notes, and its tables as plain text.

    Args:
        folder: what ``operant train``, ``evaluate``, ``plan``, ``audit``, ``extrapolate`` or ``demo`` wrote.

    Raises:
        DataError: if the folder holds nothing finished, or its files contradict each other.
    """
    return table_of(Path(folder))


def write_report(folder: Path, out_dir: Path | None = None) -> Path:
    """Write the page of a folder: ``index.html``, and each chart as PNG and SVG beside it.

    Args:
        folder: what ``operant train``, ``evaluate``, ``plan``, ``audit``, ``extrapolate`` or ``demo`` wrote.
        out_dir: where the page goes; ``folder/report`` if None.

    Returns:
        The path of the page.

    Raises:
        DataError: if the folder holds nothing finished, or its files contradict each other.
        ImportError: if the extra ``operant[report]`` is not installed.
    """
    folder = Path(folder)
    out_dir = Path(out_dir) if out_dir else folder / "report"
    page = page_of(folder)
    # Altair is an optional extra that only pages need; the table for the terminal works without it.
    from operant.report.page import write

    with lock_folder(out_dir, wait=_WAIT), naming_damage(folder):
        return write(page, out_dir)


def target_chart(source: Any) -> Any:
    """A target among the known tasks, as an Altair chart of its own size.

    Args:
        source: the record of a target; or records, of a target and of its bank, as ``operant extrapolate`` writes
            them; or an object whose ``records()`` returns these, as an adapted task does.
            Without a bank no known tasks are drawn.

    Raises:
        ImportError: if the extra ``operant[report]`` is not installed.
    """
    from operant.report.pages.extrapolation.curves import target_chart as draw

    return draw(source.records() if hasattr(source, "records") else source)
