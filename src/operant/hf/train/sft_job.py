"""A supervised job: settings and trainer, for cross-entropy or for the loss of a strategy."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from datasets import Dataset

from operant.hf.config import TrainConfig
from operant.hf.rollouts.collect import SuccessRate
from operant.hf.rollouts.policy import Encoded, Policy
from operant.hf.rollouts.sampling import RolloutSettings
from operant.hf.train.job import Job, build
from operant.hf.trainers.sft import AlignedSFTConfig, AlignedSFTTrainer
from operant.strategies import Sampler
from operant.verify import Prompt, make_verifier


def arguments(job: Job, config: TrainConfig) -> AlignedSFTConfig:
    """The settings of the trainer. The warm start and the baseline are cross-entropy, that is pass@1."""
    size = config.per_device_train_batch_size
    if job.role == "warm":
        size = config.warm_batch_size or size
    ours: dict[str, Any] = {"strategy": job.strategy}
    if job.role == "branch" and not job.baseline:
        ours |= {"level": config.level, "refresh_steps": config.refresh_steps, "margin": config.margin}
        ours["transform"] = config.transform
    return build(AlignedSFTConfig, job, config, size, **ours)


def trainer(
    job: Job,
    config: TrainConfig,
    args: AlignedSFTConfig,
    policy: Policy,
    prompts: Sequence[Prompt],
    rows: Sequence[Encoded],
) -> AlignedSFTTrainer:
    """The trainer of a job. Rows with the same prompt are solutions of one prompt and share its weight."""
    place: dict[Hashable, int] = {}
    index = [place.setdefault(p.asked, len(place)) for p in prompts]
    examples = [
        {"input_ids": r.prompt + r.target, "labels": [-100] * len(r.prompt) + r.target, "prompt_index": i}
        for r, i in zip(rows, index, strict=True)
    ]
    data = Dataset.from_list(examples)
    measure = None
    if args.level == "answer":
        first = [index.index(i) for i in range(len(place))]
        measure = SuccessRate(
            policy,
            [prompts[i] for i in first],
            [rows[i] for i in first],
            make_verifier(config.verifier),
            RolloutSettings(
                rollouts=config.rollouts,
                max_new_tokens=config.max_completion_length or 1,
                batch_size=max(1, config.eval_batch_size // config.rollouts),
                sampler=Sampler(config.temperature, config.top_p),
            ),
        )
    else:
        data = data.remove_columns("prompt_index")
    return AlignedSFTTrainer(
        policy.model, processing_class=policy.tokenizer, train_dataset=data, args=args, measure=measure
    )
