"""Sparse parity of 6 of 8 bits, from parities of up to 5 bits: the extrapolator beside its baselines (section 4.1)."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from compared import best, compared, picture, table
from methods import Flat, evaluate

from operant.core.record import append_record, read_records
from operant.language import LanguageExtrapolator, Relation, TextSplit, Toggle, sparse_parity
from operant.reproduce import write_comparisons

RATES, STEPS = (1e-3, 3e-3, 1e-2), 200
SUPPORTS = (5, 8, 10)
PUBLISHED = 5
"""Supports of a target in the paper."""
COLUMNS = ("extrapolator", "symbolic pick", "symbolic vote", "oracle pair", "few-shot", "random context")


def fitted(split: TextSplit, relation: Relation, seed: int, steps: int, rate: float = 3e-3) -> LanguageExtrapolator:
    """A byte model from random weights, trained on the bank."""
    settings = {"batch_size": 64, "hidden": 32, "layers": 2, "learning_rate": rate, "seed": seed}
    return LanguageExtrapolator(relation=relation, steps=steps, **settings).fit(split.bank, held_out=split.targets)


def main() -> None:
    """Fit once a seed, evaluate the targets that are missing, print the tables and write the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results.jsonl is there; started again, the run goes on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="training seeds")
    parser.add_argument("--sets", type=int, default=5, help="support sets a target")
    parser.add_argument(
        "--quick", action="store_true", help="two seeds, 5 supports, 2 sets, a flat model of half the steps"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    supports, seeds, sets, rates, flat_steps = SUPPORTS, args.seeds, args.sets, RATES, STEPS
    if args.quick:
        supports, seeds, sets, rates, flat_steps = (PUBLISHED,), seeds[:2], 2, RATES[1:2], STEPS // 2
    args.folder.mkdir(parents=True, exist_ok=True)
    results = args.folder / "results.jsonl"
    done = {(r["seed"], r["supports"], r["target"]) for r in (read_records(results) if results.is_file() else [])}
    split = sparse_parity(8, sizes=(1, 2, 3, 4, 5), target=6)
    for seed in seeds:
        left = [(n, t) for n in supports for t in split.targets if (seed, n, t.name) not in done]
        if not left:
            continue
        model = fitted(split, Toggle(), seed, STEPS)
        flat = {f"flat, rate {r:g}": fitted(split, Flat(), seed, flat_steps, r) for r in rates}
        for n, target in left:
            row = evaluate(model, flat, target, split.targets, n, sets)
            append_record(results, "target", seed=seed, supports=n, target=target.name, **row)
            print(f"seed {seed}, {n} supports, {target.name}: {row}", flush=True)
    rows = [r for r in read_records(results) if r["seed"] in seeds]
    flats, found = [f"flat, rate {r:g}" for r in rates], []
    for n in supports:
        mine = [r for r in rows if r["supports"] == n]
        print(f"\n{n} supports; functions that agree: {sum(r['consistent'] for r in mine) / len(mine):.2f}")
        table(mine, [*COLUMNS, *flats])
        learned = best(mine, [*flats, "few-shot", "random context"])
        found.append(compared(mine, f"{n} supports", "extrapolator", learned, decides=n == PUBLISHED))
        found.append(compared(mine, f"{n} supports", "extrapolator", "symbolic vote", decides=False))
    write_comparisons(args.folder, found)
    picture([r for r in rows if r["supports"] == PUBLISHED], [*COLUMNS, *flats], args.folder / "accuracy.png")


if __name__ == "__main__":
    main()
