"""What a search costs: k draws of a proposer with their verification, against running chains of the space in order.

    python experiments/proposer/cost.py "runs/proposer/cross-entropy 0.004 1" runs/proposer/cost.jsonl

CPU seconds a target, of one thread. A row also has the accuracy of running as many random chains as fit into the
seconds of the k draws, and as many as were drawn.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from space import BUDGETS, Prompt, Space, accuracy, blind, build, explained

from operant.language import Proposer


def exhaustive(space: Space, prompt: Prompt) -> int:
    """Run every chain on the supports, each shared prefix once; how many explain all of them."""
    runs, level = [task.run for task in space.bank], [tuple(x for x, _ in prompt.supports)]
    for _ in range(3):
        level = [tuple(map(run, outputs)) for outputs in level for run in runs if run is not None]
    return level.count(tuple(y for _, y in prompt.supports))


def main() -> None:
    """Time both on some test prompts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("proposer", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--prompts", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    space = build()
    proposer = Proposer.load(args.proposer, functions={task.name: task.run for task in space.bank if task.run})
    places = range(0, len(space.test), len(space.test) // args.prompts)
    prompts = [space.test[i] for i in places]
    start = time.process_time()
    assert [exhaustive(space, p) for p in prompts] == [len(p.chains) for p in prompts]
    whole = (time.process_time() - start) / len(prompts)
    explains, right = explained(proposer, space.test)
    lines = [{"search": "all chains", "seconds": round(whole, 4), "accuracy": round(blind(space, 23**3), 2)}]
    for k in BUDGETS:
        start, found = time.process_time(), 0.0
        for p in prompts:
            drawn = proposer.propose(p.supports, attempts=k)
            found += any(proposer.verified(drawn, p.supports))
        seconds = (time.process_time() - start) / len(prompts)
        exact = 100 * float(accuracy(explains, right, k)[3].mean())
        chains = min(23**3, round(23**3 * seconds / whole))
        line = {"search": "proposer", "k": k, "seconds": round(seconds, 4), "accuracy": round(exact, 2)}
        sure = float((1 - (1 - explains[3, places]) ** k).mean())  # what the draws must agree with
        line |= {"explained": found / len(prompts), "explained, exact": round(sure, 3)}
        line |= {"chains in these seconds": chains, "their accuracy": round(blind(space, chains), 2)}
        lines.append(line | {"accuracy of k random chains": round(blind(space, k), 2)})
    args.file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("\n".join(map(json.dumps, lines)))


if __name__ == "__main__":
    main()
