"""The report as one HTML file that loads nothing from anywhere, with its charts beside it.

Every text from the run directory passes through ``html.escape``; the charts' specifications are JSON with
``<`` escaped. A content security policy in the page forbids the browser to fetch anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from operant.report.charts import gain_figure, scaling, training, weights
from operant.report.runs import Run
from operant.report.style import CSS, JS
from operant.report.tables import (
    RESAMPLES,
    Interval,
    Table,
    best_branches,
    constant_weights,
    curves,
    gains,
    trades,
)
from operant.report.text import CONSTANT_ADVICE, finding, notes, percent, signed, spoken
from operant.report.theme import Figure, colours, page_spec, save, theme, vega_bundle

POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Report:
    """A run with everything that is computed from it once."""

    run: Run
    means: Table
    gain: Table
    figures: Mapping[str, Figure]


def build(run: Run) -> Report:
    """Compute the tables and figures of a run."""
    means, gain = curves(run), gains(run)
    figures = (scaling(run, means), gain_figure(run, gain), training(run), weights(run))
    return Report(run, means, gain, {f.name: f for f in figures if f is not None})


def write(report: Report, folder: Path) -> Path:
    """Write ``index.html`` and each figure as PNG and SVG into ``folder``; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in report.figures.values():
        save(figure, report.run, folder)
    page = folder / "index.html"
    page.write_text(render(report), encoding="utf-8")
    return page


def render(report: Report) -> str:
    """The page as text."""
    run = report.run
    sections = [
        _curve_section(report),
        _figure_section(
            report,
            "scaling",
            "Mean over prompts and seeds, with a 95 % band. Bands of two branches may overlap where their "
            "paired gain is clear: compare branches by the gains below.",
        ),
        _gain_section(report),
        _trade_section(report),
        _figure_section(
            report,
            "training",
            "Means over seeds. Losses of different objectives are on different scales: "
            "read the shape of a loss curve, not its height against another branch.",
        ),
        _weight_section(report),
        _seed_section(report),
        _settings_section("Settings", run.config),
        _settings_section("Environment", run.environment),
        _reading_section(),
    ]
    title = escape(run.name)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{title} · operant report</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<header><p class="run">operant report · {escape(str(run.path))}</p><h1>{title}</h1>\n'
        f'<p class="finding">{escape(finding(run, report.gain))}</p>{_asides(run)}</header>\n'
        + "\n".join(sections)
        + f"\n<footer>Made by operant from {len(run.jobs)} finished jobs. "
        "The charts stand beside this page as PNG and SVG.</footer>\n</main>\n"
        f'<script type="application/json" id="charts">{_chart_data(report)}</script>\n'
        f"<script>{vega_bundle()}</script>\n<script>{JS}</script>\n</body>\n</html>\n"
    )


def _asides(run: Run) -> str:
    warnings = [
        f'<aside class="warning" role="alert"><p><strong>{escape(b)}: its weights are constant.</strong> '
        f"{escape(CONSTANT_ADVICE)}</p></aside>"
        for b in constant_weights(run)
    ]
    told = "".join(f"<p>{escape(note)}</p>" for note in notes(run))
    return "".join(warnings) + (f"<aside>{told}</aside>" if told else "")


def _curve_section(report: Report) -> str:
    run = report.run
    marked = best_branches(run, report.means, report.gain)
    rows = []
    for label in run.labels:
        cells = [_mean_cell(report.means.get((label, m)), marked.get(m) == label) for m in run.metrics]
        rows.append(_row(run, label, cells))
    lead = "Mean over prompts and seeds, %."
    if run.baseline is not None:
        lead += " Marked ★: best of its column, with a paired 95 % interval that excludes zero."
    return _section("Curves", lead, _table(["branch", *run.metrics], rows))


def _mean_cell(value: Interval | None, best: bool) -> str:
    if value is None:
        return "<td>–</td>"
    text = percent(value.mean)
    return f'<td class="best">★ {text}</td>' if best else f"<td>{text}</td>"


def _figure_section(report: Report, name: str, caption: str, after: str = "") -> str:
    figure = report.figures.get(name)
    if figure is None:
        return ""
    run = report.run
    legend = "".join(f"<li>{_swatch(run, b)}{escape(b)}</li>" for b in figure.legend)
    several = len(figure.panels) > 1
    panels = "".join(
        "<div>"
        + (f"<h3>{escape(panel.title)}</h3>" if several else "")
        + f'<div class="chart" id="{name}-{i}"></div></div>'
        for i, panel in enumerate(figure.panels)
    )
    body = f'<figure><ul class="legend">{legend}</ul><div class="panels">{panels}</div></figure>'
    return _section(figure.title, caption, body + after)


