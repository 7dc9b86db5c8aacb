"""Odd strategy strings, odd outcomes for sound strategies, odd probabilities for their losses."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st

from operant import credit
from operant.core.checks import NotDefinedError
from operant.objectives import answer_loss, sft_loss
from operant.strategies import Outcomes, curve, estimate, parse
from torture.fuzz import kind

small = st.integers(1, 6)
rate = st.sampled_from(["0", "0.05", ".2", "0.5", "1", "1e-3", "2", "-1", "nan", "1e400"])
number = st.one_of(
    st.integers(0, 40).map(str),
    st.sampled_from(
        ["", "-1", "0", "1.5", "1e3", "007", "1_000", "9" * 30, "9" * 5000, "1000000", "٣", "²", " 4", "4 "]
    ),
)


@st.composite
def simple(draw: st.DrawFn, n: st.SearchStrategy[Any] = number) -> str:
    """A strategy without parts."""
    a, b, c = draw(n), draw(n), draw(rate)
    fail = draw(st.sampled_from(["", "", ":fail", ":random", ":vote", ":x"]))
    forms = [
        *(f"pass@{a}", f"pass^{a}", f"threshold@{a}:{b}", f"verified@{a}:{c}:0.1{fail}", f"noisy@{a}:{c}:{c}"),
        *(f"topmean@{a}:{b}", f"median@{a}", f"best@{a}", f"maj@{a}{fail}", f"quorum@{a}:{b}:{c}{fail}"),
        *(f"wmaj@{a}", f"wmaj@{a}:{b}", f"top{b}@{a}>maj", f"race@{a}:{b}{fail}", f"lead@{a}:{b}", f"first@{a}:{c}"),
        *(f"table({c}, {c}, 1)", f"rank({c}, {c})", f"table({', '.join(['0.5'] * draw(st.integers(0, 40)))})"),
    ]
    return forms[draw(st.integers(0, len(forms) - 1))]


@st.composite
def over(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """A strategy of others."""
    parts = [draw(inner) for _ in range(draw(st.integers(1, 3)))]
    weight = draw(st.sampled_from(["1", "0.5", "0.25", "0", "-1", "nan", "1e-9", "x", ""]))
    forms = [
        f"mix({', '.join(f'{p}:{weight}' for p in parts)})",
        f"harmonic({parts[0]})",
        f"priced({parts[0]}, {weight})",
        f"mix({', '.join(parts)})",
        "mix(" * draw(st.sampled_from([1, 2, 30, 500])) + parts[0],
        "harmonic(" * draw(st.sampled_from([2, 14, 40, 2000]))
        + parts[0]
        + ")" * draw(st.sampled_from([2, 14, 40, 2000])),
    ]
    return forms[draw(st.integers(0, len(forms) - 1))]


@st.composite
def damaged(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """Characters of a strategy string exchanged."""
    text = draw(texts)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from([*"()@:,>^. 0x9-\n\t\x00", "@@", "mix(", "é"])) + text[place + 1 :]
    return text


grammar = st.recursive(simple(), over, max_leaves=5)
texts = st.one_of(damaged(grammar), grammar, st.text(max_size=30))


@kind("strategy strings", texts, count=80_000, each=0.0015)
def strategy_strings(text: str) -> None:
    """What parses comes back from its own text."""
    s = parse(text)
    assert parse(str(s)) == s, f"{text!r} -> {str(s)!r} -> another strategy"
    assert s.n >= 1


sound = st.recursive(simple(small.map(str)), over, max_leaves=3)
finite = st.sampled_from([0.0, 1.0, 0.5, -1.0, 1e-300, 1e30, 3.0])
wild = st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308])
dtypes = st.sampled_from([torch.float64, torch.float32, torch.float32, torch.int64, torch.bool, torch.float16])


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...], *, binary: bool) -> torch.Tensor:
    """Rewards or scores, sometimes with what must be refused."""
    size = math.prod(shape)
    values = st.sampled_from([0.0, 1.0]) if binary else st.one_of(finite, st.floats(-2, 2, width=32))
    data = [draw(values) for _ in range(size)]
    if size and draw(st.integers(0, 7)) == 0:
        data[draw(st.integers(0, size - 1))] = draw(wild)
        return torch.tensor(data, dtype=torch.float64).reshape(shape)
    return torch.tensor(data, dtype=torch.float64).to(draw(dtypes)).reshape(shape)


@st.composite
def observed(draw: st.DrawFn) -> tuple[str, Any, Any, Any]:
    """A strategy, and rewards, answers and scores that may not go together."""
    shape = draw(st.sampled_from([(2, 6), (1, 4), (3, 8), (6,), (2, 2, 5), (1, 1), (0, 4), (2, 0), ()]))
    other = draw(st.sampled_from([shape, shape, shape, shape, (2, 3), ()]))
    reward = draw(tensors(shape, binary=draw(st.booleans())))
    classes = st.integers(-1 - (draw(st.integers(0, 15)) == 0), 3)
    answer = torch.tensor([draw(classes) for _ in range(math.prod(other))], dtype=torch.int64).reshape(other)
    has = draw(st.integers(0, 3))
    return draw(sound), reward, answer if has else None, draw(tensors(other, binary=False)) if has > 1 else None


@kind("outcomes", observed(), count=20_000, each=0.012)
def outcomes(value: tuple[str, Any, Any, Any]) -> None:
    """Values, credits and curves are finite, or refused."""
    text, reward, answer, score = value
    s, seen = parse(text), Outcomes(reward, answer, score)
    small_enough = bool(
        (reward.double().abs() < 1e20).all() & (reward.double().abs() > 1e-20).logical_or(reward == 0).all()
    )
    found = estimate(s, seen, draws=64).value
    weights = credit(s, seen, draws=64)
    if small_enough and reward.dtype is not torch.float16:
        assert bool(found.isfinite().all()), f"{text}: {found}"
        assert bool(weights.isfinite().all()), f"{text}: {weights}"
    assert weights.shape == seen.reward.shape
    curve(s, seen, None if s.traits.binary else [1])


@st.composite
def probabilities(draw: st.DrawFn) -> tuple[str, torch.Tensor]:
    """A strategy and log-probabilities, some of which are none."""
    values = st.one_of(
        st.sampled_from([0.0, -1e-7, 1e-7, -1e-12, -745.0, -1e4, -1e300, math.nan, math.inf, -math.inf, 0.5]),
        st.floats(-60, 0),
    )
    shape = draw(st.sampled_from([(3,), (1,), (2, 2), (), (0,)]))
    data = [draw(values) for _ in range(math.prod(shape))]
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    return draw(sound), torch.tensor(data, dtype=torch.float64).to(dtype).reshape(shape)


@kind("losses", probabilities(), count=20_000, each=0.004)
def losses(value: tuple[str, torch.Tensor]) -> None:
    """Losses and their slopes are finite, or refused."""
    text, log_p = value
    s = parse(text)
    log_p = log_p.clone().requires_grad_()
    try:
        result = sft_loss(s, log_p)
    except NotDefinedError:
        if log_p.ndim == 0:
            return
        kinds = Outcomes(
            torch.eye(1, log_p.shape[-1])[0].expand(log_p.shape), torch.arange(log_p.shape[-1]).expand(log_p.shape)
        )
        result = answer_loss(s, log_p - math.log(max(1, log_p.shape[-1])), kinds)
    result.sum().backward()
    if log_p.dtype is torch.float64 and log_p.numel() and float(log_p.detach().min()) > -700:
        assert bool(result.isfinite().all()), f"{text}: {result}"
        assert log_p.grad is not None and bool(log_p.grad.isfinite().all()), f"{text}: slope {log_p.grad}"
