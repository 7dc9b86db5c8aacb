"""Targets f(g(x)), or deeper, from a library of primitives and some points: MSE beside plain baselines.

    python experiments/relational/composition.py runs/composition              # 25 context points of 50
    python experiments/relational/composition.py runs/composition_half --half
    python experiments/relational/composition.py runs/composition_depth3 --depth 3 --tasks 40

Finished seeds are kept: the same command continues a run that was stopped.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from plain import compared, finished, interval, picture, plain, short, stacked, table

from operant.relational import Compose, Context, parse_operator
from operant.relational.bank.primitives import KINDS, composed, primitive_params, primitives
from operant.reproduce import write_comparisons

HELD_OUT = [r for r in np.ndindex(3, 3, 3) if (1, 2) in (r[:2], r[1:])]
"""Recipes of depth 3 in which sin is immediately followed by tanh."""


def target(depth: int, half: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x (2 P, 1) and y (2 P, 1): the first half is the context."""
    recipe = HELD_OUT[rng.integers(len(HELD_OUT))] if depth == 3 else rng.integers(3, size=depth)
    stages = [primitive_params([KINDS[k]], rng, rescaled=depth == 3) for k in recipe]
    p = 50 if depth == 3 else 25
    x = rng.uniform(-5, 5, (2 * p, 1))
    if half:
        x = np.concatenate([-np.abs(x[:p]), np.abs(x[p:])])
    return x, composed(stages, x)[0]


def run_seed(seed: int, tasks: int, depth: int, half: bool, noise: float) -> dict[str, Any]:
    """MSE of each method; of compose the share covered, exact fits, mean sd and seconds."""
    rng = np.random.default_rng(1000 + seed)
    count = 500 if depth == 3 else 3000
    bank = primitives([k for k in KINDS for _ in range(count)], rng=rng, rescaled=depth == 3)
    scaled, s = bank.scaled(bank.scaling), bank.scaling
    fitted, line = Compose(depth=depth, random_state=seed).fit(scaled), parse_operator("interpolation").fit(scaled)
    others = plain(scaled.select(range(0, len(scaled), count // 100)))  # 300 primitives: the bank's PCA and kernel
    mse, told = dict[str, list[float]](), dict[str, list[float]]()
    for _ in range(tasks):
        x, y = target(depth, half, rng)
        p = len(x) // 2
        seen = y[:p] + noise * y.std() * rng.standard_normal((p, 1))
        context, q, truth = Context(s.x_in(x[:p]), s.y_in(seen)), s.x_in(x[p:]), s.y_in(y[p:])
        guesses = others(context, q) | {"best plain chain": fitted.plain(context).predict(q)[0]}
        start = time.perf_counter()
        adapted = fitted.adapt(context)
        guess, sd = adapted.predict(q)
        took = time.perf_counter() - start
        left = line.adapt(context).left_out()[0] - context.y
        trusted = np.mean((adapted.left_out()[0] - context.y) ** 2) < np.nanmean(left**2)
        guesses |= {
            "compose": guess,
            "compose, or interpolation by LOO": guess if trusted else guesses["interpolation"],
        }
        for name, g in guesses.items():
            mse.setdefault(name, []).append(np.mean((g - truth) ** 2) * s.y_sd[0] ** 2)
        facts = {"covered": np.mean(np.abs(guess - truth) <= 1.645 * sd + 1e-6), "exact": float(adapted.exact)}
        for name, fact in (facts | {"sd": sd.mean() * s.y_sd[0], "seconds": took}).items():
            told.setdefault(name, []).append(float(fact))
    return {name: {n: short(v) for n, v in found.items()} for name, found in (("mse", mse), ("facts", told))}


def main() -> None:
    """Run the seeds that are missing, print the table, and write the comparison with the best plain method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--depth", type=int, default=2, choices=[2, 3])
    parser.add_argument("--half", action="store_true", help="context in [-5, 0], queries in [0, 5]")
    parser.add_argument("--noise", type=float, default=0.0, help="of the context, in units of a curve's sd")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=200, help="of a seed")
    parser.add_argument("--quick", action="store_true", help="five tasks a seed")
    args = parser.parse_args()
    part = {"tasks": 5 if args.quick else args.tasks, "depth": args.depth, "half": args.half, "noise": args.noise}
    rows = finished(args.folder, [{"seed": seed, **part} for seed in range(args.seeds)], run_seed)
    errors, facts = stacked(rows), stacked(rows, "facts")
    table(errors, f"depth {args.depth}, half {args.half}, noise {args.noise}")
    e = errors["compose"]
    print("\nMSE of the method / MSE of compose, 95 % interval")
    for name, others in errors.items():
        print(f"{name}: {{:.2g}} ({{:.2g}} to {{:.2g}})".format(*interval([others], [e])))
    covered, exact, took = (facts[name].mean() for name in ("covered", "exact", "seconds"))
    print(f"exact fits {exact:.1%}; 90 % intervals cover {covered:.1%}; {took:.2f} s a target")
    bad, told = e > 0.1, (np.sqrt(e) < 3 * facts["sd"]) & (e > 0.1)
    print(f"MSE > 0.1 in {bad.sum()} of {bad.size}; in {told.sum()} of these the root mean square error is below 3 sd")
    what = f"depth {args.depth}, mean squared error"
    write_comparisons(args.folder, [compared(what, "compose", [errors])])
    if not args.quick:
        picture({f"depth {args.depth}": errors}, args.folder / "errors.png")


if __name__ == "__main__":
    main()
