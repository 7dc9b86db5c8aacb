"""The arena: arms on tasks, started from the same weights and fed with the same prompts.

    python experiments/arena/run.py runs/arena
    python experiments/arena/table.py runs/arena

Three stages follow each other: every arm at its middle rate on one seed; the best arms at all rates on two seeds; the
tuned baseline and the best recipes on five fresh seeds. --stage, --tasks, --arms, --rates and --seeds run a part.

A finished run is a line of results.jsonl. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import functools
import math
import operator
import time
from concurrent.futures import Executor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, TASKS, Arm
from choose import FRESH, SCREEN, carried, promoted
from tasks import BUDGETS, TEMPERATURES, Row, Task, answers, fresh_model, logits, split, tokens, values

from operant.core.record import append_record, read_records
from operant.hf import AnsweredReward, Policy, load_policy, quiet, worker_pool

KEY = ("task", "arm", "rate", "seed")
CHOSEN = [f"pass@{k}" for k in BUDGETS] + ["maj@16", "best@8"]
SHOWN = ["pass@1", "pass@16", "pass@256", "maj@16", "best@1", "best@8", "entropy"]
EVALUATIONS = 6
STAGES = ["screen", "tune", "fresh"]
QUICK_TASKS = ["SFT, small model", "RL, sums from 5 %"]
QUICK_ARMS = ["SFT cross-entropy", "SFT pass@16", "SFT pass@1, log .1", "GRPO", "RLOO", "pass@16", "pass@1, log .02"]
QUICK_ARMS += ["maj@16, log .1", "GRPO, graded", "best@8"]
FIXED = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True}
FIXED |= {"save_strategy": "no", "warmup_steps": 10, "logging_steps": 50}


class Watch:
    """Logits of the held-out prompts on the way; the step and temperature that development chooses."""

    def __init__(self, policy: Policy, rows: dict[str, list[Row]]) -> None:
        self.policy, self.rows = policy, [*rows["dev"], *rows["test"]]
        self.dev = len(rows["dev"])
        self.seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(self, step: int) -> None:
        """Keep the logits of this step."""
        self.policy.model.eval()
        self.seen[step] = logits(self.policy, self.rows)

    def log_q(self, step: int, temperature: float) -> torch.Tensor:
        """The answer distributions, (B, 101)."""
        return answers(self.policy, *self.seen[step], temperature)

    def result(self) -> dict[str, Any]:
        """For each metric: the best step and temperature on development, and the test values there."""
        found = {}
        for step in self.seen:
            for t in TEMPERATURES:
                names = [m for m in CHOSEN if m != "maj@16" or t <= 1]  # a vote has no use for a hotter sampler
                found[step, t] = values(self.log_q(step, t)[: self.dev], self.rows[: self.dev], names)
        out: dict[str, Any] = {"chosen": {}, "trajectory": {}}
        test = functools.cache(self.test)
        for metric in CHOSEN:
            step, t = max((s for s in found if metric in found[s]), key=lambda s: found[s][metric])
            out["chosen"][metric] = {"step": step, "T": t, "dev": found[step, t][metric], **test(step, t)}
        for step in self.seen:
            out["trajectory"][step] = found[step, 1.0] | {f"test {k}": v for k, v in test(step, 1.0).items()}
        return out

    def test(self, step: int, t: float) -> dict[str, float]:
        """Test values, and the KL divergence to the start in nats."""
        q, start = self.log_q(step, t)[self.dev :], self.log_q(0, 1.0)[self.dev :]
        kl = (q.exp() * (q - start)).sum(1).mean().item()
        return values(q, self.rows[self.dev :], SHOWN + ["pass@4", "pass@64"]) | {"kl": kl}


def sft(policy: Policy, rows: list[Row], arm: Arm, rate: float, steps: int, seed: int, folder: Path, call: Any) -> None:
    """Supervised steps in place."""
    from datasets import Dataset

    from operant.hf import AlignedSFTConfig, AlignedSFTTrainer

    targets = policy.tokenizer([f"{row.label:02d}" for row in rows])["input_ids"]
    pairs = zip(tokens(policy, rows), targets, strict=True)
    data = Dataset.from_list([{"input_ids": p + t, "labels": [-100] * len(p) + t} for p, t in pairs])
    settings = FIXED | arm.settings | {"lr_scheduler_type": "linear", "per_device_train_batch_size": 200}
    settings |= {"seed": seed, "data_seed": seed, "max_steps": steps, "learning_rate": rate}
    args = AlignedSFTConfig(str(folder), strategy=arm.strategy, **settings)
    run(AlignedSFTTrainer(policy.model, args, processing_class=policy.tokenizer, train_dataset=data), call)


def rl(policy: Policy, rows: list[Row], arm: Arm, rate: float, steps: int, seed: int, folder: Path, call: Any) -> None:
    """RL steps in place."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from operant.hf import AlignedGRPOConfig, AlignedGRPOTrainer

    def right(completions: list[str], label: list[int], **_: Any) -> list[AnsweredReward]:
        """1 for the label; graded: how close the answer is."""
        found = []
        for text, y in zip(completions, label, strict=True):
            answer = int(text) if len(text) == 2 and text.isdigit() else None
            gap = math.inf if answer is None else min((answer - y) % 100, (y - answer) % 100)
            reward = 1 / (1 + gap) if arm.graded else float(gap == 0)
            found.append(AnsweredReward(reward, None if answer is None else str(answer)))
        return found

    right.equivalent = operator.eq  # answers that are the same are one vote
    settings = FIXED | {"lr_scheduler_type": "constant_with_warmup"} | arm.settings
    settings |= {"output_dir": str(folder), "seed": seed, "max_steps": steps}
    settings |= {"learning_rate": rate, "num_generations": arm.rollouts, "max_completion_length": 2}
    settings |= {"per_device_train_batch_size": arm.prompts * arm.rollouts}
    trainer, args = {
        "rl": lambda: (AlignedGRPOTrainer, AlignedGRPOConfig(strategy=arm.strategy, **settings)),
        "grpo": lambda: (GRPOTrainer, GRPOConfig(**settings)),
        "dr_grpo": lambda: (GRPOTrainer, GRPOConfig(loss_type="dr_grpo", scale_rewards="none", **settings)),
        "rloo": lambda: (RLOOTrainer, RLOOConfig(**{"beta": 0.0} | settings)),
    }[arm.method]()
    data = Dataset.from_list([{"prompt": row.prompt, "label": row.label} for row in rows])
    run(trainer(policy.model, [right], args, processing_class=policy.tokenizer, train_dataset=data), call)


