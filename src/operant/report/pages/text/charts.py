"""The figures of text tasks: the posterior of each target, the training loss, and methods side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operant.report.charts import Datum, chart, color, named_above, names_above
from operant.report.pages.text.load import SavedText, chain
from operant.report.records import Record
from operant.report.theme import DARK, GRAY, LIGHT, Figure, SeriesStyle, alt, cycle, panel

ALL, SOME, NONE = "explains every support", "explains some supports", "explains no support"
_STYLES = {ALL: SeriesStyle(LIGHT[2], DARK[2]), SOME: SeriesStyle(LIGHT[0], DARK[0]), NONE: GRAY}
_LABEL = 44
"""Letters of a candidate above its bar, as many as a phone shows. The table has all."""
_PERCENT = alt.Axis(values=[0, 25, 50, 75, 100])
LOSS = "training loss"


def target_figure(target: Record, name: str) -> Figure:
    """The hypotheses of a target, the heaviest first: posterior probability, colored by the supports explained."""
    rows: list[Datum] = []
    for place, h in enumerate(target["hypotheses"]):
        count = len(target["supports"])
        series = ALL if h["explained"] == count else SOME if h["explained"] else NONE
        about = {"series": series, "candidate": _label(place, h["steps"]), "posterior": 100 * h["weight"]}
        rows.append(about | {"explained": f"{h['explained']} of {count}", "candidates": h["candidates"]})
    keys = {k: v for k, v in _STYLES.items() if any(r["series"] == k for r in rows)} or {NONE: GRAY}
    return Figure(name, f"Target {target['key']}", (panel("", *_bars(rows, keys)),), keys)


def _label(place: int, steps: Sequence[str]) -> str:
    """Numbered, because cut names may be equal."""
    text = chain(steps)
    return f"{place + 1}. {text if len(text) <= _LABEL else text[: _LABEL - 1] + '…'}"


def _bars(rows: Sequence[Datum], keys: Mapping[str, SeriesStyle]) -> list[alt.Chart]:
    y = named_above("candidate", [r["candidate"] for r in rows])
    x = alt.X("posterior:Q", title="posterior, %", scale=alt.Scale(domain=[0, 100]), axis=_PERCENT)
    tips = [alt.Tooltip("candidate:N"), alt.Tooltip("posterior:Q", title="posterior, %", format=".1f")]
    tips += [alt.Tooltip("explained:N", title="supports explained"), alt.Tooltip("candidates:Q", title="same outputs")]
    base = chart(rows).encode(y=y, color=color(keys))
    return [base.mark_bar(size=16, cornerRadiusEnd=2).encode(x=x, tooltip=tips), names_above(rows, y, "candidate")]


def loss_figure(run: SavedText) -> Figure | None:
    """The loss of the training steps; None without any."""
    rows: list[Datum] = [
        {"series": LOSS, "step": step, "loss": loss} for step, loss in run.model["history"] if loss is not None
    ]
    if not rows:
        return None
    keys = {LOSS: SeriesStyle(LIGHT[0], DARK[0], (1, 0), 2.5)}
    # Losses fall by orders of magnitude; a value of 0 has no logarithm.
    scale = alt.Scale(type="log", nice=False, padding=10) if min(r["loss"] for r in rows) > 0 else alt.Scale()
    y = alt.Y("loss:Q", title="loss, nats an example", scale=scale, axis=alt.Axis(tickCount=6, format="~g"))
    base = chart(rows).encode(x=alt.X("step:Q", title="step"), y=y, color=color(keys))
    tips = [alt.Tooltip("step:Q"), alt.Tooltip("loss:Q", format=".3g")]
    dots = base.mark_point(filled=True, size=60, opacity=0).encode(tooltip=tips)
    return Figure("loss", "Training", (panel("", base.mark_line(strokeWidth=2), dots),), keys)


def comparison_figure(run: SavedText) -> Figure | None:
    """Accuracy of the methods on held-out tasks, with intervals; None if none were compared."""
    if not run.comparison:
        return None
    names = [r["method"] for r in run.comparison["rows"]]
    keys = cycle(names)
    rows: list[Datum] = [
        {"series": r["method"], "value": 100 * r["value"], "low": 100 * r["low"], "high": 100 * r["high"]}
        for r in run.comparison["rows"]
    ]
    y = named_above("series", names)
    x = alt.X("value:Q", title="right, %", scale=alt.Scale(domain=[0, 100]), axis=_PERCENT)
    base = chart(rows).encode(y=y, color=color(keys))
    tips = [alt.Tooltip("series:N", title="method"), alt.Tooltip("value:Q", title="right, %", format=".1f")]
    bar = base.mark_bar(size=16, cornerRadiusEnd=2).encode(x=x, tooltip=tips)
    ends = chart(rows).mark_rule(strokeWidth=2).encode(y=y, x=alt.X("low:Q", title=""), x2="high:Q")
    return Figure("comparison", "Held-out combinations", (panel("", bar, ends, names_above(rows, y, "series")),), keys)
