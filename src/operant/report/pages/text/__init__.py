"""The page of text tasks: hypotheses for every target, its supports and predictions, and the training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operant.report.kinds import PageKind, register
from operant.report.pages.text.load import SavedText, load_text
from operant.report.pages.text.tables import text_table

if TYPE_CHECKING:
    from operant.report.page import Page


def _page(saved: SavedText) -> Page:
    from operant.report.pages.text.page import build

    return build(saved)


register(PageKind("text", commands=("extrapolate text", "demo language"), load=load_text, table=text_table, page=_page))
