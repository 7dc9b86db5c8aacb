"""What the relational claims share: plain baselines, finished parts, intervals, table and picture."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from operant.core.record import append_record
from operant.relational import Context, TaskBank, parse_operator
from operant.reproduce import Comparison

Errors = Mapping[str, np.ndarray]
"""Method -> (seeds, targets) mean squared errors."""
OPERATORS = ("context mean", "nearest task", "polynomial", "GP on the context", "bank PCA")
PLAIN = (
    *OPERATORS,
    "interpolation",
    "Gaussian process",
    "affine in a task",
    "kriging, bank covariance",
    "best plain chain",
)
"""The sceptic's methods."""


def gp(c: Context, q: np.ndarray) -> np.ndarray:
    """scikit-learn's GP with an RBF kernel and noise, fitted to this context alone."""
    kernel = ConstantKernel() * RBF(0.3, (0.02, 10)) + WhiteKernel(1e-6, (1e-9, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        process = GaussianProcessRegressor(kernel, alpha=1e-8, normalize_y=True).fit(c.x, c.y[:, 0])
        return np.asarray(process.predict(q))[:, None]


def cubic(x: np.ndarray, y: np.ndarray) -> Any:
    """Polynomials of several inputs, up to degree three, by least squares."""
    return make_pipeline(StandardScaler(), PolynomialFeatures(3), LinearRegression()).fit(x, y)


def process(x: np.ndarray, y: np.ndarray) -> Any:
    """scikit-learn's GP of several inputs, a length of its own for each."""
    kernel = ConstantKernel(10.0) * RBF([1.0] * x.shape[1], (0.1, 1e3)) + WhiteKernel(1e-6, (1e-9, 1))
    return make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True)).fit(x, y)


def plain(
    bank: TaskBank, operators: Iterable[str] = (*OPERATORS, "shift * scale"), *, own: bool = True
) -> Callable[..., dict[str, np.ndarray]]:
    """Context, query -> prediction of every plain method, in the units of a scaled bank; ``own``: the slow GP too."""
    shown = {"shift * scale": "affine in a task"}
    fitted = {shown.get(name, name): parse_operator(name).fit(bank) for name in operators}

    def predict(c: Context, q: np.ndarray) -> dict[str, np.ndarray]:
        order = np.argsort(c.x[:, 0])
        found = {name: f.adapt(c).predict(q)[0] for name, f in fitted.items()}
        level = np.interp(q[:, 0], c.x[order, 0], c.y[order, 0])[:, None]  # level beyond the ends
        return found | {"interpolation": level} | ({"Gaussian process": gp(c, q)} if own else {})

    return predict


def finished(folder: Path, parts: Sequence[dict[str, Any]], run: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of every part: those of ``results.jsonl``, and the missing ones, which are run and kept there."""
    path = folder / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    done = {json.dumps(row["part"], sort_keys=True): row for row in rows}
    for number, part in enumerate(parts, start=1):
        if (key := json.dumps(part, sort_keys=True)) not in done:
            done[key] = {"part": part, **run(**part)}
            append_record(path, "part", **done[key])
            print(f"{number} of {len(parts)}: {', '.join(f'{k} {v}' for k, v in part.items())}", flush=True)
    return [done[json.dumps(part, sort_keys=True)] for part in parts]


def short(values: Iterable[float]) -> list[float]:
    """Four digits each, for a file."""
    return [float(f"{v:.4g}") for v in values]


def stacked(rows: Sequence[Mapping[str, Any]], key: str = "mse") -> dict[str, np.ndarray]:
    """Method -> (seeds, targets) of the rows of all seeds."""
    return {name: np.array([row[key][name] for row in rows]) for name in rows[0][key]}


def interval(families: Sequence[np.ndarray], over: Sequence[np.ndarray] | None = None) -> tuple[float, float, float]:
    """Geometric mean over families of the mean of (seeds, targets), or of its ratio to others; 95 % interval.

    The interval is a hierarchical bootstrap over seeds, and over targets within a seed.
    """
    rng, (a, b) = np.random.default_rng(0), families[0].shape
    drawn = [(np.arange(a)[:, None], np.arange(b)[None].repeat(a, 0))]
    drawn += [(rng.integers(a, size=a)[:, None], rng.integers(b, size=(a, b))) for _ in range(2000)]
    logs = [[math.log(max(v[d].mean(), 1e-300)) for v in families] for d in drawn]
    if over is not None:
        logs = [
            [x - math.log(max(v[d].mean(), 1e-300)) for x, v in zip(row, over, strict=True)]
            for d, row in zip(drawn, logs, strict=True)
        ]
    means = np.exp(np.mean(logs, axis=1))
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return float(means[0]), float(min(low, means[0])), float(max(high, means[0]))


def compared(what: str, ours: str, families: Sequence[Errors], among: Sequence[str] = PLAIN, **more: Any) -> Comparison:
    """How many times the error of the best of others is that of ours; families weigh the same."""
    rivals = [min((n for n in among if n in errors), key=lambda n, e=errors: e[n].mean()) for errors in families]
    mine, theirs = [f[ours] for f in families], [f[n] for f, n in zip(families, rivals, strict=True)]
    effect, low, high = interval(theirs, mine)
    name = rivals[0] if len(set(rivals)) == 1 else "best of each family"
    values = (interval(mine)[0], name, interval(theirs)[0], effect, low, high)
    return Comparison(what, ours, *values, neutral=1.0, unit="", seeds=len(mine[0]), **more)


def table(errors: Errors, title: str) -> None:
    """Print the mean of each method with its interval, and the median."""
    seeds, tasks = next(iter(errors.values())).shape
    print(f"\n{title}: {seeds} seeds x {tasks} targets\n\n| method | MSE | 95 % interval | median |\n|---|---|---|---|")
    for name, e in sorted(errors.items(), key=lambda item: -item[1].mean()):
        mean, low, high = interval([e])
        print(f"| {name} | {mean:.3g} | {low:.3g} to {high:.3g} | {np.median(e):.2g} |")


def picture(groups: Mapping[str, Errors], path: Path, title: str = "mean squared error") -> None:
    """A dot with its interval for each method, a panel a group; errors below 1e-12 are drawn there."""
    import altair as alt
    from PIL import Image

    rows: list[dict[str, Any]] = [
        {"group": g, "method": n, "kind": kind, "mean": m, "low": low, "high": high}
        for g, errors in groups.items()
        for n, e in errors.items()
        for kind in ["plain" if n in PLAIN or n.startswith("inductive") else "relational"]
        for m, low, high in [[max(v, 1e-12) for v in interval([e])]]
    ]
    order = [row["method"] for row in sorted(rows, key=lambda row: -row["mean"])]
    colors = alt.Scale(domain=["plain", "relational"], range=["#888888", "#c2410c"])
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("method:N", sort=list(dict.fromkeys(order)), title=None),
        color=alt.Color("kind:N", title=None, scale=colors),
    )
    x = alt.X("mean:Q", title=title).scale(type="log")
    x = x.axis(format=".0e", values=[10.0**k for k in range(-12, 9, 1 if len(groups) == 1 else 3)])
    marks = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    chart = (marks + base.mark_circle(size=60, opacity=1).encode(x=x)).properties(width=230 if len(groups) > 1 else 420)
    chart.facet(alt.Facet("group:N", title=None, sort=list(groups)), columns=3).save(path, ppi=80)
    Image.open(path).convert("RGB").quantize(32).save(path, optimize=True)  # a tenth of the size
