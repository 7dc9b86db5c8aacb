"""What the learned operators share: training, storage, anchors, and the mixture over anchors.

They start from an anchor a (a known task that is near on the context) and learn, from ordered pairs of known tasks,
what may be added to it (letters of pairs.py; ``A`` anchors).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Adapted, Context, Decomposition, Fitted, RelationalOperator
from operant.relational.operators.components import Components
from operant.relational.operators.learned.pairs import COMPONENTS, LARGEST, Call, Plan, train

_ANCHORS = 3
"""Known tasks that a target is explained by."""
_SEEDING = Lock()
"""Networks are initialized from torch's global state, which threads share."""


class LearnedOperator(RelationalOperator):
    """A network that is trained on ordered pairs of known tasks."""

    steps: int
    batch: int
    rate: float
    seed: int

    def fit(self, bank: TaskBank) -> FittedLearned:
        """Train on ordered pairs of tasks."""
        return FittedLearned(self, bank, None)

    def from_arrays(self, bank: TaskBank, arrays: Mapping[str, NDArray[Any]]) -> FittedLearned:
        """What :meth:`fit` gave, from its ``to_arrays()`` and the same bank.

        Raises:
            DataError: if the arrays belong to other settings or another kind of bank.
        """
        return FittedLearned(self, bank, arrays)

    @abstractmethod
    def network(self, d: int, c: int, k: int) -> nn.Module:
        """Untrained, for D inputs, C outputs and K bank components."""

    @abstractmethod
    def call(self, net: nn.Module) -> Call:
        """The network as a function of pairs."""

    @abstractmethod
    def adapted(self, fitted: FittedLearned, context: Context) -> Adapted:
        """The trained operator, adapted to a target."""


class FittedLearned(Fitted):
    """A trained network with its bank: anchors for a target, and what is stored."""

    def __init__(self, operator: LearnedOperator, bank: TaskBank, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        self.operator, self.bank = operator, bank
        self.components = Components(bank, COMPONENTS)
        k = self.components(bank.grid()[:1])[1].shape[2]
        with _SEEDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(operator.seed)
            self.net = operator.network(bank.d, bank.c, k)
        if arrays is None:
            plan = Plan(operator.steps, operator.batch, operator.rate, operator.seed)
            self.error = train(self.net, operator.call(self.net), bank, plan)
        else:
            self._restore(arrays)
        self.net.requires_grad_(False)

    def adapt(self, context: Context) -> Adapted:
        """See :meth:`Fitted.adapt`."""
        return self.operator.adapted(self, context)

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        want = self.net.state_dict()
        stored = {k.removeprefix("net."): torch.from_numpy(np.array(v)) for k, v in arrays.items() if k != "error"}
        if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in want.items()}:
            raise DataError(
                f"the stored arrays of {self.operator.name!r} do not fit these settings and this bank: expected "
                f"{len(want)} arrays for D = {self.bank.d} and C = {self.bank.c}, got {sorted(arrays)[:4]}..."
            )
        self.net.load_state_dict(stored)
        self.error = np.asarray(arrays["error"], dtype=np.float64)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What ``from_arrays`` of the operator restores this from, given the bank."""
        return {f"net.{k}": v.numpy().copy() for k, v in self.net.state_dict().items()} | {"error": self.error.copy()}

    def anchors(self, context: Context) -> tuple[NDArray[np.intp], Array]:
        """Positions of the (A,) nearest tasks on the context, and their values (A, P, C) there."""
        values = self.bank.values(context.x)
        order = np.argsort(((values - context.y) ** 2).mean((1, 2)), kind="stable")[:_ANCHORS]
        return order, values[order]

    def few(self, order: NDArray[np.intp]) -> TaskBank:
        """The anchors as a bank; two at least."""
        return self.bank.select(order, method=self.bank.method)

    def expected(self, context: Context, scale2: Array) -> Array:
        """Squared error to expect where the squared scale of the context residual is ``scale2``, from the outer split.

        v^2 (scale^2 + outer split's scale^2) / 2: a single point may lie on an anchor by chance.
        """
        ratio, usual = self.error[:, min(len(context.x), LARGEST) - 1]
        return ratio * (scale2 + usual) / 2


def mixture(mean: Array, variance: Array, weight: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (Q, C) of a mixture of (A, Q, C) with weights (A,)."""
    w = weight[:, None, None]
    center = (w * mean).sum(0)
    return center, np.sqrt((w * (variance + (mean - center) ** 2)).sum(0))


def posterior_weights(square: Array, p: int) -> Array:
    """(A,) posterior weights of explanations with mean squared residuals (A,), the noise integrated out."""
    score = -0.5 * p * np.log(np.maximum(square, 1e-16))
    w = np.exp(score - score.max())
    return w / w.sum()


def explanations(
    name: str, keys: Sequence[Any], phi: Sequence[Array], square: Sequence[float], weight: Array
) -> tuple[Decomposition, ...]:
    """One decomposition an anchor, the most probable first.

    Args:
        name: of the operator.
        keys: of the A anchors.
        phi: of each anchor, (K,).
        square: mean squared residuals on the context.
        weight: (A,) posterior weights.
    """
    found = [
        Decomposition(key, f"{name}, phi = " + ", ".join(f"{v:z.3g}" for v in z), float(np.sqrt(e)), float(w))
        for key, z, e, w in zip(keys, phi, square, weight, strict=True)
    ]
    return tuple(sorted(found, key=lambda d: -d.weight))
