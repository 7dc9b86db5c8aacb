"""Extrapolative splits of a bank: what is held out, and a check that nothing of it leaked.

Two tasks are the same task if their values agree, whatever they are called. A known task that behaves as a held-out
one is left out of the split.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank

SAME = 1e-6
"""Two values agree if they differ by at most this times the standard deviation of all values of the output."""
POINTS = 64
"""At most so many points of a target are compared."""
FEW = 4
"""So many of them first."""
_CUTS = 4
"""Places where a small bank is cut to predict its outer tasks from the rest, at most."""


@dataclass(frozen=True, eq=False)
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


def position(bank: TaskBank, *, by: str | None = None) -> Array:
    """(F,) where each task stands in the bank's range, increasing from one end to the other.

    The value of the parameter ``by``; without it the only parameter that varies, or else the score of the task on the
    first principal component of the curves on a common grid.

    Raises:
        DataError: if there is no such parameter.
    """
    if by is not None:
        if by not in bank.param_names:
            raise DataError(f"no parameter {by!r}; there are: {', '.join(bank.param_names) or 'none'}.")
        return bank.params[:, bank.param_names.index(by)]
    if bank.parameters.varying.sum() == 1:
        return bank.params[:, bank.parameters.varying][:, 0]
    curves = bank.values(bank.grid()).reshape(len(bank), -1)
    centered = curves - curves.mean(0)
    return np.linalg.svd(centered, full_matrices=False)[2][0] @ centered.T


def outer(
    bank: TaskBank,
    *,
    share: float = 1 / 3,
    end: Literal["high", "low", "both"] = "both",
    by: str | None = None,
    along: Array | None = None,
) -> Split:
    """Hold out the tasks at the end of the range: what extrapolation within the bank means.

    Args:
        bank: at least four tasks.
        share: held-out part.
        end: which end; "both" takes half of the share from each.
        by: the parameter that orders the tasks, see :func:`position`.
        along: (F,) positions to order them by instead.

    Raises:
        DataError: if less than two tasks would be left to train on or to test on.
    """
    where = position(bank, by=by) if along is None else along
    rank = np.argsort(np.argsort(where, kind="stable"), kind="stable")
    f, k = len(bank), max(2, round(share * len(bank)))  # a bank of targets needs two
    low = k // 2 if end == "both" else k if end == "low" else 0
    test = (rank < low) | (rank >= f - (k - low))
    name = by or (bank.param_names[0] if len(bank.param_names) == 1 else "the first principal component")
    return _split(bank, test, f"outer {end} {share:.0%} along {name}")


def ahead(bank: TaskBank, along: Array, *, share: float = 1 / 2) -> list[tuple[TaskBank, TaskBank, int, str]]:
    """The outer tasks of a small bank, each predicted from the tasks before every one of _CUTS cuts.

    :func:`outer` cuts once and holds out two tasks at least, so that half of a bank of four would not be known.

    Args:
        bank: at least four tasks.
        along: (F,) positions of the tasks.
        share: part of the bank that is predicted.

    Returns:
        For each cut: the known tasks, a bank that begins with those to predict, their number, and a line that says so.

    Raises:
        DataError: if no cut leaves two known tasks that differ from those beyond it.
    """
    ranked, f = np.argsort(along, kind="stable"), len(bank)
    if f < 4:
        raise DataError(f"expected at least two known and two held-out tasks, got {f} in all.")
    first = max(2, f - max(2, round(share * f)))
    found = []
    for cut in np.unique(np.linspace(first, f - 1, _CUTS).round().astype(int)):
        known, held = np.sort(ranked[:cut]), np.sort(ranked[cut:])
        twins = {i for i, _ in _same(bank, known, bank, held, SAME)}
        kept = [int(i) for i in known if i not in twins]
        if len(kept) >= 2:
            test = bank.subset(tuple(int(i) for i in held))
            found.append((bank.select(kept), test, len(held), f"the last {len(held)} of {f} ahead"))
    if not found:
        raise DataError(f"expected two known tasks that differ from those held out; no cut of the {f} tasks has them.")
    return found


def order(bank: TaskBank, *, label: str = "order", above: int) -> Split:
    """Hold out every task of an order above ``above``: longer, deeper or of higher degree than anything known.

    Args:
        bank: tasks labeled with their order.
        label: the label that holds it.
        above: the highest order of the known tasks.

    Raises:
        DataError: if a task has no such label, or a side would have less than two tasks.
    """
    test = np.array([value > above for (value,) in _labels(bank, (label,))])
    return _split(bank, test, f"{label} above {above}")


def combination(
    bank: TaskBank, *, of: Sequence[str], held: Collection[tuple[Any, ...]], tolerance: float = SAME
) -> Split:
    """Hold out combinations of parts, by behavior.

    Reversing and then sorting is sorting: holding out one of the two must hold out the other.

    Args:
        bank: tasks labeled with their parts.
        of: the labels that name the parts, such as ("outer", "inner").
        held: the combinations to hold out, as tuples of the values of these labels.
        tolerance: as in :func:`assert_no_leak`.

    Raises:
        DataError: if a task has no such label, or a side would have less than two tasks.
    """
    wanted = {tuple(c) for c in held}
    test = np.array([parts in wanted for parts in _labels(bank, of)])
    return _split(bank, test, f"{len(wanted)} combinations of {', '.join(of)}", tolerance=tolerance)


def assert_no_leak(split: Split, *, tolerance: float = SAME) -> None:
    """Raise if a target stands among the known tasks.

    Values are compared at the points of the target where the other task is known too, measured or interpolated. Keys
    are compared too, unless both banks just number their tasks from zero.

    Args:
        split: known tasks and targets.
        tolerance: largest difference of values that agree, in standard deviations of all values of the output.

    Raises:
        DataError: with the names of the two tasks.
    """
    a, b = split.train, split.test
    if (a.d, a.c) != (b.d, b.c):
        raise DataError(f"expected targets with as many inputs and outputs as the known tasks, got {b} for {a}.")
    numbered = all(bank.keys == tuple(range(len(bank))) for bank in (a, b))
    if not numbered and (both := set(a.keys) & set(b.keys)):
        key = next(k for k in b.keys if k in both)
        raise DataError(
            f"task {key!r} is known and a target ({len(both)} such keys). Take it from one of the two banks."
        )
    for i, j in _same(a, np.arange(len(a)), b, np.arange(len(b)), tolerance):
        raise DataError(
            f"target {b.keys[j]!r} behaves as the known task {a.keys[i]!r}: their values agree within {tolerance:g} "
            "standard deviations at every point where both are known. Take it from one of the two banks."
        )


def _split(bank: TaskBank, test: NDArray[np.bool_], why: str, *, tolerance: float = SAME) -> Split:
    """Split at ``test``; known tasks that behave as held-out ones stand on neither side."""
    known, held = np.flatnonzero(~test), np.flatnonzero(test)
    twins = {i for i, _ in _same(bank, known, bank, held, tolerance)} if known.size and held.size else set[int]()
    if twins:
        known = np.array([i for i in known if i not in twins], dtype=np.intp)
        why += f" ({len(twins)} known tasks that behave as held-out ones left out)"
    if len(known) < 2 or len(held) < 2:
        raise DataError(
            f"{why}: expected at least two known and two held-out tasks, got {len(known)} and {len(held)} "
            f"of {len(bank)}."
        )
    split = Split(bank.select(known), bank.select(held), why)
    assert_no_leak(split, tolerance=tolerance)
    return split


def _labels(bank: TaskBank, names: Sequence[str]) -> list[tuple[Any, ...]]:
    for task in bank.tasks:
        if missing := [n for n in names if n not in task.labels]:
            there = ", ".join(map(repr, task.labels)) or "none"
            raise DataError(f"task {task.key!r} has no label {missing[0]!r}; there are: {there}.")
    return [tuple(t.labels[n] for n in names) for t in bank.tasks]


def _same(
    a: TaskBank, which_a: NDArray[np.intp], b: TaskBank, which_b: NDArray[np.intp], tolerance: float
) -> list[tuple[int, int]]:
    """Positions (i in a, j in b) of tasks whose values agree at the points of the latter."""
    sd = np.concatenate([t.y for t in (*a.tasks, *(b.tasks[j] for j in which_b))]).std(0)
    scale = np.where(sd > 0, sd, 1.0)
    points = [b.tasks[j].x for j in which_b]
    few = [np.unique(np.linspace(0, len(x) - 1, FEW).astype(int)) for x in points]
    x, inverse = np.unique(
        np.concatenate([x[i] for x, i in zip(points, few, strict=True)]), axis=0, return_inverse=True
    )
    places = np.split(inverse.reshape(-1), np.cumsum([len(i) for i in few])[:-1])
    known, inside = a.values(x)[which_a] / scale, a.covers(x)[which_a]
    pairs: list[tuple[int, int]] = []
    for j, i, place in zip(which_b, few, places, strict=True):
        wanted = b.tasks[j].y / scale
        maybe = which_a[_agree(known[:, place], wanted[i], inside[:, place], tolerance)]
        if maybe.size:  # all but a few tasks differ at a few points already
            rows = np.unique(np.linspace(0, len(wanted) - 1, POINTS).astype(int))
            at = b.tasks[j].x[rows]
            common = a.covers(at)[maybe]
            enough = common.sum(1) >= min(3, len(rows))  # curves that only touch may well agree where they touch
            agree = _agree(np.stack([a.curve(int(k))(at) for k in maybe]) / scale, wanted[rows], common, tolerance)
            pairs += [(int(k), int(j)) for k in maybe[enough & agree]]
    return pairs


def _agree(a: Array, b: Array, where: NDArray[np.bool_], tolerance: float) -> NDArray[np.bool_]:
    """(F,) whether values (F, Q, C) and (Q, C) agree at the points (F, Q)."""
    return ((np.abs(a - b).max(2) <= tolerance) | ~where).all(1)
