"""Sines whose frequency lies beyond a measured bank's: there an anchor ends before the query does.

    python experiments/relational/sine.py --tasks 100

Bank: 100 curves A sin(w x), w in [.4, 1], measured at 200 points of [0, 20]. Targets: w in [1, 1.3], 8 context points,
64 query points on [0, 20]. Anchor x -> (w / w0) x is asked for up to 20 w / w0, beyond its last point. Protocols:
anywhere (context i.i.d. on the domain), half (context in its first half, all of the domain asked for), noisy (anywhere,
with noise of 5 % of the spread on the bank and on the context).
"""

import json
import time
import warnings
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from operant.core.rng import numpy_generator
from operant.relational import Extrapolator, TaskBank

AMPLITUDES = {"A = 1": (1.0, 1.0), "A in [.5, 2]": (0.5, 2.0)}
PROTOCOLS = {"anywhere": (20.0, 0.0), "half": (10.0, 0.0), "noisy": (20.0, 0.05)}
END, P, Q = 20.0, 8, 64


def draw(n: int, w: tuple[float, float], a: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """(n, 2) amplitudes and frequencies."""
    return np.column_stack([rng.uniform(*a, n), rng.uniform(*w, n)])


def sine(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A sin(w x)."""
    return p[0] * np.sin(p[1] * x)


def cell(amplitude: str, protocol: str, operator: str, tasks: int, seed: int) -> dict[str, list[float]]:
    """A row a target: squared errors where the bank's fastest anchor covers the query, beyond it, and of all."""
    a, (end, noise) = AMPLITUDES[amplitude], PROTOCOLS[protocol]
    rng = numpy_generator(seed, "sine", amplitude, protocol)
    x = np.linspace(0, END, 200)
    bank = draw(100, (0.4, 1.0), a, rng)
    curves = [sine(p, x) for p in bank]
    measured = [(x, y + noise * y.std() * rng.standard_normal(len(x))) for y in curves]
    model = Extrapolator(operator, random_state=seed).fit(TaskBank.from_arrays(measured))
    q, fastest = np.linspace(0, END, Q), bank[:, 1].max()
    rows: dict[str, list[float]] = {n: [] for n in ("all", "covered", "beyond", "holds", "beyond holds", "seconds")}
    for p in draw(tasks, (1.0, 1.3), a, rng):
        c = rng.uniform(0, end, P)
        y = sine(p, c) + noise * sine(p, x).std() * rng.standard_normal(P)
        start = time.process_time()
        target = model.adapt(c, y, query=q)
        rows["seconds"].append(time.process_time() - start)
        truth, (low, high) = sine(p, q), target.interval(q)
        square, holds = (target.predict(q) - truth) ** 2, (low <= truth) & (truth <= high)
        beyond = q > END * fastest / p[1]
        parts = {"all": square, "covered": square[~beyond], "beyond": square[beyond]}
        for name, value in (parts | {"holds": holds, "beyond holds": holds[beyond]}).items():
            rows[name].append(float(np.mean(value)) if len(value) else float("nan"))
    return rows


def main(tasks: int = 50, seeds: int = 2, operators: str = "auto,scale * xscale", output: Path | None = None) -> None:
    """Print a row for every amplitude, protocol and operator."""
    warnings.simplefilter("ignore")
    names = ("all", "covered", "beyond")
    print(f"{'':42}" + "".join(f"{n:>10}" for n in (*names, "median", "90 % in", "beyond", "s")))
    kept = {}
    for amplitude in AMPLITUDES:
        for protocol in PROTOCOLS:
            for operator in operators.split(","):
                cells = [cell(amplitude, protocol, operator, tasks, seed) for seed in range(seeds)]
                rows = {n: np.concatenate([c[n] for c in cells]) for n in cells[0]}
                kept[f"{amplitude}, {protocol}, {operator}"] = {n: v.tolist() for n, v in rows.items()}
                mean = {n: float(np.nanmean(v)) for n, v in rows.items()}
                line = "".join(f"{mean[n]:10.2g}" for n in names) + f"{np.median(rows['all']):10.2g}"
                line += f"{mean['holds']:10.0%}{mean['beyond holds']:10.0%}{mean['seconds']:10.2g}"
                print(f"{amplitude + ', ' + protocol + ', ' + operator:42}{line}", flush=True)
    if output is not None:
        output.write_text(json.dumps(kept), encoding="utf-8")


if __name__ == "__main__":
    auto_cli(main)
