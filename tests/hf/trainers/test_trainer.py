"""The trainer by its invariances: cross-entropy, batch layout, resume, and a difference from its baseline."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from operant.core.checks import ConfigError, DataError, InputError, NotDefinedError, ParseError
from operant.hf.rollouts.logprobs import answer_log_probs, collate
from operant.hf.rollouts.policy import load_policy
from operant.hf.trainers.sft import AlignedSFTConfig, AlignedSFTTrainer

COMMON = dict(
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    learning_rate=3e-3,
    lr_scheduler_type="constant",
    max_grad_norm=1.0,
    logging_steps=1,
    seed=5,
)


def dataset(encoded):
    rows = [{"input_ids": e.prompt + e.target, "labels": [-100] * len(e.prompt) + e.target} for e in encoded]
    return Dataset.from_list(rows)


def trained(tmp_path, encoded, strategy, *, batch=8, accumulation=1, steps=4, resume=None, save=False, transform=""):
    policy = load_policy("embedded", seed=3, device="cpu")
    trainer = AlignedSFTTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        train_dataset=dataset(encoded),
        args=AlignedSFTConfig(
            output_dir=str(tmp_path),
            strategy=strategy,
            transform=transform,
            max_steps=steps,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="steps" if save else "no",
            save_steps=2,
            **COMMON,
        ),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_pass_at_1_is_cross_entropy_bit_for_bit(tmp_path, encoded):
    """Against transformers' own Trainer with PyTorch's cross-entropy over the sequences' target tokens."""
    policy = load_policy("embedded", seed=3, device="cpu")

    class CrossEntropy(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs["labels"]
            first = int((labels != -100).any(0).nonzero()[0]) - 1
            logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, first:-1]
            total = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[:, first + 1 :].flatten(), reduction="sum"
            )
            return total / len(labels)

    reference = CrossEntropy(
        model=policy.model,
        args=TrainingArguments(str(tmp_path), max_steps=4, per_device_train_batch_size=8, save_strategy="no", **COMMON),
        train_dataset=dataset(encoded),
        data_collator=lambda rows: collate([_encoded(r) for r in rows], policy.pad),
    )
    reference.train()
    ours = trained(tmp_path, encoded, "pass@1")
    assert torch.equal(parameters(ours), parameters(reference))


def _encoded(row):
    from operant.hf.rollouts.policy import Encoded

    size = row["labels"].count(-100)
    return Encoded(row["input_ids"][:size], row["input_ids"][size:])


def test_an_aligned_run_differs_from_its_baseline(tmp_path, encoded):
    """On short targets that the model has begun to learn, pass@16 takes other steps, and weighs them unequally."""
    few = encoded[:8]
    baseline = trained(tmp_path, few, "pass@1", steps=80)
    aligned = trained(tmp_path, few, "pass@16", steps=80)
    assert (parameters(baseline) - parameters(aligned)).abs().max() > 1e-3
    last = [log for log in aligned.state.log_history if "weight_sd" in log][-1]
    assert last["weight_sd"] > 0.1 * last["weight_mean"]
    assert last["weight_mean"] < 0.9


def test_weights_of_improbable_targets_are_constant_and_said_to_be(tmp_path, encoded, caplog):
    """An untrained model gives whole answers p ~ 1e-5: pass@4 is cross-entropy there. pass@1 is meant to be."""
    trained(tmp_path, encoded, "pass@4", steps=1)
    assert "the weights of pass@4 are constant" in caplog.text
    caplog.clear()
    trained(tmp_path, encoded, "pass@1", steps=1)
    assert "constant" not in caplog.text


@pytest.mark.parametrize("strategy", ["pass@16", "mix(pass@1:0.25, pass@64:0.75)", "threshold@8:3"])
@pytest.mark.parametrize("layout", [(4, 2), (1, 8)])
def test_batch_and_accumulation_take_the_same_steps(tmp_path, encoded, strategy, layout):
    whole = trained(tmp_path, encoded, strategy, batch=8, accumulation=1)
    split = trained(tmp_path, encoded, strategy, batch=layout[0], accumulation=layout[1])
    assert torch.allclose(parameters(whole), parameters(split), atol=2e-5)


