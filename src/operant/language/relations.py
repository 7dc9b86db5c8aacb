"""Relations: how a task outside the bank follows from an anchor in the bank and a transformation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Protocol

from operant.core.checks import DataError, InputError, check_int
from operant.language.bank import CannotRunError, TextBank, TextTask
from operant.language.splits import LeakError, check_no_leak


class Run(Protocol):
    """``run(name, x)``: the output of a known task, by its function, its demonstrations or the model."""

    @property
    def bank(self) -> TextBank:
        """The known tasks."""
        ...

    def __call__(self, name: str, x: str, /) -> str:
        """The output of task ``name`` for ``x``."""
        ...


MOST = 1_000_000
"""Chains that :class:`Compose` offers at most. To list 25 million took 160 seconds and 10 GB."""
RELATIONS: dict[str, type[Relation]] = {}
"""Every relation by its class name: a saved model finds its relation here."""


@dataclass(frozen=True)
class Candidate:
    """A hypothesis of what a target is: names of known tasks, the anchor's first, the transformation last."""

    steps: tuple[str, ...]

    @property
    def anchor(self) -> tuple[str, ...]:
        """Names of the anchor's tasks."""
        return self.steps[:-1]

    @property
    def transformation(self) -> str:
        """Name of the last step."""
        return self.steps[-1]

    def __str__(self) -> str:
        return " > ".join(self.steps)


@dataclass(frozen=True)
class Lesson:
    """A candidate, and a known task that it equals: what teaches the model the relation."""

    candidate: Candidate
    task: TextTask


@dataclass(frozen=True)
class Relation(ABC):
    """Which candidates there are, how they become text, and which of them the bank explains.

    A subclass is a frozen dataclass whose fields are JSON values. Defining it registers it.
    """

    def __init_subclass__(cls) -> None:
        """Register the relation under its name."""
        RELATIONS[cls.__name__] = cls

    @abstractmethod
    def candidates(self, bank: TextBank) -> list[Candidate]:
        """Every hypothesis for a target."""

    @abstractmethod
    def prompt(self, candidate: Candidate, x: str, run: Run) -> str:
        """The text after which the model writes the candidate's output for ``x``."""

    @abstractmethod
    def lessons(self, bank: TextBank, held_out: Sequence[TextTask] = ()) -> list[Lesson]:
        """Candidates that equal a known task. None of them may behave as a held-out task."""

    def value(self, candidate: Candidate, x: str, run: Run) -> str | None:
        """The candidate's output for ``x`` without the model, or None if the relation cannot be executed."""
        return None

    def alone(self, name: str) -> Candidate | None:
        """The candidate that is one known task: by it the model runs a task that has no function. None: it cannot."""
        return None

    def alike(self, candidates: Sequence[Candidate], bank: TextBank) -> list[list[Candidate]]:
        """Of each candidate, all that are the same task: the model may write another of them better."""
        return [[candidate] for candidate in candidates]

    def words(self, bank: TextBank) -> list[str]:
        """Parts of prompts that the embedded model reads as one token each."""
        return []

    def admits(self, candidate: Candidate, bank: TextBank) -> bool:
        """Whether a proposed candidate is a hypothesis of this relation."""
        return candidate in self.candidates(bank)

    def asdict(self) -> dict[str, Any]:
        """Name and fields as JSON values."""
        return {"name": type(self).__name__, **asdict(self)}


def relation_from(fields: dict[str, Any]) -> Relation:
    """The relation that :meth:`Relation.asdict` describes.

    Raises:
        DataError: if no relation of this name is defined.
    """
    fields = dict(fields)
    name = fields.pop("name")
    if name not in RELATIONS:
        raise DataError(f"no relation {name!r} is defined. Import the module that defines it, then load again.")
    return RELATIONS[name](**fields)


