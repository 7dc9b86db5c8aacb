"""Evaluate, verify and adapt over and over: memory must stay flat."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from operant.hf.config import EvaluateConfig
from operant.hf.rollouts.evaluate import evaluate
from operant.hf.rollouts.prompts import DataConfig
from operant.relational import Extrapolator, TaskBank
from operant.verify import Prompt, make_verifier
from torture.work import Tell, Unit

GROWTH = 24.0
"""MiB by which memory may grow from the second third of the time to the last."""


def units(root: Path, seconds: float) -> list[Unit]:
    """One loop of so many seconds."""
    return [Unit("soak: evaluate, verify, adapt; flat memory", "soak", seconds, _soak(root, seconds), seconds + 300)]


def _soak(root: Path, seconds: float) -> Callable[[Tell], None]:
    def run(tell: Tell) -> None:
        os.chdir(root)
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)
        x = np.linspace(0, 1, 9)
        bank = TaskBank.from_arrays({i: (x, np.sin(3 * x + i / 4)) for i in range(5)}, params=np.arange(5.0))
        model = Extrapolator(operator=["shift", "shift * xshift", "span"]).fit(bank)
        times, sizes, began = list[float](), list[float](), time.monotonic()
        with make_verifier("math", processes=1) as check:
            while time.monotonic() - began < seconds:
                _round(len(times), root / "soak", check, model, x)
                gc.collect()
                times.append(time.monotonic() - began)
                sizes.append(_memory())
                tell(1, 1)
        trouble = growth(np.array(times), np.array(sizes))
        tell(1, int(not trouble), trouble or None)

    return run


def _round(number: int, folder: Path, check: object, model: Extrapolator, x: np.ndarray) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    data = DataConfig(test_limit=16, seed=number)
    evaluate(EvaluateConfig(output_dir=folder, data=data, rollouts=4, max_new_tokens=5, batch_size=8, verifier="exact"))
    texts = [f"the answer is \\boxed{{\\frac{{{number + i}}}{{{i + 2}}}}}" for i in range(40)]
    verdicts = check([Prompt(i, "", str(i)) for i in range(40)], texts)  # pyright: ignore[reportCallIssue]
    assert len(verdicts) == 40 and not any(v.failure for v in verdicts)
    shift = number % 7 / 10
    target = model.adapt(x[:4], np.sin(3 * x[:4] + 1.2 + shift), params=[5.0 + shift])
    assert np.isfinite(target.predict(x)).all() and target.explain()


def _memory() -> float:
    """MiB of this process and of those that it started."""
    this = psutil.Process()
    return sum(p.memory_info().rss for p in (this, *this.children(recursive=True))) / 2**20


def growth(times: np.ndarray, sizes: np.ndarray) -> str:
    """Whether memory grows: the last third of the time against the second, "" if it is flat."""
    thirds = [np.median(sizes[(times >= a * times[-1] / 3) & (times <= (a + 1) * times[-1] / 3)]) for a in (1, 2)]
    slope = np.polyfit(times[len(times) // 3 :], sizes[len(sizes) // 3 :], 1)[0] * 60
    if thirds[1] - thirds[0] <= GROWTH:
        return ""
    return f"memory grew from {thirds[0]:.0f} to {thirds[1]:.0f} MiB, {slope:.2f} MiB a minute"
