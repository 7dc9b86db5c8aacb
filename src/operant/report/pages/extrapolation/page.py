"""The page of an extrapolation: every target among the known tasks, the choice of its operator, and parameters."""

from __future__ import annotations

from html import escape

from operant.report.asked import counted
from operant.report.charts import rows_of
from operant.report.formats import MISSING, brief, interval, number, share
from operant.report.page import Page, aside, figure_section, plain_table, section, warning
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

# Targets with a figure of their own, because each repeats up to 2,500 points of the bank. The table lists all.
_MOST_TARGETS = 12


def build(run: SavedExtrapolation) -> Page:
    """The page of an extrapolation."""
    targets = [(t, target_figure(t, run.bank, f"target-{i}")) for i, t in enumerate(run.targets[:_MOST_TARGETS])]
    choice, parameters = choice_figure(run.targets), parameter_figure(run.targets)
    told = [headline(t) for t in run.targets[:3]]
    told += [f"{len(run.targets) - 3} more targets below."] if len(run.targets) > 3 else []
    notes = list(run.notes)
    if len(run.targets) > _MOST_TARGETS:
        notes.append(f"Charts show the first {_MOST_TARGETS} of {len(run.targets)} targets.")
    figures = [f for _, f in targets] + [f for f in (choice, parameters) if f is not None]
    return Page(
        kind="extrapolation",
        title=run.source.name,
        origin=f"{run.source.folder} · {run.bank['tasks']} known tasks, {run.bank['points']} points",
        asked=_asked(run),
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


def _asked(run: SavedExtrapolation) -> str:
    """Data and question in one sentence."""
    names = f"{', '.join(run.bank['y_names'])} of {', '.join(run.bank['x_names'])}"
    points = sum(len(t["context"]["x"]) for t in run.targets)
    return (
        f"Extrapolation of {names} from {counted(run.bank['tasks'], 'known curve')}: what are "
        f"{counted(len(run.targets), 'target')} outside their range, of which {counted(points, 'point')} are known?"
    )


def _is_alien(target: Record) -> bool:
    return not target["applicability"]["applicable"]


def _warning(target: Record) -> str:
    verdict = target["applicability"]
    what = f"{name_of(target)}: not explained by the bank ({verdict['reason']})."
    return warning(what, f"{verdict['text']} Do not rely on its prediction.")


def _target_section(target: Record, figure: Figure) -> str:
    """Chart, explanation and decompositions of a target, and some of its predictions."""
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
        f"{names}{by}. f is the anchor, the known task that is transformed. Residual: root mean square error on the "
        "context. p-value: probability that a task of the bank's kind has an error this large. Covered: share of the "
        "query where no known task was continued beyond its range."
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
    dots = "Each dot is a target. " if len(run.targets) > 1 else ""
    return (
        f"{dots}In the backtest, every operator predicted the outermost tasks of the bank from the others. Its errors "
        "there, and its leave-one-out error on the target's context points, give the error to expect on the target. "
        "The expected errors give the weights of the mixture. Other values of the target were not used. A star marks "
        "the largest weight; errors are in the units of the output."
    )


def _parameter_caption() -> str:
    return (
        "Parameters of the most probable transformation of each target against its known parameter, by anchor, with "
        "90 % intervals. Parameters that change smoothly support the relation; for time-temperature superposition they "
        "are the shift factors."
    )


def _reading(run: SavedExtrapolation) -> str:
    return (
        "To predict a target, operant finds a known task, the anchor, and a named transformation that maps it onto the "
        "context points. It then applies the transformation at the query points. Operators compete with plain "
        "baselines on held-out tasks at the edge of the bank, never on the targets, and a baseline may win. "
        f"Intervals are {run.level} intervals, calibrated on these held-out tasks. They hold for targets that lie as "
        "far outside the bank as those tasks did. A transformation of the input may need the anchor outside its "
        "measured range; there the anchor was continued, and the prediction is marked. A small p-value means that "
        "tasks of the bank rarely have an error this large: the target is of another kind, or its transformation is "
        "larger than any in the bank."
    )
