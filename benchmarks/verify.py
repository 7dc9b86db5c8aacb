"""Verification throughput: completions a second of each verifier, and what long-lived workers save a training step.

    python benchmarks/verify.py                 # two worker processes, under two minutes
    python benchmarks/verify.py --processes 8   # more

The rate is by the clock, which a busy machine disturbs; the CPU time of all processes together is what it costs.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil

from operant.hf import DataConfig, load_prompts
from operant.verify import Prompt, Verdict, make_verifier, verify
from operant.verify.answers import grade

FORMS = (
    "The answer is {x}.",
    "so that is $\\boxed{{{x}}}$",
    "#### {x}",
    "We get \\frac{{{x}}}{{7}} = {y:.2f}",
    "{x} apples",
)
WRONG = ("$\\sqrt{{{x}}}$", "I think it is {y:.3f}", "$x^2 + {x}$", "nobody knows")


def rollouts(prompts: int, m: int, seed: int = 0) -> tuple[list[Prompt], list[str]]:
    """Prompts with M different completions each, half of them right."""
    rng = random.Random(seed)
    asked, said = [], []
    for i in range(prompts):
        target = rng.randrange(10, 100_000)
        for j in range(m):
            x = target if j % 2 else rng.randrange(10, 100_000)
            form = rng.choice(FORMS if j % 2 else FORMS + WRONG)
            asked.append(Prompt(i, f"prompt {i}", str(target)))
            said.append(f"Step {rng.random():.6f}: let us think. " + form.format(x=x, y=x / 7))
    return asked, said


def cpu() -> float:
    """CPU seconds of this process and of all that it started, ended or not."""
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:4]) for process in tree)  # user, system, and both of the children that ended


def timed(name: str, function: Callable[[], Sequence[Verdict]]) -> float:
    """Print a line, and return its CPU seconds."""
    start, before = time.perf_counter(), cpu()
    verdicts = function()
    took, used = time.perf_counter() - start, cpu() - before
    count, failed = len(verdicts), sum(v.failure != "" for v in verdicts)
    each = f"{used / count * 1e3:.2f} ms"
    right = sum(v.reward == 1.0 for v in verdicts)
    print(f"{name:<38}{count:>7}{count / took:>10,.0f}/s{each:>12}{right:>8}{failed:>8}", flush=True)
    return used


def math(processes: int, sizes: Sequence[tuple[int, int]]) -> None:
    """A long-lived pool beside a new one in each call, at the sizes of a training step, and beside no pool at all."""
    pairs: list[tuple[str, str]] = []
    with make_verifier("math", processes=processes) as check:
        check(*rollouts(4, 4, seed=9))
        for seed, (prompts, m) in enumerate(sizes):
            asked, said = rollouts(prompts, m, seed)
            pairs = [(p.target, text) for p, text in zip(asked, said, strict=True)]
            name = f"math, {prompts} x {m}, workers "
            lasting = timed(name + "that last", lambda asked=asked, said=said: check(asked, said))
            called = timed(name + "per call", lambda pairs=pairs: verify(pairs, "math", processes=processes)[0])
            print(f"{'':<55}{called / lasting:>11.1f}x")
    timed("math, in this process, no time limit", lambda: [Verdict(*grade(t, text, {})[:2]) for t, text in pairs])


def others(processes: int, count: int) -> None:
    """The cheap ones, a generator's, and programs."""
    asked, said = rollouts(count // 8, 8)
    for spec in ("exact", r"regex:(\d+)\D*$"):
        with make_verifier(spec, processes=processes) as check:
            timed(spec, lambda check=check: check(asked, said))
    train, _ = load_prompts(DataConfig(train=f"gym:chain_sum?size={count}", holdout=1))
    with make_verifier("gym", processes=processes) as check:
        check(train[:processes], ["0"] * processes)
        timed("gym, chain_sum", lambda: check(train, [p.target for p in train]))
    train, test = load_prompts(DataConfig(train="humaneval", holdout=64))
    with make_verifier("code", processes=processes) as check:
        timed("code, HumanEval's solutions", lambda: check(train + test, [p.target for p in train + test]))


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default 2)")
    processes = parser.parse_args().processes
    print(f"{f'{processes} processes':<38}{'count':>7}{'rate':>12}{'CPU each':>12}{'right':>8}{'failed':>8}")
    math(processes, [(8, 8), (32, 16), (64, 32)])
    others(processes, 2000)


if __name__ == "__main__":
    main()
