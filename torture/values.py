"""Generators that several kinds of input share: odd values, mutated bytes, mutated JSON."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

DEEP: Any = 0
for _ in range(60):
    DEEP = [DEEP]
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf),
    *(2**63, -(2**70), 10**400, "", " ", "x", "1", "nan", "0.5", "\x00", "\ud83d", "\U0001f600", "a" * 3000),
    *([], [[]], {}, [1, 2], {"a": 1}, {"a": {"b": None}}, ["x", None], [math.nan], DEEP, "pass@4", "mix(pass@1:1)"),
]
"""Values that stand where others are expected."""
odd = st.sampled_from(ODD)
scalar = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 300), st.integers(), st.floats(), st.text(max_size=12), odd
)
json_value = st.recursive(
    scalar,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
)


def dumps(value: Any) -> bytes:
    """JSON as a careless writer writes it: NaN, lone surrogates and all."""
    return json.dumps(value, ensure_ascii=True).encode()


def paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value inside a JSON value."""
    found = [before] if before else []
    if isinstance(value, dict):
        return found + [p for k, v in value.items() for p in paths(v, (*before, k))]
    if isinstance(value, list):
        return found + [p for i, v in enumerate(value[:6]) for p in paths(v, (*before, i))]
    return found


@st.composite
def changed_json(draw: st.DrawFn, base: Any, places: Sequence[tuple[Any, ...]]) -> Any:
    """The same value with one to three of its parts removed, doubled, emptied or replaced."""
    value = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 3))):
        place = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.integers(0, 4))
        new = draw(odd) if how < 3 else None
        _change(value, place, how, new)
    return value


def _change(value: Any, place: tuple[Any, ...], how: int, new: Any) -> None:
    *above, last = place
    for key in above:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return
    try:
        if how == 3:
            del value[last]
        elif how == 4 and isinstance(value, list):
            value.insert(last, copy.deepcopy(value[last]))
        elif isinstance(value, (list, dict)):
            value[last] = copy.deepcopy(new)
    except (KeyError, IndexError, TypeError):
        return


BYTES = (
    b"\x00",
    b"\xff",
    b"\n",
    b'"',
    b"{",
    b"}",
    b"[",
    b",",
    b"-",
    b"e",
    b"9" * 400,
    b"NaN",
    b"\xc3\x28",
    b"\r",
    b"\\",
    b"[" * 5000,
    b":",
    b"#",
    b"'",
    b"&a",
    b"*a",
    b"!!python/object/apply:os.system",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
)


@st.composite
def changed_bytes(draw: st.DrawFn, base: bytes) -> bytes:
    """The same bytes with some cut, some put in, some flipped, or in another encoding."""
    data = bytearray(base)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 6)):
            case 0:
                del data[place:]
            case 1:
                del data[place : place + draw(st.integers(1, 40))]
            case 2:
                data[place:place] = draw(st.sampled_from(BYTES))
            case 3 if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case 4:
                data[place:place] = data[max(0, place - draw(st.integers(1, 60))) : place]
            case 5:
                data[place : place + 1] = draw(st.binary(max_size=4))
            case _:
                pass
    other = draw(st.integers(0, 40))
    if other < 3:
        text = data.decode("utf-8", "replace")
        return text.encode(("utf-16", "latin-1", "utf-32")[other], "replace")
    return bytes(data)


def lines(rows: Sequence[Any]) -> bytes:
    """JSON lines."""
    return b"".join(dumps(row) + b"\n" for row in rows)
