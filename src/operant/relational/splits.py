"""Extrapolative splits of a bank, each checked for leaks."""

from __future__ import annotations

from dataclasses import dataclass

from operant.relational.tasks import TaskBank


@dataclass(frozen=True)
class Split:
    """A bank to learn from and a bank of targets.

    Args:
        train: known tasks.
        test: targets, none of them among the known tasks.
        why: what the split holds out, in one line.
    """

    train: TaskBank
    test: TaskBank
    why: str
