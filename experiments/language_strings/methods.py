"""The methods on one held-out pair of string programs: the extrapolator, its baselines, and symbolic search."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from operant.language import (
    Candidate,
    Compose,
    LanguageExtrapolator,
    Relation,
    TextBank,
    TextTask,
)

SUPPORTS, QUERIES = 3, 4
ALONE = "posterior of the model alone"
NAMES = {
    "run": "pair by the functions, run",
    "model": "pair by the functions, last step by the model",
    f"run, {ALONE}": "pair by the model, run",
    f"model, {ALONE}": "pair and last step by the model",
    "oracle pair": "true pair, last step by the model",
    "symbolic": "symbolic search",
    "nearest": "nearest program",
    "few-shot": "few-shot",
    "flat": "flat fine-tuning",
    "random context": "random pair",
    "refused": "refused, pair by the functions",
    f"refused, {ALONE}": "refused, pair by the model",
}
"""Columns of results.jsonl, and what they are called."""


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


def nearest(bank: TextBank, target: TextTask, words: list[str]) -> float:
    """The plain method without a relation: the known program that comes closest on the supports is run."""
    supports, queries, truth, _ = drawn(target, words)

    def alike(task: TextTask) -> float:
        pairs = [(str(task.output(x)), y) for x, y in supports]
        return sum((a == b) + SequenceMatcher(None, a, b).ratio() for a, b in pairs)

    return score({"nearest": [str(max(bank, key=alike).output(x)) for x in queries]}, truth)["nearest"]


def joined(found: list[dict[str, Any]], chosen: Iterable[TextTask], known: dict[str, float]) -> list[dict[str, Any]]:
    """A row a seed and target; the flat model's share is the mean over its own seeds."""
    names = {target.name for target in chosen}
    flat = {n: np.mean([r["flat"] for r in found if r["kind"] == "flat" and r["target"] == n]) for n in names}
    rows = [r for r in found if r["kind"] == "target" and r["target"] in names]
    full = [r | {"flat": float(flat[r["target"]]), "nearest": known[r["target"]]} for r in rows]
    return [{"seed": r["seed"], "target": r["target"], **{NAMES[k]: r[k] for k in NAMES}} for r in full]
