"""A run in words: the finding in one sentence, the notes, and the table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from operant.report.asked import counted, data_of, method_of, model_of, spanned
from operant.report.formats import MISSING, aligned, percent
from operant.report.pages.train.load import SavedRun
from operant.report.pages.train.metrics import Metric
from operant.report.pages.train.rates import rate_notes
from operant.report.pages.train.tables import (
    Interval,
    Intervals,
    Trade,
    best_branches,
    constant_weights,
    curves,
    gains,
    signals,
    trades,
)

_CONSTANT_ADVICE = (
    "This branch IS the baseline up to a scale: all its targets have p << 1/N, or the same p. Train on shorter "
    "targets, or choose another level of p (--level answer: the measured success rate)."
)
_DEAD_ADVICE = (
    "No rollout had a weight, so nothing was learned. For pass@N a group of M rollouts is dead if it has no success, "
    "or more than M - N of them. Sample more rollouts, train on prompts that are sometimes solved, choose another N, "
    "or start with --warm_steps."
)
_MOSTLY_DEAD_ADVICE = (
    "Their rollouts were sampled and contributed no gradient. Sample more rollouts, train on prompts that are "
    "sometimes solved, choose another N, or set --resample_dead or --transform log:0.02."
)
_CUT_ADVICE = (
    "A completion that is cut has no answer to score, so most of the reward is about length. Raise "
    "--max_completion_length, or ask for shorter answers in --data.template."
)
_BASELINES = {
    "ce": "cross-entropy",
    "ce, best step and T": "cross-entropy at its best step and temperature",
    "ce, best rate, step and T": "cross-entropy at its best learning rate, step and temperature",
    "grpo": "TRL's GRPO",
    "rloo": "TRL's RLOO",
}


def asked(run: SavedRun) -> str:
    """Task, model, data and question in one sentence."""
    config, budgets = run.source.config, [run.metric(m).n for m in run.metrics]
    prompts = len(run.jobs[0].prompts)
    if run.is_evaluation:
        file = config.get("rollouts_file")
        of = f"the rollouts in {file}" if file else f"{model_of(config)} on {data_of(config)}"
        heat = config.get("temperature")
        at = "" if file or not isinstance(heat, (int, float)) else f" at temperature {heat:g}"
        each = f"{spanned(budgets, 'sample')} for each of {counted(prompts, 'prompt')}"
        return f"Evaluation of {of}: what are {each} worth{at}?"
    what = " or ".join(run.trained) or "no strategy"
    question = f"does training for {what} beat {spoken(run)}" if run.baseline else f"how good is training for {what}"
    return (
        f"{method_of(config)} of {model_of(config)} on {data_of(config)}: {question} on "
        f"{counted(prompts, 'held-out prompt')}, with {spanned(budgets, 'sample')} each and "
        f"{counted(len(run.seeds), 'seed')}?"
    )


def finding(run: SavedRun, gain: Intervals) -> str:
    """The result of the run in one sentence."""
    found = trades(run, gain)
    if run.baseline is None or not found:
        return _values_only(run)
    # A clear gain comes before a larger one whose interval includes zero.
    best = max(found, key=lambda t: (t.gain.sign > 0, t.gain.mean))
    base, paid = spoken(run), _price_clause(best)
    sampled = all(job.role == "evaluation" for job in run.of(best.branch))
    name = best.branch if sampled else f"{best.branch} training"
    best_of = f", its best of {best.choices} budgets" if best.choices > 1 else ""
    at = f"at {best.metric}{best_of}"
    if best.gain.sign and percent(best.gain.mean, sign=True) == percent(0):
        rank = "" if len(found) == 1 else f", the best of {len(found)} branches,"
        gap = _points(best.gain, f"from {base} {at}", sign=True)
        return f"No difference: {best.branch}{rank} is {gap}{paid}."
    if best.gain.sign > 0:
        return f"{name} beats {base} by {_points(best.gain, at)}{paid}."
    if best.gain.sign < 0:
        loss = Interval(-best.gain.mean, -best.gain.high, -best.gain.low)
        rest = f"; it is the best of {len(found)} branches" if len(found) > 1 else ""
        return f"{name} loses to {base} by {_points(loss, at)}{rest}."
    rank = f"the best of {len(found)} branches" if len(found) > 1 else "the only branch"
    gap = _points(best.gain, f"from {base} {at}", sign=True)
    return f"No measurable difference: {best.branch}, {rank}, is {gap}{paid}."


def _values_only(run: SavedRun) -> str:
    """The finding of a run without gains: both ends of the first family's curve, for its best branch."""
    means = curves(run)
    family = run.in_family(run.families[0])
    known = [b for b in run.labels if (b, family[0]) in means and (b, family[-1]) in means]
    if not known:
        return "No branch was measured at every budget, and there is no baseline to compare with."
    best = max(known, key=lambda b: means[b, family[-1]].mean)
    ends = [f"{percent(means[best, m].mean)} % at {m}" for m in dict.fromkeys([family[0], family[-1]])]
    alone = "." if run.is_evaluation else "; without a baseline there are no gains to report."
    return f"{best} reaches {' and '.join(ends)}{alone}"


