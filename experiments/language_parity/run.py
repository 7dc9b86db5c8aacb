"""Sparse parity of 6 of 8 bits, from parities of up to 5 bits: the extrapolator beside exact search (section 4.1)."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from operant.language import LanguageExtrapolator, TextTask, Toggle, sparse_parity

QUERIES = 10


def main() -> None:
    """Fit once a seed; adapt to every target with ``--sets`` random support sets; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results.jsonl is written here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds")
    parser.add_argument("--supports", type=int, nargs="+", default=[5, 8, 10])
    parser.add_argument("--sets", type=int, default=20, help="support sets a target")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    split = sparse_parity(8, sizes=(1, 2, 3, 4, 5), target=6)
    inputs = list(split.bank.inputs)
    # Every parity of 6 bits can be written as one of 5 and a further bit: the targets are the search space's functions.
    space = [np.array([target.run(x) for x in inputs]) for target in split.targets]
    args.folder.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, object]] = []
    for seed in args.seeds:
        model = LanguageExtrapolator(
            relation=Toggle(), steps=args.steps, batch_size=64, hidden=32, layers=2, learning_rate=3e-3, seed=seed
        ).fit(split.bank, held_out=split.targets)
        for n in args.supports:
            start = time.process_time()
            rows = [_target(model, target, inputs, space, n, args.sets) for target in split.targets]
            cost = (time.process_time() - start) / len(rows) / args.sets
            line = {"seed": seed, "supports": n, "cpu_seconds": round(cost, 4)}
            for name in ("accuracy", "pick", "vote", "consistent"):
                values = np.array([row[name] for row in rows])
                draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)  # clustered by target
                line[name] = [round(float(v), 4) for v in (values.mean(), *np.quantile(draws, (0.025, 0.975)))]
            lines.append(line)
            print(json.dumps(line), flush=True)
    (args.folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _target(
    model: LanguageExtrapolator, target: TextTask, inputs: list[str], space: list[np.ndarray], n: int, sets: int
) -> dict[str, float]:
    """Means over support sets; the same sets for every training seed."""
    rng, truth = np.random.default_rng([n, *target.name.encode()]), np.array([target.run(x) for x in inputs])
    found: Counter[str] = Counter()
    for _ in range(sets):
        order = rng.permutation(len(inputs))
        supports, queries = order[:n], order[n : n + QUERIES]
        task = model.adapt([(inputs[i], truth[i]) for i in supports])
        answers = task.predict([inputs[i] for i in queries])
        agree = [values for values in space if (values[supports] == truth[supports]).all()]
        votes = [Counter(values[i] for values in agree).most_common(1)[0][0] for i in queries]
        found["accuracy"] += np.mean(np.array(answers) == truth[queries])
        found["pick"] += np.mean([np.mean(values[queries] == truth[queries]) for values in agree])
        found["vote"] += np.mean(np.array(votes) == truth[queries])
        found["consistent"] += len(agree)
    return {name: value / sets for name, value in found.items()}


if __name__ == "__main__":
    main()
