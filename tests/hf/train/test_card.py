"""The model card says what was trained and what was measured, and nothing of the machine it was trained on."""

import re
from pathlib import Path

import pytest
import yaml

from operant.hf.config import TrainConfig
from operant.hf.rollouts.prompts import DataConfig
from operant.hf.train.card import model_card
from operant.hf.train.job import Job
from operant.hf.train.run import make_jobs
from operant.hf.train.settings import checked

BEFORE = {"pass@1": {"value": 0.047, "stderr": 0.0041}, "pass@16": {"value": 0.404, "stderr": None}}
AFTER = {"pass@1": {"value": 0.05, "stderr": 0.005}, "pass@16": {"value": 0.5, "stderr": 0.01}}


def jobs(config: TrainConfig) -> tuple[TrainConfig, dict[str, Job]]:
    config = checked(config)
    return config, {job.branch: job for job in make_jobs(config)}


def table(card: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("method, branch", [("sft", "ce"), ("sft", "pass@16"), ("grpo", "grpo"), ("grpo", "maj@8")])
def test_a_card_reports_the_curve_and_the_settings(tmp_path, method, branch):
    source = tmp_path / "private" / "mine.jsonl"
    source.parent.mkdir()
    source.write_text("".join(f'{{"prompt": "{i}", "target": "1"}}\n' for i in range(9)))
    data = DataConfig(train=str(source), holdout=3)
    strategies = ["pass@16"] if method == "sft" else ["maj@8"]
    config, found = jobs(TrainConfig(method=method, model="someone/model", data=data, strategies=strategies))
    card = model_card(found[branch], config, [BEFORE, AFTER, AFTER])
    cells = table(card)
    assert cells["pass@1"] == ["4.7 ± 0.4", "5.0 ± 0.5"] and cells["pass@16"] == ["40.4", "50.0 ± 1.0"]
    assert cells["data"] == ["mine.jsonl"] and cells["base model"] == ["someone/model"]
    assert ("deployed strategy" in cells) == (branch == strategies[0])
    assert ("form" in cells) == (branch == "maj@8") and ("verifier" in cells) == (method == "grpo")
    assert "2604.24957" in card and "@software{operant" in card
    assert str(tmp_path) not in card and "None" not in card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == "someone/model" and {"operant", method} <= set(front["tags"])


def test_a_model_without_a_hub_id_has_no_link(tmp_path):
    for model in ("embedded", str(tmp_path)):
        config, found = jobs(TrainConfig(model=model))
        card = model_card(found["warm"], config, [AFTER])
        assert "base_model" not in yaml.safe_load(card.split("---\n")[1])
        assert not re.search(r"None|http", card) and str(tmp_path) not in card
        assert table(card)["pass@1"] == ["5.0 ± 0.5"]
    assert table(card)["base model"] == [Path(tmp_path).name]
