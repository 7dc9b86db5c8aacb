"""Pass@16 by the probability of the whole completion, against cross-entropy: do five steps differ at all?"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from datasets import Dataset

from operant import parse
from operant.hf import AlignedSFTConfig, AlignedSFTTrainer, DataConfig, answer_log_probs, encode, load_policy, quiet
from operant.objectives import elasticity
from operant.reproduce import Comparison, write_comparisons
from operant.verify import Prompt

STEPS, ROWS = 5, 16
SAME = 1e-6
"""Weights that differ by less, relative to how far they moved, are equal: float32 has seven digits."""


def trained(strategy: str, prompts: list[Prompt], seed: int, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """How far the weights moved, and the weights of the examples at the start."""
    torch.manual_seed(seed)
    policy = load_policy("embedded", device="cpu")
    rows = encode(policy, prompts, DataConfig(), max_tokens=256)
    start = torch.cat([p.detach().flatten().clone() for p in policy.model.parameters()])
    factor = elasticity(parse(strategy), answer_log_probs(policy, rows, batch_size=ROWS))
    data = [{"input_ids": r.prompt + r.target, "labels": [-100] * len(r.prompt) + r.target} for r in rows]
    args = AlignedSFTConfig(
        str(folder / "trainer"),
        strategy=strategy,
        max_steps=STEPS,
        per_device_train_batch_size=ROWS,
        learning_rate=1e-3,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=seed,
    )
    AlignedSFTTrainer(
        policy.model, args, processing_class=policy.tokenizer, train_dataset=Dataset.from_list(data)
    ).train()
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()]) - start, factor


def main() -> None:
    """Answers of 2 and 100 characters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed in the place of five")
    args = parser.parse_args()
    quiet()
    found: list[Comparison] = []
    for length in (2, 100):
        apart: list[float] = []
        for seed in range(1 if args.quick else 5):
            rng = random.Random(seed)
            texts = ["".join(rng.choices("0123456789", k=length)) for _ in range(ROWS)]
            prompts = [Prompt(i, f"{rng.randrange(100)}*{rng.randrange(100)}=", text) for i, text in enumerate(texts)]
            ce, _ = trained("pass@1", prompts, seed, args.folder)
            ours, factor = trained("pass@16", prompts, seed, args.folder)
            apart.append(float((ours - ce).norm() / ce.norm()))
            weights = f"weights {factor.min():.6f} to {factor.max():.6f}"
            print(f"{length} characters, seed {seed}: apart {apart[-1]:.2e}, {weights}", flush=True)
        mean = sum(apart) / len(apart)
        what = f"answers of {length} characters: distance of the two updates over their length"
        effect = {"effect": mean, "low": min(apart), "high": max(apart), "neutral": SAME, "unit": ""}
        found.append(
            Comparison(what, "pass@16", mean, "cross-entropy", 0.0, **effect, seeds=len(apart), decides=length > 2)
        )
    write_comparisons(args.folder, found)


if __name__ == "__main__":
    main()
