"""Compositions whose steps nobody labeled: EM beside true labels, random labels and no further tasks (appendix B.2)."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from problem import fit_and_test

from operant.language import FewShotWarning
from operant.reproduce import write_comparisons

sys.path.append(str(Path(__file__).parents[1] / "language_parity"))
from compared import best, compared, picture, table

ARMS = ("supervised", "em", "bank", "random")
NAMES = {"supervised": "true labels", "em": "EM, no labels", "bank": "no further tasks", "random": "random labels"}


def main() -> None:
    """Fit every arm once a seed, adapt to the held-out compositions, write a line each, and the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="fits and results.jsonl; a run that was stopped goes on there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the split, weights and examples")
    parser.add_argument("--steps", type=int, default=300, help="of the warm-up, and of each of 4 rounds")
    parser.add_argument("--quick", action="store_true", help="one seed, 60 steps, two arms")
    args = parser.parse_args()
    arms = ARMS
    if args.quick:
        args.seeds, args.steps, arms = [0], 60, ("em", "bank")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FewShotWarning)  # counted
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    for seed, arm in [(seed, arm) for seed in args.seeds for arm in arms]:
        if not any((line["seed"], line["arm"]) == (seed, arm) for line in lines):
            lines.append(fit_and_test(arm, seed, args.steps, args.folder / f"{arm}-{seed}"))
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            print({k: v for k, v in lines[-1].items() if k != "tasks"}, flush=True)
    report(args.folder, joined([line for line in lines if line["seed"] in args.seeds]), [NAMES[arm] for arm in arms])


def joined(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a seed and held-out composition, with the accuracy of every arm."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for line in lines:
        for task, score in line["tasks"].items():
            row = found.setdefault((line["seed"], task), {"seed": line["seed"], "target": task})
            row[NAMES[line["arm"]]] = score["accuracy"]
    return list(found.values())


def report(folder: Path, rows: list[dict[str, Any]], names: list[str]) -> None:
    """EM over the stronger of what needs no labels decides; the distance to true labels does not."""
    table(rows, names)
    plain = best(rows, [n for n in names if n in (NAMES["bank"], NAMES["random"])])
    found = [compared(rows, "held-out compositions", NAMES["em"], plain)]
    if NAMES["supervised"] in names:
        found.append(compared(rows, "held-out compositions", NAMES["em"], NAMES["supervised"], decides=False))
        share = np.mean([r[NAMES["em"]] for r in rows]) / np.mean([r[NAMES["supervised"]] for r in rows])
        print(f"EM has {share:.1%} of what true labels give")
    write_comparisons(folder, found)
    picture(rows, names, folder / "accuracy.png")


if __name__ == "__main__":
    main()
