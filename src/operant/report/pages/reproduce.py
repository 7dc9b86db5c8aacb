"""The page of ``operant reproduce``: a verdict a claim, and the effects with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operant.report.asked import counted
from operant.report.formats import aligned, number
from operant.report.kinds import PageKind, register
from operant.report.records import FolderRecords, Record, read_finished

if TYPE_CHECKING:
    from operant.report.page import Page
    from operant.report.theme import Figure, Panel

_HEAD = ("claim", "verdict", "comparison", "ours", "baseline", "effect (95 % interval)", "decides")
_NEUTRAL = {"differences": 0.0, "ratios": 1.0}
"""Figure -> the effect of no gain in it."""
_UNITS = {"differences": "gain over the baseline", "ratios": "times the baseline"}
_QUICK = (
    "A quick run shows that every claim runs. One or two seeds and short training are too little to judge: the "
    "verdicts of the full runs are in docs/claims.md."
)
_COLORS = {"holds": "interval on the claim's side", "open": "interval reaches no effect"}


@dataclass(frozen=True)
class SavedClaims:
    """What ``operant reproduce`` wrote: the last record of every claim."""

    source: FolderRecords
    claims: tuple[Record, ...]

    def rows(self, neutral: float | None = None) -> list[tuple[str, ...]]:
        """A row a comparison, of those with this value of no effect if one is given; "–" for a claim without any."""
        found: list[tuple[str, ...]] = []
        for claim in self.claims:
            start, own = (claim["title"], claim["verdict"]), claim["comparisons"]
            found += [(*start, *_cells(c)) for c in own if neutral in (None, c["neutral"])]
            found += [(*start, *["–"] * (len(_HEAD) - 2))] if neutral is None and not own else []
        return found


def _load(folder: Path) -> SavedClaims:
    found = read_finished(folder, "reproduce", "claim")
    return SavedClaims(found, tuple({claim["name"]: claim for claim in found.every("claim")}.values()))


def _cells(c: Record) -> tuple[str, ...]:
    signed = c["neutral"] != 1
    effect, low, high = (number(c[name], 3, sign=signed) for name in ("effect", "low", "high"))
    told = f"{effect}{'' if signed else ' times'} ({low} to {high})"
    return (
        c["what"],
        f"{c['ours']} {number(c['value'], 3)}",
        f"{c['baseline']} {number(c['plain'], 3)}",
        told,
        "yes" if c["decides"] else "no",
    )


def _finding(saved: SavedClaims) -> str:
    verdicts = [claim["verdict"] for claim in saved.claims]
    return "; ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)) + "."


def _table(saved: SavedClaims) -> str:
    quick = [_QUICK] if saved.source.config.get("quick") else []
    return "\n".join([_finding(saved), *quick, "", *aligned([_HEAD, *saved.rows()])])


def _page(saved: SavedClaims) -> Page:
    from operant.report.page import Page, aside, figure_section, plain_table, section

    quick = "at its smallest size" if saved.source.config.get("quick") else "in full"
    figures = _figures(saved)
    untested = [f"{c['title']}: {c['untestable']}" for c in saved.claims if c["untestable"]]
    said = plain_table([("claim", "paper", "published"), *((c["title"], c["place"], c["says"]) for c in saved.claims)])
    return Page(
        kind="reproduce",
        title="The claims of the papers, re-run",
        origin=str(saved.source.folder),
        asked=f"{counted(len(saved.claims), 'claim')} of two papers, each run {quick}: does the effect over the "
        "strongest plain baseline hold?",
        findings=[_finding(saved)],
        asides=[aside([_QUICK] if saved.source.config.get("quick") else []), aside(untested)],
        sections=[
            section("Verdicts", "A verdict follows from the intervals alone.", plain_table([_HEAD, *saved.rows()])),
            *(figure_section(f, "", plain_table([_HEAD, *saved.rows(_NEUTRAL[f.name])])) for f in figures),
            section("What was claimed", "", said),
        ],
        figures=figures,
        config=saved.source.config,
        environment=saved.source.environment,
        reading="An effect is a difference (0 is no effect) or a ratio (1 is none). A claim is reproduced if every "
        "interval that decides lies on its side, in part if one does. The other comparisons are for the reader.",
        made="Made by operant.",
    )


def _figures(saved: SavedClaims) -> list[Figure]:
    """Effects that decide, with their intervals: differences and ratios, each with their own axis."""
    from operant.report.theme import GRAY, Figure, cycle

    keys = {_COLORS["holds"]: next(iter(cycle(["holds"]).values())), _COLORS["open"]: GRAY}
    found: list[Figure] = []
    for name, neutral in _NEUTRAL.items():
        rows = [
            {
                "what": f"{claim['title']}: {c['what']}, {c['ours']} over {c['baseline']}",
                "series": _COLORS["holds" if c["holds"] else "open"],
            }
            | {key: c[key] for key in ("effect", "low", "high")}
            for claim in saved.claims
            for c in claim["comparisons"]
            if c["decides"]
            and c["neutral"] == neutral
            and c["low"] > (0 if neutral else -1e300)  # a ratio's axis is logarithmic
        ]
        if rows:
            found.append(Figure(name, _UNITS[name].capitalize(), (_intervals(rows, neutral, _UNITS[name]),), keys))
    return found


def _intervals(rows: Sequence[dict[str, Any]], neutral: float, unit: str) -> Panel:
    """A row a comparison, its name above it, because a phone has no room beside it."""
    from operant.report.charts import chart, color
    from operant.report.theme import GRAY, alt, panel

    scale = alt.Scale(type="log" if neutral else "linear")
    y = alt.Y("what:N", sort=None, axis=None)
    known = chart(rows).encode(y=y, color=color(_COLORS.values()))
    line = chart([{"x": neutral}]).mark_rule(strokeDash=[4, 3], color=GRAY.light).encode(x="x:Q")
    bars = known.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=unit, scale=scale), x2="high:Q")
    dots = known.mark_point(filled=True, size=60).encode(x="effect:Q")
    names = (
        chart(rows)
        .mark_text(align="left", dy=-12, limit=alt.ExprRef("width"))
        .encode(x=alt.value(0), y=y, text="what:N")
    )
    return panel("", line, bars, dots, names, height=max(240, 60 + 34 * len(rows)))


register(PageKind("reproduce", commands=("reproduce",), load=_load, table=_table, page=_page))
