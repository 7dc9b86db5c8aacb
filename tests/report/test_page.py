"""The page: complete, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path

import pytest

from operant.report import summary_table, write_report
from tests.report.pages import report_runs
from tests.report.reading import HOSTILE, Elements, charts, rendered


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with everything: warm start, two families, a hostile name, constant weights."""
    run = tmp_path_factory.mktemp("run")
    branches = {"warm": -0.1, "ce": 0.0, "pass@16": 0.05, HOSTILE: 0.01}
    report_runs.make(run, branches, metrics=("maj@8", "pass@1", "pass@4", "pass@16"))
    for seed in range(3):
        path = run / f"seed-{seed}/job-2/record.jsonl"
        path.write_text(re.sub(r'"sd": [0-9.]+', '"sd": 0.0', path.read_text()))
    report_runs.job(run, "pass@4", 0, None, folder="still-running")
    return write_report(run)


@pytest.fixture
def specs(full: Path) -> list[dict]:
    return list(charts(full.read_text(encoding="utf-8")).values())


def test_sections_stand_in_order(full: Path) -> None:
    assert Elements(full.read_text(encoding="utf-8")).headings == [
        "a small run",
        "Curves",
        "What more samples buy",
        "Gain over the baseline",
        "Gain and price",
        "Training",
        "Weight of the examples",
        "Seeds",
        "How to read this page",
        "Glossary",
        "Settings",
        "Environment",
    ]


def test_a_chart_takes_the_width_of_the_page(specs: list[dict]) -> None:
    assert all(s["spec"]["width"] == "container" for s in specs)


def test_hostile_names_stay_text(full: Path) -> None:
    html = full.read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;" in html
    assert sum(tag == "script" for tag, _ in Elements(html).tags) == 3


def test_every_family_has_its_panel(specs: list[dict]) -> None:
    ids = [s["id"] for s in specs]
    assert [i for i in ids if i.startswith("scaling")] == ["scaling-0", "scaling-1"]
    assert [i for i in ids if i.startswith("gain")] == ["gain-0", "gain-1"]
    assert [i for i in ids if i.startswith("training")] == [f"training-{i}" for i in range(4)]


def test_no_chart_is_empty_and_colors_match_their_branches(specs: list[dict]) -> None:
    for chart in specs:
        layers = json.dumps(chart["spec"])
        assert layers.count('"series": ') >= 2, chart["id"]
        domains = {
            json.dumps(layer["encoding"]["color"]["scale"]["domain"])
            for layer in chart["spec"]["layer"]
            if "color" in layer["encoding"]
        }
        (domain,) = map(json.loads, domains)
        for mode in ("light", "dark"):
            assert len(chart[mode]["range"]["category"]) == len(domain), chart["id"]


def test_images_stand_beside_the_page(full: Path) -> None:
    for name in ("scaling", "gain", "training", "weights"):
        png = (full.parent / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert 1600 < width < 2400, name
        assert 700 < height < 2000, name
        assert (full.parent / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg")


def test_warning_and_notes(full: Path) -> None:
    html = full.read_text(encoding="utf-8")
    assert "pass@16: its weights are constant." in html
    assert html.count('class="warning"') == 1
    assert "IS the baseline up to a scale" in html
    assert "Not finished and left out of every number (no prompts.jsonl): seed-0/still-running." in html


def test_settings_are_grouped(full: Path) -> None:
    html = full.read_text(encoding="utf-8")
    assert re.search(r'scope="colgroup">model</th></tr>.*?>lora\.rank</th><td>8</td>', html)
    assert re.search(r">trl</th><td>–</td>", html)


def test_without_a_baseline(tmp_path: Path) -> None:
    report_runs.make(tmp_path / "run", {"pass@4": 0.0, "pass@16": 0.1}, seeds=(0,))
    page = write_report(tmp_path / "run", tmp_path / "elsewhere")
    assert page == tmp_path / "elsewhere/index.html"
    html = page.read_text(encoding="utf-8")
    assert "No gains in this report: no baseline job is finished." in html
    assert "without a baseline there are no gains to report" in html
    assert "Gain and price" not in html
    assert "variation between seeds is not included" in html
    assert 'class="warning"' not in html
    assert not (page.parent / "gain.png").exists()


def test_a_lone_evaluation(tmp_path: Path) -> None:
    values = report_runs.prompt_values(0, metrics=("best@4",))
    path = report_runs.job(tmp_path, "checkpoint", 0, values, role="evaluation")
    (path / "record.jsonl").unlink()
    html = rendered(path)
    assert "checkpoint reaches" in html
    assert "What more samples buy" in html
    assert "Training" not in Elements(html).headings


def test_without_altair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_runs.make(tmp_path, {"ce": 0.0}, seeds=(0,))
    monkeypatch.setitem(sys.modules, "altair", None)
    kinds = ("train", "audit", "plan", "extrapolation")
    pages = [f"pages.{kind}.{part}" for kind in kinds for part in ("page", "charts")]
    for name in [*pages, "page", "theme"]:
        monkeypatch.delitem(sys.modules, f"operant.report.{name}", raising=False)
        monkeypatch.delattr(f"operant.report.{name}", raising=False)
    assert "ce reaches" in summary_table(tmp_path)
    with pytest.raises(ImportError, match=r"pip install 'operant\[report\]'"):
        write_report(tmp_path)
