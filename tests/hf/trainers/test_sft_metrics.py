"""What the trainer logs and returns beside its loss: TRL's own numbers, compute_metrics, and the best model."""

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from packaging.version import Version
from peft import LoraConfig
from safetensors.torch import load_file
from trl import SFTConfig, SFTTrainer

from operant.core.checks import ConfigError
from operant.hf.rollouts.policy import encode, load_policy
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.trainers import targets
from operant.hf.trainers.sft import AlignedSFTConfig, AlignedSFTTrainer

NAMES = ("entropy", "mean_token_accuracy", "num_tokens")
COMMON = dict(
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    learning_rate=1e-2,
    lr_scheduler_type="constant",
    logging_steps=1,
    per_device_train_batch_size=6,
    per_device_eval_batch_size=4,
    seed=5,
)
SAME_NUMBERS = pytest.mark.skipif(
    Version(trl.__version__) < Version("1.15"), reason="TRL took the entropy over prompts too, and labels otherwise"
)


def rows_of(policy, start, stop):
    """Targets of one to four tokens."""
    encoded = encode(policy, load_prompts(DataConfig())[0][start:stop], DataConfig(), 64)
    cut = [e.target[: 1 + i % 4] for i, e in enumerate(encoded)]
    rows = [
        {"input_ids": e.prompt + t, "labels": [-100] * len(e.prompt) + t} for e, t in zip(encoded, cut, strict=True)
    ]
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Weights that get some tokens right and some wrong."""
    policy = load_policy("embedded", seed=3, device="cpu")
    settings = {**COMMON, "max_steps": 40, "save_strategy": "no", "output_dir": str(tmp_path_factory.mktemp("known"))}
    AlignedSFTTrainer(
        policy.model,
        AlignedSFTConfig(strategy="pass@1", **settings),
        processing_class=policy.tokenizer,
        train_dataset=rows_of(policy, 0, 12),
    ).train()
    return policy.model.state_dict()


def trainer_of(cls, folder, known, *, peft=None, compute_metrics=None, preprocess=None, **settings):
    policy = load_policy("embedded", seed=3, device="cpu")
    policy.model.load_state_dict(known)
    config = AlignedSFTConfig if cls is AlignedSFTTrainer else SFTConfig
    ours = {"strategy": "pass@16"} if cls is AlignedSFTTrainer else {}
    return cls(
        policy.model,
        config(
            output_dir=str(folder),
            **{"save_strategy": "no", "max_steps": 2, "max_length": None, **COMMON, **ours, **settings},
        ),
        processing_class=policy.tokenizer,
        train_dataset=rows_of(policy, 0, 12),
        eval_dataset=rows_of(policy, 6, 16),
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=preprocess,
        peft_config=peft,
    )


@SAME_NUMBERS
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"padding_free": True},
        {"packing": True, "max_length": 28},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3},
        {"peft": True},
    ],
    ids=str,
)
def test_the_metrics_are_those_of_trl(tmp_path, known, monkeypatch, layout, fused):
    """On the same batch with the same weights: the first step, and an evaluation before it."""
    monkeypatch.setattr(targets, "has_fused_head", lambda labels: fused)
    lora = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM") if layout.get("peft") else None
    found = {}
    for cls in (SFTTrainer, AlignedSFTTrainer):
        trainer = trainer_of(cls, tmp_path / cls.__name__, known, **{**layout, "peft": lora})
        evaluated = trainer.evaluate()
        trainer.train()
        log = [log for log in trainer.state.log_history if "loss" in log]
        found[cls] = (
            [evaluated[f"eval_{name}"] for name in NAMES],
            [log[0][name] for name in NAMES],
            log[1]["num_tokens"],
        )
    theirs, ours = found.values()
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5) and ours[1] == pytest.approx(theirs[1], rel=1e-5)
    assert ours[2] == theirs[2] > ours[1][2] > 0
    assert 0 < ours[0][1] < 1 and 0 < ours[0][0] < np.log(30)


def test_the_metrics_are_those_of_the_distributions(tmp_path, known):
    """One row at a time, without TRL."""
    trainer = trainer_of(AlignedSFTTrainer, tmp_path, known, per_device_eval_batch_size=10)
    entropy, right = [], []
    for row in trainer.eval_dataset:
        with torch.no_grad():
            log_q = trainer.model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        for i, label in enumerate(row["labels"]):
            if label != -100:
                entropy.append(-(log_q[i - 1].exp() * log_q[i - 1]).sum().item())
                right.append(log_q[i - 1].argmax().item() == label)
    found = trainer.evaluate()
    assert found["eval_entropy"] == pytest.approx(np.mean(entropy), rel=1e-5)
    assert found["eval_mean_token_accuracy"] == pytest.approx(np.mean(right)) and 0 < np.mean(right) < 1


def test_entropies_come_in_pieces(monkeypatch):
    logits = torch.randn(7, 5)
    whole = targets._entropy(logits.log_softmax(-1))
    monkeypatch.setattr(targets, "_CHUNK", 3)
    assert torch.equal(targets._entropy(logits.log_softmax(-1)), whole)
    assert whole[0].item() == pytest.approx(torch.distributions.Categorical(logits=logits[0]).entropy().item())


@pytest.mark.parametrize("preprocess", [None, lambda logits, labels: logits.argmax(-1)])
def test_compute_metrics_sees_logits_and_labels(tmp_path, known, preprocess):
    def metrics(prediction):
        guess = prediction.predictions if preprocess else prediction.predictions.argmax(-1)
        labels = prediction.label_ids[:, 1:]
        mask = labels != -100
        return {"right": (guess[:, :-1] == labels)[mask].mean(), "rows": len(labels)}

    settings = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 10}
    functions = {"compute_metrics": metrics, "preprocess": preprocess}
    trainer = trainer_of(AlignedSFTTrainer, tmp_path, known, **functions, **settings)
    before = trainer.evaluate()["eval_loss"]
    assert before == pytest.approx(trainer_of(AlignedSFTTrainer, tmp_path, known, **settings).evaluate()["eval_loss"])
    trainer.train()
    logs = [log for log in trainer.state.log_history if "eval_right" in log]
    assert len(logs) == 2 and all(log["eval_rows"] == 10 for log in logs)
    assert [log["eval_right"] for log in logs] == pytest.approx([log["eval_mean_token_accuracy"] for log in logs])


@pytest.mark.parametrize("metric", ["mean_token_accuracy", "eval_num_tokens", "eval_loss"])
def test_the_best_model_is_loaded_at_the_end(tmp_path, known, metric):
    best = min if metric != "mean_token_accuracy" else max
    trainer = trainer_of(
        AlignedSFTTrainer,
        tmp_path,
        known,
        max_steps=3,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=best is max,
    )
    trainer.train()
    name = f"eval_{metric.removeprefix('eval_')}"
    values = [log[name] for log in trainer.state.log_history if name in log]
    assert len(values) == 3 and trainer.state.best_metric == best(values)
    step = values.index(best(values)) + 1
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{step}")
    saved = load_file(f"{trainer.state.best_model_checkpoint}/model.safetensors")
    assert all(torch.equal(value, trainer.model.state_dict()[name]) for name, value in saved.items())
    if metric == "eval_num_tokens":
        assert step == 1, "it grows"


def test_settings_are_positional_or_left_out_as_in_trl(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "transformers.training_args.is_torch_bf16_gpu_available", lambda: True
    )  # the default asks for it
    policy = load_policy("embedded", seed=3, device="cpu")
    policy.save(tmp_path / "small")
    policy = load_policy(str(tmp_path / "small"), device="cpu")
    data = {"processing_class": policy.tokenizer, "train_dataset": rows_of(policy, 0, 4)}
    ours = AlignedSFTTrainer(policy.model, **data)
    theirs = SFTTrainer(policy.model, **data)
    assert ours.args.output_dir == theirs.args.output_dir == "small-SFT"
    assert isinstance(ours.args, AlignedSFTConfig) and str(ours.strategy) == "pass@16"
    with pytest.raises(ConfigError, match="args must be an AlignedSFTConfig, which has the strategy, got SFTConfig"):
        AlignedSFTTrainer(policy.model, SFTConfig(str(tmp_path), use_cpu=True, bf16=False), **data)


def test_an_evaluation_between_two_logs_keeps_its_metrics_apart(tmp_path, known):
    settings = {"max_steps": 2, "logging_steps": 2}
    alone = trainer_of(AlignedSFTTrainer, tmp_path, known, **settings)
    between = trainer_of(AlignedSFTTrainer, tmp_path, known, eval_strategy="steps", eval_steps=1, **settings)
    for trainer in (alone, between):
        trainer.train()
    (want,) = (log for log in alone.state.log_history if "loss" in log)
    (found,) = (log for log in between.state.log_history if "loss" in log)
    assert [found[name] for name in NAMES] == [want[name] for name in NAMES]
    first, last = (log["eval_num_tokens"] for log in between.state.log_history if "eval_loss" in log)
    assert 0 < first < last == want["num_tokens"]
