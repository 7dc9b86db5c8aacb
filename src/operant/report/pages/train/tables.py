"""The numbers of a run's page: means, paired gains with intervals, trades, and signals of the rollouts.

Arrays have shape ``(S, P)``: S seeds, P prompts. Values and gains are fractions, and are printed as percent or
percentage points. A positive gain is better than the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from operant.report.pages.train.load import FIRST, SavedRun
from operant.report.pages.train.metrics import Metric

# The level of every interval of the page; its texts name it.
_LEVEL = 0.95
# Weights whose sd is below this share of their mean are constant: the branch is its baseline up to a scale.
_CONSTANT = 1e-3
_ONE_SAMPLE = Metric(FIRST, 1)


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, as fractions."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies on one side of zero, 0 if it does not."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Trade:
    """The gain of a branch at its own metric, and its price at the smallest budget.

    ``choices`` counts the metrics of which ``metric`` is the best; it is 1 where the branch's own metric was measured.
    """

    branch: str
    metric: str
    choices: int
    gain: Interval
    price_metric: str
    price: Interval


@dataclass(frozen=True)
class Signal:
    """What an RL branch logged of its rollouts: each pair is (start, end), None where it was not logged.

    Start and end are means over seeds and over the first and the last tenth of the logged steps. The shares ``dead``,
    ``unscored`` and ``cut`` are means over all steps.
    """

    branch: str
    value: tuple[float, float] | None
    reward: tuple[float, float] | None
    entropy: tuple[float, float] | None
    dead: float | None
    unscored: float
    cut: float


Intervals = Mapping[tuple[str, str], Interval]  # (branch, metric) -> interval


def intervals(values: np.ndarray) -> list[Interval]:
    """Mean and 95 % interval of each (S, P) slice of ``values`` (C, S, P), over seeds and prompts.

    Another run has other seeds and other prompts. MS_S, MS_P and MS_SP are the mean squares of seeds, of prompts and of
    the rest in the two-way table. The interval is mean +- h, with

        h^2 = t(S-1)^2 MS_S / (S P) + t(P-1)^2 max(MS_P - MS_SP, 0) / (S P),

    the t interval over seeds, and what the choice of prompts adds to it. With one seed it is the t interval over
    prompts, and says nothing of other seeds.

    A bootstrap of seeds and prompts is too narrow with few seeds: redrawing S seeds has (S-1)/S of their variance, and
    normal tails where t(2) has 4.3. With the variances of the demo's gain at pass@64 the bootstrap covers 81, 86 and
    91 % at 3, 5 and 8 seeds, this interval 94, 95 and 95 % (tests/report/pages/test_intervals.py). Satterthwaite's
    degrees of freedom gave 93 % at 3.

    Source: half-widths added in squares, Graybill and Wang (1980), JASA 75(372), 869-873, here for MS_S and MS_P.
    """
    seeds, prompts = values.shape[-2:]
    mean, size = values.mean((-2, -1)), seeds * prompts
    of_seed, of_prompt = values.mean(-1) - mean[:, None], values.mean(-2) - mean[:, None]  # (C, S), (C, P)
    rest = values - mean[:, None, None] - of_seed[:, :, None] - of_prompt[:, None]
    d_s, d_p = max(seeds - 1, 1), max(prompts - 1, 1)
    ms_s, ms_p = prompts * (of_seed**2).sum(-1) / d_s, seeds * (of_prompt**2).sum(-1) / d_p
    ms_sp = (rest**2).sum((-2, -1)) / (d_s * d_p)
    t_s, t_p = stdtrit([d_s, d_p], (1 + _LEVEL) / 2)
    half = np.sqrt((t_s**2 * ms_s + t_p**2 * np.maximum(ms_p - ms_sp, 0)) / size)
    return [Interval(*map(float, row)) for row in zip(mean, mean - half, mean + half, strict=True)]


def curves(run: SavedRun) -> dict[tuple[str, str], Interval]:
    """(branch, metric) -> mean over seeds and prompts, for every branch, the warm start included."""
    table: dict[tuple[str, str], Interval] = {}
    for label in run.labels:
        columns = {m: list(v.values()) for m in run.metrics if (v := run.values(label, m))}
        for (branch, metric), i in _rows(label, columns).items():
            share = all(((v >= 0) & (v <= 1)).all() for v in columns[metric])  # and so is its mean
            table[branch, metric] = Interval(i.mean, max(i.low, 0.0), min(i.high, 1.0)) if share else i
    return table


def gains(run: SavedRun) -> dict[tuple[str, str], Interval]:
    """(branch, metric) -> gain over the baseline, paired by seed and prompt; empty without a baseline.

    Only seeds that both branches finished are paired.
    """
    table: dict[tuple[str, str], Interval] = {}
    if run.baseline is None:
        return table
    for label in run.trained:
        columns: dict[str, list[np.ndarray]] = {}
        for metric in run.metrics:
            ours, theirs = run.values(label, metric), run.values(run.baseline, metric)
            # The branches of a seed share their weights at the start and their prompts: pairing removes that variance.
            paired = [ours[s] - theirs[s] for s in sorted(ours.keys() & theirs.keys())]
            if paired:
                columns[metric] = paired
        table.update(_rows(label, columns))
    return table


def _rows(label: str, columns: Mapping[str, Sequence[np.ndarray]]) -> dict[tuple[str, str], Interval]:
    """Intervals of one branch."""
    table: dict[tuple[str, str], Interval] = {}
    # Metrics with the same seeds are one array.
    for seeds in {len(rows) for rows in columns.values()}:
        metrics = [m for m, rows in columns.items() if len(rows) == seeds]
        stack = np.array([columns[m] for m in metrics])  # (C, S, P)
        table.update({(label, m): i for m, i in zip(metrics, intervals(stack), strict=True)})
    return table


def best_branches(run: SavedRun, means: Intervals, gain: Intervals) -> dict[str, str]:
    """Metric -> the branch to mark: the highest mean, if it differs measurably from the baseline.

    The baseline itself is marked where every other branch is measurably below it.
    """
    marked: dict[str, str] = {}
    for metric in run.metrics:
        rivals = [gain[b, metric] for b in run.trained if (b, metric) in gain]
        known = [b for b in (*run.trained, run.baseline) if b and (b, metric) in means]
        if not rivals or not known:
            continue
        best = max(known, key=lambda b: means[b, metric].mean)
        if best == run.baseline:
            clear = all(g.sign < 0 for g in rivals)
        else:
            clear = (best, metric) in gain and gain[best, metric].sign > 0
        if clear:
            marked[metric] = best
    return marked


def trades(run: SavedRun, gain: Intervals) -> list[Trade]:
    """Gain and price of every trained branch that has a gain, in the order of the page."""
    found = (_trade(run, label, gain) for label in run.trained)
    return [trade for trade in found if trade is not None]


def _trade(run: SavedRun, label: str, gain: Intervals) -> Trade | None:
    """At the branch's own metric; else at the best of its parts; else at the best of all that were measured."""
    known = [m for m in run.metrics if (label, m) in gain]
    if not known:
        return None
    (job, *_) = run.of(label)
    own = [m for m in known if run.metric(m) == job.objective]
    named = own or [m for m in known if run.metric(m) in job.parts] or known
    metric = max(named, key=lambda m: gain[label, m].mean)
    family = run.metric(metric).family
    one = [m for m in known if run.metric(m) == _ONE_SAMPLE]
    # The price is quoted at pass@1 if it was measured, otherwise at the smallest budget of the same family.
    cheap = one[0] if one else next(m for m in known if run.metric(m).family == family)
    return Trade(label, metric, len(named), gain[label, metric], cheap, gain[label, cheap])


