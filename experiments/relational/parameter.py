"""Parameter extrapolation: the published networks, trained alike, beside plain baselines and exact operators.

    python experiments/relational/parameter.py runs/parameter                      # one width beyond, section 3.1
    python experiments/relational/parameter.py runs/multi_step --regions F4 F5     # three and four, appendix B.1.1

A part is a family and a seed; finished parts are kept. Eight context points and eight queries are i.i.d. on the domain.
In F4 and F5 the points are sorted, as published, so that the queries lie beyond the context.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from networks import GRID, NETWORK, TUNED, WALK, WITHOUT, P, Published
from plain import OPERATORS, compared, finished, picture, plain, short, stacked, table

from operant.core.rng import numpy_generator
from operant.relational import Context
from operant.relational.bank.families import FAMILIES
from operant.reproduce import write_comparisons

NAMES = ("quadratic", "exp", "cubic", "tri_trend", "sin_trend")
REGIONS = {"F2": 1, "F4": 3, "F5": 4}
"""Widths beyond the bank, which are also the steps of the published walk."""
EXACT = ("span", "shift * scale * xscale")


def run(family: str, seed: int, tasks: int, steps: int, regions: list[str]) -> dict[str, Any]:
    """Region -> method -> mean squared errors of the targets."""
    f, networks = FAMILIES[family], Published(family, seed, steps)
    s, operators = networks.bank.scaling, (*OPERATORS, "shift * scale", *EXACT)
    predict = plain(networks.bank.scaled(s), operators, own=False)
    (low, high), found = f.regions["outer"].sides[0], {}  # type: ignore[attr-defined]
    for region in REGIONS:  # all: the anchors of one region are drawn after those of the one before
        rng, mse = numpy_generator(seed, family, region), dict[str, list[float]]()
        for params in f.targets(tasks, rng):
            params[0] += (REGIONS[region] - 1) * (high - low)
            x = f.points(2 * P, rng)
            x = x if region == "F2" else np.sort(x, axis=0)
            y, curve = f.values(params, x)[0], f.values(params, GRID)[0, :, 0]
            guesses = {n: s.y_out(v) for n, v in predict(Context(s.x_in(x[:P]), s.y_in(y[:P])), s.x_in(x[P:])).items()}
            guesses |= {n: v[:, None] for n, v in networks(x[:, 0], y[:P, 0], curve, REGIONS[region]).items()}
            for name, guess in guesses.items():
                mse.setdefault(name, []).append(float(np.mean((guess - y[P:]) ** 2)))
        found[region] = {name: short(v) for name, v in mse.items()}
    return {region: found[region] for region in regions}


def main() -> None:
    """Run the missing parts, print a table a family and region, and write the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--regions", nargs="+", default=["F2"], choices=list(REGIONS))
    parser.add_argument("--quick", action="store_true", help="one seed, 200 steps and eight targets")
    args = parser.parse_args()
    size = {"tasks": 8, "steps": 200} if args.quick else {"tasks": 40, "steps": 4000}
    parts = [
        {"family": n, "seed": s, **size, "regions": args.regions} for s in range(1 if args.quick else 5) for n in NAMES
    ]
    rows, comparisons = finished(args.folder, parts, run), []
    for region in args.regions:
        errors = {n: stacked([r for r in rows if r["part"]["family"] == n], region) for n in NAMES}
        for name, each in errors.items():
            table(each, f"{name}, {region}")
        ours = NETWORK if region == "F2" else WALK
        # Of the error of the context's mean; below 1e-12 of it, errors are rounding.
        relative = [{n: np.maximum(v / e["context mean"].mean(), 1e-12) for n, v in e.items()} for e in errors.values()]
        what = f"{region}, five families, error over that of the context's mean"
        comparisons += [compared(what, ours, relative, (WITHOUT, TUNED)), compared(what, ours, relative)]
        comparisons.append(compared(what, EXACT[0], relative, decides=False))
        if not args.quick:
            picture({n: e for n, e in errors.items()}, args.folder / f"errors_{region}.png")
    write_comparisons(args.folder, comparisons)


if __name__ == "__main__":
    main()
