"""Every verifier: a function that makes its grader, beside its declaration.

Worker processes load this file without the rest of operant, whose import would load torch. So it imports the standard
library and its neighbors by relative paths, and what a grader needs inside the function that makes it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .grader import Grade, Grader, Verifier

DOTTED = re.compile(r"\w+(\.\w+)*[.:]\w+")
"""The path of a function: package.module.function or package.module:function."""
_FUNCTION = "package.module.function"
# Address space of a worker for "math": SymPy may try to build 9^9^9^9.
_MATH_BYTES = 4 << 30


VERIFIERS: dict[str, Verifier] = {}
"""Every verifier by its name."""


def register(verifier: Verifier) -> None:
    """Add a verifier.

    Raises:
        ValueError: if there is one of this name.
    """
    if verifier.name in VERIFIERS:
        raise ValueError(f"there is a verifier {verifier.name!r} already")
    VERIFIERS[verifier.name] = verifier


def find(spec: str) -> tuple[Verifier, str] | None:
    """The verifier that a specification names, and its argument; None if it names none."""
    name, colon, argument = spec.partition(":")
    # "math:f" is the function f of a module math, as the form of a dotted path says.
    if name + colon in VERIFIERS and (argument or not colon):
        return VERIFIERS[name + colon], argument
    return (VERIFIERS[_FUNCTION], spec) if DOTTED.fullmatch(spec) else None


def actions_of(spec: str, seconds: float) -> dict[str, Callable[..., Any]]:
    """What the workers of a verifier do: "grade", and its further actions."""
    found = find(spec)
    assert found is not None, spec  # make_verifier has looked
    verifier, argument = found
    return {"grade": verifier.make(argument, seconds), **verifier.actions}


def load_function(path: str) -> Callable[..., Any]:
    """What a dotted path names: "package.module.function" or "package.module:function".

    Raises:
        ValueError, TypeError: for a text of another form, and a path that names no function.
        ImportError, AttributeError: if it does not load.
    """
    if not DOTTED.fullmatch(path):
        raise ValueError(f"expected {_FUNCTION}, got {path!r}")
    module, _, name = path.rpartition(":" if ":" in path else ".")
    function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise TypeError(f"{path} is a {type(function).__name__}, not a function")
    return function


def _math(argument: str, seconds: float) -> Grader:
    import resource

    from .answers import grade

    grade("1/x", r"\boxed{\frac{1}{x}}", {})  # SymPy and the grammar load now, not within the limit of the first task
    if sys.platform != "darwin":  # macOS refuses any limit of the address space; the time limit remains
        resource.setrlimit(resource.RLIMIT_AS, (_MATH_BYTES, _MATH_BYTES))
    return grade


def _merge_math(keys: Sequence[bytes]) -> list[int]:
    from .answers import merge

    return merge(keys)


register(
    Verifier(
        form="math",
        right="the target's answer, by value (see operant.verify.answers)",
        vote=r"the value: 1/2, 0.5 and \frac12 are one",
        make=_math,
        actions={"merge": _merge_math},
    )
)


def _exact(argument: str, seconds: float) -> Grader:
    def grade(target: str, text: str, info: Mapping[str, Any]) -> Grade:
        answer = text.strip()
        return float(answer == target.strip()), answer or None, None

    return grade


register(
    Verifier(
        form="exact",
        right="the target's text, without white space around it",
        vote="the text",
        make=_exact,
        workers=False,
    )
)


def _regex(argument: str, seconds: float) -> Grader:
    pattern = re.compile(argument)
    if pattern.groups != 1:
        raise ValueError(f"the pattern has {pattern.groups} groups; give one, around the answer: 'answer: (.+)'")

    def grade(target: str, text: str, info: Mapping[str, Any]) -> Grade:
        # The last match: models state intermediate results before the answer.
        found = [match.group(1) for match in pattern.finditer(text)]
        if not found or found[-1] is None:
            return 0.0, None, None
        answer = found[-1].strip()
        return float(answer == target.strip()), answer or None, None

    return grade


register(
    Verifier(
        form="regex:PATTERN",
        right="the one group of the last match is the target's text",
        vote="that group",
        make=_regex,
    )
)


def _code(argument: str, seconds: float) -> Grader:
    from .code import CodeRunner

    return CodeRunner(seconds=seconds).grade


register(
    Verifier(
        form="code",
        right="the prompt's unit tests pass (HumanEval's form; see operant.verify.code)",
        vote="none",
        make=_code,
        workers=False,  # each program has a process of its own already
        seconds=3.0,  # of CPU time, as in Chen et al. 2021
    )
)


def _gym(argument: str, seconds: float) -> Grader:
    import reasoning_gym  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]

    from .entries import grade

    return grade


def _draw(arguments: Mapping[str, Any]) -> list[dict[str, Any]] | str:
    from .entries import draw

    return draw(arguments)


register(
    Verifier(
        form="gym",
        right="the score of the reasoning-gym generator is 1.0",
        vote="the text in the last <answer> tag, or all",
        make=_gym,
        needs=("reasoning_gym", "gym"),
        actions={"draw": _draw},
    )
)


def _function(argument: str, seconds: float) -> Grader:
    function = load_function(argument)
    # A function gets the columns that it names: most need none, and data sets have many.
    parameters = inspect.signature(function).parameters.values()
    takes = None if any(p.kind is p.VAR_KEYWORD for p in parameters) else {p.name for p in parameters}
    return functools.partial(_grade_by, function, takes)


def _grade_by(
    function: Callable[..., Any], takes: set[str] | None, target: str, text: str, info: Mapping[str, Any]
) -> Grade:
    """What a user's function returns: a reward, or a reward and the answer. It gets the columns that it takes."""
    found = function(text, target, **{k: v for k, v in info.items() if takes is None or k in takes})
    reward, answer = found if isinstance(found, tuple) else (found, None)
    if reward is not None:
        reward = float(reward)
        if not math.isfinite(reward):
            raise ValueError("the reward is not finite")
    return reward, None if answer is None else str(answer), None


register(
    Verifier(
        form=_FUNCTION,
        right="f(completion, target, **info) returns bool, float, None or (reward, answer)",
        vote="answer",
        make=_function,
    )
)
