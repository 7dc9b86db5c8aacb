"""Four arithmetic tasks in which a strategy could matter, and the exact answer distribution of a model on them.

An answer has two digits, so a model's distribution over all hundred answers is known: first the digits after the
prompt, then the digits after each first digit. Every value of the tables is exact for its prompts, at any temperature.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from operant import BestOf, Majority, Outcomes
from operant.estimators import expected_value
from operant.hf import Policy, load_policy

TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0)
BUDGETS = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class Row:
    """A prompt; what is taught for it, which noise may have changed; the truth."""

    prompt: str
    label: int
    truth: int


@dataclass(frozen=True)
class Task:
    """A task with its start.

    Args:
        method: "sft" or "rl".
        sign: "+", "-", "*" or "/" (ten times the quotient).
        digits: of an operand. Two digits have 8,100 prompts, three have data without end.
        shift: the answer is the result without its last ``shift`` digits, modulo 100.
        rows: labeled prompts that training repeats.
        hidden: size of the model.
        warm_steps: steps of SFT before any arm, on prompts that no arm sees again.
        warm: strategy of the warm start: pass@1 is cross-entropy.
        warm_rate: its learning rate.
        start: share of right answers on the development prompts at which the warm start ends early.
        wrong: share of the labels that are wrong: another answer, the same each time.
        steps: of an arm.
    """

    method: Literal["sft", "rl"]
    sign: str = "+"
    digits: int = 2
    shift: int = 0
    rows: int = 3000
    hidden: int = 32
    warm_steps: int = 100
    warm: str = "pass@1"
    warm_rate: float = 4e-3
    start: float = 1.0
    wrong: float = 0.0
    steps: int = 200


WARM_ROWS, DEV, TEST = 3000, 250, 500


def split(task: Task) -> dict[str, list[Row]]:
    """Disjoint prompts for the warm start, training, development and test; the same for every seed and arm."""
    rng = random.Random(0)
    low, high = 10 ** (task.digits - 1), 10**task.digits
    size = WARM_ROWS + task.rows + DEV + TEST
    pairs = [(k // (high - low) + low, k % (high - low) + low) for k in rng.sample(range((high - low) ** 2), size)]
    rows = []
    for a, b in pairs:
        truth = {"+": a + b, "-": a - b, "*": a * b, "/": 10 * a // b}[task.sign] // 10**task.shift % 100
        wrong = rng.random() < task.wrong
        rows.append(Row(f"{a}{task.sign}{b}=", rng.randrange(100) if wrong else truth, truth))
    test, dev, warm = rows[:TEST], rows[TEST : TEST + DEV], rows[TEST + DEV : TEST + DEV + WARM_ROWS]
    return {"test": test, "dev": dev, "warm": warm, "train": rows[TEST + DEV + WARM_ROWS :]}


def fresh_model(task: Task, seed: int) -> Policy:
    """A Llama over characters with random weights."""
    tokenizer = load_policy("embedded").tokenizer
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=task.hidden,
        intermediate_size=4 * task.hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Policy(LlamaForCausalLM(config), tokenizer)


def tokens(policy: Policy, rows: Sequence[Row]) -> list[list[int]]:
    """The prompts as tokens, all of one length."""
    return [policy.tokenizer(row.prompt)["input_ids"] for row in rows]


@torch.no_grad()
def logits(policy: Policy, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Logits of the first token, (B, V), and of the second after each first digit, (B, 10, V)."""
    digits = policy.tokenizer("0123456789")["input_ids"]
    texts = torch.tensor([prompt + [d] for prompt in tokens(policy, rows) for d in digits])
    out = torch.cat([policy.model(part).logits[:, -2:] for part in texts.split(2500)])
    out = out.view(len(rows), 10, 2, -1)
    return out[:, 0, 0], out[:, :, 1]


def answers(policy: Policy, first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of the answers 00 to 99 and of everything else, (B, 101)."""
    digits = policy.tokenizer("0123456789")["input_ids"]
    a = (first.double() / temperature).log_softmax(-1)[:, digits]
    b = (second.double() / temperature).log_softmax(-1)[:, :, digits]
    known = (a[:, :, None] + b).flatten(1)
    rest = (1 - known.exp().sum(1, keepdim=True)).clamp_min(1e-12).log()
    return torch.cat([known, rest], 1).clamp_min(-60.0)


def closeness(truth: Tensor) -> Tensor:
    """Graded reward of every answer, (B, 101): 1 / (1 + distance to the truth on the circle of 100); 0 for the rest."""
    gap = (torch.arange(100) - truth[:, None]).abs()
    return torch.cat([1 / (1 + torch.minimum(gap, 100 - gap)), torch.zeros(len(truth), 1)], 1)


def values(log_q: Tensor, rows: Sequence[Row], names: Sequence[str]) -> dict[str, float]:
    """Means over prompts of pass@k, maj@16, best@k (of the graded reward) and entropy.

    Args:
        log_q: (B, 101) from :func:`answers`.
        rows: the prompts.
        names: which values.
    """
    truth = torch.tensor([row.truth for row in rows])
    p, found = log_q.gather(1, truth[:, None])[:, 0].exp(), {}
    kinds = torch.arange(101).expand(len(rows), -1)
    right = torch.nn.functional.one_hot(truth, 101).double()
    for name in names:
        kind, _, n = name.partition("@")
        if kind == "pass":
            value = -torch.expm1(int(n) * torch.log1p(-p.clamp_max(1 - 1e-12)))
        elif kind == "best":
            value = expected_value(BestOf(int(n)), log_q, Outcomes(closeness(truth)))
        elif kind == "maj":
            parts = zip(log_q.split(100), right.split(100), kinds.split(100), strict=True)
            value = torch.cat([expected_value(Majority(int(n)), q, Outcomes(r, a)) for q, r, a in parts])
        else:
            value = -(log_q.exp() * log_q).sum(1)
        found[name] = value.mean().item()
    return found
