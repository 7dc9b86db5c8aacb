"""The recipes: every file is read as a user's command reads it; the protein, vote and reward-model ones train."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForSequenceClassification

import operant.hf.train.run
from operant import cli
from operant.core.record import read_records
from operant.hf.rollouts.policy import embedded_model, embedded_tokenizer
from operant.hf.train.run_job import run_job
from operant.hf.train.settings import checked
from operant.objectives.groups import check_group, substitute
from operant.strategies import parse
from recipes import protein

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def read(name, monkeypatch):
    """The settings that ``operant train --config`` hands to training."""
    seen = []

    def keep(config):
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(operant.hf.train.run, "run_training", keep)
    assert cli.main(["train", "--config", str(ROOT / "recipes" / f"{name}.yaml")]) == 130
    return seen[0]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read_and_its_strategies_fit(recipe, monkeypatch, capsys):
    config = read(recipe.stem, monkeypatch)
    for text in config.strategies:
        check_group(parse(text), config.num_generations, substitute(config.form))
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--config", str(recipe), "--print_config"])
    assert end.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    for name, value in yaml.safe_load(recipe.read_text(encoding="utf-8")).items():
        assert printed[name] == (printed[name] | value if isinstance(value, dict) else value)


def test_every_recipe_is_explained():
    text = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    assert len(RECIPES) >= 6
    for recipe in RECIPES:
        assert f"--config recipes/{recipe.name}" in text


def mixed(share, length=1000):
    """A sequence with this share of hydrophobic residues."""
    return "A" * round(share * length) + "G" * (length - round(share * length))


PUBLISHED = {0: 0.34517, 0.3: 3.80493, 0.5: 0.73656, 0.6: 3.82358, 0.7: 10.50296, 0.8: 10.22747, 1: 0.18690}


@pytest.mark.parametrize(("share", "reward"), PUBLISHED.items())
def test_unconditional_reward(share, reward):
    assert protein.unconditional(mixed(share)) == pytest.approx(reward, abs=5e-6)


def test_unconditional_reward_has_its_published_maximum():
    assert protein.unconditional(mixed(0.75)) == pytest.approx(12.163048815913465, abs=1e-12)
    best = protein.unconditional(mixed(0.74833, 100_000))
    assert best == pytest.approx(12.16522, abs=5e-6)
    assert all(protein.unconditional(mixed(i / 1000)) < best for i in range(1001))


def test_conditional_reward():
    source = mixed(0.2, 10)
    assert protein.conditional(mixed(0.8, 10), source=source) == pytest.approx(10)
    assert protein.conditional(source, source=source) == pytest.approx(-1.992534, abs=5e-7)
    assert protein.conditional(mixed(0.5, 10), source=mixed(0.5, 10)) == pytest.approx(
        10
    )  # no copy where s is about .5
    with pytest.raises(ValueError, match="source must be"):
        protein.conditional(source, source="")


def test_rewards_read_text_as_the_paper_does():
    assert protein.unconditional(" aaalll\niiiGGG ") == protein.unconditional("AAALLLIIIGGG") > 12
    for text in ("", "A" * 9, "A" * 20 + "B", "[HUMAN]" + "A" * 20):
        assert protein.unconditional(text) == protein.INVALID
    for text in ("AAAA", "AAAAA!"):
        assert protein.conditional(text, source="GGGGG") == protein.INVALID
    assert protein.conditional("AAAAA", source="GGGGG") == pytest.approx(10)


def test_pairs_ask_for_the_opposite_share():
    rows = protein.pairs(300)
    assert rows == protein.pairs(300) != protein.pairs(300, seed=1)
    assert len({row["source"] for row in rows}) == 300
    for row in rows:
        source, target = row["source"], row["target"]
        oily = [sum(x in "AILMFWYV" for x in text) for text in (source, target)]
        assert 10 <= len(source) <= 19 >= len(target) >= 10
        assert oily[1] == round((1 - oily[0] / len(source)) * len(target))
        assert source in row["prompt"]


def residues():
    """IgLM's tokenizer; its vocabulary by hand."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ACDEFGHIKLMNPQRSTVWY"]
    tokens += [f"[{name}]" for name in ("CAMEL", "HUMAN", "MOUSE", "RABBIT", "RAT", "RHESUS", "HEAVY", "LIGHT")]
    return runpy.run_path(str(ROOT / "examples" / "get_iglm.py"))["residues"](tokens)


