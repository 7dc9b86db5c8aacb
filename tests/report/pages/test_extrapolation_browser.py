"""The page of an extrapolation in Chromium: names above their rows on a phone, a color bar, names on hover."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import vl_convert

from operant.core.record import read_records, write_records
from operant.report import write_report
from tests.report.pages.test_extrapolation_page import FACTORS, OPERATORS, bank, make, target

pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright: pip install 'operant[dev]'")

from playwright.sync_api import Browser, Locator

from tests.report.browser import INSTALL, chromium, faults, opened

pytestmark = [pytest.mark.slow, pytest.mark.pages]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        if found is None:
            pytest.skip(INSTALL)
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two targets, units, and shift factors; without PNG files."""
    units = {"units": {"log_t": "s", "E": "MPa", "T": "°C"}}
    folder = make(tmp_path_factory.mktemp("page"), [target(), target("70", 70.0)], bank() | units)
    write_records(folder / "record.jsonl", [*read_records(folder / "record.jsonl"), FACTORS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "svg_to_png", lambda drawing, scale: b"")
        return write_report(folder)


def box(found: Locator) -> dict[str, float]:
    edges = found.bounding_box()
    assert edges is not None
    return {"x": edges["x"], "y": edges["y"], "width": edges["width"], "height": edges["height"]}


def test_with_units_and_shift_factors_there_is_no_fault(browser: Browser, page: Path) -> None:
    found = faults(browser, page)
    assert not found, "\n".join(found)


def test_operators_stand_above_their_rows_on_a_phone(browser: Browser, page: Path) -> None:
    with opened(browser, page, 390) as (shown, _):
        names = shown.locator("#choice-0 .mark-text.role-mark text")
        assert names.count() == len(OPERATORS)
        chart = box(shown.locator("#choice-0"))
        dots = [box(d) for d in shown.locator("#choice-0 .mark-symbol.role-mark path").all()]
        for name in map(box, names.all()):
            assert chart["x"] <= name["x"] and name["x"] + name["width"] <= chart["x"] + chart["width"]
            below = [d["y"] - name["y"] - name["height"] for d in dots if d["y"] > name["y"]]
            assert min(below) < 12  # its own row
        assert max(d["x"] for d in dots) - min(d["x"] for d in dots) > 0.5 * chart["width"]


def test_a_known_curve_has_a_color_from_the_bar_and_its_name_on_hover(browser: Browser, page: Path) -> None:
    bars = []
    for scheme in ("light", "dark"):
        with opened(browser, page, 1280, scheme) as (shown, _):
            bar = shown.locator(".bar").first
            bars.append(bar.evaluate("e => getComputedStyle(e).backgroundImage"))
            assert "T (°C): 0" in bar.locator("..").inner_text()
            curve = shown.locator("#target-0-0 .mark-line path").first
            stroke = curve.evaluate("e => getComputedStyle(e).stroke")
            assert stroke in bars[-1]  # the lowest parameter has the color at the left end
            assert shown.locator("#target-0-0 text", has_text="E (MPa)").count() == 1
            curve.hover(force=True)
            told = shown.locator("#vg-tooltip-element").inner_text()
            assert "known task" in told and "T (°C)" in told
    assert len(set(bars)) == 2 and all("linear-gradient" in b for b in bars)
