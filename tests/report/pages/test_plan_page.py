"""The plan's page and table: complete, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from operant.core.checks import DataError
from operant.core.record import write_records
from operant.report import summary_table
from operant.report.pages.plan.charts import STEPS, _ramp
from operant.report.pages.plan.load import headline, load_plan
from tests.report.reading import HOSTILE, Elements, charts, rendered, rows_of

BINS = ["0", "(0, .05]", "(.05, .1]", "(.1, .25]", "(.25, .5]", "(.5, .75]", "(.75, 1)", "1"]


def point(n: int, value: float, spread: float | None, **more: Any) -> dict[str, Any]:
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    return {"n": n, "value": value, "low": low, "high": high, **more}


def curve(strategy: str, values: dict[int, float], spread: float | None) -> dict[str, Any]:
    budgets = list(values)
    gains = [
        point(b, values[b] - values[a], spread and spread / 2, **{"from": a})
        for a, b in zip(budgets, budgets[1:], strict=False)
    ]
    points = [point(n, v, spread, cost=float(n)) for n, v in values.items()]
    return {"kind": "curve", "strategy": strategy, "verifier": True, "points": points, "gains": gains}


def signal(strategy: str, n: int, *, dead: bool = False) -> dict[str, Any]:
    shares = [{"m": 2 * n, "share": 0.625}, {"m": 16, "share": 0.25}]
    bins = None if dead else [0, 0.5, 0.25, 0.125, 0.125, 0, 0, 0]
    top = [] if dead else [{"prompt": HOSTILE, "share": 0.5, "rate": 0.0625}]
    tenth = None if dead else 0.75
    name = strategy.replace("@N", f"@{n}")
    return {
        "kind": "signal",
        "strategy": strategy,
        "n": n,
        "name": name,
        "dead": shares,
        "exact": strategy == "pass@N",
    } | {
        "bins": bins,
        "top_tenth": tenth,
        "top": top,
    }


ADVICE = {
    "kind": "recommendation",
    "case": "with a verifier",
    "verdict": "train",
    "deploy": "pass@4",
    "train": "mix(pass@1:0.25, pass@4:0.75)",
    "n": 4,
    "m": 8,
    "reasons": ["Because <b>it</b> pays."],
}


def make(folder: Path, *, binary: bool = True, spread: float | None = 0.02, prompts: int = 50, **advice: Any) -> Path:
    """A plan as ``operant plan`` writes it."""
    records = [
        {"kind": "run", "command": "plan", "name": f"a plan {HOSTILE}", "config": {"rollouts": "r.jsonl", "price": 0}},
        {"kind": "environment", "time": 1795859137.8, "python": "3", "trl": None},
        {"kind": "note", "text": "2 of 800 completions could not be verified."},
        {"kind": "rollouts", "prompts": prompts, "rollouts": 16, "binary": binary, "confidence": 0.9}
        | {"bins": BINS, "prompts_in_bins": [0.125] * 8},
        curve("pass@N", {1: 0.125, 2: 0.25, 4: 0.375, 16: 0.5}, spread),
        curve("maj@N", {1: 0.125, 2: 0.125, 4: 0.1875, 16: 0.25}, spread),
        curve("mix(pass@1:0.25, pass@4:0.75)", {4: 0.3125}, spread),
        *(signal(s, n) for s in ("pass@N", "maj@N") for n in (1, 2, 4, 8)),
        signal("mix(pass@1:0.25, pass@4:0.75)", 4, dead=True),
        ADVICE | advice,
    ]
    write_records(folder / "record.jsonl", records)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return rendered(folder)


def test_sections_stand_in_order(page: str) -> None:
    assert [h for h in Elements(page).headings if "alert" not in h] == [
        "Recommendation with a verifier",
        "What more samples buy",
        "What each step of the budget buys",
        "Which prompts carry the gradient",
        "Dead groups",
        "How to read this page",
        "Glossary",
        "Settings",
        "Environment",
    ]
    assert "1795859137.8" not in page  # when it was written is no setting


def test_every_family_has_its_panels_and_a_dead_one_carries_nothing(page: str) -> None:
    ids = list(charts(page))
    assert ids == ["value-0", "gain-0", "signal-0", "signal-1", "dead-0", "dead-1", "dead-2"]
    assert [f'id="{i}"' in page for i in ids] == [True] * 7


def test_charts_draw_the_records(page: str) -> None:
    drawn = charts(page)
    values = {(r["series"], r["n"]): (r["value"], r["low"]) for r in rows_of(drawn["value-0"], "low")}
    assert len(values) == 9 and values["maj@N", 4] == pytest.approx((18.75, 16.75))
    gains = {(r["series"], r["n"]): r["value"] for r in rows_of(drawn["gain-0"], "low")}
    assert gains == pytest.approx(
        {("pass@N", 2): 12.5, ("pass@N", 4): 12.5, ("pass@N", 16): 12.5}
        | {("maj@N", 2): 0, ("maj@N", 4): 6.25, ("maj@N", 16): 6.25}
    )
    bars: dict[str, float] = {}
    for r in rows_of(drawn["signal-0"], "order"):
        bars[r["n"]] = bars.get(r["n"], 0) + r["value"]
    assert bars == pytest.approx(dict.fromkeys(["all", "1", "2", "4", "8"], 100))
    assert {r["m"] for r in rows_of(drawn["dead-0"], "m")} == {2, 4, 8, 16}


def test_every_budget_has_its_own_color() -> None:
    """Seven budgets, as of 128 rollouts, and six anchors of the scale."""
    colors = [key.light for key in _ramp(7)]
    assert len(set(colors)) == 7 and (colors[0], colors[-1]) == (STEPS[0], STEPS[-1])
    assert [key.dark for key in _ramp(len(STEPS))] == list(STEPS) and [key.light for key in _ramp(1)] == [STEPS[0]]


def test_the_table_for_the_terminal(folder: Path) -> None:
    text = summary_table(folder)
    assert text.startswith(
        "With a verifier: deploy pass@4, train for mix(pass@1:0.25, pass@4:0.75), M = 8 rollouts a prompt."
    )
    assert "  - Because <b>it</b> pays." in text and "could not be verified" in text
    assert re.search(r"^4 +37\.5 \(35\.5 to 39\.5\) +18\.8 \(16\.8 to 20\.8\) +31\.2 \(29\.2 to 33\.2\)$", text, re.M)
    assert re.search(r"^2 +25\.0 .* –$", text, re.M) and "90 % bootstrap interval" in text
    assert re.search(r"^pass@4 +62 % +25 % +25 % +75 %$", text, re.M)
    assert re.search(r"^maj@2 +62 % +– +25 % +75 %$", text, re.M)


def test_a_small_share_of_dead_groups_does_not_print_as_zero(tmp_path: Path) -> None:
    path = make(tmp_path) / "record.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"share": 0.625', '"share": 0.004'), encoding="utf-8")
    assert re.search(r"^pass@4 +<1 % +25 % ", summary_table(tmp_path), re.M)


@pytest.mark.parametrize(
    "advice, said",
    [
        ({}, "With a verifier: deploy pass@4, train for mix(pass@1:0.25, pass@4:0.75), M = 8 rollouts a prompt."),
        ({"case": "", "train": "pass@4"}, "Deploy pass@4, train for it, M = 8 rollouts a prompt."),
        ({"case": "", "verdict": "nothing to gain", "deploy": "pass@1"}, "Nothing to gain from more samples: deploy"),
        ({"verdict": "unknown"}, "No recommendation."),
    ],
)
def test_headlines(advice: dict[str, Any], said: str) -> None:
    assert headline(ADVICE | advice).startswith(said)


def test_one_prompt_has_no_intervals(tmp_path: Path) -> None:
    unknown = {"case": "", "verdict": "unknown", "deploy": None, "train": None, "n": None, "m": None}
    folder = make(tmp_path, spread=None, prompts=1, **unknown)
    html = rendered(folder)
    assert "intervals are unavailable" in html and "No recommendation." in html
    assert " to " not in "".join(re.findall(r"<td>.*?</td>", html))
    assert re.search(r"^4 +37\.5 +18\.8 +31\.2$", summary_table(folder), re.M)


def test_rewards_that_are_not_binary_are_no_percentages(tmp_path: Path) -> None:
    text = summary_table(make(tmp_path, binary=False))
    assert "pass@N, reward" in text and "0.375 (0.355 to 0.395)" in text and "scaled from the" in text
    drawn = charts(rendered(tmp_path))["value-0"]
    assert {r["value"] for r in rows_of(drawn, "low")} >= {0.375, 0.5}


def test_other_folders_are_no_plans(tmp_path: Path) -> None:
    write_records(tmp_path / "record.jsonl", [{"kind": "run", "command": "train"}])
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="that `operant plan` wrote"):
            load_plan(folder)
