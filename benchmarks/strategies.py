"""Room A's speed and accuracy, each number beside its peer or its limit. One thread.

    python benchmarks/strategies.py                 # everything, a few minutes
    python benchmarks/strategies.py --only credit   # curves, credit or accuracy
    python benchmarks/strategies.py --prompts 500   # smaller

Times are CPU seconds of the one thread, which a busy machine disturbs least; compare the ratios of one run, not the
times of two.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mpmath as mp
import numpy as np
import torch

from operant import AllOf, Majority, Mixture, Outcomes, PassAt, Threshold, credit, curve, estimate, sft_loss
from operant.strategies import BestOf, Strategy

BUDGETS = (1, 4, 16, 32, 64, 128)
"""Budgets of the Monte Carlo peer."""
TRIALS = 500


def rollouts(prompts: int, m: int, *, classes: int = 12, seed: int = 0) -> Outcomes:
    """Right with a Beta(0.6, 0.9) probability per prompt, 5 % unparsable, wrong mass Dirichlet(0.5)."""
    rng = np.random.default_rng(seed)
    right = 0.95 * rng.beta(0.6, 0.9, size=(prompts, 1))
    wrong = (0.95 - right) * rng.dirichlet(np.full(classes - 1, 0.5), size=prompts)
    mass = np.concatenate([right, wrong], axis=1).cumsum(1)  # what is left over is unparsable
    answer = (rng.random((prompts, m, 1)) > mass[:, None, :]).sum(-1)
    answer = torch.from_numpy(np.where(answer == classes, -1, answer))
    score = torch.from_numpy(rng.normal(size=(prompts, m)).round(1)) + (answer == 0)
    return Outcomes((answer == 0).double(), answer, score)


def monte_carlo_votes(o: Outcomes, budgets: tuple[int, ...], trials: int) -> np.ndarray:
    """maj@N by drawing ``trials`` subsets a prompt, vectorized over trials: (B, len(budgets))."""
    assert o.answer is not None
    rng, out = np.random.default_rng(0), []
    for answer in o.answer.numpy():
        label, kind = np.unique(answer, return_inverse=True)
        order = rng.random((trials, len(answer))).argsort(1)
        votes = np.eye(len(label), dtype=np.int32)[kind[order]].cumsum(1)  # (trials, M, K)
        votes = votes[:, np.array(budgets) - 1] * (label >= 0)
        lead = (votes == votes.max(-1, keepdims=True)) & (label >= 0)
        share = lead[..., label == 0].sum(-1) / np.maximum(lead.sum(-1), 1)
        out.append(share.mean(0))
    return np.array(out)


def best_of(runs: int, function: Callable[[], Any]) -> float:
    """Least CPU seconds of several runs, after one to warm up."""
    function()
    times = []
    for _ in range(runs):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def once(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one run, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def line(*cells: object) -> None:
    print("{:<34}{:>12}{:>12}{:>12}  {}".format(*(str(c) for c in cells)), flush=True)


def seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"


def ratio(value: float) -> str:
    return f"{value:.2g}x" if value < 99.5 else f"{value:,.0f}x"


def curves(prompts: int) -> None:
    """Exact curves at every budget, with standard errors, beside Monte Carlo at six budgets."""
    o = rollouts(prompts, 128)
    line(f"curves, {prompts:,} x 128, N = 1..128", "time", "goal", "ratio", "")
    curve(Majority(1), o.map(lambda x: x[:50]), range(1, 129))
    scale = prompts / 5000
    for s, goal in ((PassAt(1), 5.0), (Majority(1), 60.0)):
        took, exact = once(lambda s=s: curve(s, o, range(1, 129)))
        name = str(s).split("@")[0] + "@k, exact"
        line(name, seconds(took), seconds(goal * scale), f"{took / goal / scale:.2f}", "of the goal")
    few = min(prompts, 200)
    part = o.map(lambda x: x[:few])
    peer, simulated = once(lambda: monte_carlo_votes(part, BUDGETS, TRIALS))
    peer *= prompts / few
    note = f"of the exact time, for {len(BUDGETS)} budgets and not 128 ({few} prompts, scaled)"
    line(f"maj@k, {TRIALS}-trial Monte Carlo", seconds(peer), "", f"{peer / took:.2f}", note)
    error = np.abs(simulated - exact.per_prompt[:few, [n - 1 for n in BUDGETS]].numpy())
    line("  its error per prompt", f"{error.max():.3f}", "", "", f"worst; {error.mean():.4f} mean; exact: 0\n")


def credits(prompts: int) -> None:
    """Exact RL weights beside the same weights from M + 1 estimates."""
    line(f"credit, {prompts:,} x 64", "time", "goal", "jackknife", "by M estimates / exact")
    o = rollouts(prompts, 64, seed=1)

    def jackknife(s: Strategy) -> torch.Tensor:
        whole = estimate_only(s, o)
        return whole[:, None] - torch.stack([estimate_only(s, o.without(i)) for i in range(o.m)], dim=1)

    def estimate_only(s: Strategy, outcomes: Outcomes) -> torch.Tensor:
        value = s.estimate(outcomes)
        return estimate(s, outcomes).value if value is None else value

    for s, goal in ((PassAt(16), 0.02), (BestOf(16), 0.1), (Majority(16), 2.0)):
        exact = best_of(5, lambda s=s: credit(s, o))
        slow, weights = once(lambda s=s: jackknife(s))
        assert torch.allclose(weights, credit(s, o), atol=1e-9)
        goal *= prompts / 1024
        line(s, seconds(exact), seconds(goal), seconds(slow), f"{slow / exact:.0f}x; {exact / goal:.2f} of the goal")
    print()


def reference(s: Strategy, log_p: float) -> float:
    """-log S(p) from sums of positive terms in 60 digits."""
    with mp.workdps(60):
        p, q = mp.exp(log_p), -mp.expm1(log_p)
        success, failure = sides(s, p, q)
        return float(-mp.log(success) if success < 0.5 else -mp.log1p(-failure))


def sides(s: Strategy, p: Any, q: Any) -> tuple[Any, Any]:
    """S and 1 - S."""
    if isinstance(s, Mixture):
        parts = [(w, sides(part, p, q)) for part, w in s.parts]
        return sum(w * x for w, (x, _) in parts), sum(w * y for w, (_, y) in parts)
    n, k = s.n, getattr(s, "k", s.n if isinstance(s, AllOf) else 1)
    if k == 1:
        return -mp.expm1(n * mp.log1p(-p)) if q else mp.mpf(1), q**n
    terms = [p**n]  # j = n first
    for j in range(n, 0, -1):
        terms.append(terms[-1] * q * j / (p * (n - j + 1)))
    return sum(terms[: n - k + 1]), sum(terms[n - k + 1 :])


def accuracy() -> None:
    """Largest relative error of -log S where the reference is a normal number."""
    grid = -np.concatenate([[0.0], np.geomspace(1e-12, 1e4, 161), np.log(2) * (1 + np.linspace(-1e-6, 1e-6, 9))])
    line("-log S(p), log p in [-1e4, 0]", "float32", "float64", "", "largest relative error against 60 digits")
    members: list[Strategy] = [PassAt(n) for n in (1, 2, 16, 1000, 2**20)]
    members += [Threshold(*nk) for nk in ((8, 3), (64, 26), (256, 129), (1024, 513))]
    members += [AllOf(16), Mixture({PassAt(1): 0.25, PassAt(64): 0.75})]
    for s in members:
        cells = []
        for dtype in (torch.float32, torch.float64):
            log_p = torch.tensor(grid, dtype=dtype)
            want = np.array([reference(s, x) for x in log_p.tolist()])
            got = sft_loss(s, log_p).double().numpy()
            normal = want >= torch.finfo(dtype).tiny
            cells.append(f"{np.max(np.abs(got - want)[normal] / want[normal]):.1e}")
        line(s, *cells, "", "")


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["curves", "credit", "accuracy"], help="one table")
    parser.add_argument("--prompts", type=int, default=5000, help="prompts of the curves (default 5000)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.only in (None, "curves"):
        curves(arguments.prompts)
    if arguments.only in (None, "credit"):
        credits(1024)
    if arguments.only in (None, "accuracy"):
        accuracy()


if __name__ == "__main__":
    main()
