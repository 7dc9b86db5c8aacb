"""Verifiers as reward functions of TRL's trainers, and reward models as scores of an evaluation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from operant.core.checks import InputError
from operant.verify import Check, Prompt, clean_target

Message = Mapping[str, Any]


class VerifierReward:
    """A verifier as a reward function, with TRL's signature.

    The data set has the columns ``prompt``, ``target``, and where the verifier needs them ``id`` and ``info`` (JSON
    text). A completion that the verifier could not judge has the reward None, which TRL leaves out.

    Args:
        check: the verifier, from ``make_verifier``; whoever made it closes it.
        name: what TRL calls this reward in its log.

    Attributes:
        answers: the answers of the last call, in order, for votes; None where there is none.
        failures: how many completions could not be judged so far, by kind.
    """

    def __init__(self, check: Check, name: str = "verifier") -> None:
        self.__name__ = name
        self.check = check
        self.answers: list[str | None] = []
        self.failures: Counter[str] = Counter()

    def __call__(
        self,
        prompts: Sequence[str | Sequence[Message]],
        completions: Sequence[str | Sequence[Message]],
        *,
        target: Sequence[Any],
        id: Sequence[Any] | None = None,  # noqa: A002 - the column's name
        info: Sequence[str] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: object,
    ) -> list[float | None]:
        """The reward of every completion: a float, or None."""
        rows = [
            Prompt(
                i if id is None else id[i],
                text_of(prompt),
                clean_target(target[i], f"prompt {i + 1} of the batch, column target"),
                json.loads(info[i]) if info is not None and info[i] else {},
            )
            for i, prompt in enumerate(prompts)
        ]
        if id is None:  # equal prompts are one group, of conversations those whose turns are all equal
            rows = [replace(p, id=json.dumps(prompt)) for p, prompt in zip(rows, prompts, strict=True)]
        verdicts = self.check(rows, [text_of(c) for c in completions])
        self.answers = [v.answer for v in verdicts]
        failed = [v.failure for v in verdicts if v.failure]
        self.failures.update(failed)
        if log_metric is not None and verdicts:
            log_metric("verifier_failures", len(failed) / len(verdicts))
        return [v.reward for v in verdicts]


def text_of(message: str | Sequence[Message]) -> str:
    """The text of a prompt or completion; of a conversation, its last message.

    Raises:
        InputError: for a message that is not text.
    """
    if isinstance(message, str):
        return message
    content = message[-1].get("content") if message else None
    if not isinstance(content, str):
        raise InputError(f"expected text, or messages whose last one has a text as content, got {message!r}.")
    return content