def strategy_value(step: Mapping[str, Any]) -> float | None:
    """The value of the strategy that a step trained for; None if it was not logged, as in TRL's own trainers."""
    values = list(step.get("strategy", {}).values())  # two where the schedule changed between two records
    return values[-1] if values else None


def signals(run: SavedRun) -> list[Signal]:
    """The signals of every RL branch, in the order of the page; empty for a supervised run."""
    found: list[Signal] = []
    for label in run.labels:
        jobs = [steps for job in run.of(label) if (steps := [s for s in job.steps if s.get("reward") is not None])]
        if jobs:
            value = _ends([[strategy_value(s) for s in steps] for steps in jobs])
            reward, entropy = (_ends([[s.get(key) for s in steps] for steps in jobs]) for key in ("reward", "entropy"))
            every = [s for steps in jobs for s in steps]
            dead = [s["dead_groups"] for s in every if s.get("dead_groups") is not None]
            share = float(np.mean(dead)) if dead else None
            unscored, cut = (float(np.mean([s.get(key) or 0.0 for s in every])) for key in ("unscored", "cut"))
            found.append(Signal(label, value, reward, entropy, share, unscored, cut))
    return found


def _ends(jobs: Sequence[Sequence[float | None]]) -> tuple[float, float] | None:
    """Means over jobs of the first and of the last tenth."""
    pairs: list[tuple[float, float]] = []
    for column in jobs:
        known = [v for v in column if v is not None]
        # A tenth instead of one step: a single batch of prompts says little. Rounded up, so that one record is enough.
        tenth = -(-len(known) // 10)
        if known:
            pairs.append((float(np.mean(known[:tenth])), float(np.mean(known[-tenth:]))))
    if not pairs:
        return None
    start, end = np.mean(pairs, axis=0)
    return float(start), float(end)


def constant_weights(run: SavedRun) -> list[str]:
    """Trained SFT branches whose weights are the same for every example at every logged step."""
    return [label for label in run.trained if _is_constant(run, label)]


def _is_constant(run: SavedRun, label: str) -> bool:
    weights = [w for job in run.of(label) for s in job.steps if (w := s.get("weight")) and "reward" not in s]
    known = [w for w in weights if w.get("sd") is not None and w.get("mean") is not None]
    return bool(known) and all(w["sd"] <= _CONSTANT * abs(w["mean"]) for w in known)
