"""What training for a strategy costs beside the usual trainers: time of a step, and memory. One thread, CPU.

    python benchmarks/training.py                          # a 100k-parameter Llama, some minutes
    python benchmarks/training.py --model PATH --steps 6   # a model folder or a Hub id
    python benchmarks/training.py --only long --steps 3    # SFT on long prompts, vocabulary 49,152

``grpo``, ``rloo`` and ``sft`` compare with TRL's trainers. ``long`` compares SFT on prompts of 1,024 tokens and answers
of 64 with transformers' own trainer, which computes the logits of every position; ``long-trl`` with TRL's, whose fused
head leaves out the prompts as well. Their model is a Llama of 13 million parameters, most of them in its vocabulary.

Both trainers of a pair take as many steps on the same data, in turns: stock, aligned, stock, aligned, each run in a
process of its own. The ratio is of the fastest steps of two runs in a row, which a busy machine disturbs least; the
table has its median and range over the turns. The first step of a run warms up and does not count. Sampling is part of
a step, and all completions have one length, so both generate as many tokens; TRL's SFT step also takes the entropy and
the token accuracy for its log. Times are CPU seconds of the process, memory is what training added to its largest
resident set, the median over runs. A step of the 100k-parameter model takes a tenth of a second, and repeats to some
percent only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

GOALS = {"grpo": (1.02, 1.02), "rloo": (1.02, 1.02), "sft": (1.02, 1.02), "long": (0.7, 0.4), "long-trl": (1.02, 1.02)}
"""Most that the ratio to the stock trainer should be, of time and of memory."""
LONG = {"vocabulary": 49_152, "prompt": 1024, "answer": 64, "batch": 4}
COMMON: dict[str, Any] = dict(
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    learning_rate=1e-5,
    lr_scheduler_type="constant",
    logging_steps=1000,
    save_strategy="no",
    seed=0,
)


@dataclass(frozen=True)
class Size:
    """The work of one step."""

    model: str
    steps: int
    rollouts: int = 64
    group: int = 16
    length: int = 16
    rows: int = 32


@dataclass(frozen=True)
class Row:
    """CPU seconds of the fastest step and MiB of growth, of the stock trainer and of ours, and the ratios by turn."""

    name: str
    stock: float
    ours: float
    ratios: list[float]
    stock_memory: float
    our_memory: float


def long_trainer(stock: str, aligned: bool, size: Size, folder: str) -> Any:
    """SFT on random tokens, of a Llama whose logits are large: ours, or transformers' or TRL's own."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainingArguments
    from trl import SFTConfig, SFTTrainer

    from operant.hf import AlignedSFTConfig, AlignedSFTTrainer, load_policy

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=LONG["vocabulary"],
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=8,
        num_attention_heads=6,
        tie_word_embeddings=True,
    )
    embedded = load_policy("embedded", seed=0, device="cpu")
    model: Any = AutoModelForCausalLM.from_config(shape)
    if size.model != "embedded":
        model = load_policy(size.model, seed=0, device="cpu", dtype=torch.float32, trainable=True).model
    length = LONG["prompt"] + LONG["answer"]
    tokens = torch.randint(3, model.config.vocab_size, (LONG["batch"] * (size.steps + 1), length)).tolist()
    labels = [[-100] * LONG["prompt"] + row[LONG["prompt"] :] for row in tokens]
    data = Dataset.from_dict({"input_ids": tokens, "attention_mask": [[1] * length] * len(tokens), "labels": labels})
    common: dict[str, Any] = COMMON | {
        "output_dir": folder,
        "max_steps": size.steps + 1,
        "per_device_train_batch_size": LONG["batch"],
    }
    if aligned:
        settings: Any = AlignedSFTConfig(strategy="pass@16", **common)
        return AlignedSFTTrainer(model, settings, train_dataset=data, processing_class=embedded.tokenizer)
    if stock == "trl":
        settings = SFTConfig(max_length=None, **common)
        return SFTTrainer(model, settings, train_dataset=data, processing_class=embedded.tokenizer)
    return Trainer(model, TrainingArguments(**common), train_dataset=data)


