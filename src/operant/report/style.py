"""The style sheet and the script of a page, as text, because the page is one file that loads nothing."""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1f2933; --soft: #5b6673; --line: #e2e6eb;
  --up: #00694e; --down: #b3261e; --mark: #e8f1fb; --warn: #fff4e0; --warn-line: #d9822b;
  --focus: #0072b2; --shade: #1f293333;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1318; --card: #171c23; --ink: #e7ebf0; --soft: #a3acb9; --line: #2d3541;
    --up: #4fd1a5; --down: #ff8f85; --mark: #1d3148; --warn: #33270f; --warn-line: #e0a04a;
    --focus: #4aa8e8; --shade: #00000088;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif;
}
main { max-width: 1040px; margin: 0 auto; padding: 40px 20px 64px; }
header p.run { margin: 0; color: var(--soft); font-size: 14px; overflow-wrap: anywhere; }
h1 { font-size: clamp(24px, 4vw, 34px); line-height: 1.2; margin: 4px 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 0 0 4px; }
h3 { font-size: 14px; font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere; }
.scroll + h3, ul + h3 { margin-top: 26px; }
p.asked { color: var(--soft); margin: 0 0 14px; max-width: 52em; overflow-wrap: anywhere; }
p.finding { font-size: clamp(18px, 2.4vw, 21px); line-height: 1.45; margin: 0; max-width: 46em; }
p.finding + p.finding { margin-top: 8px; }
p.lead, figcaption { color: var(--soft); font-size: 14px; margin: 0 0 14px; max-width: 64em; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 22px;
  margin-top: 20px; }
aside { border-left: 4px solid var(--line); background: var(--card); padding: 10px 16px; margin-top: 14px;
  border-radius: 4px; font-size: 14px; }
aside.warning { border-color: var(--warn-line); background: var(--warn); font-size: 16px;
  padding: 14px 18px; }
aside p { margin: 0; overflow-wrap: anywhere; }
aside p + p { margin-top: 6px; }
/* A shadow on each side to which the table can be scrolled: the covers move with it, the shadows do not. */
.scroll { overflow-x: auto; margin: 0 -22px; padding: 0 22px;
  background: linear-gradient(90deg, var(--card) 50%, transparent) local 0 / 44px 100% no-repeat,
    linear-gradient(270deg, var(--card) 50%, transparent) local 100% / 44px 100% no-repeat,
    linear-gradient(90deg, var(--shade), transparent) scroll 0 / 12px 100% no-repeat,
    linear-gradient(270deg, var(--shade), transparent) scroll 100% / 12px 100% no-repeat; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; min-width: 60%; }
th, td { padding: 7px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th[scope=row] { font-weight: 500; position: relative; }
.scroll th.marked { padding-left: 19px; }
.scroll .swatch { position: absolute; left: 0; top: calc(50% - 6px); }
tbody tr:last-child > * { border-bottom: 0; }
th small, td small { display: block; color: var(--soft); font-size: 12px; font-weight: 400; }
td.long { white-space: normal; min-width: 24em; text-align: left; }
.answers th, .answers td { text-align: left; }
td.sample { white-space: pre-wrap; overflow-wrap: anywhere; text-align: left; min-width: 9em; max-width: 26em; }
p.prompt { font-weight: 600; margin: 18px 0 2px; white-space: pre-wrap; overflow-wrap: anywhere; max-width: 64em; }
td.best { background: var(--mark); font-weight: 650; }
td.up { color: var(--up); font-weight: 600; }
td.down { color: var(--down); font-weight: 600; }
table.settings { width: 100%; table-layout: fixed; }
table.settings td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
table.settings th { width: 32%; vertical-align: top; text-align: left; white-space: normal;
  overflow-wrap: anywhere; }
table.settings tr.group th { padding-top: 16px; color: var(--soft); font-weight: 600; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 8px;
  background: var(--light); flex: none; }
.line { width: 30px; height: 12px; margin-right: 8px; flex: none; vertical-align: middle; stroke: var(--light); }
.bar { display: inline-block; width: 120px; height: 10px; margin: 0 8px; border-radius: 3px; background: var(--light); }
@media (prefers-color-scheme: dark) { .swatch, .bar { background: var(--dark); } .line { stroke: var(--dark); } }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px; margin: 0 0 12px; padding: 0;
  list-style: none; }
.legend li { display: flex; align-items: center; overflow-wrap: anywhere; min-width: 0; }
figure { margin: 0; }
.panels { display: grid; gap: 22px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 290px), 1fr)); }
.panels > div { min-width: 0; }
.chart { width: 100%; overflow: hidden; }
.chart.vega-embed { display: block; padding: 0; }
figure + .scroll, .scroll + .scroll { margin-top: 18px; }
details > summary { cursor: pointer; font-size: 20px; font-weight: 700; }
details[open] > summary { margin-bottom: 10px; }
dl { display: grid; grid-template-columns: minmax(7em, max-content) 1fr; gap: 6px 20px; margin: 8px 0 0;
  font-size: 14px; }
