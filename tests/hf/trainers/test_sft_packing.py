"""The trainer's steps, whatever the layout of its batches: against a hand-written step, on one process and on two."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, PromptTuningConfig

from operant import PassAt, from_function
from operant.core.checks import ConfigError, DataError, NotDefinedError
from operant.hf.rollouts.policy import encode, load_policy
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.trainers.layout import sequences
from operant.hf.trainers.sft import AlignedSFTConfig, AlignedSFTTrainer

COMMON = dict(
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    optim="sgd",
    learning_rate=0.5,
    lr_scheduler_type="constant",
    max_grad_norm=0.0,
    logging_steps=1,
    save_strategy="no",
    seed=5,
)
PACKED = {"packing": True, "max_length": 28}
BINS = 4
N = 64


def rows_of(policy):
    """Twelve rows with targets of one to three tokens: p from 0.1 to 1e-4, so that pass@64 weighs them unequally."""
    encoded = encode(policy, load_prompts(DataConfig())[0][:12], DataConfig(), 64)
    targets = [e.target[: 1 + i % 3] for i, e in enumerate(encoded)]
    return [
        {"input_ids": e.prompt + t, "labels": [-100] * len(e.prompt) + t} for e, t in zip(encoded, targets, strict=True)
    ]


def trainer_of(path, *, strategy=f"pass@{N}", batch=12, steps=1, rows=None, value=None, peft=None, **settings):
    policy = load_policy("embedded", seed=3, device="cpu")
    return AlignedSFTTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        train_dataset=Dataset.from_list(rows or rows_of(policy)),
        strategy=value,
        peft_config=peft,
        args=AlignedSFTConfig(
            output_dir=str(path),
            strategy=strategy,
            max_steps=steps,
            per_device_train_batch_size=batch,
            **{**COMMON, **settings},
        ),
    )


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(path, **settings):
    trainer = trainer_of(path, **settings)
    trainer.train()
    return parameters(trainer.model)


def by_hand(steps=1, n=N):
    """Gradient descent on the mean of -log(1 - (1-p)^n), one row at a time, without operant or TRL."""
    policy = load_policy("embedded", seed=3, device="cpu")
    rows = rows_of(policy)
    for _ in range(steps):
        policy.model.zero_grad()
        for row in rows:
            logits = policy.model(torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
            where = [i for i, label in enumerate(row["labels"]) if label != -100]
            log_p = sum(logits[i - 1, row["labels"][i]] for i in where)
            (-torch.log1p(-((1 - log_p.exp()) ** n)) / len(rows)).backward()
        with torch.no_grad():
            for p in policy.model.parameters():
                p -= 0.5 * p.grad
    return parameters(policy.model)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"batch": 3, "gradient_accumulation_steps": 4},
        {"padding_free": True},
        {"padding_free": True, "batch": 4, "gradient_accumulation_steps": 3},
        {**PACKED},
        {**PACKED, "batch": 1, "gradient_accumulation_steps": 12},
    ],
    ids=str,
)
def test_two_steps_are_those_by_hand(tmp_path, layout):
    """A step takes all twelve rows; a packed one takes all the bins that hold them."""
    assert torch.allclose(trained(tmp_path, steps=2, **layout), by_hand(2), atol=1e-6)


def test_the_steps_are_not_those_of_cross_entropy():
    assert (by_hand(2) - by_hand(2, n=1)).abs().max() > 1e-3


def test_packed_cross_entropy_is_padded_cross_entropy(tmp_path):
    padded = trained(tmp_path, strategy="pass@1", steps=2)
    assert torch.allclose(trained(tmp_path, strategy="pass@1", steps=2, **PACKED), padded, atol=1e-6)
    assert torch.allclose(padded, by_hand(2, n=1), atol=1e-6)


def test_a_packed_window_has_fewer_rows_than_sequences(tmp_path):
    trainer = trainer_of(tmp_path, **PACKED)
    (batch,) = trainer.get_train_dataloader()
    trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    assert len(trainer.train_dataset) == BINS
    assert trainer._sequences.item() == 12


def test_segments_by_hand():
    batch = {"labels": torch.zeros(1, 6), "position_ids": torch.tensor([[0, 1, 2, 0, 1, 0]])}
    segment, count = sequences(batch)
    assert segment.tolist() == [[0, 0, 1, 1, 2]]  # of the tokens after the first
    assert count == 3
    segment, count = sequences({"labels": torch.zeros(2, 3), "attention_mask": None})
    assert (segment.tolist(), count) == ([[0, 0], [1, 1]], 2)


def test_a_strategy_value_takes_the_place_of_the_string(tmp_path):
    value = trained(tmp_path, strategy="pass@1", value=PassAt(N))
    assert torch.equal(value, trained(tmp_path))
    with pytest.raises(NotDefinedError):
        trainer_of(tmp_path, value=from_function(2, lambda draw: draw[0].reward))


def test_lora_trains_its_adapters_only(tmp_path):
    settings = {"peft": LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"), "steps": 2}
    trainer = trainer_of(tmp_path, **settings)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)
    torch.manual_seed(0)  # the adapters' start
    padded = trainer_of(tmp_path, **settings)
    torch.manual_seed(0)
    packed = trainer_of(tmp_path, **settings, **PACKED)
    padded.train()
    packed.train()
    assert torch.allclose(parameters(padded.model), parameters(packed.model), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"packing": True}, "size of a bin"),
        ({**PACKED, "packing_strategy": "wrapped"}, "must be 'bfd'"),
        ({**PACKED, "packing_strategy": "bfd_split"}, "must be 'bfd'"),
        ({"max_length": 28}, "max_length=None"),
        ({"padding_free": True, "pad_to_multiple_of": 8}, "pad_to_multiple_of"),
        ({"loss_type": "dft"}, "strategy defines the loss"),
        ({"label_smoothing_factor": 0.1}, "strategy defines the loss"),
        ({"level": "word"}, "level must be one of"),
        ({"level": "answer"}, "needs measure"),
        ({"margin": 1.5}, r"margin must lie in \[0, 1\]"),
        ({"refresh_steps": -1}, "refresh_steps"),
    ],
    ids=str,
)
def test_settings_that_change_the_objective_are_refused(tmp_path, settings, match):
    with pytest.raises(ConfigError, match=match):
        trainer_of(tmp_path, **settings)


def test_rows_that_packing_would_cut_are_refused(tmp_path):
    policy = load_policy("embedded", seed=3, device="cpu")
    rows = [*rows_of(policy), {"input_ids": [4] * 29, "labels": [-100] + [4] * 28}]
    with pytest.raises(DataError, match=r"1 of 13 train rows are longer than max_length = 28 \(longest 29\)"):
        trainer_of(tmp_path, rows=rows, **PACKED)


def test_a_packed_row_without_a_target_is_refused(tmp_path):
    policy = load_policy("embedded", seed=3, device="cpu")
    rows = [*rows_of(policy), {"input_ids": [4, 5], "labels": [4, -100]}]  # nothing precedes the first token
    with pytest.raises(DataError, match="no target token"):
        trainer_of(tmp_path, rows=rows, **PACKED).train()


def test_streams_and_prompt_tuning_are_refused(tmp_path):
    policy = load_policy("embedded", seed=3, device="cpu")
    with pytest.raises(ConfigError, match="prompt tuning"):
        trainer_of(tmp_path, peft=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ConfigError, match="got a stream"):
        AlignedSFTTrainer(
            model=policy.model,
            processing_class=policy.tokenizer,
            train_dataset=IterableDataset.from_generator(lambda: iter(rows_of(policy))),
            args=AlignedSFTConfig(output_dir=str(tmp_path), max_steps=1, **COMMON, **PACKED),
        )


@pytest.mark.slow  # by default tests/hf/train/test_accelerate.py compares two processes with one
def test_two_processes_take_the_same_steps(tmp_path):
    """Two gloo processes with half the rows each, padded, and half the bins each, packed: equal on both, as by hand."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        for run in runs:
            _, stderr = run.communicate(timeout=240)
            assert run.returncode == 0, stderr[-2000:]
    finally:
        for run in runs:
            run.kill()
    expected = by_hand(2)
    for rank in range(2):
        for layout, got in json.loads((tmp_path / f"{rank}.json").read_text()).items():
            assert torch.allclose(torch.tensor(got), expected, atol=1e-6), layout


def process(folder):
    """What each of the two processes does."""
    torch.set_num_threads(1)
    found = {
        "padded": trained(folder, steps=2, batch=6).tolist(),
        "packed": trained(folder, steps=2, batch=BINS // 2, **PACKED).tolist(),
    }
    with open(os.path.join(folder, f"{os.environ['RANK']}.json"), "w") as file:
        json.dump(found, file)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    process(sys.argv[1])