def trainer(pair: str, aligned: bool, size: Size, folder: str) -> Any:
    """One of the trainers, on a model of its own."""
    if pair.startswith("long"):
        return long_trainer("trl" if pair.endswith("trl") else "transformers", aligned, size, folder)
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer

    from operant.hf import (
        AlignedGRPOConfig,
        AlignedGRPOTrainer,
        AlignedRLOOConfig,
        AlignedRLOOTrainer,
        AlignedSFTConfig,
        AlignedSFTTrainer,
        DataConfig,
        encode,
        load_policy,
    )
    from operant.hf.rollouts.prompts import multiplication

    policy = load_policy(size.model, seed=0, device="cpu")
    prompts = multiplication(0)[0][: size.rows * 4]
    common: dict[str, Any] = COMMON | {"output_dir": folder, "max_steps": size.steps + 1}
    model: dict[str, Any] = {"model": policy.model, "processing_class": policy.tokenizer}
    if pair == "sft":
        encoded = encode(policy, prompts, DataConfig(chat=False), 512)
        rows = [{"input_ids": e.prompt + e.target, "labels": [-100] * len(e.prompt) + e.target} for e in encoded]
        common |= {"per_device_train_batch_size": size.rows, "max_length": None}
        data = Dataset.from_list(rows)
        if aligned:
            return AlignedSFTTrainer(train_dataset=data, args=AlignedSFTConfig(strategy="pass@16", **common), **model)
        return SFTTrainer(train_dataset=data, args=SFTConfig(**common), **model)
    common |= {
        "per_device_train_batch_size": size.rollouts,
        "num_generations": size.group,
        "max_completion_length": size.length,
        "generation_kwargs": {"min_new_tokens": size.length},
        "beta": 0.0,
    }
    model |= {"reward_funcs": [parity], "train_dataset": Dataset.from_dict({"prompt": [p.text for p in prompts]})}
    if pair == "grpo" and aligned:
        return AlignedGRPOTrainer(args=AlignedGRPOConfig(strategy=f"pass@{size.group // 2}", **common), **model)
    if pair == "grpo":
        return GRPOTrainer(args=GRPOConfig(loss_type="dr_grpo", scale_rewards="none", **common), **model)
    if aligned:
        return AlignedRLOOTrainer(args=AlignedRLOOConfig(strategy=f"pass@{size.group // 2}", **common), **model)
    return RLOOTrainer(args=RLOOConfig(**common), **model)


def parity(completions: Sequence[str], **_: Any) -> list[float]:
    """A reward that costs nothing and leaves few groups dead."""
    return [float(sum(map(ord, c)) % 2) for c in completions]


def measure(pair: str, aligned: bool, size: Size) -> tuple[list[float], float]:
    """CPU seconds of every step but the first, and MiB that the run added to the resident set's peak."""
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(1)

    class Clock(TrainerCallback):
        """Notes when a step ends."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        built, clock = trainer(pair, aligned, size, folder), Clock()
        built.add_callback(clock)
        before = peak()
        built.train()
    return [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)], peak() - before


def peak() -> float:
    """Largest resident set so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(pair: str, size: Size, runs: int) -> Row:
    """Stock and aligned in turns, each run in a process of its own."""
    found: dict[bool, list[tuple[list[float], float]]] = {False: [], True: []}
    for turn in range(2 * runs):
        aligned = turn % 2 == 1
        job = json.dumps([pair, aligned, vars(size)])
        out = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "--job", job], stdout=subprocess.PIPE, text=True, check=True
        )
        found[aligned].append(json.loads(out.stdout.splitlines()[-1]))
    stock, ours = ([min(times) for times, _ in found[k]] for k in (False, True))
    memory = [statistics.median([m for _, m in found[k]]) for k in (False, True)]
    ratios = [y / x for x, y in zip(stock, ours, strict=True)]
    return Row(pair, min(stock), min(ours), ratios, *memory)


def table(rows: Sequence[Row]) -> None:
    """Times and memory beside the stock trainers'."""
    print(f"{'':10}{'step, stock':>13}{'aligned':>12}{'ratio':>8}{'turns':>14}{'goal':>6}", end="")
    print(f"{'MiB, stock':>13}{'aligned':>10}{'ratio':>8}{'goal':>6}")
    for r in rows:
        time_goal, memory_goal = GOALS[r.name]
        turns = f"{min(r.ratios):.2f} to {max(r.ratios):.2f}"
        print(
            f"{r.name:10}{r.stock * 1e3:10.1f} ms{r.ours * 1e3:9.1f} ms{statistics.median(r.ratios):8.3f}{turns:>14}"
            f"{time_goal:6.2f}{r.stock_memory:13.1f}{r.our_memory:10.1f}"
            f"{r.our_memory / max(r.stock_memory, 1):8.3f}{memory_goal:6.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="model folder or Hub id")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=tuple(GOALS))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        pair, aligned, size = json.loads(options.job)
        print(json.dumps(measure(pair, aligned, Size(**size))))
        return
    size = Size(options.model, options.steps)
    if options.model != "embedded":
        size = Size(options.model, options.steps, rollouts=16, group=8, length=16, rows=4)
    table([compare(pair, size, options.runs) for pair in GOALS if options.only in (None, pair)])


if __name__ == "__main__":
    main()
