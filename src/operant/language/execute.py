"""Candidates made into text and outputs: known tasks run by their functions, the rest by the model, each call once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from operant.core.checks import DataError
from operant.hf.rollouts.policy import Policy
from operant.language.bank import CannotRunError, TextBank
from operant.language.relations import Candidate, KeptRun, Relation, Run
from operant.language.score import BATCH, encode_texts, generate, log_probs, tokens_of

Execute = Literal["model", "run"]


class _PendingError(Exception):
    """The output of a known task has to be generated first."""


class Executor:
    """Outputs of known tasks and of candidates.

    Args:
        bank: the known tasks.
        relation: how candidates become text.
        policy: the model.
        max_tokens: of a prompt.
        max_new_tokens: of an output.
        batch_size: rows a forward pass.
    """

    def __init__(
        self,
        bank: TextBank,
        relation: Relation,
        policy: Policy,
        *,
        max_tokens: int,
        max_new_tokens: int,
        batch_size: int = BATCH,
    ) -> None:
        self.bank, self.relation, self.policy = bank, relation, policy
        self.max_tokens, self.max_new_tokens, self.batch_size = max_tokens, max_new_tokens, batch_size
        self.failures: dict[str, str] = {}
        self._known: dict[tuple[str, str], str | None] = {}
        self._exact = KeptRun(bank)
        self._written: dict[str, str] = {}
        self._missing: dict[tuple[str, str], None] = {}
        self._cut: set[str] = set()  # prompts after which the model wrote no end: what it wrote is no output
        self._endless: set[tuple[str, str]] = set()

    def __call__(self, name: str, x: str, /) -> str:
        """The output of task ``name`` for ``x``; kept, so that a function runs once an input.

        Raises:
            CannotRunError: if its function fails, or it has none and the model writes a text that does not end.
        """
        key = (name, x)
        if key in self._endless:
            raise CannotRunError(self.failures[name])
        if key not in self._known:
            try:
                self._known[key] = self.bank[name].output(x)
            except CannotRunError as error:
                self.failures.setdefault(name, str(error))
                raise
        known = self._known[key]
        if known is None:
            self._missing[key] = None
            raise _PendingError
        return known

    def prompts(self, candidates: Sequence[Candidate], inputs: Sequence[str]) -> list[list[str | None]]:
        """The prompt of every candidate and input, (C, S); None where a step cannot be run."""
        return self._grid(candidates, inputs, self.relation.prompt)

    def prompts_of(self, pairs: Sequence[tuple[Candidate, str]]) -> list[str | None]:
        """The prompt of every (candidate, input); None where a step cannot be run."""
        return self._each(pairs, self.relation.prompt)

    def log_probs(self, candidates: Sequence[Candidate], supports: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """log p(y_i | candidate, x_i), (C, S); -inf where a step of the candidate cannot be run."""
        prompts = self.prompts(candidates, [x for x, _ in supports])
        texts = [
            (k, i, (prompt, supports[i][1]))
            for k, row in enumerate(prompts)
            for i, prompt in enumerate(row)
            if prompt is not None
        ]
        places = {text: j for j, text in enumerate(dict.fromkeys(text for _, _, text in texts))}
        rows = encode_texts(self.policy, list(places), max_tokens=self.max_tokens)
        values = log_probs(self.policy, rows).numpy()
        found = np.full((len(candidates), len(supports)), -np.inf)
        for k, i, text in texts:
            found[k, i] = values[places[text]]
        return found

    def likeliest(self, groups: Sequence[Sequence[Candidate]], supports: Sequence[tuple[str, str]]) -> list[Candidate]:
        """Of each group the candidate under which the model finds the supports likeliest; the first of equals."""
        several = [c for group in groups if len(group) > 1 for c in group]
        total = dict(zip(several, self.log_probs(several, supports).sum(1).tolist(), strict=True))
        return [max(group, key=lambda c: total.get(c, 0.0)) for group in groups]

    def tokens(self, outputs: Sequence[str]) -> NDArray[np.intp]:
        """Tokens of each output, its end among them, (S,)."""
        return np.array([len(row) + 1 for row in tokens_of(self.policy, outputs, special=False)])

    def given(self, candidates: Sequence[Candidate], supports: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Whether each candidate gives each support without the model, (C, S): 1 or 0; NaN where it cannot be run."""
        found = np.full((len(candidates), len(supports)), np.nan)
        for k, candidate in enumerate(candidates):
            for i, (x, y) in enumerate(supports):
                with suppress(CannotRunError):
                    value = self.relation.value(candidate, x, self._exact)
                    if value is not None:
                        found[k, i] = value == y
        return found

    def outputs(
        self, candidates: Sequence[Candidate], inputs: Sequence[str], *, execute: Execute
    ) -> list[list[str | None]]:
        """The output of every candidate and input, (C, S): "model" writes the last step, "run" runs it if it can."""
        found = self._grid(candidates, inputs, self._value) if execute == "run" else None
        rest = [k for k in range(len(candidates)) if found is None or None in found[k]]
        written = self._model_outputs([candidates[k] for k in rest], inputs)
        merged: list[list[str | None]] = [[] for _ in candidates] if found is None else found
        for k, row in zip(rest, written, strict=True):
            merged[k] = [a if a is not None else b for a, b in zip(merged[k] or row, row, strict=True)]
        return merged

    def write(self, prompts: Sequence[str]) -> list[str]:
        """What the model writes after each prompt.

        Raises:
            DataError: for a prompt of more than ``max_tokens`` tokens.
        """
        new = [p for p in dict.fromkeys(prompts) if p not in self._written]
        sizes = [len(row) for row in tokens_of(self.policy, new)]
        for p, size in zip(new, sizes, strict=True):
            if size > self.max_tokens:
                raise DataError(
                    f"a prompt of {size} tokens exceeds max_tokens = {self.max_tokens}: {p[:40]!r}... Texts are not "
                    "cut: raise max_tokens, or ask for shorter inputs."
                )
        limit = min(self.max_tokens, max(self.max_new_tokens, 2 * max(sizes, default=0)))  # long inputs, long outputs
        answers = generate(self.policy, new, max_new_tokens=limit, batch_size=self.batch_size)
        ends = [len(row) < limit for row in tokens_of(self.policy, answers, special=False)]
        self._written |= dict(zip(new, answers, strict=True))
        self._cut |= {p for p, end in zip(new, ends, strict=True) if not end}
        return [self._written[p] for p in prompts]

    def _value(self, candidate: Candidate, x: str, run: Run) -> str | None:
        """The output by functions and demonstrations; None if a step needs the model."""
        try:
            return self.relation.value(candidate, x, run)
        except _PendingError:
            self._missing.clear()
            return None

    def _model_outputs(self, candidates: Sequence[Candidate], inputs: Sequence[str]) -> list[list[str | None]]:
        prompts = self.prompts(candidates, inputs)
        known = [p for row in prompts for p in row if p is not None]
        answers = dict(zip(known, self.write(known), strict=True))
        return [[None if p is None or p in self._cut else answers[p] for p in row] for row in prompts]

    def _grid(
        self, candidates: Sequence[Candidate], inputs: Sequence[str], make: Callable[[Candidate, str, Run], str | None]
    ) -> list[list[str | None]]:
        found = self._each([(c, x) for c in candidates for x in inputs], make)
        size = len(inputs)
        return [found[k * size : (k + 1) * size] for k in range(len(candidates))]

    def _each(
        self, pairs: Sequence[tuple[Candidate, str]], make: Callable[[Candidate, str, Run], str | None]
    ) -> list[str | None]:
        """``make`` for every pair; what it needs of the model is generated in between, a round a step of a chain."""
        found: list[str | None] = [None] * len(pairs)
        pending = list(range(len(pairs)))
        while pending:
            again: list[int] = []
            for k in pending:
                try:
                    found[k] = make(*pairs[k], self)
                except CannotRunError:
                    found[k] = None
                except _PendingError:
                    again.append(k)
            self._generate_missing()
            pending = again
        return found

    def _generate_missing(self) -> None:
        """Run the known tasks that have no function here by the model."""
        calls, prompts = list(self._missing), list[str]()
        self._missing.clear()
        for name, x in calls:
            alone = self.relation.alone(name)
            if alone is None:
                raise DataError(
                    f"task {name!r} has no function and no demonstration of {x[:40]!r}, and "
                    f"{type(self.relation).__name__} cannot run a task by the model. Give the bank functions, or "
                    "demonstrations of these inputs."
                )
            prompts.append(self.relation.prompt(alone, x, self))
        for (name, x), prompt, y in zip(calls, prompts, self.write(prompts), strict=True):
            self._known[name, x] = y
            if prompt in self._cut:
                self._endless.add((name, x))
                text = f"task {name!r}, run by the model, wrote no end on {x[:40]!r}"
                self.failures.setdefault(name, text)
