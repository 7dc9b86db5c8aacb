"""The tables of README.md.

    python experiments/arena/table.py runs/arena

Differences are paired by training seed; the interval is Student's t over seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from arms import ARMS, TASKS
from choose import FRESH, Run, metrics, screened
from scipy.stats import t as student

KL = (0.2, 0.5, 1.0, 2.0)
"""Budgets of the divergence from the start, nats."""
BESIDE = ["pass@1", "pass@256", "entropy", "kl"]


def row(*cells: str) -> None:
    """A row of Markdown."""
    print(f"| {' | '.join(cells)} |")


def head(*cells: str) -> None:
    """The head of a table."""
    print()
    row(*cells)
    row(*["---"] * len(cells))


def paired(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """Mean difference over common seeds in points, with its 95 % interval."""
    d = 100 * np.array([ours[s] - theirs[s] for s in sorted(ours.keys() & theirs.keys())])
    if len(d) < 2:
        return f"{d.mean():+.1f}" if len(d) else ""
    half = student.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
    return f"{d.mean():+.1f} ({d.mean() - half:+.1f} to {d.mean() + half:+.1f})"


def of(lines: list[dict[str, Any]], task: str, run: Run) -> dict[int, dict[str, Any]]:
    """Fresh runs by seed."""
    return {r["seed"]: r for r in lines if (r["task"], r["arm"], r["rate"]) == (task, *run) and r["seed"] in FRESH}


def fresh(lines: list[dict[str, Any]], task: str, metric: str) -> list[Run]:
    """The tuned baseline, then the recipes with as many seeds; rates and baseline are the best on development."""
    graded = metric.startswith("best")
    runs = {(r["arm"], r["rate"]) for r in lines if r["task"] == task and ARMS[r["arm"]].graded == graded}
    seeds = max((len(of(lines, task, run)) for run in runs), default=0)
    if not seeds:
        return []
    values = {
        run: float(np.mean([r["chosen"][metric]["dev"] for r in found.values()]))
        for run in runs
        if len(found := of(lines, task, run)) == seeds
    }
    best = {arm: max((run for run in values if run[0] == arm), key=values.__getitem__) for arm, _ in values}
    base = max((run for run in best.values() if ARMS[run[0]].baseline), key=values.__getitem__)
    recipes = [run for run in best.values() if not ARMS[run[0]].baseline]
    return [base, *sorted(recipes, key=lambda run: -values[run])]


def reported(lines: list[dict[str, Any]], task: str, metric: str) -> None:
    """Fresh seeds: the tuned baseline, then the recipes."""
    head(f"{task}: {metric}", "rate", "seeds", metric, *BESIDE, "difference to the tuned baseline")
    base, *_ = runs = fresh(lines, task, metric)
    theirs = {s: r["chosen"][metric][metric] for s, r in of(lines, task, base).items()}
    for run in runs:
        found = of(lines, task, run)
        ours = {s: r["chosen"][metric][metric] for s, r in found.items()}
        beside = [float(np.mean([r["chosen"][metric][name] for r in found.values()])) for name in BESIDE]
        cells = [f"{100 * x:.1f}" for x in beside[:2]] + [f"{x:.2f}" for x in beside[2:]]
        own = f"{100 * np.mean(list(ours.values())):.1f}"
        row(run[0], f"{run[1]:g}", str(len(found)), own, *cells, "" if run == base else paired(ours, theirs))


def front(lines: list[dict[str, Any]], task: str, metric: str) -> None:
    """Test values at temperature 1 where development is best within a budget of KL, fresh seeds."""
    head(f"{task}: {metric} within a KL of", *(f"{k:g}" for k in KL))
    for run in fresh(lines, task, metric):
        cells = []
        for budget in KL:
            found = []
            for r in of(lines, task, run).values():
                inside = [v for v in r["trajectory"].values() if v["test kl"] <= budget]
                found.append(max(inside, key=lambda v: v[metric])[f"test {metric}"])
            cells.append(f"{100 * np.mean(found):.1f}")
        row(run[0], *cells)


def main() -> None:
    """Print every table that the results allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--screen", action="store_true", help="also what development said of the screening seeds")
    args = parser.parse_args()
    lines = [json.loads(line) for line in (args.folder / "results.jsonl").read_text().splitlines()]
    for task in TASKS:
        for metric in metrics(task):
            values = screened(lines, task, metric)
            if args.screen and values:
                head(f"{task}: {metric}, screening", "rate", "seeds", "development")
                for (arm, rate), found in sorted(values.items(), key=lambda kv: (-len(kv[1]), -fmean(kv[1]))):
                    row(arm, f"{rate:g}", str(len(found)), f"{100 * fmean(found):.1f}")
            if fresh(lines, task, metric):
                reported(lines, task, metric)
                if TASKS[task].method == "rl":
                    front(lines, task, metric)


if __name__ == "__main__":
    main()
