"""L3: a folder that operant wrote, as one HTML page, charts and a table for the terminal. Imports core only."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from operant.core.checks import DataError, OperantError
from operant.core.record import lock_folder, read_records
from operant.report.legible import legible
from operant.report.pages.audit.load import audit_table, load_audit
from operant.report.pages.extrapolation.load import load_extrapolation, target_chart
from operant.report.pages.extrapolation.tables import extrapolation_table
from operant.report.pages.plan.load import load_plan, plan_table
from operant.report.pages.train.load import load_run
from operant.report.pages.train.text import run_table

if TYPE_CHECKING:
    from operant.report.page import Page

__all__ = ["summary_table", "target_chart", "write_report"]

WAIT = 60.0
"""Seconds to wait for another report on the same folder."""


def summary_table(folder: Path) -> str:
    """The result, what must be known with it, and the tables as plain text, for the terminal.

    Args:
        folder: what ``operant train``, ``evaluate``, ``plan``, ``audit``, ``extrapolate`` or ``demo`` wrote.

    Raises:
        DataError: if the folder holds nothing finished, or its files contradict each other.
    """
    folder = Path(folder)
    with whole(folder):
        match _command(folder):
            case "audit":
                text = audit_table(load_audit(folder))
            case "plan":
                text = plan_table(load_plan(folder))
            case "extrapolate":
                text = extrapolation_table(load_extrapolation(folder))
            case _:
                text = run_table(load_run(folder))
        return legible(text)


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
    from operant.report import page as shell

    folder = Path(folder)
    out_dir = Path(out_dir) if out_dir else folder / "report"
    page = page_of(folder)
    with lock_folder(out_dir, wait=WAIT), whole(folder):
        return shell.write(page, out_dir)


def page_of(folder: Path) -> Page:
    """What stands on the page of a folder; raises as :func:`write_report`."""
    # Altair is an optional extra that only the pages need; the terminal table works without it.
    from operant.report.pages.audit import page as audit_page
    from operant.report.pages.extrapolation import page as extrapolation_page
    from operant.report.pages.plan import page as plan_page
    from operant.report.pages.train import page as run_page

    with whole(folder):
        match _command(folder):
            case "audit":
                return audit_page.build(load_audit(folder))
            case "plan":
                return plan_page.build(load_plan(folder))
            case "extrapolate":
                return extrapolation_page.build(load_extrapolation(folder))
            case _:
                return run_page.build(load_run(folder))


@contextmanager
def whole(folder: Path) -> Generator[None]:
    """What a damaged record makes of tables and charts is an error that names the folder."""
    try:
        yield
    except OperantError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder} does not hold what operant writes there ({type(error).__name__}: {error}): a file was changed "
            "or damaged, or comes from another version. Make it again; if nothing changed it, please report this."
        ) from error


def _command(folder: Path) -> str | None:
    """The command that wrote the folder; None where it does not say, as in the folder of a single job."""
    path = folder / "record.jsonl"
    records = read_records(path) if path.is_file() else []
    return next((r["command"] for r in records if r.get("kind") == "run"), None)
