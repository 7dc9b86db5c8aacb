"""The door: proposers trained for pass@k, by SFT and by RL, against cross-entropy and against exhaustive search.

    python experiments/proposer/run.py runs/proposer         (about 25 CPU minutes; started again, it goes on)
    python experiments/proposer/table.py runs/proposer

Every run is a line of results.jsonl. Development targets choose step and temperature, for every k on its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from space import BUDGETS, TEMPERATURES, Space, accuracy, build, explained

from operant.language import Compose, Proposer

SFT = {"cross-entropy": "pass@1", "pass@16": "pass@16", "pass@64": "pass@64", "pass@256": "pass@256"}
SFT |= {f"pass@64, log(S + {e})": f"pass@64 / log:{e}" for e in (0.1, 0.3)}  # strategy / transform
SFT |= {"mixture": "mix(pass@1:0.25, pass@64:0.75)"}
RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2)  # 1e-3 and 2e-3 were worse than 4e-3, see results.jsonl
TUNED = {"cross-entropy": 64, "pass@16": 16, "pass@64": 64, "mixture": 64}  # k at which development chooses the rate
TUNING, SEEDS = 1, (1, 2, 3, 4, 5)
WARM, STEPS, BATCH = 800, 700, 32
SHAPE = {"relation": Compose(depth=3), "shown": (3, 3), "hidden": 64, "layers": 2, "batch_size": BATCH, "device": "cpu"}
RL_STEPS, RL_RATES = 200, (3e-5, 1e-4, 3e-4)  # 1e-3 lost in 60 steps already, see results.jsonl
RL = {
    "RL pass@1 (GRPO)": {"strategy": "pass@1", "form": "grpo"},
    "RL pass@16": {"strategy": "pass@16"},
    "RL pass@1, log(V + 0.02)": {"strategy": "pass@1", "transform": "log:0.02"},
}


def values(proposer: Proposer, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies (K, T) on development, and (K, T, targets) on test, of two support sets a target."""
    found = []
    for prompts in (space.development, space.test):
        explains, right = explained(proposer, prompts)
        per_prompt = np.stack([accuracy(explains, right, k) for k in BUDGETS])
        targets = np.array([p.target for p in prompts])
        found.append(np.stack([per_prompt[..., targets == t].mean(-1) for t in np.unique(targets)], -1))
    return found[0].mean(-1), found[1]


class Watch:
    """Values on the way, and what development chooses of them."""

    def __init__(self, space: Space, at: Sequence[int]) -> None:
        self.space, self.at = space, at
        self.seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.proposer: Proposer | None = None
        self.seconds = 0.0  # of evaluation

    def __call__(self, step: int, loss: float) -> None:
        """A progress callback."""
        if step in self.at and self.proposer is not None:
            start = time.process_time()
            self.seen[step] = values(self.proposer, self.space)
            self.seconds += time.process_time() - start

    def line(self) -> dict:
        """For every k the step and temperature with the best development value, and the test values of the targets."""
        chosen = {}
        for b, k in enumerate(BUDGETS):
            best = max((dev[b].max(), step) for step, (dev, _) in self.seen.items())
            dev, test = self.seen[best[1]]
            t = int(dev[b].argmax())
            chosen[str(k)] = {"step": best[1], "temperature": TEMPERATURES[t], "development": round(float(best[0]), 5)}
            chosen[str(k)]["test"] = np.round(test[b, t], 5).tolist()
        last = self.seen[max(self.seen)]
        at_one = {str(k): round(float(last[1][b, TEMPERATURES.index(1.0)].mean()), 5) for b, k in enumerate(BUDGETS)}
        return {"chosen": chosen, "test at T = 1": at_one}


def warm_start(space: Space, seed: int, folder: Path) -> str:
    """Cross-entropy for ``WARM`` steps: every arm of a seed goes on from it."""
    where = folder / f"warm{seed}"
    if not (where / "bank.jsonl").is_file():
        fresh = Proposer(strategy="pass@1", steps=WARM, learning_rate=4e-3, seed=seed, save_steps=100, **SHAPE)
        fresh.fit(space.bank, held_out=space.held_out, folder=where)
    return str(where / "model")


def sft(space: Space, arm: str, rate: float, seed: int, folder: Path) -> dict:
    """One arm from the warm start, on the rows that all arms of the seed see in the same order."""
    start = warm_start(space, seed, folder)
    watch = Watch(space, [STEPS // 2, 3 * STEPS // 4, STEPS])
    strategy, _, transform = SFT[arm].partition(" / ")
    goal = {"strategy": strategy, "transform": transform}
    watch.proposer = Proposer(start, **goal, steps=STEPS, learning_rate=rate, seed=100 + seed, **SHAPE)
    watch.proposer.fit(space.bank, held_out=space.held_out, progress=watch)
    if not (where := folder / f"{arm} {rate:g} {seed}").is_dir():
        watch.proposer.save(where)
    return watch.line()


def rl(space: Space, arm: str, rate: float, seed: int, folder: Path, start: str) -> dict:
    """RL from an SFT arm of the same seed."""
    proposer = Proposer.load(folder / f"{start} {seed}", functions={task.name: task.run for task in space.bank})
    watch = Watch(space, [RL_STEPS // 4, RL_STEPS // 2, RL_STEPS])
    watch.proposer = proposer
    proposer.reinforce(**RL[arm], steps=RL_STEPS, learning_rate=rate, held_out=space.held_out, progress=watch)
    return watch.line()


def main() -> None:
    """Run what results.jsonl lacks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--arms", nargs="+", default=["cross-entropy", "mixture", "pass@64"])
    parser.add_argument("--rl", type=int, nargs="*", default=(), help="seeds of RL from cross-entropy")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    file = args.folder / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    space = build()

    def run(job, arm: str, rate: float, seed: int, *rest: str) -> dict:
        key = {"arm": arm, "rate": rate, "seed": seed}
        known = next((line for line in lines if key.items() <= line.items()), None)
        if known is None:
            start = time.process_time()
            known = key | job(space, arm, rate, seed, args.folder, *rest)
            known["cpu_seconds"] = round(time.process_time() - start, 1)
            lines.append(known)
            with file.open("a") as out:
                out.write(json.dumps(known) + "\n")
            print(arm, rate, seed, {k: c["development"] for k, c in known["chosen"].items()}, flush=True)
        return known

    def value(arm: str, rate: float, k: int) -> float:
        return run(sft, arm, rate, TUNING)["chosen"][str(k)]["development"]

    def tuned(arm: str, k: int) -> float:
        """The best rate: the next larger one is worse."""
        for rate, larger in pairwise(RATES):
            if value(arm, larger, k) <= value(arm, rate, k):
                return rate
        return RATES[-1]

    rates = {arm: tuned(arm, k) for arm, k in TUNED.items()}
    print(rates, {arm: {k: value(arm, rates[arm], k) for k in BUDGETS} for arm in rates}, flush=True)
    for seed in args.seeds:
        for arm in args.arms:
            run(sft, arm, rates.get(arm, rates["pass@64"]), seed)
    start = f"cross-entropy {rates['cross-entropy']:g}"
    for arm in RL if args.rl else ():
        best = max(RL_RATES, key=lambda rate: run(rl, arm, rate, TUNING, start)["chosen"]["64"]["development"])
        for seed in args.rl:
            run(rl, arm, best, seed, start)


if __name__ == "__main__":
    main()
