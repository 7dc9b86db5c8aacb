"""Pairs of string programs, held out by behavior, from three supports: the extrapolator beside its baselines."""

from __future__ import annotations

import argparse
import json
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operant.core.record import append_record
from operant.language import (
    Candidate,
    Compose,
    FewShotWarning,
    LanguageExtrapolator,
    Relation,
    TextBank,
    TextTask,
    random_words,
    string_chains,
    string_programs,
)

SUPPORTS, QUERIES = 3, 4
ALONE = "posterior of the model alone"
COLUMNS = [
    *("run", "model", f"run, {ALONE}", f"model, {ALONE}", "oracle pair", "symbolic", "few-shot", "flat"),
    *("random context", "consistent", "refused", f"refused, {ALONE}"),
]


def shown(pairs: list[tuple[str, str]], x: str) -> str:
    """Demonstrations and a query, as the flat model reads them."""
    return "".join(f"{a}\n{b}\n" for a, b in pairs) + f"{x}\n"


@dataclass(frozen=True)
class Flat(Relation):
    """The baseline without decomposition: the prompt shows three demonstrations of the task itself."""

    def candidates(self, bank: TextBank) -> list[Candidate]:
        """Known tasks; the target is none of them, it is shown."""
        return [Candidate((task.name,)) for task in bank]

    def prompt(self, candidate: Candidate, x: str, run: Any) -> str:
        """Demonstrations on random inputs, the same for the same query."""
        rng = np.random.default_rng(zlib.crc32(f"{candidate} {x}".encode()))
        inputs = [z for z in rng.choice(run.bank.inputs, SUPPORTS + 1, replace=False).tolist() if z != x][:SUPPORTS]
        return shown([(z, Compose().value(candidate, z, run)) for z in inputs], x)

    def lessons(self, bank: TextBank, held_out: Sequence[TextTask] = ()) -> list[Any]:
        """The tasks that the extrapolator learns from."""
        return Compose().lessons(bank, held_out)


def fitted(folder: Path, bank, targets, relation: Relation, **settings) -> LanguageExtrapolator:
    """The model of this folder: read, or trained; a run that was stopped goes on."""
    if (folder / "bank.jsonl").is_file():
        return LanguageExtrapolator.load(folder, functions={task.name: task.run for task in bank})
    model = LanguageExtrapolator(relation=relation, hidden=96, **settings)
    return model.fit(bank, held_out=targets, folder=folder, progress=lambda *log: print(folder.name, *log, flush=True))


def drawn(target: TextTask, words: list[str]) -> tuple[list[tuple[str, str]], list[str], list[str], Any]:
    """Supports, queries and their outputs: the same for every model."""
    rng = np.random.default_rng(zlib.crc32(target.name.encode()))
    found = rng.choice(words, SUPPORTS + QUERIES, replace=False).tolist()
    return (
        [(x, target.run(x)) for x in found[:SUPPORTS]],
        found[SUPPORTS:],
        [target.run(x) for x in found[SUPPORTS:]],
        rng,
    )


def evaluate(model: LanguageExtrapolator, target: TextTask, targets: Any, words: list[str]) -> dict[str, float]:
    """Every column for one target but the flat model's."""
    supports, queries, truth, rng = drawn(target, words)
    executor, candidates = model.executor(), model.relation_.candidates(model.bank_)
    task = model.adapt(supports, held_out=targets)
    alone = model.adapt(supports, held_out=targets, likelihood="model")
    outputs = executor.outputs(candidates, [*dict(supports), *queries], execute="run")
    agree = [y[SUPPORTS:] for y in outputs if y[:SUPPORTS] == [y for _, y in supports]]
    wrong = candidates[int(rng.integers(len(candidates)))]
    few = "".join(f"Input: {x}\nOutput: {y}\n\n" for x, y in supports)
    written = executor.write([f"{few}Input: {x}\nOutput:" for x in queries])
    found = {
        "model": task.predict(queries),
        "run": task.predict(queries, execute="run"),
        f"model, {ALONE}": alone.predict(queries),
        f"run, {ALONE}": alone.predict(queries, execute="run"),
        "oracle pair": executor.outputs([Candidate(target.parts)], queries, execute="model")[0],
        "symbolic": agree[0] if agree else [None] * QUERIES,
        "few-shot": [y.strip().partition("\n")[0] for y in written],
        "random context": executor.outputs([wrong], queries, execute="model")[0],
    }
    known, without = task.applicability(), alone.applicability()
    applies = {"refused": float(not known.applies), f"refused, {ALONE}": float(not without.applies)}
    about = {"consistent": len(agree), "given": known.given, "log_p": known.log_p, f"log_p, {ALONE}": without.log_p}
    return score(found, truth) | applies | about


def score(found: dict[str, Any], truth: list[str]) -> dict[str, float]:
    """Share of the queries that are exactly right."""
    return {name: float(np.mean([a == b for a, b in zip(ys, truth, strict=True)])) for name, ys in found.items()}


def main() -> None:
    """Fit once a seed, evaluate every target, and print the table with intervals over targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="models and results.jsonl; started again, the run goes on")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="training seeds of the extrapolator")
    parser.add_argument("--flat", type=int, nargs="*", default=[0, 1, 2], help="training seeds of the flat model")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--flat_steps", type=int, default=500, help="prompts are four times as long: equal CPU time")
    parser.add_argument("--targets", type=int, default=180, help="held-out pairs, at most")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FewShotWarning)  # counted in the column "refused"
    bank = string_programs(4096, shortest=2)
    targets = string_chains(bank, share=0.5).targets
    words = sorted(set(random_words(3000, seed=77)) - set(bank.inputs))
    results = args.folder / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    done = {(r["kind"], r["seed"], r["target"]) for r in rows}
    chosen = [targets[i] for i in np.random.default_rng(5).permutation(len(targets))[: args.targets]]
    for kind, seed in [*(("target", s) for s in args.seeds), *(("flat", s) for s in args.flat)]:
        flat = kind == "flat"
        settings = {"steps": args.flat_steps if flat else args.steps, "seed": seed}
        name = f"{kind}{seed}" if flat else f"seed{seed}"
        model = fitted(args.folder / name, bank, targets, Flat() if flat else Compose(), **settings)
        for target in chosen:
            if (kind, seed, target.name) in done:
                continue
            if flat:
                supports, queries, truth, _ = drawn(target, words)
                row = score({"flat": model.executor().write([shown(supports, x) for x in queries])}, truth)
            else:
                row = evaluate(model, target, targets, words)
            append_record(results, kind, seed=seed, target=target.name, **row)
    table([json.loads(line) for line in results.read_text().splitlines()])


def table(rows: list[dict[str, Any]]) -> None:
    """Mean of every column, each seed's, and its 95 % bootstrap interval over targets, seeds averaged within one."""
    for name in COLUMNS:
        known = [r for r in rows if name in r]
        seeds, names = sorted({r["seed"] for r in known}), sorted({r["target"] for r in known})
        if not known:
            continue
        values = [np.mean([r[name] for r in known if r["target"] == t]) for t in names]
        draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
        low, high = np.quantile(draws, (0.025, 0.975))
        each = " ".join(f"{np.mean([r[name] for r in known if r['seed'] == s]):.3f}" for s in seeds)
        print(f"{name:37} {np.mean(values):.3f}  {low:.3f} to {high:.3f}   seeds {each}   {len(values)} targets")


if __name__ == "__main__":
    main()
