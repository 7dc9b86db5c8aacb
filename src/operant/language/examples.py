"""Training examples of a relation, and what is kept from training for the calibration of likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from operant.core.checks import DataError
from operant.core.rng import numpy_generator
from operant.language.bank import CannotRunError, TextBank
from operant.language.relations import Lesson, Relation, Run

CHAINED = 0.6
"""Share of examples whose anchor is not the input itself, where there are both kinds. From a sketch on the 23 string
programs, not tuned: with none, the last step never sees digits, brackets or capitals."""
KEPT = 0.1
"""Share of the lessons (of the demonstrations, for a task alone) that calibrates likelihoods and is not trained on."""
CALIBRATED = 64
"""Lessons that calibrate at most, of 8 demonstrations each: the smallest p-value is 1/65."""
SHOWN = 8


def split_lessons(lessons: Sequence[Lesson], bank: TextBank, *, seed: int) -> tuple[list[Lesson], list[Lesson]]:
    """Lessons to train on, and those for calibration.

    Of a task that is taught by an anchor and a transformation all lessons are kept or none. Of a task alone, which the
    model must know, a tenth of the demonstrations is kept.
    """
    rng = numpy_generator(seed, "lessons")
    composed = list(dict.fromkeys(x.task.name for x in lessons if x.candidate.anchor))
    size = round(KEPT * len(composed))
    kept = {composed[i] for i in rng.permutation(len(composed))[:size].tolist()}
    trained, calibrating = list[Lesson](), list[Lesson]()
    for lesson in lessons:
        if lesson.candidate.anchor:
            (calibrating if lesson.task.name in kept else trained).append(lesson)
            continue
        pairs = lesson.task.demonstrations
        size = round(KEPT * len(pairs))
        if size:
            calibrating.append(Lesson(lesson.candidate, replace(lesson.task, demonstrations=pairs[-size:])))
        trained.append(Lesson(lesson.candidate, replace(lesson.task, demonstrations=pairs[: len(pairs) - size])))
    return trained, calibrating


def draw_examples(
    relation: Relation, bank: TextBank, lessons: Sequence[Lesson], run: Run, *, count: int, seed: int
) -> list[tuple[str, str]]:
    """``count`` (prompt, target) pairs of random lessons and inputs.

    Raises:
        DataError: if there is no lesson, or none of them can be run.
    """
    kinds = [[x for x in lessons if bool(x.candidate.anchor) == chained] for chained in (False, True)]
    if not lessons:
        raise DataError(
            "the bank teaches this relation nothing: no known task is another one and a transformation. Add tasks, or "
            "take another relation."
        )
    rng = numpy_generator(seed, "examples")
    share = CHAINED if all(kinds) else float(bool(kinds[1]))
    found: list[tuple[str, str]] = []
    failures = 0
    while len(found) < count:
        if failures > 100 + 10 * len(found):
            tried = failures + len(found)
            raise DataError(f"{failures} of {tried} examples of the bank cannot be run: mend its functions.")
        kind = kinds[int(rng.random() < share)]
        lesson = kind[int(rng.integers(len(kind)))]
        example = _example(relation, lesson, bank, run, rng)
        if example is None:
            failures += 1
        else:
            found.append(example)
    return found


def calibration_examples(
    relation: Relation, bank: TextBank, lessons: Sequence[Lesson], run: Run, *, seed: int
) -> list[list[tuple[str, str]]]:
    """Up to 8 (prompt, target) pairs of each of up to 64 lessons; every lesson that has any."""
    rng = numpy_generator(seed, "calibration")
    found: list[list[tuple[str, str]]] = []
    for i in rng.permutation(len(lessons))[:CALIBRATED].tolist():
        drawn = (_example(relation, lessons[i], bank, run, rng) for _ in range(SHOWN))
        if pairs := [pair for pair in drawn if pair is not None]:
            found.append(pairs)
    return found


def _example(
    relation: Relation, lesson: Lesson, bank: TextBank, run: Run, rng: np.random.Generator
) -> tuple[str, str] | None:
    """A random demonstration as prompt and target, None if it cannot be run.

    A task without demonstrations gives its output for a random input of the bank.
    """
    pairs = lesson.task.demonstrations
    try:
        if pairs:
            x, y = pairs[int(rng.integers(len(pairs)))]
        else:
            x = bank.inputs[int(rng.integers(len(bank.inputs)))]
            y = lesson.task.output(x)
        return None if y is None else (relation.prompt(lesson.candidate, x, run), y)
    except CannotRunError:
        return None
