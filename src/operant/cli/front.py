"""What the command line says without loading a library: ``operant --help``, ``--version``, and a mistyped verb."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

from operant.cli.texts import AUDIT, DEMO, EVALUATE, EXTRAPOLATE, PLAN, REPORT, REPRODUCE, TRAIN

VERBS = {
    "train": TRAIN,
    "evaluate": EVALUATE,
    "plan": PLAN,
    "audit": AUDIT,
    "extrapolate": EXTRAPOLATE,
    "report": REPORT,
    "reproduce": REPRODUCE,
    "demo": DEMO,
}
"""Verb -> its description, whose first sentence stands in the list of verbs."""
_WIDTH = 100


class Shown(NamedTuple):
    """A text, and the exit code: 0 for what was asked, 2 for an error."""

    text: str
    code: int


def front(given: Sequence[str]) -> Shown | None:
    """The answer to arguments that name no verb; None for those that do."""
    first = given[0] if given else ""
    if first in VERBS:
        return None
    if first in ("-h", "--help"):
        return Shown(_help(), 0)
    if first == "--version":
        return Shown(f"operant {version('operant')}", 0)
    close = difflib.get_close_matches(first, VERBS, 1)
    meant = f" Did you mean {close[0]}?" if close else ""
    got = f"got {first!r}" if given else "got none"
    return Shown(f"operant: expected one of {', '.join(VERBS)}, {got}.{meant} The verbs: operant --help", 2)


def summary(text: str) -> str:
    """The first sentence of a description, in one line."""
    return " ".join(text.split()).split(". ")[0].rstrip(".:") + "."


def _help() -> str:
    lines = ["usage: operant VERB [settings]", "", "Train models for the way they will be used.", "", "verbs:"]
    for verb, text in VERBS.items():
        lines += textwrap.wrap(summary(text), _WIDTH, initial_indent=f"  {verb:13}", subsequent_indent=" " * 15)
    more = "operant VERB --help explains the settings of a verb and has examples. operant --version prints the version."
    return "\n".join([*lines, "", *textwrap.wrap(more, _WIDTH)])
