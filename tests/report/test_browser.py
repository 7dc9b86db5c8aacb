"""The pages in Chromium: no fault at 390, 1280 and 1920 px, in light and in dark; terms explain themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import vl_convert

from operant.report import write_report
from tests.report.pages.test_rl_page import rl_run
from tests.report.test_conformance import ROWS

pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright: pip install 'operant[dev]'")

from playwright.sync_api import Browser

from tests.report.browser import INSTALL, SCHEMES, chromium, explained, faults, opened

pytestmark = [pytest.mark.slow, pytest.mark.pages]

FOLDERS: dict[str, Callable[[Path], Path]] = {**ROWS, "train by reinforcement": rl_run}
"""Name of a page -> what writes a small folder of it. A new kind of page is here through its row in ROWS."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        if found is None:
            pytest.skip(INSTALL)
        yield found


@pytest.fixture(scope="module", params=FOLDERS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small folder, without its PNG files."""
    folder = FOLDERS[request.param](tmp_path_factory.mktemp("pages") / "folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "svg_to_png", lambda drawing, scale: b"")
        return write_report(folder)


def test_a_page_has_no_fault(browser: Browser, page: Path) -> None:
    found = faults(browser, page)
    assert not found, "\n".join(found)


def test_terms_are_explained_on_hover_and_on_focus(browser: Browser, page: Path) -> None:
    with opened(browser, page) as (shown, _):
        told = explained(shown)
        assert told["hidden"] and told["hover"] == told["focus"]
        name, meaning = told["hover"].split("\n", 1)
        assert name and meaning in shown.locator("#glossary").inner_text()
        marked = shown.locator("main .term").count()
        assert marked >= 3 and not shown.locator(".settings .term, .chart .term, h1 .term").count()


FAULTY = """<!doctype html><html><body style="margin:0;background:#fff"><main>
<div style="width:2500px">wide</div><p style="color:#bbb">pale</p><p style="overflow:hidden;width:20px">cutcutcutcut</p>
<div class="chart" id="empty"></div>
<div class="chart" id="c" style="width:300px"><svg width="300" height="50"><text x="10" y="20">first</text>
<text x="15" y="20">second</text><text x="290" y="40">outside</text></svg></div>
<script>console.error("broken"); fetch("http://127.0.0.1:9/data").catch(() => 0);
const dark = matchMedia("(prefers-color-scheme: dark)");
const say = () => document.documentElement.dataset.drawn = dark.matches ? "dark" : "light";
dark.addEventListener("change", say); say();</script></main></body></html>"""


def test_every_fault_is_found(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "faulty.html"
    path.write_text(FAULTY)
    found = "\n".join(faults(browser, path))
    for text in (
        "390 px, light: the page is 2500 px wide and scrolls sideways",
        'outside the page: <div> "wide"',
        'cut: <p> "cutcutcutcut"',
        'c: the labels "first" and "second" overlap',
        'c: the label "outside" leaves the chart',
        "empty: not drawn",
        'contrast 1.92: "pale"',
        "console: broken",
        "request: http://127.0.0.1:9/data",
    ):
        assert text in found, text
    assert all(scheme in found for scheme in SCHEMES)
