"""Parameter extrapolation: every operator, and the automatic choice, on families whose answers are known.

    python experiments/relational/run.py --output_dir runs/relational --jobs 2
    python experiments/relational/run.py --output_dir runs/relational --jobs 0     # the tables only

A cell is a family, a protocol and a seed; cells that are done are kept. Bank: 50 + 50 tasks, targets beyond them.
Protocols: published (8 context and 8 query points i.i.d. on the domain), half (context in its first half, queries in
the other), noisy (half, and 5 % noise on the context).
"""

import json
import warnings
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from operant.core.rng import numpy_generator
from operant.hf import worker_pool

FAMILIES = ("quadratic", "exp", "cubic", "tri_trend", "sin_trend", "frequency")
PROTOCOLS = {"published": (False, 0.0), "noisy": (True, 0.05), "half": (True, 0.0)}
P = 8


def cell(path: Path, family: str, protocol: str, seed: int, tasks: int) -> None:
    """Errors of every operator on ``tasks`` targets; whether the 90 % interval holds; p-values."""
    from operant.relational import Extrapolator
    from operant.relational.bank.families import FAMILIES as KNOWN

    warnings.simplefilter("ignore")
    f, (half, noise) = KNOWN[family], PROTOCOLS[protocol]
    rng = numpy_generator(seed, family, protocol)
    model = Extrapolator(random_state=seed).fit(f.bank(rng=rng))
    (low, high) = f.domain[0]
    rows = []
    for params in f.targets(tasks, rng):
        x = f.points(2 * P, rng)
        if half:
            x[:P], x[P:] = low + (x[:P] - low) / 2, (low + high) / 2 + (x[P:] - low) / 2
        y = f.values(params, x)[0]
        seen = y[:P] + noise * y.std(0) * rng.standard_normal((P, 1))
        target = model.adapt(x[:P], seen)
        each = {n: v for n, v in target.each(x[P:]).items()}
        each |= {"auto": target.predict(x[P:]), "context mean": np.full(P, seen.mean())}
        lo, hi = target.interval(x[P:])
        rows.append(
            {
                "mse": {n: float(np.mean((v - y[P:, 0]) ** 2)) for n, v in each.items()},
                "holds": float(np.mean((lo <= y[P:, 0]) & (y[P:, 0] <= hi))),
                "p_value": target.applicability().p_value,
                "weights": target.choice_.weights,
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


def interval(values: np.ndarray, over: np.ndarray | None = None, seed: int = 0) -> tuple[float, float]:
    """95 % hierarchical bootstrap of the mean of (seeds, tasks), or of its ratio to another mean of the same tasks."""
    rng = np.random.default_rng(seed)
    s, n = values.shape
    drawn = [(rng.integers(s, size=s)[:, None], rng.integers(n, size=(s, n))) for _ in range(1000)]
    means = [values[d].mean() / (1.0 if over is None else over[d].mean()) for d in drawn]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def table(folder: Path, protocol: str, seeds: int) -> None:
    """Mean squared errors, their intervals, and what the choice costs."""
    print(f"\n{protocol}: mean squared error; (95 % interval); auto against the best plain baseline, and in hindsight")
    for family in FAMILIES:
        files = [folder / f"{protocol}-{family}-{s}.json" for s in range(seeds)]
        data = [json.loads(f.read_text(encoding="utf-8")) for f in files if f.is_file()]
        if not data:
            continue
        names = set.intersection(*(set(r["mse"]) for rows in data for r in rows))
        mse = {n: np.array([[r["mse"][n] for r in rows] for rows in data]) for n in names}
        mean = {n: v.mean() for n, v in mse.items()}
        plain = {"context mean", "nearest task", "interpolation", "polynomial", "GP on the context", "bank PCA"}
        best = min(names - {"auto"}, key=mean.get)
        rival = min(plain & names, key=mean.get)
        holds = np.mean([r["holds"] for rows in data for r in rows])
        alarms = np.mean([r["p_value"] < 0.05 for rows in data for r in rows])
        low, high = interval(mse["auto"])
        least, most = interval(mse["auto"], mse[rival])
        print(f"  {family} ({len(data)} seeds x {len(data[0])} targets)")
        print(f"    auto {mean['auto']:.2e} ({low:.1e} to {high:.1e}), median {np.median(mse['auto']):.1e}; ", end="")
        print(f"90 % intervals hold {holds:.0%}; flagged {alarms:.0%}")
        print(f"    best plain: {rival} {mean[rival]:.2e}, auto is {mean['auto'] / mean[rival]:.3g} of it ", end="")
        print(f"({least:.2g} to {most:.2g}); ", end="")
        print(f"best of all: {best} {mean[best]:.2e}")
        shown = sorted(
            plain | {"shift * scale", "shift * scale * trend", "scale * xscale", "shift * scale * xscale", "span"}
        )
        print("    " + ", ".join(f"{n} {mean[n]:.1e}" for n in shown if n in mean))


def main(output_dir: Path = Path("runs/relational"), seeds: int = 5, tasks: int = 20, jobs: int = 2) -> None:
    """Run what is not done, and print the tables."""
    cells = [
        (output_dir / f"{p}-{f}-{s}.json", f, p, s, tasks) for p in PROTOCOLS for s in range(seeds) for f in FAMILIES
    ]
    todo = [c for c in cells if not c[0].is_file()] if jobs else []
    with worker_pool(max(jobs, 1), threads=1) as pool:
        for done, future in enumerate([pool.submit(cell, *c) for c in todo], 1):
            future.result()
            print(f"{done} of {len(todo)} cells", flush=True)
    for protocol in PROTOCOLS:
        table(output_dir, protocol, seeds)


if __name__ == "__main__":
    auto_cli(main)
