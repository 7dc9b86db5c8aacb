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
from tests.test_code_blocks import BLOCKS, SHELL, shell

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


SHORTER = {"--steps 300": "--steps 2", "--steps 100 --save_steps 25": "--steps 2", "--rollouts 32": "--rollouts 8"}
"""What makes the page's four minutes some seconds."""


@pytest.mark.slow
def test_the_walk_from_a_file_to_a_report_runs(tmp_path):
    text = PAGES["docs/training.md"]
    last = text[: text.index("These commands take")].count("\n")
    walk = [block for block in BLOCKS["docs/training.md"] if block.line < last]
    (settings,) = (block.code for block in walk if block.language == "yaml")
    (tmp_path / "data.yaml").write_text(settings, encoding="utf-8")
    code = "\n".join(block.code for block in walk if block.language in SHELL)
    for said, shorter in SHORTER.items():
        assert code.count(said) == 1, said
        code = code.replace(said, shorter)
    printed = shell(code, tmp_path)
    pages = [
        tmp_path / "runs" / run / "report/index.html"
        for run in ("products-sft", "products", "products-eval", "products-plan")
    ]
    assert all(page.is_file() for page in pages)
    assert printed.count("page: ") == 5
