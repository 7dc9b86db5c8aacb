"""The weights of training for a strategy as functions of the success rate p: curves, support and cosines. No training.

SFT weighs an example by p F'(p) / F(p), RL by F'(p), where F is the strategy's success rate from samples that
succeed with probability p.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import altair as alt
import torch
from torch import Tensor

from operant import parse
from operant.objectives import elasticity
from operant.reproduce import Comparison, write_comparisons

BUDGETS = (1, 4, 16, 64)
P = torch.linspace(1e-9, 1 - 1e-9, 1001, dtype=torch.float64)
GOLDEN = {  # N, k, p: p F'(p) / F(p) and F'(p), from 60-digit arithmetic
    (16, 1, 0.01): (0.9263987605, 13.76093367),
    (16, 1, 0.5): (2.441443503e-4, 4.8828125e-4),
    (64, 1, 0.01): (0.7162247719, 33.97795475),
    (64, 1, 1e-6): (0.9999685003, 63.99596812),
    (8, 3, 0.3): (1.700850011, 2.5412184),
    (16, 4, 0.1): (3.005703883, 2.056087026),
    (64, 22, 0.3): (6.61198008, 5.768445585),
    (64, 26, 0.5): (0.8941086274, 1.695746861),
    (64, 26, 1e-6): (25.99996341, 1.563990985e-131),
}


def sft(text: str, p: Tensor) -> Tensor:
    """p F'(p) / F(p)."""
    return elasticity(parse(text), p.log())


def rl(text: str, p: Tensor) -> Tensor:
    """F'(p)."""
    return sft(text, p) * (parse(text).log_success(p.log()) - p.log()).exp()


def cosine(a: int, b: int) -> float:
    """Of the SFT weights of pass@a and pass@b as functions on [0, 1], by the trapezoid rule at 1,001 points."""
    f, g = sft(f"pass@{a}", P), sft(f"pass@{b}", P)
    dots = [torch.trapezoid(x * y, P) for x, y in ((f, g), (f, f), (g, g))]
    return float(dots[0] / (dots[1] * dots[2]).sqrt())


def draw(file: Path) -> None:
    """Both weights of pass@N and of votes with a fixed threshold, each relative to its largest value."""
    p, points = P[4::8], []
    for title, weight in (("SFT: p F'(p) / F(p)", sft), ("RL: F'(p)", rl)):
        for text in [f"pass@{n}" for n in BUDGETS] + ["threshold@16:4", "threshold@64:26"]:
            w = weight(text, p)
            pairs = zip(p.tolist(), (w / w.max()).tolist(), strict=True)
            points += [{"weight": title, "strategy": text, "p": x, "y": y} for x, y in pairs]
    order = list(dict.fromkeys(point["strategy"] for point in points))
    drawn = alt.Chart(alt.Data(values=points)).mark_line()
    drawn = drawn.encode(
        x=alt.X("p:Q", title="success rate of a sample, p"),
        y=alt.Y("y:Q", title="weight, share of its largest"),
        color=alt.Color("strategy:N", sort=order, title=None),
        column=alt.Column("weight:N", title=None, sort=["SFT: p F'(p) / F(p)", "RL: F'(p)"]),
    )
    drawn.properties(width=170, height=130).save(file, ppi=58)


def main() -> None:
    """Check the weights, print the cosines, compare, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="no difference: this takes seconds")
    args = parser.parse_args()
    at = {key: torch.tensor([key[2]], dtype=torch.float64) for key in GOLDEN}
    ours = {key: [float(f(f"threshold@{key[0]}:{key[1]}", p)) for f in (sft, rl)] for key, p in at.items()}
    worst = max(abs(x / y - 1) for key, known in GOLDEN.items() for x, y in zip(ours[key], known, strict=True))
    for a in BUDGETS:
        print(f"cosines of pass@{a} with pass@{BUDGETS}:", *(f"{cosine(a, b):.4f}" for b in BUDGETS))
    few, many = (torch.tensor([x], dtype=torch.float64) for x in (0.01, 0.5))
    hard = [float(sft(text, few) / sft(text, many)) for text in ("pass@16", "pass@1")]
    peak = [round(float(P[rl(f"threshold@64:{k}", P).argmax()]), 3) for k in (26, 1)]
    near, far, digits = cosine(16, 64), cosine(1, 64), -math.log10(worst)
    agree = "SFT and RL weights at 9 points: digits that agree with 60-digit arithmetic, the worst"
    found = [
        (agree, "operant", digits, "float32", 6.0, digits - 6, 0.0),
        ("SFT weight, p = .01 over p = .5", "pass@16", hard[0], "cross-entropy", hard[1], hard[0] / hard[1], 1.0),
        ("p at the peak of the RL weight", "threshold@64:26", peak[0], "pass@64", peak[1], peak[0] - peak[1], 0.0),
        ("cosine of SFT weights", "pass@16 with pass@64", near, "pass@1 with pass@64", far, near / far, 1.0),
    ]
    exact = [Comparison(*r[:6], r[5], r[5], neutral=r[6], unit="", decides=r[0] != agree) for r in found]
    write_comparisons(args.folder, exact)  # how many digits agree is a matter of the library, not of the claim
    draw(args.folder / "weights.png")


if __name__ == "__main__":
    main()
