"""Speed of relational extrapolation: each number beside its peer or its limit. One thread.

    python benchmarks/relational.py                 # everything
    python benchmarks/relational.py --only compose  # one table
    python benchmarks/relational.py --tasks 500     # smaller

Times are CPU seconds of the one thread, the least of several runs; compare the ratios of one run, not the times of two.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from operant.relational.bank.primitives import KINDS, primitive_params, primitives
from operant.relational.bank.tasks import TaskBank
from operant.relational.extrapolator import Extrapolator
from operant.relational.operators.base import Context
from operant.relational.operators.chain import Tables, profile
from operant.relational.operators.registry import parse_operator


def best_of(runs: int, function: Callable[[], Any]) -> tuple[float, Any]:
    """Least CPU seconds of several runs, after one to warm up, and the last result."""
    result = function()
    times = []
    for _ in range(runs):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return min(times), result


def line(*cells: object) -> None:
    print("{:<44}{:>12}{:>12}{:>10}  {}".format(*(str(c) for c in cells)), flush=True)


def seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.2f} s"


def compose(_: int) -> None:
    """Scoring every pair f_i(g_j(x)) of 50 primitives for 100 targets beside a loop over the pairs."""
    rng, size, targets, p = np.random.default_rng(0), 50, 100, 25
    bank = primitives([KINDS[i % 3] for i in range(size)], rng=rng)
    tables = Tables.of(bank, reach=4.0, knots=4096)
    x, y = rng.uniform(-5, 5, (targets, p, 1)), rng.normal(size=(targets, p))
    own = primitive_params([KINDS[i % 3] for i in range(size)], np.random.default_rng(0))[:, :4].tolist()
    plain = {
        0: lambda z, a, b, c: (a * z + b) * z + c,
        1: lambda z, a, b, c: a * np.sin(b * z + c),
        2: lambda z, a, b, c: a * np.tanh(b * (z - c)),
    }  # the loop's functions cost no more than they must
    functions = [partial(plain[int(k)], a=a, b=b, c=c) for k, a, b, c in own]

    def loop(count: int) -> np.ndarray:
        out = np.empty((count, size, size))
        for t in range(count):
            for j, g in enumerate(functions):
                z = g(x[t, :, 0])
                for i, f in enumerate(functions):
                    h, goal = f(z), y[t] - y[t].mean()
                    h = h - h.mean()
                    out[t, j, i] = ((goal - (h @ goal) / (h @ h + 1e-12) * h) ** 2).sum()
        return out

    def batched() -> np.ndarray:
        z = np.moveaxis(bank.values(x.reshape(-1, 1))[:, :, 0].reshape(size, targets, p), 0, 1).reshape(-1, p)
        left = [
            profile(tables, z[k : k + 500], np.repeat(y, size, 0)[k : k + 500], ridge=1e-12)[0]
            for k in range(0, len(z), 500)
        ]
        return np.concatenate(left).reshape(targets, size, size)

    line(f"scoring {size**2:,} pairs for {targets} targets, {p} points", "time", "goal", "speed-up", "")
    few = 2
    slow, wanted = best_of(1, lambda: loop(few))
    slow *= targets / few
    line("  one pair after the other", seconds(slow), "", "1x", f"measured on {few} targets; inner values shared")
    took, scores = best_of(3, batched)
    apart = np.quantile(np.abs(scores[:few] - wanted) / wanted, 0.99)
    note = f"relative difference {apart:.0e} (99 % of pairs)"
    line("  profile, all at once", seconds(took), seconds(slow / 20), f"{slow / took:,.0f}x", note + "\n")


CLOSED = ("span", "bank PCA", "shift", "scale", "shift * scale", "shift * scale * trend")
WARPS = ("shift * xshift", "scale * xscale", "shift * scale * xscale", "shift * scale * xshift * xscale")


def banks(tasks: int) -> dict[str, TaskBank]:
    """c0 + c1 sin x + c2 exp(-x) at 50 points: the same ones for all tasks, or each task's own."""
    rng = np.random.default_rng(0)
    c = rng.normal(size=(tasks, 3))
    same = np.tile(np.linspace(0, 5, 50), (tasks, 1))
    own = np.sort(rng.uniform(0, 5, same.shape), axis=1)
    return {
        name: TaskBank.from_arrays(
            [(p, k[0] + k[1] * np.sin(p) + k[2] * np.exp(-p)) for k, p in zip(c, x, strict=True)]
        )
        for name, x in (("shared points", same), ("ragged", own))
    }


def extrapolate(tasks: int) -> None:
    """Fitting the estimator, and adapting it to a target of 8 points, by operator."""
    tasks = min(tasks, 1000)
    for name, bank in banks(tasks).items():
        line(f"{tasks:,} tasks x 50 points, {name}", "time", "goal", "", "")
        start = time.process_time()
        model = Extrapolator().fit(bank)
        line("  fit", seconds(time.process_time() - start), "10 s", "", "all operators of auto; once, from cold")
        x = np.linspace(0, 3, 8)
        targets = [np.float64(k) + np.sin(x) for k in range(4)]
        assert model.bank_ is not None
        s = model.scaling_
        for operator in (*CLOSED, *WARPS):
            fitted = parse_operator(operator).fit(model.bank_)
            each = [Context(s.x_in(x[:, None]), s.y_in(y[:, None])) for y in targets]
            took, _ = best_of(5, lambda f=fitted, each=each: [f.adapt(c) for c in each])
            closed = operator in CLOSED
            line(f"  adapt: {operator}", seconds(took / 4), "5 ms" if closed else "", "", "" if closed else "iterated")
        for which, y in (("first", targets[0]), ("another, same points and direction", targets[0] + 0.01)):
            start = time.process_time()
            model.adapt(x, y)
            line(f"  adapt: auto, {which}", seconds(time.process_time() - start), "", "", "")
        print()


TABLES: dict[str, Callable[[int], None]] = {"compose": compose, "extrapolate": extrapolate}
"""By the name that ``--only`` takes; each prints its rows for a number of tasks."""


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(TABLES), help="one table")
    parser.add_argument("--tasks", type=int, default=8000, help="tasks of the bank (default 8000)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, table in TABLES.items():
        if arguments.only in (None, name):
            table(arguments.tasks)


if __name__ == "__main__":
    main()
