"""Figure 1: a projectile faster than all known ones, from networks with and without an anchor, and from plain methods.

    python experiments/relational/projectile.py runs/projectile

Known: 200 trajectories, v from 30 to 60 m/s, 40 to 50 degrees, x up to 200 m. Targets: v = 65. The anchor is the
trajectory at v = 60 and the same angle, as published. The published networks take raw inputs; here they are trained
with raw and with standardized inputs. A part is a seed; finished parts are kept.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import mlp, train
from plain import compared, cubic, finished, picture, process, short, stacked, table
from sklearn.decomposition import PCA

from operant.core.rng import numpy_generator
from operant.relational import Extrapolator, TaskBank
from operant.reproduce import write_comparisons

RANGES = {"x to 200 m, as in training": 200.0, "x to 430 m, the flight": 430.0, "x to 650 m, as published": 650.0}
WITH, WITHOUT, SPAN = "transductive network", "inductive network", "span, three points of the target"
RAW, RAW_WITHOUT = f"{WITH}, raw inputs", f"{WITHOUT}, raw inputs"


def height(x: np.ndarray, v: Any, theta: Any) -> np.ndarray:
    """Of a projectile at x, in meters."""
    a = np.radians(theta)
    return x * np.tan(a) - 9.81 * x**2 / (2 * (v * np.cos(a)) ** 2)


def run(seed: int, tasks: int, steps: int) -> dict[str, Any]:
    """Range -> method -> mean squared errors of the targets, which differ by their angle."""
    rng = numpy_generator(seed, "projectile")
    known = np.column_stack([rng.uniform(30, 60, 200), rng.uniform(40, 50, 200)])

    def rows(batch: int = 64) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        (a, b), x = known[rng.integers(200, size=(2, batch))], rng.uniform(0, 200, batch)
        y = height(x, *a.T)[:, None]
        both = (np.column_stack([x, height(x, *b.T), a - b]), y), (np.column_stack([x, a]), y)
        return dict(zip((WITH, WITHOUT, RAW, RAW_WITHOUT), both * 2, strict=True))

    torch.manual_seed(seed)
    nets = {name: mlp(4 if name in (WITH, RAW) else 3, 64, 64, 1) for name in rows()}
    answer = train(nets, rows, steps, 5e-3, raw=(RAW, RAW_WITHOUT))
    inputs, y = rows(2000)[WITHOUT]
    regressions = {"polynomial": cubic(inputs, y), "Gaussian process": process(inputs[:150], y[:150, 0])}
    curve = lambda p, x: height(x[:, 0], p[:, :1], p[:, 1:])  # noqa: E731
    span = Extrapolator("span").fit(TaskBank.from_callables(curve, np.linspace(0, 650, 64), hidden=known))
    seen, found = np.array([60.0, 120.0, 180.0]), {}
    for name, end in RANGES.items():
        x, mse = np.linspace(0, end, 200), dict[str, list[float]]()
        curves = height(x, known[:, :1], known[:, 1:])
        pca = PCA(4).fit(curves)
        scores = cubic(known, pca.transform(curves))
        for theta in rng.uniform(40, 50, tasks):
            truth, anchor, here = height(x, 65, theta), height(x, 60, theta), np.insert([[65, theta]] * len(x), 0, x, 1)
            guesses = {n: np.ravel(r.predict(here)) for n, r in regressions.items()}
            anchored = np.column_stack([x, anchor, 0 * x + 5, 0 * x])
            guesses |= {n: answer(n, anchored if n in (WITH, RAW) else here)[:, 0] for n in nets} | {
                "nearest task": anchor,
                "interpolation": 2 * anchor - height(x, 55, theta),  # straight on through v = 55 and 60
                "bank PCA": pca.inverse_transform(scores.predict([[65, theta]]))[0],
                SPAN: span.adapt(seen, height(seen, 65, theta)).predict(x),
            }
            for method, guess in guesses.items():
                mse.setdefault(method, []).append(float(np.mean((guess - truth) ** 2)))
        found[name] = {method: short(v) for method, v in mse.items()}
    return found


def main() -> None:
    """Run the missing seeds, print a table a range, and write the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="two seeds and ten targets")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the Gaussian process finds almost no noise
    parts = [{"seed": s, "tasks": 10 if args.quick else 40, "steps": 1000} for s in range(2 if args.quick else 5)]
    rows, comparisons = finished(args.folder, parts, run), []
    errors = {name: stacked(rows, name) for name in RANGES}
    for name, each in errors.items():
        table(each, name)
        ours = min((WITH, RAW), key=lambda n, e=each: e[n].mean())
        if "flight" not in name:  # the better inputs of each, and as published
            comparisons += [compared(name, ours, [each], (WITHOUT, RAW_WITHOUT)), compared(name, ours, [each])]
            comparisons.append(compared(name, RAW, [each], [RAW_WITHOUT], decides=False))
    write_comparisons(args.folder, comparisons)
    if not args.quick:
        drawn = {name: {n: e for n, e in each.items() if n != SPAN} for name, each in errors.items()}  # it is exact
        picture(drawn, args.folder / "errors.png", "mean squared error, m²")


if __name__ == "__main__":
    main()