def _gain_section(report: Report) -> str:
    run = report.run
    if not report.gain:
        why = "no baseline job is finished" if run.baseline is None else "no branch shares a seed with it"
        return _section("Gain over the baseline", f"No gains in this report: {why}.", "")
    rows = []
    for label in run.trained:
        cells = [_gain_cell(report.gain.get((label, m))) for m in run.metrics]
        rows.append(_row(run, label, cells))
    caption = (
        f"Percentage points against {spoken(run.baseline or '')}, paired by seed and prompt, with 95 % "
        "bootstrap intervals. An interval that crosses the zero line shows no measurable difference."
    )
    return _figure_section(report, "gain", escape(caption), _table(["branch", *run.metrics], rows))


def _gain_cell(gain: Interval | None) -> str:
    if gain is None:
        return "<td>–</td>"
    style = {1: ' class="up"', -1: ' class="down"', 0: ""}[gain.sign]
    mean, low, high = (signed(x).replace("-", "−") for x in (gain.mean, gain.low, gain.high))
    return f"<td{style}>{mean}<small>{low} to {high}</small></td>"


def _trade_section(report: Report) -> str:
    found = trades(report.run, report.gain)
    if not found:
        return ""
    rows = []
    for trade in found:
        how = "its own budget" if trade.choices == 1 else f"best of {trade.choices}"
        target = f"<td>{escape(trade.metric)}<small>{how}</small></td>"
        price = f"<td>{escape(trade.price_metric)}</td>"
        cells = [target, _gain_cell(trade.gain), price, _gain_cell(trade.price)]
        rows.append(_row(report.run, trade.branch, cells))
    lead = (
        "What each branch gains at the budget that it is trained for (the best measured one, where its name "
        "does not say a single budget), and what it pays for that at the smallest budget."
    )
    head = ["branch", "gain at", "points", "price at", "points"]
    return _section("Gain and price", lead, _table(head, rows))


def _weight_section(report: Report) -> str:
    caption = (
        "The factor that the objective puts on the cross-entropy gradient of each example: median, and the "
        "band from the 5 % to the 95 % quantile, means over seeds. Dashed: 1, the baseline's weight."
    )
    return _figure_section(report, "weights", caption)


def _seed_section(report: Report) -> str:
    run = report.run
    rows = []
    for label in run.labels:
        for job in run.of(label):
            cells = [f"<td>{job.seed}</td>"]
            cells += [
                f"<td>{percent(job.values[m].mean())}</td>" if m in job.values else "<td>–</td>" for m in run.metrics
            ]
            cells.append(f"<td>{job.seconds / 60:.1f}</td>" if job.seconds else "<td>–</td>")
            rows.append(_row(run, label, cells))
    lead = "Mean over prompts of each job, %, and its training time in minutes."
    return _section("Seeds", lead, _table(["branch", "seed", *run.metrics, "minutes"], rows))


def _settings_section(title: str, settings: Mapping[str, Any]) -> str:
    if not settings:
        return ""
    plain = {k: v for k, v in settings.items() if not isinstance(v, Mapping)}
    groups = {"": plain, **{k: v for k, v in settings.items() if isinstance(v, Mapping)}}
    rows = []
    for group, entries in groups.items():
        if group:
            rows.append(f'<tr class="group"><th colspan="2" scope="colgroup">{escape(group)}</th></tr>')
        for key, value in _flat(entries):
            rows.append(f'<tr><th scope="row">{escape(key)}</th><td>{escape(_plain(value))}</td></tr>')
    table = f'<table class="settings"><tbody>{"".join(rows)}</tbody></table>'
    return f"<section><details open><summary>{title}</summary>{table}</details></section>"


def _flat(entries: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Key and value; keys of deeper mappings are joined by dots."""
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def _reading_section() -> str:
    text = (
        f"Every interval is a percentile interval at 95 % from {RESAMPLES:,} bootstrap resamples in which "
        "seeds and prompts are drawn independently, with replacement; with one seed only prompts are drawn, "
        "and variation between seeds is not included. Gains are computed per seed and prompt before they are "
        "averaged, because all branches of a seed start from the same model and answer the same prompts. "
        "With few seeds the part of an interval that comes from seeds is rough and tends to be too narrow, "
        "and nothing is corrected for the number of branches and budgets compared: a gain that barely "
        "excludes zero calls for more seeds. All rates come from the final evaluation of each job."
    )
    return _section("How to read this page", "", f"<p>{text}</p>")


def _section(title: str, lead: str, body: str) -> str:
    told = f'<p class="lead">{lead}</p>' if lead else ""
    return f"<section><h2>{title}</h2>{told}{body}</section>"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(run: Run, label: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{_swatch(run, label)}{escape(label)}</th>{"".join(cells)}</tr>'


def _swatch(run: Run, label: str) -> str:
    light, dark = colours(run, "light")[label], colours(run, "dark")[label]
    return f'<span class="swatch" style="--light:{light};--dark:{dark}"></span>'


def _chart_data(report: Report) -> str:
    data = [
        {
            "id": f"{name}-{i}",
            "spec": page_spec(panel, height=340 if len(figure.panels) == 1 else 240),
            "light": theme(report.run, figure.branches, "light"),
            "dark": theme(report.run, figure.branches, "dark"),
        }
        for name, figure in report.figures.items()
        for i, panel in enumerate(figure.panels)
    ]
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
