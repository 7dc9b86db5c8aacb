"""The tables of an extrapolation, for the page and the terminal: targets, predictions and operators."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from operant.report.formats import MISSING, aligned, brief, interval, number, share
from operant.report.pages.extrapolation.load import (
    SavedExtrapolation,
    anchor_of,
    best,
    expected,
    leading,
    median,
    mixed,
    name_of,
    of,
    ranked,
)
from operant.report.pages.extrapolation.words import ends, explanation, furthest, headline, value, with_unit
from operant.report.records import Record

MOST_ROWS = 8
"""Predictions of a target in its table; predictions.csv holds all of them."""
_CHOICE_LEGEND = "* the largest weight; expected: error on the target, estimated from the backtest and the context"
# Targets with columns of their own in the table of operators.
_MOST_COLUMNS = 3


def forecast_rows(run: SavedExtrapolation) -> list[list[str]]:
    """Head and rows of the forecasts, each at the query point that is furthest from the context."""
    units, first = run.units, run.targets[0]
    params = [n for n in first["params"] if n != run.bank.get("task_name")]
    head = ["target", *(with_unit(n, units) for n in (*params, *first["x_names"]))]
    for name in first["y_names"]:
        head += [with_unit(name, units), f"{run.level} interval"]
    rows = [[*head, "known there", "applies"]]
    for t in run.targets:
        i, asked = furthest(t), t["prediction"]
        cells = [name_of(t), *(value(t["params"][n]) for n in params), *map(value, asked["x"][i])]
        for c in range(len(t["y_names"])):
            cells += [value(asked["mean"][i][c]), ends(asked["low"][i][c], asked["high"][i][c]) or MISSING]
        rows.append([*cells, "yes" if asked["covered"][i] else "continued", _applies(t)])
    return rows


def _applies(target: Record) -> str:
    verdict = target["applicability"]
    return ("yes" if verdict["applicable"] else "no") + (f": {verdict['reason']}" if verdict["reason"] else "")


def target_rows(run: SavedExtrapolation) -> list[list[str]]:
    """Head and rows of what explains each target."""
    rows = [["target", "operator", "anchor", "most probable formula", "weight", "residual", "p-value", "covered"]]
    for t in run.targets:
        found, others = best(t), len(mixed(t)) - 1
        what = [MISSING] * 4
        if found is not None:
            what = [anchor_of(found), found["transformation"], share(found["weight"]), brief(found["residual"])]
        operator = leading(t) + (f" + {others} more" if others > 0 else "")
        rows.append([name_of(t), operator, *what, number(t["applicability"]["p_value"], 2), share(t["share_covered"])])
    return rows


def prediction_rows(target: Record, most: int | None = None, units: Mapping[str, str] | None = None) -> list[list[str]]:
    """Head and rows of the predictions of a target, ``most`` of them evenly spread; a star where not covered."""
    asked, truth, units = target["prediction"], _known_at(target), units or {}
    head = [with_unit(n, units) for n in target["x_names"]]
    for y in target["y_names"]:
        head += [with_unit(y, units), f"{100 * target['level']:g} % interval", *([f"true {y}"] if truth else [])]
    rows = [head]
    for i in _spread(len(asked["x"]), most):
        cells = [value(v) for v in asked["x"][i]]
        for c in range(len(target["y_names"])):
            cells += [value(asked["mean"][i][c]), ends(asked["low"][i][c], asked["high"][i][c]) or MISSING]
            cells += [value(None if (known := truth[i]) is None else known[c])] if truth else []
        cells[0] += "" if asked["covered"][i] else " *"
        rows.append(cells)
    return rows


def _spread(count: int, most: int | None) -> Sequence[int]:
    """At most ``most`` of ``count`` places, evenly spread and with both ends; all of them for None."""
    return range(count) if most is None or count <= most else [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _known_at(target: Record) -> list[list[float] | None]:
    """The true values at the query points, None where there is none; empty if no truth is known."""
    if not target["truth"]:
        return []
    known = {tuple(x): y for x, y in zip(target["truth"]["x"], target["truth"]["y"], strict=True)}
    return [known.get(tuple(x)) for x in target["prediction"]["x"]]


def choice_rows(targets: Sequence[Record]) -> list[list[str]]:
    """Head and rows of the table of operators that could be used; the heaviest of a target carry a star."""
    if len(targets) == 1:
        head = ["operator", "backtest", "range", "context", "expected", "weight"]
    elif len(targets) <= _MOST_COLUMNS:
        head = ["operator", "backtest", *(h for t in targets for h in (f"{name_of(t)}: expected", "weight"))]
    else:
        head = ["operator", "backtest", "context", "expected", "weight", "chosen for"]
    rows = [head]
    for name in ranked(targets):
        about = [of(t, name) for t in targets]
        if any(a["weight"] or expected(a) is not None or a["context_error"] is not None for a in about):
            chosen = sum(leading(t) == name for t in targets)
            rows.append([name + " *" * bool(chosen), *_choice_cells(about, chosen)])
    return rows


def _choice_cells(about: Sequence[Record], chosen: int) -> list[str]:
    """Errors and weights of one operator for every target; for many targets, medians and the mean weight."""
    backtest, context = (brief(median([a[k] for a in about])) for k in ("backtest_error", "context_error"))
    here, weights = [expected(a) for a in about], [a["weight"] or 0.0 for a in about]
    if len(about) == 1:
        ends = interval(about[0]["backtest_low"], about[0]["backtest_high"], brief) or MISSING
        return [backtest, ends, context, brief(here[0]), share(weights[0])]
    if len(about) <= _MOST_COLUMNS:
        each = zip(here, weights, strict=True)
        return [backtest, *(text for error, w in each for text in (brief(error), share(w)))]
    return [backtest, context, brief(median(here)), share(statistics.mean(weights)), str(chosen)]


def choice_notes(targets: Sequence[Record]) -> list[str]:
    """Why operators could not be used, a sentence each."""
    told = (f"{c['operator']}: {c['note'].rstrip('.')}." for t in targets for c in t["choice"] if c["note"])
    return list(dict.fromkeys(told))


def factor_rows(run: SavedExtrapolation) -> list[list[str]]:
    """Head and rows of the warps from the reference, targets first."""
    units, factors = run.units, run.factors
    params = [n for n in run.bank["param_names"] if n != run.bank.get("task_name")]
    head = ["task", *(with_unit(n, units) for n in params), "fitted to"]
    rows = [[*head, *(h for n in factors["factors"] for h in (factor_title(n, run.bank), "90 % interval"))]]
    for r in sorted(factors["rows"], key=lambda r: r["known"]):
        cells = [r["task"], *(value(r["params"].get(n)) for n in params), r["anchor"]]
        for n in factors["factors"]:
            cells += [value(r[n]), ends(r[f"{n}_low"], r[f"{n}_high"], 3)]
        rows.append(cells)
    return rows


def factor_title(name: str, bank: Record) -> str:
    """What a factor is and its unit: a shift along a logarithm is in decades."""
    x, units = bank["x_names"][0], bank.get("units") or {}
    log = x in (bank.get("log_x") or ())
    if name == "xscale":
        return f"scale of {'log10 ' if log else ''}{x}"
    return f"shift along log10 {x} (decades)" if log else f"shift along {with_unit(x, units)}"


def extrapolation_table(run: SavedExtrapolation) -> str:
    """Every target: forecasts first, then explanations and the table of operators, as plain text for the terminal."""
    lines = [*run.notes, ""] if run.notes else []
    for target in run.targets:
        lines += [headline(target, run.units)]
    lines += ["", *aligned(forecast_rows(run)), ""]
    for target in run.targets[:MOST_ROWS]:
        covered = target["prediction"]["covered"]
        lines += [f"{name_of(target)}: forecast", *aligned(prediction_rows(target, MOST_ROWS, run.units))]
        lines += ["* beyond the range of what is known"] * (
            not all(covered[i] for i in _spread(len(covered), MOST_ROWS))
        )
        lines.append("")
    for target in run.targets:
        lines += [f"{name_of(target)}: what explains it", *(f"  - {text}" for text in explanation(target)), ""]
    lines += [*aligned(target_rows(run)), ""]
    if any(t["choice"] for t in run.targets):
        lines += [*aligned(choice_rows(run.targets)), _CHOICE_LEGEND, *choice_notes(run.targets), ""]
    shown = sum(min(len(t["prediction"]["x"]), MOST_ROWS) for t in run.targets[:MOST_ROWS])
    total = sum(len(t["prediction"]["x"]) for t in run.targets)
    if shown < total:
        lines.append(f"{shown} of {total} predictions; all of them are in {run.source.folder / 'predictions.csv'}")
    if run.factors:
        lines.append(
            f"warps along {run.bank['x_names'][0]} from {run.factors['reference']}, of targets and known tasks: "
            f"{run.source.folder / 'shift_factors.csv'}"
        )
    return "\n".join(lines).rstrip("\n")
