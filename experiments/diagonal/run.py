"""How much the diagonal approximation leaves out: a / (a - C) on random answer distributions, by enumeration.

S_j is N times the probability that the target wins if one of the N votes is answer j. a = S_t is the slope in p_t
alone, and a - C, with C = sum_{j != t} p_j S_j / (1 - p_t), the slope if all other answers shrink in proportion.
"""

from __future__ import annotations

import argparse
import math
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from operant.reproduce import Comparison, write_comparisons

N = 8


def multinomial(n: int, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts (C, K) of n draws, and their probabilities (C,)."""
    k = len(p)
    counts = np.array([np.bincount(c, minlength=k) for c in combinations_with_replacement(range(k), n)])
    log = math.lgamma(n + 1) - np.vectorize(math.lgamma)(counts + 1.0).sum(1) + counts @ np.log(p)
    return counts, np.exp(log)


def wins_vote(counts: np.ndarray, target: int) -> np.ndarray:
    """Whether the target has strictly more votes than every other answer."""
    return counts[:, target] > np.delete(counts, target, 1).max(1)


def wins_best(counts: np.ndarray, target: int) -> np.ndarray:
    """Whether the target was drawn and nothing better was: answers are ordered by reward."""
    return (counts[:, target] > 0) & (counts[:, target + 1 :].sum(1) == 0)


def efficiency(wins, p: np.ndarray, target: int) -> float:
    """a / (a - C); NaN where a - C is not positive."""
    counts, probability = multinomial(N - 1, p)
    s = [N * float(probability @ wins(counts + np.eye(len(p), dtype=int)[j], target)) for j in range(len(p))]
    c = sum(p[j] * s[j] for j in range(len(p)) if j != target) / (1 - p[target])
    return s[target] / (s[target] - c) if s[target] - c > 1e-12 else math.nan


def main() -> None:
    """Both strategies: the share of distributions on which the diagonal term is no underestimate, and its mean size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="200 distributions in the place of 2,000")
    args = parser.parse_args()
    rng, size = np.random.default_rng(0), 200 if args.quick else 2000
    drawn = [(rng.dirichlet(np.ones(k)), int(rng.integers(k))) for k in rng.integers(3, 6, size)]
    found: list[Comparison] = []
    for name, wins in (("maj@8", wins_vote), ("best@8", wins_best)):
        known = np.array([efficiency(wins, p, t) for p, t in drawn])
        known = known[np.isfinite(known)]
        print(f"{name}: a / (a - C) median {np.median(known):.3f}, min {known.min():.3f}, {len(known)} distributions")
        ratios = 1 / known  # (a - C) / a: above 1 where the diagonal term is an underestimate
        mean = float(ratios.mean())
        low, high = np.quantile(rng.choice(ratios, (2000, len(ratios))).mean(1), (0.025, 0.975))
        what = f"{name}: slope with the rivals over that without, mean (largest {ratios.max():.3f})"
        effect = {"effect": mean, "low": float(low), "high": float(high), "neutral": 1.0, "unit": ""}
        found.append(Comparison(what, "exact", mean, "diagonal", 1.0, **effect))
    write_comparisons(args.folder, found)


if __name__ == "__main__":
    main()
