"""Training examples of a relation; what is kept from training to calibrate likelihoods, and the verdict by it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from operant.core.checks import DataError
from operant.core.rng import numpy_generator
from operant.language.bank import CannotRunError, TextBank, TextTask
from operant.language.execute import Executor
from operant.language.relations import BankRun, Lesson, Relation

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
HALF, FEW = float(np.log(0.5)), 0.1
"""Supports are unlikely if the model gives their tokens less than 1/2 and at most a tenth of the known lessons have
less. Chosen on the demo and the string programs, where any bound between 0.4 and 0.6 refused within 6 points as many.
By the rank alone 12 of 560 parity targets that were right were refused: where the model executes exactly, all lessons
are alike. By the worst lesson alone, which it was, a third of the demo's targets or none of the other tasks were."""


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
    relation: Relation, bank: TextBank, lessons: Sequence[Lesson], *, count: int, seed: int
) -> list[tuple[str, str]]:
    """``count`` (prompt, target) pairs of random lessons and inputs, short inputs first; nothing is run by the model.

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
    rng, run = numpy_generator(seed, "examples"), BankRun(bank)
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
        y = _output(lesson, x)
        try:
            prompt = relation.prompt(lesson.candidate, x, run)
        except CannotRunError:
            prompt = None
        if y is None or prompt is None:
            failures += 1
        else:
            found.append((prompt, y))
    return found


def calibration_examples(
    bank: TextBank, lessons: Sequence[Lesson], run: Executor, *, seed: int
) -> list[list[tuple[str, str]]]:
    """Up to 8 (prompt, target) pairs of each of up to 64 lessons; every lesson that has any."""
    rng = numpy_generator(seed, "calibration")
    found: list[list[tuple[str, str]]] = []
    for i in rng.permutation(len(lessons))[:CALIBRATED].tolist():
        inputs, lesson = _inputs(lessons[i].task, bank), lessons[i]
        drawn = [inputs.draw(rng, 1.0) for _ in range(SHOWN)]
        prompts = run.prompts_of([(lesson.candidate, x) for x in drawn])
        outputs = [_output(lesson, x) for x in drawn]
        known = [(p, y) for p, y in zip(prompts, outputs, strict=True) if p is not None and y is not None]
        if known:
            found.append(known)
    return found


@dataclass(frozen=True)
class TextApplicability:
    """Whether the best candidate explains the supports as well as known tasks are explained.

    Args:
        log_p: the model's mean log-probability of a token of the supports' outputs under the best candidate, each
            support counting alike.
        p_value: (1 + lessons of the bank whose mean is not larger) / (1 + lessons); None if the bank has none to
            calibrate with.
        lessons: number of them; they were not trained on.
        lowest: the smallest of their means; -inf without any.
        given: share of the supports that the best candidate gives when it is run; None if it cannot be.
    """

    log_p: float
    p_value: float | None
    lessons: int
    lowest: float
    given: float | None = None

    @property
    def applies(self) -> bool:
        """Whether to trust the candidates.

        True if the best one gives every support when it is run. False if it gives less than half of them, if no
        candidate can be scored, and if the model finds the supports unlikely: see :attr:`likely`.
        """
        return self.given == 1 or (self.likely and (self.given is None or self.given >= 0.5))

    @property
    def token(self) -> str:
        """The geometric mean of a token's probability in words; below 1/2, how many known lessons have less."""
        if self.p_value is None or self.log_p > HALF:
            return f"{np.exp(self.log_p):.2f}"
        less = round(self.p_value * (1 + self.lessons)) - 1
        return f"{np.exp(self.log_p):.2f}; {less} of {self.lessons} known lessons have less"

    @property
    def likely(self) -> bool:
        """Whether a token's probability, geometric mean, is above 1/2, or above that of enough known lessons.

        Enough is a tenth of them. Less than nine cannot tell a tenth: then it is half of that of the worst at least.
        """
        if self.log_p == -np.inf or self.p_value is None:
            return self.log_p > -np.inf
        return self.log_p > HALF or (self.p_value > FEW and self.log_p >= self.lowest + HALF)


def _output(lesson: Lesson, x: str) -> str | None:
    """The output of the lesson's task, None if it cannot be run."""
    known = lesson.task.table.get(x)
    if known is not None:
        return known
    try:
        return lesson.task.output(x)
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
