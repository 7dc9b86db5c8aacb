"""Every command of README.md and docs/training.md is one that operant takes, with settings that work together."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

import operant.hf.train.run
import operant.hf.train.settings
from operant import cli
from operant.cli.settings import AuditConfig
from operant.hf.config import EvaluateConfig, PlanConfig, TrainConfig
from operant.hf.rollouts.prompts import DataConfig
from operant.strategies import parse
from operant.verify import Prompt

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/training.md")}
BLOCK = re.compile(r"^ *```(?:sh|bash)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def commands(text):
    """Arguments of every operant command in the shell blocks, and of those in running text that are whole."""
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += [code for code in re.findall(r"`(operant \w+ [^`]+)`", text) if "..." not in code and "--help" not in code]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["operant"]:
            found.append(words[1:])
        elif words[:2] == ["accelerate", "launch"]:
            assert words[words.index("operant.cli") - 1] == "-m"
            found.append(words[words.index("operant.cli") + 1 :])
    return found


def write_files(text, folder):
    """The settings files of a page, each named by its first line."""
    for name, body in re.findall(r"```yaml\n# (\S+)\n(.*?)```", text, re.DOTALL):
        (folder / name).write_text(body, encoding="utf-8")


@pytest.fixture
def received(monkeypatch):
    """(verb, settings) of every command; nothing runs, and train's settings are checked as they would be."""
    seen = []
    prompt = Prompt(0, "1*1=", "1")
    monkeypatch.setattr(operant.hf.train.settings, "load_prompts", lambda _: ([prompt], [prompt]))
    monkeypatch.setattr(operant.hf.train.settings, "_check_packages", lambda _: None)  # vLLM is not installed here
    monkeypatch.setattr(
        operant.hf.train.run, "run_training", lambda config: seen.append(operant.hf.train.settings.checked(config))
    )
    monkeypatch.setattr(cli, "_report", lambda *_, **__: None)
    for verb in ("evaluate", "plan", "audit", "extrapolate", "report", "demo"):
        monkeypatch.setitem(cli.FUNCTIONS, verb, seen.append)
    return seen


@pytest.mark.parametrize(("page", "least"), [("README.md", 4), ("docs/training.md", 9)])
def test_the_commands_of_a_page_are_taken(page, least, received, tmp_path, monkeypatch):
    write_files(PAGES[page], tmp_path)
    monkeypatch.chdir(tmp_path)
    found = commands(PAGES[page])
    assert len(found) >= least
    for words in found:
        words = [str(ROOT / w) if w.startswith("recipes/") else w for w in words]
        assert cli.main(words) == 0, words
    assert len(received) == len(found)
    for settings in received:
        for text in getattr(settings, "strategies", None) or []:
            assert parse(text)


@pytest.mark.parametrize(
    "line",
    ["operant train --stepz 3", "operant train --strategies '[pass@0]'", "operant train --strategies '[maj@4]'"],
)
def test_a_command_that_does_not_work_is_caught(line, received, capsys):
    (words,) = commands(f"```sh\n{line}\n```\n")
    try:
        assert cli.main(words) == 2
    except SystemExit as end:
        assert end.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_is_there(page):
    known = {f.name for c in (TrainConfig, EvaluateConfig, PlanConfig, AuditConfig) for f in fields(c)}
    known |= {f"data.{f.name}" for f in fields(DataConfig)} | {"config", "print_config", "help"}
    text = BLOCK.sub("", PAGES[page])
    named = set(re.findall(r"`--([\w.]+)", text)) | set(re.findall(r"`(data\.\w+)`", text))
    assert named
    assert named <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_option_with_its_value_is_taken(page, monkeypatch):
    seen = []
    monkeypatch.setitem(cli.FUNCTIONS, "train", seen.append)
    options = [code for code in re.findall(r"`(--[\w.]+ [^`]+)`", PAGES[page]) if not code.startswith("--config")]
    for code in options:
        assert cli.main(["train", *shlex.split(code)]) == 0, code
    assert len(seen) == len(options) > 0
