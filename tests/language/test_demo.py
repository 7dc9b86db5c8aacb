"""``operant demo language`` in small: its record, its page, its continuation; and the problem that it shows."""

from __future__ import annotations

import pytest
import torch

import operant.hf.workers
import operant.language.command.demo as demo
from operant.core.checks import ConfigError
from operant.core.record import read_records
from operant.hf.config import DemoConfig
from operant.language.command.reading import TextTarget
from operant.language.command.spreadsheet import STEPS, cells, spreadsheet_steps
from operant.language.relations import BankRun, Compose
from operant.report import summary_table
from tests import inline
from tests.report.reading import rendered


@pytest.fixture(autouse=True)
def small(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(operant.hf.workers, "worker_pool", inline.worker_pool)
    for name, value in {"HIDDEN": 16, "LAYERS": 1, "BATCH": 4}.items():
        monkeypatch.setattr(demo, name, value)


def test_it_compares_the_methods_and_can_be_shown_again(tmp_path, monkeypatch):
    config = DemoConfig(tmp_path / "d", steps=2, what="language")

    def stop(policy, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(demo, "_continued", stop)
        demo.language_demo(config, targets=2)
    assert demo.language_demo(config, targets=2) == tmp_path / "d"  # goes on: nothing is trained again
    records = read_records(tmp_path / "d" / "record.jsonl", torn=False)
    assert sum(r["kind"] == "environment" for r in records) == 2
    (found,) = (r for r in records if r["kind"] == "comparison")
    assert (found["targets"], found["supports"], found["queries"]) == (2, 2, 4)
    rows = {r["method"]: r["value"] for r in found["rows"]}
    assert rows["symbolic search"] > 0.4 and rows["flat: examples continued"] == 0
    assert [r["key"] for r in records if r["kind"] == "target"][0] == "swap at comma > title case"
    table, page = summary_table(tmp_path / "d"), rendered(tmp_path / "d")
    assert "decomposition, steps run" in table and "Held-out combinations" in page
    demo.language_demo(config, targets=2)
    assert len(read_records(tmp_path / "d" / "record.jsonl")) == len(records) + 2  # the head of the second run


def test_settings_of_the_other_demo_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--seeds is for the demo of training"):
        demo.language_demo(DemoConfig(tmp_path, seeds=1, what="language"))


def test_held_out_combinations_are_never_taught():
    split, relation = demo.split(), Compose()
    behaviors = {t.behavior(split.bank.probes) for t in split.targets}
    assert len(behaviors) == len(split.targets) == 38
    taught = [x.task for x in relation.lessons(split.bank, split.targets)]
    assert not behaviors & {t.behavior(split.bank.probes) for t in taught}


def test_the_steps_do_what_they_are_called():
    bank = spreadsheet_steps(50)
    assert len(bank.distinct()) == len(STEPS) == 12
    run = BankRun(bank)
    for step, y in (
        ("swap at comma", "john SMITH"),
        ("initials", "S.j."),
        ("last word", "john"),
        ("dots", "SMITH.john"),
        ("title case", "Smith, John"),
    ):
        assert run(step, "SMITH, john") == y
    assert run("trim", "  a   b ") == "a b" and run("first word", " ") == "" and run("no digits", "a 7") == "a"
    assert len(set(cells(50, seed=0))) == 50 and cells(5, seed=0) == cells(5, seed=0)


def test_symbolic_search_is_what_the_supports_tell():
    class Model:
        bank_, relation_ = spreadsheet_steps(50), Compose()

    target = TextTarget("t", (("SMITH, john", "John Smith"),), ("HILL,  ruth ",), {})
    assert demo.symbolic(Model(), target) == ["Ruth Hill"]  # pyright: ignore
    nothing = TextTarget("t", (("SMITH, john", "no"),), ("HILL, ruth",), {})
    assert demo.symbolic(Model(), nothing) == [""]  # pyright: ignore
