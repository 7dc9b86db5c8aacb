"""Arithmetic word problems whose answer is one number: data enough that no model sees a problem twice.

python experiments/word_problems/problems.py runs/words        (writes train.jsonl, 100,000 rows, and test.jsonl)
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

NAMES = ["Tom", "Mia", "Ali", "Eva", "Ben", "Zoe", "Sam", "Lea", "Max", "Ida"]
THINGS = ["apples", "books", "coins", "cards", "eggs", "pens", "shells", "stamps", "nuts", "beads"]


def problem(rng: random.Random) -> tuple[str, int]:
    """A question of one of five kinds, and its answer."""
    a, b, c, d = rng.randrange(12, 90), rng.randrange(3, 10), rng.randrange(12, 40), rng.randrange(2, 12)
    n, m, t = *rng.sample(NAMES, 2), rng.choice(THINGS)
    kinds = [
        (f"{n} has {a} {t} and buys {b} boxes of {c} {t}. How many {t} does {n} have now?", a + b * c),
        (f"{n} has {b} bags with {c} {t} each and gives {a // 2} to {m}. How many {t} are left?", b * c - a // 2),
        (f"{n} has {a} {t}. {m} has {c} more than {n}. How many {t} do they have together?", 2 * a + c),
        (
            f"Each of {b} shelves holds {c} {t}. {n} adds {d} {t} to each shelf. How many {t} are on the shelves?",
            b * (c + d),
        ),
        (
            f"{n} earns {c} coins a day for {b} days and spends {a}. {m} adds {d} coins. How many coins does {n} have?",
            b * c - a + d,
        ),
    ]
    return rng.choice(kinds)


def write(file: Path, size: int, seed: int, seen: set[str]) -> None:
    """Problems that are not in ``seen``, as JSON lines."""
    rng, rows = random.Random(seed), []
    while len(rows) < size:
        question, answer = problem(rng)
        if question not in seen and answer >= 0:
            seen.add(question)
            rows.append(json.dumps({"question": question, "answer": str(answer)}) + "\n")
    file.write_text("".join(rows))


def main() -> None:
    """Write both files; no test problem is taught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    write(folder / "test.jsonl", 600, 1, seen)
    write(folder / "train.jsonl", 100_000, 2, seen)


if __name__ == "__main__":
    main()
