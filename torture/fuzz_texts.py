"""Odd files of text: prompts and rollouts as JSON lines, records, YAML, CSV."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import operant.cli
import operant.cli.parser
from operant.core.record import append_record, read_records
from operant.hf.config import EvaluateConfig, PlanConfig, TrainConfig
from operant.hf.rollouts.plan import plan
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.rollouts.rows import outcomes_of, verify_rows
from operant.hf.train.settings import checked
from operant.relational.bank.tasks import TaskBank
from operant.relational.config import ExtrapolateConfig
from operant.relational.files import read_bank, read_targets
from torture.fuzz import kind
from torture.values import changed_bytes, changed_json, json_value, lines, odd, paths

PROMPTS: list[Any] = [
    {"prompt": f"Größe {i} + {i}?", "target": str(2 * i), "level": i, "tags": ["a", {"b": 1}]} for i in range(6)
]
CHATS: list[Any] = [
    {
        "prompt": [{"role": "system", "content": "Short."}, {"role": "user", "content": f"{i} + 1?"}],
        "reward_model": {"ground_truth": str(i + 1), "style": "rule"},
    }
    for i in range(6)
]
TASKS: list[Any] = [
    {"prompt": f"def f{i}(x):\n", "test": "def check(f):\n    assert f(1)\n", "entry_point": f"f{i}"} for i in range(4)
]
PATTERNS = ["", "", "", r"(\d+)", "#### (.+)", "(", "x", "(a|b)*", "(?P<a>.)", "[", "(.*)(.*)", "\\"]
COLUMNS = [
    "prompt",
    "prompt",
    "prompt",
    "target",
    "level",
    "tags",
    "tags.1.b",
    "reward_model.ground_truth",
    "",
    "x",
    ".",
]


@st.composite
def prompt_files(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A file of prompts, damaged or odd, and how it is read."""
    base = draw(st.sampled_from([PROMPTS, PROMPTS, CHATS, TASKS]))
    data = draw(changed_bytes(lines(base))) if draw(st.booleans()) else lines(draw(changed_json(base, paths(base))))
    target = "reward_model.ground_truth" if base is CHATS else "target"
    how: dict[str, Any] = {
        "prompt": "prompt",
        "target": target,
        "holdout": draw(st.sampled_from([1, 2, 2, 200, 0, -1])),
    }
    if not draw(st.integers(0, 3)):
        how |= {"prompt": draw(st.sampled_from(COLUMNS)), "target": draw(st.sampled_from(COLUMNS))}
    if not draw(st.integers(0, 3)):
        how["target_pattern"] = draw(st.sampled_from(PATTERNS))
        how["template"] = draw(
            st.sampled_from(["{prompt}", "{level}: {prompt} \\boxed{}", "{", "{x}", "{target}", "", "{{}}"])
        )
        how["train_limit"] = draw(st.sampled_from([None, 1, 3, 0, -2]))
    return data, how


@kind("JSON lines of prompts", prompt_files(), count=30_000, each=0.003)
def prompts(value: tuple[bytes, dict[str, Any]]) -> None:
    """What is read is text, and nothing is on both sides."""
    data, how = value
    Path("p.jsonl").write_bytes(data)
    train, test = load_prompts(DataConfig(train="p.jsonl", **how))
    assert train and test and all(isinstance(p.text, str) and isinstance(p.target, str) for p in (*train, *test))


