"""The page of an extrapolation: every target among the known tasks, how its operator was chosen, and parameters."""

from __future__ import annotations

from html import escape

from operant.report.charts import rows_of
from operant.report.formats import MISSING, brief, interval, number, share
from operant.report.page import Page, aside, figure_section, plain_table, section
from operant.report.pages.extrapolation.charts import choice_figure, parameter_figure, target_figure
from operant.report.pages.extrapolation.load import (
    SavedExtrapolation,
    anchor_of,
    explanation,
    headline,
    mixture,
    name_of,
    parameters_text,
)
from operant.report.pages.extrapolation.tables import MOST_ROWS, choice_notes, choice_rows, prediction_rows, target_rows
from operant.report.records import Record
from operant.report.theme import Figure

MOST_TARGETS = 12
"""Targets with a figure of their own; all stand in the table."""


def build(run: SavedExtrapolation) -> Page:
    """The page of an extrapolation."""
    targets = [(t, target_figure(t, run.bank, f"target-{i}")) for i, t in enumerate(run.targets[:MOST_TARGETS])]
    choice, parameters = choice_figure(run.targets), parameter_figure(run.targets)
    told = [headline(t) for t in run.targets[:3]]
    told += [f"{len(run.targets) - 3} more targets below."] if len(run.targets) > 3 else []
    notes = list(run.notes)
    if len(run.targets) > MOST_TARGETS:
        notes.append(f"The first {MOST_TARGETS} of {len(run.targets)} targets are drawn.")
    figures = [f for _, f in targets] + [f for f in (choice, parameters) if f is not None]
    return Page(
        kind="extrapolation",
        title=run.source.name,
        origin=f"{run.source.folder} · {run.bank['tasks']} known tasks, {run.bank['points']} points",
        findings=told,
        asides=[*map(_warning, filter(_is_alien, run.targets)), aside(notes)],
        sections=[
            section("Targets", _targets_lead(run), plain_table(target_rows(run))),
            *(_target_section(t, f) for t, f in targets),
            _choice_section(run, choice),
            *([figure_section(parameters, _parameter_caption(), _parameter_table(parameters))] if parameters else []),
        ],
        figures=figures,
        config=run.source.config,
        environment=run.source.environment,
        reading=_reading(run),
        made=f"Made by operant from a bank of {run.bank['tasks']} tasks.",
    )


def _is_alien(target: Record) -> bool:
    return not target["applicability"]["applicable"]


def _warning(target: Record) -> str:
    verdict = target["applicability"]
    what = f"{name_of(target)}: not explained by the bank ({verdict['reason']})."
    advice = f"{verdict['text']} Do not rely on its prediction."
    return f'<aside class="warning" role="alert"><p><strong>{escape(what)}</strong> {escape(advice)}</p></aside>'


def _target_section(target: Record, figure: Figure) -> str:
    """Chart, explanation, decompositions and some of the predictions of a target."""
    reasons = "".join(f"<li>{escape(text)}</li>" for text in explanation(target))
    rows = prediction_rows(target, MOST_ROWS)
    parts = [f"<ul>{reasons}</ul>"]
    if len(target["decompositions"]) > 1:
        parts.append(_decompositions(target))
    parts.append(plain_table(rows))
    return figure_section(figure, _target_caption(target), "".join(parts))


def _decompositions(target: Record) -> str:
    rows = [["anchor", "transformation", "parameters", "residual", "weight"]]
    for d in target["decompositions"][:6]:
        told = [d["transformation"], parameters_text(d) or MISSING]
        rows.append([anchor_of(d), *told, brief(d["residual"]), share(d["weight"])])
    return plain_table(rows)


def _parameter_table(figure: Figure) -> str:
    rows = [["target", "parameter", "anchor", "value", "90 % interval"]]
    for r in (r for p in figure.panels for r in rows_of(p)):
        rows.append([r["target"], r["parameter"], r["anchor"], number(r["value"]), interval(r["low"], r["high"])])
    return plain_table(rows)


def _choice_section(run: SavedExtrapolation, figure: Figure | None) -> str:
    if not any(t["choice"] for t in run.targets):
        return ""
    after = plain_table(choice_rows(run.targets)) + aside(choice_notes(run.targets))
    if figure is None:
        return section("How the operator was chosen", _choice_caption(run), after)
    return figure_section(figure, _choice_caption(run), after)


def _targets_lead(run: SavedExtrapolation) -> str:
    names = f"{', '.join(run.bank['y_names'])} of {', '.join(run.bank['x_names'])}"
    by = f", by {', '.join(run.bank['param_names'])}" if run.bank["param_names"] else ""
    return (
        f"{names}{by}. f is the anchor, the known task that is transformed; residual: root mean square of what is left "
        "on the context; p-value: probability that a task of the bank's kind is explained so badly; covered: "
        "share of the query where nothing was continued beyond its range."
    )


def _target_caption(target: Record) -> str:
    points = len(target["context"]["x"])
    told = f"{points} context point{'' if points == 1 else 's'}, {100 * target['level']:g} % band. "
    told += f"Operator: {mixture(target)}. "
    if target["baseline"]:
        told += f"Dashed: {target['baseline']['name']}, the plain baseline that should do best. "
    if target["share_covered"] is not None and target["share_covered"] < 1:
        told += "Dotted: known tasks were continued beyond their range. "
    return told.strip()


def _choice_caption(run: SavedExtrapolation) -> str:
    dots = "A dot a target. " if len(run.targets) > 1 else ""
    return (
        f"{dots}Every operator predicted the outermost tasks of the bank from the others, as the target "
        "is predicted from the bank. Its errors there, and its error on the target's own context points, each left out "
        "in turn, give the error to expect, and this its weight in the mixture. The target's other values were not "
        "looked at. A star marks the largest weight; errors are in the units of the output."
    )


def _parameter_caption() -> str:
    return (
        "Parameters of the most probable transformation of each target against its known parameter, by anchor, with "
        "90 % intervals. A smooth course speaks for the relation; for time-temperature superposition this is the "
        "shift factor."
    )


def _reading(run: SavedExtrapolation) -> str:
    return (
        "A target is predicted by finding a known task, the anchor, and a named transformation that carry it onto the "
        "context points; the transformation is then applied wherever the query asks. Operators compete with plain "
        "baselines on held-out tasks at the edge of the bank, never on the targets, and a baseline may win. "
        f"Intervals are {run.level} intervals, calibrated on these held-out tasks: they hold for targets that lie "
        "as far outside the bank as those did. A transformation of the input asks the anchor outside its measured "
        "range; there it was continued, and the prediction is marked. A small p-value says that tasks of the bank "
        "are rarely explained so badly: the target is of another kind, or the transformation is beyond any seen."
    )
