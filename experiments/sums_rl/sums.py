"""Sums of two numbers of three digits, for a warm start and for RL on those that it answers now and then.

python experiments/sums_rl/sums.py runs/sums                          (warm.jsonl and pool.jsonl)
python experiments/sums_rl/sums.py runs/sums --solved runs/sums/pool  (the pool, evaluated: train.jsonl and test.jsonl)
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from operant.core.record import read_records

LEAST, MOST, TEST = 0.1, 0.6, 200


def write(file: Path, rows: list[dict[str, str]]) -> None:
    """The rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{file}: {len(rows)} sums")


def sums(folder: Path) -> None:
    """Sums that are all different: 4,000 for the warm start and 2,000 to choose from."""
    pairs = random.Random(0).sample([(a, b) for a in range(100, 1000) for b in range(100, 1000)], 6000)
    rows = [{"question": f"{a} + {b}", "answer": str(a + b)} for a, b in pairs]
    write(folder / "warm.jsonl", rows[:4000])
    write(folder / "pool.jsonl", rows[4000:])


def solved(folder: Path, evaluation: Path) -> None:
    """Of the pool, the sums whose exact pass@1 is from 10 to 60 %."""
    pool = [json.loads(line) for line in (folder / "pool.jsonl").read_text().splitlines()]
    found = read_records(evaluation / "prompts.jsonl")
    rows = [pool[row["prompt"]] for row in found if LEAST <= row["values"]["exact pass@1"] <= MOST]
    random.Random(1).shuffle(rows)
    write(folder / "test.jsonl", rows[:TEST])
    write(folder / "train.jsonl", rows[TEST:])


def main() -> None:
    """Write the sums, or those that were chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--solved", type=Path, help="folder of an evaluation of pool.jsonl")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    solved(args.folder, args.solved) if args.solved else sums(args.folder)


if __name__ == "__main__":
    main()
