"""Extract and verify answers. A verifier that fails is counted and reported, never a silent zero."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Literal

from operant.core.checks import InputError

Verifier = Literal["math", "exact"]
SECONDS = 10.0
"""Wall-clock limit for one completion, after which the worker is killed; math-verify's own limit is 5 s."""


@dataclass(frozen=True)
class Verdict:
    """What the verifier says of one completion.

    Args:
        reward: 1.0 correct, 0.0 wrong, None if the verifier failed.
        answer: canonical text of the extracted answer, equal for equal answers; None if there is none.
        failure: "" or what went wrong: "timeout", or the exception.
    """

    reward: float | None
    answer: str | None
    failure: str = ""


def verify(
    pairs: Sequence[tuple[str, str]], verifier: Verifier, *, processes: int = 2, seconds: float = SECONDS
) -> tuple[list[Verdict], Counter[str]]:
    """Verdicts for (target, completion) pairs, in order, and the failures by kind.

    Args:
        pairs: the correct answer and the model's text.
        verifier: "math" extracts and compares mathematically (math-verify, in a pool of processes);
            "exact" compares the stripped text.
        processes: worker processes for "math".
        seconds: wall-clock limit per completion for "math".

    Raises:
        InputError: for an unknown verifier.
    """
    if verifier == "exact":
        verdicts = [_exact(target, text) for target, text in pairs]
    elif verifier == "math":
        unique = list(dict.fromkeys(pairs))
        known = dict(zip(unique, _math_pool(unique, processes, seconds), strict=True))
        verdicts = [known[pair] for pair in pairs]
    else:
        raise InputError(f"verifier must be 'math' or 'exact', got {verifier!r}.")
    return verdicts, Counter(v.failure for v in verdicts if v.failure)


def _exact(target: str, text: str) -> Verdict:
    answer = text.strip()
    return Verdict(float(answer == target), answer or None)


def _math_pool(pairs: list[tuple[str, str]], processes: int, seconds: float) -> list[Verdict]:
    """math-verify stops itself by signal, which needs a main thread and can hang: so processes, killed late."""
    from pebble import ProcessPool

    verdicts: list[Verdict] = []
    with ProcessPool(processes, context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.schedule(_math, args=pair, timeout=seconds) for pair in pairs]
        for future in futures:
            try:
                verdicts.append(future.result())
            except FutureTimeout:
                verdicts.append(Verdict(None, None, "timeout"))
            except Exception as error:  # any failure of the verifier is a counted result
                verdicts.append(Verdict(None, None, type(error).__name__))
    return verdicts


def _math(target: str, text: str) -> Verdict:
    """Runs in a worker process."""
    import math_verify

    gold = math_verify.parse(target, raise_on_error=True) or math_verify.parse(f"${target}$", raise_on_error=True)
    if not gold:
        return _exact(target, text)
    found = math_verify.parse(text, raise_on_error=True)
    if not found:
        return Verdict(0.0, None)
    correct = bool(math_verify.verify(gold, found, raise_on_error=True))
    return Verdict(float(correct), _canonical(gold if correct else found))


def _canonical(parsed: Sequence[object]) -> str:
    """Numbers as exact rationals, so that 0.5 and 1/2 are one class; anything else as SymPy prints it."""
    import sympy

    value = parsed[0]
    if isinstance(value, sympy.Expr) and value.is_number and value.is_rational is not False:
        return str(sympy.nsimplify(value, rational=True))
    return str(value)
