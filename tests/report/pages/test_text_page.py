"""The page and table of text tasks: what was asked first, warnings in the head, every number with its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from operant.core.record import read_records, write_records
from operant.report import summary_table
from operant.report.charts import rows_of
from operant.report.pages.text.charts import ALL, NONE, SOME, loss_figure, target_figure
from operant.report.pages.text.load import cautions, explanation, headline, load_text, quoted
from operant.report.pages.text.tables import MOST_ROWS, prediction_rows
from tests.report.reading import HOSTILE, Elements, rendered

RELATION = {"name": "Compose", "depth": 2, "shots": 0}
FALLBACK = {"fallback": "the best candidate gives a support a mean log-probability of -31.0", "effective_number": 4.0}


def hypothesis(*steps: str, weight: float, log_p: tuple[float, ...], candidates: int = 1) -> dict[str, Any]:
    equals = [["same", s] for s in steps[: candidates - 1]]
    explained = sum(p > -0.7 for p in log_p)
    about = {"steps": list(steps), "equals": equals, "candidates": candidates, "weight": weight, "given": explained}
    return about | {"explained": explained, "log_p": list(log_p), "refuted": False}


def prediction(x: str, y: str, share: float = 0.9, truth: str | None = None, few: bool = False) -> dict[str, Any]:
    shares = [] if few else [{"output": y, "share": share}, {"output": f"not {y}", "share": 1 - share}]
    confidence = None if few else share
    return {
        "input": x,
        "output": y,
        "confidence": confidence,
        "shares": shares,
        "few_shot": few,
        "truth": truth,
    }


def target(key: str = "names", **more: Any) -> dict[str, Any]:
    supports = [("SMITH, john", "John Smith", -0.1), ("jones,  MARY", "Mary Jones", -0.2)]
    return {
        "kind": "target",
        "key": key,
        "scored": 100,
        "refuted": 60,
        "left": 12,
        "supports": [{"input": x, "output": y, "log_p": p, "explained": True} for x, y, p in supports],
        "hypotheses": [
            hypothesis("swap", "title", weight=0.75, log_p=(-0.1, -0.2), candidates=2),
            hypothesis("swap", "trim", weight=0.2, log_p=(-0.3, -4.0)),
            hypothesis(HOSTILE, weight=0.05, log_p=(-5.0, -6.0)),
        ],
        "effective_number": 1.6,
        "fallback": "",
        "failures": [],
        "applicability": {"applies": True, "log_p": -0.15, "p_value": 0.4, "lessons": 20, "lowest": -1.0},
        "predictions": [prediction("HILL, ruth", "Ruth Hill", truth="Ruth Hill"), prediction(" a", HOSTILE)],
    } | more


ALIEN = {"predictions": [prediction("q", "", few=True)]} | FALLBACK


def make(folder: Path, targets: list[dict[str, Any]], *more: dict[str, Any]) -> Path:
    """A run as ``operant extrapolate`` writes it."""
    first = {"kind": "run", "command": "extrapolate text", "name": f"names {HOSTILE}", "config": {"task": "task"}}
    history = [[s, 20.0 / s] for s in range(1, 21)]
    model = {"kind": "model", "name": "embedded", "relation": RELATION, "parameters": 1000, "trained": True}
    shown = [{"task": f"swap {HOSTILE}", "input": "a, b", "output": "b a", "callable": True}]
    bank = {"kind": "bank", "tasks": 10, "merged": 1, "demonstrations": 900, "callable": 9, "candidates": 100}
    records = [first, {"kind": "environment", "python": "3"}, {"kind": "note", "text": f"note {HOSTILE}"}]
    write_records(
        folder / "record.jsonl", [*records, model | {"history": history}, bank | {"shown": shown}, *more, *targets]
    )
    return folder


COMPARISON = {
    "kind": "comparison",
    "targets": 30,
    "supports": 3,
    "queries": 4,
    "rows": [
        {"method": f"search {HOSTILE}", "value": 0.98, "low": 0.9, "high": 1.0, "about": "supports alone"},
        {"method": "flat", "value": 0.1, "low": 0.05, "high": 0.2, "about": ""},
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("text"), [target(), target("other", **ALIEN)], COMPARISON)


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return rendered(folder)


def test_sections_stand_in_order(page: str) -> None:
    heads = [h for h in Elements(page).headings if "alert" not in h]
    wanted = ["Held-out combinations", "Targets", "Target names", "Target other", "Known tasks", "Training"]
    assert heads == [*wanted, "How to read this page", "Glossary", "Settings", "Environment"]


def test_the_first_sentence_says_task_data_and_model(page: str) -> None:
    first = page[page.index('<p class="asked">') :].partition("</p>")[0]
    assert "2 text tasks with 2 supports each, 3 inputs predicted as chains of up to 2 of 10 known tasks" in first
    assert "by a model (embedded, 1,000 parameters)." in first


def test_what_does_not_apply_is_said_in_the_head(page: str) -> None:
    head = page[: page.index("</header>")]
    assert head.count('class="warning"') == 2
    assert "other: the predictions come from few-shot prompting (the best candidate gives" in head
    assert "names: about 1.6 different hypotheses are left." in head and "Few-shot" not in head


def test_cautions_and_headlines() -> None:
    sure = target(effective_number=1.0)
    assert cautions(sure) == []
    assert headline(sure) == "names: swap > title (75 %), explains 2 of 2 supports; predictions with confidence 90 %."
    weak = target(effective_number=1.0, hypotheses=[hypothesis("swap", weight=1.0, log_p=(-9.0, -8.0))])
    assert cautions(weak)[0][0] == "names: executed, the best candidate gives 0 of 2 supports."
    assert headline(weak) == "names: no candidate explains a support; the most probable one is swap (100 %)."
    noisy = weak["hypotheses"][0] | {"refuted": True, "explained": 1}
    ((what, advice),) = cautions(target(effective_number=1.0, hypotheses=[noisy]))
    assert what == "names: no candidate gives every support when it is run; the best one gives 1 of 2."
    assert advice.startswith("The supports are taken as noisy.")
    assert "Of 100 candidates, 60 contradict a support when they are run; the likely" in " ".join(explanation(target()))
    none = target(hypotheses=[], predictions=[prediction("q", "y", few=True)], effective_number=0.0)
    assert "no candidate can be run" in cautions(none)[0][0]
    assert headline(none).startswith("names: no combination of known tasks is trusted")


def test_bars_are_the_hypotheses(folder: Path) -> None:
    run = load_text(folder)
    figure = target_figure(run.targets[0], "target-0")
    rows = rows_of(figure.panels[0])
    assert [r["posterior"] for r in rows] == [75.0, 20.0, 5.0] and list(figure.keys) == [ALL, SOME, NONE]
    assert [r["series"] for r in rows] == [ALL, SOME, NONE] and rows[0]["candidate"] == "1. swap > title"
    loss = loss_figure(run)
    assert loss is not None and len(rows_of(loss.panels[0])) == 20


def test_predictions_are_quoted_and_cut(page: str) -> None:
    many = target(predictions=[prediction(f"q{i}", "y") for i in range(20)])
    assert len(prediction_rows(many, MOST_ROWS)) == 1 + MOST_ROWS
    assert prediction_rows(many)[0] == ["query", "prediction", "confidence", "other outputs"]
    assert prediction_rows(target())[1][-1] == '"Ruth Hill"' and prediction_rows(target())[2][-1] == "–"
    assert quoted("x" * 100) == '"' + "x" * 59 + '…"' and quoted(" a") == '" a"'
    assert "&quot; a&quot;" in page and "few-shot" in page


def test_the_terminal_says_the_same(folder: Path) -> None:
    text = summary_table(folder)
    for words in ("swap > title", "75 %", "other: the predictions come from few-shot prompting", "flat", "10.0"):
        assert words in text
    assert text.index("right, %") < text.index("best candidate")


def test_a_run_that_did_not_train_says_so(tmp_path: Path) -> None:
    make(tmp_path, [target()])
    records = [r | {"trained": False} if r["kind"] == "model" else r for r in read_records(tmp_path / "record.jsonl")]
    write_records(tmp_path / "record.jsonl", records)
    assert "this run did not train" in rendered(tmp_path)
