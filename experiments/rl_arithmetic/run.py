"""RL for the strategy that is deployed, beside standard GRPO: same warm start, same prompts, same steps.

    python experiments/rl_arithmetic/run.py experiments/rl_arithmetic/sums.yaml runs/sums --jobs 2
    operant report runs/sums

Finished arms are kept: the same command continues a run that was stopped.
"""

import json
import operator
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import auto_cli

from operant.core.record import append_record, environment
from operant.hf import (
    AnsweredReward,
    Column,
    DataConfig,
    pass_at,
    quiet,
    summary,
    worker_pool,
    write_job,
    write_prompts,
)
from operant.strategies import BestOf, Majority, Outcomes, curve, parse
from operant.verify import Prompt

FIXED = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True}
FIXED |= {"save_strategy": "no", "lr_scheduler_type": "constant_with_warmup", "logging_steps": 10}


def prompts(c: dict) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """Two-digit products or sums: for the warm start, for RL (none of which it has seen), held out."""
    sign, calculate = ("*", operator.mul) if c["task"] == "products" else ("+", operator.add)
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    random.Random(0).shuffle(pairs)
    rows = [Prompt(i, f"{a}{sign}{b}=", str(calculate(a, b))) for i, (a, b) in enumerate(pairs)]
    return rows[: c["warm_prompts"]], rows[c["warm_prompts"] : -c["test_prompts"]], rows[-c["test_prompts"] :]


def correct(text: str, target: str) -> float:
    """1 for the answer."""
    return float(text == target)


def digits(text: str, target: str) -> float:
    """Share of the places that are right: what a graded scorer sees."""
    return sum(a == b for a, b in zip(text, target, strict=False)) / max(len(text), len(target))


def run_arm(folder: Path, seed: int, name: str, arm: dict, c: dict) -> None:
    """Train one arm (or the warm start), and evaluate it on the held-out prompts."""
    quiet()
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback, TrainerCallback

    from operant.hf import (
        AlignedGRPOConfig,
        AlignedGRPOTrainer,
        AlignedSFTConfig,
        AlignedSFTTrainer,
        answer_log_probs,
        encode,
        load_policy,
    )

    warm, train, test = prompts(c)
    settings = FIXED | {"output_dir": str(folder), "seed": seed}
    start = "embedded" if name == "warm" else str(folder.parent / "warm" / "model")
    policy = load_policy(start, seed=seed, device="cpu")
    shared = {"model": policy.model, "processing_class": policy.tokenizer}
    if name == "warm":
        rows = [(r.prompt, r.target) for r in encode(policy, warm, DataConfig(), 32)]
        data = Dataset.from_list([{"input_ids": p + t, "labels": [-100] * len(p) + t} for p, t in rows])
        args = AlignedSFTConfig(strategy="pass@1", **settings, **c["warm"])
        trainer = AlignedSFTTrainer(train_dataset=data, args=args, **shared)
    else:
        score = digits if arm.get("graded") else correct

        def verifier(completions: list[str], target: list[str], **_: object) -> list[AnsweredReward]:
            return [AnsweredReward(score(text, t), text or None) for text, t in zip(completions, target, strict=True)]

        verifier.equivalent = operator.eq
        data = Dataset.from_list([{"prompt": p.text, "target": p.target} for p in train])
        settings |= c["rl"] | arm.get("rl", {})
        args = AlignedGRPOConfig(strategy=arm["strategy"], form=arm.get("form", "exact"), **settings)
        trainer = AlignedGRPOTrainer(reward_funcs=[verifier], train_dataset=data, args=args, **shared)
    held_out = encode(policy, test, DataConfig(), 32)

    class Curve(TrainerCallback):
        """Exact pass@k of the held-out prompts on the way."""

        def on_step_end(self, args: object, state: Any, control: object, **_: object) -> None:
            if state.global_step % c["every"] == 0 and state.global_step < state.max_steps:
                columns = pass_at(answer_log_probs(policy, held_out, batch_size=500), c["budgets"])
                append_record(folder / "record.jsonl", "evaluation", step=state.global_step, curve=summary(columns))

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Curve())
    (folder / "record.jsonl").unlink(missing_ok=True)  # of a run that was stopped
    trainer.train()
    columns = evaluate(policy, test, c)
    policy.save(folder / "model")
    role, strategy = "warm" if name == "warm" else "branch", arm.get("strategy", "pass@1")
    baseline = arm.get("baseline", False)
    write_job(folder, seed=seed, branch=name, role=role, strategy=parse(strategy), baseline=baseline)
    (folder / "history.json").write_text(json.dumps(trainer.state.log_history), encoding="utf-8")
    append_record(folder / "record.jsonl", "evaluation", step=trainer.state.global_step, curve=summary(columns))
    write_prompts(folder, [p.id for p in test], columns)


def evaluate(policy: object, test: list[Prompt], c: dict) -> dict:
    """Exact pass@k; maj@k and best@k (of the graded score) from rollouts."""
    from operant.hf import RolloutSettings, answer_log_probs, encode, sample

    rows, m = encode(policy, test, DataConfig(), 32), c["rollouts"]
    columns = pass_at(answer_log_probs(policy, rows, batch_size=500), c["budgets"])
    chunks = sample(policy, rows, RolloutSettings(m, max_new_tokens=5, batch_size=150))
    texts = [policy.text(t) for chunk in chunks for t in chunk]
    groups = [texts[i * m : (i + 1) * m] for i in range(len(test))]
    pairs = [[(text, p.target) for text in g] for g, p in zip(groups, test, strict=True)]
    right, graded = (torch.tensor([[f(*pair) for pair in g] for g in pairs]) for f in (correct, digits))
    votes = torch.tensor([[[-1, *set(g)].index(t) if t else -1 for t in g] for g in groups])
    budgets = [k for k in c["budgets"] if k < m]
    for s, o in ((Majority(1), Outcomes(right, votes)), (BestOf(1), Outcomes(graded))):
        for k, x in zip(budgets, curve(s, o, budgets).per_prompt.T, strict=True):
            columns[str(s.at_budget(k))] = Column.of(s.at_budget(k), x.double())
    return columns


def main(settings: Path, output_dir: Path, jobs: int = 1) -> None:
    """Run what is not done of a settings file."""
    c = yaml.safe_load(settings.read_text(encoding="utf-8"))
    append_record(output_dir / "record.jsonl", "run", command="train", name=output_dir.name, config=c)
    append_record(output_dir / "record.jsonl", "environment", **environment())
    with worker_pool(jobs, threads=1) as pool:
        for arms in ({"warm": {}}, c["arms"]):
            todo = [(output_dir / f"seed{s}" / a, s, a, arms[a], c) for a in arms for s in c["seeds"]]
            for future in [pool.submit(run_arm, *t) for t in todo if not (t[0] / "prompts.jsonl").is_file()]:
                future.result()


if __name__ == "__main__":
    auto_cli(main)
