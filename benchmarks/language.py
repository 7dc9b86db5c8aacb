"""Candidate scoring: identical texts once, shared prefixes once, batched; beside one forward a candidate and support.

    python benchmarks/language.py   # three minutes

The 23 string programs and their 360 distinct products are scored on 3 supports by the embedded model, on one thread.
With shots the prompt of a candidate shows demonstrations of its last step, as a model that was not fine-tuned needs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from operant.hf.rollouts.policy import Policy, byte_policy
from operant.language import Compose, random_words, string_chains, string_programs
from operant.language.relations import BankRun
from operant.language.score import encode_texts, log_probs


@dataclass(frozen=True)
class Sizes:
    """What is scored.

    Args:
        candidates: at most; None for all.
        supports: a target.
        shots: demonstrations in a prompt, a row each.
        hidden: width of the model.
    """

    candidates: int | None = None
    supports: int = 3
    shots: tuple[int, ...] = (0, 6)
    hidden: int = 128


@dataclass(frozen=True)
class Row:
    """CPU seconds a target, and the largest difference of a score."""

    shots: int
    texts: int
    single: float
    batched: float
    shared: float
    difference: float


def measure(policy: Policy, shots: int, sizes: Sizes) -> Row:
    """One target: every candidate and support three ways."""
    bank = string_programs(256)
    relation, target = Compose(shots=shots), string_chains(bank).targets[7]
    run = BankRun(bank)
    candidates = relation.candidates(bank)[: sizes.candidates]
    words = random_words(sizes.supports, seed=9)
    pairs = [(relation.prompt(c, x, run), str(target.output(x))) for c in candidates for x in words]
    rows = encode_texts(policy, pairs, max_tokens=2000)
    log_probs(policy, rows[:8])  # warm
    began = time.process_time()
    single = torch.cat([log_probs(policy, [row]) for row in rows])
    then = time.process_time()
    for at in range(0, len(rows), 256):  # pieces: equal texts in different ones are scored again
        log_probs(policy, rows[at : at + 256], share=False)
    batched = time.process_time()
    shared = log_probs(policy, rows)
    end = time.process_time()
    return Row(shots, len(rows), then - began, batched - then, end - batched, float((single - shared).abs().max()))


def language(sizes: Sizes) -> list[Row]:
    """Print and return the table."""
    policy = byte_policy([f"<{t.name}>" for t in string_programs(8)], hidden=sizes.hidden)
    layout = "{:<7}{:>8}{:>12}{:>12}{:>12}{:>9}{:>9}{:>11}"
    print(layout.format("shots", "texts", "one each", "batched", "shared", "ratio", "ratio", "|diff.|"))
    print(layout.format("", "", "s", "s", "s", "one", "batched", ""))
    rows: list[Row] = []
    for shots in sizes.shots:
        r = measure(policy, shots, sizes)
        rows.append(r)
        times = (f"{x:.2f}" for x in (r.single, r.batched, r.shared))
        ratios = (f"{r.single / r.shared:.1f}", f"{r.batched / r.shared:.1f}")
        print(layout.format(r.shots, r.texts, *times, *ratios, f"{r.difference:.0e}"), flush=True)
    return rows


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    language(Sizes())


if __name__ == "__main__":
    main()
