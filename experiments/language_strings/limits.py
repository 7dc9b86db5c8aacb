"""Where the method ends: tasks of another kind, chains of three programs, and a problem that the model runs alone."""

from __future__ import annotations

import argparse
import json
import string
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import ALONE, QUERIES, SUPPORTS, drawn, fitted, score

from operant.core.record import append_record
from operant.language import (
    Candidate,
    Compose,
    FewShotWarning,
    LanguageExtrapolator,
    TextBank,
    gym_ciphers,
    random_words,
    string_chains,
    string_programs,
)

WORDS = sorted(set(random_words(3000, seed=77)) - set(string_programs(4096, shortest=2).inputs))
EVERY = 10**6
"""Candidates: more than there are."""


def others(seed: int) -> dict[str, Callable[[str], str]]:
    """Tasks on words, or on sums, that no pair of programs expresses; ``seed`` draws their keys."""
    rng = np.random.default_rng(seed)
    alphabet = dict(zip(string.ascii_lowercase, rng.permutation(list(string.ascii_lowercase)).tolist(), strict=True))
    orders = {n: rng.permutation(n).tolist() for n in range(30)}
    answers, key = dict(zip(WORDS, rng.permutation(WORDS).tolist(), strict=True)), int(rng.integers(2, 9))
    return {
        "lookup": lambda x: answers[x],
        "sum": lambda x: str(sum(map(int, x.split("+")))),
        "permuted": lambda x: "".join(x[i] for i in orders[len(x)]),
        "substituted": lambda x: "".join(alphabet[c] for c in x),
        "every other": lambda x: x[::2],
        "neighbors swapped": lambda x: "".join(x[i : i + 2][::-1] for i in range(0, len(x), 2)),
        "shifted by place": lambda x: "".join(chr(97 + (ord(c) - 97 + key * i) % 26) for i, c in enumerate(x)),
        "letters counted": lambda x: "".join(f"{c}{x.count(c)}" for c in sorted(set(x))),
    }


