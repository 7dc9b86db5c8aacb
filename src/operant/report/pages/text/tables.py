"""The tables of text tasks, for the page and the terminal: targets, hypotheses, supports, predictions, methods."""

from __future__ import annotations

from operant.report.formats import MISSING, aligned, interval, number, percent, share
from operant.report.pages.text.load import SavedText, cautions, chain, explanation, headline, quoted, summary
from operant.report.records import Record

MOST_ROWS = 8
"""Predictions of a target in its table; predictions.jsonl holds all of them."""


def target_rows(run: SavedText) -> list[list[str]]:
    """Head and rows of the table of targets."""
    rows = [["target", "best candidate", "posterior", "explained", "hypotheses", "applies", "queries"]]
    for t in run.targets:
        best = t["hypotheses"][0] if t["hypotheses"] else None
        told = [MISSING] * 3
        if best is not None:
            told = [chain(best["steps"]), share(best["weight"]), f"{best['explained']} of {len(t['supports'])}"]
        applies = "no" if t["fallback"] else "yes"
        rows.append([t["key"], *told, number(t["effective_number"], 2), applies, str(len(t["predictions"]))])
    return rows


def hypothesis_rows(target: Record) -> list[list[str]]:
    """Head and rows of the hypotheses, the heaviest first."""
    rows = [["candidate", "posterior", "explained", "given", "log p of the supports", "same outputs"]]
    for h in target["hypotheses"]:
        count = len(h["log_p"])
        explained, given = f"{h['explained']} of {count}", f"{h['given']} of {count}"
        more = str(h["candidates"] - 1) if h["candidates"] > 1 else MISSING
        rows.append([chain(h["steps"]), share(h["weight"]), explained, given, number(sum(h["log_p"]), 3), more])
    return rows


def support_rows(target: Record) -> list[list[str]]:
    """Head and rows of the supports under the best candidate."""
    rows = [["support", "output", "log p", "explained"]]
    for s in target["supports"]:
        told = "yes" if s["explained"] else "no"
        rows.append([quoted(s["input"]), quoted(s["output"]), number(s["log_p"], 3), told])
    return rows


def prediction_rows(target: Record, most: int | None = None) -> list[list[str]]:
    """Head and rows of the predictions, the first ``most`` of them."""
    known = any(p["truth"] is not None for p in target["predictions"])
    rows = [["query", "prediction", "confidence", "other outputs", *(["true"] if known else [])]]
    for p in target["predictions"][:most]:
        others = ", ".join(f"{quoted(s['output'])} ({share(s['share'])})" for s in p["shares"][1:3])
        confidence = "few-shot" if p["few_shot"] else share(p["confidence"])
        told = [quoted(p["input"]), quoted(p["output"]), confidence, others or MISSING]
        rows.append([*told, *([quoted(p["truth"])] if known else [])])
    return rows


def comparison_rows(run: SavedText) -> list[list[str]]:
    """Head and rows of the methods that were compared."""
    rows = [["method", "right, %", "95 % interval"]]
    for r in run.comparison["rows"]:
        ends = interval(r["low"], r["high"], percent) or MISSING
        rows.append([r["method"], percent(r["value"]), ends])
    return rows


def bank_rows(run: SavedText) -> list[list[str]]:
    """Head and rows of the known tasks."""
    rows = [["known task", "input", "output", "run by"]]
    for t in run.bank["shown"]:
        by = "its function" if t["callable"] else "the model"
        rows.append([t["task"], quoted(t["input"]), quoted(t["output"]), by])
    return rows


def comparison_note(run: SavedText) -> str:
    """What the methods were compared on."""
    c = run.comparison
    return (
        f"{c['targets']} held-out combinations, {c['supports']} supports and {c['queries']} queries each; intervals "
        "over targets."
    )


def text_table(run: SavedText) -> str:
    """Comparison, targets with explanation and predictions, and warnings, as plain text for the terminal."""
    lines = [summary(run), *run.notes, ""]
    if run.comparison:
        lines += [comparison_note(run), "", *aligned(comparison_rows(run)), ""]
    for t in run.targets:
        lines += [headline(t), *(f"  - {what} {advice}" for what, advice in cautions(t))]
        lines += [*(f"  - {text}" for text in explanation(t)), ""]
    lines += [*aligned(target_rows(run)), ""]
    for t in run.targets[:MOST_ROWS]:
        lines += [f"{t['key']}: predictions", *aligned(prediction_rows(t, MOST_ROWS)), ""]
    shown = sum(min(len(t["predictions"]), MOST_ROWS) for t in run.targets[:MOST_ROWS])
    total = sum(len(t["predictions"]) for t in run.targets)
    if shown < total:
        lines.append(f"{shown} of {total} predictions; all of them are in {run.source.folder / 'predictions.jsonl'}")
    return "\n".join(lines).rstrip("\n")
