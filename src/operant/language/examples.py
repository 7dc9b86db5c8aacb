"""Training examples of a relation, and what is kept from training for the calibration of likelihoods."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from operant.core.checks import DataError
from operant.core.rng import numpy_generator
from operant.language.bank import CannotRunError, TextBank, TextTask
from operant.language.relations import Lesson, Relation, Run

CHAINED = 0.8
"""Share of examples whose anchor is not the input itself, where there are both kinds. Not tuned: a target is a chain,
and with none of them the last step never sees digits, brackets or capitals."""
RAMP = 0.5
"""Share of the examples in which inputs grow from the shortest to all of them. On the string programs, with words of 2
to 14 letters, Muon and width 96, 85 % of the tokens were right after 105 CPU seconds; in random order, with AdamW and
width 128, after 500. Muon's share of it: a third of the steps."""
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
    """``count`` (prompt, target) pairs of random lessons and inputs, short inputs first.

    Example i takes an input among the shortest i / (RAMP count) of its lesson.

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
    inputs: dict[str, _Inputs] = {}
    failures = 0
    while len(found) < count:
        if failures > 100 + 10 * len(found):
            tried = failures + len(found)
            raise DataError(f"{failures} of {tried} examples of the bank cannot be run: mend its functions.")
        kind = kinds[int(rng.random() < share)]
        lesson = kind[int(rng.integers(len(kind)))]
        if lesson.task.name not in inputs:
            inputs[lesson.task.name] = _inputs(lesson.task, bank)
        x = inputs[lesson.task.name].draw(rng, min(1.0, (len(found) + 1) / (RAMP * count)))
        if (example := _example(relation, lesson, x, run)) is None:
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
        inputs = _inputs(lessons[i].task, bank)
        drawn = (_example(relation, lessons[i], inputs.draw(rng, 1.0), run) for _ in range(SHOWN))
        if pairs := [pair for pair in drawn if pair is not None]:
            found.append(pairs)
    return found


def _example(relation: Relation, lesson: Lesson, x: str, run: Run) -> tuple[str, str] | None:
    """The lesson's output for ``x`` as prompt and target, None if it cannot be run."""
    known = lesson.task.table.get(x)
    try:
        y = lesson.task.output(x) if known is None else known
        return None if y is None else (relation.prompt(lesson.candidate, x, run), y)
    except CannotRunError:
        return None


@dataclass(frozen=True)
class _Inputs:
    """A task's inputs, shortest first, and their lengths."""

    texts: tuple[str, ...]
    lengths: tuple[int, ...]

    def draw(self, rng: np.random.Generator, share: float) -> str:
        """A random one of the shortest ``share``, and of those that are as long as the longest of them."""
        longest = self.lengths[ceil(share * len(self.lengths)) - 1]
        return self.texts[int(rng.integers(bisect_right(self.lengths, longest)))]


def _inputs(task: TextTask, bank: TextBank) -> _Inputs:
    """Inputs of its demonstrations; those of the bank for a task without any."""
    texts = sorted((x for x, _ in task.demonstrations) if task.demonstrations else bank.inputs, key=len)
    return _Inputs(tuple(texts), tuple(map(len, texts)))
