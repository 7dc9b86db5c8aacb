"""Sparse parity of 6 of 8 bits, from parities of up to 5 bits: the extrapolator beside its baselines (section 4.1)."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from compared import best, compared, picture, table
from methods import Flat, evaluate, flat_alone

from operant.core.record import append_record, read_records
from operant.language import LanguageExtrapolator, Relation, TextSplit, Toggle, sparse_parity
from operant.reproduce import Comparison, write_comparisons

RATES, RATE, STEPS, TUNING = (1e-3, 3e-3, 1e-2), 3e-3, 200, 100
"""The flat model has the rate that is best on the targets themselves, with a seed of its own: in its favor."""
SUPPORTS = (5, 8, 10)
PUBLISHED = 5
"""Supports of a target in the paper."""
COLUMNS = (
    "extrapolator",
    "symbolic pick",
    "symbolic vote",
    "oracle pair",
    "few-shot",
    "flat fine-tuning",
    "random context",
)


def fitted(split: TextSplit, relation: Relation, seed: int, steps: int, rate: float = RATE) -> LanguageExtrapolator:
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
    supports, seeds, sets, flat_steps = SUPPORTS, args.seeds, args.sets, STEPS
    if args.quick:
        supports, seeds, sets, flat_steps = (PUBLISHED,), seeds[:2], 2, STEPS // 2
    args.folder.mkdir(parents=True, exist_ok=True)
    results = args.folder / "results.jsonl"
    rows = read_records(results) if results.is_file() else []
    split = sparse_parity(8, sizes=(1, 2, 3, 4, 5), target=6)
    rate = RATE if args.quick else tuned(split, results, rows)
    done = {(r["seed"], r["supports"], r["target"]) for r in rows if r["kind"] == "target"}
    for seed in seeds:
        left = [(n, t) for n in supports for t in split.targets if (seed, n, t.name) not in done]
        if not left:
            continue
        model, flat = fitted(split, Toggle(), seed, STEPS), fitted(split, Flat(), seed, flat_steps, rate)
        for n, target in left:
            row = evaluate(model, flat, target, split.targets, n, sets)
            append_record(results, "target", seed=seed, supports=n, target=target.name, **row)
            print(f"seed {seed}, {n} supports, {target.name}: {row}", flush=True)
    report(args.folder, [r for r in read_records(results) if r["kind"] == "target" and r["seed"] in seeds])


def tuned(split: TextSplit, results: Path, rows: list[dict[str, Any]]) -> float:
    """The best rate of the flat model."""
    found = {r["rate"]: r["accuracy"] for r in rows if r["kind"] == "rate"}
    for rate in [r for r in RATES if r not in found]:
        flat = fitted(split, Flat(), TUNING, STEPS, rate)
        found[rate] = fmean(flat_alone(flat, target, PUBLISHED, sets=5) for target in split.targets)
        append_record(results, "rate", rate=rate, accuracy=round(found[rate], 4))
        print(f"flat fine-tuning, rate {rate:g}: {found[rate]:.1%}", flush=True)
    return max(found, key=found.__getitem__)


def report(folder: Path, rows: list[dict[str, Any]]) -> None:
    """At the published number of supports the strongest learned baseline and symbolic search decide."""
    found: list[Comparison] = []
    for n in sorted({r["supports"] for r in rows}):
        mine = [r for r in rows if r["supports"] == n]
        print(f"\n{n} supports; functions that agree: {fmean(r['consistent'] for r in mine):.2f}")
        table(mine, COLUMNS)
        learned = best(mine, COLUMNS[4:])
        found.append(compared(mine, f"{n} supports", COLUMNS[0], learned, decides=n == PUBLISHED))
        found.append(compared(mine, f"{n} supports", COLUMNS[0], "symbolic vote", decides=n == PUBLISHED))
    write_comparisons(folder, found)
    picture([r for r in rows if r["supports"] == PUBLISHED], COLUMNS, folder / "accuracy.png")


if __name__ == "__main__":
    main()
