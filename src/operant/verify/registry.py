"""Extract and verify answers. A verifier that fails is counted and reported, never a silent zero."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Self

from operant.core.checks import InputError
from operant.verify.base import Prompt, Verdict, clean_target
from operant.verify.gym import need_gym
from operant.verify.pool import Pool

Verifier = str
"""A verifier as it is written in a configuration; see :func:`make_verifier`."""
SECONDS = 10.0
"""Wall-clock limit for one completion, after which the worker is killed; math-verify's own limit is 5 s."""


Judge = Callable[[Sequence[Prompt], Sequence[str]], list[Verdict]]


class Check:
    """A verifier at work; use it as a context manager, or close it. Made by :func:`make_verifier`."""

    def __init__(self, spec: str, judge: Judge, close: Callable[[], object]) -> None:
        self.spec = spec
        self.close = close
        self._judge = judge

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Verdict]:
        """One verdict for each prompt and completion, in order. Repeated completions of a prompt are judged once."""
        if len(prompts) != len(completions):
            raise InputError(f"expected a prompt for each completion, got {len(prompts)} and {len(completions)}.")
        pairs = [(_group(p), text) for p, text in zip(prompts, completions, strict=True)]
        unique = dict(zip(pairs, prompts, strict=True))
        found = dict(zip(unique, self._judge(list(unique.values()), [text for _, text in unique]), strict=True))
        return [found[pair] for pair in pairs]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_verifier(spec: str, *, processes: int = 2, seconds: float | None = None) -> Check:
    r"""The verifier of a specification, ready to be called many times.

    | spec | right is | answer for votes |
    |---|---|---|
    | math | the target's answer (see operant.verify.answers) | the value: 1/2, 0.5 and \frac12 are one |
    | exact | the target's text, stripped | the text |
    | regex:PATTERN | the one group of the last match is the target's text | that group |
    | code | the prompt's tests pass (HumanEval's form; see operant.verify.code) | none |
    | gym | the score of the reasoning-gym generator is 1.0 | the text in the last <answer> tag, or all |
    | package.module.function | f(completion, target, **info) -> bool, float, None or (reward, answer) | answer |

    All but "exact" run in processes that live until the verifier is closed. Failures are verdicts without a reward.

    Args:
        spec: one of the above.
        processes: worker processes.
        seconds: limit of one completion: wall-clock time, default 10; for "code" CPU time, default 3.

    Raises:
        InputError: for an unknown specification, a pattern without exactly one group, or a function that does not load.
    """
    if spec == "exact":
        return Check(spec, _exact, lambda: None)
    if spec == "code":
        from operant.verify import code

        runner = code.CodeRunner(processes=processes, seconds=code.SECONDS if seconds is None else seconds)
        return Check(spec, runner, lambda: None)
    if spec.startswith("regex:"):
        _check_pattern(spec.removeprefix("regex:"))
    elif spec not in ("math", "gym") and not re.fullmatch(r"\w+(\.\w+)*[.:]\w+", spec):
        raise InputError(
            "verifier must be 'math', 'exact', 'regex:PATTERN', 'code', 'gym' or the dotted path of a function "
            f"(package.module.function), got {spec!r}."
        )
    if spec == "gym":
        need_gym()
    pool = Pool(spec, processes=processes, seconds=SECONDS if seconds is None else seconds)
    return Check(spec, _Pooled(pool), pool.close)


def verify(
    pairs: Sequence[tuple[str | float, str]], verifier: Verifier, *, processes: int = 2, seconds: float | None = None
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


def _exact(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Verdict]:
    texts = [text.strip() for text in completions]
    return [Verdict(float(text == p.target.strip()), text or None) for p, text in zip(prompts, texts, strict=True)]


class _Pooled:
    """A judge in worker processes; answers whose text differs and whose value may not are compared there too."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Verdict]:
        tasks = [(p.target, text, dict(p.info)) for p, text in zip(prompts, completions, strict=True)]
        verdicts: list[Verdict] = []
        keys: dict[Hashable, dict[str, bytes]] = defaultdict(dict)  # prompt, reward -> answer -> what stands for it
        for p, (value, failure) in zip(prompts, self._pool.map("judge", tasks), strict=True):
            reward, answer, key = value or (None, None, None)
            verdicts.append(Verdict(reward, answer, failure or ("no reward" if reward is None else "")))
            if answer is not None and key is not None:
                keys[_group(p), reward].setdefault(answer, key)
        several = {group: answers for group, answers in keys.items() if len(answers) > 1}
        replies = self._pool.map("merge", [(list(answers.values()),) for answers in several.values()])
        same: dict[tuple[Hashable, str | None], str] = {}
        for (group, answers), (leaders, _) in zip(several.items(), replies, strict=True):
            names = list(answers)
            for name, leader in zip(names, leaders or (), strict=leaders is not None):
                same[group, name] = names[leader]
        return [
            replace(v, answer=same.get(((_group(p), v.reward), v.answer), v.answer))
            for p, v in zip(prompts, verdicts, strict=True)
        ]


def _group(prompt: Prompt) -> Hashable:
    return (prompt.id, prompt.text, prompt.target)


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise InputError(f"verifier regex:{pattern}: {error}. Give a regular expression of Python's re.") from error
    if groups != 1:
        raise InputError(f"verifier regex:{pattern} has {groups} groups; give one, around the answer: 'answer: (.+)'.")
