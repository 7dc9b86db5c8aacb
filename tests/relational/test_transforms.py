"""The algebra of transformations: products, texts, JSON, and what they do to a function."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operant.core.checks import InputError, ParseError
from operant.relational.bank.curves import Array
from operant.relational.transforms import (
    KINDS,
    Copy,
    Scale,
    Shift,
    Transformation,
    Trend,
    XScale,
    XShift,
    XWarp,
)

NUMBER = st.floats(-1e6, 1e6, allow_nan=False)
POSITIVE = st.floats(1e-6, 1e6)


@st.composite
def transformations(draw: st.DrawFn) -> Transformation:
    factors = []
    for kind in draw(st.lists(st.sampled_from(KINDS), unique=True)):
        number = POSITIVE if kind == "xscale" else NUMBER
        factors.append((kind, draw(st.none() | st.lists(number, min_size=1, max_size=4).map(tuple))))
    return Transformation(tuple(factors))


@given(transformations())
@settings(max_examples=80, deadline=None)
def test_text_and_json_give_the_same_back(form: Transformation) -> None:
    assert Transformation.parse(str(form)) == form
    assert Transformation.from_json(json.loads(json.dumps(form.to_json()))) == form
    assert set(form.free) | set(form.pinned) == {k for k, _ in form.factors}
    assert all(form.has(k) for k in (*form.free, *form.pinned))


@given(transformations(), st.randoms())
@settings(max_examples=40, deadline=None)
def test_a_product_does_not_depend_on_the_order_of_its_factors(form: Transformation, random) -> None:
    parts = [Transformation((f,)) for f in form.factors]
    random.shuffle(parts)
    product = math.prod(parts, start=Copy())
    assert product == form and product.formula() == form.formula() and hash(product) == hash(form)


def test_how_a_product_reads() -> None:
    form = Shift() * Scale(2.0) * XWarp()
    assert repr(form) == "Shift() * Scale(2) * XShift() * XScale()" and eval(repr(form)) == form  # noqa: S307
    assert str(form) == "shift * scale(2) * xshift * xscale"
    assert form.free == ("shift", "xshift", "xscale") and form.pinned == {"scale": (2.0,)}
    assert form == Transformation.parse(" XWARP*scale( 2 ) * shift")
    assert repr(Copy()) == "Copy()" and str(Copy()) == "copy" == str(Transformation.parse("copy * copy"))
    assert Transformation.parse("trend(1, -2.5e-3)") == Trend(1, -0.0025)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Copy(), "y(x) = f(x)"),
        (Shift() * Scale() * Trend() * XWarp(), "y(x) = s f(a x + b) + u x + t"),
        (Shift(-1.0) * XShift(-0.5), "y(x) = f(x - 0.5) - 1"),
        (Scale(2.0, 3.0) * XScale(1.5), "y(x) = (2, 3) f(1.5 x)"),
    ],
)
def test_formulas(form: Transformation, text: str) -> None:
    assert form.formula() == text


def two(x: Array) -> Array:
    """R^2 -> R^3."""
    return np.column_stack([np.sin(x[:, 0]), x[:, 0] * x[:, 1], np.exp(0.3 * x[:, 1])])


def test_values_are_those_of_the_formula_for_several_inputs_and_outputs() -> None:
    s, t, u = (2.0, -1.0, 0.5), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    a, b = (1.5, 0.7), (-0.2, 0.4)
    form = XScale(*a) * Trend(*u) * Shift(*t) * XShift(*b) * Scale(*s)
    x = np.random.default_rng(0).normal(size=(5, 2))
    y = form.apply(two, x)
    for q in range(5):
        warped = [[a[0] * x[q, 0] + b[0], a[1] * x[q, 1] + b[1]]]
        f = two(np.array(warped))[0]
        for c in range(3):
            along = u[2 * c] * x[q, 0] + u[2 * c + 1] * x[q, 1]  # outputs first
            assert y[q, c] == pytest.approx(s[c] * f[c] + along + t[c])


def test_one_value_stands_for_all_inputs_and_outputs() -> None:
    x = np.random.default_rng(1).normal(size=(4, 2))
    each = Shift(1, 1, 1) * Scale(2, 2, 2) * Trend(3, 3, 3, 3, 3, 3) * XShift(4, 4) * XScale(5, 5)
    assert (Shift(1) * Scale(2) * Trend(3) * XShift(4) * XScale(5)).apply(two, x) == pytest.approx(each.apply(two, x))
    assert Copy().apply(two, x) == pytest.approx(two(x))


def test_free_factors_are_filled() -> None:
    form = Shift() * Scale(2.0)
    assert form.filled({"shift": [3], "scale": [9]}) == Shift(3) * Scale(2)
    assert form.get("scale") == (2.0,) and form.get("xscale") == (1.0,) and form.get("trend") == (0.0,)
    with pytest.raises(InputError, match=r"Shift\(\) is free: give it a value, or fit it"):
        form.apply(lambda x: x, np.ones((1, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shift() * Shift(1.0), "each kind of factor once, both have shift"),
        (lambda: XWarp() * XScale(), "both have xscale"),
        (lambda: XScale(0.0), "XScale must be positive, got"),
        (lambda: XScale(1.0, -2.0), "XScale must be positive, got"),
        (lambda: Scale(math.nan), "Scale must be finite, got"),
        (lambda: Transformation((("twist", None),)), "shift, scale, trend, xshift, xscale; got 'twist'"),
    ],
)
def test_what_is_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "text", ["", "shift *", "twist", "shift(a)", "shift(1", "xwarp(2)", "copy(1)", "shift + scale"]
)
def test_texts_that_are_refused(text: str) -> None:
    with pytest.raises(ParseError, match="expected"):
        Transformation.parse(text)


def test_a_text_with_a_factor_twice_is_refused() -> None:
    with pytest.raises(InputError, match="both have shift"):
        Transformation.parse("shift * shift(1)")