@dataclass(frozen=True)
class Compose(Relation):
    """y = f_k(... f_1(x)): chains of up to ``depth`` known tasks. The model executes the last step.

    Args:
        depth: steps at most.
        shots: demonstrations of the last step that its prompt shows. 0: the model knows the tasks by name.
    """

    depth: int = 2
    shots: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        check_int("depth", self.depth, least=1)
        check_int("shots", self.shots, least=0)

    def candidates(self, bank: TextBank) -> list[Candidate]:
        """Chains, shortest first. Of chains of functions that behave alike on the probes the first is kept.

        Raises:
            DataError: for more than a million.
        """
        if (count := sum(len(bank) ** length for length in range(1, self.depth + 1))) > MOST:
            raise DataError(
                f"{len(bank)} tasks make {count:,} chains of up to {self.depth}, more than {MOST:,}. Take a smaller "
                "bank or a smaller depth."
            )
        found: list[Candidate] = []
        seen: set[tuple[str | None, ...]] = set()
        run, functions = BankRun(bank), {task.name for task in bank if task.run is not None}
        chained: dict[tuple[str, ...], tuple[str | None, ...]] = {}
        for length in range(1, self.depth + 1):
            for steps in product([task.name for task in bank], repeat=length):
                if functions.issuperset(steps):
                    before = chained[steps[:-1]] if length > 1 else bank.probes
                    chained[steps] = _outputs(steps[-1], before, run)
                    if chained[steps] in seen:
                        continue
                    seen.add(chained[steps])
                found.append(Candidate(steps))
        return found

    def prompt(self, candidate: Candidate, x: str, run: Run) -> str:
        """The last step's demonstrations if they are asked for, then the anchor's output and the last step's name.

        What many candidates share comes first: the demonstrations, else the anchor's output.
        """
        for name in candidate.anchor:
            x = run(name, x)
        last = candidate.transformation
        shown = [pair for pair in run.bank[last].demonstrations[: self.shots + 1] if pair[0] != x][: self.shots]
        return "".join(f"{a} <{last}>\n{b}\n" for a, b in shown) + f"{x} <{last}>\n"

    def lessons(self, bank: TextBank, held_out: Sequence[TextTask] = ()) -> list[Lesson]:
        """Every task alone, and each chain of two functions that behaves as no held-out task does."""
        found = [Lesson(Candidate((task.name,)), task) for task in bank]
        forbidden = {task.behavior(bank.probes) for task in held_out if task.run is not None}
        functions = [task for task in bank if task.run is not None] if self.depth > 1 else []
        for first, last in product(functions, repeat=2):
            chain = TextTask(f"{first.name} > {last.name}", (), _chain(first, last))
            if chain.behavior(bank.probes) not in forbidden:
                found.append(Lesson(Candidate((first.name, last.name)), chain))
        return found

    def value(self, candidate: Candidate, x: str, run: Run) -> str:
        """Every step run."""
        for name in candidate.steps:
            x = run(name, x)
        return x

    def alone(self, name: str) -> Candidate | None:
        """A chain of one."""
        return Candidate((name,))

    def alike(self, candidates: Sequence[Candidate], bank: TextBank) -> list[list[Candidate]]:
        """Chains of functions with the same outputs on the probes, shortest first; itself alone if a step has none."""
        run, functions = KeptRun(bank), [task.name for task in bank if task.run is not None]
        known = [k for k, c in enumerate(candidates) if set(functions).issuperset(c.steps)]
        wanted = {k: _chained(candidates[k].steps, bank.probes, run) for k in known}
        found: list[list[Candidate]] = [[] if k in wanted else [c] for k, c in enumerate(candidates)]
        for steps in (s for length in range(1, self.depth + 1) for s in product(functions, repeat=length)):
            left = known
            for i, x in enumerate(bank.probes):
                (y,) = _chained(steps, [x], run)
                left = [k for k in left if wanted[k][i] == y]
                if not left:
                    break
            for k in left:
                found[k].append(Candidate(steps))
        return found

    def admits(self, candidate: Candidate, bank: TextBank) -> bool:
        """Whether it is a chain of at most ``depth`` known tasks; it may behave as another one does."""
        return len(candidate.steps) <= self.depth and all(name in bank for name in candidate.steps)

    def words(self, bank: TextBank) -> list[str]:
        """The names of the tasks, in their brackets."""
        return [f"<{task.name}>" for task in bank]


