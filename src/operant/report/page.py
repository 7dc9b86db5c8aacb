"""The frame of every page: one HTML file that loads nothing, with its charts as files beside it.

All text passes through ``html.escape`` here, and the charts' specifications are JSON with ``<`` escaped. Charts are
found by their place on the page, never by a name from a file. Control characters and lone surrogates, which HTML, SVG
and UTF-8 forbid, become U+FFFD. The page's content security policy forbids the browser to fetch anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

from operant.report.formats import MISSING, legible, number
from operant.report.glossary import explained
from operant.report.style import CSS, JS
from operant.report.theme import RAMP, Figure, Ramp, SeriesStyle, page_spec, save, theme, vega_bundle

# Characters from which a cell is broken into lines; longer ones push tables beyond the page's 1,040 pixels.
_LONG = 60
# Vega compiles its expressions, which needs 'unsafe-eval'. Nothing may be fetched, so no text on a page can send data.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"
# The rule of charts.measurable, in words.
_AXES = (
    "No vertical axis is shorter than what can be measured: the widest interval that the chart shows, or the change "
    "that one sample makes; where neither is known, a tenth of the largest value."
)


@dataclass(frozen=True)
class Page:
    """The content of a page.

    Args:
        kind: which page of operant it is, such as "report".
        title: the heading.
        origin: the line above it.
        asked: one sentence below it: task, model, data, and what was asked.
        findings: the result, a sentence each.
        asides: notes that belong before the numbers, as HTML of :func:`aside`.
        sections: as HTML of :func:`section` and :func:`figure_section`.
        figures: all figures of the sections; each is saved beside the page too.
        config: settings of what is shown.
        environment: versions and platform.
        reading: how to read the page.
        made: a sentence of the footer.
    """

    kind: str
    title: str
    origin: str
    asked: str
    findings: Sequence[str]
    asides: Sequence[str]
    sections: Sequence[str]
    figures: Sequence[Figure]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    reading: str
    made: str


def write(page: Page, folder: Path) -> Path:
    """Write ``index.html`` and each figure as PNG and SVG into ``folder``; return the page's path.

    Raises:
        ValueError: for two figures with one name, because they would be one file.
    """
    names = [figure.name for figure in page.figures]
    if len(set(names)) < len(names):
        raise ValueError(f"expected one name a figure, got {names}.")
    folder.mkdir(parents=True, exist_ok=True)
    for figure in page.figures:
        save(figure, folder)
    path = folder / "index.html"
    path.write_text(render(page), encoding="utf-8")
    return path


def render(page: Page) -> str:
    """The page as text."""
    title = escape(page.title)
    head = (
        f'<header><p class="run">operant {page.kind} · {escape(page.origin)}</p><h1>{title}</h1>\n'
        f'<p class="asked">{escape(page.asked)}</p>\n'
        + "".join(f'<p class="finding">{escape(text)}</p>' for text in page.findings)
        + f"{''.join(page.asides)}</header>\n"
    )
    reading = section("How to read this page", "", f"<p>{escape(page.reading)}</p><p>{escape(_AXES)}</p>")
    sections = [
        *page.sections,
        reading,
        _glossary(head + "".join(page.sections) + reading),
        _settings("Settings", page.config),
        _settings("Environment", page.environment),
    ]
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{title} · operant {page.kind}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + head
        + "\n".join(sections)
        + f"\n<footer>{escape(page.made)} The charts stand beside this page as PNG and SVG.</footer>\n</main>\n"
        f'<script type="application/json" id="charts">{_chart_data(page.figures)}</script>\n'
        f"<script>{vega_bundle()}</script>\n<script>{JS}</script>\n</body>\n</html>\n"
    )
    return legible(text)


def section(title: str, lead: str, body: str) -> str:
    """A heading, a sentence or two, and HTML."""
    told = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{told}{body}</section>"


def figure_section(figure: Figure, caption: str, numbers: str) -> str:
    """A section with the legend and the charts of a figure, and below them its numbers, as HTML of :func:`table`."""
    named = {**figure.legend, **(figure.ramp.styles if figure.ramp else {})}
    legend = "".join(f"<li>{_mark(key)}<span>{escape(name)}</span></li>" for name, key in named.items())
    legend += _color_bar(figure.ramp) if figure.ramp and not figure.ramp.labels else ""
    several = len(figure.panels) > 1
    panels = "".join(
        "<div>"
        + (f"<h3>{escape(panel.title)}</h3>" if several else "")
        + f'<div class="chart" id="{escape(figure.name)}-{i}"></div></div>'
        for i, panel in enumerate(figure.panels)
    )
    body = (
        f'<figure aria-label="{escape(figure.description)}"><ul class="legend">{legend}</ul>'
        f'<div class="panels">{panels}</div></figure>'
    )
    return section(figure.title, caption, body + numbers)


def examples_section(by_row: Mapping[str, Sequence[Mapping[str, Any]]], caption: str) -> str:
    """A prompt at a time, and what each row answered to it; nothing if no row has an example.

    Args:
        by_row: name of a row -> its records of the kind "example": prompt (its id), text, target and answers.
        caption: where the answers come from.
    """
    asked = {e["prompt"]: e for found in by_row.values() for e in found}
    parts: list[str] = []
    for prompt, first in asked.items():
        answers = {name: e["answers"] for name, found in by_row.items() for e in found if e["prompt"] == prompt}
        most = max(map(len, answers.values()))
        rows = [row(name, map(_sample, [*a, *[None] * (most - len(a))])) for name, a in answers.items()]
        right = f'<p class="lead sample">right: {escape(first["target"])}</p>' if first["target"] else ""
        text = first["text"] or f"prompt {prompt}"
        head = ["", *(f"answer {i + 1}" for i in range(most))]
        parts.append(
            f'<p class="prompt sample">{escape(text)}</p>{right}<div class="answers">{table(head, rows)}</div>'
        )
    return section("Prompts and sampled answers", caption, "".join(parts)) if parts else ""


def _sample(answer: Mapping[str, Any] | None) -> str:
    """An answer with a mark if it is right or wrong, or its reward if that is another number."""
    if answer is None:
        return cell(MISSING)
    reward = answer["reward"]
    mark = {None: "", 1.0: "✓", 0.0: "✗"}.get(reward, f"reward {number(reward, 3)}")
    return cell(answer["text"] or "(empty)", small=mark, kind="sample")


def aside(notes: Sequence[str]) -> str:
    """Notes, a paragraph each; nothing if there are none."""
    told = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<aside>{told}</aside>" if told else ""


def warning(what: str, advice: str) -> str:
    """A fault that a reader must not miss, and what to do about it."""
    return f'<aside class="warning" role="alert"><p><strong>{escape(what)}</strong> {escape(advice)}</p></aside>'


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """A table of rows made by :func:`row`."""
    cells = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, its head first, as :func:`operant.report.formats.aligned` prints it; long texts are broken."""
    head, *body = rows
    return table(head, [row(r[0], [cell(c, kind="long" if len(c) > _LONG else "") for c in r[1:]]) for r in body])