def applicability(model: LanguageExtrapolator, out: Path, seed: int, size: int) -> None:
    """What the supports of tasks of other kinds say, run and by the model alone. run.py has the same of the pairs."""
    for instance in range(size // 8):
        rng = np.random.default_rng(instance)
        words = rng.choice(WORDS, SUPPORTS, replace=False).tolist()
        sums = [f"{a}+{b}" for a, b in rng.integers(10, 500, (SUPPORTS, 2)).tolist()]
        for name, run in others(instance).items():
            pairs = [(x, run(x)) for x in (sums if name == "sum" else words)]
            found, alone = model.adapt(pairs).applicability(), model.adapt(pairs, likelihood="model").applicability()
            told = {f"log_p, {ALONE}": alone.log_p, f"refused, {ALONE}": not alone.applies}
            about = {"log_p": found.log_p, "given": found.given, "refused": not found.applies}
            append_record(out, "other", seed=seed, task=name, **about, **told)


@dataclass(frozen=True)
class Chains(Compose):
    """Chains of three, listed once: 12,167 of them are run on 64 probes."""

    def candidates(self, bank: TextBank) -> list[Candidate]:
        """Those of :class:`Compose`."""
        if self.depth not in LISTED:
            LISTED[self.depth] = super().candidates(bank)
        return LISTED[self.depth]


LISTED: dict[int, list[Candidate]] = {}


def depth_three(model: LanguageExtrapolator, bank: TextBank, out: Path, seed: int, size: int) -> None:
    """Chains of three as targets: exhaustive search, beam search and symbolic search with the same supports.

    Both searches are by the model's likelihood; with that of functions, they are symbolic search.
    """
    model.relation_ = Chains(depth=3)
    candidates, targets = model.relation_.candidates(model.bank_), string_chains(bank, depth=3).targets
    for i in np.random.default_rng(6).permutation(len(targets))[:size]:
        supports, queries, truth, _ = drawn(targets[i], WORDS)
        row: dict[str, float] = {"candidates": len(candidates)}
        executor = model.executor()
        outputs = executor.outputs(candidates, [*dict(supports), *queries], execute="run")
        agree = [y[SUPPORTS:] for y in outputs if y[:SUPPORTS] == [y for _, y in supports]]
        true = executor.outputs([Candidate(targets[i].parts)], queries, execute="model")[0]
        row |= score({"symbolic": agree[0] if agree else [None] * QUERIES, "oracle chain": true}, truth)
        for name, limit in (("exhaustive", EVERY), ("beam", 1)):
            model.search_limit, start = limit, time.process_time()
            task = model.adapt(supports, likelihood="model")
            found = {f"{name} run": task.predict(queries, execute="run"), f"{name} model": task.predict(queries)}
            scored = int((~np.isnan(task.posterior.log_p)).sum())
            row |= score(found, truth) | {f"{name} texts": scored, f"{name} cpu": time.process_time() - start}
        append_record(out, "depth 3", seed=seed, task=targets[i].name, consistent=len(agree), **row)


def gym(folder: Path, out: Path, seed: int, steps: int) -> None:
    """Caesar ciphers without functions: the model runs both steps of a sum of two known rotations."""
    split = gym_ciphers(size=400)
    model = fitted(folder / f"gym{seed}", split.bank, split.targets, Compose(), steps=steps, seed=seed)
    for target in split.targets:
        k = int(target.name.removeprefix("rotation "))
        pairs = target.demonstrations[: SUPPORTS + QUERIES]
        queries, truth = [x for x, _ in pairs[SUPPORTS:]], [y for _, y in pairs[SUPPORTS:]]
        task, executor = model.adapt(pairs[:SUPPORTS]), model.executor()
        right = [Candidate((f"rotation {a}", f"rotation {k - a}")) for a in range(max(1, k - 8), min(8, k - 1) + 1)]
        known, true = task.candidates_[0].candidate, executor.outputs(right, queries, execute="model")
        # Symbolic search over sums of two known rotations: one of them agrees with the supports, and it is the target.
        row = score({"model": task.predict(queries), "symbolic": truth}, truth)
        row |= {"oracle pair": float(np.mean([score({"": ys}, truth)[""] for ys in true])), "found": known in right}
        append_record(out, "gym", seed=seed, task=target.name, refused=not task.applicability().applies, **row)


def summary(folder: Path) -> None:
    """AUC of held-out pairs against other tasks with its interval over both, and the means of the other parts.

    The product compares by whether a candidate gives every support when it is run, then by the model's likelihood.
    """
    rows = [json.loads(line) for line in (folder / "limits.jsonl").read_text().splitlines()]
    pairs = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    rng = np.random.default_rng(0)
    for seed in sorted({r["seed"] for r in rows if r["kind"] == "other"}):
        same = [r for r in pairs if r["kind"] == "target" and r["seed"] == seed]
        other = [r for r in rows if r["kind"] == "other" and r["seed"] == seed]
        for how in ("", f", {ALONE}"):
            known, strange = _evidence(same, how), _evidence(other, how)
            draws = [_auc(rng.choice(known, len(known)), rng.choice(strange, len(strange))) for _ in range(1000)]
            low, high = np.quantile(draws, (0.025, 0.975))
            print(f"seed {seed}{how}: AUC {_auc(known, strange):.3f} ({low:.3f} to {high:.3f}), ", end="")
            refused = [np.mean([r[f"refused{how}"] for r in some]) for some in (other, same)]
            print(f"refused {refused[0]:.0%} of {len(other)} others and {refused[1]:.1%} of {len(same)} pairs")
            for name in others(0):
                of = _evidence([r for r in other if r["task"] == name], how)
                print(f"  {name:20} AUC {_auc(known, of):.3f}")
    for kind in ("depth 3", "gym"):
        for name, value in next((r for r in rows if r["kind"] == kind), {}).items():
            if isinstance(value, (int, float)) and name not in ("time", "seed"):
                values = [r[name] for r in rows if r["kind"] == kind]
                low, high = np.quantile(rng.choice(values, (2000, len(values))).mean(1), (0.025, 0.975))
                print(f"{kind:8} {name:18} {np.mean(values):8.3f}  {low:.3f} to {high:.3f}  {len(values)} targets")


def _evidence(rows: list[dict[str, Any]], how: str) -> np.ndarray:
    """The mean log-probability of a support; with functions, 1e6 above it where a candidate gives every support."""
    return np.array([r[f"log_p{how}"] + 1e6 * (not how and r["given"] == 1) for r in rows])


def _auc(known: np.ndarray, other: np.ndarray) -> float:
    """Probability that a known task has the larger value; ties count half."""
    return float(np.mean((known[:, None] > other) + 0.5 * (known[:, None] == other)))


def main() -> None:
    """One part for one fitted model of run.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["applicability", "depth3", "gym", "summary"])
    parser.add_argument("folder", type=Path, help="of run.py; the records go to limits.jsonl there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=48, help="tasks")
    parser.add_argument("--steps", type=int, default=800, help="of the cipher model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FewShotWarning)
    out = args.folder / "limits.jsonl"
    if args.part == "summary":
        summary(args.folder)
        return
    if args.part == "gym":
        gym(args.folder, out, args.seed, args.steps)
        return
    bank = string_programs(4096, shortest=2)
    functions: dict[str, Any] = {task.name: task.run for task in bank}
    model = LanguageExtrapolator.load(args.folder / f"seed{args.seed}", functions=functions)
    if args.part == "depth3":
        depth_three(model, bank, out, args.seed, args.size)
    else:
        applicability(model, out, args.seed, args.size)


if __name__ == "__main__":
    main()
