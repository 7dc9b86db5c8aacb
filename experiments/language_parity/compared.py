"""Comparisons of the text claims: shares of right answers by training seed and target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from operant.reproduce import Comparison

Rows = Sequence[Mapping[str, Any]]


def interval(rows: Rows, values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the rows' values, and its 95 % interval: a bootstrap that draws seeds and targets independently."""
    found = np.array(values)
    places = [np.unique([row[key] for row in rows], return_inverse=True)[1] for key in ("seed", "target")]
    rng, draws = np.random.default_rng(0), np.ones((4000, len(rows)))
    for place in places:
        size = int(place.max()) + 1
        draws *= rng.multinomial(size, np.full(size, 1 / size), size=len(draws))[:, place]
    draws = draws[draws.sum(1) > 0]
    low, high = np.quantile(draws @ found / draws.sum(1), (0.025, 0.975))
    return float(found.mean()), float(low), float(high)


def compared(rows: Rows, what: str, ours: str, plain: str, *, decides: bool = True) -> Comparison:
    """Ours minus plain, in points, paired by seed and target."""
    a, b = (np.array([100 * row[name] for row in rows]) for name in (ours, plain))
    effect = interval(rows, a - b)
    seeds = len({row["seed"] for row in rows})
    return Comparison(what, ours, float(a.mean()), plain, float(b.mean()), *effect, seeds=seeds, decides=decides)


def best(rows: Rows, names: Sequence[str]) -> str:
    """The name with the largest mean."""
    return max(names, key=lambda name: np.mean([row[name] for row in rows]))


def table(rows: Rows, names: Sequence[str]) -> None:
    """Mean of every column with its interval, and each seed's."""
    seeds = sorted({row["seed"] for row in rows})
    print("| | accuracy | 95 % interval | seeds |\n|---|---|---|---|")
    for name in names:
        mean, low, high = (100 * x for x in interval(rows, [row[name] for row in rows]))
        each = " / ".join(f"{100 * np.mean([r[name] for r in rows if r['seed'] == s]):.1f}" for s in seeds)
        print(f"| {name} | {mean:.1f} % | {low:.1f} to {high:.1f} | {each} |")


def picture(rows: Rows, names: Sequence[str], path: Any) -> None:
    """A bar a method, with its interval."""
    import altair as alt

    found = [(name, [100 * x for x in interval(rows, [row[name] for row in rows])]) for name in names]
    points = [{"method": name, "mean": m, "low": low, "high": high} for name, (m, low, high) in found]
    base = alt.Chart(alt.Data(values=points)).encode(y=alt.Y("method:N", sort=None, title=None).axis(labelLimit=400))
    bars = base.mark_bar(color="#0072b2", opacity=0.75).encode(x=alt.X("mean:Q", title="right, %"))
    ticks = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    (bars + ticks).properties(width=420, height=22 * len(names)).save(path, ppi=64)
