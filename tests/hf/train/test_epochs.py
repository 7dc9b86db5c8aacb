"""Training by epochs: the number of steps is that of transformers' and TRL's own trainers, for odd sizes too."""

from dataclasses import replace

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler
from transformers import TrainingArguments

from operant.core.checks import BudgetError, ConfigError
from operant.hf.config import TrainConfig
from operant.hf.rollouts.policy import encode, load_policy
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.train import rl_job, sft_job
from operant.hf.train.job import build
from operant.hf.train.run import make_jobs
from operant.hf.train.settings import checked, steps_of_epoch

SFT = {"method": "sft"}
RL = {"method": "grpo", "warm_steps": 0, "num_generations": 4, "strategies": ["pass@2"], "save_steps": 0}


@pytest.mark.parametrize(
    ("rows", "epochs", "settings"),
    [
        (17, 1.0, SFT | {"per_device_train_batch_size": 4}),
        (17, 2.5, SFT | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}),
        (3, 0.1, SFT | {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 5}),
        (17, 3.0, SFT | {"per_device_train_batch_size": 4, "trainer": {"dataloader_drop_last": True}}),
        (17, 2.0, RL | {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "num_iterations": 3}),
        (19, 1.0, RL | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "steps_per_generation": 4}),
        (19, 0.7, RL | {"per_device_train_batch_size": 8, "method": "rloo", "trainer": {"generation_batch_size": 24}}),
    ],
)
def test_the_steps_are_those_that_the_trainer_counts(tmp_path, rows, epochs, settings):
    """The same trainer with its own num_train_epochs and no max_steps."""
    data = DataConfig(train_limit=rows, test_limit=5)
    config = checked(TrainConfig(output_dir=tmp_path, data=data, num_train_epochs=epochs, **settings))
    job, method = make_jobs(config)[1], sft_job if config.method == "sft" else rl_job
    args = method.arguments(job, config)
    args.max_steps, args.num_train_epochs = -1, epochs
    policy, prompts = load_policy("embedded", seed=0, device="cpu"), load_prompts(config.data)[0]
    trainer = method.trainer(job, config, args, policy, prompts, encode(policy, prompts, data, 64))
    assert trainer.set_initial_training_values(args, trainer.get_train_dataloader())[-1] == config.steps == job.steps


@pytest.mark.parametrize(("rows", "size", "processes"), [(17, 4, 2), (17, 4, 3), (16, 4, 2), (3, 8, 2)])
@pytest.mark.parametrize("drop", [False, True])
def test_several_processes_share_the_batches_as_accelerate_does(rows, size, processes, drop):
    settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 1}
    config = TrainConfig(trainer={"dataloader_drop_last": drop}, **settings)
    shard = BatchSamplerShard(BatchSampler(range(rows), size, drop), processes, processes - 1)
    assert steps_of_epoch(config, rows, processes) == max(1, len(shard))


def test_steps_or_epochs_and_not_both(tmp_path):
    config = TrainConfig(output_dir=tmp_path, data=DataConfig(train_limit=20, test_limit=5))
    assert checked(config).steps == 300 and checked(config).num_train_epochs is None
    found = checked(replace(config, num_train_epochs=2))  # 20 rows in batches of 8
    assert found.steps == 6 and checked(found) == found, "the settings that a run writes can be read again"
    with pytest.raises(ConfigError, match="steps is 7, but num_train_epochs 2 is 6 steps on this data: give one"):
        checked(replace(config, num_train_epochs=2, steps=7))
    with pytest.raises(ConfigError, match="num_train_epochs must be positive"):
        checked(replace(config, num_train_epochs=0.0))
    with pytest.raises(ConfigError, match="with packing the rows of an epoch are not known"):
        checked(replace(config, num_train_epochs=1.0, trainer={"packing": True}))
    with pytest.raises(BudgetError, match="steps must be an integer >= 1"):
        checked(replace(config, steps=0))
    with pytest.raises(ConfigError, match="Set --num_train_epochs directly"):
        job = make_jobs(checked(config))[1]
        build(TrainingArguments, job, replace(config, trainer={"num_train_epochs": 2}), 8)
