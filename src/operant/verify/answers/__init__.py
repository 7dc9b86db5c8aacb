"""The verifier "math": the final answer of a completion against a target that is one answer.

A target is read as a whole: it is never searched for a number. A completion is searched for its final answer, which is
then read as a whole too. Workers import this package without operant, so it imports nothing of operant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .clean import clean, key
from .mine import is_answer, marks_an_answer, mine
from .read import Answer, Named, Text, Value, read
from .same import rational, same


def grade(target: str, text: str, info: Mapping[str, Any]) -> tuple[float, str | None, bytes | None]:
    """Reward, answer, and the key of the answer. A right answer takes the target's canonical text."""
    gold = _gold_of(target)
    found = mine(text)
    if not found and isinstance(gold, Text) and text.strip():
        found = [text]
    # A short completion may be the answer as a whole; cleaning a long one as an answer would cost time in vain.
    whole = [text] if len(text) <= 4 * len(target) + 100 else []
    right = text.strip() == target.strip() or any(key(clean(part)) == gold.text for part in (*whole, *found))
    if right or (found and same(gold, read(found[0]))):
        return 1.0, _canonical(gold), _key(gold, target)
    if not found:
        return 0.0, None, None
    answer = read(found[0])
    name = _canonical(answer)
    if name == _canonical(gold):  # another name or unit: a wrong answer must not share the right one's class
        return 0.0, answer.text, None
    return 0.0, name, _key(answer, found[0])


# A prompt's target is read once for its many completions.
@lru_cache(4096)
def _gold_of(target: str) -> Answer:
    """The target as an answer. A whole solution counts by the answer that it marks: a box, ####, "the answer is"."""
    if is_answer(target):
        return read(target)
    marked = mine(target) if marks_an_answer(target) else []
    return read(marked[0]) if marked else Text(key(clean(target)))


def merge(keys: Sequence[bytes]) -> list[int]:
    """For each answer, the position of the first one that equals it."""
    answers = [read(key.decode()) for key in keys]
    leaders: list[int] = []
    found: list[int] = []
    for i, answer in enumerate(answers):
        found.append(next((j for j in leaders if same(answers[j], answer)), i))
        if found[i] == i:
            leaders.append(i)
    return found


def _canonical(answer: Answer) -> str:
    """The answer's text. A rational number is written as a fraction, so that 0.5 and 1/2 have one text."""
    if isinstance(answer, Named):
        return _canonical(answer.value)
    value = rational(answer) if isinstance(answer, Value) else None
    return answer.text if value is None else str(value)


def _key(answer: Answer, source: str) -> bytes | None:
    """What :func:`merge` compares, or None where the canonical text settles it."""
    while isinstance(answer, Named):
        answer = answer.value
    settled = isinstance(answer, Text) or (isinstance(answer, Value) and rational(answer) is not None)
    return None if settled else source.encode()
