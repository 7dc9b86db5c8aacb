"""Warps of targets and known tasks from one reference, so that they can be compared across anchors.

Targets have different anchors. Each known task is fitted to its neighbor on the side of the reference, and the warps
are composed: if f_k(x) = f_j(a x + b) and f_j(x) = f_0(A x + B), then

    f_k(x) = f_0(A a x + A b + B).

On a logarithmic axis of time, b at a = 1 is the negative logarithm of the shift factor of time-temperature
superposition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from operant.relational.adapted import AdaptedTask
from operant.relational.bank.curves import Array
from operant.relational.bank.splits import position
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import CannotAdaptError, Context, Decomposition
from operant.relational.operators.warp.operator import Z90, FittedWarp, Warp
from operant.relational.transforms import Transformation

# A chain of more tasks says nothing more on a chart, and takes about 20 ms a task.
_MOST = 80
"""Known tasks in the chain, at most, besides the anchors."""


@dataclass(frozen=True, eq=False)
class Warped:
    """One task as f(x) = f_0(a x + b).

    Args:
        a: the x-scale.
        b: the x-shift.
        covariance: (2, 2) of log a and b.
    """

    a: float
    b: float
    covariance: Array

    @classmethod
    def of(cls, found: Decomposition) -> Warped:
        """The warp of a decomposition, from its anchor."""
        t: Transformation = found.transformation
        a, b = (float((t.get(kind) or (0.0,))[0]) for kind in ("xscale", "xshift"))
        return cls(a, b, np.zeros((2, 2)) if found.warp_covariance is None else found.warp_covariance)

    def after(self, outer: Warped) -> Warped:
        """This warp, of an anchor that is ``outer`` itself: A (a x + b) + B. Errors to first order, independent."""
        inner_slope = np.array([[1.0, 0.0], [0.0, outer.a]])
        outer_slope = np.array([[1.0, 0.0], [outer.a * self.b, 1.0]])
        covariance = inner_slope @ self.covariance @ inner_slope.T + outer_slope @ outer.covariance @ outer_slope.T
        return Warped(outer.a * self.a, outer.a * self.b + outer.b, covariance)

    def numbers(self, kinds: Sequence[str]) -> dict[str, float]:
        """Each kind of factor with the ends of its 90 % interval: xshift, xshift_low, xshift_high."""
        half = Z90 * np.sqrt(np.diag(self.covariance))
        a, b = self.a, self.b
        # The interval of a positive factor is symmetric in its logarithm; e to the 50 stands for "unknown".
        spread = float(np.exp(min(half[0], 50.0)))
        ends = {"xscale": (a, a / spread, a * spread), "xshift": (b, b - float(half[1]), b + float(half[1]))}
        return {f"{k}{end}": v for k in kinds for end, v in zip(("", "_low", "_high"), ends[k], strict=True)}


def leading_warp(target: AdaptedTask) -> Decomposition | None:
    """The most probable decomposition of the heaviest operator, if it warps one known task along the only input."""
    weights = target.choice_.weights
    name = max(weights, key=lambda n: weights[n])
    found = next((d for d in target.decompositions_ if d.operator == name), None)
    t = None if found is None else found.transformation
    return found if isinstance(t, Transformation) and (t.has("xshift") or t.has("xscale")) else None


def shift_factors(
    bank: TaskBank, targets: Mapping[str, AdaptedTask], params: Mapping[str, Array | None], reference: str | None = None
) -> dict[str, Any] | None:
    """The record of warps from one reference; None if no target is led by a warp along a single input.

    Args:
        bank: in scaled units.
        targets: name -> target.
        params: name -> its known parameters.
        reference: name of the task of the bank; default the anchor of most targets.
    """
    warps = {key: d for key, t in targets.items() if (d := leading_warp(t)) is not None and d.anchor in bank.keys}
    names = [str(k) for k in bank.keys]
    if not warps or bank.d > 1:
        return None
    anchors = Counter(bank.keys.index(d.anchor) for d in warps.values())
    start = anchors.most_common(1)[0][0] if reference is None else names.index(reference)
    kinds = Counter(tuple(k for k, _ in d.transformation.factors) for d in warps.values()).most_common(1)[0][0]
    form = Transformation(tuple((k, None) for k in kinds))
    chain = _chain(bank, form, start, set(anchors))
    shown = [k for k in ("xscale", "xshift") if any(d.transformation.has(k) for d in warps.values())]
    rows: list[dict[str, Any]] = []
    for i, (warp, anchor) in chain.items():
        rows.append(_row(names[i], True, names[anchor], bank.tasks[i].params, bank) | warp.numbers(shown))
    for key, d in warps.items():
        at = bank.keys.index(d.anchor)
        if at in chain:
            row = _row(key, False, names[at], params[key], bank)
            rows.append(row | Warped.of(d).after(chain[at][0]).numbers(shown))
    return {"kind": "shift_factors", "reference": names[start], "form": str(form), "factors": shown, "rows": rows}


def _row(task: str, known: bool, anchor: str, params: Array | None, bank: TaskBank) -> dict[str, Any]:
    values = {} if params is None else dict(zip(bank.param_names, params.tolist(), strict=True))
    return {"task": task, "known": known, "anchor": anchor, "params": values}


def _chain(bank: TaskBank, form: Transformation, start: int, needed: set[int]) -> dict[int, tuple[Warped, int]]:
    """Position -> warp from the reference and the anchor it was fitted to, outwards from the reference.

    A task that cannot be fitted to its neighbor ends the chain on its side.
    """
    order = [int(i) for i in np.argsort(position(bank), kind="stable")]
    kept = {order[i] for i in np.unique(np.linspace(0, len(order) - 1, min(_MOST, len(order))).astype(int))}
    order = [i for i in order if i in kept | needed | {start}]
    fitted = Warp(form).fit(bank)
    middle = order.index(start)
    chain = {start: (Warped(1.0, 0.0, np.zeros((2, 2))), start)}
    for side in (order[middle + 1 :], order[:middle][::-1]):
        anchor = start
        for i in side:
            try:
                step = _fit(fitted, anchor, i)
            except CannotAdaptError:
                break
            chain[i] = step.after(chain[anchor][0]), anchor
            anchor = i
    return {i: chain[i] for i in order if i in chain}


def _fit(fitted: FittedWarp, anchor: int, task: int) -> Warped:
    """One task of the bank as a warp of another."""
    bank = fitted.bank
    pinned = replace(fitted, operator=replace(fitted.operator, anchor=bank.keys[anchor]))
    known = bank.tasks[task]
    return Warped.of(pinned.adapt(Context(known.x, known.y)).decompositions[0])