def test_resumed_equals_uninterrupted(tmp_path, encoded):
    whole = trained(tmp_path / "whole", encoded, "pass@16", steps=6)
    trained(tmp_path / "part", encoded, "pass@16", steps=6, save=True)
    resumed = trained(tmp_path / "again", encoded, "pass@16", steps=6, resume=str(tmp_path / "part" / "checkpoint-2"))
    assert torch.equal(parameters(whole), parameters(resumed))


def test_the_loss_is_the_mean_of_the_strategy_loss(tmp_path, policy, encoded):
    log_p = answer_log_probs(policy, encoded, batch_size=16)
    trainer = trained(tmp_path, encoded, "pass@16", batch=64, steps=1)
    logged = next(log["loss"] for log in trainer.state.log_history if "loss" in log)
    p = log_p.exp()
    expected = -torch.log1p(-((1 - p) ** 16)).mean()
    assert logged == pytest.approx(expected.item(), abs=2e-3)  # transformers rounds the logged loss
    assert math.isfinite(logged)


def test_a_transform_takes_the_place_of_the_logarithm(tmp_path, policy, encoded):
    log_p = answer_log_probs(policy, encoded, batch_size=16)
    trainer = trained(tmp_path, encoded, "pass@16", batch=64, steps=1, transform="log:0.001")
    logged = trainer.state.log_history[0]
    s = 1 - (1 - log_p.double().exp()) ** 16
    assert logged["loss"] == pytest.approx((math.log(1.001) - (s + 0.001).log()).mean().item(), abs=2e-3)
    assert logged["weight_mean"] == pytest.approx((s / (s + 0.001)).mean().item(), rel=0.01)  # elasticity about 1
    plain = trained(tmp_path, encoded, "pass@16", batch=64, steps=1)
    assert not torch.equal(parameters(trainer), parameters(plain))
    with pytest.raises(ParseError, match="expected a transform"):
        trained(tmp_path, encoded, "pass@16", transform="root")


def test_evaluation_reports_the_strategy_loss(tmp_path, policy, encoded):
    log_p = answer_log_probs(policy, encoded[:8], batch_size=8)
    trainer = AlignedSFTTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        train_dataset=dataset(encoded),
        eval_dataset=dataset(encoded[:8]),
        args=AlignedSFTConfig(output_dir=str(tmp_path), strategy="pass@16", bf16=False, **COMMON),
    )
    expected = -torch.log1p(-((1 - log_p.exp()) ** 16)).mean()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_settings_that_change_the_objective_are_refused(tmp_path, encoded):
    for bad in (
        {"packing": True},
        {"packing": True, "max_length": 64, "packing_strategy": "wrapped"},
        {"max_length": 32},
    ):
        with pytest.raises(ConfigError, match="whole in one bin|must not be truncated|targets whole"):
            AlignedSFTTrainer(args=AlignedSFTConfig(output_dir=str(tmp_path), bf16=False, **bad))
    with pytest.raises(NotDefinedError, match="answer distribution"):
        AlignedSFTTrainer(args=AlignedSFTConfig(output_dir=str(tmp_path), bf16=False, strategy="maj@8"))


def test_a_row_without_a_target_is_refused(tmp_path, encoded):
    policy = load_policy("embedded", seed=3, device="cpu")
    rows = Dataset.from_list([{"input_ids": [4, 5, 6], "labels": [-100, -100, -100]}] * 8)
    trainer = AlignedSFTTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        train_dataset=rows,
        args=AlignedSFTConfig(output_dir=str(tmp_path), max_steps=1, bf16=False, save_strategy="no", **COMMON),
    )
    with pytest.raises(DataError, match="no target token"):
        trainer.train()


def test_a_model_that_became_nan_is_not_trained_on(tmp_path, encoded):
    policy = load_policy("embedded", seed=3, device="cpu")
    with torch.no_grad():
        policy.model.lm_head.weight[0, 0] = math.nan
    trainer = AlignedSFTTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        train_dataset=dataset(encoded),
        args=AlignedSFTConfig(output_dir=str(tmp_path), max_steps=1, bf16=False, save_strategy="no", **COMMON),
    )
    with pytest.raises(InputError, match="log_p must be finite"):
        trainer.train()