@dataclass(frozen=True)
class Toggle(Relation):
    """The target is an anchor of the bank's highest order and one more element; their outputs decide its output.

    Elements are the bank's tasks of one part. The added element lies outside the anchor: with it inside, the sum would
    be a shorter task, which no target is. The published search admits those, and 14 of its 28 answers are wrong so.
    """

    def candidates(self, bank: TextBank) -> list[Candidate]:
        """(anchor, element) for the anchors of the highest order and the elements outside them."""
        top = max(task.order for task in bank)
        return [
            Candidate((anchor.name, element.name))
            for anchor in bank
            if anchor.order == top
            for element in self._elements(bank)
            if element.parts[0] not in anchor.parts
        ]

    def prompt(self, candidate: Candidate, x: str, run: Run) -> str:
        """Both outputs, in order."""
        return f"{run(candidate.steps[0], x)} + {run(candidate.steps[1], x)} =\n"

    def lessons(self, bank: TextBank, held_out: Sequence[TextTask] = ()) -> list[Lesson]:
        """Every task of two parts and more, as each of the ways to take one element off it."""
        by_parts = {frozenset(task.parts): task for task in bank if task.parts}
        refused = {frozenset(task.parts) for task in held_out}
        found: list[Lesson] = []
        for parts, task in by_parts.items():
            for element in self._elements(bank):
                anchor = by_parts.get(parts - {element.parts[0]})
                if element.parts[0] in parts and anchor is not None and parts not in refused:
                    found.append(Lesson(Candidate((anchor.name, element.name)), task))
        return found

    def _elements(self, bank: TextBank) -> list[TextTask]:
        found = [task for task in bank if task.order == 1]
        if not found:
            raise DataError(
                "Toggle needs the elements as tasks of one part, for example 'bit 0' with parts ('bit 0',). The bank "
                "has none: set parts, or take Compose."
            )
        return found


@dataclass(frozen=True)
class BankRun:
    """Known tasks by their functions and demonstrations alone; without the model."""

    bank: TextBank

    def __call__(self, name: str, x: str, /) -> str:
        """The output of task ``name`` for ``x``.

        Raises:
            CannotRunError: if the function fails, or the output is not known.
        """
        y = self.bank[name].output(x)
        if y is None:
            raise CannotRunError(f"task {name!r} has no function, and no demonstration of {x[:60]!r}.")
        return y


class KeptRun(BankRun):
    """Known tasks by their functions and demonstrations; every output is kept."""

    def __init__(self, bank: TextBank) -> None:
        super().__init__(bank)
        object.__setattr__(self, "_kept", {})

    def __call__(self, name: str, x: str, /) -> str:
        """The output of task ``name`` for ``x``; a failure is not kept."""
        kept: dict[tuple[str, str], str] = self.__dict__["_kept"]
        y = kept.get((name, x))
        if y is None:
            y = kept[name, x] = super().__call__(name, x)
        return y


def check_candidates(candidates: Sequence[Candidate], bank: TextBank, targets: Iterable[TextTask] = ()) -> None:
    """Refuse candidates that name something else than tasks of the bank, or a bank that holds a target.

    A search space built from the test set answers half of the question: the published string experiment searches
    among the 192 test pairs.

    Raises:
        LeakError: naming the candidate or the target.
        DataError: if there is no candidate.
    """
    if not candidates:
        raise DataError("the relation offers no candidate for this bank. Add tasks, or take another relation.")
    targets = list(targets)
    names = {task.name for task in targets}
    for candidate in candidates:
        for step in candidate.steps:
            if step in names or step not in bank:
                what = "a test task" if step in names else "not a task of the bank"
                raise LeakError(f"the candidate {candidate} touches {step!r}, which is {what}.")
    check_no_leak(bank, targets)


def _chain(first: TextTask, last: TextTask) -> Callable[[str], str]:
    def run(x: str) -> str:
        y = last.output(str(first.output(x)))
        if y is None:
            raise InputError(f"{last.name} has no output for {x!r}")
        return y

    return run


def _outputs(name: str, inputs: Iterable[str | None], run: Run) -> tuple[str | None, ...]:
    found: list[str | None] = []
    for x in inputs:
        try:
            found.append(None if x is None else run(name, x))
        except CannotRunError:
            found.append(None)
    return tuple(found)


def _chained(steps: Sequence[str], inputs: Sequence[str], run: Run) -> tuple[str | None, ...]:
    found: tuple[str | None, ...] = tuple(inputs)
    for name in steps:
        found = _outputs(name, found, run)
    return found
