"""Pairs of string programs, held out by behavior, from three supports: the extrapolator beside its baselines."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import ALONE, NAMES, Flat, drawn, evaluate, fitted, joined, nearest, score, shown

from operant.core.record import append_record, read_records
from operant.language import Compose, FewShotWarning, random_words, string_chains, string_programs
from operant.reproduce import write_comparisons

sys.path.append(str(Path(__file__).parents[1] / "language_parity"))
from compared import best, compared, picture, table

OURS = "pair and last step by the model"
"""The published recipe: the model's likelihood ranks the pairs, and the model writes the last step."""
PLAIN = ("nearest program", "few-shot", "flat fine-tuning", "random pair")


def main() -> None:
    """Fit once a seed, evaluate the targets that are missing, print the table and write the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="models and results.jsonl; started again, the run goes on")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="training seeds of the extrapolator")
    parser.add_argument("--flat", type=int, nargs="*", default=[0, 1], help="training seeds of the flat model")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--flat_steps", type=int, default=500, help="prompts are four times as long")
    parser.add_argument("--targets", type=int, default=90, help="held-out pairs, at most 180")
    parser.add_argument("--quick", action="store_true", help="one seed, 8 targets, models that have learned little")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.flat, args.steps, args.flat_steps, args.targets = [0], [0], 150, 40, 8
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FewShotWarning)  # counted in the column "refused"
    args.folder.mkdir(parents=True, exist_ok=True)
    bank = string_programs(4096, shortest=2)
    targets = string_chains(bank, share=0.5).targets
    words = sorted(set(random_words(3000, seed=77)) - set(bank.inputs))
    results = args.folder / "results.jsonl"
    done = {(r["kind"], r["seed"], r["target"]) for r in (read_records(results) if results.is_file() else [])}
    chosen = [targets[i] for i in np.random.default_rng(5).permutation(len(targets))[: args.targets]]
    for kind, seed in [*(("target", s) for s in args.seeds), *(("flat", s) for s in args.flat)]:
        left = [target for target in chosen if (kind, seed, target.name) not in done]
        if not left:
            continue
        flat = kind == "flat"
        settings = {"steps": args.flat_steps if flat else args.steps, "seed": seed}
        name = f"{kind}{seed}" if flat else f"seed{seed}"
        model = fitted(args.folder / name, bank, targets, Flat() if flat else Compose(), **settings)
        for target in left:
            if flat:
                supports, queries, truth, _ = drawn(target, words)
                row = score({"flat": model.executor().write([shown(supports, x) for x in queries])}, truth)
            else:
                row = evaluate(model, target, targets, words)
            append_record(results, kind, seed=seed, target=target.name, **row)
            print(kind, seed, target.name, row, flush=True)
    known = {target.name: nearest(bank, target, words) for target in chosen}
    found = [r for r in read_records(results) if r["seed"] in (args.flat if r["kind"] == "flat" else args.seeds)]
    report(args.folder, joined(found, chosen, known))


def report(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The published recipe over the strongest plain one and over symbolic search; the rest is what functions add."""
    table(rows, list(NAMES.values()))
    plain, search, what = best(rows, PLAIN), "symbolic search", "three supports"
    found = [compared(rows, what, OURS, plain), compared(rows, what, NAMES["model"], plain, decides=False)]
    found += [
        compared(rows, what, ours, search, decides=ours == OURS)
        for ours in (OURS, NAMES[f"run, {ALONE}"], NAMES["run"])
    ]
    write_comparisons(folder, found)
    picture(rows, list(NAMES.values())[:-2], folder / "accuracy.png")


if __name__ == "__main__":
    main()
