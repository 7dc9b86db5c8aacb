"""Targets f(g(x)), or deeper, from a library of primitives and some points: MSE beside plain baselines.

    python experiments/relational_composition/run.py runs/composition              # 25 context points of 50
    python experiments/relational_composition/run.py runs/composition_half --half
    python experiments/relational_composition/run.py runs/composition_depth3 --depth 3 --tasks 40

Finished seeds are kept: the same command continues a run that was stopped.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from operant.relational import Compose, Context, RelationalOperator, TaskBank
from operant.relational.bank.primitives import KINDS, composed, primitive_params, primitives
from operant.relational.operators.baselines import ContextMean, Interpolation, Polynomial
from operant.reproduce import Comparison, write_comparisons

HELD_OUT = [r for r in np.ndindex(3, 3, 3) if (1, 2) in (r[:2], r[1:])]
"""Recipes of depth 3 in which sin is immediately followed by tanh."""
METHODS = ("context mean", "interpolation", "polynomial, degree by LOO", "Gaussian process", "best plain chain")
METHODS += ("compose", "compose, or interpolation by LOO")


def gp(x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """scikit-learn's GP with an RBF kernel and noise, fitted to this context alone."""
    kernel = ConstantKernel() * RBF(0.2, (0.02, 10)) + WhiteKernel(1e-6, (1e-9, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianProcessRegressor(kernel, alpha=1e-8, normalize_y=True).fit(x, y[:, 0]).predict(q)[:, None]


def target(depth: int, half: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x (2 P, 1) and y (2 P, 1): the first half is the context."""
    recipe = HELD_OUT[rng.integers(len(HELD_OUT))] if depth == 3 else rng.integers(3, size=depth)
    stages = [primitive_params([KINDS[k]], rng, rescaled=depth == 3) for k in recipe]
    p = 50 if depth == 3 else 25
    x = rng.uniform(-5, 5, (2 * p, 1))
    if half:
        x = np.concatenate([-np.abs(x[:p]), np.abs(x[p:])])
    return x, composed(stages, x)[0]


def run_seed(seed: int, tasks: int, depth: int, half: bool, noise: float) -> np.ndarray:
    """(tasks, 7 + 4): MSE of each method, and of compose the share covered, exact fits, mean sd and seconds."""
    rng = np.random.default_rng(1000 + seed)
    count = 500 if depth == 3 else 3000
    bank = primitives([k for k in KINDS for _ in range(count)], rng=rng, rescaled=depth == 3)
    scaled, s = bank.scaled(bank.scaling), bank.scaling
    fitted = Compose(depth=depth, random_state=seed).fit(scaled)
    few = TaskBank(scaled.tasks[:2], scaled.x_names, scaled.y_names)  # these baselines do not use it
    plain: list[RelationalOperator] = [ContextMean(), Interpolation(), Polynomial()]
    mean, line, poly = (o.fit(few) for o in plain)
    rows = []
    for _ in range(tasks):
        x, y = target(depth, half, rng)
        p = len(x) // 2
        seen = y[:p] + noise * y.std() * rng.standard_normal((p, 1))
        context, q, truth = Context(s.x_in(x[:p]), s.y_in(seen)), s.x_in(x[p:]), s.y_in(y[p:])
        order = np.argsort(context.x[:, 0])
        guesses = [mean.adapt(context).predict(q)[0]]
        guesses.append(np.interp(q[:, 0], context.x[order, 0], context.y[order, 0])[:, None])  # level beyond the ends
        guesses += [poly.adapt(context).predict(q)[0], gp(context.x, context.y, q), fitted.plain(context).predict(q)[0]]
        start = time.perf_counter()
        adapted = fitted.adapt(context)
        guess, sd = adapted.predict(q)
        took = time.perf_counter() - start
        others = line.adapt(context).left_out()[0] - context.y
        trusted = np.mean((adapted.left_out()[0] - context.y) ** 2) < np.nanmean(others**2)
        guesses += [guess, guess if trusted else guesses[1]]
        mse = [np.mean((g - truth) ** 2) * s.y_sd[0] ** 2 for g in guesses]
        covered = np.mean(np.abs(guess - truth) <= 1.645 * sd + 1e-6)
        rows.append([*mse, covered, adapted.exact, sd.mean() * s.y_sd[0], took])
    return np.array(rows)


def bootstrap(values: np.ndarray, statistic: Callable, n: int = 2000) -> tuple[float, float]:
    """95 % interval over seeds, and over tasks within a seed: values (seeds, tasks, ..)."""
    rng, (a, b) = np.random.default_rng(0), values.shape[:2]
    draws = [statistic(values[rng.integers(a, size=a)[:, None], rng.integers(b, size=(a, b))]) for _ in range(n)]
    return tuple(np.quantile(draws, [0.025, 0.975]))


def main() -> None:
    """Run the seeds that are missing, print the table, and write the comparison with the best plain method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--depth", type=int, default=2, choices=[2, 3])
    parser.add_argument("--half", action="store_true", help="context in [-5, 0], queries in [0, 5]")
    parser.add_argument("--noise", type=float, default=0.0, help="of the context, in units of a curve's sd")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=200, help="of a seed")
    parser.add_argument("--quick", action="store_true", help="8 tasks a seed")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    tasks, files = 8 if args.quick else args.tasks, [args.folder / f"seed{seed}.npy" for seed in range(args.seeds)]
    for seed, path in enumerate(files):
        if not path.is_file():
            np.save(path, run_seed(seed, tasks, args.depth, args.half, args.noise))
    r = np.stack([np.load(path)[:tasks] for path in files])  # (seeds, tasks, 11)
    print(f"{r.shape[0]} seeds x {r.shape[1]} tasks, depth {args.depth}, half {args.half}, noise {args.noise}\n")
    print("| method | MSE | 95 % interval | median | 95th percentile | ratio |\n|---|---|---|---|---|---|")
    for i, name in enumerate(METHODS):
        (low, high), e = bootstrap(r[..., i], np.mean), r[..., i]
        ratio = "{:.2g} to {:.2g}".format(*bootstrap(r[..., [i, 5]], lambda v: v[..., 0].mean() / v[..., 1].mean()))
        cells = f"{e.mean():.3g} | {low:.3g} to {high:.3g} | {np.median(e):.2g} | {np.quantile(e, 0.95):.2g}"
        print(f"| {name} | {cells} | {ratio} |")
    e, covered, exact, sd, took = r[..., 5], *np.moveaxis(r[..., 7:], -1, 0)
    bad = e > 0.1
    told = ((np.sqrt(e) < 3 * sd) & bad).sum()
    print("\nratio: MSE of the method / MSE of compose, 95 % interval")
    print(f"exact fits {exact.mean():.1%}; 90 % intervals cover {covered.mean():.1%}; {took.mean():.2f} s a target")
    print(f"MSE > 0.1 in {bad.sum()} of {bad.size}, and in {told} of these the root mean square error is below 3 sd")
    best = min(range(5), key=lambda i: r[..., i].mean())
    low, high = bootstrap(r[..., [best, 5]], lambda v: v[..., 0].mean() / v[..., 1].mean())
    values = ("compose", float(e.mean()), METHODS[best], float(r[..., best].mean()))
    effect = {"effect": values[3] / values[1], "low": float(low), "high": float(high), "neutral": 1.0, "unit": ""}
    what = f"depth {args.depth}, mean squared error"
    write_comparisons(args.folder, [Comparison(what, *values, **effect, seeds=args.seeds)])


if __name__ == "__main__":
    main()