def _price_clause(trade: Trade) -> str:
    if trade.metric == trade.price_metric:
        return ""
    size = f"{percent(abs(trade.price.mean))} points at {trade.price_metric}"
    sign = trade.price.sign if percent(trade.price.mean, sign=True) != percent(0) else 0
    clauses = {
        -1: f" and pays {size}",
        0: f", with no measurable price at {trade.price_metric}",
        1: f" and also gains {size}",
    }
    return clauses[sign]


def _points(gain: Interval, where: str, *, sign: bool = False) -> str:
    mean, low, high = (percent(x, sign=sign) for x in (gain.mean, gain.low, gain.high))
    return f"{mean} points {where} (95 % interval {low} to {high})"


def spoken(run: SavedRun) -> str:
    """The name of the baseline inside a sentence."""
    name = run.baseline or ""
    rates = [job for job in run.of(name) if len(job.rates) > 1]
    tuned = " at its best learning rate" if rates and "," not in name else ""
    return _BASELINES.get(name, name) + tuned


def cautions(run: SavedRun) -> list[tuple[str, str]]:
    """Faults of branches: what is wrong, and what to do."""
    constant = [(f"{b}: its weights are constant.", _CONSTANT_ADVICE) for b in constant_weights(run)]
    found = signals(run)
    # Some dead groups are normal; more than half of them waste more than half of the sampling.
    dead = [(f"{s.branch}: every group was dead.", _DEAD_ADVICE) for s in found if s.dead == 1.0]
    dead += [
        (f"{s.branch}: {percent(s.dead)} % of its groups were dead.", _MOSTLY_DEAD_ADVICE)
        for s in found
        if s.dead is not None and 0.5 < s.dead < 1
    ]
    cut = [(f"{s.branch}: {percent(s.cut)} % of its completions were cut.", _CUT_ADVICE) for s in found if s.cut > 0.5]
    return constant + dead + cut


def undecided(run: SavedRun, gain: Intervals) -> list[tuple[str, str]]:
    """What a reader must not conclude where no branch differs measurably from the baseline; the page alone says it."""
    found = trades(run, gain)
    if not found or any(t.gain.sign for t in found):
        return []
    best = max(found, key=lambda t: t.gain.mean)
    wide = percent(best.gain.high - best.gain.low)
    more = "Train more seeds: one says nothing about their spread."
    if len(run.seeds) > 1:
        more = "About four times as many seeds halve it."
    return [
        (
            f"No measurable difference from {spoken(run)}.",
            f"The interval at {best.metric} is {wide} points wide: smaller differences cannot be seen. {more}",
        )
    ]


def notes(run: SavedRun) -> list[str]:
    """What is missing from the run, and what its intervals leave out."""
    found = [*run.warnings, *_plateaus(run), *rate_notes(run), *_kept(run)]
    if run.unfinished:
        names = ", ".join(run.unfinished)
        found.append(f"Not finished and left out of every number (no prompts.jsonl): {names}.")
    if run.is_evaluation:
        return found
    if run.baseline is None:
        found.append("No baseline has finished: the report shows values and no gains.")
    if len(run.seeds) == 1:
        found.append("One seed: the intervals are over prompts only; variation between seeds is not included.")
    for label in run.trained if run.baseline else ():
        seeds = {j.seed for j in run.of(label)}
        both = seeds & {j.seed for j in run.of(run.baseline or "")}
        if not both:
            found.append(f"{label} shares no finished seed with the baseline, so it has no gains.")
        elif len(both) < len(run.seeds):
            listed = ", ".join(map(str, sorted(both)))
            found.append(f"Gains of {label} are paired on seeds {listed} of {len(run.seeds)}.")
    return found


