"""Polynomials of degree 9 from a bank of degrees 1 to 8 and eight points each: MSE beside plain baselines.

Run it as ``python experiments/relational_length/run.py runs/length``.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from operant.relational import Context, Extend, TaskBank
from operant.relational.bank.primitives import polynomial_params, polynomial_values, polynomials
from operant.relational.operators.baselines import Polynomial
from operant.reproduce import Comparison, write_comparisons

METHODS = ("context mean", "interpolation", "polynomial, degree by LOO", "Gaussian process", "kriging, bank covariance")
METHODS += ("Bayesian polynomial, true prior", "extend, order unknown", "extend, order given")


def gp(x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """scikit-learn's GP with an RBF kernel and noise, fitted to this context alone."""
    kernel = ConstantKernel() * RBF(0.5, (0.02, 10)) + WhiteKernel(1e-6, (1e-9, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianProcessRegressor(kernel, alpha=1e-8, normalize_y=True).fit(x, y[:, 0]).predict(q)[:, None]


def kriging(bank: TaskBank, c: Context, q: np.ndarray) -> np.ndarray:
    """Conditional mean under the mean and covariance of the bank's tasks."""
    v = bank.values(np.concatenate([c.x, q]))[:, :, 0]
    p, mean, k = len(c.x), v.mean(0), np.cov(v.T)
    return (mean[p:] + k[p:, :p] @ np.linalg.solve(k[:p, :p] + 1e-8 * np.eye(p), c.y[:, 0] - mean[:p]))[:, None]


def true_prior(x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Original units: c_p 5^p of the variance of U(-2, 2), up to degree 9; the ceiling of linear methods."""
    a, b = (np.vander(z[:, 0] / 5, 10, increasing=True) for z in (x, q))
    return b @ np.linalg.lstsq(a, y, rcond=None)[0]  # equal variances and no noise: the solution of least norm


def run_seed(seed: int, tasks: int, noise: float) -> np.ndarray:
    """(tasks, 8 + 4): MSE of each method; share covered and milliseconds, order unknown and given."""
    rng = np.random.default_rng(1000 + seed)
    bank = polynomials([d for d in range(1, 9) for _ in range(200)], rng=rng)
    s, scaled = bank.scaling, bank.scaled(bank.scaling)
    assert max(t.labels["order"] for t in bank.tasks) == 8
    fitted, poly = Extend().fit(scaled), Polynomial().fit(scaled)
    rows = []
    for _ in range(tasks):
        x = rng.uniform(-5, 5, (16, 1))
        y = polynomial_values(polynomial_params([9], rng), x)[0]
        seen = y[:8] + noise * y.std() * rng.standard_normal((8, 1))
        c, q, truth = Context(s.x_in(x[:8]), s.y_in(seen)), s.x_in(x[8:]), s.y_in(y[8:])
        order = np.argsort(c.x[:, 0])
        guesses = [np.full_like(truth, c.y.mean()), np.interp(q[:, 0], c.x[order, 0], c.y[order, 0])[:, None]]
        guesses += [poly.adapt(c).predict(q)[0], gp(c.x, c.y, q), kriging(scaled, c, q)]
        guesses += [s.y_in(true_prior(x[:8], seen, x[8:]))]
        extra = []
        for labels in ({}, {"order": 9}):
            start = time.perf_counter()
            adapted = fitted.adapt(Context(c.x, c.y, labels=labels))
            took = time.perf_counter() - start
            guess, sd = adapted.predict(q)
            guesses.append(guess)
            extra += [np.mean(np.abs(guess - truth) <= 1.645 * sd + 1e-6), took * 1e3]
        rows.append([*(np.mean((g - truth) ** 2) * s.y_sd[0] ** 2 for g in guesses), *extra])
    return np.array(rows)


def interval(values: np.ndarray, over: np.ndarray | None = None, n: int = 4000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of (seeds, tasks), or of its ratio to another mean."""
    rng, (a, b) = np.random.default_rng(0), values.shape
    drawn = [(rng.integers(a, size=a)[:, None], rng.integers(b, size=(a, b))) for _ in range(n)]
    draws = [values[d].mean() / (1.0 if over is None else over[d].mean()) for d in drawn]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Print the table and keep its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=200, help="of a seed")
    parser.add_argument("--noise", type=float, default=0.0, help="of the context, in units of a curve's sd")
    parser.add_argument("--quick", action="store_true", help="40 tasks a seed")
    args = parser.parse_args()
    seeds, tasks = args.seeds, 40 if args.quick else args.tasks
    r = np.stack([run_seed(seed, tasks, args.noise) for seed in range(seeds)])  # (seeds, tasks, 12)
    args.folder.mkdir(parents=True, exist_ok=True)
    np.save(args.folder / "results.npy", r)
    print(f"{seeds} seeds x {tasks} tasks, noise {args.noise}\n")
    print("| method | MSE | 95 % interval | median |\n|---|---|---|---|")
    for i, name in enumerate(METHODS):
        low, high = interval(r[..., i])
        print(f"| {name} | {r[..., i].mean():.3g} | {low:.3g} to {high:.3g} | {np.median(r[..., i]):.2g} |")
    low, high = interval(r[..., 6] - r[..., 5])
    print(f"\nextend (order unknown) - ceiling: {(r[..., 6] - r[..., 5]).mean():+.4f} ({low:+.4f} to {high:+.4f})")
    for name, i in (("unknown", 8), ("given", 10)):
        took = np.median(r[..., i + 1])
        print(f"order {name}: 90 % intervals cover {r[..., i].mean():.1%}, adapt {took:.1f} ms (median)")
    ours, best = r[..., 6], min(range(5), key=lambda i: r[..., i].mean())  # the ceiling, row 5, knows the true prior
    low, high = interval(r[..., best], ours)
    effect = {"effect": float(r[..., best].mean() / ours.mean()), "low": low, "high": high, "neutral": 1.0}
    values = ("extend", float(ours.mean()), METHODS[best], float(r[..., best].mean()))
    write_comparisons(
        args.folder, [Comparison("degree 9, mean squared error", *values, **effect, unit="", seeds=seeds)]
    )


if __name__ == "__main__":
    main()
