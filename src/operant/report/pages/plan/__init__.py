"""The page of a plan: what to deploy and train for, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operant.report.kinds import PageKind, register
from operant.report.pages.plan.load import SavedPlan, load_plan, plan_table

if TYPE_CHECKING:
    from operant.report.page import Page


def _page(saved: SavedPlan) -> Page:
    from operant.report.pages.plan.page import build

    return build(saved)


register(PageKind("plan", commands=("plan",), load=load_plan, table=plan_table, page=_page))
