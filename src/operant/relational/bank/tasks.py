"""Tasks, and banks of them: functions R^D -> R^C known at points, or callable anywhere.

Letters: ``F`` tasks in a bank, ``P`` points of a task, ``D`` inputs, ``C`` outputs, ``Q`` query points, ``K``
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from operant.core.checks import DataError, InputError
from operant.relational.bank import storage
from operant.relational.bank.curves import Array, Function, choose_method
from operant.relational.bank.measured import Measured
from operant.relational.bank.parameters import ParameterTable
from operant.relational.bank.reading import long_form, matrix, names
from operant.relational.bank.scaling import Scaling
from operant.relational.bank.task import BatchFunction, Task, callable_tasks, measured_tasks, scaled_batch

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TaskBank:
    """Known tasks. Build one with :meth:`from_frame`, :meth:`from_arrays` or :meth:`from_callables`.

    Args:
        tasks: at least two, with the same D, C and K.
        x_names: D names.
        y_names: C names.
        param_names: K names.
        batch: all functions at once, (F, K), (Q, D) -> (F, Q, C), for a bank of one parametric family.
        notes: what was done to the data on the way in.
        units: how it was scaled, for a bank in scaled units.
        interpolation: see :attr:`method`.
        whole: see :meth:`subset`.
    """

    tasks: tuple[Task, ...]
    x_names: tuple[str, ...]
    y_names: tuple[str, ...]
    param_names: tuple[str, ...] = ()
    batch: BatchFunction | None = None
    notes: tuple[str, ...] = ()
    units: Scaling | None = None
    interpolation: str | None = None
    whole: tuple[TaskBank, tuple[int, ...]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.tasks) < 2:
            raise DataError(f"A bank needs at least two tasks, got {len(self.tasks)}.")
        keys = [t.key for t in self.tasks]
        if len(set(keys)) < len(keys):
            twice = next(k for k in keys if keys.count(k) > 1)
            raise DataError(f"Keys of tasks must differ, {twice!r} comes twice.")
        first = self.tasks[0]
        for t in self.tasks:
            if t.x.shape[1] != self.d or t.y.shape[1] != self.c or len(t.params) != len(self.param_names):
                raise InputError(
                    f"Tasks of a bank must have as many inputs, outputs and parameters: {first.key!r} has "
                    f"{first.x.shape[1]}, {first.y.shape[1]} and {len(first.params)}, {t.key!r} has {t.x.shape[1]}, "
                    f"{t.y.shape[1]} and {len(t.params)}."
                )

    def __len__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        points = sum(len(t.x) for t in self.tasks)
        kind = "callable" if self.callable else "measured"
        names = f"{', '.join(self.y_names)} of {', '.join(self.x_names)}"
        by = f", by {', '.join(self.param_names)}" if self.param_names else ""
        return f"TaskBank({len(self)} {kind} tasks, {points} points, {names}{by})"

    @property
    def d(self) -> int:
        """Number of inputs."""
        return len(self.x_names)

    @property
    def c(self) -> int:
        """Number of outputs."""
        return len(self.y_names)

    @property
    def keys(self) -> tuple[Any, ...]:
        """Names of the tasks."""
        return tuple(t.key for t in self.tasks)

    @property
    def callable(self) -> bool:
        """Whether every task can be evaluated anywhere."""
        return self.batch is not None or all(t.function is not None for t in self.tasks)

    @cached_property
    def parameters(self) -> ParameterTable:
        """The known parameters of the tasks."""
        values = np.array([t.params for t in self.tasks]).reshape(len(self), len(self.param_names))
        return ParameterTable(self.param_names, values)

    @property
    def params(self) -> Array:
        """(F, K) parameters."""
        return self.parameters.values

    @cached_property
    def _arguments(self) -> Array:
        """(F, K) what ``batch`` takes: the hidden parameters, or the known ones."""
        hidden = np.array([t.hidden for t in self.tasks])
        return hidden if hidden.shape[1] else self.params

    @cached_property
    def shared(self) -> bool:
        """Whether all tasks are known at the same points."""
        first = self.tasks[0].x
        return self.whole is None and all(t.x.shape == first.shape and np.array_equal(t.x, first) for t in self.tasks)

    @cached_property
    def method(self) -> str:
        """How measured tasks are interpolated: one of METHODS, chosen by leaving points out if it is not given."""
        if self.interpolation is not None:
            return self.interpolation
        s = self.scaling
        return choose_method([(s.x_in(t.x), s.y_in(t.y)) for t in self.tasks])

    @cached_property
    def range(self) -> tuple[Array, Array]:
        """(D,) lowest and (D,) highest point of any task."""
        return np.min([t.x.min(0) for t in self.tasks], axis=0), np.max([t.x.max(0) for t in self.tasks], axis=0)

    @cached_property
    def scaling(self) -> Scaling:
        """Of the points and values of all tasks; a constant has the scale 1."""
        return Scaling.of(*self.range, np.concatenate([t.y for t in self.tasks]))

    @cached_property
    def _measured(self) -> Measured:
        if self.whole is not None:
            bank, rows = self.whole
            return bank._measured.part(self.tasks, rows)
        return Measured(self.tasks, self.method, self.shared)

    def values(self, x: Array) -> Array:
        """(F, Q, C) values of every task at points (Q, D); beyond its range a measured task goes straight on."""
        if self.batch is not None:
            return np.asarray(self.batch(self._arguments, x), dtype=np.float64).reshape(len(self), len(x), self.c)
        if self.callable:
            return np.stack([np.asarray(t.function(x)).reshape(len(x), self.c) for t in self.tasks if t.function])
        return self._measured.values(x)

    def curve(self, i: int) -> Function:
        """One task as a function (Q, D) -> (Q, C), continued straight beyond its range if it was measured."""
        return self.tasks[i].function or self._measured.curve(i)

    def covers(self, x: Array) -> NDArray[np.bool_]:
        """(F, Q) whether points (Q, D) lie where a task is known; a callable is known everywhere."""
        if self.callable:
            return np.ones((len(self), len(x)), dtype=bool)
        return self._measured.covers(x)

    def grid(self, points: int = 64) -> Array:
        """(G, D) points where most tasks are known: the shared points, or evenly spread ones."""
        if self.shared and not self.callable and len(self.tasks[0].x) <= 4 * points:
            return self.tasks[0].x
        if self.d == 1:
            low = np.quantile([t.x.min() for t in self.tasks], 0.9)
            high = np.quantile([t.x.max() for t in self.tasks], 0.1)
            if not low < high:
                low, high = self.range[0][0], self.range[1][0]
            return np.linspace(low, high, points)[:, None]
        every = np.concatenate([t.x for t in self.tasks])
        return every[np.linspace(0, len(every) - 1, points).astype(int)]

    def select(self, which: Iterable[int], *, method: str | None = None) -> TaskBank:
        """The bank of some of the tasks, by position; interpolated by ``method``, by default chosen anew."""
        return replace(self, tasks=tuple(self.tasks[i] for i in which), interpolation=method, whole=None)

    def subset(self, which: tuple[int, ...]) -> TaskBank:
        """As :meth:`select`, remembered, so that its curves are built once; of any size."""
        if which == tuple(range(len(self))):
            return self
        return self.remembered(("subset", which), lambda: self._part(which))

    def _part(self, which: tuple[int, ...]) -> TaskBank:
        padded = which if len(which) > 1 else (*which, *((i + 1) % len(self) for i in which))  # a bank has two tasks
        bank = self.select(padded, method=self.method)
        if self.callable or self.shared or self._measured.ragged is None:
            return bank
        return replace(bank, whole=(self, padded))

    def remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of ``make``, computed once for this bank and shared by all operators."""
        if key not in self._memory:
            self._memory.setdefault(key, make())  # two threads may both make it; the first result stays
        return self._memory[key]

    @cached_property
    def _memory(self) -> dict[Hashable, Any]:
        return {}

    def scaled(self, s: Scaling) -> TaskBank:
        """The same bank in scaled units, interpolated in the same way."""
        return replace(
            self,
            tasks=tuple(t.scaled(s) for t in self.tasks),
            batch=None if self.batch is None else scaled_batch(self.batch, s),
            units=s,
            interpolation=self.method,
            whole=None,
        )

    @classmethod
    def from_arrays(
        cls,
        tasks: Sequence[tuple[ArrayLike, ArrayLike]] | Mapping[Any, tuple[ArrayLike, ArrayLike]],
        *,
        params: ArrayLike | None = None,
        labels: Sequence[Mapping[str, Any]] | None = None,
        x_names: Sequence[str] | None = None,
        y_names: Sequence[str] | None = None,
        param_names: Sequence[str] | None = None,
    ) -> TaskBank:
        """A bank from pairs (x, y) of any lengths.

        Args:
            tasks: (x, y) pairs, x (P,) or (P, D), y (P,) or (P, C); a mapping gives the keys.
            params: (F,) or (F, K) known parameters of the tasks.
            labels: further facts for each task.
            x_names: D names of the inputs; default x, x2, ...
            y_names: C names of the outputs; default y, y2, ...
            param_names: K names of the parameters; default p, p2, ...

        Raises:
            DataError: for a task with fewer than two points, or fewer than two tasks.
            InputError: for NaN, infinities or shapes that do not fit.

        >>> TaskBank.from_arrays([([0, 1, 2], [0, 1, 2]), ([0, 2], [1, 5])], params=[1.0, 2.0])
        TaskBank(2 measured tasks, 5 points, y of x, by p)
        """
        named = dict(tasks) if isinstance(tasks, Mapping) else dict(enumerate(tasks))
        known = None if params is None else matrix("params", params, rows=len(named), what="tasks")
        built, notes = measured_tasks(named, known, labels)
        bank = cls(
            built,
            names("x", x_names, built[0].x.shape[1]),
            names("y", y_names, built[0].y.shape[1]),
            names("p", param_names, 0 if known is None else known.shape[1]),
        )
        return replace(bank, notes=(*notes, *bank.parameters.notes()))

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        task: str,
        x: str | Sequence[str],
        y: str | Sequence[str],
        params: Sequence[str] = (),
        labels: Sequence[str] = (),
        unit: str | None = None,
    ) -> TaskBank:
        """A bank from a table in long form: a row a point.

        Args:
            frame: a pandas or polars data frame, or a mapping from column to values.
            task: the column that tells the tasks apart.
            x: columns of the inputs.
            y: columns of the outputs.
            params: columns with the known parameters, constant within a task.
            labels: columns with further facts, constant within a task.
            unit: a column with the unit of the row, which must be one for all rows.

        Raises:
            DataError: if a column is missing, a parameter varies within a task, units are mixed, or a task has fewer
                than two points.
            InputError: for a value that is missing or no number, with its row.
        """
        return cls.from_arrays(**long_form(frame, task=task, x=x, y=y, params=params, labels=labels, unit=unit))

    @classmethod
    def from_callables(
        cls,
        functions: Sequence[Callable[[Array], ArrayLike]] | BatchFunction,
        x: ArrayLike,
        *,
        params: ArrayLike | None = None,
        hidden: ArrayLike | None = None,
        labels: Sequence[Mapping[str, Any]] | None = None,
        x_names: Sequence[str] | None = None,
        y_names: Sequence[str] | None = None,
        param_names: Sequence[str] | None = None,
    ) -> TaskBank:
        """A bank of functions that can be evaluated anywhere.

        Args:
            functions: one function (Q, D) -> (Q,) or (Q, C) for each task; or one for all of them,
                ((F, K), (Q, D)) -> (F, Q) or (F, Q, C), which is faster and needs ``params`` or ``hidden``.
            x: (G,) or (G, D) points of the domain: its range, and where the tasks are compared.
            params: (F,) or (F, K) known parameters of the tasks.
            hidden: (F,) or (F, K) what one function for all tasks takes in place of ``params``, and no method may know.
            labels: further facts for each task.
            x_names: D names of the inputs.
            y_names: C names of the outputs.
            param_names: K names of the parameters.

        Raises:
            InputError: if a function returns NaN or another shape than (Q,) or (Q, C).

        >>> TaskBank.from_callables(lambda p, x: p[:, :1] * x[:, 0], [0.0, 1.0, 2.0], params=[1.0, 2.0])
        TaskBank(2 callable tasks, 6 points, y of x, by p)
        """
        grid = matrix("x", x)
        each, values = callable_tasks(functions, grid, params, hidden)
        bank = cls.from_arrays(
            [(grid, v) for v in values],
            params=params,
            labels=labels,
            x_names=x_names,
            y_names=y_names,
            param_names=param_names,
        )
        unknown = np.empty((len(bank), 0)) if hidden is None else matrix("hidden", hidden, rows=len(bank), what="tasks")
        tasks = tuple(replace(t, function=f, hidden=u) for t, f, u in zip(bank.tasks, each, unknown, strict=True))
        return replace(bank, tasks=tasks, batch=functions if callable(functions) else None)

    def save(self, folder: Path | str) -> Path:
        """Write ``bank.json`` and ``bank.npz``; functions are saved as their values at the bank's points."""
        facts = {n: getattr(self, n) for n in ("x_names", "y_names", "param_names", "method", "notes", "callable")}
        return storage.write(Path(folder), facts, self.tasks, self.params)

    @classmethod
    def load(cls, folder: Path | str) -> TaskBank:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: if the files are missing or damaged.
        """
        with storage.reading(Path(folder)) as stored:
            bank = cls.from_arrays(**stored.arguments)
            return replace(bank, notes=stored.notes, interpolation=stored.method)
