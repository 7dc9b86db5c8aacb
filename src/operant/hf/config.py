"""The configurations of ``operant train``, ``evaluate`` and ``plan``: plain data, light to import, no code."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from operant.hf.tasks import EMBEDDED, DataConfig
from operant.hf.verify import Verifier


@dataclass(frozen=True)
class TrainConfig:
    """Train for a test-time strategy, beside its baseline, from one warm start.

    Args:
        output_dir: folder of the run. It must be new, unless --resume.
        model: folder or Hub id of a causal language model, or "embedded" (100k parameters, CPU).
        data: prompts and answers.
        strategies: deployed strategies, one branch each, any that has an S(p): pass@N, pass^N, threshold@N:k,
            verified@N:fpr:fnr, topmean@N:k, harmonic(pass@N), mix(pass@1:0.25, pass@64:0.75), ...
        baseline: whether to train a cross-entropy branch beside them, from the same weights and batches.
        warm_steps: cross-entropy steps before the branches, at a constant learning rate.
        steps: steps of each branch.
        learning_rate: peak learning rate of the branches.
        warm_learning_rate: peak learning rate of the warm start. Default: learning_rate.
        lr_scheduler_type: schedule of the branches, any of transformers.
        warmup_steps: steps over which the learning rate rises.
        weight_decay: of AdamW.
        max_grad_norm: gradient norm above which the step is scaled down.
        per_device_train_batch_size: sequences per device and forward pass.
        gradient_accumulation_steps: forward passes per step.
        lora_rank: rank of a LoRA adapter on all linear layers; 0 trains all weights.
        lora_alpha: scale of the adapter.
        budgets: budgets k at which pass@k is evaluated, exactly, from the probability of the answer.
        eval_steps: steps between evaluations; 0 evaluates at the end only.
        eval_batch_size: sequences per forward pass of the evaluation.
        logging_steps: steps between records of loss and weights.
        save_steps: steps between checkpoints; 0 keeps none, and a killed branch starts again.
        seeds: one warm start and one set of branches for each.
        max_tokens: longest example; longer ones are an error.
        jobs: branches trained at once, each in its own process.
        threads: CPU threads of each. Default: 1 for the embedded model, else the cores divided by jobs.
        resume: continue a run that was stopped.
        trainer: any further field of TRL's SFTConfig, for example {bf16: true}.
    """

    output_dir: Path = Path("runs/train")
    model: str = EMBEDDED
    data: DataConfig = field(default_factory=DataConfig)
    strategies: list[str] = field(default_factory=lambda: ["pass@16"])
    baseline: bool = True
    warm_steps: int = 0
    steps: int = 300
    learning_rate: float = 1e-4
    warm_learning_rate: float | None = None
    lr_scheduler_type: str = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    lora_rank: int = 0
    lora_alpha: int = 32
    budgets: list[int] = field(default_factory=lambda: [1, 4, 16, 64, 256])
    eval_steps: int = 100
    eval_batch_size: int = 32
    logging_steps: int = 10
    save_steps: int = 100
    seeds: list[int] = field(default_factory=lambda: [0])
    max_tokens: int = 1024
    jobs: int = 1
    threads: int | None = None
    resume: bool = False
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluateConfig:
    """Sample a model M times a prompt, verify, and print pass@k, maj@k and best@k with standard errors.

    Args:
        output_dir: folder of the evaluation. It must be new, unless --resume.
        model: folder, adapter folder or Hub id of a causal language model, or "embedded" (untrained).
        rollouts_file: read these rollouts instead of sampling: JSON lines with prompt (an id), completion,
            and either reward (with answer and score where there are any) or target.
        data: prompts and answers; the held-out prompts are evaluated.
        rollouts: rollouts per prompt, M.
        temperature: of the sampler, and of the exact curve.
        top_p: mass of the sampler's nucleus, 1 = all tokens, and of the exact curve: a target outside the nucleus
            has probability 0.
        max_new_tokens: tokens after which a rollout is cut.
        batch_size: prompts per batch; each is sampled M times.
        max_tokens: longest prompt with its answer; longer ones are an error.
        verifier: "math" (math-verify) or "exact" (the same text).
        families: curves to print, of pass, maj, best.
        budgets: budgets k of the curves, at most M. Default: powers of two.
        exact: whether to add the exact pass@k curve, from the probability that the sampler returns the
            answer string.
        seed: seed of the sampler.
        resume: continue an evaluation that was stopped.
    """

    output_dir: Path = Path("runs/evaluate")
    model: str = EMBEDDED
    rollouts_file: Path | None = None
    data: DataConfig = field(default_factory=DataConfig)
    rollouts: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    batch_size: int = 4
    max_tokens: int = 1024
    verifier: Verifier = "math"
    families: list[Literal["pass", "maj", "best"]] = field(default_factory=lambda: ["pass", "maj", "best"])
    budgets: list[int] | None = None
    exact: bool = True
    seed: int = 0
    resume: bool = False


@dataclass(frozen=True)
class PlanConfig:
    """From saved rollouts, without training: what each strategy and budget is worth, and what to train for.

    Args:
        rollouts: JSON lines with M rollouts of every prompt: prompt (an id), and either reward (with answer and
            score where there are any) or completion and target. operant evaluate writes them.
        output_dir: folder of the plan. It must be new.
        strategies: families to compare, each named by one member: pass@16, maj@16, best@16, pass^16, ...; a
            mixture is one point. Default: all of pass, maj, best, pass^ that the rollouts allow.
        budgets: budgets N of the curves, at most M. Default: powers of two.
        price: what one sample costs, in reward (0.001: 10 samples must buy one point).
        confidence: level of the intervals.
        verifier: "math" (math-verify) or "exact", for rollouts that have no reward.
        seed: seed of the bootstrap and of the random subsets.
        open: whether to open the page in a browser.
    """

    rollouts: Path
    output_dir: Path = Path("runs/plan")
    strategies: list[str] | None = None
    budgets: list[int] | None = None
    price: float = 0.0
    confidence: float = 0.95
    verifier: Verifier = "math"
    seed: int = 0
    open: bool = False


def config_dict(config: TrainConfig | EvaluateConfig | PlanConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return json.loads(json.dumps(asdict(config), default=str))
