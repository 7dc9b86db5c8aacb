"""What the arms of a protein task reached: the comparisons, the tables and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from scipy import stats

from operant.reproduce import Comparison

PLAIN = ("start", "grpo")
DECIDES = "published best@8"
Rows = Sequence[dict[str, Any]]
Curves = dict[str, np.ndarray]


def report(rows: Rows, judged: int, folder: Path) -> list[Comparison]:
    """Each arm against the better of the plain ones, at the number of samples for which all were tuned, and at one.

    The last comparison has the smallest rate alone, on the development samples.
    """
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    curves = {arm: np.array([r["test"] for r in rows if r["arm"] == arm]) for arm in arms}
    found: list[Comparison] = []
    for n in (judged, 1):
        at = {arm: values[:, n.bit_length() - 1] for arm, values in curves.items()}
        best = max(PLAIN, key=lambda arm: at[arm].mean())
        what = f"largest reward of {n} sample{'s' * (n > 1)}"
        for arm in [a for a in arms if a not in PLAIN]:
            found.append(compared(what, arm, at[arm], best, at[best], decides=n == judged and arm == DECIDES))
    by_rate = rates(rows)
    first = min(by_rate, key=float)
    ours, plain = by_rate[first][DECIDES], by_rate[first]["grpo"]
    what = f"largest reward of {judged} samples, rate {first} alone"
    found.append(compared(what, DECIDES, ours, "grpo", plain, decides=False))
    tables(curves, by_rate)
    picture(curves, by_rate, folder / "curves.png")
    return found


def compared(what: str, arm: str, ours: np.ndarray, best: str, plain: np.ndarray, *, decides: bool) -> Comparison:
    """The difference with Student's t over seeds."""
    gain = ours - plain
    half = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5
    values = (float(ours.mean()), best, float(plain.mean()), float(gain.mean()))
    ends = (float(gain.mean() - half), float(gain.mean() + half))
    return Comparison(what, arm, *values, *ends, unit="", seeds=len(gain), decides=decides)


def rates(rows: Rows) -> dict[str, dict[str, np.ndarray]]:
    """Rate -> arm -> development value of the best step after the start, by seed."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for arm in dict.fromkeys(r["arm"] for r in rows if r["development"]):
        mine = [r["development"] for r in rows if r["arm"] == arm]
        for rate in mine[0]:
            found.setdefault(rate, {})[arm] = np.array([max(looks[rate][1:]) for looks in mine])
    return found


def tables(curves: Curves, by_rate: dict[str, dict[str, np.ndarray]]) -> None:
    """Means over seeds at every number of samples, and development values by rate."""
    budgets = [2**i for i in range(curves["start"].shape[1])]
    print(f"| arm | {' | '.join(map(str, budgets))} |\n{'|---' * (len(budgets) + 1)}|")
    for arm, values in curves.items():
        print(f"| {arm} | {' | '.join(f'{v:.2f}' for v in values.mean(0))} |")
    print(f"\n| arm | {' | '.join(f'rate {rate}' for rate in by_rate)} |\n{'|---' * (len(by_rate) + 1)}|")
    for arm in next(iter(by_rate.values())):
        cells = [" / ".join(f"{v:.2f}" for v in known[arm]) for known in by_rate.values()]
        print(f"| {arm} | {' | '.join(cells)} |")


def picture(curves: Curves, by_rate: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """The largest reward over the number of samples, mean over seeds, and by learning rate, a point a seed."""
    color = alt.Color("arm:N", sort=list(curves), title=None)
    points = [{"arm": a, "n": 2**i, "y": v} for a, c in curves.items() for i, v in enumerate(c.mean(0).tolist())]
    x = alt.X("n:Q", title="samples n, all tuned").scale(type="log", base=2)
    y = alt.Y("y:Q", title="largest reward").scale(zero=False)
    left = alt.Chart(alt.Data(values=points)).mark_line(point=True).encode(x=x, y=y, color=color)
    looks = [{"arm": a, "r": r, "y": v} for r, k in by_rate.items() for a, c in k.items() for v in c.tolist()]
    x = alt.X("r:N", sort=None, title="learning rate").axis(labelAngle=0)
    y = alt.Y("y:Q", title="largest reward of 8, each seed").scale(zero=False)
    right = alt.Chart(alt.Data(values=looks)).mark_point().encode(x=x, xOffset="arm:N", y=y, color=color)
    (left.properties(width=260, height=230) | right.properties(width=260, height=230)).save(path, ppi=64)