def test_iglm_tokenizer_shows_foreign_tags_and_hides_the_end():
    tokenizer = residues()
    rows = [*protein.starts(), *protein.pairs(5)]
    for row in rows:
        ids = tokenizer(row["prompt"])["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == row["prompt"]
    assert tokenizer("[HEAVY][HUMAN]AC")["input_ids"] == [31, 26, 5, 6]
    assert tokenizer.decode([5, 26, 1, 2, 0], skip_special_tokens=True) == "A[HUMAN][UNK]"


@pytest.fixture
def residue_model(tmp_path):
    """A random GPT-2 with IgLM's vocabulary that writes residues only."""
    tokenizer = residues()
    torch.manual_seed(0)
    shape = {"n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": len(tokenizer)}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = GPT2LMHeadModel(GPT2Config(**shape, **ids))
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = 10.0
        model.transformer.wte.weight[:, 0] = torch.tensor([float(5 <= i < 25) for i in range(len(tokenizer))])
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def train(config):
    """Two steps of the strategy's branch; its steps, and its held-out curve."""
    config = checked(replace(config, steps=2, logging_steps=1, warm_steps=0, threads=1, trainer={}))
    job = operant.hf.train.run.make_jobs(config)[-1]
    run_job(job, config)
    records = read_records(job.record)
    rows = read_records(job.folder / "prompts.jsonl")
    curve = {k: sum(row["values"][k] for row in rows) / len(rows) for k in rows[0]["values"]}
    return [r for r in records if r["kind"] == "step"], curve


@pytest.mark.parametrize("name", ["protein-best8", "protein-conditional-best8"])
def test_protein_recipes_train(name, monkeypatch, tmp_path, residue_model):
    config = read(name, monkeypatch)
    data = replace(config.data, holdout=4, train_limit=20)
    steps, curve = train(replace(config, model=residue_model, output_dir=tmp_path / "run", data=data, eval_rollouts=64))
    for step in steps:
        assert protein.INVALID < step["reward"] < step["strategy"]["best@8"] <= 12.1653
        assert step["dead_groups"] < 1
        assert step["weight"]["sd"] > 0
    values = [curve[f"best@{n}"] for n in (1, 2, 4, 8, 16, 32)]
    assert values == sorted(values)


@pytest.fixture
def small(tmp_path):
    """GSM8K's columns with one-digit answers, which a random model finds by chance, and the embedded model."""

    def build(config):
        embedded_model(0).save_pretrained(tmp_path / "model")
        embedded_tokenizer().save_pretrained(tmp_path / "model")
        for split, prompts in (("train", range(20, 40)), ("test", range(10, 14))):
            rows = [{"question": f"{p}*1=", "answer": f"so it is\n#### {p % 10}"} for p in prompts]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        data = replace(
            config.data,
            train=str(tmp_path / "train.jsonl"),
            test=str(tmp_path / "test.jsonl"),
            subset="",
            template="{prompt}",
        )
        short = {"max_completion_length": 6, "eval_rollouts": 32, "per_device_train_batch_size": 64}
        return replace(config, model=str(tmp_path / "model"), output_dir=tmp_path / "run", data=data, **short)

    return build


def test_the_vote_recipe_trains(monkeypatch, small):
    steps, curve = train(replace(small(read("gsm8k-majority", monkeypatch)), gradient_accumulation_steps=4))
    assert all(0 <= step["strategy"]["pass@1"] <= 1 for step in steps)
    assert 0 <= curve["maj@16"] <= 1
    assert any(step["weight"]["sd"] > 0 for step in steps)
    assert curve["maj@1"] == pytest.approx(curve["pass@1"])
    assert curve["pass@1"] < curve["pass@16"]


def test_the_reward_model_recipe_trains(monkeypatch, small, tmp_path):
    config = small(read("reward-model-best8", monkeypatch))
    tokenizer = embedded_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes)
    LlamaForSequenceClassification(shape).save_pretrained(tmp_path / "judge")
    tokenizer.save_pretrained(tmp_path / "judge")
    steps, curve = train(replace(config, reward_model=str(tmp_path / "judge"), gradient_accumulation_steps=4))
    assert all(0 <= step["strategy"]["best@8"] <= 1 for step in steps)
    assert any(step["weight"]["sd"] > 0 for step in steps)
    assert curve["best@8"] <= curve["pass@8"]  # the judge knows less than the verifier
