"""The page of a training run or an evaluation: curves, gains, what they cost, and how training went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operant.report.kinds import PageKind, register
from operant.report.pages.train.load import SavedRun, load_run
from operant.report.pages.train.text import run_table

if TYPE_CHECKING:
    from operant.report.page import Page


def _page(saved: SavedRun) -> Page:
    from operant.report.pages.train.page import build

    return build(saved)


register(PageKind("train", commands=("train", "evaluate"), load=load_run, table=run_table, page=_page))
