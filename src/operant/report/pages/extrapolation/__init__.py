"""The page of an extrapolation: every target among the known tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operant.report.kinds import PageKind, register
from operant.report.pages.extrapolation.load import SavedExtrapolation, load_extrapolation
from operant.report.pages.extrapolation.tables import extrapolation_table

if TYPE_CHECKING:
    from operant.report.page import Page


def _page(saved: SavedExtrapolation) -> Page:
    from operant.report.pages.extrapolation.page import build

    return build(saved)


register(
    PageKind("extrapolation", commands=("extrapolate",), load=load_extrapolation, table=extrapolation_table, page=_page)
)
