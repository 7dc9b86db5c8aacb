"""Logarithms of probabilities and of binomial coefficients, with their accurate domains."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

LOG2 = math.log(2.0)
Table = TypeVar("Table", bound=Callable[..., Tensor])


def graph_constant(function: Table) -> Table:
    """Decorate a function of plain values: torch.compile takes its result as a constant of the graph.

    Sets the mark of ``torch.compiler.assume_constant_result``, which imports the compiler to do so: 1.5 s on
    every ``import operant``.
    """
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x <= 0``; -inf at 0.

    Relative error a few ulp for x in [-inf, 0]: ``log(-expm1(x))`` above -ln 2, ``log1p(-exp(x))`` below
    (Maechler 2012). Both branches are evaluated on arguments where they are finite, so that the branch not
    taken cannot send a NaN into a gradient. At x = 0 the value is -inf and the gradient is not defined;
    callers mask that point.
    """
    near = x > -LOG2
    close = torch.where(near, x, -LOG2)
    far = torch.where(near, -LOG2, x)
    return torch.where(near, torch.log(-torch.expm1(close)), torch.log1p(-torch.exp(far)))


def log_binom(a: Tensor | float, b: Tensor | float) -> Tensor:
    """``log C(a, b)`` for real-valued integers, float64; -inf where b < 0 or b > a (C = 0 there).

    Absolute error about ``a * 1e-15`` (gammaln), so 1e-12 relative on C for a <= 1000.
    """
    x, y = (np.asarray(v.cpu() if isinstance(v, Tensor) else v, dtype=np.float64) for v in (a, b))
    valid = (y >= 0) & (y <= x)
    x, y = np.where(valid, x, 0.0), np.where(valid, y, 0.0)
    value = gammaln(x + 1) - gammaln(y + 1) - gammaln(x - y + 1)
    return torch.from_numpy(np.where(valid, value, -np.inf))


@lru_cache(maxsize=64)
def log_binom_row(n: int) -> Tensor:
    """``log C(n, k)`` for k = 0..n, float64, each correct to an ulp: integers first, then one logarithm."""
    row, c = [], 1
    for k in range(n + 1):
        row.append(math.log(c))
        c = c * (n - k) // (k + 1)
    return torch.tensor(row, dtype=torch.float64)


def xlog(count: Tensor, log_value: Tensor) -> Tensor:
    """``count * log_value`` with ``0 * -inf = 0``; shapes broadcast."""
    zero = count == 0
    return torch.where(zero, 0.0, count * torch.where(zero, -1.0, log_value))
