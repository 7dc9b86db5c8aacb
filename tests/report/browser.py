"""Pages in a real browser: every fault of a page that Chromium can measure, at three widths, in light and in dark.

``faults(browser, path)`` opens a page by its path and returns what is wrong with it, a line each.
Run this file to learn which browser the tests use: ``python -m tests.report.browser``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

WIDTHS = (390, 1280, 1920)
SCHEMES = ("light", "dark")
_SECONDS = 20  # in which the charts are drawn: one second on a quiet core
INSTALL = (
    "no Chromium was found. Install one: apt-get install chromium (Debian; as root), or playwright install chromium "
    "(any system), or set OPERANT_CHROMIUM to the path of one (Chrome and Edge do as well)."
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge")
_CHECKS = (Path(__file__).parent / "browser.js").read_text(encoding="utf-8")


def executable(own: str) -> str | None:
    """The path of a Chromium: the one that is set, one on the path, or Playwright's ``own``; None without any."""
    found = [os.environ.get("OPERANT_CHROMIUM"), *map(shutil.which, _NAMES), own if Path(own).exists() else None]
    return next((path for path in found if path), None)


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """A browser; None where none is installed."""
    with sync_playwright() as playwright:
        path = executable(playwright.chromium.executable_path)
        if path is None:
            yield None
            return
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> Iterator[tuple[Page, list[str]]]:
    """A page with its charts drawn, and its errors and requests until the block ends."""
    found: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("console", lambda m: found.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else found.append(f"request: {r.url}"))
    try:
        page.goto(path.resolve().as_uri())
        _wait(page, scheme)
        yield page, found
    finally:
        context.close()


def _wait(page: Page, scheme: str) -> None:
    page.wait_for_selector(f"html[data-drawn={scheme}]", state="attached", timeout=_SECONDS * 1000)


def faults(browser: Browser, path: Path) -> list[str]:
    """What is wrong with a page, at every width and in both schemes; empty for a page without a fault.

    The page scrolls sideways; something stands outside it or is cut; two labels of a chart overlap or leave the chart;
    a text has less contrast than WCAG's AA asks (4.5, large text 3); a script failed; something was fetched.
    """
    told: list[str] = []
    for width in WIDTHS:
        with opened(browser, path, width) as (page, found):
            for scheme in SCHEMES:
                if scheme != "light":
                    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                    _wait(page, scheme)
                told += [f"{width} px, {scheme}: {fault}" for fault in page.evaluate(_CHECKS)]
            told += [f"{width} px: {fault}" for fault in dict.fromkeys(found)]
    return told


def explained(page: Page) -> dict[str, Any]:
    """The first term of a page, and what its tooltip says on hover and on focus."""
    term = page.locator(".term[tabindex='0']").first
    term.hover()
    hovered = page.locator("#tip").inner_text()
    page.keyboard.press("Escape")
    hidden = page.locator("#tip").is_hidden()
    term.focus()
    return {"term": term.inner_text(), "hover": hovered, "hidden": hidden, "focus": page.locator("#tip").inner_text()}


if __name__ == "__main__":
    with chromium() as there:
        print(f"Chromium {there.version}" if there else INSTALL)
    sys.exit(there is None)
