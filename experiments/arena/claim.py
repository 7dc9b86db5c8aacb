"""A claim on the arena's tasks: experiments/CLAIM/config.yaml names its runs and what is compared.

    python experiments/arena/claim.py runs/rl_pass --claim rl_pass

A run that results.jsonl of the folder has, or of a folder beside it, is not made again: claims share baselines.
Development chooses rate, step and temperature for each seed and metric. The interval is Student's t over seeds.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from statistics import fmean
from typing import Any

import altair as alt
import yaml
from arms import ARMS, TASKS
from run import KEY, carry_out
from table import head, paired, row, signed

from operant.core.record import read_records
from operant.hf import worker_pool
from operant.reproduce import Comparison, write_comparisons

QUICK_STEPS, QUICK_SEEDS = 30, 2
METRICS = ["pass@1", "pass@4", "pass@16", "pass@64", "pass@256", "maj@16"]
Line = dict[str, Any]


def wanted(config: Line, *, quick: bool) -> list[Line]:
    """The runs that the comparisons need; a quick run makes short ones, with the first rate and two seeds."""
    found = []
    for run in config["runs"]:
        rates, seeds = (run["rates"][:1], config["seeds"][:QUICK_SEEDS]) if quick else (run["rates"], config["seeds"])
        for seed, rate in itertools.product(seeds, rates):
            found.append({"task": run["task"], "arm": run["arm"], "rate": rate, "seed": seed})
    return [key | {"steps": QUICK_STEPS} for key in found] if quick else found


def identity(key: Line) -> tuple[Any, ...]:
    """Task, arm, rate, seed and number of steps."""
    return *(key[k] for k in KEY), key.get("steps", TASKS[key["task"]].steps)


def finished(folder: Path) -> dict[tuple[Any, ...], Line]:
    """The runs that lie in the folder and in those beside it."""
    files = [folder / "results.jsonl", *sorted(folder.resolve().parent.glob("*/results.jsonl"))]
    lines = [line for file in dict.fromkeys(files) if file.is_file() for line in read_records(file)]
    return {identity(line): line for line in lines if line.get("task") in TASKS and line.get("arm") in ARMS}


def values(lines: list[Line], task: str, arm: str, metric: str) -> dict[int, float]:
    """Test value of each seed, at the rate, step and temperature that development prefers."""
    chosen: dict[int, Line] = {}
    for line in lines:
        if (line["task"], line["arm"]) == (task, arm):
            found = line["chosen"][metric]
            chosen[line["seed"]] = max(chosen.get(line["seed"], found), found, key=lambda r: r["dev"])
    return {seed: found[metric] for seed, found in chosen.items()}


def place(c: Line, side: str) -> tuple[str, str]:
    """Task and arm of the recipe or of the baseline."""
    return c["plain_task"] if side == "baseline" and "plain_task" in c else c["task"], c[side]


def compared(lines: list[Line], c: Line, metric: str) -> Comparison:
    """The recipe beside its baseline at one metric, paired by seed."""
    ours, plain = (values(lines, *place(c, side), metric) for side in ("ours", "baseline"))
    effect, low, high = paired(ours, plain)
    ends = {"effect": effect, "low": low, "high": high, "seeds": len(ours), "decides": c.get("decides", True)}
    mean = {"value": 100 * fmean(ours.values()), "plain": 100 * fmean(plain.values())}
    names = [c.get(f"{k}_name", c[k].removeprefix("SFT ")) for k in ("ours", "baseline")]
    return Comparison(f"{metric}, {c['task']}", ours=names[0], baseline=names[1], **mean, **ends)


def show(lines: list[Line], pairs: list[Line], file: Path) -> None:
    """Every metric of every pair: a table in Markdown, and a picture of the differences."""
    points: list[Line] = []
    for task, same in itertools.groupby(pairs, key=lambda c: c["task"]):
        head(task, *METRICS)
        seen = set[str]()
        for c in same:
            found = [compared(lines, c, metric) for metric in METRICS]
            ours, plain = found[0].ours, found[0].baseline
            if plain not in seen:
                row(plain, *(f"{x.plain:.1f}" for x in found))
            row(ours, *(f"{x.value:.1f}" for x in found))
            row(f"{ours} - {plain}", *(signed([x.effect, x.low, x.high]) for x in found))
            seen.add(plain)
            beside = {"task": task, "recipe": f"{ours} - {plain}"}
            points += [
                beside | {"m": m, "y": x.effect, "low": x.low, "high": x.high}
                for m, x in zip(METRICS, found, strict=True)
            ]
    base = alt.Chart().encode(
        x=alt.X("m:N", sort=METRICS, title=None, axis=alt.Axis(labelAngle=-45)),
        xOffset="recipe:N",
        color=alt.Color("recipe:N", title=None).legend(orient="top", columns=2, labelLimit=400),
    )
    bars = base.mark_rule().encode(y=alt.Y("low:Q", title="difference, points"), y2="high:Q")
    zero = alt.Chart().mark_rule(strokeDash=[4, 3]).encode(y=alt.datum(0))
    dots = base.mark_point(filled=True, size=30).encode(y="y:Q")
    drawn = (
        alt.layer(bars, dots, zero)
        .properties(width=200, height=150)
        .facet(alt.Facet("task:N", title=None), data=alt.Data(values=points), columns=3)
    )
    drawn.save(file, ppi=64)


def main() -> None:
    """Make the runs that are missing, compare, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--claim", required=True, help="folder of config.yaml")
    parser.add_argument("--quick", action="store_true", help="30 steps, two seeds, one rate, the first comparison")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    config = yaml.safe_load((Path(__file__).parents[1] / args.claim / "config.yaml").read_text(encoding="utf-8"))
    if args.quick:
        config["comparisons"] = config["comparisons"][:1]
        used = {place(c, side) for c in config["comparisons"] for side in ("ours", "baseline")}
        config["runs"] = [run for run in config["runs"] if (run["task"], run["arm"]) in used]
    keys, done = wanted(config, quick=args.quick), finished(args.folder)
    if missing := [key for key in keys if identity(key) not in done]:
        with worker_pool(args.jobs, threads=1) as pool:
            carry_out(pool, args.folder, missing, args.claim)
    lines = [finished(args.folder)[identity(key)] for key in keys]
    found = [compared(lines, c, metric) for c in config["comparisons"] for metric in c["metrics"]]
    write_comparisons(args.folder, found)
    show(lines, config["comparisons"], args.folder / "difference.png")


if __name__ == "__main__":
    main()
