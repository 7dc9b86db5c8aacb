"""The tables of README.md from results.jsonl, and the picture of accuracy over k.

    python experiments/proposer/table.py runs/proposer docs/images/proposer.png

Intervals are 95 % bootstraps that draw seeds and targets independently; differences are paired by both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from run import TUNING
from space import BUDGETS, Space, blind, build

BASE = "cross-entropy"


def read(folder: Path) -> tuple[list[str], dict[tuple[str, int], dict[int, np.ndarray]]]:
    """Arms, and (arm, k) -> seed -> values of the targets, at the rate that development chose for this k."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    found: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    for arm in arms:
        for k in BUDGETS:
            mine = [line for line in lines if line["arm"] == arm]
            ran = {x["rate"]: [y["seed"] for y in mine if y["rate"] == x["rate"]] for x in mine}
            most = max(map(len, ran.values()))
            tuned = [x for x in mine if x["seed"] == TUNING and len(ran[x["rate"]]) == most]
            rate = max(tuned, key=lambda x: x["chosen"][str(k)]["development"])["rate"]
            found[arm, k] = {x["seed"]: np.array(x["chosen"][str(k)]["test"]) for x in mine if x["rate"] == rate}
    return arms, found


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval of (S, targets), in points."""
    rng = np.random.default_rng(0)
    s, p = values.shape
    draws = [values[rng.integers(0, s, s)][:, rng.integers(0, p, p)].mean() for _ in range(4000)]
    return tuple(100 * np.array([values.mean(), *np.quantile(draws, [0.025, 0.975])]))


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """A table in Markdown."""
    print(f"\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    print("\n".join(f"| {' | '.join(cells)} |" for cells in body))


def picture(arms: Sequence[str], found: dict, space: Space, file: Path) -> None:
    """Accuracy over k, an arm a line, with its interval."""
    import altair as alt

    points = [
        {"search": arm, "k": k, "accuracy, %": mean, "low": low, "high": high}
        for arm in arms
        for k in BUDGETS
        for mean, low, high in [interval(np.stack(list(found[arm, k].values())))]
    ]
    points += [{"search": "random chains", "k": k, "accuracy, %": blind(space, k)} for k in BUDGETS]
    axis = alt.Axis(values=list(BUDGETS), title="chains that are tried, k")
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("k:Q", axis=axis).scale(type="log", base=4),
        color=alt.Color("search:N").legend(symbolOpacity=1, title=None),
    )
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q").title("accuracy, %"), y2="high:Q")
    line = base.mark_line(point=True).encode(y=alt.Y("accuracy, %:Q").title("accuracy, %"))
    chart = (band + line).properties(width=480, height=320)
    chart.save(file, ppi=90)


def main() -> None:
    """Print the tables; draw the picture if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("image", type=Path, nargs="?")
    args = parser.parse_args()
    arms, found = read(args.folder)
    space = build()
    head = [f"k = {k}" for k in BUDGETS]
    body = [
        [arm, str(len(found[arm, 64])), *(f"{100 * np.mean(list(found[arm, k].values())):.1f}" for k in BUDGETS)]
        for arm in arms
    ]
    body.append(["random chains, run", "", *(f"{blind(space, k):.1f}" for k in BUDGETS)])
    rows(["accuracy, %", "seeds", *head], body)
    body = []
    for arm in arms:
        both = {k: sorted(found[arm, k].keys() & found[BASE, k].keys()) for k in BUDGETS}
        if arm == BASE or min(map(len, both.values())) < 2:
            continue
        cells = []
        for k in BUDGETS:
            stack = np.stack([found[arm, k][s] - found[BASE, k][s] for s in both[k]])
            cells.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*interval(stack)))
        body.append([arm, *cells])
    rows([f"minus {BASE}, points", *head], body)
    if args.image is not None:
        picture([arm for arm in arms if len(found[arm, 64]) > 1], found, space, args.image)


if __name__ == "__main__":
    main()
