"""``operant extrapolate`` for text tasks, in this process and with a tiny model: files in, records and pages out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import operant.cli
import operant.hf.workers
import operant.language.command.run
from operant.cli.kinds import ExtrapolateSettings, of_kind
from operant.core.checks import ConfigError, DataError, OperantError
from operant.core.record import read_records
from operant.hf.rollouts.policy import byte_policy
from operant.hf.text_config import TextConfig
from operant.language import Compose, Toggle
from operant.language.command.run import prepare
from operant.language.command.usercode import functions_of, relation_of
from tests import inline

WORDS = ["ab", "cde", "fa", "bcd", "eef", "dad", "cab", "fed", "be", "ace", "face", "deaf"]
FUNCTIONS = {"up": str.upper, "hash": lambda x: x + "#", "none": lambda x: ""}
MINE = """
FUNCTIONS = {"up": str.upper, "hash": lambda x: x + "#", "none": lambda x: "", "more": str.title}
WRONG = {"up": str.lower}
TEXT = "up"
ODD = {"up": 3}
"""
SMALL = ["--steps=8", "--save_steps=4", "--batch_size=8", "--hidden=16", "--layers=1", "--learning_rate=5e-3"]
TARGETS = [
    {"task": "loud", "input": "ab", "output": "AB#"},
    {"task": "loud", "input": "cde", "output": "CDE#"},
    {"task": "odd", "input": "ab", "output": "zzzzzzzzzzzzzzzzzzzzzzzzzzzz"},
    {"task": "loud", "input": "fa"},
    {"task": "loud", "input": "bcd", "output": None},
    {"task": "odd", "input": "fa", "output": None},
]


def rows_of(functions):
    return [{"task": k, "input": x, "output": f(x)} for k, f in functions.items() for x in WORDS]


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Jobs run in this process, on one thread."""
    torch.set_num_threads(1)
    monkeypatch.setattr(operant.hf.workers, "worker_pool", inline.worker_pool)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write(folder / "bank.jsonl", rows_of(FUNCTIONS))
    write(folder / "target.jsonl", TARGETS)
    write(folder / "query.jsonl", [{"input": "deaf", "output": "DEAF#"}, {"input": "be"}])
    (folder / "mine_of_run.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


def command(files, out, *more):
    chosen = [f"--target={files / 'target.jsonl'}", "--functions=mine_of_run.FUNCTIONS", "--execute=run"]
    return ["extrapolate", files / "bank.jsonl", *chosen, *SMALL, f"--output_dir={out}", *more]


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """A finished run: its folder and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operant.hf.workers, "worker_pool", inline.worker_pool)
        run = inline.run(*command(files, out, f"--query={files / 'query.jsonl'}"))
    assert run.returncode == 0, run.stderr
    return out, run.stdout


def every(folder: Path, kind: str):
    return [{k: v for k, v in r.items() if k != "time"} for r in read_records(folder / "record.jsonl", torn=False)
            if r["kind"] == kind]  # fmt: skip


def test_a_run_explains_predicts_and_draws(whole):
    folder, printed = whole
    rows = read_records(folder / "predictions.jsonl")
    assert [(r["task"], r["input"]) for r in rows] == [
        *(("loud", x) for x in ("fa", "bcd", "deaf", "be")),
        *(("odd", x) for x in ("fa", "deaf", "be")),
    ]
    for r in rows:
        assert r.keys() == {"task", "input", "output", "confidence", "shares", "few_shot", "given", "supports"}
        assert 0 <= r["given"] <= r["supports"] == (2 if r["task"] == "loud" else 1)
        if not r["few_shot"]:
            assert sum(r["shares"].values()) == pytest.approx(1, abs=1e-6) and r["shares"][r["output"]] == max(
                r["shares"].values()
            )
            assert r["confidence"] == r["shares"][r["output"]]
    (model,), (bank,), targets = (every(folder, k) for k in ("model", "bank", "target"))
    assert model["trained"] and len(model["history"]) == 8 and bank["tasks"] == bank["callable"] == 3
    assert [s["step"] for s in every(folder, "step")] == list(range(1, 9))
    assert [t["key"] for t in targets] == ["loud", "odd"] and targets[0]["scored"] == bank["candidates"] == 6
    assert [p["truth"] for p in targets[0]["predictions"]] == [None, None, "DEAF#", None]
    (note,) = every(folder, "note")
    assert note["text"] == "Functions of no task of the bank were not used: more."
    for words in ("2 text tasks with 1 to 2 supports each, 7 inputs predicted", "loud: predictions", '"bcd"'):
        assert words in printed
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Target loud" in page and "Known tasks" in page and "Training" in page
    assert (folder / "report" / "target-0.png").stat().st_size > 1000


def test_a_fitted_model_is_not_trained_again(files, whole, tmp_path, monkeypatch):
    folder, _ = whole
    monkeypatch.setattr(operant.cli, "_report", lambda *_, **__: None)
    again = [f"--target={files / 'target.jsonl'}", f"--model={folder / 'model'}", f"--output_dir={tmp_path / 'out'}"]
    more = ["--functions=mine_of_run.FUNCTIONS", "--execute=run", f"--query={files / 'query.jsonl'}"]
    run = inline.run("extrapolate", files / "bank.jsonl", *again, *more)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == (folder / "predictions.jsonl").read_text()
    assert every(tmp_path / "out", "target") == every(folder, "target")
    (model,) = every(tmp_path / "out", "model")
    assert not model["trained"] and not (tmp_path / "out" / "model").exists()

    config = TextConfig(files / "bank.jsonl", files / "target.jsonl", model=str(folder / "model"))
    with pytest.raises(ConfigError, match="is a fitted model: leave out --depth, --steps"):
        prepare(TextConfig(config.bank, config.target, model=config.model, steps=5, depth=3))
    other = write(tmp_path / "other.jsonl", rows_of({"up": str.title, "hash": FUNCTIONS["hash"], "none": str.strip}))
    with pytest.raises(DataError, match="was fitted on another bank than .*: task 'up' differs"):
        prepare(TextConfig(other, config.target, model=config.model))


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(files, whole, tmp_path, monkeypatch):
    folder, out = whole[0], tmp_path / "stopped"
    asked = command(files, out, f"--query={files / 'query.jsonl'}")
    monkeypatch.setattr(operant.cli, "_report", lambda *_, **__: None)
    append = operant.language.command.run.append_record

    def stop_at(kind, step):
        def record(path, what, **fields):
            if what == kind and fields.get("step", step) >= step:
                raise KeyboardInterrupt
            append(path, what, **fields)

        monkeypatch.setattr(operant.language.command.run, "append_record", record)

    stop_at("step", 7)
    run = inline.run(*asked)
    assert run.returncode == 130 and "stopped. Continue with --resume true." in run.stderr
    assert [s["step"] for s in every(out, "step")] == [1, 2, 3, 4, 5, 6]
    refused = inline.run(*asked)
    assert refused.returncode == 2 and "holds a run of operant extrapolate text already" in refused.stderr
    changed = inline.run(*asked, "--resume=true", "--depth=3")
    assert changed.returncode == 2 and "depth: 2 -> 3" in changed.stderr

    stop_at("target", 0)
    assert inline.run(*asked, "--resume=true").returncode == 130  # the training is done, no target is
    assert not every(out, "target") and (out / "model" / "bank.jsonl").is_file()

    monkeypatch.setattr(operant.language.command.run, "append_record", append)
    run = inline.run(*asked, "--resume=true")
    assert run.returncode == 0, run.stderr
    for kind in ("step", "model", "bank", "target", "note"):
        assert every(out, kind) == every(folder, kind), kind
    assert (out / "predictions.jsonl").read_bytes() == (folder / "predictions.jsonl").read_bytes()
    assert "no target is left" in inline.run(*asked, "--resume=true").stdout


def test_a_model_folder_is_trained_with_an_adapter(files, tmp_path, monkeypatch):
    byte_policy([], hidden=16, layers=1).save(tmp_path / "base")
    monkeypatch.setattr(operant.cli, "_report", lambda *_, **__: None)
    small = ["--steps=2", "--batch_size=4", "--lora_rank=2", f"--model={tmp_path / 'base'}", "--save_steps=0"]
    first = command(files, tmp_path / "out")[:3]
    run = inline.run(*first, "--functions=mine_of_run.FUNCTIONS", *small, f"--output_dir={tmp_path / 'out'}")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out" / "model" / "model" / "adapter_config.json").is_file()
    assert len(read_records(tmp_path / "out" / "predictions.jsonl")) == 3


def test_a_run_that_fails_at_its_data_leaves_nothing(files, tmp_path):
    out = tmp_path / "out"
    write(tmp_path / "long.jsonl", [*rows_of(FUNCTIONS), {"task": "up", "input": "x" * 99, "output": "X" * 99}])
    run = inline.run(*command(files, out)[:1], tmp_path / "long.jsonl", *command(files, out)[2:], "--max_tokens=40")
    assert run.returncode == 2 and "exceeds max_tokens = 40" in run.stderr and run.stderr.count("\n") == 1
    assert not out.exists()


def test_an_empty_output_is_a_support(files, tmp_path):
    rows = [
        {"task": "gone", "input": "ab", "output": ""},
        {"task": "gone", "input": "fa", "output": ""},
        {"task": "gone", "input": "be", "output": None},
    ]
    known = prepare(TextConfig(files / "bank.jsonl", write(tmp_path / "t.jsonl", rows)))
    (target,) = known.targets
    assert target.supports == (("ab", ""), ("fa", "")) and target.queries == ("be",) and not known.notes
    bank = write(tmp_path / "bank.jsonl", rows_of({"up": str.upper}))
    assert "2 supports of 'gone' have an empty output" in prepare(TextConfig(bank, tmp_path / "t.jsonl")).notes[0]
    with pytest.raises(DataError, match="target 'gone' has no query. 2 of its lines have the output \"\""):
        prepare(TextConfig(bank, write(tmp_path / "u.jsonl", rows[:2])))


BANK = rows_of(FUNCTIONS)
UP = {"task": "t", "input": "ab", "output": "AB"}
ASK = {"task": "t", "input": "be"}


@pytest.mark.parametrize(
    ("bank", "target", "message"),
    [
        ([], [UP, ASK], "bank.jsonl: expected a line for every demonstration of a known task, found none"),
        ([{"task": "a", "in": "x", "output": "y"}], [UP, ASK], "bank.jsonl: row 1 has no column 'input'"),
        ([{"task": "a", "input": "x", "output": None}], [UP, ASK], "row 1: column 'output' must hold text, got None"),
        ([*BANK, {"task": "up", "input": "ab", "output": "x"}], [UP, ASK], "task 'up' contradicts itself"),
        (BANK, [], "target.jsonl: expected a line for every support and query, found none"),
        (BANK, [ASK], "target 't' has no line with 'output'"),
        (BANK, [UP], "target 't' has no query. Add a line without 'output'"),
        (BANK, [UP, {**UP, "output": "x"}, ASK], "target 't' contradicts itself: 'ab' gives 'AB' and 'x'"),
        (BANK, [UP, {"task": "t", "x": "be"}], "row 2: no column 'input'. Its columns: task, x. Name it by --x"),
        (BANK, [UP, {"input": "be"}], "row 2: no column 'task', which other rows have"),
        (BANK, [UP, {"task": "t", "input": 5}], "row 2: column 'input' must hold text, got 5"),
        (BANK, [UP, ASK, {**UP, "output": 5}], "row 3: column 'output' must hold text or null, got 5"),
        (BANK, [{**UP, "task": True}, ASK], "row 1: column 'task' must hold a name, got True"),
        (BANK, [UP, {"task": "t", "input": "x" * 600}], "has a text of 600 bytes, the embedded model reads 512"),
    ],
)
def test_files_that_cannot_be(tmp_path, bank, target, message):
    config = TextConfig(write(tmp_path / "bank.jsonl", bank), write(tmp_path / "target.jsonl", target))
    with pytest.raises(DataError) as caught:
        prepare(config)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"functions": "mine_of_run.NO"}, DataError, "functions: mine_of_run.NO does not load"),
        ({"functions": "mine_of_run.TEXT"}, DataError, "to be a mapping from names to functions, got str"),
        ({"functions": "mine_of_run.ODD"}, DataError, "must map names to functions, got 'up': int"),
        ({"functions": "nodots"}, ConfigError, "functions must be a dotted path"),
        ({"functions": "mine_of_run.WRONG"}, DataError, "the function of task 'up' gives 'ab' for 'ab'"),
        ({"relation": "composed"}, ConfigError, "relation must be compose, toggle or a dotted path"),
        ({"relation": "toggle", "depth": 3}, ConfigError, "--depth and --shots are for the relation compose"),
        ({"relation": "toggle"}, DataError, "has no column 'parts'"),
        ({"relation": "mine_of_run.TEXT"}, DataError, "expected mine_of_run.TEXT to be a Relation, got str"),
        ({"steps": 0}, OperantError, "steps must be an integer >= 1"),
        ({"y": "task"}, ConfigError, "the columns must have three names"),
    ],
)
def test_settings_that_cannot_work(files, settings, error, message):
    with pytest.raises(error, match=message):
        prepare(TextConfig(files / "bank.jsonl", files / "target.jsonl", **settings))


def test_relations_and_functions_by_name(files):
    assert relation_of(TextConfig(Path(), Path(), depth=3, shots=1)) == Compose(depth=3, shots=1)
    assert relation_of(TextConfig(Path(), Path(), relation="operant.language.Toggle")) == Toggle()
    assert functions_of("") == {} and functions_of("mine_of_run:FUNCTIONS")["hash"]("a") == "a#"


def test_a_file_with_one_target_needs_no_name_and_queries_may_be_elsewhere(files, tmp_path):
    target = write(tmp_path / "t.jsonl", [{"x": "ab", "y": "AB"}])
    bank = write(tmp_path / "b.jsonl", [{"task": r["task"], "x": r["input"], "y": r["output"]} for r in BANK])
    asked = write(tmp_path / "q.jsonl", [{"x": "be", "y": "BE"}, {"x": "be"}])
    (only,) = prepare(TextConfig(bank, target, x="x", y="y", query=asked)).targets
    assert only.key == "target" and only.queries == ("be",) and only.truth == {"be": "BE"}
    stray = write(tmp_path / "s.jsonl", [{"task": "nobody", "x": "be"}])
    with pytest.raises(DataError, match="no target is called 'nobody'. The targets: target"):
        prepare(TextConfig(bank, target, x="x", y="y", query=stray))


def test_the_files_say_which_kind_it_is(files, tmp_path):
    (tmp_path / "b.csv").write_text("T,x,y\n1,2,3\n")
    text, curves = files / "bank.jsonl", tmp_path / "b.csv"
    found = of_kind(ExtrapolateSettings(text, files / "target.jsonl"))
    assert isinstance(found, TextConfig) and (found.x, found.y) == ("input", "output")
    chosen = of_kind(ExtrapolateSettings(curves, curves, task="T", x="x", y=["y"], level=0.8))
    assert not isinstance(chosen, TextConfig) and chosen.level == 0.8
    renamed = tmp_path / "bank.txt"
    renamed.write_bytes(b"\xef\xbb\xbf\n" + text.read_bytes())
    assert isinstance(of_kind(ExtrapolateSettings(renamed, text, x=["x"], y="y")), TextConfig)
    for bank, target, what in ((text, curves, "target"), (curves, text, "target")):
        with pytest.raises(DataError, match=f"Give --{what} the form of the bank"):
            of_kind(ExtrapolateSettings(bank, target))
    for config, message in (
        (ExtrapolateSettings(text, text, params="T"), "--params is for curves .CSV., and .* holds text tasks"),
        (ExtrapolateSettings(curves, curves, x="x", y="y", steps=5), "--steps is for text tasks .JSON lines., and"),
        (ExtrapolateSettings(curves, curves), "curves need --x and --y"),
        (ExtrapolateSettings(text, text, x=["a", "b"]), "text tasks have one column of --x, got a, b"),
    ):
        with pytest.raises(ConfigError, match=message):
            of_kind(config)
    with pytest.raises(DataError, match="found a folder"):
        of_kind(ExtrapolateSettings(tmp_path, text))
    missing = inline.run("extrapolate", tmp_path / "no.jsonl", f"--target={text}")
    assert missing.returncode == 2 and "expected a JSON lines file at" in missing.stderr


def test_toggle_reads_the_parts_of_tasks(tmp_path):
    rows = [
        {"task": name, "input": x, "output": str(sum(int(x[i]) for i in bits) % 2), "parts": [f"bit {i}" for i in bits]}
        for name, bits in (("a", [0]), ("b", [1]), ("c", [2]), ("ab", [0, 1]))
        for x in ("000", "011", "101", "110", "111")
    ]
    bank = write(tmp_path / "b.jsonl", rows)
    target = write(tmp_path / "t.jsonl", [{"input": "011", "output": "0"}, {"input": "111"}])
    known = prepare(TextConfig(bank, target, relation="toggle"))
    assert known.bank["ab"].parts == ("bit 0", "bit 1") and [str(c) for c in known.relation.candidates(known.bank)] == [
        "ab > c"
    ]
    write(bank, [*rows, {**rows[0], "input": "010", "parts": ["x"]}])
    with pytest.raises(DataError, match="column 'parts' must be constant within task 'a'"):
        prepare(TextConfig(bank, target, relation="toggle"))
    write(bank, [{**r, "parts": "bit 0"} for r in rows])
    with pytest.raises(DataError, match="column 'parts' must hold a list of texts, got 'bit 0'"):
        prepare(TextConfig(bank, target, relation="toggle"))
