"""Polynomials of degree 9 from a bank of degrees 1 to 8 and eight points each: MSE beside plain baselines.

Run it as ``python experiments/relational/length.py runs/length``. Finished seeds are kept.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from plain import compared, finished, interval, picture, plain, short, stacked, table

from operant.relational import Context, Extend, TaskBank
from operant.relational.bank.primitives import polynomial_params, polynomial_values, polynomials
from operant.reproduce import write_comparisons

CEILING = "Bayesian polynomial, true prior"


def kriging(bank: TaskBank, c: Context, q: np.ndarray) -> np.ndarray:
    """Conditional mean under the mean and covariance of the bank's tasks."""
    v = bank.values(np.concatenate([c.x, q]))[:, :, 0]
    p, mean, k = len(c.x), v.mean(0), np.cov(v.T)
    return (mean[p:] + k[p:, :p] @ np.linalg.solve(k[:p, :p] + 1e-8 * np.eye(p), c.y[:, 0] - mean[:p]))[:, None]


def true_prior(x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Original units: c_p 5^p of the variance of U(-2, 2), up to degree 9; the ceiling of linear methods."""
    a, b = (np.vander(z[:, 0] / 5, 10, increasing=True) for z in (x, q))
    return b @ np.linalg.lstsq(a, y, rcond=None)[0]  # equal variances and no noise: the solution of least norm


def run_seed(seed: int, tasks: int, noise: float) -> dict[str, Any]:
    """MSE of each method; share covered and milliseconds, order unknown and given."""
    rng = np.random.default_rng(1000 + seed)
    bank = polynomials([d for d in range(1, 9) for _ in range(200)], rng=rng)
    s, scaled = bank.scaling, bank.scaled(bank.scaling)
    assert max(t.labels["order"] for t in bank.tasks) == 8
    fitted, others = Extend().fit(scaled), plain(scaled)
    mse, told = dict[str, list[float]](), dict[str, list[float]]()
    for _ in range(tasks):
        x = rng.uniform(-5, 5, (16, 1))
        y = polynomial_values(polynomial_params([9], rng), x)[0]
        seen = y[:8] + noise * y.std() * rng.standard_normal((8, 1))
        c, q, truth = Context(s.x_in(x[:8]), s.y_in(seen)), s.x_in(x[8:]), s.y_in(y[8:])
        guesses = others(c, q) | {"kriging, bank covariance": kriging(scaled, c, q)}
        guesses |= {CEILING: s.y_in(true_prior(x[:8], seen, x[8:]))}
        for name, labels in (("extend", {}), ("extend, order given", {"order": 9})):
            start = time.perf_counter()
            guesses[name], sd = fitted.adapt(Context(c.x, c.y, labels=labels)).predict(q)
            told.setdefault(f"{name}: ms", []).append((time.perf_counter() - start) * 1e3)
            inside = np.abs(guesses[name] - truth) <= 1.645 * sd + 1e-6
            told.setdefault(f"{name}: covered", []).append(float(np.mean(inside)))
        for name, guess in guesses.items():
            mse.setdefault(name, []).append(np.mean((guess - truth) ** 2) * s.y_sd[0] ** 2)
    return {"mse": {n: short(v) for n, v in mse.items()}, **{n: float(np.mean(v)) for n, v in told.items()}}


def main() -> None:
    """Run the missing seeds, print the table, and write the comparison with the best plain method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=200, help="of a seed")
    parser.add_argument("--noise", type=float, default=0.0, help="of the context, in units of a curve's sd")
    parser.add_argument("--quick", action="store_true", help="40 tasks a seed")
    args = parser.parse_args()
    tasks = 40 if args.quick else args.tasks
    parts = [{"seed": seed, "tasks": tasks, "noise": args.noise} for seed in range(args.seeds)]
    rows = finished(args.folder, parts, run_seed)
    errors = stacked(rows)
    table(errors, f"degree 9, noise {args.noise}")
    ratio, low, high = interval([errors["extend"]], [errors[CEILING]])
    print(f"\nextend, order unknown, over the ceiling: {ratio:.2f} ({low:.2f} to {high:.2f})")
    for name in ("extend", "extend, order given"):
        covered, took = (np.mean([row[f"{name}: {what}"] for row in rows]) for what in ("covered", "ms"))
        print(f"{name}: 90 % intervals cover {covered:.1%}, adapt {took:.1f} ms")
    # The ceiling knows the true prior: it is no rival.
    write_comparisons(args.folder, [compared("degree 9, mean squared error", "extend", [errors])])
    if not args.quick:
        picture({"degree 9": errors}, args.folder / "errors.png")


if __name__ == "__main__":
    main()
