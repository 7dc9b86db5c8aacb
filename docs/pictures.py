"""Draw the pictures of docs/strategies.md with the code that they describe.

Run from a checkout with the development extras installed:

    python docs/pictures.py

Writes docs/images/strategies_*.png, in the look of the reports. Nothing is sampled: every point is exact.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import torch

from operant import Outcomes, estimate, expected_value, parse
from operant.objectives import dead_probability, elasticity
from operant.published import RULES, audit, credit_of
from operant.report.charts import chart, color
from operant.report.theme import GRAY, Figure, Panel, SeriesStyle, cycle, panel, save
from operant.strategies import Strategy, Verified, expected_draws

IMAGES = Path(__file__).parent / "images"
P = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
Point = tuple[str, float, float]
WIDTH = 2.2


def success(s: Strategy) -> list[Point]:
    """S(p) of a strategy that has a success function."""
    return [(str(s), p, v) for p, v in zip(P.tolist(), s.log_success(P.log()).exp().tolist(), strict=True)]


def vote(s: Strategy, p: torch.Tensor, rivals: int) -> torch.Tensor:
    """Value of a vote where the wrong mass 1 - p is spread evenly over ``rivals`` answers."""
    wrong = ((1 - p) / rivals)[..., None].expand(*p.shape, rivals)
    kinds = Outcomes((torch.arange(rivals + 1) == 0).double(), torch.arange(rivals + 1))
    return expected_value(s, torch.cat([p[..., None], wrong], -1).log(), kinds)


def keys(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """Colors of the lines, in order."""
    return {name: replace(key, width=WIDTH) for name, key in cycle(names).items()}


def lines(points: Iterable[Point], domain: Iterable[str], x: alt.X, y: alt.Y, *, dots: bool = False) -> alt.Chart:
    """A line for each name; ``dots`` marks the points where only they are strategies."""
    drawn = chart({"series": name, "x": a, "y": b} for name, a, b in points).encode(x=x, y=y, color=color(domain))
    return drawn.mark_line(strokeWidth=WIDTH, clip=True, point={"size": 40} if dots else False)


def gray(points: Iterable[tuple[float, float]]) -> alt.Chart:
    """A dashed line without a legend."""
    mark = chart({"x": a, "y": b} for a, b in points).mark_line(
        strokeDash=[5, 4], strokeWidth=1.5, color=GRAY.light, clip=True
    )
    return mark.encode(x="x:Q", y="y:Q")


def axis_x(title: str, *, values: Sequence[float] | None = None, log: bool = False, domain: Any = None) -> alt.X:
    """The horizontal axis, with its ticks."""
    scale = alt.Scale(type="log" if log else "linear", domain=domain or alt.Undefined, nice=False)
    ticks = alt.Axis(values=list(values) if values else alt.Undefined, format=".4~g", tickCount=6)
    return alt.X("x:Q", title=title, scale=scale, axis=ticks)


def axis_y(title: str, domain: Any, *, values: Sequence[float] | None = None, log: bool = False) -> alt.Y:
    """The vertical axis, with its ticks."""
    scale = alt.Scale(type="log" if log else "linear", domain=domain, nice=False)
    return alt.Y(
        "y:Q", title=title, scale=scale, axis=alt.Axis(values=values or alt.Undefined, tickCount=6, format=".4~g")
    )


def success_curves() -> Figure:
    """S(p) of strategies that count successes, and the value of votes."""
    counted = [parse(s) for s in ("pass@16", "harmonic(pass@16)", "verified@16:0.1:0.2", "threshold@16:9", "pass^16")]
    points = [point for s in counted for point in success(s)]
    votes = {f"maj@16, {k} rival{'s' * (k > 1)}": k for k in (1, 4, 16)}
    voted = [
        (name, p, v)
        for name, k in votes.items()
        for p, v in zip(P.tolist(), vote(parse("maj@16"), P, k).tolist(), strict=True)
    ]
    names = [*map(str, counted), *votes]
    x, y = axis_x("p, success of one sample", domain=[0, 1]), axis_y("success of the deployed strategy", [0, 1])
    ceiling = gray((p, Verified(16, 0.1, 0.2).ceiling(p)) for p in P.tolist())
    threshold = [point for point in points if point[0] == "threshold@16:9"]
    panels = (
        panel(
            "Counting successes (dashed: ceiling of verified)",
            ceiling,
            lines(points, names, x, y),
        ),
        panel("The vote, wrong answers spread over rivals", lines([*threshold, *voted], names, x, y)),
    )
    return Figure(
        "strategies_success", "Success of the procedure against success of one sample, N = 16", panels, keys(names)
    )


def sft_weights() -> Figure:
    """f(p), the weight that -log S puts on the cross-entropy gradient."""
    p = torch.logspace(-4, -0.0005, 160, dtype=torch.float64)
    budgets = [f"pass@{n}" for n in (1, 4, 16, 64)]
    others = ["harmonic(pass@64)", "mix(pass@1:0.25, pass@64:0.75)", "threshold@16:3"]
    names = budgets + others

    def points(chosen: Sequence[str]) -> list[Point]:
        return [
            (s, a, f) for s in chosen for a, f in zip(p.tolist(), elasticity(parse(s), p.log()).tolist(), strict=True)
        ]

    x = axis_x("p, probability of the target", values=[1e-4, 1e-3, 1e-2, 0.1, 1], log=True, domain=[1e-4, 1])
    panels = (
        panel("pass@N", lines(points(budgets), names, x, axis_y("f(p), times cross-entropy", [0, 1.05]))),
        panel("Others beside pass@64", lines(points(["pass@64", *others]), names, x, axis_y("f(p)", [0, 3.1]))),
    )
    return Figure("strategies_sft_weight", "Weight that -log S puts on the cross-entropy gradient", panels, keys(names))


def wasted_gradient() -> Figure:
    """The vote and its fixed-threshold surrogate at p = 0.3, as the wrong mass spreads."""
    rivals = range(1, 17)
    names = ("maj@16, what is deployed", "threshold@16:9, its surrogate")
    value: list[Point] = []
    slope: list[Point] = []
    makes: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
        names[0]: lambda p, k: vote(parse("maj@16"), p, k),
        names[1]: lambda p, _: parse("threshold@16:9").log_success(p.log()).exp(),
    }
    for name, make in makes.items():
        for k in rivals:
            p = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
            s = make(p, k)
            s.backward()
            value.append((name, k, s.item()))
            slope.append((name, k, p.grad.item()))
    x = axis_x("wrong answers that share the mass 0.7", values=[1, 4, 8, 12, 16], domain=[1, 16])
    panels = (
        panel("Success", lines(value, names, x, axis_y("success", [0, 1]))),
        panel("Slope dS/dp", lines(slope, names, x, axis_y("slope", [0, 4]))),
    )
    return Figure("strategies_vote", "The vote of 16 and its surrogate, correct answer at p = 0.3", panels, keys(names))


def dead_groups() -> Figure:
    """Share of groups whose weights are all 0, against M."""
    rates = {f"p = {p:g}": p for p in (0.02, 0.1, 0.3, 0.7, 0.9)}
    names = list(rates)
    x, y = (
        axis_x("M, rollouts a prompt", values=[9, 16, 32, 48, 64], domain=[9, 64]),
        axis_y("share of dead groups", [0, 1]),
    )
    panels: list[Panel] = []
    for s in (parse("pass@8"), parse("threshold@8:5")):
        points = [(name, m, dead_probability(s, m, p)) for name, p in rates.items() for m in range(9, 65)]
        rule = gray([(16, 0), (16, 1)])
        panels.append(panel(f"{s} (dashed: M = 2N)", rule, lines(points, names, x, y)))
    return Figure("strategies_dead", "Groups without a gradient", tuple(panels), keys(names))


def audited() -> Figure:
    """Slope of published rules over the slope of pass@4, each scaled to 1 at p = 0.1."""
    chosen = {"operant": credit_of(parse("pass@4"))}
    chosen |= {name: RULES[name].make(4) for name in ("grpo", "rloo", "maxrl", "passk-training", "plug-in")}
    points: list[Point] = []
    for name, rule in chosen.items():
        a = audit(rule, 8, target=parse("pass@4"))
        at = int((a.p - 0.1).abs().argmin())
        points += [(name, p, v) for p, v in zip(a.p.tolist(), (a.ratio / a.ratio[at]).tolist(), strict=True)]
    x = axis_x("p, success of one sample", domain=[0, 1])
    y = axis_y("slope over slope of pass@4 (1 at p = 0.1)", [0.3, 100], values=[0.3, 1, 3, 10, 30, 100], log=True)
    ratios = panel("", lines(points, chosen, x, y))
    return Figure("strategies_audit", "What rules optimize from 8 rollouts, beside pass@4", (ratios,), keys(chosen))


def early_stops() -> Figure:
    """Value against mean draws of votes that stop early, on one prompt with 64 rollouts."""
    answer = torch.repeat_interleave(torch.arange(5), torch.tensor([26, 16, 10, 6, 6]))
    o = Outcomes((answer == 0).double(), answer)
    families = {
        "maj@N, N = 1 to 31": [f"maj@{n}" for n in range(1, 32, 2)],
        "race@31:k, k = 1 to 16": [f"race@31:{k}" for k in range(1, 17)],
        "lead@31:d, d = 1 to 8": [f"lead@31:{d}" for d in range(1, 9)],
    }
    points: list[Point] = []
    for name, members in families.items():
        for s in map(parse, members):
            points.append((name, expected_draws(s, o).item(), estimate(s, o).value.item()))
    x = axis_x("mean number of samples drawn", domain=[0, 32])
    votes = panel("", lines(points, families, x, axis_y("success of the vote", [0.4, 1]), dots=True))
    title = "The same vote for fewer samples: correct 41 %, rivals 25, 16, 9 and 9 %"
    return Figure("strategies_stop", title, (votes,), keys(families))


FIGURES = (success_curves, sft_weights, wasted_gradient, dead_groups, audited, early_stops)


def draw(folder: Path = IMAGES) -> list[Path]:
    """Write every picture and return the paths."""
    written: list[Path] = []
    with tempfile.TemporaryDirectory() as temporary:
        for figure in (make() for make in FIGURES):
            png, _ = save(figure, Path(temporary))
            written.append(folder / png.name)
            written[-1].write_bytes(png.read_bytes())
    return written


if __name__ == "__main__":
    for path in draw():
        print(path.name)
