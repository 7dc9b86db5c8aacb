"""Best-of-N rewards on IgLM-S, unconditional and conditional: train every arm, then sample it.

usage: python experiments/protein/run.py MODEL_DIR OUT_DIR [--config experiments/protein/config.yaml]

MODEL_DIR is what examples/get_iglm.py writes. A finished arm is kept: run it again after an interruption.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

sys.path.insert(0, str(Path(__file__).parents[2]))

from operant.core.rng import child_seed
from operant.hf import AlignedGRPOConfig, AlignedGRPOTrainer, Encoded, Policy, RolloutSettings, load_policy, sample
from recipes.protein import conditional, pairs, unconditional

ALONE = {"prompt": "[HEAVY][HUMAN]", "source": ""}
SPLITS = {"warm-up": 1, "train": 2, "test": 3}
COMMON = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no"}
COMMON |= {"disable_tqdm": True, "lr_scheduler_type": "constant", "logging_steps": 10}
Rows = list[dict[str, str]]


def rewards(completions: list[str], source: list[str], **_: Any) -> list[float]:
    """The task's reward; an empty source is the unconditional task."""
    return [conditional(c, source=s) if s else unconditional(c) for c, s in zip(completions, source, strict=True)]


def warm_up(model_dir: str, out: Path, config: dict[str, Any]) -> str:
    """Cross-entropy on gold pairs, once for all arms: IgLM has seen [MASK] and [SEP], but not this task."""
    if not out.is_dir():
        policy = load_policy(model_dir, device="cpu")
        args = SFTConfig(output_dir=str(out), loss_type="nll", **config["warm_up"], **COMMON)
        rows = pairs(config["warm_up_pairs"], seed=SPLITS["warm-up"])
        data = Dataset.from_list([{"prompt": r["prompt"], "completion": r["target"]} for r in rows])
        SFTTrainer(model=policy.model, args=args, train_dataset=data, processing_class=policy.tokenizer).train()
        policy.save(out)
    return str(out)


def train(policy: Policy, rows: Rows, arm: dict[str, Any], config: dict[str, Any], seed: int) -> Any:
    """One arm: TRL's own trainer where no strategy is named, else ours; the same settings and seed for all."""
    kind = (AlignedGRPOConfig, AlignedGRPOTrainer) if "strategy" in arm else (GRPOConfig, GRPOTrainer)
    settings = {"loss_type": "dr_grpo", "beta": 0.0, "disable_dropout": True, **config["train"], **COMMON, **arm}
    trainer = kind[1](
        model=policy.model,
        reward_funcs=[rewards],
        args=kind[0](seed=seed, **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
    )
    trainer.train()
    return trainer.state.log_history


def pool(policy: Policy, rows: Rows, config: dict[str, Any], seed: int) -> list[list[float]]:
    """Rewards of fresh samples, one list a prompt."""
    encoded = [Encoded(policy.tokenizer(r["prompt"])["input_ids"], []) for r in rows]
    length, many = config["train"]["max_completion_length"], config["samples"]
    settings = RolloutSettings(many, length, batch_size=8, seed=child_seed(seed, "protein", "pool"))
    chunks = sample(policy, encoded, settings)
    texts = [policy.text(tokens) for chunk in chunks for tokens in chunk]
    return [rewards(texts[many * i : many * (i + 1)], [row["source"]] * many) for i, row in enumerate(rows)]


def main() -> None:
    """Seed by seed, so that an interrupted run has whole seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("config.yaml"))
    args = parser.parse_args()
    whole = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    for task, seed in [(t, s) for t in whole["tasks"] for s in whole[t]["seeds"]]:
        config, folder, alone = whole[task], args.out / task / f"seed{seed}", task == "unconditional"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [ALONE] * config["prompts"] if alone else pairs(config["prompts"], seed=SPLITS["train"])
        held = [ALONE] if alone else pairs(config["test_prompts"], seed=SPLITS["test"])
        start = args.model if alone else warm_up(args.model, args.out / task / "warm", config)
        for name in [arm for arm in ["start", *config["arms"]] if not (folder / f"{arm}.json").exists()]:
            began, policy, arm = time.perf_counter(), load_policy(start, device="cpu"), whole["arms"].get(name)
            extra = {"output_dir": str(folder)} | (config.get("paper", {}) if name.startswith("paper") else {})
            log = [] if arm is None else train(policy, rows, {**arm, **extra}, config, seed)
            found = pool(policy, held, config, seed)
            mean, seconds = sum(map(sum, found)) / sum(map(len, found)), time.perf_counter() - began
            print(f"{task} seed {seed} {name}: mean {mean:.3f}, best {max(map(max, found)):.3f}, {seconds:.0f} s")
            result = {"rewards": found, "log": log, "seconds": seconds}
            (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
