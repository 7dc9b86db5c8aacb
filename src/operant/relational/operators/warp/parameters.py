"""The parameters of a transformation as one vector, in the scaled units in which they are fitted.

A bank in scaled units has x' = (x - m) / h and y' = (y - c) / d. There the transformation
``y = s f(a x + b) + t + u x`` of the original units is of the same kind, with

    b' = (b + (a - 1) m) / h,    u' = u h / d,    t' = (t + (s - 1) c + u m) / d,

so that a factor which is left out (b = 0, t = 0) still ties b' to a, and t' to s and u.
The vector holds the free ones: log a (D), b' (D), s (C), u' (C D), t' (C).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from operant.core.checks import InputError
from operant.relational.bank.curves import Array
from operant.relational.bank.scaling import Scaling
from operant.relational.bank.tasks import TaskBank
from operant.relational.transforms import Transformation

LARGEST = 50.0
"""An x-scale is at most e to this, and one over it at least: where nothing ties it down, it stays a number."""
ORDER = ("xscale", "xshift", "scale", "trend", "shift")


@dataclass(frozen=True)
class Layout:
    """Which entries of the vector are what.

    Args:
        form: the transformation; free factors make the vector.
        d: inputs.
        c: outputs.
        units: how the scaled units came about.
    """

    form: Transformation
    d: int
    c: int
    units: Scaling

    @classmethod
    def of(cls, form: Transformation, bank: TaskBank) -> Layout:
        """For a bank; one that was not scaled has the units 1.

        Raises:
            InputError: if a pinned factor has neither one value nor one for each input or output.
        """
        one, zero = np.ones, np.zeros
        units = bank.units or Scaling(zero(bank.d), one(bank.d), zero(bank.c), one(bank.c))
        layout = cls(form, bank.d, bank.c, units)
        for kind, value in form.pinned.items():
            if len(value) not in (1, layout.sizes[kind]):
                raise InputError(f"{kind} needs 1 or {layout.sizes[kind]} values for this bank, got {len(value)}.")
        return layout

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Numbers of each kind of factor."""
        return {"xscale": self.d, "xshift": self.d, "scale": self.c, "trend": self.c * self.d, "shift": self.c}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Kind -> its place in the vector; free kinds only."""
        out, at = {}, 0
        for kind in ORDER:
            if kind in self.form.free:
                out[kind] = slice(at, at + self.sizes[kind])
                at += self.sizes[kind]
        return out

    @cached_property
    def size(self) -> int:
        """Length of the vector, T."""
        return sum(self.sizes[k] for k in self.form.free)

    @cached_property
    def nonlinear(self) -> int:
        """How many entries, the first ones, enter the anchor's argument."""
        return sum(self.sizes[k] for k in ("xscale", "xshift") if k in self.form.free)

    @property
    def warped(self) -> bool:
        """Whether the anchor is taken at other points than x, by free or by pinned factors."""
        return self.form.has("xscale") or self.form.has("xshift")

    def identity(self) -> Array:
        """(T,) the vector of the identity."""
        return np.concatenate(
            [np.full(self.sizes[k], float(k == "scale")) for k in ORDER if k in self.form.free] or [[]]
        )

    def _pinned(self, kind: str) -> Array:
        return np.broadcast_to(np.array(self.form.get(kind), dtype=np.float64), (self.sizes[kind],))

    def warp(self, theta: Array) -> tuple[Array, Array]:
        """(.., D) a and b' of vectors (.., T)."""
        at, u = self.slices, self.units
        shape = (*theta.shape[:-1], self.d)
        a = (
            np.exp(np.clip(theta[..., at["xscale"]], -LARGEST, LARGEST))
            if "xscale" in at
            else np.broadcast_to(self._pinned("xscale"), shape)
        )
        if "xshift" in at:
            return a, theta[..., at["xshift"]]
        return a, (self._pinned("xshift") + (a - 1) * u.x_mid) / u.x_half

    def warp_slope(self, a: Array, x: Array) -> Array:
        """(B, Q, D, N) how the argument a x + b' moves with the nonlinear entries, for a (B, D) at (Q, D)."""
        at, out = self.slices, np.zeros((len(a), *x.shape, self.nonlinear))
        each = np.arange(self.d)
        if "xscale" in at:
            tied = 0.0 if "xshift" in at else self.units.x_mid / self.units.x_half
            out[:, :, each, each] = a[:, None] * (x + tied)
        if "xshift" in at:
            out[:, :, each, at["xshift"].start + each] = 1.0
        return out

    def gain(self, theta: Array) -> Array:
        """(B, C) what multiplies the anchor."""
        if "scale" in self.slices:
            return theta[:, self.slices["scale"]]
        return np.broadcast_to(self._pinned("scale"), (len(theta), self.c))

    def design(self, f: Array, x: Array) -> tuple[Array, Array]:
        """What multiplies the linear entries of each output, and the part without them.

        Args:
            f: (.., P, C) anchor at the warped points.
            x: (P, D) points.

        Returns:
            (.., P, C, L) columns, L the linear entries of one output in the order scale, trend (D), shift; and
            (.., P, C) the offset.
        """
        at, units = self.slices, self.units
        tied = "shift" not in at
        lift = units.y_mean / units.y_sd if tied else np.zeros(self.c)
        columns: list[Array] = []
        offset = np.broadcast_to(-lift, f.shape).copy()
        if "scale" in at:
            columns.append((f + lift)[..., None])
        else:
            offset += self._pinned("scale") * (f + lift)
        along = x + (units.x_mid / units.x_half if tied else 0.0)  # (P, D)
        if "trend" in at:
            columns.append(np.broadcast_to(along[:, None, :], (*f.shape, self.d)))
        elif self.form.has("trend"):
            slope = self._pinned("trend").reshape(self.c, self.d) * units.x_half / units.y_sd[:, None]
            offset += along @ slope.T
        if tied:
            offset += self._pinned("shift") / units.y_sd
        else:
            columns.append(np.ones((*f.shape, 1)))
        empty = np.empty((*f.shape, 0))
        return (np.concatenate(columns, axis=-1) if columns else empty), offset

    def linear(self, theta: Array) -> Array:
        """(.., C, L) linear entries, output by output, of vectors (.., T); the order of :meth:`design`."""
        at, lead = self.slices, theta.shape[:-1]
        parts = []
        for kind in ("scale", "trend", "shift"):
            if kind in at:
                parts.append(theta[..., at[kind]].reshape(*lead, self.c, -1))
        return np.concatenate(parts, axis=-1) if parts else np.empty((*lead, self.c, 0))

    def join(self, warp: Array, linear: Array) -> Array:
        """(.., T) the vector of nonlinear entries (.., N) and linear ones (.., C, L)."""
        parts, at = [warp], 0
        for kind in ("scale", "trend", "shift"):
            if kind in self.slices:
                width = self.d if kind == "trend" else 1
                parts.append(linear[..., at : at + width].reshape(*linear.shape[:-2], -1))
                at += width
        return np.concatenate(parts, axis=-1)

    def transformation(self, theta: Array) -> Transformation:
        """The vector (T,) as a transformation in original units."""
        at, u = self.slices, self.units
        a, b = self.warp(theta)
        values: dict[str, list[float]] = {}
        if "xscale" in at:
            values["xscale"] = a.tolist()
        if "xshift" in at:
            values["xshift"] = (b * u.x_half - (a - 1) * u.x_mid).tolist()
        s = theta[at["scale"]] if "scale" in at else self._pinned("scale")
        slope = np.zeros((self.c, self.d))
        if "trend" in at:
            slope = theta[at["trend"]].reshape(self.c, self.d) * u.y_sd[:, None] / u.x_half
            values["trend"] = slope.reshape(-1).tolist()
        elif self.form.has("trend"):
            slope = self._pinned("trend").reshape(self.c, self.d)
        if "scale" in at:
            values["scale"] = s.tolist()
        if "shift" in at:
            values["shift"] = (theta[at["shift"]] * u.y_sd - (s - 1) * u.y_mean - slope @ u.x_mid).tolist()
        return self.form.filled(values)

    def covariance(self, theta: Array, scaled: Array) -> Array:
        """(T, T) covariance of log a, b, s, u and t in original units, from that (T, T) of the vector ``theta`` (T,).

        To first order in a, and exact in the others.
        """
        at, u = self.slices, self.units
        slope = np.eye(self.size)
        if "xshift" in at:
            each = np.arange(at["xshift"].start, at["xshift"].stop)
            slope[each, each] = u.x_half
            if "xscale" in at:
                slope[each, at["xscale"]] = -self.warp(theta)[0] * u.x_mid
        steepness = (u.y_sd[:, None] / u.x_half).reshape(-1)
        if "trend" in at:
            slope[at["trend"], at["trend"]] = np.diag(steepness)
        if "shift" in at:
            slope[at["shift"], at["shift"]] = np.diag(u.y_sd)
            if "scale" in at:
                slope[at["shift"], at["scale"]] = np.diag(-u.y_mean)
            if "trend" in at:
                lever = -steepness.reshape(self.c, self.d) * u.x_mid
                for c in range(self.c):
                    start = at["trend"].start + c * self.d
                    slope[at["shift"].start + c, start : start + self.d] = lever[c]
        return slope @ scaled @ slope.T

    def warp_covariance(self, covariance: Array) -> Array:
        """(2 D, 2 D) the part of :meth:`covariance` on log a and b; zero for factors that are not free."""
        out = np.zeros((2 * self.d, 2 * self.d))
        places = [(place, at) for at, kind in enumerate(("xscale", "xshift")) if (place := self.slices.get(kind))]
        for place, at in places:
            for other, to in places:
                out[at * self.d : (at + 1) * self.d, to * self.d : (to + 1) * self.d] = covariance[place, other]
        return out
