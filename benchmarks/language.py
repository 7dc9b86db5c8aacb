"""Candidate scoring: identical texts once, shared prefixes once, batched; beside one forward a candidate and support.

    python benchmarks/language.py   # eight minutes

The 23 string programs and their 360 distinct products are scored on 3 supports by the embedded model, on one thread.
With shots the prompt of a candidate shows demonstrations of its last step, as a model that was not fine-tuned needs.
"Search" leaves the candidates out that the first supports have ruled out. The model is trained for it: the weights of
an untrained one rule nothing out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from operant.language import Compose, LanguageExtrapolator, random_words, string_chains, string_programs
from operant.language.score import encode_texts, log_probs
from operant.language.search import Posterior, exhaustive


@dataclass(frozen=True)
class Sizes:
    """What is scored.

    Args:
        candidates: at most; None for all.
        supports: a target.
        shots: demonstrations in a prompt, a row each.
        hidden: width of the model.
        steps: of its training, with prompts without shots.
    """

    candidates: int | None = None
    supports: int = 3
    shots: tuple[int, ...] = (0, 6)
    hidden: int = 128
    steps: int = 1200


@dataclass(frozen=True)
class Row:
    """CPU seconds a target, the largest difference of a score, and of a posterior weight after the search."""

    shots: int
    texts: int
    single: float
    batched: float
    shared: float
    searched: float
    difference: float
    weights: float


def measure(model: LanguageExtrapolator, shots: int, sizes: Sizes) -> Row:
    """One target: every candidate and support three ways, and the search."""
    bank, policy = model.bank_, model.policy_
    model.relation_ = Compose(shots=shots)
    target, run = string_chains(bank).targets[7], model.executor()
    candidates = model.relation_.candidates(bank)[: sizes.candidates]
    supports = [(x, str(target.output(x))) for x in random_words(sizes.supports, seed=9)]
    pairs = [(model.relation_.prompt(c, x, run), y) for c in candidates for x, y in supports]
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
    found = exhaustive(
        candidates, lambda some, which: model.score(some, [supports[i] for i in which], run), sizes.supports
    )
    searched = time.process_time()
    full = Posterior(found.candidates, shared.numpy().reshape(found.log_p.shape))
    return Row(
        shots,
        len(rows),
        then - began,
        batched - then,
        end - batched,
        searched - end,
        float((single - shared).abs().max()),
        float(np.abs(found.weights() - full.weights()).max()),
    )


def language(sizes: Sizes) -> list[Row]:
    """Print and return the table."""
    model = LanguageExtrapolator(hidden=sizes.hidden, steps=sizes.steps, max_tokens=2000).fit(string_programs(256))
    layout = "{:<7}{:>7}{:>10}{:>10}{:>10}{:>10}{:>14}{:>9}{:>9}{:>12}"
    head = ("shots", "texts", "one each", "batched", "shared", "search", "one/ batched", "shared", "search", "|diff.|")
    print(layout.format(*head))
    rows: list[Row] = []
    for shots in sizes.shots:
        r = measure(model, shots, sizes)
        rows.append(r)
        seconds = (r.single, r.batched, r.shared, r.searched)
        ratios = (f"{r.single / s:.1f}" for s in seconds[1:])
        times = (f"{s:.2f}" for s in seconds)
        print(layout.format(r.shots, r.texts, *times, *ratios, f"{max(r.difference, r.weights):.0e}"), flush=True)
    return rows


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    language(Sizes())


if __name__ == "__main__":
    main()
