"""Tasks, and banks of them: functions R^D -> R^C known at points, or callable anywhere.

Letters: ``F`` tasks in a bank, ``P`` points of a task, ``D`` inputs, ``C`` outputs, ``Q`` query points, ``K``
parameters.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from operant.core.checks import DataError, InputError, OperantError
from operant.relational.bank.curves import METHODS, Array, Curve, Ragged, choose_method, cover, interpolator
from operant.relational.bank.reading import both, clean, long_form, matrix, names, plain

FAR = 20.0
"""A target that lies so many times as far from the middle of the bank as the bank does has other units."""

Batch = Callable[[Array, Array], Array]
"""(F, K) parameters, (Q, D) points -> (F, Q, C) values of F functions at once."""


class CannotAdaptError(OperantError):
    """An operator cannot be used on this bank or this target; the message says why."""


@dataclass(frozen=True, eq=False)
class Task:
    """One function known at points.

    Args:
        x: (P, D) distinct points.
        y: (P, C) values there.
        key: its name in the bank.
        params: (K,) known parameters, such as a temperature; empty if there are none.
        labels: further facts, such as {"order": 3}.
        function: (Q, D) -> (Q, C), if it can be evaluated anywhere.
        hidden: what the bank's ``batch`` takes for this task where that is not ``params``: parameters that no method
            may know.
    """

    x: Array
    y: Array
    key: Any = None
    params: Array = field(default_factory=lambda: np.empty(0))
    labels: Mapping[str, Any] = field(default_factory=dict)
    function: Curve | None = None
    hidden: Array = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Scaling:
    """Units to the inside and back: x' = (x - x_mid) / x_half in about [-1, 1], y' = (y - y_mean) / y_sd."""

    x_mid: Array
    x_half: Array
    y_mean: Array
    y_sd: Array

    @classmethod
    def of(cls, low: Array, high: Array, y: Array) -> Scaling:
        """Of points between ``low`` and ``high`` (D,) with values (n, C); a constant has the scale 1.

        Values are divided by the largest before they are squared: of 1e170 there is no square, of 1e-170 it is zero.
        """
        half = (high - low) / 2
        largest = np.abs(y).max(0)
        largest = np.where(largest > 0, largest, 1.0)
        mean, sd = (y / largest).mean(0), (y / largest).std(0)
        return cls((low + high) / 2, np.where(half > 0, half, 1.0), mean * largest, np.where(sd > 0, sd * largest, 1.0))

    def x_in(self, x: Array) -> Array:
        """(.., D) original units to scaled."""
        return (x - self.x_mid) / self.x_half

    def x_out(self, x: Array) -> Array:
        """(.., D) scaled to original units."""
        return x * self.x_half + self.x_mid

    def y_in(self, y: Array) -> Array:
        """(.., C) original units to scaled."""
        return (y - self.y_mean) / self.y_sd

    def y_out(self, y: Array) -> Array:
        """(.., C) scaled to original units."""
        return y * self.y_sd + self.y_mean


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
    """

    tasks: tuple[Task, ...]
    x_names: tuple[str, ...]
    y_names: tuple[str, ...]
    param_names: tuple[str, ...] = ()
    batch: Batch | None = None
    notes: tuple[str, ...] = ()
    units: Scaling | None = None
    """How a scaled bank came from the original units."""

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
    def params(self) -> Array:
        """(F, K) parameters."""
        return np.array([t.params for t in self.tasks]).reshape(len(self), len(self.param_names))

    @cached_property
    def varying(self) -> NDArray[np.bool_]:
        """(K,) whether a parameter differs between tasks; one that does not says nothing of what it does."""
        return np.ptp(self.params, axis=0) > 0

    def standardized(self, params: Array) -> Array:
        """(.., K) parameters in standard deviations from the bank's mean, 0 where all tasks of the bank have one.

        At most 1e100, so that their squares are numbers.
        """
        z = (params - self.params.mean(0)) / np.where(self.varying, self.params.std(0), np.inf)
        return np.clip(z, -1e100, 1e100)

    def check_reach(self, params: Array) -> None:
        """Refuse parameters (K,) with which nothing of the bank can be continued.

        Raises:
            CannotAdaptError: if they lie FAR times as far from the middle of the bank's as these do.
        """
        low, high = self.params.min(0), self.params.max(0)
        half = np.where(self.varying, (high - low) / 2, np.inf)
        far = np.abs(params - (low + high) / 2) / half
        if (far > FAR).any():
            k = int(far.argmax())
            raise CannotAdaptError(
                f"{self.param_names[k]} = {params[k]:g} lies {far[k]:.0f} times as far from the middle of the bank's "
                f"values as these do ({low[k]:g} to {high[k]:g}): nothing is continued so far."
            )

    @cached_property
    def _arguments(self) -> Array:
        """(F, K) what ``batch`` takes: the hidden parameters, or the known ones."""
        hidden = np.array([t.hidden for t in self.tasks])
        return hidden if hidden.shape[1] else self.params

    @cached_property
    def shared(self) -> bool:
        """Whether all tasks are known at the same points."""
        first = self.tasks[0].x
        return all(t.x.shape == first.shape and np.array_equal(t.x, first) for t in self.tasks)

    @cached_property
    def method(self) -> str:
        """How measured tasks are interpolated, chosen by leaving points out."""
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
    def _curves(self) -> list[Curve]:
        """One curve for all tasks on shared points, otherwise one a task."""
        if self.shared:
            y = np.concatenate([t.y for t in self.tasks], axis=1)  # (P, F C)
            return [interpolator(self.tasks[0].x, y, self.method)]
        return [t.function or interpolator(t.x, t.y, self.method) for t in self.tasks]

    @cached_property
    def _ragged(self) -> Ragged | None:
        """All measured tasks of one input, where their points differ."""
        if self.d > 1 or any(t.function is not None for t in self.tasks):
            return None
        return Ragged.of([(t.x, t.y) for t in self.tasks], self.method)

    @cached_property
    def _covers(self) -> list[Callable[[Array], NDArray[np.bool_]]]:
        return [cover(t.x) for t in (self.tasks[:1] if self.shared else self.tasks)]

    def values(self, x: Array) -> Array:
        """(F, Q, C) values of every task at points (Q, D); beyond its range a measured task goes straight on."""
        if self.batch is not None:
            return np.asarray(self.batch(self._arguments, x), dtype=np.float64).reshape(len(self), len(x), self.c)
        if self.callable:
            return np.stack([np.asarray(t.function(x)).reshape(len(x), self.c) for t in self.tasks if t.function])
        if self.shared:
            return self._curves[0](x).reshape(len(x), len(self), self.c).swapaxes(0, 1)
        if self._ragged is not None:
            return self._ragged(x)
        return np.stack([curve(x) for curve in self._curves])

    def curve(self, i: int) -> Curve:
        """One task as a function (Q, D) -> (Q, C), continued straight beyond its range if it was measured."""
        task = self.tasks[i]
        if task.function is not None:
            return task.function
        if i not in self._single:
            self._single[i] = interpolator(task.x, task.y, self.method)
        return self._single[i]

    @cached_property
    def _single(self) -> dict[int, Curve]:
        return {}

    def covers(self, x: Array) -> NDArray[np.bool_]:
        """(F, Q) whether points (Q, D) lie where a task is known; a callable is known everywhere."""
        if self.callable:
            return np.ones((len(self), len(x)), dtype=bool)
        inside = np.stack([c(x) for c in self._covers])
        return np.broadcast_to(inside, (len(self), len(x)))

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

    def select(self, which: Iterable[int]) -> TaskBank:
        """The bank of some of the tasks, by position."""
        return replace(self, tasks=tuple(self.tasks[i] for i in which))

    def subset(self, which: tuple[int, ...]) -> TaskBank:
        """As :meth:`select`, remembered, so that its curves are built once; of any size."""
        if which == tuple(range(len(self))):
            return self
        if which not in self._subsets:
            padded = which if len(which) > 1 else (*which, *((i + 1) % len(self) for i in which))
            bank = self.select(padded)
            bank.__dict__["method"] = self.method
            if not self.callable and not self.shared and self._ragged is not None:
                bank.__dict__["shared"] = False
                bank.__dict__["_ragged"] = self._ragged.select(np.array(padded))
            self._subsets[which] = bank
        return self._subsets[which]

    @cached_property
    def _subsets(self) -> dict[tuple[int, ...], TaskBank]:
        return {}

    def scaled(self, s: Scaling) -> TaskBank:
        """The same bank in scaled units, interpolated in the same way."""
        tasks = tuple(
            replace(
                t,
                x=s.x_in(t.x),
                y=s.y_in(t.y),
                function=None if t.function is None else partial(_scaled, t.function, s, self.c),
            )
            for t in self.tasks
        )
        batch = None if self.batch is None else partial(_all_scaled, self.batch, s, self.c)
        bank = replace(self, tasks=tasks, batch=batch, units=s)
        bank.__dict__["method"] = self.method
        return bank

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
        if labels is not None and len(labels) != len(named):
            raise InputError(f"labels: expected one mapping for each of {len(named)} tasks, got {len(labels)}.")
        built, notes = [], []
        for i, (key, pair) in enumerate(named.items()):
            x, y = both(pair, f"task {key!r}")
            points, values, note = clean(x, y, f"task {key!r}")
            if len(points) < 2:
                raise DataError(
                    f"task {key!r} has {len(points)} distinct point{'' if len(points) == 1 else 's'}; a task of the "
                    "bank needs at least two. Drop it, or measure it again."
                )
            notes += note
            given = np.empty(0) if known is None else known[i]
            built.append(Task(points, values, key, given, dict(labels[i]) if labels else {}))
        if not built:
            raise DataError("A bank needs at least two tasks, got none.")
        bank = cls(
            tuple(built),
            names("x", x_names, built[0].x.shape[1]),
            names("y", y_names, built[0].y.shape[1]),
            names("p", param_names, 0 if known is None else known.shape[1]),
        )
        for k in np.flatnonzero(~bank.varying):
            value = f"{bank.params[0, k]:g}"
            notes.append(f"{bank.param_names[k]} never varies in the bank (it is {value}); it was not used")
        return replace(bank, notes=tuple(notes))

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
        functions: Sequence[Callable[[Array], ArrayLike]] | Batch,
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
        if callable(functions):
            given = params if hidden is None else hidden
            if given is None:
                raise InputError("One function for all tasks needs their params (F, K), or hidden ones.")
            known = matrix("params" if hidden is None else "hidden", given)
            values = np.asarray(functions(known, grid), dtype=np.float64)
            values = values[:, :, None] if values.ndim == 2 else values
            if values.shape[:2] != (len(known), len(grid)):
                raise InputError(f"the function must return (F, Q) or (F, Q, C) values, got {values.shape}.")
            each: list[Curve | None] = [partial(_one, functions, p) for p in known]
        else:
            each = [partial(_shaped, f) for f in functions]
            values = np.stack([f(grid) for f in each if f])
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
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "x_names": self.x_names,
            "y_names": self.y_names,
            "param_names": self.param_names,
            "method": self.method,
            "notes": self.notes,
            "callable": self.callable,
            "tasks": [{"key": plain(t.key), "labels": {k: plain(v) for k, v in t.labels.items()}} for t in self.tasks],
        }
        arrays = {f"x{i}": t.x for i, t in enumerate(self.tasks)} | {f"y{i}": t.y for i, t in enumerate(self.tasks)}
        (folder / "bank.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        np.savez(folder / "bank.npz", allow_pickle=False, params=self.params, **arrays)
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> TaskBank:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: if the files are not there.
        """
        folder = Path(folder)
        if not ((folder / "bank.json").is_file() and (folder / "bank.npz").is_file()):
            raise DataError(f"expected bank.json and bank.npz in {folder}, as TaskBank.save writes them.")
        try:
            return cls._loaded(folder)
        except Exception as error:  # NumPy and zipfile raise nearly anything on a damaged file
            raise DataError(
                f"{folder} does not hold a whole bank ({type(error).__name__}: {error}). Save it again."
            ) from error

    @classmethod
    def _loaded(cls, folder: Path) -> TaskBank:
        facts = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
        x_names, y_names, param_names = (_texts(facts, n) for n in ("x_names", "y_names", "param_names"))
        if facts["method"] not in METHODS:
            raise DataError(f"expected a method of {', '.join(METHODS)}, got {facts['method']!r}")
        data = io.BytesIO((folder / "bank.npz").read_bytes())  # NumPy leaves a damaged file open
        with np.load(data, allow_pickle=False) as arrays:
            tasks = {_tuples(t["key"]): (arrays[f"x{i}"], arrays[f"y{i}"]) for i, t in enumerate(facts["tasks"])}
            params = arrays["params"]
        if len(tasks) < len(facts["tasks"]):
            raise DataError("two of its tasks have one key")
        bank = cls.from_arrays(
            tasks,
            params=params if param_names else None,
            labels=[_tuples(t["labels"]) for t in facts["tasks"]],
            x_names=x_names,
            y_names=y_names,
            param_names=param_names,
        )
        said = ["saved from functions: known at its points only"] if facts["callable"] else []
        bank = replace(bank, notes=(*_texts(facts, "notes"), *said))
        bank.__dict__["method"] = facts["method"]
        return bank


# What a bank holds can be pickled, so that these are functions of a module and not of a function.
def _scaled(f: Curve, s: Scaling, c: int, x: Array) -> Array:
    return s.y_in(np.asarray(f(s.x_out(x))).reshape(len(x), c))


def _all_scaled(batch: Batch, s: Scaling, c: int, p: Array, x: Array) -> Array:
    return s.y_in(np.asarray(batch(p, s.x_out(x)), dtype=np.float64).reshape(len(p), len(x), c))


def _one(batch: Batch, p: Array, x: Array) -> Array:
    return _shape(batch(p[None], x)[0], len(x))


def _shaped(f: Callable[[Array], ArrayLike], x: Array) -> Array:
    return _shape(f(x), len(x))


def _shape(values: ArrayLike, q: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if len(array) != q or array.ndim > 2:
        raise InputError(f"a task's function must return (Q,) or (Q, C) values for Q points, got shape {array.shape}.")
    return array.reshape(q, -1)


def _texts(facts: Mapping[str, Any], name: str) -> tuple[str, ...]:
    if not isinstance(facts[name], list) or not all(isinstance(text, str) for text in facts[name]):
        raise DataError(f"{name} must be a list of texts")
    return tuple(facts[name])


def _tuples(value: Any) -> Any:
    """What JSON wrote as lists, as the tuples that they were."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