ROLLOUTS: list[Any] = [
    {"prompt": i // 4, "reward": float(i % 3 == 0), "answer": str(i % 3), "score": i / 7} for i in range(16)
]
ANSWERS: list[Any] = [
    {"prompt": f"q{i // 4}", "completion": f"so it is {i % 3}", "target": "1", "info": {}} for i in range(16)
]


@st.composite
def rollout_files(draw: st.DrawFn) -> bytes:
    """A file of rollouts, damaged or odd."""
    base = draw(st.sampled_from([ROLLOUTS, ANSWERS]))
    return draw(changed_bytes(lines(base))) if draw(st.booleans()) else lines(draw(changed_json(base, paths(base))))


@kind("JSON lines of rollouts", rollout_files(), count=25_000, each=0.003)
def rollouts(data: bytes) -> None:
    """Rewards are finite numbers in a rectangle."""
    Path("r.jsonl").write_bytes(data)
    rows = verify_rows(read_records(Path("r.jsonl"), torn=False), "exact")
    ids, outcomes = outcomes_of(rows)
    assert outcomes.reward.shape == (len(ids), outcomes.m)
    if random.Random(len(data)).random() < 0.02:
        shutil.rmtree("plan", ignore_errors=True)
        plan(PlanConfig(Path("r.jsonl"), output_dir=Path("plan"), verifier="exact"))


RECORDS: list[Any] = [{"kind": "step", "time": 1.5, "step": i, "curve": {"pass@1": {"value": 0.5}}} for i in range(4)]


@kind("records of a run", changed_bytes(lines(RECORDS)), count=30_000, each=0.002)
def records(data: bytes) -> None:
    """What can be read can be appended to, and comes back with the new record last."""
    path = Path("record.jsonl")
    path.write_bytes(data)
    before = read_records(path)
    append_record(path, "step", step=9)
    after = read_records(path)
    assert after[:-1] == before or repr(after[:-1]) == repr(before), f"{before} -> {after}"
    assert after[-1]["step"] == 9


CONFIGS = [
    (
        "train",
        "strategies: [pass@4]\nsteps: 3\nlearning_rate: 1e-3\nbudgets: [1, 4]\ndata:\n  train_limit: 8\n  holdout: 4\n",
    ),
    (
        "train",
        "method: grpo\nnum_generations: 8\nstrategies: [pass@4]\nstrategy_schedule: {2: pass@2}\ntrainer: {a: 1}\n",
    ),
    ("evaluate", "rollouts: 4\nbudgets: [1, 4]\nfamilies: [pass, maj]\nverifier: exact\ntemperature: 0.5\n"),
]


@st.composite
def configs(draw: st.DrawFn) -> tuple[str, bytes]:
    """A verb, and a file of its settings, damaged or with odd values."""
    verb, text = draw(st.sampled_from(CONFIGS))
    if draw(st.booleans()):
        return verb, draw(changed_bytes(text.encode()))
    name = draw(st.sampled_from([*(TrainConfig if verb == "train" else EvaluateConfig).__dataclass_fields__]))
    value = draw(st.one_of(json_value, odd))
    return verb, text.encode() + f"{name}: {json.dumps(value)}\n".encode("utf-8", "replace")


@kind("YAML of settings", configs(), count=4_000, each=0.02)
def settings(value: tuple[str, bytes]) -> None:
    """Settings are taken, or refused with exit code 2."""
    verb, data = value
    Path("c.yaml").write_bytes(data)
    args = [verb, "--config=c.yaml", "--output_dir=out"]
    parser, verbs = PARSER
    operant.cli.parser.check_arguments(args)
    try:
        chosen = parser.parse_args(args)
    except SystemExit as stop:
        assert stop.code == 2, f"exit code {stop.code}"
        return
    config = verbs[verb](**operant.cli.parser.settings_of(parser, chosen, verbs[verb]))
    if verb == "train" and config.data == DataConfig(train_limit=8, holdout=4):
        checked(config)


PARSER = operant.cli.parser.parser_of_verbs()
BANK = "T,x,y,u\n" + "".join(f"{t},{x / 2},{x * t - 1e-3},b{t}\n" for t in range(4) for x in range(6))
TARGET = "T,x,y,u\n" + "".join(f"9,{x / 2},{x if x < 3 else ''},b9\n" for x in range(6))


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, bytes, dict[str, Any]]:
    """A bank and a target as CSV, one of them damaged, and the columns that are asked for."""
    bank, target = BANK.encode(), TARGET.encode()
    if draw(st.booleans()):
        bank = draw(changed_bytes(bank))
    else:
        target = draw(changed_bytes(target))
    if not draw(st.integers(0, 9)):
        bank, target = bank.replace(b",", b";"), target.replace(b",", b";")
    how: dict[str, Any] = {"x": "x", "y": "y", "params": draw(st.sampled_from(["", "T", "u", "T,T"]))}
    if not draw(st.integers(0, 5)):
        how |= {
            "x": draw(st.sampled_from(["x,T", "u", "", "nope", "x,x"])),
            "labels": draw(st.sampled_from(["u", "x", ""])),
        }
    return bank, target, how


@kind("CSV of banks and targets", tables(), count=20_000, each=0.004)
def csv_files(value: tuple[bytes, bytes, dict[str, Any]]) -> None:
    """What is read is finite."""
    bank, target, how = value
    Path("b.csv").write_bytes(bank)
    Path("t.csv").write_bytes(target)
    config = ExtrapolateConfig(Path("b.csv"), Path("t.csv"), task="T", **how)
    known = read_bank(config)
    assert isinstance(known, TaskBank)
    for asked in read_targets(config, known):
        assert len(asked.x) == len(asked.y) >= 1
