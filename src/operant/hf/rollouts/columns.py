"""The values of a row as text: targets, prompts, conversations, and templates over the row's columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from operant.core.checks import DataError
from operant.verify.base import Turn, as_text

_ROLES = ("system", "developer", "user", "assistant")
# Braces of a template: an escaped one, an empty pair, a field, or a mistake.
_FIELD = re.compile(r"\{\{|\}\}|\{\}|\{([^{}]+)\}|[{}]")


def cell(row: Mapping[str, Any], path: str, where: str, hint: str) -> Any:
    """The value of a column, or of an entry inside it: "answer", "reward_model.ground_truth", "answers.0".

    A column of exactly this name comes first, dots and all.

    Raises:
        DataError: naming what there is where the path ends, and ``hint``: what to set.
    """
    value: Any = row
    names = [path] if path in row else path.split(".")
    for i, name in enumerate(names):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, (list, tuple, np.ndarray)) and re.fullmatch(r"-?\d+", name) and _inside(value, name):
            value = value[int(name)]
        else:
            found = sorted(map(str, value)) if isinstance(value, Mapping) else f"{type(value).__name__} {value!r:.60}"
            inside = f" in {'.'.join(names[:i])!r}" if i else ""
            kind = "an entry" if i else "a column"
            raise DataError(f"{where}: expected {kind} {name!r}{inside}, found {found}. {hint}")
    return value


def _inside(value: Any, index: str) -> bool:
    return -len(value) <= int(index) < len(value)


def conversation(value: Any, where: str) -> tuple[tuple[Turn, ...], str]:
    """Messages as TRL and verl write them, [{"role": ..., "content": ...}, ...]: the earlier turns, and the question.

    Content may be a list of text parts, as chat interfaces write it. A further entry that is None or empty counts as
    absent: tables fill such entries in.

    Raises:
        DataError: for anything else: another role, an image, tool calls, a last message that is not the user's.
    """
    turns = [_turn(message, f"{where}, message {i + 1}") for i, message in enumerate(value)]
    if not turns or turns[-1][0] != "user":
        got = f"the role {turns[-1][0]!r}" if turns else "no message"
        raise DataError(
            f"{where}: expected a conversation that ends with the user's question, got {got} at its end. Take the "
            "answer out of it; it belongs in data.target."
        )
    return tuple(turns[:-1]), turns[-1][1]


def _turn(message: Any, where: str) -> Turn:
    form = 'expected a message {"role": "user", "content": "..."}'
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        found = sorted(map(str, message)) if isinstance(message, Mapping) else f"{type(message).__name__}"
        raise DataError(f"{where}: {form}, found {found}.")
    said: dict[str, Any] = dict(message)
    role, content = said.pop("role"), said.pop("content")
    if role not in _ROLES:
        raise DataError(f"{where}: expected one of the roles {', '.join(_ROLES)}, got {role!r}.")
    further = [name for name, entry in said.items() if entry is not None and entry != [] and entry != ""]
    # Tool calls or images would be lost in silence.
    if further:
        raise DataError(f"{where}: {form}, and it has {further} too, which no chat template here reads.")
    if isinstance(content, (list, tuple, np.ndarray)):
        parts: list[Any] = list(content)
        if not all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in parts):
            raise DataError(f"{where}: expected text, got {parts!r:.80}. Images and other parts are not supported.")
        content = "".join(p["text"] for p in parts)
    if not isinstance(content, str):
        raise DataError(f"{where}: expected text as content, got {type(content).__name__}.")
    return role, content


def fields(template: str) -> list[str]:
    """The columns that a template names, in order.

    Raises:
        DataError: for a brace that is neither a field's nor doubled.
    """
    found: list[str] = []
    for match in _FIELD.finditer(template):
        if match.group() in ("{", "}"):
            raise DataError(
                f"data.template has a single {match.group()!r} at {template[match.start() :][:40]!r}: write "
                "a column as {column}, and double a brace that is meant as such."
            )
        if match.group(1):
            found.append(match.group(1))
    return found


def fill(template: str, values: Mapping[str, str]) -> str:
    r"""The template with the text of every field; {{ and }} become braces, {} (as in \boxed{}) stays.

    Braces in the values are left alone.
    """

    def put(match: re.Match[str]) -> str:
        return values[match.group(1)] if match.group(1) else {"{{": "{", "}}": "}"}.get(match.group(), match.group())

    return _FIELD.sub(put, template)


def texts(row: Mapping[str, Any], names: Sequence[str], where: str) -> dict[str, str]:
    """The columns of a row that a template names, as text.

    Raises:
        DataError: for a column that is not there, listing those that are.
    """
    hint = "Write {{ and }} in data.template for braces that name no column."
    return {
        name: as_text(cell(row, name, f"{where}, data.template", hint), f"{where}, {name}", "a column of data.template")
        for name in names
    }
