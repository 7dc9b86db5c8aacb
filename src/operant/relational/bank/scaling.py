"""Between the data's units and the scaled ones in which operators work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from operant.relational.bank.curves import Array


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

        Values are divided by the largest before they are squared: 1e170 squared overflows, 1e-170 squared is zero.
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

    def inverse(self) -> Scaling:
        """The scaling that undoes this one."""
        return Scaling(-self.x_mid / self.x_half, 1 / self.x_half, -self.y_mean / self.y_sd, 1 / self.y_sd)
