"""The page of text tasks: what was asked, hypotheses and predictions of every target, known tasks, training."""

from __future__ import annotations

from html import escape

from operant.report.charts import rows_of
from operant.report.formats import number
from operant.report.page import Page, aside, figure_section, plain_table, section, warning
from operant.report.pages.text.charts import comparison_figure, loss_figure, target_figure
from operant.report.pages.text.load import SavedText, cautions, explanation, headline, summary
from operant.report.pages.text.tables import (
    MOST_ROWS,
    bank_rows,
    comparison_note,
    comparison_rows,
    hypothesis_rows,
    prediction_rows,
    support_rows,
    target_rows,
)
from operant.report.records import Record
from operant.report.theme import Figure

# Targets with a section of their own; the table lists all.
_MOST_TARGETS = 12
_LOSSES = 8


def build(run: SavedText) -> Page:
    """The page of a run."""
    shown = [(t, target_figure(t, f"target-{i}")) for i, t in enumerate(run.targets[:_MOST_TARGETS])]
    loss, comparison = loss_figure(run), comparison_figure(run)
    told = [headline(t) for t in run.targets[:3]]
    told += [f"{len(run.targets) - 3} more targets below."] if len(run.targets) > 3 else []
    notes = list(run.notes)
    if len(run.targets) > _MOST_TARGETS:
        notes.append(f"Charts show the first {_MOST_TARGETS} of {len(run.targets)} targets.")
    return Page(
        kind="extrapolation",
        title=run.source.name,
        origin=f"{run.source.folder} · {run.bank['tasks']} known text tasks, {run.bank['candidates']} candidates",
        asked=summary(run),
        findings=told,
        asides=[*(warning(*c) for t in run.targets for c in cautions(t)), aside(notes)],
        sections=[
            *([figure_section(comparison, comparison_note(run), _methods(run))] if comparison else []),
            section("Targets", _targets_lead(), plain_table(target_rows(run))),
            *(_target_section(t, f) for t, f in shown),
            section("Known tasks", _bank_lead(run), plain_table(bank_rows(run))),
            *([figure_section(loss, _loss_caption(run), _loss_table(loss))] if loss else []),
        ],
        figures=[f for f in (comparison, *(f for _, f in shown), loss) if f is not None],
        config=run.source.config,
        environment=run.source.environment,
        reading=_reading(),
        made=f"Made by operant from a bank of {run.bank['tasks']} text tasks.",
    )


def _target_section(target: Record, figure: Figure) -> str:
    """Posterior, hypotheses, supports, predictions and the evidence of a target."""
    reasons = "".join(f"<li>{escape(text)}</li>" for text in explanation(target))
    tables = [hypothesis_rows(target), support_rows(target), prediction_rows(target, MOST_ROWS)]
    left = len(target["predictions"]) - MOST_ROWS
    more = aside([f"{left} more predictions are in predictions.jsonl."]) if left > 0 else ""
    return figure_section(figure, _caption(target), "".join(map(plain_table, tables)) + more + f"<ul>{reasons}</ul>")


def _methods(run: SavedText) -> str:
    notes = [f"{r['method']}: {r['about']}" for r in run.comparison["rows"] if r["about"]]
    return plain_table(comparison_rows(run)) + aside(notes)


def _caption(target: Record) -> str:
    trust = "Not trusted: predictions come from few-shot prompting. " if target["fallback"] else ""
    return (
        f"{trust}Candidates with the same outputs on supports and queries are one bar. A support is explained if the "
        "candidate gives it when it is run or, where it cannot be run, if its output is more probable than all others "
        "together. It is given if the candidate, executed as for predictions, gives it."
    )


def _targets_lead() -> str:
    return (
        "A candidate names known tasks, the first is applied first. Posterior: its probability given the supports. "
        "Hypotheses: effective number of candidates that differ on supports or queries; 1 is certain. Applies: whether "
        "the best candidate gives every support when it is run or, where it cannot be run, whether the supports are "
        "about as probable as known lessons that were not trained on."
    )


def _bank_lead(run: SavedText) -> str:
    bank = run.bank
    merged = f" {bank['merged']} that behave as another one were left out." if bank["merged"] else ""
    listed = f" The first {len(bank['shown'])} are listed." if len(bank["shown"]) < bank["tasks"] else ""
    return (
        f"{bank['tasks']} tasks, {bank['demonstrations']:,} demonstrations; {bank['callable']} tasks have a function."
        f"{merged}{listed}"
    )


def _loss_caption(run: SavedText) -> str:
    where = "" if run.model["trained"] else " It was fitted before; this run did not train."
    return (
        "Cross-entropy of the outputs of known tasks, summed over the tokens of an example, on the examples that were "
        f"trained on.{where}"
    )


def _loss_table(figure: Figure) -> str:
    (only,) = figure.panels
    found = rows_of(only)
    places = sorted({round(i * (len(found) - 1) / (_LOSSES - 1)) for i in range(_LOSSES)})
    return plain_table([["step", "loss"], *([str(found[i]["step"]), number(found[i]["loss"], 3)] for i in places)])


def _reading() -> str:
    return (
        "operant takes a target for a combination of known tasks. A language model was fine-tuned on the combinations "
        "inside the bank. A candidate whose steps all have functions is run on the supports: it is refuted if it gives "
        "another output. Any other candidate is scored by the probability of the supports: the steps before the last "
        "are run, and the model reads their output and gives the probability of the support's. The posterior is "
        "uniform over behaviors before the supports are seen. Each query gets the output with the largest share of the "
        "posterior. That share is its confidence: how sure the combination is, not how well the model executes it. The "
        "last step is written by the model, or run where it has a function and that was asked for. If the best "
        "candidate gives less than half of the supports when it is run, or if their tokens have a probability of less "
        "than 1/2 under it and less than nine tenths of the known lessons have, no candidate is trusted, and the "
        "model answers from the supports as a plain few-shot prompt, without a confidence."
    )
