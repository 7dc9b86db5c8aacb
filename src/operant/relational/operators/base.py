"""The one interface of every relational operator: fitted to a bank, adapted to a target's context, asked anywhere.

An operator is a value (a frozen dataclass of settings). ``fit(bank)`` learns what it needs from the known tasks;
``adapt(context)`` explains one unseen task by its context points; ``predict(x)`` answers with a mean and a standard
deviation. Operators work in the scaled units of the bank (:class:`operant.relational.bank.tasks.Scaling`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from operant.relational.bank.curves import Array
from operant.relational.bank.parameters import CannotAdaptError
from operant.relational.bank.tasks import TaskBank


@dataclass(frozen=True)
class Context:
    """What is known of a target, in scaled units.

    Args:
        x: (P, D) points, P >= 1.
        y: (P, C) values.
        params: (K,) known parameters of the target in original units, or None.
        labels: further facts of the target, such as {"order": 9}.
        noise: (C,) standard deviation of the values, if it is known.
    """

    x: Array
    y: Array
    params: Array | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    noise: Array | None = None

    def without(self, i: int) -> Context:
        """The context without point ``i``."""
        return replace(self, x=np.delete(self.x, i, 0), y=np.delete(self.y, i, 0))


@dataclass(frozen=True)
class Decomposition:
    """One explanation of a target: a known task and what was done to it.

    Args:
        anchor: key of the known task, a tuple of keys where several play a part, None if there is none.
        transformation: the transformation as text, or a ``Transformation`` value.
        residual: root mean square of what it leaves unexplained on the context.
        weight: posterior probability among the decompositions listed.
        intervals: 90 % interval of each parameter of the transformation.
        operator: name of the operator it comes from, where several were mixed.
        warp_covariance: (2 D, 2 D) covariance of the logarithm of the x-scale and of the x-shift, in the data's units.
    """

    anchor: Any
    transformation: Any
    residual: float
    weight: float = 1.0
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    operator: str = ""
    warp_covariance: Array | None = field(default=None, repr=False, compare=False)


class Adapted(ABC):
    """An operator, adapted to one target."""

    decompositions: tuple[Decomposition, ...] = ()
    """Ranked, the most probable first; empty where an operator has no such thing."""

    @abstractmethod
    def predict(self, x: Array) -> tuple[Array, Array]:
        """(Q, C) mean and (Q, C) standard deviation of the target's curve at (Q, D)."""

    @abstractmethod
    def left_out(self) -> tuple[Array, Array]:
        """(P, C) mean and standard deviation of each context value, predicted from the other context points."""

    def sample(self, x: Array, n: int, rng: np.random.Generator) -> Array:
        """(n, Q, C) curves of the posterior; by default mean + z sd with one z a curve and output."""
        mean, sd = self.predict(x)
        return mean + rng.standard_normal((n, 1, mean.shape[1])) * sd

    def covered(self, x: Array) -> NDArray[np.bool_]:
        """(Q,) where nothing known was continued beyond its range; by default everywhere."""
        return np.ones(len(x), dtype=bool)


class Fitted(ABC):
    """An operator, fitted to a bank."""

    @abstractmethod
    def adapt(self, context: Context) -> Adapted:
        """Explain a target.

        Raises:
            CannotAdaptError: if this operator needs more than this context has.
        """


class RelationalOperator(ABC):
    """A kind of relation between tasks. Subclasses are frozen dataclasses, and say what they can express."""

    name: str
    expresses: str
    """The functions that it reaches from a bank, in one line."""
    uses_bank: ClassVar[bool] = True
    """Whether predictions use the bank's curves. The noise of a context is estimated with operators that do not."""
    plain: ClassVar[bool] = False
    """Whether it is a plain baseline, which relational operators have to beat."""
    needs: Literal["curves", "params", "labels"] = "curves"
    """What the operator needs of a bank's tasks: their curves alone, known parameters, or labels."""

    @classmethod
    def proposals(cls, bank: TaskBank) -> Sequence[RelationalOperator]:
        """The operators of this kind that ``operator="auto"`` tries on a bank; by default none."""
        return ()

    @abstractmethod
    def fit(self, bank: TaskBank) -> Fitted:
        """Learn from the known tasks, in scaled units.

        Raises:
            CannotAdaptError: if the bank lacks what the operator needs.
        """


_Kind = TypeVar("_Kind", bound=type[RelationalOperator])
REGISTERED: dict[str, type[RelationalOperator]] = {}
"""Name -> class, in the order of definition; read it with :func:`operant.relational.operators.registry.kinds`."""


def register(kind: _Kind) -> _Kind:
    """Class decorator: make an operator known by its name, and to ``operator="auto"`` what it proposes.

    Raises:
        ValueError: if another operator has the name.
    """
    name: Any = kind.name
    name = name if isinstance(name, str) else kind.__name__  # a property where the settings make the name
    if name in REGISTERED:
        raise ValueError(f"two operators are registered as {name!r}: {REGISTERED[name].__name__}, {kind.__name__}.")
    REGISTERED[name] = kind
    return kind


def by_unique_name(operators: Iterable[RelationalOperator]) -> dict[str, RelationalOperator]:
    """Label -> operator; equal operators once. The label is the name, with settings where several share the name.

    Everything that is kept by operator is kept by these labels, so that two operators of one name are two.
    """
    values: list[RelationalOperator] = []
    for op in operators:
        if op not in values:
            values.append(op)
    names = [op.name for op in values]
    out: dict[str, RelationalOperator] = {}
    for op in values:
        label = op.name if names.count(op.name) == 1 else op.name + _settings(op)
        same = sum(known == label or known.startswith(f"{label} #") for known in out)
        out[f"{label} #{same + 1}" if same else label] = op
    return out


def _settings(op: RelationalOperator) -> str:
    """The settings that are not the defaults, such as " [degree=3]"."""
    if not is_dataclass(op):
        return ""
    told: list[str] = []
    for f in fields(op):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if (value := getattr(op, f.name)) != default and default is not MISSING:
            told.append(f"{f.name}={value!r}")
    return f" [{', '.join(told)}]" if told else ""


def leave_one_out(fitted: Fitted, context: Context) -> tuple[Array, Array]:
    """:meth:`Adapted.left_out` by adapting P times, for operators without a shorter way; NaN where P is too small."""
    mean, sd = np.full_like(context.y, np.nan), np.full_like(context.y, np.nan)
    if len(context.x) > 1:
        for i in range(len(context.x)):
            try:
                m, s = fitted.adapt(context.without(i)).predict(context.x[i : i + 1])
            except CannotAdaptError:
                continue
            mean[i], sd[i] = m[0], s[0]
    return mean, sd