def row(name: str, cells: Iterable[str], *, key: SeriesStyle | None = None, small: str = "") -> str:
    """A row of a table: its name, marked as the series is drawn, and cells made by :func:`cell`."""
    kind = ' class="marked"' if key and not key.width else ""
    mark = _mark(key) if key else ""
    return f'<tr><th scope="row"{kind}>{mark}{escape(name)}{_small(small)}</th>{"".join(cells)}</tr>'


def cell(text: str, *, small: str = "", kind: str = "") -> str:
    """A cell, with a smaller line below; ``kind`` is a class of the style sheet."""
    style = f' class="{kind}"' if kind else ""
    return f"<td{style}>{escape(text)}{_small(small)}</td>"


def _small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def _mark(key: SeriesStyle) -> str:
    """A dot, or a piece of the line."""
    style = f"--light:{key.light};--dark:{key.dark}"
    if not key.width:
        return f'<span class="swatch" style="{style}"></span>'
    return (
        f'<svg class="line" style="{style}" viewBox="0 0 30 12" aria-hidden="true"><line x1="0" y1="6" x2="30" y2="6" '
        f'stroke-dasharray="{",".join(map(str, key.dash))}" stroke-width="{key.width:g}"/></svg>'
    )


def _glossary(html: str) -> str:
    """The terms of these parts of a page; the script finds their forms in the text and shows the meaning there."""
    found = explained(unescape(re.sub("<[^>]*>", " ", html)))
    entries = "".join(
        f'<div id="term-{i}" data-forms="{escape(json.dumps(forms))}"><dt>{escape(term.name)}</dt>'
        f"<dd>{escape(term.meaning)}</dd></div>"
        for i, (term, forms) in enumerate(found)
    )
    return f'<section id="glossary"><h2>Glossary</h2><dl>{entries}</dl></section>' if entries else ""


def _color_bar(ramp: Ramp) -> str:
    """What the number of a curve is, and the colors between its ends."""
    light, dark = (f"linear-gradient(90deg,{','.join(RAMP[mode])})" for mode in ("light", "dark"))
    bar = f'<span class="bar" style="--light:{light};--dark:{dark}"></span>'
    return f"<li>{escape(ramp.title)}: {number(ramp.low, 3)}{bar}{number(ramp.high, 3)}</li>"


def _settings(title: str, settings: Mapping[str, Any]) -> str:
    if not settings:
        return ""
    # Settings without a group come first, or they would seem to belong to the group above them.
    plain = {k: v for k, v in settings.items() if not isinstance(v, Mapping)}
    groups = {"": plain, **{k: v for k, v in settings.items() if isinstance(v, Mapping)}}
    rows = []
    for group, entries in groups.items():
        if group:
            rows.append(f'<tr class="group"><th colspan="2" scope="colgroup">{escape(group)}</th></tr>')
        for key, value in _flat(entries):
            rows.append(f'<tr><th scope="row">{escape(key)}</th><td>{escape(_plain(value))}</td></tr>')
    body = f'<table class="settings"><tbody>{"".join(rows)}</tbody></table>'
    return f"<section><details open><summary>{title}</summary>{body}</details></section>"


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


def _chart_data(figures: Sequence[Figure]) -> str:
    data = [
        {
            "id": f"{figure.name}-{i}",
            "spec": page_spec(figure, i),
            "light": theme(figure.keys.values(), "light"),
            "dark": theme(figure.keys.values(), "dark"),
        }
        for figure in figures
        for i in range(len(figure.panels))
    ]
    # NaN is no JSON: browsers would refuse all charts, so it is an error here.
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