def _kept(run: SavedRun) -> list[str]:
    """With --keep best: the step whose weights each branch has, and the value on all held-out prompts that chose it."""
    jobs = [job for job in run.jobs if job.kept is not None]
    listed = "; ".join(
        f"{job.label}, seed {job.seed}: step {k['step']} ({k['metric']} {percent(k['value'])} %"
        + (")" if k["value"] == k["last"] else f", {percent(k['last'])} % at the last step)")
        for job in jobs
        if (k := job.kept) is not None
    )
    told = "Their values in the table are at the steps that the other half of the held-out prompts chose."
    return [f"Kept, the best step of each branch: {listed}. {told}"] if jobs else []


def _plateaus(run: SavedRun) -> list[str]:
    """Where the strategy of every branch with a plateau in its schedule changed."""
    later = (run.source.config.get("strategy_schedule") or {}).get("plateau")
    found: list[str] = []
    for job in run.jobs if later else ():
        steps = [s["plateau_step"] for s in job.steps if s.get("plateau_step") is not None]
        name = f"{job.label}, seed {job.seed}"
        if job.label in run.trained and steps:
            found.append(f"{name}: plateau at step {steps[0]:.0f}, from there on the strategy was {later}.")
        elif job.label in run.trained:
            found.append(f"{name}: no plateau was reached, so {later} was not trained for.")
    return found


def run_table(run: SavedRun) -> str:
    """The finding, the notes and the table of curves as plain text, for the terminal."""
    means, gain = curves(run), gains(run)
    if run.is_evaluation:
        return "\n".join([finding(run, gain), *notes(run), "", *_evaluation_table(run)])
    marked = best_branches(run, means, gain)
    head = ["mean, %", *run.metrics]
    rows = [[label, *(_cell(means, marked, label, m) for m in run.metrics)] for label in run.labels]
    lines = aligned([head, *rows])
    if marked:
        lines.append("* best; its 95 % interval against the baseline excludes zero")
    warnings = [f"Warning: {what} {advice}" for what, advice in cautions(run)]
    told = signal_rows(run)
    rollouts = ["", *aligned(told)] if len(told) > 1 else []
    return "\n".join([finding(run, gain), *notes(run), *warnings, "", *lines, *rollouts])


def signal_rows(run: SavedRun) -> list[list[str]]:
    """Head and rows of the table of rollouts, from start to end; the head alone for a supervised run."""
    head = ["rollouts in training", "its strategy", "reward", "entropy", "dead groups, %", "unscored, %"]
    rows = [
        [
            s.branch,
            *(_from_to(pair) for pair in (s.value, s.reward, s.entropy)),
            percent(s.dead),
            percent(s.unscored),
        ]
        for s in signals(run)
    ]
    return [head, *rows]


def _from_to(pair: tuple[float, float] | None) -> str:
    return MISSING if pair is None else f"{pair[0]:z.3f} to {pair[1]:z.3f}"


def _evaluation_table(run: SavedRun) -> list[str]:
    """One row a budget, one column a family: mean and standard error over prompts, in percent."""
    (job,) = run.jobs
    columns = {run.metric(m): job.values[m] for m in run.metrics}
    rows = [["N", *(f"{family}, %" for family in run.families)]]
    for n in sorted({metric.n for metric in columns}):
        found = [columns.get(Metric(family, n)) for family in run.families]
        rows.append([str(n), *(MISSING if c is None else _mean_and_stderr(c) for c in found)])
    return [*aligned(rows), f"mean ± standard error over {len(job.prompts)} prompts"]


def _mean_and_stderr(values: np.ndarray) -> str:
    if len(values) == 1:
        return percent(values[0])
    return f"{percent(values.mean())} ± {percent(values.std(ddof=1) / len(values) ** 0.5)}"


def _cell(means: Intervals, marked: Mapping[str, str], label: str, metric: str) -> str:
    if (label, metric) not in means:
        return f"{MISSING}  "
    return f"{percent(means[label, metric].mean)} {'*' if marked.get(metric) == label else ' '}"
