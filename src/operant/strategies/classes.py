"""From answers to answer classes: by equality, or by the user's own equivalence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from operant.core.checks import InputError


def equivalence_classes(
    answers: Sequence[Sequence[object | None]],
    equivalent: Callable[[Any, Any], bool] | None = None,
    *,
    check: bool = False,
) -> Tensor:
    """Answer classes of each prompt's rollouts, in the order of their first appearance.

    An answer joins the first class whose first member is equivalent to it. Answers that are equal (hashable ones) or
    the same object are compared once.

    Args:
        answers: B prompts with M extracted answers each; None where none could be extracted.
        equivalent: whether two answers are the same answer; reflexive, symmetric and transitive. None: they are equal,
            and must be hashable.
        check: compare all pairs of distinct answers of a prompt, both ways, and raise an error if ``equivalent`` is
            not an equivalence.

    Returns:
        (B, M) int64 classes, -1 for None; the ``answer`` of ``Outcomes``.

    Raises:
        InputError: if the prompts have different numbers of answers; if an answer has no hash and ``equivalent`` is
            None; if ``equivalent`` raises, naming the two answers; with ``check``, naming the answers that break the
            equivalence.

    >>> equivalence_classes([["a", "b", None, "a"]]).tolist()
    [[0, 1, -1, 0]]
    >>> equivalence_classes([["0.5", "1/2", None, "2"]], lambda a, b: eval(a) == eval(b)).tolist()
    [[0, 0, -1, 1]]
    """
    lengths = sorted({len(row) for row in answers})
    if len(lengths) != 1 or lengths[0] == 0:
        raise InputError(
            f"answers must hold the same number M >= 1 of answers for every prompt, got {lengths or 'no prompts'}. "
            "Give None where no answer could be extracted."
        )
    if equivalent is None:
        return torch.tensor([_by_equality(row) for row in answers])
    return torch.tensor([_by_comparison(row, equivalent, check) for row in answers])


def _by_equality(row: Sequence[object | None]) -> list[int]:
    seen: dict[object, int] = {}
    try:
        return [-1 if answer is None else seen.setdefault(answer, len(seen)) for answer in row]
    except TypeError as error:
        raise InputError(f"answers must be hashable: {error}. Give equivalent=, which compares two of them.") from error


def _by_comparison(row: Sequence[object | None], equivalent: Callable[[Any, Any], bool], check: bool) -> list[int]:
    distinct: dict[Hashable, object] = {}
    keys = [_key(answer) for answer in row]
    for key, answer in zip(keys, row, strict=True):
        if answer is not None:
            distinct.setdefault(key, answer)
    if check:
        _check(list(distinct.values()), equivalent)
    leaders: list[object] = []
    class_of: dict[Hashable, int] = {}
    for key, answer in distinct.items():
        found = (c for c, leader in enumerate(leaders) if _same(leader, answer, equivalent))
        class_of[key] = next(found, len(leaders))
        if class_of[key] == len(leaders):
            leaders.append(answer)
    return [-1 if answer is None else class_of[key] for key, answer in zip(keys, row, strict=True)]


def _key(answer: object) -> Hashable:
    """Equal for answers that need no comparison: of one type and equal, or the same object."""
    try:
        hash(answer)
    except TypeError:
        return (object, id(answer))
    # 1, True and 1.0 are equal in Python, and need not be for the user's function.
    return (type(answer), answer)


def _same(a: object, b: object, equivalent: Callable[[Any, Any], bool]) -> bool:
    try:
        return bool(equivalent(a, b))
    except Exception as error:  # a user's function may fail in any way: report it with the answers
        raise InputError(
            f"equivalent({a!r}, {b!r}) must return a bool, but raised {type(error).__name__}: {error}. Catch it there "
            "and return False, or give None for answers that cannot be compared."
        ) from error


def _check(distinct: list[object], equivalent: Callable[[Any, Any], bool]) -> None:
    """Reflexivity, symmetry and transitivity over all pairs."""
    numbers = range(len(distinct))
    same = {(i, j): _same(distinct[i], distinct[j], equivalent) for i, j in product(numbers, repeat=2)}
    for i in numbers:
        if not same[i, i]:
            raise InputError(f"equivalent is not reflexive: {distinct[i]!r} is not equivalent to itself.")
    for i, j in combinations(numbers, 2):
        if same[i, j] != same[j, i]:
            yes, no = (i, j) if same[i, j] else (j, i)
            raise InputError(
                f"equivalent is not symmetric: equivalent({distinct[yes]!r}, {distinct[no]!r}) holds and "
                f"equivalent({distinct[no]!r}, {distinct[yes]!r}) does not. Compare both ways and combine."
            )
    mates = [{j for j in numbers if same[i, j]} for i in numbers]
    for i, j in combinations(numbers, 2):
        if same[i, j] and mates[i] != mates[j]:
            k = min(mates[i] ^ mates[j])
            a, b = (i, j) if k in mates[j] else (j, i)
            raise InputError(
                f"equivalent is not transitive: {distinct[a]!r} ~ {distinct[b]!r} and {distinct[b]!r} ~ "
                f"{distinct[k]!r}, but not {distinct[a]!r} ~ {distinct[k]!r}. Compare canonical forms, or widen a "
                "tolerance into rounding."
            )
