"""Prompts for a tokenizer: as texts or conversations, as tokens, and the token that ends an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from jinja2 import TemplateError

from operant.core.checks import DataError
from operant.hf.rollouts.prompts import DataConfig
from operant.verify import Prompt

Messages = list[dict[str, str]]


def is_chat(tokenizer: Any, data: DataConfig) -> bool:
    """Whether prompts go through the tokenizer's chat template.

    Raises:
        DataError: if it is asked for and there is none.
    """
    if data.chat and not tokenizer.chat_template:
        raise DataError("data.chat is true, but the tokenizer has no chat template: leave data.chat out, or set one.")
    return bool(tokenizer.chat_template) if data.chat is None else data.chat


def asked(prompts: Sequence[Prompt], *, chat: bool) -> list[str] | list[Messages]:
    """Prompts as TRL and reward models take them: texts, or conversations for a chat template.

    Raises:
        DataError: for earlier turns without a chat template.
    """
    if chat:
        return [[{"role": role, "content": text} for role, text in p.asked] for p in prompts]
    for p in prompts:
        if p.history:
            roles = ", ".join(role for role, _ in p.asked)
            raise DataError(
                f"the prompt {p.text[:60]!r} is a conversation ({roles}), which only a chat template can write. Take a "
                "model whose tokenizer has one and leave data.chat out, or name one message, as in --data.prompt "
                "prompt.1.content."
            )
    return [p.text for p in prompts]


def answers(texts: Sequence[str], *, chat: bool) -> list[str] | list[Messages]:
    """Completions in the form of :func:`asked`."""
    return [[{"role": "assistant", "content": text}] for text in texts] if chat else list(texts)


def prompt_tokens(tokenizer: Any, prompt: str | Messages) -> list[int]:
    """Tokens of a prompt as TRL makes them: a chat template writes its special tokens itself.

    Raises:
        DataError: if the chat template refuses the conversation.
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    return tokenizer(_rendered(tokenizer, prompt, add_generation_prompt=True), add_special_tokens=False)["input_ids"]


def _rendered(tokenizer: Any, messages: Messages, **settings: Any) -> str:
    """The text of a conversation by the tokenizer's chat template.

    Raises:
        DataError: if the chat template refuses it; some know no system prompt.
    """
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **settings)
    except TemplateError as error:
        roles = ", ".join(m["role"] for m in messages)
        raise DataError(
            f"the tokenizer's chat template refuses a conversation of {roles}: {error}. Take out the message that it "
            "does not know, or put its text into data.template."
        ) from error


def end_of_turn(tokenizer: Any, ends: Collection[int]) -> int:
    """The token that the chat template puts after an answer, if generation ends there; else the tokenizer's own end.

    Args:
        tokenizer: with a chat template.
        ends: the tokens at which generation ends.
    """
    answer = "17 apples"  # any text that no chat template contains
    # The template is run on a made-up exchange: what it writes after the answer ends a turn.
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": answer}]
    after = _rendered(tokenizer, turns).rpartition(answer)[2]
    tokens: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]
    return next((t for t in tokens if t in ends), int(tokenizer.eos_token_id))
