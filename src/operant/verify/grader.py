"""What a verifier is: a grader and its declaration. Workers load this file without operant: standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Grade = tuple[float | None, str | None, bytes | None]
Grader = Callable[[str, str, Mapping[str, Any]], Grade]
"""(target, completion, info) -> (reward, answer, key).

The answer stands for the completion in votes. Two answers of a prompt whose texts differ may still be the same: then
the verifier's action "merge" compares their keys. A key of None says that the text settles it.
"""


class Failed(Exception):
    """Raised by a grader that cannot say anything of a completion; its text is the kind of failure."""


@dataclass(frozen=True)
class Verifier:
    """The declaration of a verifier.

    Args:
        form: how a configuration writes it: "math", or "regex:PATTERN", whose argument follows the colon.
        right: what it takes for right, for the table in the documentation.
        vote: the answer that stands for a completion in a vote, likewise.
        make: from its argument and the limit in seconds, its grader.
        workers: whether the grader runs in worker processes. Otherwise it runs in threads of the caller.
        seconds: default limit of one completion, by the clock.
        needs: a package, and the extra of operant that installs it.
        actions: what else the workers do. "merge" maps keys to the position of the first one that is the same answer.
    """

    form: str
    right: str
    vote: str
    make: Callable[[str, float], Grader]
    workers: bool = True
    seconds: float = 10.0
    needs: tuple[str, str] | None = None
    actions: Mapping[str, Callable[..., Any]] = field(default_factory=dict[str, Callable[..., Any]])

    @property
    def name(self) -> str:
        """What its specifications begin with: "math", "regex:"."""
        name, colon, _ = self.form.partition(":")
        return name + colon


def failure_of(error: BaseException) -> str:
    """The kind of a failure: what a grader says, or the name of the exception."""
    name = type(error).__name__
    return str(error) if isinstance(error, Failed) else {"TimeoutException": "timeout"}.get(name, name)  # math-verify's
