"""Text tasks and the bank that holds the known ones; when two of them are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from operant.core.checks import DataError, InputError, OperantError
from operant.core.record import read_records, write_records

PROBES = 64
"""Inputs on which two functions are compared, for :meth:`TextBank.from_functions` and the splits. 64 random words
tell all 23 string programs apart; with 8, "compress" equals the identity in 1 of 17 draws (no word has a repeat)."""


class CannotRunError(OperantError):
    """A known task's function raised an error, or returned something that is not text."""


@dataclass(frozen=True)
class TextTask:
    """A function from text to text: known by demonstrations, and where possible as a function.

    Args:
        name: how relations, candidates and explanations name it.
        demonstrations: (input, output) pairs. An output may be empty.
        run: the function, if it can be called.
        parts: the elements that it is built of, where they are known: the bits of a parity, the steps of a chain.
    """

    name: str
    demonstrations: tuple[tuple[str, str], ...] = ()
    run: Callable[[str], str] | None = field(default=None, compare=False)
    parts: tuple[str, ...] = ()

    @cached_property
    def table(self) -> dict[str, str]:
        """Outputs of the demonstrations, by input."""
        return dict(self.demonstrations)

    @property
    def order(self) -> int:
        """Number of elements that it is built of."""
        return len(self.parts)

    def output(self, x: str) -> str | None:
        """Its output for an input: by its function, else from its demonstrations, else None.

        Raises:
            CannotRunError: if the function raises, or returns something that is not text.
        """
        if self.run is None:
            return self.table.get(x)
        try:
            y = self.run(x)
        except Exception as error:  # the user's function: anything may come
            raise CannotRunError(f"task {self.name!r} raised {type(error).__name__} on {_short(x)}: {error}") from error
        if not isinstance(y, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CannotRunError(f"task {self.name!r} must return text, got {type(y).__name__} on {_short(x)}.")
        return y

    def behavior(self, probes: Sequence[str]) -> str:
        """Hash of its outputs on the probes: two functions with the same hash are taken as one task.

        A probe on which the function fails counts as such. Tasks without a function are hashed by their demonstrations.
        """
        if self.run is None:
            return digest(sorted(self.demonstrations))
        outputs: list[str | None] = []
        for x in probes:
            try:
                outputs.append(self.output(x))
            except CannotRunError:
                outputs.append(None)
        return digest(outputs)

    def agrees(self, other: TextTask, probes: Sequence[str]) -> bool:
        """Whether both give the same outputs wherever both are known, and are known together somewhere."""
        if self.run is not None and other.run is not None:
            return self.behavior(probes) == other.behavior(probes)
        if self.run is None and other.run is None:
            shared = self.table.keys() & other.table.keys()
            return bool(shared) and all(self.table[x] == other.table[x] for x in shared)
        known, shown = (self, other) if self.run is not None else (other, self)
        try:
            return bool(shown.table) and all(known.output(x) == y for x, y in shown.demonstrations)
        except CannotRunError:
            return False


@dataclass(frozen=True)
class TextBank:
    """The known tasks.

    Args:
        tasks: with distinct names, each with a demonstration at least.
        probes: inputs on which functions are compared.
    """

    tasks: tuple[TextTask, ...]
    probes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check names, demonstrations and contradictions."""
        if not self.tasks:
            raise DataError("expected a bank of at least one task, got none.")
        names: set[str] = set()
        for task in self.tasks:
            if task.name in names:
                raise DataError(f"two tasks of the bank are called {task.name!r}. Give each its own name.")
            names.add(task.name)
            check_text(task.name, "the name of a task")
            if not task.demonstrations:
                raise DataError(f"task {task.name!r} has no demonstration. Every task of a bank needs one at least.")
            check_function(task.demonstrations, f"task {task.name!r}")
        if not self.probes:
            inputs = dict.fromkeys(x for t in self.tasks for x, _ in t.demonstrations)
            object.__setattr__(self, "probes", tuple(list(inputs)[:PROBES]))

    @classmethod
    def from_rows(
        cls, rows: Any, *, task: str = "task", input: str = "x", output: str = "y", parts: str | None = None
    ) -> TextBank:
        """A bank from a table with a row a demonstration.

        Args:
            rows: path of a JSON lines file, a sequence of mappings, or a data frame (anything whose columns are read
                as ``rows[name]``).
            task: column of the task's name.
            input: column of the inputs.
            output: column of the outputs; "" is an output, a missing one is an error.
            parts: column with the elements that the row's task is built of, a list of texts; constant within a task.

        Raises:
            DataError: for a missing column or value, a task that gives one input two outputs, or parts that vary.
        """
        cells = [_column(rows, name) for name in (task, input, output)]
        found: dict[str, dict[tuple[str, str], None]] = {}
        for number, (name, x, y) in enumerate(zip(*cells, strict=True), start=1):
            for column, value in ((task, name), (input, x), (output, y)):
                if not isinstance(value, str) and not (column == task and isinstance(value, int)):
                    raise DataError(f"row {number}: column {column!r} must hold text, got {value!r}.")
            found.setdefault(str(name), {})[x, y] = None
        if not found:
            raise DataError("expected at least one row, got none.")
        elements = {} if parts is None else _parts(cells[0], _column(rows, parts), parts)
        return cls(tuple(TextTask(k, tuple(pairs), None, elements.get(k, ())) for k, pairs in found.items()))

    @classmethod
    def from_functions(
        cls,
        functions: Mapping[str, Callable[[str], str]],
        inputs: Sequence[str],
        *,
        parts: Mapping[str, Sequence[str]] | None = None,
    ) -> TextBank:
        """A bank of functions, each with a demonstration for every input on which it does not fail.

        Args:
            functions: by name.
            inputs: texts; the first 64 are the probes.
            parts: elements that a task is built of, by name.
        """
        inputs = list(dict.fromkeys(inputs))
        if not inputs:
            raise DataError("expected at least one input for the functions, got none.")
        tasks = [task_of(name, f, inputs, (parts or {}).get(name, ())) for name, f in functions.items()]
        return cls(tuple(tasks), tuple(inputs[:PROBES]))

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[TextTask]:
        return iter(self.tasks)

    def __getitem__(self, name: str) -> TextTask:
        if name not in self._by_name:
            raise InputError(f"the bank has no task {name!r}. Its tasks: {', '.join(list(self._by_name)[:8])}, ...")
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @cached_property
    def _by_name(self) -> dict[str, TextTask]:
        return {task.name: task for task in self.tasks}

    @cached_property
    def behaviors(self) -> dict[str, str]:
        """Behavior of every task, by name."""
        return {task.name: task.behavior(self.probes) for task in self.tasks}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Every input that a demonstration has, once."""
        return tuple(dict.fromkeys(x for task in self.tasks for x, _ in task.demonstrations))

    def distinct(self) -> TextBank:
        """The bank with the first of the tasks that behave alike."""
        first: dict[str, TextTask] = {}
        for task in self.tasks:
            first.setdefault(self.behaviors[task.name], task)
        return TextBank(tuple(first.values()), self.probes)

    def with_functions(self, functions: Mapping[str, Callable[[str], str]]) -> TextBank:
        """The same bank, with functions for some of its tasks (functions are not saved).

        Raises:
            DataError: if a function contradicts a demonstration of its task.
        """
        tasks: list[TextTask] = []
        for task in self.tasks:
            run = functions.get(task.name, task.run)
            known = TextTask(task.name, task.demonstrations, run, task.parts)
            if task.name in functions:
                for x, y in task.demonstrations:
                    if known.output(x) != y:
                        raise DataError(
                            f"the function of task {task.name!r} gives {known.output(x)!r} for {_short(x)}, its "
                            f"demonstration {y!r}."
                        )
            tasks.append(known)
        return TextBank(tuple(tasks), self.probes)

    def save(self, path: Path) -> None:
        """Write names, parts, demonstrations and probes as JSON lines; functions are not written."""
        head: dict[str, Any] = {"kind": "bank", "probes": self.probes}
        rows = ({"kind": "task", "task": t.name, "parts": t.parts, "pairs": t.demonstrations} for t in self.tasks)
        write_records(path, [head, *rows])

    @classmethod
    def load(cls, path: Path) -> TextBank:
        """Read what :meth:`save` wrote."""
        head, *rows = read_records(path, torn=False)
        tasks = [TextTask(r["task"], tuple((x, y) for x, y in r["pairs"]), None, tuple(r["parts"])) for r in rows]
        return cls(tuple(tasks), tuple(head["probes"]))


def task_of(name: str, f: Callable[[str], str], inputs: Iterable[str], parts: Sequence[str] = ()) -> TextTask:
    """A task with a function, and its demonstrations for the inputs on which it does not fail."""
    bare, pairs = TextTask(name, (), f, tuple(parts)), list[tuple[str, str]]()
    failure: CannotRunError | None = None
    for x in inputs:
        try:
            pairs.append((x, str(bare.output(x))))
        except CannotRunError as error:
            failure = error
    if not pairs and failure is not None:
        raise failure
    return TextTask(name, tuple(pairs), f, tuple(parts))


def check_function(pairs: Iterable[tuple[str, str]], who: str) -> None:
    """Refuse pairs that give one input two outputs.

    Raises:
        DataError: with the input and both outputs.
    """
    seen: dict[str, str] = {}
    for x, y in pairs:
        if not isinstance(x, str) or not isinstance(y, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DataError(f"{who}: expected pairs of texts, got ({x!r}, {y!r}).")
        check_text(x, who)
        check_text(y, who)
        if seen.setdefault(x, y) != y:
            raise DataError(f"{who} contradicts itself: {_short(x)} gives {seen[x]!r} and {y!r}. Remove one of them.")


def check_text(text: str, who: str) -> None:
    """Refuse text that no tokenizer reads.

    Raises:
        DataError: for a lone surrogate, which UTF-8 lacks.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{who}: {_short(text)} holds a lone surrogate, which UTF-8 lacks. Read the file in its own encoding."
        ) from error


def _column(rows: Any, name: str) -> list[Any]:
    if isinstance(rows, (str, Path)):
        rows = read_records(Path(rows), torn=False)
    if isinstance(rows, Sequence):
        lacking = next((i for i, row in enumerate(rows, start=1) if name not in row), None)
        if lacking is not None:
            raise DataError(f"row {lacking} has no column {name!r}. Its columns: {', '.join(rows[lacking - 1])}.")
        return [row[name] for row in rows]
    try:
        return list(rows[name])
    except KeyError as error:
        columns = ", ".join(map(str, getattr(rows, "columns", rows)))
        raise DataError(f"the table has no column {name!r}. Its columns: {columns}.") from error


def _parts(names: Sequence[Any], values: Sequence[Any], column: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for number, (name, value) in enumerate(zip(names, values, strict=True), start=1):
        listed = isinstance(value, Iterable) and not isinstance(value, str)
        if not listed or not all(isinstance(part, str) for part in value):
            raise DataError(f"row {number}: column {column!r} must hold a list of texts, got {value!r}.")
        if found.setdefault(str(name), tuple(value)) != tuple(value):
            raise DataError(f"row {number}: column {column!r} must be constant within task {str(name)!r}.")
    return found


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def digest(value: object) -> str:
    """A short hash of a value by what it prints as."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
