"""Rewards of the protein tasks: the share h of hydrophobic residues decides, and high values are rare.

Use them as verifiers (``recipes.protein.unconditional``, from the project's root) or call them.
Source: the protein experiments of arXiv 2604.24957.
"""

from __future__ import annotations

import math
import random

HYDROPHOBIC = frozenset("AILMFWYV")
RESIDUES = frozenset("ACDEFGHIKLMNPQRSTVWY")
INVALID = -5.0


def hydrophobic(text: str, *, least: int = 1) -> float | None:
    """The share h of hydrophobic residues; None with any other letter, or with fewer than ``least``."""
    sequence = "".join(text.split()).upper()
    if len(sequence) < least or not RESIDUES.issuperset(sequence):
        return None
    return sum(residue in HYDROPHOBIC for residue in sequence) / len(sequence)


def unconditional(completion: str, target: str = "", **info: object) -> float:
    """4 exp(-(h-.35)^2/.05) + 12 exp(-(h-.75)^2/.015) - 2 [.45 < h < .60]; -5 below 10 residues or if invalid.

    A low, wide hill where models start and a high, narrow one behind a ditch: the most is 12.165, at h = .748.

    >>> round(unconditional("AAALLLIIIGGG"), 4), unconditional("AAALLL")
    (12.1630, -5.0)
    """
    h = hydrophobic(completion, least=10)
    if h is None:
        return INVALID
    ditch = 2.0 * (0.45 < h < 0.60)
    return 4 * math.exp(-((h - 0.35) ** 2) / 0.05) + 12 * math.exp(-((h - 0.75) ** 2) / 0.015) - ditch


def conditional(completion: str, target: str = "", *, source: str, **info: object) -> float:
    """10 exp(-(h - (1-s))^2/.05) - 2 [|h-s| < .1 and |s-.5| > .1], s = share of ``source``; -5 below 5 or invalid.

    The opposite of the input is asked for; a copy of it is punished.

    Raises:
        ValueError: if ``source`` itself is no sequence.
    """
    s, h = hydrophobic(source), hydrophobic(completion, least=5)
    if s is None:
        raise ValueError(f"source must be a sequence of the 20 residues, got {source!r}.")
    if h is None:
        return INVALID
    copied = abs(h - s) < 0.1 and abs(s - 0.5) > 0.1
    return 10 * math.exp(-((h - (1 - s)) ** 2) / 0.05) - 2.0 * copied


CHAINS = ("HEAVY", "LIGHT")
SPECIES = ("HUMAN", "MOUSE", "RAT", "RABBIT", "CAMEL", "RHESUS")


def starts() -> list[dict[str, str]]:
    """The unconditional task for IgLM: what its sequences begin with, chain and species, and nothing more."""
    return [{"prompt": f"[{chain}][{species}]"} for chain in CHAINS for species in SPECIES]


def pairs(count: int = 2000, *, seed: int = 42) -> list[dict[str, str]]:
    """The conditional task for IgLM: the input stands before a [MASK], and what stands there is asked for.

    Inputs are uniform over the residues, 10 to 19 long, no two the same. A target has as many residues, 10 to 19, of
    which round((1 - s) length) are hydrophobic, in random order.
    """
    rng, found = random.Random(seed), dict[str, str]()
    oily, watery = sorted(HYDROPHOBIC), sorted(RESIDUES - HYDROPHOBIC)
    while len(found) < count:
        source = "".join(rng.choices(sorted(RESIDUES), k=rng.randint(10, 19)))
        length, share = rng.randint(10, 19), sum(residue in HYDROPHOBIC for residue in source) / len(source)
        count_oily = round((1 - share) * length)
        target = rng.choices(oily, k=count_oily) + rng.choices(watery, k=length - count_oily)
        rng.shuffle(target)
        found.setdefault(source, "".join(target))
    return [{"prompt": f"[HEAVY][HUMAN]{s}[MASK][SEP]", "target": t, "source": s} for s, t in found.items()]
