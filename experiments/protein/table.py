"""The unbiased expected maximum of n samples, arm by arm, in the form of the paper's table 6.

usage: python experiments/protein/table.py OUT_DIR

Differences to grpo are paired by seed. Their 95 % intervals come from a bootstrap that draws seeds and, within each
seed, the samples of either arm (unconditional) or the prompts, the same ones for both arms (conditional).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from operant.core.rng import numpy_generator
from operant.strategies import BestOf, Outcomes, curve

RESAMPLES = 2000
BASE = "grpo"
Pools = dict[str, dict[int, torch.Tensor]]  # arm -> seed -> (prompts, samples)


def read(folder: Path) -> Pools:
    """Rewards of every arm that is there."""
    pools: Pools = {}
    for file in sorted(folder.glob("seed*/*.json")):
        rewards = json.loads(file.read_text(encoding="utf-8"))["rewards"]
        seed = int(file.parent.name.removeprefix("seed"))
        pools.setdefault(file.stem, {})[seed] = torch.tensor(rewards, dtype=torch.float64)
    return pools


def per_prompt(rewards: torch.Tensor) -> np.ndarray:
    """(P, M) -> (P, budgets): the mean over all n-subsets of the M samples, n = 1, 2, 4, ... 64."""
    budgets = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= rewards.shape[1]]
    return curve(BestOf(budgets[-1]), Outcomes(rewards), budgets).per_prompt.numpy()


def resampled(rewards: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """(resamples, budgets): by samples for one prompt, else by prompts; ``rows`` (resamples, samples or prompts)."""
    if len(rewards) == 1:
        return per_prompt(rewards[0][torch.from_numpy(rows)])
    return per_prompt(rewards)[rows].mean(1)


def gain(pools: Pools, arm: str) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """The seeds, the mean difference to ``BASE`` per budget, and its interval, shifted by the bootstrap's own bias."""
    seeds = sorted(pools[arm].keys() & pools[BASE].keys())
    point, draws = [], []
    for seed in seeds:
        ours, theirs = pools[arm][seed], pools[BASE][seed]
        alone, rng = len(ours) == 1, numpy_generator(0, "protein", seed)
        size = ours.numel() if alone else len(ours)
        rows = rng.integers(size, size=(RESAMPLES, size))
        others = rng.integers(size, size=(RESAMPLES, size)) if alone else rows
        drawn = resampled(ours, rows) - resampled(theirs, others)
        point.append(per_prompt(ours).mean(0) - per_prompt(theirs).mean(0))
        draws.append(drawn - drawn.mean(0) + point[-1])  # a sample drawn twice lowers the maximum
    picks = numpy_generator(0, "protein", "seeds").integers(len(seeds), size=(RESAMPLES, len(seeds)))
    mean = np.stack(draws)[picks, np.arange(RESAMPLES)[:, None]].mean(1)
    low, high = np.quantile(mean, [0.025, 0.975], axis=0)
    return seeds, np.mean(point, axis=0), low, high


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for folder in sorted(path for path in parser.parse_args().out.iterdir() if path.is_dir()):
        pools = read(folder)
        means = {a: np.stack([per_prompt(p).mean(0) for p in seeds.values()]) for a, seeds in pools.items()}
        arms = [a for a in ("start", BASE) if a in means] + sorted(means.keys() - {"start", BASE})
        names = " | ".join(str(2**i) for i in range(means[arms[0]].shape[1]))
        rule = "|---" * (means[arms[0]].shape[1] + 2) + "|"
        print(f"\n{folder.name}: expected maximum of n samples\n\n| arm | seeds | {names} |\n{rule}")
        for arm in arms:
            print(f"| {arm} | {len(means[arm])} | {' | '.join(f'{x:.2f}' for x in means[arm].mean(0))} |")
        if BASE not in pools:
            continue
        print(f"\ndifference to {BASE}, paired by seed, 95 % interval\n\n| arm | seeds | {names} |\n{rule}")
        for arm in arms:
            if arm not in ("start", BASE) and pools[arm].keys() & pools[BASE].keys():
                seeds, point, low, high = gain(pools, arm)
                cells = [f"{x:+.2f} ({lo:+.2f} to {hi:+.2f})" for x, lo, hi in zip(point, low, high, strict=True)]
                print(f"| {arm} | {len(seeds)} | {' | '.join(cells)} |")
        print("\nmean reward by seed")
        for arm in arms:
            print(f"{arm}: {', '.join(f'{s}: {per_prompt(p).mean(0)[0]:.2f}' for s, p in sorted(pools[arm].items()))}")


if __name__ == "__main__":
    main()
