"""The page of an audit: what every advantage rule optimizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operant.report.kinds import PageKind, register
from operant.report.pages.audit.load import SavedAudit, audit_table, load_audit

if TYPE_CHECKING:
    from operant.report.page import Page


def _page(saved: SavedAudit) -> Page:
    from operant.report.pages.audit.page import build

    return build(saved)


register(PageKind("audit", commands=("audit",), load=load_audit, table=audit_table, page=_page))
