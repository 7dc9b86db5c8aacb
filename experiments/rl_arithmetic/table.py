"""The tables of README.md: values, differences paired by seed and prompt, and what the rollouts said.

    python experiments/rl_arithmetic/table.py runs/sums

95 % intervals: the report's, over seeds and prompts; of ratios, from the bootstrap of both.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from operant.report.pages.train.load import WARM, SavedRun, load_run
from operant.report.pages.train.tables import Interval, curves, intervals

GRPO = "grpo"
METRICS = ["pass@1", "pass@4", "pass@16", "pass@64", "pass@256", "maj@16"]


def rows(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """A table in Markdown."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    print("\n".join(f"| {' | '.join(cells)} |" for cells in body))


def paired(run: SavedRun, ours: str, theirs: str, metric: str) -> np.ndarray:
    """(S, P) differences, over the seeds that both arms finished."""
    a, b = run.values(ours, metric), run.values(theirs, metric)
    return np.array([a[s] - b[s] for s in sorted(a.keys() & b.keys())])


def shown(i: Interval) -> str:
    """A difference in points."""
    return f"{100 * i.mean:+.1f} ({100 * i.low:+.1f} to {100 * i.high:+.1f})"


def differences(run: SavedRun, pairs: Sequence[tuple[str, str]], metrics: Sequence[str]) -> list[list[str]]:
    """One row a pair of arms."""
    body = []
    for ours, theirs in pairs:
        stack = np.array([paired(run, ours, theirs, m) for m in metrics])
        body.append([f"{ours} - {theirs}", str(stack.shape[1]), *map(shown, intervals(stack))])
    return body


def resampled(stack: np.ndarray, resamples: int = 2000) -> np.ndarray:
    """Means of (C, S, P) values over resamples of seeds and prompts, (C, R)."""
    draw, (_, seeds, prompts) = np.random.default_rng(0).integers, stack.shape
    pairs = zip(draw(seeds, size=(resamples, seeds)), draw(prompts, size=(resamples, prompts)), strict=True)
    return np.array([stack[:, s][:, :, p].mean((1, 2)) for s, p in pairs]).T


def kept(run: SavedRun, mixture: str, whole: str, metric: str) -> str:
    """Shares of the gain at ``metric``, and of the price at pass@1, that a mixture has of the whole strategy's."""
    parts = []
    for m in (metric, "pass@1"):
        stack = np.array([paired(run, arm, GRPO, m) for arm in (mixture, whole)])
        ours, theirs = resampled(stack)
        low, high = np.quantile(ours / theirs, [0.025, 0.975])
        mean = stack[0].mean() / stack[1].mean()
        parts.append(f"{100 * mean:.0f} % ({100 * low:.0f} to {100 * high:.0f}) of the difference at {m}")
    return f"{mixture}: {' and '.join(parts)}"


def signals(run: SavedRun, arm: str) -> list[str]:
    """Means over the first and the last tenth of the log, over seeds; dead groups over all of it."""
    logs = [json.loads((job.path / "history.json").read_text(encoding="utf-8")) for job in run.of(arm)]
    columns = {
        k: np.array([[e[k] for e in log if k in e] for log in logs]) for k in ("reward", "entropy", "dead_groups")
    }
    tenth = -(-columns["reward"].shape[1] // 10)
    cells = [
        f"{columns[k][:, :tenth].mean():.3f} to {columns[k][:, -tenth:].mean():.3f}" for k in ("reward", "entropy")
    ]
    return [arm, *cells, f"{100 * columns['dead_groups'].mean():.0f}"]


def main(run_dir: Path, metrics: list[str] = METRICS) -> None:
    """Print the tables of one run, for some of its metrics."""
    run = load_run(run_dir)
    arms = [a for a in run.labels if a != WARM]
    means = curves(run)
    body = [[a, str(len(run.of(a))), *(f"{100 * means[a, m].mean:.1f}" for m in metrics)] for a in run.labels]
    rows("Mean over seeds and prompts, %", ["arm", "seeds", *metrics], body)
    against = [(a, b) for b in (WARM, GRPO) for a in arms if a != b]
    against += [(a.rpartition(" ")[0], a) for a in arms if " paper" in a or "plug-in" in a]
    whole = next((a for a in arms if a.startswith("pass@") and " " not in a), None)
    against += [(whole, a) for a in arms if whole is not None and a.startswith(f"{GRPO} ")]
    rows("Paired differences, points", ["arms", "seeds", *metrics], differences(run, against, metrics))
    rows("Rollouts", ["arm", "reward", "entropy", "dead groups, %"], [signals(run, a) for a in arms])
    for mixture in (a for a in arms if a.startswith("mix")):
        if whole is not None and len(run.of(mixture)) == len(run.of(whole)):
            print(f"\n{kept(run, mixture, whole, whole)}")


if __name__ == "__main__":
    auto_cli(main)
