"""A claim of a paper: what it says, what our runs measured, and the verdict that follows.

Every claim is a folder ``experiments/<claim>/``: ``claim.yaml`` says what is claimed, ``run.py FOLDER [--quick]``
measures and writes ``FOLDER/comparisons.jsonl``; those of the full run are committed beside it.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from operant.core.checks import ConfigError, DataError
from operant.reproduce.comparisons import Comparison

VERDICTS = REPRODUCED, PARTLY, NOT, UNTESTED = (
    "reproduced",
    "reproduced in part",
    "not reproduced",
    "cannot be tested here",
)
PAPERS = {
    "2604.24957": "Compute Aligned Training",
    "2605.30132": "Relational Task Extrapolator",
}


@dataclass(frozen=True)
class Claim:
    """What a paper claims, from ``claim.yaml``.

    Args:
        folder: the claim's; its name is the claim's name.
        title: a few words.
        paper: arXiv number.
        place: table or section.
        says: the published result with its number.
        scale: of the published runs.
        here: of ours, and what carries over.
        order: place in the table.
        run: script in the folder, and its arguments: it takes a folder, and --quick.
        why: what the verdict leaves open, and the reason of a failure.
        untestable: why nothing here can test it; empty where run.py does.
    """

    folder: Path
    title: str
    paper: str
    place: str
    says: str
    scale: str
    here: str
    order: int
    run: str = "run.py"
    why: str = ""
    untestable: str = ""

    @property
    def name(self) -> str:
        """That of the folder."""
        return self.folder.name

    def command(self, out: Path, *, quick: bool) -> list[str]:
        """What runs the claim, as arguments of a process."""
        script, *rest = shlex.split(self.run)
        path = (self.folder / script).resolve()
        return [sys.executable, str(path), str(out), *rest, *(["--quick"] if quick else [])]


def read_claims(experiments: Path) -> list[Claim]:
    """All claims of a folder of experiments, in the order of the papers.

    Raises:
        DataError: if there are none: the experiments are in the repository, not in the package.
        ConfigError: for a claim.yaml with a field that is missing, unknown or of another type.
    """
    files = sorted(experiments.glob("*/claim.yaml"))
    if not files:
        raise DataError(
            f"expected folders with a claim.yaml in {experiments}, found none. The experiments are part of the "
            "repository, not of the package: run this in a clone, or give --experiments."
        )
    return sorted((_read(path) for path in files), key=lambda claim: (claim.paper, claim.order, claim.name))


def verdict(claim: Claim, found: list[Comparison]) -> str:
    """What the comparisons say: reproduced if every deciding interval holds, in part if one does, else not.

    Raises:
        DataError: for a claim with neither a deciding comparison nor a reason why it cannot be tested.
    """
    if claim.untestable:
        return UNTESTED
    held = [comparison.holds for comparison in found if comparison.decides]
    if not held:
        raise DataError(
            f"{claim.name} has no comparison that decides. Its full run writes them beside claim.yaml: python "
            f"{claim.folder}/run.py {claim.folder}"
        )
    return REPRODUCED if all(held) else PARTLY if any(held) else NOT


def _read(path: Path) -> Claim:
    found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    wanted = {field.name: field for field in fields(Claim) if field.name != "folder"}
    given = found if isinstance(found, dict) else {}
    required = {"title", "paper", "place", "says", "scale", "here", "order"}
    if wrong := sorted((required - given.keys()) | (given.keys() - wanted.keys())):
        raise ConfigError(f"{path}: expected the fields {', '.join(wanted)}; missing or unknown: {', '.join(wrong)}.")
    claim = Claim(path.parent, **given)
    if claim.paper not in PAPERS:
        raise ConfigError(f"{path}: expected paper to be one of {', '.join(PAPERS)}, got {claim.paper!r}. Quote it.")
    return claim
