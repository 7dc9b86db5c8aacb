"""The page of a run: curves, gains and their price, rollouts, training and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from operant.report.asked import counted
from operant.report.charts import rows_of
from operant.report.formats import MISSING, brief, interval, percent
from operant.report.page import Page, aside, cell, examples_section, figure_section, row, section, table, warning
from operant.report.pages.train.charts import gain_figure, keys, rollouts, scaling, training, weights
from operant.report.pages.train.load import SavedRun
from operant.report.pages.train.rates import at_rates, rates_figure
from operant.report.pages.train.tables import (
    Interval,
    Intervals,
    best_branches,
    curves,
    gains,
    trades,
)
from operant.report.pages.train.text import asked, cautions, finding, notes, signal_rows, spoken, undecided
from operant.report.theme import Figure, SeriesStyle


@dataclass(frozen=True)
class _Shown:
    """A run with what is computed from it once."""

    run: SavedRun
    means: Intervals
    gain: Intervals
    figures: Mapping[str, Figure]
    keys: Mapping[str, SeriesStyle]


def build(run: SavedRun) -> Page:
    """The page of a run."""
    means, gain = curves(run), gains(run)
    figures = (
        *(scaling(run, means), gain_figure(run, gain), rates_figure(run, means)),
        *(rollouts(run), training(run), weights(run)),
    )
    drawn = [f for f in figures if f is not None]
    shown = _Shown(run, means, gain, {f.name: f for f in drawn}, keys(run, run.labels))
    return Page(
        kind="report",
        title=run.source.name,
        origin=str(run.source.folder),
        asked=asked(run),
        findings=[finding(run, gain)],
        asides=[*(warning(*c) for c in (*undecided(run, gain), *cautions(run))), aside(notes(run))],
        sections=_sections(shown),
        figures=drawn,
        config=run.source.config,
        environment=run.source.environment,
        reading=_reading(),
        made=f"Made by operant from {counted(len(run.jobs), 'finished job')}.",
    )


def _sections(shown: _Shown) -> list[str]:
    return [
        _curve_section(shown),
        _examples(shown.run),
        _figure_section(
            shown,
            "scaling",
            "Mean over prompts and seeds, with a 95 % band. The bands of two branches may overlap although their "
            "paired gain is clear, so compare branches by the gains below.",
            _interval_table(shown),
        ),
        _gain_section(shown),
        _trade_section(shown),
        _figure_section(
            shown,
            "rates",
            "Mean over prompts and seeds at every learning rate, after the last step, at temperature 1, %. ★ marks the "
            "rate that most halves of the prompts chose for the budget.",
            _rate_table(shown),
        ),
        _rollout_section(shown),
        _figure_section(
            shown,
            "training",
            "Means over seeds. The losses of different objectives have different scales: "
            "compare the shapes of loss curves, not their heights. "
            "The table gives the first and the last point of each curve.",
            _course_table(shown, "training"),
        ),
        _figure_section(
            shown,
            "weights",
            "The factor that the objective puts on the cross-entropy gradient of each example: median and band from "
            "the 5 % to the 95 % quantile, means over seeds. The dashed line is 1, the baseline's weight. "
            "The table gives the first and the last median.",
            _course_table(shown, "weights"),
        ),
        _seed_section(shown),
    ]


def _rollout_section(shown: _Shown) -> str:
    head, *rows = signal_rows(shown.run)
    told = [row(label, map(cell, cells), key=shown.keys[label]) for label, *cells in rows]
    caption = (
        "Measured on training prompts before each step. The table compares the first and the last tenth of the logged "
        "steps. The value of a strategy is its unbiased estimate from each group; TRL's own trainer logs none. A group "
        "is dead if all its advantages are 0: its rollouts contribute no gradient."
    )
    return _figure_section(shown, "rollouts", caption, table(["branch", *head[1:]], told))


def _figure_section(shown: _Shown, name: str, caption: str, numbers: str) -> str:
    figure = shown.figures.get(name)
    return "" if figure is None else figure_section(figure, caption, numbers)


def _rate_table(shown: _Shown) -> str:
    """A row a branch and rate."""
    run, rows = shown.run, []
    for found in at_rates(run):
        texts = [percent(found.means[m]) if m in found.means else MISSING for m in run.metrics]
        cells = [
            cell(f"★ {t}", kind="best") if m in found.best else cell(t) for m, t in zip(run.metrics, texts, strict=True)
        ]
        rows.append(row(found.branch, [cell(f"{found.rate:g}"), *cells], key=shown.keys[found.branch]))
    return table(["branch", "rate", *run.metrics], rows)


def _interval_table(shown: _Shown) -> str:
    """Means with their 95 % intervals."""
    run, rows = shown.run, []
    for label in run.labels:
        cells = [_interval_cell(shown.means.get((label, m))) for m in run.metrics]
        rows.append(row(label, cells, key=shown.keys[label]))
    return table(["branch", *run.metrics], rows)


def _interval_cell(value: Interval | None) -> str:
    return cell(MISSING) if value is None else cell(percent(value.mean), small=interval(value.low, value.high, percent))


def _course_table(shown: _Shown, name: str) -> str:
    """A row a branch, a column a panel, or one for all if each branch has its own: where a curve begins and ends."""
    if (figure := shown.figures.get(name)) is None:
        return ""
    titled = [(p.title, rows_of(p)) for p in figure.panels]
    columns = titled if name == "training" else [("median", [r for _, points in titled for r in points])]
    rows = []
    for label, key in figure.keys.items():
        curves = [[r["value"] for r in points if r.get("series") == label] for _, points in columns]
        rows.append(row(label, [cell(interval(c[0], c[-1], brief) if c else MISSING) for c in curves], key=key))
    return table(["branch", *(title for title, _ in columns)], rows)


def _curve_section(shown: _Shown) -> str:
    run = shown.run
    marked = best_branches(run, shown.means, shown.gain)
    rows = []
    for label in run.labels:
        cells = [_mean_cell(shown.means.get((label, m)), marked.get(m) == label) for m in run.metrics]
        rows.append(row(label, cells, key=shown.keys[label]))
    lead = "Mean over prompts, %." if run.is_evaluation else "Mean over prompts and seeds, %."
    if run.baseline is not None:
        lead += " ★ marks the best of a column if its paired 95 % interval excludes zero."
    return section("Curves", lead, table(["branch", *run.metrics], rows))


def _examples(run: SavedRun) -> str:
    """Two held-out prompts, and what the branches of the first seed answer."""
    first = {label: jobs[0].examples for label in run.labels if (jobs := run.of(label)) and jobs[0].examples}
    of = "" if len(run.seeds) == 1 else f" of seed {run.seeds[0]}"
    source = "" if run.is_evaluation else f" from the models{of} after their last step"
    which = "The first prompts" if run.is_evaluation else "The first held-out prompts"
    return examples_section(first, f"{which}, and answers that were sampled{source}.")


def _mean_cell(value: Interval | None, best: bool) -> str:
    if value is None:
        return cell(MISSING)
    text = percent(value.mean)
    return cell(f"★ {text}", kind="best") if best else cell(text)


def _gain_section(shown: _Shown) -> str:
    run = shown.run
    if run.is_evaluation:
        return ""
    if not shown.gain:
        why = "no baseline job is finished" if run.baseline is None else "no branch shares a seed with it"
        return section("Gain over the baseline", f"No gains in this report: {why}.", "")
    rows = []
    for label in run.trained:
        cells = [_gain_cell(shown.gain.get((label, m))) for m in run.metrics]
        rows.append(row(label, cells, key=shown.keys[label]))
    caption = (
        f"Percentage points against {spoken(run)}, paired by seed and prompt, with 95 % intervals over "
        "seeds and prompts. If an interval crosses zero, the difference is not measurable."
    )
    return _figure_section(shown, "gain", caption, table(["branch", *run.metrics], rows))


def _gain_cell(gain: Interval | None) -> str:
    if gain is None:
        return cell(MISSING)
    mean, low, high = (percent(x, sign=True).replace("-", "−") for x in (gain.mean, gain.low, gain.high))
    sign = gain.sign if mean != percent(0) else 0
    return cell(mean, small=f"{low} to {high}", kind={1: "up", -1: "down", 0: ""}[sign])


def _trade_section(shown: _Shown) -> str:
    found = trades(shown.run, shown.gain)
    if not found:
        return ""
    rows = []
    for trade in found:
        how = "its own budget" if trade.choices == 1 else f"best of {trade.choices}"
        target, price = cell(trade.metric, small=how), cell(trade.price_metric)
        cells = [target, _gain_cell(trade.gain), price, _gain_cell(trade.price)]
        rows.append(row(trade.branch, cells, key=shown.keys[trade.branch]))
    lead = (
        "The gain of each branch at the strategy that it is trained for, and its price at the smallest budget. If the "
        "branch mixes strategies, or its own was not measured, the best of several is shown."
    )
    head = ["branch", "gain at", "points", "price at", "points"]
    return section("Gain and price", lead, table(head, rows))


def _seed_section(shown: _Shown) -> str:
    run = shown.run
    rows = []
    for label in run.labels:
        for job in run.of(label):
            texts = [percent(job.values[m].mean()) if m in job.values else MISSING for m in run.metrics]
            minutes = f"{job.seconds / 60:.1f}" if job.seconds else MISSING
            cells = map(cell, [str(job.seed), *texts, minutes])
            rows.append(row(label, cells, key=shown.keys[label]))
    lead = "Mean over prompts of each job, %, and its training time in minutes."
    return section("Seeds", lead, table(["branch", "seed", *run.metrics, "minutes"], rows))


def _reading() -> str:
    return (
        "Every interval is a 95 % t interval over the means of the seeds, widened by what the choice of prompts "
        "adds. It is wide with few seeds, because their spread is then hardly known: half of it is 2.5 standard "
        "deviations of a seed with three seeds, 1.2 with five and 0.8 with eight. With one seed it is the t interval "
        "over prompts, and variation between seeds is not included. Gains are computed for each seed and prompt "
        "before they are averaged, because all branches of a seed start from the same model and answer the same "
        "prompts. Nothing is corrected for the number of branches and budgets compared. If an interval barely "
        "excludes zero, train more seeds. All rates come from the final evaluation of each job."
    )
