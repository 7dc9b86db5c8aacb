"""Train a model that may call a calculator, for a deployed strategy, over whole conversations with several turns.

    python examples/calculator.py Qwen/Qwen3-0.6B runs/calculator

The model needs a chat template with tool calls, such as Qwen3's. docs/howto/tools.md explains what is trained.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from datasets import Dataset

from operant.hf import AlignedGRPOConfig, AlignedGRPOTrainer, VerifierReward
from operant.verify import make_verifier


def multiply(a: int, b: int) -> int:
    """Multiply two integers.

    Args:
        a: The first factor.
        b: The second factor.

    Returns:
        The product.
    """
    return a * b


def questions(count: int, seed: int = 0) -> Dataset:
    """Products of three numbers: two calls of the calculator."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        a, b, c = (draw.randint(12, 99) for _ in range(3))
        text = f"What is {a} * {b} * {c}? Use the tool, and end with the number in \\boxed{{}}."
        rows.append({"prompt": [{"role": "user", "content": text}], "target": str(a * b * c)})
    return Dataset.from_list(rows)


def trainer_of(
    model: Any, folder: str, *, count: int = 2000, verifier: str = "math", **settings: Any
) -> AlignedGRPOTrainer:
    """The trainer: TRL's GRPO with tools, and the credit of the strategy for each conversation.

    Args:
        model: folder or Hub id, or a model (then pass processing_class too).
        folder: of the checkpoints.
        count: number of questions.
        verifier: what judges the last message of each conversation.
        settings: fields of AlignedGRPOConfig, and processing_class.
    """
    tokenizer = settings.pop("processing_class", None)
    chosen: dict[str, Any] = {
        "strategy": "pass@4",
        "num_generations": 8,
        "max_completion_length": 512,  # tokens of all turns together, the tool's answers included
        "max_tool_calling_iterations": 4,
        "learning_rate": 1e-6,
        "max_steps": 200,
    }
    return AlignedGRPOTrainer(
        model,
        [VerifierReward(make_verifier(verifier))],
        AlignedGRPOConfig(output_dir=folder, **chosen | settings),
        train_dataset=questions(count),
        processing_class=tokenizer,
        tools=[multiply],
    )


if __name__ == "__main__":
    trainer = trainer_of(sys.argv[1], sys.argv[2])
    trainer.train()
    trainer.save_model(f"{sys.argv[2]}/model")
