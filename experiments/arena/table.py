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
from choose import FRESH, metrics, screened
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


def paired(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Mean difference over common seeds in points, and the ends of its 95 % interval if there are two seeds."""
    d = 100 * np.array([ours[s] - theirs[s] for s in sorted(ours.keys() & theirs.keys())])
    if len(d) < 2:
        return d.tolist()
    half = student.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
    return [d.mean(), d.mean() - half, d.mean() + half]


def signed(found: list[float]) -> str:
    """A difference and its interval in words."""
    return f"{found[0]:+.1f}" + (f" ({found[1]:+.1f} to {found[2]:+.1f})" if found[1:] else "") if found else ""


def fresh(lines: list[dict[str, Any]], task: str, metric: str) -> list[tuple[str, dict[int, list[dict[str, Any]]]]]:
    """The tuned baseline, then the recipes: for each seed the runs at every rate, that which development prefers first.

    Rates with fewer seeds than others of their arm are left out, and arms with fewer than five if another has five.
    """
    found: dict[str, dict[float, dict[int, dict[str, Any]]]] = {}
    for r in lines:
        if r["task"] == task and r["seed"] in FRESH and ARMS[r["arm"]].graded == metric.startswith("best"):
            found.setdefault(r["arm"], {}).setdefault(r["rate"], {})[r["seed"]] = r
    seeds = {arm: max(map(len, rates.values())) for arm, rates in found.items()}
    least = min(5, max(seeds.values(), default=0))
    runs: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for arm, rates in found.items():
        for by_seed in rates.values():
            for seed, r in by_seed.items() if len(by_seed) == seeds[arm] >= least else ():
                runs.setdefault(arm, {}).setdefault(seed, []).append(r)
    for by_seed in runs.values():
        for rates in by_seed.values():
            rates.sort(key=lambda r: -r["chosen"][metric]["dev"])
    mean = {
        arm: fmean(rates[0]["chosen"][metric]["dev"] for rates in by_seed.values()) for arm, by_seed in runs.items()
    }
    order = sorted(runs, key=lambda arm: -mean[arm])
    base = next((arm for arm in order if ARMS[arm].baseline), None)
    return [(arm, runs[arm]) for arm in order if arm == base] + [
        (arm, runs[arm]) for arm in order if base and not ARMS[arm].baseline
    ]


def reported(lines: list[dict[str, Any]], task: str, metric: str) -> None:
    """Fresh seeds: the tuned baseline, then the recipes."""
    head(f"{task}: {metric}", "rates", "seeds", metric, *BESIDE, "difference to the tuned baseline")
    theirs: dict[int, float] = {}
    for arm, found in fresh(lines, task, metric):
        best = {s: rates[0]["chosen"][metric] for s, rates in found.items()}
        ours = {s: r[metric] for s, r in best.items()}
        beside = [fmean(r[name] for r in best.values()) for name in BESIDE]
        cells = [f"{100 * x:.1f}" for x in beside[:2]] + [f"{x:.2f}" for x in beside[2:]]
        tried = ", ".join(f"{rate:g}" for rate in sorted({r["rate"] for rates in found.values() for r in rates}))
        difference = signed(paired(ours, theirs)) if theirs else ""
        row(arm, tried, str(len(found)), f"{100 * fmean(ours.values()):.1f}", *cells, difference)
        theirs = theirs or ours


def front(lines: list[dict[str, Any]], task: str, metric: str) -> None:
    """Test values at temperature 1 where development is best within a budget of KL, fresh seeds."""
    head(f"{task}: {metric} within a KL of", *(f"{k:g}" for k in KL))
    for arm, found in fresh(lines, task, metric):
        cells = []
        for budget in KL:
            best = []
            for rates in found.values():
                inside = [v for r in rates for v in r["trajectory"].values() if v["test kl"] <= budget]
                best.append(max(inside, key=lambda v: v[metric])[f"test {metric}"])
            cells.append(f"{100 * fmean(best):.1f}")
        row(arm, *cells)


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
