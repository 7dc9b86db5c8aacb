"""Verify completions. A verifier that fails is counted and reported; a failure is never scored as wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Self

from operant.core.checks import DataError, InputError, check_int
from operant.verify.base import Prompt, Verdict, clean_target
from operant.verify.grader import Verifier
from operant.verify.pool import Pool, Reply, Threads
from operant.verify.registry import VERIFIERS, actions_of, find

Map = Callable[[str, Sequence[tuple[Any, ...]]], list[Reply]]
"""Replies of an action to many tasks, in order."""


class Check:
    """A verifier at work; use it as a context manager, or close it. Made by :func:`make_verifier`."""

    def __init__(self, spec: str, run: Map, close: Callable[[], object]) -> None:
        self.spec = spec
        self.close = close
        self._run = run

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Verdict]:
        """One verdict for each prompt and completion, in order. Repeated completions of a prompt are graded once."""
        if len(prompts) != len(completions):
            raise InputError(f"expected a prompt for each completion, got {len(prompts)} and {len(completions)}.")
        # Groups of RL repeat short completions often, and grading is what takes time.
        pairs = [(_group(p), text) for p, text in zip(prompts, completions, strict=True)]
        unique = dict(zip(pairs, prompts, strict=True))
        tasks = [(p.target, text, dict(p.info)) for (_, text), p in unique.items()]
        replies = dict(zip(unique, self._run("grade", tasks), strict=True))
        verdicts = {pair: _verdict(reply) for pair, reply in replies.items()}
        leaders = self._leaders(replies)
        for pair, found in verdicts.items():
            leader = leaders.get((pair[0], found.reward, found.answer))
            verdicts[pair] = found if leader is None else replace(found, answer=leader)
        return [verdicts[pair] for pair in pairs]

    def _leaders(self, replies: Mapping[tuple[Hashable, str], Reply]) -> dict[tuple[Hashable, ...], str]:
        """(prompt, reward, answer) -> the first answer that is the same, where the texts do not settle it."""
        keys: dict[tuple[Hashable, ...], dict[str, bytes]] = defaultdict(dict)  # answer -> what stands for it
        for (group, _), (value, _) in replies.items():
            reward, answer, key = value or (None, None, None)
            if answer is not None and key is not None:
                # By reward too: an answer that is wrong must not be voted for as the right one, whatever a
                # comparison says.
                keys[group, reward].setdefault(answer, key)
        # Comparing two answers by SymPy can take as long as grading one, so equal texts are not compared.
        several = {group: answers for group, answers in keys.items() if len(answers) > 1}
        merged = self._run("merge", [(list(answers.values()),) for answers in several.values()])
        found: dict[tuple[Hashable, ...], str] = {}
        for (group, answers), (places, _) in zip(several.items(), merged, strict=True):
            names = list(answers)
            for name, place in zip(names, places or (), strict=places is not None):
                found[*group, name] = names[place]
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_verifier(spec: str, *, processes: int = 2, seconds: float | None = None) -> Check:
    """The verifier of a specification, ready to be called many times.

    ``VERIFIERS`` lists them, and what each takes for right. Failures are verdicts without a reward.

    Args:
        spec: "math", "exact", "regex:PATTERN", "code", "gym", or the dotted path of a function.
        processes: worker processes.
        seconds: limit of one completion: wall-clock time, default 10; for "code" CPU time, default 3.

    Raises:
        InputError: for an unknown specification, or a verifier that does not load.
        DataError: if its package is not installed.
    """
    found = find(spec)
    if found is None:
        forms = ", ".join(repr(v.form) for v in VERIFIERS.values())
        raise InputError(f"verifier must be one of {forms} (the dotted path of a function of yours), got {spec!r}.")
    verifier, _ = found
    need_package(verifier)
    check_int("processes", processes, least=1)
    limit = verifier.seconds if seconds is None else seconds
    if not limit > 0:
        raise InputError(f"seconds must be > 0, the limit of a completion, got {seconds!r}.")
    if verifier.workers:
        pool = Pool(spec, processes=processes, seconds=limit)
    else:
        pool = Threads(actions_of(spec, limit), threads=processes)
    return Check(spec, pool.map, pool.close)


def need_package(verifier: Verifier) -> None:
    """Refuse a verifier without its package.

    Raises:
        DataError: if it is not installed.
    """
    if verifier.needs is None:
        return
    package, extra = verifier.needs
    # Looked up and not imported: reasoning-gym takes seconds to import, and only the workers need it.
    if find_spec(package) is None:
        raise DataError(
            f"the verifier {verifier.form!r} needs the package {package.replace('_', '-')}. Install it by pip install "
            f"'operant[{extra}]'."
        )


def verify(
    pairs: Sequence[tuple[str | float, str]], verifier: str, *, processes: int = 2, seconds: float | None = None
) -> tuple[list[Verdict], Counter[str]]:
    """Verdicts for (target, completion) pairs, in order, and the failures by kind.

    Args:
        pairs: the correct answer and the model's text.
        verifier: see :func:`make_verifier`, which is for more than one call.
        processes: worker processes.
        seconds: limit per completion, see :func:`make_verifier`.

    Raises:
        InputError: for an unknown verifier.
        DataError: for a target that is neither text nor a number.
    """
    with make_verifier(verifier, processes=processes, seconds=seconds) as check:
        targets = [clean_target(target, f"pair {i + 1}") for i, (target, _) in enumerate(pairs)]
        verdicts = check([Prompt(0, "", target) for target in targets], [text for _, text in pairs])
    return verdicts, failures(verdicts)


def failures(verdicts: Sequence[Verdict]) -> Counter[str]:
    """How many verdicts failed, by kind."""
    return Counter(v.failure for v in verdicts if v.failure)


def _verdict(reply: Reply) -> Verdict:
    if reply.failure:
        return Verdict(None, None, reply.failure)
    reward, answer, _ = reply.value
    return Verdict(reward, answer, "no reward" if reward is None else "")


def _group(prompt: Prompt) -> Hashable:
    return (prompt.id, prompt.text, prompt.target)
