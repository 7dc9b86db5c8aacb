"""Kinds of pages: for each, the commands whose folders it shows, and how it reads, prints and draws them.

A kind is a module or a package in ``pages``, which registers itself where it is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operant.core.checks import DataError, OperantError
from operant.report.formats import legible
from operant.report.records import read_folder

# Only for types: a page needs Altair, an optional extra, and the terminal table must work without it.
if TYPE_CHECKING:
    from operant.report.page import Page

KINDS: dict[str, PageKind] = {}
"""Command that writes a folder -> the page that shows it."""


@dataclass(frozen=True)
class PageKind:
    """A page: it reads a folder once, and shows what it read in the terminal and as HTML.

    Args:
        name: that of its module or package in ``pages``.
        commands: what writes such folders, by the first ``run`` record of the folder.
        load: folder -> the value that is shown; raises DataError where the folder holds nothing finished.
        table: that value -> text for the terminal.
        page: that value -> the page. It imports Altair, an optional extra, inside the function.
    """

    name: str
    commands: tuple[str, ...]
    load: Callable[[Path], Any]
    table: Callable[[Any], str]
    page: Callable[[Any], Page]


def register(kind: PageKind) -> PageKind:
    """Show the folders of these commands by this page.

    Raises:
        ValueError: for a command that has a page already.
    """
    for command in kind.commands:
        if command in KINDS:
            raise ValueError(f"the folders of `operant {command}` are shown by {KINDS[command].name} already.")
        KINDS[command] = kind
    return kind


def kind_of(folder: Path) -> PageKind:
    """The page for a folder; a folder that names no command is that of jobs of ``operant train``.

    Raises:
        DataError: for a command without a page.
    """
    found = read_folder(folder).every("run")
    # The first record: a resumed run writes its head again, with the same command.
    command = found[0]["command"] if found else "train"
    if command not in KINDS:
        raise DataError(
            f"{folder} was written by `operant {command}`, which has no page here; pages show what "
            f"{', '.join(KINDS)} wrote. Report it with the version of operant that wrote it."
        )
    return KINDS[command]


def table_of(folder: Path) -> str:
    """The table of a folder for the terminal; raises as :func:`page_of`."""
    with naming_damage(folder):
        kind = kind_of(folder)
        return legible(kind.table(kind.load(folder)))


def page_of(folder: Path) -> Page:
    """The page of a folder, not yet written.

    Raises:
        DataError: if the folder holds nothing finished, or its files contradict each other.
        ImportError: if the extra ``operant[report]`` is not installed.
    """
    with naming_damage(folder):
        kind = kind_of(folder)
        return kind.page(kind.load(folder))


@contextmanager
def naming_damage(folder: Path) -> Generator[None]:
    """Turn what a damaged record makes of tables and charts into an error that names the folder."""
    try:
        yield
    except OperantError:
        raise
    # What missing keys and values of another type raise anywhere below. Any other error is a bug and stays a traceback.
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder} does not hold what operant writes there ({type(error).__name__}: {error}): a file was changed "
            "or damaged, or comes from another version. Make it again; if nothing changed it, please report this."
        ) from error
