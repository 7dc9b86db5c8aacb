"""One arm of the protein tasks: trained at every rate, stopped at its best step, sampled at its best temperature."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

sys.path.insert(0, str(Path(__file__).parents[2]))

from operant.core.rng import child_seed
from operant.hf import AlignedGRPOConfig, AlignedGRPOTrainer, Encoded, Policy, RolloutSettings, load_policy, sample
from operant.strategies import BestOf, Outcomes, curve
from recipes.protein import conditional, pairs, unconditional

ALONE = {"prompt": "[HEAVY][HUMAN]", "source": ""}
SPLITS = {"warm-up": 1, "train": 2, "test": 3, "development": 4}
EVERY = 10
"""Steps between two looks at the development samples."""
COMMON = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no"}
COMMON |= {"disable_tqdm": True, "lr_scheduler_type": "constant", "logging_strategy": "no"}
Rows = list[dict[str, str]]


def rewards(completions: list[str], source: list[str], **_: Any) -> list[float]:
    """The task's reward; an empty source is the unconditional task."""
    return [conditional(c, source=s) if s else unconditional(c) for c, s in zip(completions, source, strict=True)]


def weights(folder: Path) -> Path:
    """IgLM-S, fetched from the package index by examples/get_iglm.py if it is not there."""
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        script = Path(__file__).parents[2] / "examples" / "get_iglm.py"
        if subprocess.run([sys.executable, str(script), str(part)], check=False).returncode:
            sys.exit(
                "IgLM-S could not be fetched from the package index (the error is above). Where there is a network, "
                "run: python examples/get_iglm.py DIR. Copy DIR here, and give --model DIR."
            )
        part.rename(folder)
    return folder


def warm_up(model: Path, out: Path, config: dict[str, Any], seed: int) -> Path:
    """Cross-entropy on gold pairs, once a seed for all arms: IgLM has seen [MASK] and [SEP], but not this task."""
    if not out.is_dir():
        policy = load_policy(str(model), device="cpu")
        args = SFTConfig(output_dir=str(out.parent), loss_type="nll", seed=seed, **config["warm_up"], **COMMON)
        rows = pairs(config["warm_up_pairs"], seed=SPLITS["warm-up"])
        data = Dataset.from_list([{"prompt": r["prompt"], "completion": r["target"]} for r in rows])
        SFTTrainer(model=policy.model, args=args, train_dataset=data, processing_class=policy.tokenizer).train()
        policy.save(out)
    return out


def drawn(config: dict[str, Any], split: str) -> Rows:
    """The prompts of a split."""
    count = config["prompts"] if split == "train" else config[split]["prompts"]
    return pairs(count, seed=SPLITS[split]) if "warm_up" in config else [ALONE] * count


def best_of(policy: Policy, config: dict[str, Any], split: str, seed: int, temperature: float = 1.0) -> list[float]:
    """The expected largest reward of n = 1, 2, 4, ... fresh samples of a prompt: unbiased, the mean over prompts."""
    rows, many = drawn(config, split), config[split]["samples"]
    encoded = [Encoded(policy.tokenizer(r["prompt"])["input_ids"], []) for r in rows]
    length = config["train"]["max_completion_length"]
    settings = RolloutSettings(many, length, batch_size=8, seed=child_seed(seed, "protein", split))
    settings = replace(settings, sampler=replace(settings.sampler, temperature=temperature))
    texts = [policy.text(tokens) for chunk in sample(policy, encoded, settings) for tokens in chunk]
    found = [rewards(texts[many * i : many * (i + 1)], [row["source"]] * many) for i, row in enumerate(rows)]
    budgets = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= many]
    known = curve(BestOf(budgets[-1]), Outcomes(torch.tensor(found, dtype=torch.float64)), budgets)
    return [round(float(v), 4) for v in known.per_prompt.mean(0)]


@dataclass
class Watch(TrainerCallback):
    """Keeps the weights of the step with the best development value."""

    policy: Policy
    measure: Callable[[], float]
    best: float = float("-inf")
    step: int = 0
    values: list[float] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)

    def look(self, step: int) -> None:
        """Measure, and keep the weights if they are the best so far."""
        self.values.append(self.measure())
        if self.values[-1] > self.best:
            self.best, self.step, self.kept = self.values[-1], step, copy.deepcopy(self.policy.model.state_dict())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer."""
        if state.global_step % EVERY == 0:
            self.look(state.global_step)


def train(policy: Policy, arm: dict[str, Any], config: dict[str, Any], watch: Watch, **settings: Any) -> None:
    """TRL's own trainer where no strategy is named, else ours; the same settings and seed for all."""
    kind = (AlignedGRPOConfig, AlignedGRPOTrainer) if "strategy" in arm else (GRPOConfig, GRPOTrainer)
    fixed = {"loss_type": "dr_grpo", "beta": 0.0, "disable_dropout": True, **config["train"], **COMMON}
    trainer = kind[1](
        model=policy.model,
        reward_funcs=[rewards],
        args=kind[0](**fixed, **arm, **settings),
        train_dataset=Dataset.from_list(drawn(config, "train")),
        processing_class=policy.tokenizer,
        callbacks=[watch],
    )
    trainer.train()


def run(start: Path, name: str, whole: dict[str, Any], task: str, seed: int, scratch: Path) -> dict[str, Any]:
    """Rate, step and temperature by development samples, then fresh ones; "start" is the model before training."""
    began, config, place = time.process_time(), whole[task], whole["judged"].bit_length() - 1
    policy, arm = load_policy(str(start), device="cpu"), dict(whole["strategies"].get(name, {}))
    arm |= config.get("published", {}) if name.startswith("published") else {}
    looks: dict[str, list[float]] = {}
    best = Watch(policy, lambda: best_of(policy, config, "development", seed)[place])
    best.look(0)
    rate, first = 0.0, best
    for r in config["rates"] if name != "start" else []:
        policy.model.load_state_dict(first.kept)
        watch = replace(first, values=list(first.values))
        train(policy, arm, config, watch, seed=seed, learning_rate=r, output_dir=str(scratch))
        looks[f"{r:g}"] = watch.values
        best, rate = (watch, r) if watch.best > best.best else (best, rate)
    policy.model.load_state_dict(best.kept)
    warm = {t: best_of(policy, config, "development", seed, t)[place] for t in whole["temperatures"]}
    temperature = max(warm, key=warm.__getitem__)
    test = best_of(policy, config, "test", seed, temperature)
    chosen = {"rate": rate, "step": best.step, "temperature": temperature}
    return {**chosen, "development": looks, "test": test, "cpu_seconds": round(time.process_time() - began)}
