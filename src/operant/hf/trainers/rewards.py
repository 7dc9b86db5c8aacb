"""Verifiers as reward functions of TRL's trainers, and rewards that carry the answer that a vote counts."""

from __future__ import annotations

import functools
import inspect
import json
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch

from operant.core.checks import ConfigError, InputError
from operant.verify import Check, Prompt, clean_target

_Message = Mapping[str, Any]


class AnsweredReward(float):
    """A reward with the answer of its completion, for votes. TRL's trainers read it as a plain number.

    Args:
        reward: reward of the completion.
        answer: the answer that a vote counts; None if the completion has none.

    >>> AnsweredReward(1.0, "42") + 1, AnsweredReward(1.0, "42").answer
    (2.0, '42')
    """

    answer: Any

    def __new__(cls, reward: float, answer: Any) -> Self:
        """A float with one attribute more."""
        self = super().__new__(cls, reward)
        self.answer = answer
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """For copies and pickles."""
        return float(self), self.answer


class VerifierReward:
    """A verifier as a reward function, with TRL's signature.

    The data set has the columns ``prompt``, ``target``, and where the verifier needs them ``id`` and ``info`` (JSON
    text). A completion that the verifier could not judge has the reward None, which TRL leaves out.

    Args:
        check: the verifier, from ``make_verifier``; the caller closes it.
        name: what TRL calls this reward in its log.

    Attributes:
        failures: how many completions could not be judged so far, by kind.
    """

    equivalent = staticmethod(operator.eq)  # verifiers give equivalent answers of a prompt the same text

    def __init__(self, check: Check, name: str = "verifier") -> None:
        self.__name__ = name
        self.check = check
        self.failures: Counter[str] = Counter()

    def __call__(
        self,
        prompts: Sequence[str | Sequence[_Message]],
        completions: Sequence[str | Sequence[_Message]],
        *,
        target: Sequence[Any],
        id: Sequence[Any] | None = None,  # noqa: A002 - the column's name
        info: Sequence[str] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **_: object,
    ) -> list[AnsweredReward | None]:
        """The reward and the answer of every completion; None for one that could not be judged."""
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
        verdicts = self.check(rows, [answer_of(c) for c in completions])
        failed = [v.failure for v in verdicts if v.failure]
        self.failures.update(failed)
        if log_metric is not None and verdicts:
            log_metric("verifier_failures", len(failed) / len(verdicts))
        return [None if v.reward is None else AnsweredReward(v.reward, v.answer) for v in verdicts]


def reporting(function: Callable[..., Any], report: Callable[[list[Any]], None]) -> Callable[..., Any]:
    """The reward function ``function``, whose every result is also passed to ``report``.

    TRL turns the result into a tensor at once, which would lose the answers.
    """

    def told(rewards: list[Any]) -> list[Any]:
        report(rewards)
        return rewards

    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004

        @functools.wraps(function)
        async def later(*args: Any, **kwargs: Any) -> list[Any]:
            return told(await function(*args, **kwargs))

        return later

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> list[Any]:
        return told(function(*args, **kwargs))

    return wrapped


def without_answers(functions: Sequence[Any]) -> list[Any]:
    """Reward functions without answers: one that returns some all the same is refused, because they would be lost."""

    def refuse(rewards: list[Any]) -> None:
        if any(isinstance(reward, AnsweredReward) for reward in rewards):
            raise ConfigError(
                "the reward function returns AnsweredReward, but has no attribute `equivalent`, which says when two "
                "answers are one vote. Set it before the trainer is built: function.equivalent = operator.eq."
            )

    return [f if isinstance(f, torch.nn.Module) else reporting(f, refuse) for f in functions]


def answer_of(completion: str | Sequence[_Message]) -> str:
    """The text that the model ends with. A conversation that ends with a tool call or its result has no answer."""
    last = {} if isinstance(completion, str) or not completion else completion[-1]
    if last.get("role") == "tool":
        return ""
    if last.get("tool_calls"):
        return last.get("content") or ""
    return text_of(completion)


def text_of(message: str | Sequence[_Message]) -> str:
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
