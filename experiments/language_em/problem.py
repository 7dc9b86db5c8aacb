"""Compositions whose steps nobody labeled, and a fit with true labels, none, random ones or no such tasks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from operant.language import (
    Candidate,
    Compose,
    LanguageExtrapolator,
    TextBank,
    TextSplit,
    TextTask,
    hold_out_combinations,
    string_programs,
)

ANCHORS = ("upper", "rotate 1", "rotate 3", "caesar 1", "sort", "alternate")
LAST = ("reverse", "mirror", "dashes", "brackets", "twice", "caesar 13")
SHOWN, SUPPORTS, QUERIES = 12, 3, 20


class AnchorRuns(Compose):
    """Compositions whose anchor is a function; the last step is the model's."""

    def candidates(self, bank: TextBank) -> list[Candidate]:
        """Those of :class:`Compose`, without anchors that the model would have to run."""
        return [c for c in super().candidates(bank) if all(bank[name].run for name in c.anchor)]


def fit_and_test(arm: str, seed: int, steps: int, folder: Path) -> dict[str, object]:
    """Fit one arm, and adapt to every held-out composition."""
    start, words = time.process_time(), _words()
    bank, further, split = _problem(words[:400], seed)
    if (folder / "bank.jsonl").is_file():
        functions = {task.name: task.run for task in bank if task.run is not None}
        model = LanguageExtrapolator.load(folder, functions=functions)
    else:
        longer = 5 if arm == "bank" else 1  # equal numbers of steps
        settings = {"hidden": 64, "layers": 2, "learning_rate": 3e-3, "seed": seed, "device": "cpu"}
        model = LanguageExtrapolator(relation=AnchorRuns(), steps=longer * steps, **settings)
        wrong = np.random.default_rng(seed).permutation([t.parts for t in further])
        labels = {t.name: tuple(p) if arm == "random" else t.parts for t, p in zip(further, wrong, strict=True)}
        labeled = [TextTask(t.name, t.demonstrations, None, labels[t.name]) for t in further]
        tasks = {"bank": {}, "em": {"unlabeled": further}}.get(arm, {"labeled": labeled})
        model.fit(bank, held_out=split.targets, folder=folder, **tasks)
    truth = {t.name: t.parts for t in further}
    assigned = [float(np.mean([found.best[t] == truth[t] for t in truth])) for found in model.rounds_]
    scores = {t.name: _test(model, t, words[400:], k) for k, t in enumerate(split.targets)}
    line: dict[str, object] = {
        "seed": seed,
        "arm": arm,
        "cpu_seconds": round(time.process_time() - start),
        "assigned_right": assigned,
    }
    for name in ("accuracy", "true_pair", "found", "refused"):
        line[name] = round(float(np.mean([score[name] for score in scores.values()])), 4)
    rounds = [{"entropy": r.entropy, "log_likelihood": r.log_likelihood} for r in model.rounds_]
    return {**line, "rounds": rounds, "tasks": scores}


def _words() -> list[str]:
    """600 words of 4 and 5 letters out of 8: the model learns to copy in 300 steps; out of 26, not in 1,000."""
    rng, found = np.random.default_rng(0), dict[str, None]()
    while len(found) < 600:
        found["".join(chr(97 + i) for i in rng.integers(0, 8, rng.integers(4, 6)))] = None
    return list(found)


def _problem(words: list[str], seed: int) -> tuple[TextBank, list[TextTask], TextSplit]:
    """Anchors as functions and last steps by 12 demonstrations; half of the compositions without labels; the rest."""
    programs = {task.name: task.run for task in string_programs(8)}
    full = TextBank.from_functions({name: programs[name] for name in (*ANCHORS, *LAST)}, words)
    shown = (TextTask(name, full[name].demonstrations[:SHOWN]) for name in LAST)
    bank = TextBank((*(full[name] for name in ANCHORS), *shown), full.probes)
    pairs = [_chain(full[a], full[b], words) for a in ANCHORS for b in LAST]
    split = hold_out_combinations(full, pairs, share=0.5, seed=seed)
    held = {task.behavior(full.probes) for task in split.targets}
    further = [task for task in pairs if task.behavior(full.probes) not in held]
    return bank, [TextTask(f"task {i}", t.demonstrations, None, t.parts) for i, t in enumerate(further)], split


def _chain(first: TextTask, last: TextTask, words: list[str]) -> TextTask:
    def run(x: str) -> str:
        return str(last.output(str(first.output(x))))

    pairs = tuple((x, run(x)) for x in words)
    return TextTask(f"{first.name} > {last.name}", pairs, run, (first.name, last.name))


def _test(model: LanguageExtrapolator, target: TextTask, words: list[str], k: int) -> dict[str, float]:
    order = np.random.default_rng([k]).permutation(len(words))
    inputs, outputs = [words[i] for i in order], [str(target.output(words[i])) for i in order]
    task = model.adapt(list(zip(inputs[:SUPPORTS], outputs[:SUPPORTS], strict=True)))
    queries, truth = (x[SUPPORTS : SUPPORTS + QUERIES] for x in (inputs, outputs))
    true = model.executor().outputs([Candidate(target.parts)], queries, execute="model")[0]
    return {
        "accuracy": float(np.mean([a == b for a, b in zip(task.predict(queries), truth, strict=True)])),
        "true_pair": float(np.mean([a == b for a, b in zip(true, truth, strict=True)])),
        "found": float(task.candidates_[0].candidate.steps == target.parts),
        "refused": float(bool(task.fallback_)),
    }
