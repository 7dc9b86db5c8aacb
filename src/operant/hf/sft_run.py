"""One training job in a process of its own: a warm start or a branch, with its evaluation and its record."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operant.core.record import append_record, read_records, write_records
from operant.hf.config import TrainConfig
from operant.hf.runs import pass_at, quiet, summary, write_job, write_prompts
from operant.hf.tasks import load_prompts

if TYPE_CHECKING:  # TRL takes seconds to import: only the worker processes pay for it
    import torch

    from operant.hf.policy import Encoded, Policy


@dataclass(frozen=True)
class Job:
    """One training job; ``start`` is the folder of the weights it begins with, None for the model itself."""

    folder: Path
    seed: int
    branch: str
    strategy: str
    role: str
    steps: int
    learning_rate: float
    start: Path | None

    @property
    def record(self) -> Path:
        """Its JSON lines record."""
        return self.folder / "record.jsonl"

    @property
    def done(self) -> bool:
        """Whether it finished: the per-prompt results are written last."""
        return (self.folder / "prompts.jsonl").is_file()


def run_job(job: Job, config: TrainConfig) -> None:
    """Train, evaluate and save one job, from its last checkpoint if it has one."""
    import torch

    from operant.hf.policy import add_lora, encode, load_policy

    quiet()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    began = time.time()
    frozen = config.lora_rank > 0  # weights that are trained themselves need float32 to take small steps
    dtype = None if frozen else torch.float32
    policy = load_policy(str(job.start or config.model), seed=job.seed, dtype=dtype, trainable=True)
    if config.lora_rank and job.start is None:
        policy = add_lora(policy, rank=config.lora_rank, alpha=config.lora_alpha, seed=job.seed)
    train, test = load_prompts(config.data)
    train_rows = encode(policy, train, config.data, config.max_tokens)
    test_rows = encode(policy, test, config.data, config.max_tokens)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_job(job.folder, seed=job.seed, branch=job.branch, role=job.role, strategy=job.strategy)
    if job.steps:
        _train(job, config, policy, train_rows, test_rows)
    log_p = _evaluate(job, config, policy, test_rows, job.steps)
    if job.steps:
        policy.save(job.folder / "model")
    append_record(job.record, "done", step=job.steps, seconds=time.time() - began)
    columns = pass_at(log_p, config.budgets)
    write_prompts(job.folder, [p.id for p in test], columns, log_p=log_p)
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)


def _train(job: Job, config: TrainConfig, policy: Policy, train_rows: list[Encoded], test_rows: list[Encoded]) -> None:
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    from operant.hf.sft import AlignedSFTConfig, AlignedSFTTrainer, Recorder

    def evaluate(step: int) -> None:
        if config.eval_steps and step % config.eval_steps == 0 and step < job.steps:
            _evaluate(job, config, policy, test_rows, step)

    checkpoint = _last_checkpoint(job)
    _forget_after(job, int(checkpoint.name.split("-")[1]) if checkpoint else 0)
    cuda = policy.device.type == "cuda"
    settings: dict[str, Any] = {
        "bf16": cuda,
        "gradient_checkpointing": False,
        "use_cpu": not cuda,
        "report_to": "none",
        "save_total_limit": 1,
        **config.trainer,
    }
    trainer = AlignedSFTTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        train_dataset=Dataset.from_list(
            [{"input_ids": r.prompt + r.target, "labels": [-100] * len(r.prompt) + r.target} for r in train_rows]
        ),
        args=AlignedSFTConfig(
            output_dir=str(job.folder / "checkpoints"),
            strategy=job.strategy,
            max_steps=job.steps,
            learning_rate=job.learning_rate,
            lr_scheduler_type=config.lr_scheduler_type if job.role == "branch" else "constant_with_warmup",
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            per_device_train_batch_size=config.per_device_train_batch_size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            logging_steps=config.logging_steps,
            save_strategy="steps" if config.save_steps else "no",
            save_steps=config.save_steps or 500,
            seed=job.seed,
            disable_tqdm=True,
            **settings,
        ),
        callbacks=[Recorder(job.record, evaluate)],
    )
    trainer.remove_callback(PrinterCallback)
    if checkpoint is None and job.role == "branch":
        _evaluate(job, config, policy, test_rows, 0)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _evaluate(job: Job, config: TrainConfig, policy: Policy, rows: list[Encoded], step: int) -> torch.Tensor:
    """Exact pass@k of the held-out prompts, into the record; returns log p per prompt."""
    from operant.hf.policy import answer_log_probs

    log_p = answer_log_probs(policy, rows, batch_size=config.eval_batch_size)
    curve = summary(pass_at(log_p, config.budgets))
    append_record(job.record, "evaluation", step=step, prompts=len(rows), curve=curve)
    return log_p


def _last_checkpoint(job: Job) -> Path | None:
    """The newest checkpoint that was written to its end: the trainer's state is its last file."""
    found = (job.folder / "checkpoints").glob("checkpoint-*/trainer_state.json")
    return max((p.parent for p in found), key=lambda p: int(p.name.split("-")[1]), default=None)


def _forget_after(job: Job, step: int) -> None:
    """Drop records of steps that will be taken again; those of the checkpoint's own step stay."""
    if not job.record.is_file():
        return
    kept = [r for r in read_records(job.record) if r.get("step", 0) <= step and r["kind"] != "done"]
    write_records(job.record, kept if step else [])
