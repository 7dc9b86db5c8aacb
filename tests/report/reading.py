"""Pages read back by the tests: elements, charts, and the rows that a chart draws."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from operant.report.kinds import page_of
from operant.report.page import render

LOADING = {"src", "href", "srcset", "data", "poster", "action", "background", "xlink:href"}
HOSTILE = "</script><script>alert(1)</script>&\"'"


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of headings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in ("h1", "h2", "summary") and data.strip():
            self.headings.append(data)
        self._open = ""


def rendered(folder: Path) -> str:
    """The page of a folder without its pictures, which take half of the time."""
    return render(page_of(folder))


def charts(html: str) -> dict[str, dict[str, Any]]:
    """Id -> specification and themes of every chart, in the order of the page."""
    found = re.search(r'id="charts">(.*?)</script>', html)
    assert found is not None
    drawn = json.loads(found[1])
    assert len({c["id"] for c in drawn}) == len(drawn)
    return {c["id"]: c for c in drawn}


def rows_of(chart: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    """The values that the layers of a chart draw and that have this field, each once."""
    rows = [r for layer in [chart["spec"], *chart["spec"]["layer"]] for r in layer.get("data", {}).get("values", [])]
    return [json.loads(r) for r in dict.fromkeys(json.dumps(r) for r in rows if field in r)]
