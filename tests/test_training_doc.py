"""The settings that README.md and docs/training.md name are there. Their commands: test_code_blocks.py."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from operant import cli
from operant.cli.settings import AuditConfig
from operant.hf.config import EvaluateConfig, PlanConfig, TrainConfig
from operant.hf.rollouts.prompts import DataConfig

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/training.md")}
BLOCK = re.compile(r"^ *```(?:sh|bash)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


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