def run(trainer: Any, call: Any) -> None:
    """Train, quietly, and call ``call(step)`` after each step; True ends the training."""
    from transformers import PrinterCallback, TrainerCallback

    class AfterStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop |= bool(call(state.global_step))
            trainer.model.train()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(AfterStep())
    trainer.train()
    trainer.model.__dict__.pop("forward", None)  # Accelerate's, which would compute with these weights in a copy


def warm_start(folder: Path, name: str, task: Task, seed: int) -> Path:
    """SFT on prompts of their own: where every arm of a seed starts."""
    place = folder / "warm" / f"{name} {seed}"
    if not (place / "config.json").is_file():
        policy, rows = fresh_model(task, seed), split(task)

        def there(step: int) -> bool:
            if step % 10 or task.start == 1:
                return False
            policy.model.eval()
            log_q = answers(policy, *logits(policy, rows["dev"]), 1.0)
            return values(log_q, rows["dev"], ["pass@1"])["pass@1"] >= task.start

        sft(
            policy, rows["warm"], Arm("sft", task.warm), task.warm_rate, task.warm_steps, seed, place / "trainer", there
        )
        policy.save(place)
    return place


def job(folder: Path, key: dict[str, Any], task: Task, arm: Arm) -> dict[str, Any]:
    """One arm, one rate, one seed."""
    quiet()
    begin, rows = time.process_time(), split(task)
    place = folder / "warm" / f"{key['task']} {key['seed']}"
    policy = load_policy(str(place), device="cpu")
    watch = Watch(policy, rows)
    watch.look(0)
    call = lambda step: watch.look(step) if step % (task.steps // EVALUATIONS) == 0 else None  # noqa: E731
    train = sft if task.method == "sft" else rl
    train(policy, rows["train"], arm, key["rate"], task.steps, 100 + key["seed"], folder / "trainer", call)
    return rounded(key | watch.result() | {"cpu_seconds": time.process_time() - begin})


def rounded(x: Any) -> Any:
    """Numbers with five digits after the point: results are committed."""
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    return round(x, 5) if isinstance(x, float) else x


def fits(task: Task, arm: Arm) -> bool:
    """Whether an arm's method is the task's."""
    return (arm.method == "sft") == (task.method == "sft")


def wanted(stage: str, lines: list[dict[str, Any]], args: argparse.Namespace) -> list[tuple[str, str, float, int]]:
    """Task, arm, rate and seed of every run of a stage."""
    runs = []
    for t in args.tasks:
        arms = [a for a in args.arms if fits(TASKS[t], ARMS[a])]
        if stage == "fresh":
            runs += [(t, a, r, s) for s in FRESH[: args.fresh] for a, r in carried(lines, t) if a in arms]
        elif stage == "tune":
            arms = [a for a in promoted(lines, t) if a in arms]
            runs += [(t, a, r, s) for a in arms for r in args.rates or ARMS[a].rates for s in args.seeds or SCREEN]
        else:
            seeds = args.seeds or SCREEN[:1]
            runs += [(t, a, r, s) for a in arms for r in args.rates or ARMS[a].rates[1:2] for s in seeds]
    return runs


def carry_out(pool: Executor, folder: Path, keys: list[dict[str, Any]], label: str) -> None:
    """Warm starts that are missing, then a line of results.jsonl for each key; a key may hold ``steps`` of its own."""
    warm = sorted({(k["task"], k["seed"]) for k in keys})
    for future in [pool.submit(warm_start, folder, t, TASKS[t], s) for t, s in warm]:
        future.result()
    tasks = [replace(TASKS[k["task"]], steps=k.get("steps", TASKS[k["task"]].steps)) for k in keys]
    futures = [pool.submit(job, folder, k, t, ARMS[k["arm"]]) for k, t in zip(keys, tasks, strict=True)]
    for n, future in enumerate(as_completed(futures), 1):
        row = future.result()
        append_record(folder / "results.jsonl", "run", **row)
        print(label, f"{n}/{len(keys)}", *(row[k] for k in KEY), end="  ")
        print({m: round(100 * row["chosen"][m][m], 1) for m in CHOSEN}, flush=True)


def main() -> None:
    """Run what results.jsonl lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, help="screening seeds (0, then 0 and 1)")
    parser.add_argument("--rates", nargs="+", type=float, help="learning rates in the place of an arm's own")
    parser.add_argument("--fresh", type=int, default=5, help="number of fresh seeds")
    parser.add_argument("--quick", action="store_true", help="two tasks, ten arms, one rate, one seed: four minutes")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    if args.quick:
        args.stage, args.tasks, args.arms = ["screen"], QUICK_TASKS, QUICK_ARMS
    file = args.folder / "results.jsonl"
    with worker_pool(args.jobs, threads=1) as pool:
        for stage in args.stage:
            lines = read_records(file) if file.is_file() else []
            done = {(r["task"], r["arm"], r["rate"], r["seed"]) for r in lines}
            keys = [key for key in dict.fromkeys(wanted(stage, lines, args)) if key not in done]
            carry_out(pool, args.folder, [dict(zip(KEY, key, strict=True)) for key in keys], stage)


if __name__ == "__main__":
    main()
