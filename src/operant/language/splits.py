"""Splits of text tasks that keep the test set out of the bank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from operant.core.checks import DataError, InputError, OperantError
from operant.core.rng import numpy_generator
from operant.language.bank import TextBank, TextTask


class LeakError(OperantError):
    """The test set has reached the bank, the candidates or the training."""


@dataclass(frozen=True)
class TextSplit:
    """A bank, and target tasks that lie outside it.

    Args:
        bank: what may be known.
        targets: the test tasks.

    Raises:
        LeakError: if a target behaves as a task of the bank does.
    """

    bank: TextBank
    targets: tuple[TextTask, ...]

    def __post_init__(self) -> None:
        """Check that nothing leaked."""
        check_no_leak(self.bank, self.targets)


def check_no_leak(bank: TextBank, targets: Iterable[TextTask]) -> None:
    """Compare every target with every task of the bank, by behavior.

    Raises:
        LeakError: naming the first target that the bank holds.
    """
    known = {behavior: name for name, behavior in bank.behaviors.items() if bank[name].run is not None}
    shown = [task for task in bank if task.run is None]
    for target in targets:
        found = known.get(target.behavior(bank.probes)) if target.run is not None else None
        compared = shown if target.run is not None else bank.tasks
        found = found or next((t.name for t in compared if t.agrees(target, bank.probes)), None)
        if found is not None:
            raise LeakError(f"the target {target.name!r} behaves as {found!r}, a task of the bank. Remove one of them.")


def hold_out_order(tasks: Iterable[TextTask], *, order: int, probes: Sequence[str] = ()) -> TextSplit:
    """Tasks of fewer than ``order`` elements as the bank, those of exactly ``order`` as targets.

    Raises:
        DataError: if either is empty.
        LeakError: if a target behaves as a shorter task does.
    """
    tasks = list(tasks)
    known, targets = [t for t in tasks if t.order < order], [t for t in tasks if t.order == order]
    if not known or not targets:
        raise DataError(f"order {order} splits {len(tasks)} tasks into {len(known)} known and {len(targets)} targets.")
    return TextSplit(TextBank(tuple(known), tuple(probes)), tuple(targets))


def hold_out_combinations(
    bank: TextBank, combinations: Iterable[TextTask], *, share: float = 1.0, seed: int = 0
) -> TextSplit:
    """A share of the combinations as targets: each behavior once, and none that a task of the bank has.

    The bank stays as it is. A relation may teach the combinations that are not drawn, see
    :meth:`~operant.language.relations.Relation.lessons`.

    Args:
        bank: the elementary tasks.
        combinations: tasks built of them, with functions.
        share: of the distinct combinations, in (0, 1].
        seed: of the draw.
    """
    if not 0 < share <= 1:
        raise InputError(f"share must lie in (0, 1], got {share}.")
    known, groups = set(bank.behaviors.values()), dict[str, TextTask]()
    for task in combinations:
        if (behavior := task.behavior(bank.probes)) not in known:
            groups.setdefault(behavior, task)
    found = list(groups.values())
    if not found:
        raise DataError("every combination behaves as a task of the bank: nothing can be held out.")
    drawn = numpy_generator(seed, "hold out combinations").permutation(len(found))[: max(1, round(share * len(found)))]
    return TextSplit(bank, tuple(found[i] for i in sorted(drawn.tolist())))
