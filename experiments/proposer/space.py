"""Chains of three string programs, their targets in three splits, and exact accuracies of a proposer on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from operant.language import Proposer, TextBank, TextTask, random_words, string_programs

BUDGETS = (1, 4, 16, 64, 256, 1024)
TEMPERATURES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)
LONGEST = 14
"""Characters of a target's output. Longer ones, of two doublings, make a training step twice as slow."""
LETTERS = (4, 6)


@dataclass(frozen=True)
class Prompt:
    """A support set of a target, and every chain that explains it."""

    target: int  # number of the target in its split
    supports: tuple[tuple[str, str], ...]
    chains: np.ndarray  # (C, 3) numbers of programs
    right: np.ndarray  # (C,) whether the chain is the target on all words


@dataclass(frozen=True)
class Space:
    """The bank, the behaviors of depth three that nothing may teach, and the prompts of the splits."""

    bank: TextBank
    held_out: list[TextTask]
    development: list[Prompt]
    test: list[Prompt]
    behaviors: dict[str, int]


def build(taught: int = 10**6, *, development: int = 200, test: int = 400, supports: int = 3, sets: int = 2) -> Space:
    """Hold behaviors out at random, all chains of each; teach ``taught`` of the others and all chains of up to two."""
    seed = 0
    programs = {task.name: task.run for task in string_programs()}
    bank = TextBank.from_functions(programs, random_words(1000, seed=seed, lengths=LETTERS))
    bank = TextBank(bank.tasks, bank.probes[:32])
    words = random_words(96, seed=seed + 1, lengths=LETTERS)
    table = _outputs(bank, words)  # (23, 23, 23, W)
    flat = table.reshape(-1, len(words))
    first: dict[bytes, int] = {}
    shorter = {row.tobytes() for row in _outputs(bank, words, depth=2).reshape(-1, len(words))}
    behavior = np.array([first.setdefault(row.tobytes(), i) for i, row in enumerate(flat)])
    new = [i for key, i in first.items() if key not in shorter]
    sizes = np.array([max(map(len, _INTERNED[row])) for row in flat[new]])
    rng = np.random.default_rng(seed)
    short = rng.permutation(np.array(new)[sizes <= LONGEST])
    names = list(programs)
    task = {i: TextTask(" > ".join(s := [names[k] for k in _steps(i)]), (), _chain(programs, s), tuple(s)) for i in new}
    splits = [short[:development], short[development : development + test]]
    prompts = [
        [_prompt(t, i, flat, behavior, words, supports, rng) for t, i in enumerate(split) for _ in range(sets)]
        for split in splits
    ]
    rest = short[development + test :]
    out = [task[i] for i in [*splits[0], *splits[1], *rest[taught:], *np.array(new)[sizes > LONGEST]]]
    counts = {"depth 3": len(new), "short": len(short), "taught": len(rest[:taught])}
    return Space(bank, out, *prompts, counts)


def explained(proposer: Proposer, prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
    """(T, P) each: exact probabilities that a draw explains the supports, and that it is the target."""
    policy, names = proposer.policy_, [task.name for task in proposer.bank_]
    token = np.array([policy.tokenizer(f"<{name}>")["input_ids"][0] for name in names])
    rows = [
        (p, [*policy.tokenizer(_text(prompt))["input_ids"], *token[chain[::-1]].tolist()])
        for p, prompt in enumerate(prompts)
        for chain in prompt.chains
    ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][1]))
    log_p = np.zeros((len(TEMPERATURES), len(rows)))
    was = policy.model.training
    policy.model.eval()
    with torch.inference_mode():
        for at in range(0, len(order), 128):
            some = order[at : at + 128]
            size = torch.tensor([len(rows[i][1]) for i in some])
            ids = torch.zeros(len(some), int(size.max()), dtype=torch.long)
            for j, i in enumerate(some):
                ids[j, : size[j]] = torch.tensor(rows[i][1])
            places = size[:, None] - 4 + torch.arange(3)
            hidden = policy.model.model(input_ids=ids).last_hidden_state  # causal: padding on the right is not seen
            logits = policy.model.lm_head(hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))).double()
            target = ids.gather(1, places + 1)[..., None]
            for t, temperature in enumerate(TEMPERATURES):
                log_p[t, some] = (logits / temperature).log_softmax(-1).gather(-1, target).sum((1, 2)).numpy()
    policy.model.train(was)
    found = np.zeros((2, len(TEMPERATURES), len(prompts)))
    right = np.concatenate([prompt.right for prompt in prompts])
    owner = np.array([p for p, _ in rows])
    for which, mask in enumerate((np.ones(len(rows), bool), right)):
        np.add.at(found[which].T, owner[mask], np.exp(log_p[:, mask]).T)
    return found[0], found[1]


def accuracy(explains: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """P(the first of k draws that explains the supports is the target), elementwise."""
    return np.divide(right, explains, out=np.zeros_like(right), where=explains > 0) * -np.expm1(k * np.log1p(-explains))


def blind(space: Space, k: int) -> float:
    """Accuracy of a search that runs k random chains of the 12,167 and returns the first that explains, in points."""
    return 100 * float(np.mean([p.right.mean() * (1 - _none(len(p.chains), k)) for p in space.test]))


def _none(good: int, k: int, space: int = 23**3) -> float:
    """P(no good chain among k drawn without replacement)."""
    return float(np.prod(1 - good / (space - np.arange(min(k, space - good + 1)))))


_NUMBER: dict[str, int] = {}
_INTERNED: np.ndarray = np.empty(0, dtype=object)


def _outputs(bank: TextBank, words: Sequence[str], depth: int = 3) -> np.ndarray:
    """(23, ..., 23, W) numbers of the outputs of all chains."""
    global _INTERNED
    known: dict[tuple[int, str], str] = {}
    runs = [task.run for task in bank]

    def run(k: int, x: str) -> str:
        if (k, x) not in known:
            known[k, x] = runs[k](x)
        return known[k, x]

    level = [tuple(words)]
    for _ in range(depth):
        level = [tuple(run(k, x) for x in row) for row in level for k in range(len(runs))]
    table = np.array([[_NUMBER.setdefault(x, len(_NUMBER)) for x in row] for row in level], dtype=np.int32)
    _INTERNED = np.array(list(_NUMBER), dtype=object)
    return table.reshape(*[len(runs)] * depth, len(words))


def _steps(i: int) -> tuple[int, int, int]:
    return i // 529, i // 23 % 23, i % 23


def _chain(programs: dict, steps: Sequence[str]):
    def run(x: str) -> str:
        for name in steps:
            x = programs[name](x)
        return x

    return run


def _prompt(t: int, i: int, flat: np.ndarray, behavior: np.ndarray, words: list[str], size: int, rng) -> Prompt:
    places = rng.choice(len(words), size, replace=False)
    chains = np.flatnonzero((flat[:, places] == flat[i, places]).all(1))
    shown = tuple((words[j], str(_INTERNED[flat[i, j]])) for j in places)
    return Prompt(t, shown, np.array([_steps(c) for c in chains]), behavior[chains] == i)


def _text(prompt: Prompt) -> str:
    return "".join(f"{x}\t{y}\n" for x, y in prompt.supports)
