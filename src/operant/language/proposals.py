"""What a proposer reads and writes: supports as a prompt, candidates as text, lessons, and which candidates explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from operant.core.checks import DataError
from operant.core.rng import numpy_generator
from operant.language.bank import CannotRunError, TextBank, TextTask
from operant.language.relations import BankRun, Candidate, KeptRun, Lesson, Relation

Support = tuple[str, str]
DRAWS = 20
"""Draws of inputs for a support set, per support, after which a lesson is taken as one that cannot be run."""


def render_supports(supports: Sequence[Support]) -> str:
    """The prompt: a line a support, input, tab, output."""
    return "".join(f"{x}\t{y}\n" for x, y in supports)


def render_candidate(candidate: Candidate) -> str:
    """The target: the names of the steps in angle brackets, the last step first.

    The last step shows in the outputs; what is before it can be read once it is known. In this order a model of two
    layers reached in 200 steps of 32, on chains of three string programs, 18.6 % right among 64 draws; with the first
    step first 14.7 %.

    >>> render_candidate(Candidate(("reverse", "upper")))
    '<upper><reverse>'
    """
    return "".join(f"<{name}>" for name in reversed(candidate.steps))


def parse_candidate(text: str) -> Candidate | None:
    """The candidate that a text renders; None if it renders none.

    >>> parse_candidate("<upper><reverse>"), parse_candidate("reverse it")
    (Candidate(steps=('reverse', 'upper')), None)
    """
    text = text.strip()
    if len(text) < 2 or text[0] != "<" or text[-1] != ">":
        return None
    return Candidate(tuple(reversed(text[1:-1].split("><"))))


def check_names(bank: TextBank) -> None:
    """Refuse names that cannot be told apart once they are rendered.

    Raises:
        DataError: for a name with "><" or a line break.
    """
    for task in bank:
        if "><" in task.name or "\n" in task.name:
            raise DataError(
                f"a proposer writes the names of tasks: {task.name!r} must hold neither '><' nor a newline."
            )


def proposer_lessons(
    relation: Relation, bank: TextBank, candidates: Sequence[Candidate], held_out: Sequence[TextTask] = ()
) -> list[Lesson]:
    """Candidates with the tasks that they equal: all that functions can run, and the relation's lessons of the others.

    Of candidates that behave alike the relation names one, and a proposer learns that one. None of them behaves as a
    held-out task.

    Raises:
        DataError: if there is none.
    """
    run, forbidden = KeptRun(bank), {task.behavior(bank.probes) for task in held_out if task.run is not None}
    found: list[Lesson] = []
    for candidate in candidates:
        task = TextTask(str(candidate), (), _function(relation, candidate, run))
        if _runs(task, bank) and task.behavior(bank.probes) not in forbidden:
            found.append(Lesson(candidate, task))
    for lesson in relation.lessons(bank, held_out):
        if not _runs(TextTask("", (), _function(relation, lesson.candidate, run)), bank):
            found.append(lesson)
    if not found:
        raise DataError(
            "the bank teaches a proposer nothing: no known task is a candidate, and none can be run. Add tasks or "
            "functions."
        )
    return found


def draw_supports(lesson: Lesson, bank: TextBank, size: int, rng: np.random.Generator) -> tuple[Support, ...] | None:
    """``size`` random demonstrations of a lesson, or as many as it has; None if it cannot be run."""
    pairs = lesson.task.demonstrations
    if pairs:
        return tuple(pairs[i] for i in rng.permutation(len(pairs))[:size].tolist())
    found: dict[str, str] = {}
    for _ in range(DRAWS * size):
        x = bank.inputs[int(rng.integers(len(bank.inputs)))]
        try:
            y = lesson.task.output(x)
        except CannotRunError:
            continue
        if y is not None:
            found[x] = y
        if len(found) == min(size, len(bank.inputs)):
            break
    return tuple(found.items()) or None


def draw_proposals(
    lessons: Sequence[Lesson], bank: TextBank, *, count: int, shown: tuple[int, int], seed: int
) -> list[tuple[tuple[Support, ...], Candidate]]:
    """``count`` support sets of random lessons, with the candidate that each shows.

    Args:
        lessons: every one is as likely.
        bank: whose inputs the lessons without demonstrations are run on.
        count: of examples.
        shown: smallest and largest number of supports.
        seed: of the draw.

    Raises:
        DataError: if most lessons cannot be run.
    """
    rng, found, failures = numpy_generator(seed, "proposals"), list[tuple[tuple[Support, ...], Candidate]](), 0
    while len(found) < count:
        lesson = lessons[int(rng.integers(len(lessons)))]
        supports = draw_supports(lesson, bank, int(rng.integers(shown[0], shown[1] + 1)), rng)
        if supports is not None:
            found.append((supports, lesson.candidate))
        elif (failures := failures + 1) > 100 + 10 * len(found):
            raise DataError(f"{failures} of {failures + len(found)} lessons cannot be run: mend the bank's functions.")
    return found


def explains(relation: Relation, bank: TextBank, candidate: Candidate, supports: Sequence[Support]) -> bool | None:
    """Whether the candidate, run by the bank's functions, gives every support's output; None if it cannot be run.

    A candidate whose function fails on a support does not explain it.
    """
    run = BankRun(bank)
    for x, y in supports:
        try:
            value = relation.value(candidate, x, run)
        except CannotRunError:
            if any(bank[name].run is None for name in candidate.steps):
                return None
            return False
        if value is None:
            return None
        if value != y:
            return False
    return True


def _function(relation: Relation, candidate: Candidate, run: BankRun) -> Callable[[str], str]:
    return lambda x: relation.value(candidate, x, run)  # pyright: ignore[reportReturnType]  # checked in output()


def _runs(task: TextTask, bank: TextBank) -> bool:
    """Whether functions run it on a probe at least."""
    for x in bank.probes:
        try:
            return task.output(x) is not None
        except CannotRunError:
            continue
    return False
