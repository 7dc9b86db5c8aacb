"""The configurations of ``operant train``, ``evaluate`` and ``plan``: plain data, light to import, no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from operant.hf.rollouts.prompts import EMBEDDED, DataConfig

Method = Literal["sft", "grpo", "rloo"]


@dataclass(frozen=True)
class TrainConfig:
    """Train for a test-time strategy, beside its baseline, from one warm start.

    The baseline of sft is cross-entropy; that of grpo and rloo is TRL's own trainer with the same settings. A
    setting that is left out (null) takes the default of the method, ``DEFAULTS``.

    Args:
        output_dir: folder of the run. It must be new, unless --resume.
        method: sft (answers are given); grpo or rloo (completions are sampled and verified).
        model: folder or Hub id of a causal language model, or "embedded" (100k parameters, CPU).
        data: prompts and answers.
        strategies: deployed strategies, one branch each. sft takes any that has an S(p): pass@N, pass^N,
            threshold@N:k, verified@N:fpr:fnr, topmean@N:k, harmonic(pass@N), mix(pass@1:0.25, pass@64:0.75), ...;
            grpo and rloo take all: also maj@N and best@N.
        baseline: whether to train a baseline branch beside them, from the same weights and prompts.
        warm_steps: cross-entropy steps before the branches, at a constant learning rate.
        steps: steps of each branch.
        learning_rate: peak learning rate of the branches.
        warm_learning_rate: peak learning rate of the warm start. Default: learning_rate.
        warm_batch_size: sequences per device and step of the warm start. Default: as the branches.
        lr_scheduler_type: schedule of the branches, any of transformers.
        warmup_steps: steps over which the learning rate rises.
        weight_decay: of AdamW.
        max_grad_norm: gradient norm above which the step is scaled down.
        per_device_train_batch_size: sequences (completions, for grpo and rloo) per device and forward pass.
        gradient_accumulation_steps: forward passes per step.
        lora_rank: rank of a LoRA adapter on all linear layers; 0 trains all weights.
        lora_alpha: scale of the adapter.
        level: what p is in S(p), for sft: sequence, answer (the measured success rate of a prompt), token or step.
        rollouts: rollouts per prompt that measure the success rate, for level answer.
        refresh_steps: steps between these measurements.
        margin: weight of the token-margin term, for sft; 0 leaves it out.
        verifier: "math", "exact", "regex:PATTERN", "code", "gym", or the dotted path of a function of yours.
        reward_model: folder or Hub id of a sequence-classification model, for grpo and rloo: its score is what
            best@N chooses by. With verifier "" it is the reward.
        num_generations: completions per prompt, M. Default: 2 N of the largest strategy, at least 8.
        max_completion_length: tokens after which a completion is cut.
        temperature: of the sampler, in training and evaluation.
        top_p: mass of the sampler's nucleus, likewise.
        beta: weight of the KL penalty against the start; 0 leaves it out.
        num_iterations: passes over each batch of completions.
        steps_per_generation: forward passes per batch of completions. Default: gradient_accumulation_steps.
        use_vllm: whether vLLM samples the completions.
        vllm_mode: colocate or server.
        form: the form of the advantage: exact, extrapolated (N > M), paper-log, paper-raw, or a published rule (see
            operant audit).
        center: loo (leave-one-out baseline) or mean.
        strategy_schedule: {step: strategy from that step on}, after each branch's own strategy.
        off_policy: whether later passes over a batch use the credit under the current weights.
        resample_dead: times that a group without any signal is sampled again.
        budgets: budgets k at which the curves are evaluated.
        eval_steps: steps between evaluations; 0 evaluates at the end only.
        eval_batch_size: sequences per forward pass of the evaluation.
        eval_rollouts: 0 evaluates pass@k exactly, from the probability of the answer string; M > 0 samples and
            verifies M completions per held-out prompt: pass@k, maj@k, best@k (where there are scores) and the curve
            of each strategy.
        logging_steps: steps between records of loss, reward and weights.
        save_steps: steps between checkpoints; 0 keeps none, and a killed branch starts again.
        seeds: one warm start and one set of branches for each.
        max_tokens: longest example; longer ones are an error.
        report_to: where else to log: trackio, tensorboard, wandb, or a list of them.
        jobs: branches trained at once, each in its own process. Under accelerate launch or torchrun it is 1.
        threads: CPU threads of each. Default: 1 for the embedded model, else the cores divided by jobs.
        resume: continue a run that was stopped.
        trainer: any further field of TRL's SFTConfig, GRPOConfig or RLOOConfig, for example {bf16: true}.
    """

    output_dir: Path = Path("runs/train")
    method: Method = "sft"
    model: str = EMBEDDED
    data: DataConfig = field(default_factory=DataConfig)
    strategies: list[str] = field(default_factory=lambda: ["pass@16"])
    baseline: bool = True
    warm_steps: int | None = None
    steps: int = 300
    learning_rate: float | None = None
    warm_learning_rate: float | None = None
    warm_batch_size: int | None = None
    lr_scheduler_type: str = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    per_device_train_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    lora_rank: int = 0
    lora_alpha: int = 32
    level: Literal["sequence", "answer", "token", "step"] = "sequence"
    rollouts: int = 16
    refresh_steps: int = 100
    margin: float = 0.0
    verifier: str = "math"
    reward_model: str = ""
    num_generations: int | None = None
    max_completion_length: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    beta: float = 0.0
    num_iterations: int = 1
    steps_per_generation: int | None = None
    use_vllm: bool = False
    vllm_mode: Literal["colocate", "server"] = "colocate"
    form: str = "exact"
    center: Literal["loo", "mean"] = "loo"
    strategy_schedule: dict[str, str] | None = None
    off_policy: bool = False
    resample_dead: int = 0
    budgets: list[int] = field(default_factory=lambda: [1, 4, 16, 64, 256])
    eval_steps: int = 100
    eval_batch_size: int = 32
    eval_rollouts: int = 0
    logging_steps: int = 10
    save_steps: int = 100
    seeds: list[int] = field(default_factory=lambda: [0])
    max_tokens: int = 1024
    report_to: str | list[str] = "none"
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
            and either reward (with answer and score where there are any) or target (with info where the verifier
            needs it); with text (the prompt's) for a reward_model.
        data: prompts and answers; the held-out prompts are evaluated.
        rollouts: rollouts per prompt, M.
        temperature: of the sampler, and of the exact curve.
        top_p: mass of the sampler's nucleus, 1 = all tokens, and of the exact curve: a target outside the nucleus
            has probability 0.
        max_new_tokens: tokens after which a rollout is cut.
        batch_size: prompts per batch; each is sampled M times.
        max_tokens: longest prompt with its answer; longer ones are an error.
        verifier: "math" (math-verify), "exact" (the same text), "regex:PATTERN", "code", "gym", or the dotted path
            of a function of yours: f(completion, target, **info) -> bool, float, None or (reward, answer).
        reward_model: folder or Hub id of a sequence-classification model, whose score best@k chooses by.
        families: curves to print: pass, maj, best, pass^, or any strategy, which names its family: quorum@8:3. One
            that has its own budgets (a mixture) is a single point.
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
    verifier: str = "math"
    reward_model: str = ""
    families: list[str] = field(default_factory=lambda: ["pass", "maj", "best"])
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
        verifier: as of operant evaluate, for rollouts that have no reward.
        seed: seed of the bootstrap and of the random subsets.
        open: whether to open the page in a browser.
    """

    rollouts: Path
    output_dir: Path = Path("runs/plan")
    strategies: list[str] | None = None
    budgets: list[int] | None = None
    price: float = 0.0
    confidence: float = 0.95
    verifier: str = "math"
    seed: int = 0
    open: bool = False


DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {
        "warm_steps": 0,
        "learning_rate": 1e-4,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_completion_length": 256,
    },
    "grpo": {
        "warm_steps": 0,
        "learning_rate": 1e-6,
        "per_device_train_batch_size": 8,
        "max_completion_length": 256,
    },
}
"""Settings that were left out. gradient_accumulation_steps of grpo and rloo: 8 prompts per step and device."""
DEFAULTS["rloo"] = DEFAULTS["grpo"]
EMBEDDED_RL: dict[str, Any] = {
    "warm_steps": 600,
    "warm_learning_rate": 4e-3,
    "warm_batch_size": 200,
    "learning_rate": 1e-4,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 5,
}
"""The same for grpo and rloo with the embedded model, which has to learn the task before it can be rewarded."""
RL_ONLY = (
    *("reward_model", "num_generations", "beta", "num_iterations", "steps_per_generation", "use_vllm", "vllm_mode"),
    *("form", "center", "strategy_schedule", "off_policy", "resample_dead"),
)
SFT_ONLY = ("level", "rollouts", "refresh_steps", "margin")


_RENAMED = {"centre": "center"}
"""Settings of operant 0.1 and what they are called now."""


def current_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in the record of a run, under the names of this version: a run of an older one can be resumed."""
    new = {_RENAMED.get(name, name): value for name, value in config.items()}
    return new | {"form": "extrapolated"} if new.get("form") == "beyond" else new


def config_dict(config: TrainConfig | EvaluateConfig | PlanConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return json.loads(json.dumps(asdict(config), default=str))