dl div { display: contents; }
dt { font-weight: 600; }
dd { margin: 0; color: var(--soft); max-width: 60em; }
.term { text-decoration: underline dotted; text-decoration-thickness: 1px; text-underline-offset: 3px; cursor: help; }
.term:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; border-radius: 2px; }
#tip { position: absolute; z-index: 9; max-width: min(340px, calc(100vw - 24px)); padding: 9px 12px;
  background: var(--ink); color: var(--card); border-radius: 6px; font-size: 13px; line-height: 1.4;
  pointer-events: none; }
#tip b { display: block; }
footer { color: var(--soft); font-size: 13px; margin-top: 24px; }
@media (min-width: 1600px) { main { max-width: 1240px; } }
@media (max-width: 560px) {
  main { padding: 22px 12px 40px; }
  section { padding: 16px; }
  .scroll { margin: 0 -16px; padding: 0 16px; }
  th, td { padding: 6px 8px; }
  th[scope=row], thead th:first-child { position: sticky; left: 0; background: var(--card);
    min-width: 40vw; max-width: 44vw; white-space: normal; overflow-wrap: anywhere; }
  table.settings th { position: static; min-width: 0; max-width: none; }
  .scroll { padding-left: 0; margin-left: 0; }
  dl { display: block; }
  dl div { display: block; margin-top: 10px; }
}
@media print { section { break-inside: avoid; } }
"""

JS = r"""
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = [];
async function draw() {
  while (drawn.length) drawn.pop().finalize();
  const mode = dark.matches ? "dark" : "light";
  for (const chart of charts) {
    const options = { actions: false, renderer: "svg", config: chart[mode], tooltip: { theme: mode } };
    drawn.push(await vegaEmbed("#" + chart.id, chart.spec, options));
  }
  document.documentElement.dataset.drawn = mode;
}
dark.addEventListener("change", draw);
draw();

// Marks the first place of every form of a term in the head and in each section; only the first
// of a term on the page is a tab stop.
const entries = [...document.querySelectorAll("#glossary [data-forms]")];
const termOf = new Map(entries.flatMap(e => JSON.parse(e.dataset.forms).map(form => [form, e])));
const forms = [...termOf.keys()].sort((a, b) => b.length - a.length);
const pattern = forms.map(form => form.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
document.body.append(tip);
function show(term) {
  const entry = document.getElementById(term.getAttribute("aria-describedby"));
  const name = document.createElement("b");
  name.textContent = entry.querySelector("dt").textContent;
  tip.replaceChildren(name, entry.querySelector("dd").textContent);
  tip.hidden = false;
  const at = term.getClientRects()[0], width = document.documentElement.clientWidth;
  const above = at.bottom + tip.offsetHeight + 8 > window.innerHeight && at.top > tip.offsetHeight + 8;
  tip.style.left = Math.max(12, Math.min(at.left, width - tip.offsetWidth - 12)) + window.scrollX + "px";
  tip.style.top = (above ? at.top - tip.offsetHeight - 6 : at.bottom + 6) + window.scrollY + "px";
}
function hide() { tip.hidden = true; }
function mark(block, known) {
  const texts = [], seen = new Set();
  const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    if (!walker.currentNode.parentElement.closest("h1, h2, h3, summary, .settings, .chart, .run, .sample"))
      texts.push(walker.currentNode);
  }
  for (let text of texts) {
    const finder = new RegExp("(?<![\\w@^-])(?:" + pattern + ")(?![\\w@^(-])", "g");
    let start = 0;
    for (const found of [...text.data.matchAll(finder)]) {
      const entry = termOf.get(found[0]);
      if (seen.has(found[0])) continue;
      seen.add(found[0]);
      const term = document.createElement("span");
      term.className = "term";
      term.tabIndex = known.has(entry) ? -1 : 0;
      known.add(entry);
      term.setAttribute("aria-describedby", entry.id);
      const rest = text.splitText(found.index - start);
      start = found.index + found[0].length;
      text = rest.splitText(found[0].length);
      rest.replaceWith(term);
      term.append(rest);
      term.addEventListener("mouseenter", () => show(term));
      term.addEventListener("mouseleave", hide);
      term.addEventListener("focus", () => show(term));
      term.addEventListener("blur", hide);
      term.addEventListener("click", () => show(term));
    }
  }
}
const known = new Set();
if (pattern) document.querySelectorAll("main > header, main > section:not(#glossary)").forEach(b => mark(b, known));
document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
"""
