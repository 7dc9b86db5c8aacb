"""The table of the claims as Markdown: docs/claims.md is written by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from operant.reproduce.claims import PAPERS, VERDICTS, Claim, verdict
from operant.reproduce.comparisons import Comparison

_HEAD = ("claim", "published", "what was run here", "the recipe and the plain baseline", "verdict", "command")


def markdown(rows: Sequence[tuple[Claim, list[Comparison]]]) -> str:
    """A section a paper, a row a claim, and below it what each verdict leaves open."""
    parts = [
        "# The claims of both papers, re-run",
        "Each row is a claim. The effect is that of the claim's recipe over the baseline that is named, the strongest "
        "plain one where there are several, with its 95 % interval. The verdict follows from it alone: *reproduced* if "
        "every interval that decides lies on the claim's side, *reproduced in part* if one does, *not reproduced* if "
        "none does. Comparisons in italics do not decide. `operant reproduce --write docs/claims.md` writes this page "
        "from what lies beside each experiment.",
        f"In all: {counted(verdict(claim, list(found)) for claim, found in rows)}.",
    ]
    for paper, name in PAPERS.items():
        own = [(claim, found) for claim, found in rows if claim.paper == paper]
        if own:
            lines = [_HEAD, ("---",) * len(_HEAD), *(_row(claim, found) for claim, found in own)]
            table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
            parts += [f"## {name} (arXiv {paper})", table, "\n".join(_note(claim) for claim, _ in own)]
    return "\n\n".join(parts) + "\n"


def counted(verdicts: Iterable[str]) -> str:
    """How many claims have each verdict, such as "9 reproduced, 5 not reproduced"."""
    found = Counter(verdicts)
    return ", ".join(f"{found[v]} {v}" for v in VERDICTS if found[v])


def shown(c: Comparison) -> str:
    """One comparison in words, such as "pass@16: log 84.3, GRPO 73.2 %: +11.0 (+5.1 to +17.0), 8 seeds"."""
    sign, kind = ("", " times") if c.neutral == 1 else ("+", "")
    effect, low, high = (f"{x:{sign}.3g}" for x in (c.effect, c.low, c.high))
    values = f"{c.ours} {c.value:.3g}, {c.baseline} {c.plain:.3g} {c.unit}".rstrip()
    interval = "" if c.low == c.high and not c.seeds else f" ({low} to {high})"
    return f"{c.what}: {values}: {effect}{kind}{interval}" + (f", {c.seeds} seeds" if c.seeds else "")


def _row(claim: Claim, found: Sequence[Comparison]) -> tuple[str, ...]:
    told = "<br>".join(shown(f) if f.decides else f"*{shown(f)}*" for f in found) or "–"
    name = claim.name
    return (
        f"[{claim.title}](../experiments/{name}/README.md)",
        f"{_one_line(claim.says)} ({claim.place})",
        _one_line(claim.here),
        told.replace("|", "\\|"),
        f"**{verdict(claim, list(found))}**",
        "–" if claim.untestable else f"`operant reproduce {name}`",
    )


def _note(claim: Claim) -> str:
    told = _one_line(claim.untestable or claim.why)
    return f"- **{claim.title}.** The paper's scale: {_one_line(claim.scale).rstrip('.')}.{' ' if told else ''}{told}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
