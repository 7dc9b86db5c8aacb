"""The page of an extrapolation: every target among the known tasks, the choice of its operator, and parameters."""

from __future__ import annotations

from html import escape

from operant.report.asked import counted
from operant.report.charts import rows_of
from operant.report.formats import MISSING, brief, interval, number, share
from operant.report.page import Page, aside, figure_section, plain_table, section, warning
from operant.report.pages.extrapolation.charts import choice_figure, factor_figure, parameter_figure
from operant.report.pages.extrapolation.curves import target_figure
from operant.report.pages.extrapolation.load import (
    SavedExtrapolation,
    anchor_of,
    mixture,
    name_of,
    parameters_text,
)
from operant.report.pages.extrapolation.tables import (
    MOST_ROWS,
    choice_notes,
    choice_rows,
    factor_rows,
    forecast_rows,
    prediction_rows,
    target_rows,
)
from operant.report.pages.extrapolation.words import about_columns, caution, explanation, headline, value
from operant.report.records import Record
from operant.report.theme import Figure

# Targets with a figure of their own, because each repeats up to 2,500 points of the bank. The table lists all.
_MOST_TARGETS = 12


def build(run: SavedExtrapolation) -> Page:
    """The page of an extrapolation."""
    targets = [(t, target_figure(t, run.bank, f"target-{i}")) for i, t in enumerate(run.targets[:_MOST_TARGETS])]
    choice, factors = choice_figure(run.targets), factor_figure(run.factors, run.bank)
    parameters = parameter_figure(run.targets, warps=not run.factors)
    told = [headline(t, run.units) for t in run.targets[:3]]
    told += [f"{len(run.targets) - 3} more targets below."] if len(run.targets) > 3 else []
    notes = list(run.notes)
    if len(run.targets) > _MOST_TARGETS:
        notes.append(f"Charts show the first {_MOST_TARGETS} of {len(run.targets)} targets.")
    figures = [f for _, f in targets] + [f for f in (choice, factors, parameters) if f is not None]
    return Page(
        kind="extrapolation",
        title=run.source.name,
        origin=f"{run.source.folder} · {run.bank['tasks']} known tasks, {run.bank['points']} points",
        asked=_asked(run),
        findings=told,
        asides=[*map(_warning, filter(_is_alien, run.targets)), aside(notes)],
        sections=[
            section("Forecasts", _forecasts_lead(run), plain_table(forecast_rows(run))),
            *(_target_section(run, t, f) for t, f in targets),
            section("What explains the targets", _targets_lead(), _explanations(run)),
            _choice_section(run, choice),
            *_factor_sections(run, factors),
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
        f"Extrapolation of {names} from {counted(run.bank['tasks'], 'known curve')} to "
        f"{counted(len(run.targets), 'target')} outside their range, of which {counted(points, 'point')} are known."
    )


def _is_alien(target: Record) -> bool:
    return not target["applicability"]["applicable"]


def _warning(target: Record) -> str:
    verdict = target["applicability"]
    what = f"{name_of(target)}: not explained by the bank ({verdict['reason']})."
    return warning(what, f"{verdict['text']} Do not rely on its prediction.")


def _target_section(run: SavedExtrapolation, target: Record, figure: Figure) -> str:
    """The chart of a target, and some of its forecasts with their intervals."""
    return figure_section(figure, _target_caption(target), plain_table(prediction_rows(target, MOST_ROWS, run.units)))


def _explanations(run: SavedExtrapolation) -> str:
    """What explains each target: a table of all, then reasons and decompositions of those with a chart."""
    parts = [plain_table(target_rows(run))]
    for t in run.targets[:_MOST_TARGETS]:
        doubt = caution(t)
        reasons = "".join(f"<li>{escape(text)}</li>" for text in explanation(t) if text != doubt)
        parts.append(f"<h3>{escape(name_of(t))}</h3>")
        parts.append(warning("No formula to rely on.", doubt) if doubt else "")
        parts.append(f"<ul>{reasons}</ul>")
        parts.append(_decompositions(t) if len(t["decompositions"]) > 1 else "")
    return "".join(parts)


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


def _factor_sections(run: SavedExtrapolation, figure: Figure | None) -> list[str]:
    """Warps along the input from one reference: a chart where a parameter is known, and the table."""
    if not run.factors:
        return []
    rows, lead = plain_table(factor_rows(run)), _factor_caption(run)
    if figure is None:
        return [section(f"Shift factors from {run.factors['reference']}", lead, rows)]
    return [figure_section(figure, lead, rows)]


def _choice_section(run: SavedExtrapolation, figure: Figure | None) -> str:
    if not any(t["choice"] for t in run.targets):
        return ""
    after = plain_table(choice_rows(run.targets)) + aside(choice_notes(run.targets))
    if figure is None:
        return section("How the operator was chosen", _choice_caption(run), after)
    return figure_section(figure, _choice_caption(run), after)


def _forecasts_lead(run: SavedExtrapolation) -> str:
    return (
        f"{about_columns(run.bank, run.units)} Each forecast stands at the query point that is furthest from the "
        "context, where it is hardest; predictions.csv holds all. Continued: no known task was measured where the "
        "forecast needs it."
    )


def _targets_lead() -> str:
    return (
        "f is the anchor, the known task that is transformed. Weight: share of the posterior. Residual: root mean "
        "square error on the context. p-value: probability that a task of the bank's kind has an error this large. "
        "Covered: share of the query where no known task was continued beyond its range."
    )


def _factor_caption(run: SavedExtrapolation) -> str:
    x = run.bank["x_names"][0]
    seen = f"log10 {x}" if x in (run.bank.get("log_x") or ()) else x
    sign = " With a logarithm of time, log a_T of time-temperature superposition is the shift with the other sign."
    return (
        f"Every task as {run.factors['reference']} with its {seen} scaled and shifted: f({seen}) = f_ref(scale "
        f"{seen} + shift). Known tasks are fitted to their neighbors and chained, so targets with different "
        "anchors can be compared. The 90 % intervals add up along the chain. Factors that change smoothly with a "
        f"parameter support the relation.{sign} shift_factors.csv holds all of them."
    )


def _target_caption(target: Record) -> str:
    points = len(target["context"]["x"])
    known = ", ".join(f"{n} = {value(v)}" for n, v in target["params"].items())
    told = f"{known}. " if known else ""
    told += f"{points} context point{'' if points == 1 else 's'}, {100 * target['level']:g} % band. "
    told += f"Operator: {mixture(target)}. "
    if target["baseline"]:
        told += f"Dashed: {target['baseline']['name']}, the plain baseline that should do best. "
    if target["share_covered"] is not None and target["share_covered"] < 1:
        told += "Dotted: known tasks were continued beyond their range. "
    return told.strip()


def _choice_caption(run: SavedExtrapolation) -> str:
    dots = "Each dot is a target. " if len(run.targets) > 1 else ""
    units = "relative, since the operators saw logarithms" if run.bank.get("positive") else "in the units of the output"
    return (
        f"{dots}In the backtest, every operator predicted the outermost tasks of the bank from the others. Its errors "
        "there, and its leave-one-out error on the target's context points, give the error to expect on the target. "
        "The expected errors give the weights of the mixture. Other values of the target were not used. A star marks "
        f"the largest weight; errors are {units}."
    )


def _parameter_caption() -> str:
    return (
        "Parameters of the most probable transformation of each target against its known parameter, by anchor, with "
        "90 % intervals. Targets with one anchor can be compared: parameters that change smoothly support the relation."
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
