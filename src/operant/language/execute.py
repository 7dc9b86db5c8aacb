"""Candidates made into text and outputs: known tasks run by their functions, the rest by the model, each call once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from operant.core.checks import DataError
from operant.hf.rollouts.policy import Policy
from operant.language.bank import CannotRunError, TextBank
from operant.language.relations import Candidate, Relation, Run
from operant.language.score import BATCH, generate

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
        self._written: dict[str, str] = {}
        self._missing: dict[tuple[str, str], None] = {}

    def __call__(self, name: str, x: str, /) -> str:
        """The output of task ``name`` for ``x``; kept, so that a function runs once an input.

        Raises:
            CannotRunError: if its function fails, or it has none and the relation cannot run it by the model.
        """
        key = (name, x)
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
        return self._each(candidates, inputs, self.relation.prompt)

    def outputs(
        self, candidates: Sequence[Candidate], inputs: Sequence[str], *, execute: Execute
    ) -> list[list[str | None]]:
        """The output of every candidate and input, (C, S): "model" writes the last step, "run" runs it if it can."""
        found = self._each(candidates, inputs, self._value) if execute == "run" else None
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
        for p in new:
            if (size := len(self.policy.tokenizer(p)["input_ids"])) > self.max_tokens:
                raise DataError(
                    f"a prompt of {size} tokens exceeds max_tokens = {self.max_tokens}: {p[:40]!r}... Texts are not "
                    "cut: raise max_tokens, or ask for shorter inputs."
                )
        answers = generate(self.policy, new, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
        self._written |= dict(zip(new, answers, strict=True))
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
        return [[None if p is None else answers[p] for p in row] for row in prompts]

    def _each(
        self,
        candidates: Sequence[Candidate],
        inputs: Sequence[str],
        make: Callable[[Candidate, str, Run], str | None],
    ) -> list[list[str | None]]:
        """``make`` for every pair; what it needs of the model is generated in between, a round a step of a chain."""
        found: list[list[str | None]] = [[None] * len(inputs) for _ in candidates]
        pending = [(k, i) for k in range(len(candidates)) for i in range(len(inputs))]
        while pending:
            again: list[tuple[int, int]] = []
            for k, i in pending:
                try:
                    found[k][i] = make(candidates[k], inputs[i], self)
                except CannotRunError:
                    found[k][i] = None
                except _PendingError:
                    again.append((k, i))
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
        self._known |= dict(zip(calls, self.write(prompts), strict=True)) if calls else {}
