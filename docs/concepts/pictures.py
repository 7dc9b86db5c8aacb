"""Draw the pictures of docs/concepts with the code that they describe. Nothing is sampled.

Run from a checkout with the development extras installed:

    python docs/concepts/pictures.py

Writes docs/images/concepts_*.png.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import altair as alt
import numpy as np
import torch
from PIL import Image

from operant import BestOf, Majority, Outcomes, PassAt, expected_value
from operant.objectives import elasticity
from operant.relational import Extrapolator, TaskBank
from operant.report.charts import chart, color
from operant.report.theme import GRAY, LIGHT, Figure, Panel, SeriesStyle, cycle, panel, save
from operant.strategies import Strategy

IMAGES = Path(__file__).parents[1] / "images"
WIDTH = 2.2
N = 16
POLICY = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
SCORE = torch.tensor([0.2, 0.9, 0.5, 0.1])
Point = tuple[str, float, float]


def line(points: Iterable[Point], names: Iterable[str], x: alt.X, y: alt.Y) -> alt.Chart:
    """A line for each name."""
    rows = chart({"series": name, "x": a, "y": b} for name, a, b in points)
    return rows.mark_line(strokeWidth=WIDTH, clip=True).encode(x=x, y=y, color=color(names))


def axis(title: str, domain: Sequence[float], *, log: bool = False) -> alt.X:
    """A horizontal axis."""
    scale = alt.Scale(type="log" if log else "linear", domain=list(domain), nice=False)
    return alt.X("x:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5, format=".3~g"))


def upright(title: str, domain: Sequence[float]) -> alt.Y:
    """A vertical axis."""
    return alt.Y("y:Q", title=title, scale=alt.Scale(domain=list(domain), nice=False), axis=alt.Axis(tickCount=5))


def keys(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """Colors of the lines, in order."""
    return {name: replace(key, width=WIDTH) for name, key in cycle(names).items()}


def vote_factor(rivals: int, p: torch.Tensor) -> list[float]:
    """F(p) of a vote where the wrong mass is spread evenly over the rivals."""
    p = p.clone().requires_grad_()
    q = torch.cat([p[:, None], ((1 - p[:, None]) / rivals).expand(-1, rivals)], dim=1)
    kinds = Outcomes((torch.arange(rivals + 1) == 0).double(), torch.arange(rivals + 1))
    s = expected_value(Majority(N), q.log(), kinds)
    return (p * torch.autograd.grad(s.sum(), p)[0] / s).tolist()


def weights() -> Figure:
    """The weight of a sample: pass@N and votes over its probability, best@N over the rank of its score."""
    p = torch.logspace(-3, -0.005, 120, dtype=torch.float64)
    budgets, rivals = (1, 4, 16, 64), (1, 4, 16)
    many, against = {n: f"N = {n}" for n in budgets}, {k: f"{k} rival{'s' * (k > 1)}" for k in rivals}
    names = [*many.values(), *against.values()]
    passes = [
        (many[n], a, f)
        for n in budgets
        for a, f in zip(p.tolist(), elasticity(PassAt(n), p.log()).tolist(), strict=True)
    ]
    voted = [(against[k], a, f) for k in rivals for a, f in zip(p.tolist(), vote_factor(k, p), strict=True)]
    u = np.linspace(0, 1, 101).tolist()
    ranked = [(many[n], a, a**n - 1 / (n + 1)) for n in budgets for a in u]
    probability = axis("p, probability of the target", [1e-3, 1], log=True)
    panels = (
        panel("pass@N", line(passes, names, probability, upright("times cross-entropy", [0, 1.05]))),
        panel("A vote of 16", line(voted, names, probability, upright("times cross-entropy", [0, 8.2]))),
        panel("best@N", line(ranked, names, axis("rank of the score", [0, 1]), upright("weight in RL", [-0.55, 1]))),
    )
    return Figure("concepts_weights", "Weight of a sample under three kinds of strategy", panels, keys(names))


def returned(s: Strategy) -> list[float]:
    """The probability that each answer of the policy is returned."""
    answers = torch.arange(len(POLICY))
    kinds = [Outcomes((answers == k).double(), answers, SCORE) for k in answers]
    return [expected_value(s, POLICY.log(), o).item() for o in kinds]


def operator() -> Figure:
    """What strategies make of one policy over four answers."""
    answers, best = "ABCD", SeriesStyle(LIGHT[0], LIGHT[0])
    panels: list[Panel] = []
    titles = {
        Majority(1): "The policy: one sample",
        Majority(N): f"maj@{N}: to the mode",
        BestOf(4): "best@4: to the score",
    }
    for s, title in titles.items():
        rows = [{"series": "probability", "answer": a, "p": p} for a, p in zip(answers, returned(s), strict=True)]
        x = alt.X("answer:N", title="answer returned", axis=alt.Axis(labelAngle=0))
        y = alt.Y("p:Q", title="probability", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
        bars = chart(rows).mark_bar(size=34, cornerRadiusEnd=2).encode(x=x, y=y, color=color(["probability"]))
        panels.append(panel(title, bars))
    return Figure(
        "concepts_operator",
        "A strategy turns one distribution over answers into another",
        tuple(panels),
        {"probability": best},
    )


def cooling(minutes: np.ndarray, constant: float) -> np.ndarray:
    """A pot of tea in a room of 20 degrees."""
    return 20 + 75 * np.exp(-minutes / constant)


def curves() -> Figure:
    """A bank, an anchor, and the target as a transformation of it."""
    minutes, context, later = np.linspace(0, 60, 21), np.arange(0.0, 19, 3), np.linspace(18, 60, 15)
    bank = TaskBank.from_arrays({f"{c:g} min": (minutes, cooling(minutes, c)) for c in range(8, 21, 2)})
    rng = np.random.default_rng(0)
    measured = cooling(context, 30.0) + 0.3 * rng.standard_normal(len(context))
    target = Extrapolator().fit(bank).adapt(context, measured, query=later, key="mine")
    low, high = target.interval(later)
    x, y = axis("minutes", [0, 60]), upright("degrees Celsius", [15, 100])
    names = {
        "known curves": GRAY,
        "the anchor": SeriesStyle(LIGHT[1], LIGHT[1]),
        "prediction": SeriesStyle(LIGHT[0], LIGHT[0]),
    }

    def known(constant: float, name: str, group: int) -> alt.Chart:
        rows = [
            {"series": name, "x": a, "y": b, "g": group}
            for a, b in zip(minutes.tolist(), cooling(minutes, constant).tolist(), strict=True)
        ]
        return chart(rows).mark_line(strokeWidth=1.4 if group else WIDTH).encode(x=x, y=y, color=color(names))

    anchor = float(str(target.explain(later)["anchor"]).split()[0])
    gray = [known(float(c), "known curves", c) for c in range(8, 21, 2)]
    dots = chart(
        {"series": "prediction", "x": a, "y": b} for a, b in zip(context.tolist(), measured.tolist(), strict=True)
    )
    points = dots.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=color(names))
    band = chart(
        {"series": "prediction", "x": a, "y": b, "top": c}
        for a, b, c in zip(later.tolist(), low.tolist(), high.tolist(), strict=True)
    )
    area = band.mark_area(opacity=0.25).encode(x=x, y=y, y2="top:Q", color=color(names))
    drawn = line(
        (("prediction", a, b) for a, b in zip(later.tolist(), target.predict(later).tolist(), strict=True)), names, x, y
    )
    panels = (
        panel("The bank, and an anchor in it", *gray, known(anchor, "the anchor", 0)),
        panel("The target: the anchor with a slower clock", known(anchor, "the anchor", 0), area, drawn, points),
    )
    return Figure("concepts_curves", "A curve outside the bank is a known curve, transformed", panels, names)


FIGURES = (weights, operator, curves)


def draw(folder: Path = IMAGES) -> list[Path]:
    """Write every picture, with a palette of 64 colors, and return the paths."""
    written: list[Path] = []
    with tempfile.TemporaryDirectory() as temporary:
        for figure in (make() for make in FIGURES):
            png, _ = save(figure, Path(temporary))
            written.append(folder / png.name)
            with Image.open(png) as picture:
                picture.convert("RGB").quantize(64).save(written[-1], optimize=True)
    return written


if __name__ == "__main__":
    for path in draw():
        print(path.name)
