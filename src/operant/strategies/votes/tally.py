"""Products of class polynomials in which one class wins: the value of votes that are more than a count.

At each level (the winner's votes, or weight) a class is a pair: ``held``, the polynomial of a rival that stays below
the level or ties with weight z, and ``wins``, that of a winner at the level times the mean reward of its votes. The
product is (P, W) (P', W') = (P P', P W' + W P'): after all classes, W is the worth of the vote. Coefficients are
probabilities, so nothing overflows, and nothing but rewards is ever subtracted. Derived here.

Polynomials have two variables (the second counts a tie group, see ``topvote``) and shape (A, D, Z, R): degrees,
nodes of z (see ``plurality.tie_nodes``), and rows, which hold the levels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Pair(NamedTuple):
    """A class, or a product of classes, on one level per row."""

    held: Tensor
    """(A, D, Z, R)"""
    wins: Tensor
    """(A, D, Z, R); Z may be 1"""


def _multiply(x: Pair, y: Pair, most: tuple[int, int]) -> Pair:
    """The product, up to the degrees ``most``."""
    wins = _times(x.held, y.wins, most)
    return Pair(_times(x.held, y.held, most), wins + _times(x.wins, y.held, most))


def all_together(classes: list[Pair], rest: Pair, most: tuple[int, int]) -> Pair:
    """The product of ``rest`` and all classes."""
    for one in classes:
        rest = _multiply(rest, one, most)
    return rest


def each_left_out(classes: list[Pair], rest: Pair, most: tuple[int, int]) -> list[Pair]:
    """For every class the product of ``rest`` and the others, by halves: K log K products."""
    if len(classes) <= 1:
        return [rest] * len(classes)
    half = len(classes) // 2
    left, right = classes[:half], classes[half:]
    return [
        *each_left_out(left, all_together(right, rest, most), most),
        *each_left_out(right, all_together(left, rest, most), most),
    ]


def reader(polynomial: Tensor, degree: int, weight: Tensor) -> Tensor:
    """Q with sum(Q * f) = sum_i weight[i] [x^(degree-i) y^i] polynomial f, for any f; ``weight`` (D, R)."""
    a, d = polynomial.shape[:2]
    out = polynomial.new_zeros(degree + 1, len(weight), *polynomial.shape[2:])
    for i, share in enumerate(weight):
        for h in range(max(0, i - d + 1), i + 1):
            low = max(0, degree - i - a + 1)
            part = polynomial[: degree - i - low + 1, i - h].flip(0)
            out[low : degree - i + 1, h].addcmul_(part, share)
    return out


def _times(x: Tensor, y: Tensor, most: tuple[int, int]) -> Tensor:
    """Product of polynomials in two variables, up to the degrees ``most``; the second may have fewer nodes."""
    a, d = (min(x.shape[i] + y.shape[i] - 2, most[i]) + 1 for i in (0, 1))
    nodes = max(x.shape[2], y.shape[2])
    new = x.new_zeros(a, d, nodes, x.shape[3])
    # Python loops over the degrees of one factor; the rest is vectorized over nodes and rows.
    for i in range(min(y.shape[0], a)):
        for j in range(min(y.shape[1], d)):
            part = x[: a - i, : d - j]
            new[i : i + part.shape[0], j : j + part.shape[1]].addcmul_(part, y[i, j])
    return new
